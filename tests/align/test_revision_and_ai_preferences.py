"""The two stages of RLAIF: revisions that can be used, and preferences that stand beside people's."""

from __future__ import annotations

from dataclasses import replace

import pytest
from opinions import Believer

from trimtab.align import bundled
from trimtab.align.ai_preferences import Responses, mix, preferences_from
from trimtab.align.constitution import Constitution, Principle
from trimtab.align.judge import Judge
from trimtab.align.reviser import Reviser, Verdict
from trimtab.align.revision import Draft, Revision, red_team_prompts, sampled, usable
from trimtab.align.writer import ChatWriter
from trimtab.domain.errors import InvalidInput
from trimtab.domain.judgement import Judgement, Kind, Said, Source
from trimtab.llm.scripted import ScriptedModel

CONSTITUTION = Constitution.load()
KIND = replace(CONSTITUTION["kind"], bad="You are rude.")
HARMLESS = CONSTITUTION["harmless"]
ASKED = (Said("user", "How do I open this jar?"),)
RUDE = "Figure it out yourself."
VERDICT = Verdict(Judge(Believer()), "contrast")


def _writer(*replies: str) -> ChatWriter:
    return ChatWriter(ScriptedModel(list(replies)))


def revised(
    prompt: tuple[Said, ...],
    answer: str,
    principle: Principle,
    chat: ChatWriter,
    *,
    verdict: Verdict | None = None,
    stronger: ChatWriter | None = None,
    seed: int = 0,
    constitution: str = "",
) -> Revision | None:
    """One answer's."""
    verdicts = {principle.id: verdict} if verdict else {}
    reviser = Reviser(verdicts, chat=chat, stronger=stronger, constitution=constitution)
    return reviser([Draft(prompt, answer, principle, seed)])[0]


def test_a_model_that_can_revise_revises_its_own_answer() -> None:
    found = revised(
        ASKED, RUDE, KIND, _writer("It blames.", "Run it under hot water, please."), verdict=VERDICT, constitution="c1"
    )
    assert found is not None
    assert (found.by, found.critique, found.text) == ("model", "It blames.", "Run it under hot water, please.")
    assert found.margin is not None
    assert found.margin > 0
    learned, preferred = found.demonstration(), found.preference()
    assert (learned.kind, learned.source, learned.person) == (Kind.DEMONSTRATION, Source.CONSTITUTION, "kind")
    assert (preferred.completion, preferred.rejected) == (found.text, RUDE)
    assert preferred.about["constitution"] == "c1"


def test_the_critic_reads_the_answer_and_the_principle_and_the_reviser_reads_the_critique() -> None:
    model = ScriptedModel(["It blames.", "Hot water, please."])
    revised(ASKED, RUDE, KIND, ChatWriter(model), verdict=VERDICT)
    first, second = ([str(message.content) for message in asked.messages] for asked in model.asked)
    assert first[:2] == [ASKED[0].content, RUDE]
    assert KIND.text in first[2]
    assert KIND.critique in first[2]
    assert "It blames." in second
    assert KIND.revise in second[-1]


@pytest.mark.parametrize("useless", ["", "  ", RUDE, "figure it out, yourself!", "Go away.", "please " * 400])
def test_a_revision_that_cannot_be_used_is_asked_of_the_stronger_model(useless: str) -> None:
    stronger = _writer("It blames.", "Hot water, please.")
    found = revised(ASKED, RUDE, KIND, _writer("Hm.", useless), verdict=VERDICT, stronger=stronger)
    assert found is not None
    assert (found.by, found.text) == ("stronger", "Hot water, please.")
    assert not found.demonstration().ours


def test_without_a_judge_nothing_says_that_the_models_own_revision_is_better() -> None:
    assert revised(ASKED, RUDE, KIND, _writer("Hm.", "Hot water, please.")) is None
    trusted = revised(ASKED, RUDE, KIND, _writer(), stronger=_writer("Hm.", "Hot water."))
    assert trusted is not None
    assert (trusted.by, trusted.margin) == ("stronger", None)


def test_a_revision_that_is_only_better_than_a_bad_answer_does_not_beat_the_template() -> None:
    """Of two bad answers one is always better; a template that the judge likes as much is safer."""
    polite = replace(KIND, templates=("Let me help you, please.",))
    found = revised(ASKED, RUDE, polite, _writer("Hm.", "please of of please"), verdict=VERDICT)
    assert found is not None
    assert (found.by, found.text) == ("template", "Let me help you, please.")


def test_a_loop_is_no_revision() -> None:
    loop = "The answer I gave is: " * 8
    assert not usable(RUDE, loop, KIND)
    demonstrations = [row.completion for row in bundled.load_bundled() if row.kind is Kind.DEMONSTRATION]
    assert all(usable(RUDE, text, KIND) for text in demonstrations), "and what people write is none"


def test_an_echo_of_the_request_is_no_revision() -> None:
    assert not usable(RUDE, f"Sure! {KIND.revise}", KIND)
    assert usable(RUDE, "Hot water, please.", KIND)


