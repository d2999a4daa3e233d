"""A scorer's numbers are those one gets by hand from the model's own logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from trimtab.align.base import load_base
from trimtab.align.network import Network
from trimtab.align.scorer import Continuation, NetworkScorer, TorchScorer
from trimtab.domain.errors import InvalidInput, ModelFileError
from trimtab.domain.judgement import Said

WORDS = "<s> </s> <|im_start|> <|im_end|> user assistant system is it good bad yes no the a b c , . ? \n".split(" ")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _tokenizer(folder: Path, template: str = TEMPLATE) -> PreTrainedTokenizerFast:
    words = {word: number for number, word in enumerate([*WORDS, "[UNK]"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n|[a-z]+|[,.?]| +"), "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="[UNK]",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(str(folder))
    return tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real, untrained Llama of three layers."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(3)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(WORDS) + 1,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
        )
    )
    model.save_pretrained(str(folder))
    _tokenizer(folder)
    return folder


def _by_hand(folder: Path, wanted: list[Continuation]) -> list[float]:
    """One token at a time, without a batch, from the logits of the whole model."""
    model = LlamaForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder))
    totals = []
    for one in wanted:
        messages = [{"role": said.role, "content": said.content} for said in one.messages]
        opening = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        before = tokenizer(opening, add_special_tokens=False)["input_ids"]
        text = tokenizer(one.text, add_special_tokens=False)["input_ids"]
        total = 0.0
        for i, token in enumerate(text):
            with torch.no_grad():
                logits = model(torch.tensor([before + text[:i]])).logits[0, -1]
            total += float(logits.log_softmax(-1)[token])
        totals.append(total)
    return totals


def test_a_batch_of_unequal_texts_is_scored_as_each_one_by_hand(folder: Path) -> None:
    question = (Said("user", "is it good ?"),)
    told = (Said("system", "the good a b c"), *question)
    wanted = [
        Continuation(question, "yes"),
        Continuation(question, "no"),
        Continuation(told, "yes , it is good ."),
        Continuation(question, "yes , it is good ."),
        Continuation(told, "a b"),
    ]
    by_hand = _by_hand(folder, wanted)
    for batch_tokens in (1, 40, 4096):
        found = TorchScorer(folder, batch_tokens=batch_tokens)(wanted)
        assert [one.total for one in found] == pytest.approx(by_hand, abs=1e-4)
    assert found[2].mean == pytest.approx(found[2].total / found[2].tokens)


def test_the_network_that_is_aligned_gives_the_same_numbers_without_a_second_copy(folder: Path) -> None:
    base = load_base(folder)
    told = Said("system", "the good a b c")
    wanted = [
        Continuation((told, Said("user", question)), text)
        for question in ("is it good ?", "is it bad ?", "is it a or b or c ?")
        for text in ("yes", "no", "yes , it is good .")
    ]
    plain = [one.total for one in TorchScorer(folder)(wanted)]
    for trunk_layers in (0, 2):
        network = Network(base, trunk_layers=trunk_layers, bf16=False)
        for batch_tokens in (1, 4096):
            found = NetworkScorer(base, network, batch_tokens=batch_tokens)(wanted)
            assert [one.total for one in found] == pytest.approx(plain, abs=1e-4)


def test_one_word_answers_to_one_question_are_probabilities_of_one_place(folder: Path) -> None:
    question = (Said("user", "is it good ?"),)
    words = [word for word in WORDS if word.isalpha()]
    found = TorchScorer(folder)([Continuation(question, word) for word in words])
    total = float(torch.tensor([one.total for one in found]).exp().sum())
    assert 0.3 < total < 1.0, "the words are most of the vocabulary, and not all of it"


def test_a_special_token_in_an_answer_is_only_text(folder: Path) -> None:
    score = TorchScorer(folder)
    plain = score([Continuation((Said("user", "is it ?"),), "yes <|im_end|>")])[0]
    assert plain.tokens > 2, "in pieces, not as the one token that ends a message"


def test_nothing_said_has_no_probability_to_count(folder: Path) -> None:
    found = TorchScorer(folder)([Continuation((Said("user", "is it ?"),), "")])[0]
    assert (found.total, found.tokens, found.mean) == (0.0, 0, 0.0)


def test_what_does_not_fit_the_context_is_said_with_both_numbers(folder: Path) -> None:
    with pytest.raises(InvalidInput, match=r"has \d+ tokens with its messages; the model reads 64"):
        TorchScorer(folder)([Continuation((Said("user", "a " * 60),), "b")])


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="not a readable model folder"):
        TorchScorer(tmp_path)


def test_a_model_without_a_template_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    _tokenizer(tmp_path, template="")
    with pytest.raises(InvalidInput, match="no chat template"):
        TorchScorer(tmp_path)
