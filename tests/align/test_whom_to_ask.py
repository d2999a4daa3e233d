"""The Label page asks where the reward models are unsure, or where they and people disagree."""

from __future__ import annotations

from pathlib import Path

from test_labelling_stories import Someone, person

from planted import reward_job
from scripted_app import app_with, follow, new_thread
from trimtab.align.queue import unsure
from trimtab.api.server import create_app
from trimtab.app import Trimtab
from trimtab.domain.model import Profile
from trimtab.scoring import Bench
from trimtab.store import people, threads

SMALL = Profile(name="small", tools="none", grounding="quote")
ANSWERS = ["the harbour keeper walked over", "no", "that other lamp, over there", "lamp lamp lamp lamp", "the keeper"]


async def asked_for(me: Someone, app: Trimtab, **params: str) -> str:
    """The answer that is asked about now, when the reward models have read what they were shown."""
    await me.next(**params)
    await app.rewards.settled()
    item = await me.next(**params)
    assert item is not None
    return str(item["answers"][0]["text"])


async def test_first_where_the_reward_model_is_unsure_then_where_the_judge_and_somebody_disagree(
    tmp_path: Path,
) -> None:
    bench = Bench(reward_job(tmp_path).folder)
    asked = [{"prompt": [["user", "Where to?"]], "texts": [text], "label": "helpful"} for text in ANSWERS]
    chances, judged = bench.opinion(bench.reward, asked), bench.opinion(bench.judge, asked)  # type: ignore[arg-type]
    doubt = {text: unsure(chance) for text, chance in zip(ANSWERS, chances, strict=True)}
    async with app_with(ANSWERS, tmp_path, profile=SMALL, label_others=True) as app:
        web = create_app(app)
        async with person(app, web=web) as me, person(app, "bob", web) as bob:
            said = {}
            for text in ANSWERS:
                answer = await me.answer("Where to?")
                said[text] = answer["id"]
            assert await asked_for(me, app) == max(doubt, key=doubt.__getitem__)
            # Bob contradicts the judge where the reward model has the least doubt.
            sure = min(doubt, key=doubt.__getitem__)
            value = int(judged[ANSWERS.index(sure)] < 0.5)
            await bob.say(kind="thumb", message_id=said[sure], value=value)
            odds = abs(judged[ANSWERS.index(sure)] - value)
            others = max(worth for text, worth in doubt.items() if text != sure)
            assert (await asked_for(me, app) == sure) == (max(odds, doubt[sure]) > others)
            assert odds > 0.5


async def test_of_two_answers_those_are_asked_about_first_that_it_likes_nearly_the_same(tmp_path: Path) -> None:
    bench = Bench(reward_job(tmp_path).folder)
    async with app_with(ANSWERS[:4], tmp_path, profile=SMALL) as app:
        owner = await app.database.write(people.ensure_user, "local")
        pairs = []
        for question, two in (("Where to?", ANSWERS[:2]), ("And then?", ANSWERS[2:4])):
            thread = await new_thread(app, owner)
            await follow(app, await app.post(owner, thread, question))
            first = (await app.database.read(threads.path, owner, thread))[-1]
            await follow(app, await app.regenerate(owner, first["id"]))
            pairs.append({"prompt": [["user", question]], "texts": two, "label": ""})
        doubt = [unsure(chance) for chance in bench.opinion(bench.reward, pairs)]
        assert abs(doubt[0] - doubt[1]) > 0.01
        async with person(app) as me:
            asked = await asked_for(me, app, mode="compare")
    assert asked in pairs[doubt.index(max(doubt))]["texts"]