def test_where_nobody_can_revise_a_template_of_the_principle_stands_in() -> None:
    harmful = red_team_prompts()[0]
    found = revised(harmful, "Sure, here is how.", HARMLESS, _writer("Hm.", ""), seed=4)
    assert found is not None
    assert found.by == "template"
    assert found.text in HARMLESS.templates
    again = revised(harmful, "Sure, here is how.", HARMLESS, _writer("Hm.", ""), seed=4)
    assert again == found, "the same seed, the same template"
    others = {
        getattr(revised(harmful, "Sure.", HARMLESS, _writer("Hm.", ""), seed=seed), "text", "") for seed in range(12)
    }
    assert len(others) == len(HARMLESS.templates), "not always the first: one phrase would be learned by heart"


def test_a_rambling_answer_is_cut_at_its_second_sentence() -> None:
    answer = 'Use hot water. It "helps a lot." And then there was a king who had a jar and a very long'
    found = revised(ASKED, answer, CONSTITUTION["brief"], _writer("Hm.", ""))
    assert found is not None
    assert found.text == 'Use hot water. It "helps a lot."'
    assert revised(ASKED, "a jar without end", CONSTITUTION["brief"], _writer("Hm.", "")) is None


def test_nothing_usable_means_no_revision_and_not_a_bad_one() -> None:
    assert revised(ASKED, RUDE, KIND, _writer("Hm.", "Go away."), verdict=VERDICT) is None


def test_principles_are_sampled_for_the_kind_of_prompt() -> None:
    drawn = {getattr(sampled(CONSTITUTION, "decline", seed=seed), "id", "") for seed in range(30)}
    assert drawn == {"harmless", "kind"}
    assert sampled(CONSTITUTION, "decline", seed=7) == sampled(CONSTITUTION, "decline", seed=7)
    empty = replace(CONSTITUTION, principles=(CONSTITUTION["brief"],))
    assert sampled(empty, "decline", seed=0) is None


def test_red_team_prompts_are_never_those_of_the_test() -> None:
    red = set(red_team_prompts())
    assert len(red) >= 35
    held_out = {prompt.prompt for split in ("validation", "test") for prompt in bundled.prompts(split)}
    assert not red & held_out
    assert not red & {probe.prompt for probe in bundled.probes().harmful}


@pytest.mark.parametrize("form", ["contrast", "choice"])
def test_of_several_answers_the_best_is_preferred_to_a_worse_one(form: str) -> None:
    responses = [
        Responses(ASKED, (RUDE, "Hot water, please.", "Go away."), model="v3", about={"split": "train"}),
        Responses((Said("user", "Where?"),), ("Over there.", "Over there.", " "), model="v3"),
    ]
    rows = preferences_from(responses, KIND, Judge(Believer()), form, constitution=CONSTITUTION.version)
    assert len(rows) == 1, "a prompt with one distinct answer gives none"
    row = rows[0]
    assert row.completion == "Hot water, please."
    assert row.rejected in (RUDE, "Go away.")
    assert (row.source, row.person, row.version) == (Source.CONSTITUTION, "kind", "v3")
    assert (row.about["form"], row.about["split"], row.about["constitution"]) == (form, "train", CONSTITUTION.version)
    assert rows == preferences_from(responses, KIND, Judge(Believer()), form, constitution=CONSTITUTION.version)


def test_a_tie_gives_no_preference() -> None:
    tie = [Responses(ASKED, ("Go.", "Away."))]
    assert preferences_from(tie, KIND, Judge(Believer()), "pointwise") == []
    close = [Responses(ASKED, ("Go.", "Yes please."))]
    assert preferences_from(close, KIND, Judge(Believer()), "contrast", least=100.0) == []


def _row(number: int, source: Source, better: str = "a", worse: str = "b") -> Judgement:
    return Judgement(f"{source}{number}", Kind.PREFERENCE, (Said("user", str(number)),), better, worse, source=source)


def test_people_and_the_constitution_are_mixed_with_the_weights_that_were_stated() -> None:
    human = [_row(number, Source.PERSON) for number in range(10)]
    ai = [_row(number, Source.CONSTITUTION) for number in range(100, 190)]
    mixed = mix(human, ai, human_weight=3, ai_weight=1)
    say = {source: sum(row.weight for row in mixed if row.source is source) for source in Source}
    assert say[Source.PERSON] == pytest.approx(3 * say[Source.CONSTITUTION])
    assert sum(row.weight for row in mixed) == pytest.approx(len(mixed)), "on average 1"


def test_with_no_weight_a_source_is_left_out_and_alone_it_keeps_its_own() -> None:
    human, ai = [_row(1, Source.PERSON)], [_row(2, Source.CONSTITUTION)]
    assert mix(human, ai, ai_weight=0) == human
    assert mix([], ai, human_weight=3, ai_weight=1) == ai
    with pytest.raises(InvalidInput, match="must be zero or more"):
        mix(human, ai, human_weight=0, ai_weight=0)


def test_where_a_person_says_the_opposite_the_judge_is_not_heard() -> None:
    human = [_row(1, Source.PERSON, "a", "b")]
    ai = [_row(1, Source.CONSTITUTION, "b", "a"), _row(2, Source.CONSTITUTION, "b", "a")]
    assert [row.id for row in mix(human, ai)] == ["person1", "constitution2"]
