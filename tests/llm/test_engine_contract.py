"""What every engine promises. An engine that joins adds one line to `ENGINES` and passes all of this."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from engines import ENGINES, Made, chat, headers, until
from trimtab.domain.errors import EngineDied, EngineError, EngineRefused, InvalidInput, ModelFileError, TooLarge
from trimtab.domain.model import Sampling
from trimtab.llm.engine import EngineOptions, EngineState
from trimtab.llm.openai_chat import OpenAIChat
from trimtab.llm.openvino import OpenVinoEngine
from trimtab.llm.tokens import counter_for

pytestmark = pytest.mark.model

SHARED = {"llamacpp": "engine", "openvino": "openvino_engine"}
LONG = Sampling(temperature=0.8, max_tokens=1500, seed=3)
STORY = "Tell me a very long story about a lighthouse keeper, with many chapters."


@pytest.fixture(params=sorted(ENGINES))
def running(request: pytest.FixtureRequest) -> Made:
    """An engine that other tests use, too."""
    found: Made = request.getfixturevalue(SHARED[request.param])
    return found


@pytest.fixture(params=sorted(ENGINES))
def make(request: pytest.FixtureRequest) -> Callable[..., Made]:
    """Makes engines of each kind."""
    kind = ENGINES[request.param]
    if kind is OpenVinoEngine:
        return partial(OpenVinoEngine, cache_dir=request.getfixturevalue("converted_model").parent)
    return kind


@pytest.fixture(scope="module")
def hurt_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hurt") / "engine.log"


@pytest.fixture(scope="module", params=sorted(ENGINES))
def hurt(request: pytest.FixtureRequest, chat_model_path: Path, hurt_log: Path) -> Iterator[Made]:
    """An engine to be hurt, one after the other: starting one takes seconds."""
    kind = ENGINES[request.param]
    file = request.getfixturevalue("converted_model") if kind is OpenVinoEngine else chat_model_path
    made = kind(file, EngineOptions(slots=2, slot_context=2048, health_seconds=0.5, backoff_cap=0.5), hurt_log)
    yield made
    asyncio.run(made.stop())


@pytest.fixture
async def own(hurt: Made) -> Made:
    """It, up again."""
    await hurt.start()
    await until(lambda: hurt.status().state is EngineState.READY, 10)
    return hurt


async def back(engine: Made, crashes: int) -> None:
    """Wait until it is there again after having been hurt: the promise is ten seconds."""
    await until(lambda: engine.status().crashes == crashes and engine.status().state is EngineState.READY, 10)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def rests(pid: int) -> None:
    """Wait until an engine stops computing, which must be long before what it was asked for would be done."""
    began = cpu_seconds(pid)
    before, now = -1.0, began
    while now - before > 0.05:
        assert now - began < 5, "the engine is still working for nobody"
        before = now
        await asyncio.sleep(0.5)
        now = cpu_seconds(pid)


def children(pid: int) -> list[int]:
    """Processes that a process has started, theirs too."""
    own = [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return own + [p for child in own for p in children(child)]


def gone(pid: int) -> bool:
    try:
        return ") Z" in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


async def test_a_question_is_answered_with_usage_and_a_reason_for_ending(running: Made) -> None:
    answer = await chat(running).ainvoke("Say hello.")
    assert answer.text.strip()
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["input_tokens"] > 5
    assert 0 < answer.usage_metadata["output_tokens"] <= 24
    assert answer.response_metadata["finish_reason"] in ("stop", "length")


async def test_the_answer_ends_for_length_when_its_tokens_are_used_up(running: Made) -> None:
    answer = await chat(running).ainvoke(STORY, max_tokens=6)
    assert answer.response_metadata["finish_reason"] == "length"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 6


async def test_a_stream_gives_the_same_text_in_pieces_and_its_usage_at_the_end(running: Made) -> None:
    pieces = [c async for c in chat(running).astream("Count from one to ten.")]
    texts = [p.text for p in pieces if p.text]
    assert len(texts) > 1  # a reader who comes late gets several tokens at once
    assert [p.usage_metadata["output_tokens"] for p in pieces if p.usage_metadata]
    assert "".join(texts) == (await chat(running).ainvoke("Count from one to ten.")).text


async def test_plain_completion_continues_a_text(running: Made) -> None:
    async with httpx.AsyncClient(timeout=60) as client:
        body = {"model": running.name, "prompt": "One, two, three, four,", "max_tokens": 6, "temperature": 0}
        answer = await client.post(running.base_url + "/completions", json=body, headers=headers(running))
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["text"].strip()


async def test_a_stop_string_ends_the_answer_and_is_not_in_it(running: Made) -> None:
    whole = (await chat(running).ainvoke("Count from one to ten.")).text
    word = whole.split()[2]
    answer = await chat(running).ainvoke("Count from one to ten.", stop=[word])
    assert word not in answer.text
    assert answer.response_metadata["finish_reason"] == "stop"
    assert whole.startswith(answer.text)


async def test_one_seed_gives_one_text_and_seeds_differ(running: Made) -> None:
    warm = chat(running, Sampling(temperature=1.2, max_tokens=24))
    texts = [(await warm.ainvoke("Invent a name for a ship and describe it.", seed=s)).text for s in (7, 7, 8, 9)]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


async def test_a_schema_is_kept_to(running: Made) -> None:
    assert running.capabilities.json_schema
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 40}, "days": {"type": "integer"}},
        "required": ["city", "days"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "trip", "schema": schema}}
    answer = await chat(running).ainvoke("Three days in Paris, please. As JSON:", response_format=form, max_tokens=64)
    found = json.loads(answer.text)
    assert set(found) == {"city", "days"}
    assert isinstance(found["days"], int)


async def test_a_grammar_is_kept_to(running: Made) -> None:
    assert running.capabilities.grammar
    grammar = {"grammar": 'root ::= "perhaps" | "never"'}
    assert (await chat(running).ainvoke("Is Paris in France?", extra_body=grammar)).text in ("perhaps", "never")


async def test_logprobs_come_with_each_token(running: Made) -> None:
    assert running.capabilities.logprobs
    answer = await chat(running).ainvoke("Say hello.", logprobs=True, max_tokens=4)
    tokens = answer.response_metadata["logprobs"]["content"]
    assert answer.usage_metadata is not None
    assert len(tokens) == answer.usage_metadata["output_tokens"]
    assert all(token["logprob"] <= 0 for token in tokens)


async def test_the_likeliest_other_tokens_come_too_or_are_refused(running: Made) -> None:
    asked = chat(running).ainvoke("Say hello.", logprobs=True, top_logprobs=3, max_tokens=4)
    if not running.capabilities.top_logprobs:
        with pytest.raises(EngineRefused, match="top_logprobs"):
            await asked
        return
    for token in (await asked).response_metadata["logprobs"]["content"]:
        tops = [t["logprob"] for t in token["top_logprobs"]]
        assert len(tops) == 3
        assert tops == sorted(tops, reverse=True)


async def test_a_prompt_that_begins_like_an_earlier_one_is_not_read_again(running: Made) -> None:
    assert running.capabilities.prefix_cache
    start = "The keeper of the archive wrote down everything that happened on the island. " * 12
    await chat(running).ainvoke(start + "What was written?", max_tokens=2)
    answer = await chat(running).ainvoke(start + "Who wrote?", max_tokens=2)
    assert answer.usage_metadata is not None
    cached = answer.usage_metadata["input_token_details"]["cache_read"]
    assert cached > 0.8 * answer.usage_metadata["input_tokens"]


async def test_a_disconnected_client_stops_the_generation(running: Made) -> None:
    assert running.capabilities.cancel
    pid = running.status().pid
    assert pid is not None

    async def read() -> None:
        async for _ in chat(running, LONG).astream(STORY):
            first.set()

    first = asyncio.Event()
    task = asyncio.create_task(read())
    await asyncio.wait_for(first.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await rests(pid)


async def test_a_client_that_leaves_while_its_prompt_is_read_frees_the_engine(own: Made) -> None:
    """The server notices and finishes the batch it is at; reading on would take twice as long."""
    pid = own.status().pid
    assert pid is not None
    task = asyncio.create_task(chat(own).ainvoke("The keeper wrote down everything on the island in 1823. " * 120))
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await rests(pid)


async def test_a_wrong_key_is_refused_everywhere(running: Made) -> None:
    with pytest.raises(EngineRefused, match="key"):
        await OpenAIChat(base_url=running.base_url, api_key="wrong", model="m").ainvoke("hi")
    root = running.base_url.removesuffix("/v1")
    async with httpx.AsyncClient() as client:
        for path in ("/v1/models", "/props", "/slots", "/metrics", "/tokenize", "/v1/completions", "/lora-adapters"):
            for given in ({}, {"Authorization": "Bearer wrong"}):
                assert (await client.get(root + path, headers=given)).status_code in (401, 404), path


async def test_the_key_is_in_no_argument_list_and_no_environment(running: Made) -> None:
    pid = running.status().pid
    secret = running.key.get_secret_value().encode()
    assert secret not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert secret not in Path(f"/proc/{pid}/environ").read_bytes()


async def test_eight_streams_at_once_all_come_to_their_end(running: Made) -> None:
    async def one(number: int) -> str:
        ends = [c async for c in chat(running).astream(f"Say something about the number {number}.", max_tokens=16)]
        assert ends[-1].response_metadata["finish_reason"] in ("stop", "length")
        return "".join(c.text for c in ends)

    texts = await asyncio.gather(*(one(n) for n in range(8)))
    assert all(t.strip() for t in texts)


async def test_a_slot_has_the_context_that_was_asked_for(running: Made) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.get(running.base_url + "/models", headers=headers(running))
    assert answer.json()["data"][0]["meta"]["n_ctx"] == running.slot_context == running.status().slot_context


async def test_special_tokens_in_a_persons_text_stay_text(running: Made) -> None:
    """As text they cost several tokens; read as special they would cost one each."""
    token = "<|im_start|>"
    assert (token in running.special_tokens) != running.capabilities.literal_text

    async def length(model: OpenAIChat, text: str) -> int:
        usage = (await model.ainvoke(text, max_tokens=1)).usage_metadata
        assert usage is not None
        return usage["input_tokens"]

    safe, naive = chat(running), chat(running).model_copy(update={"special_tokens": ()})
    plain = await length(safe, "x  y")
    if not running.capabilities.literal_text:
        assert await length(naive, f"x {token * 10} y") == plain + 10, "special tokens are no longer read: simplify"
    assert await length(safe, f"x {token * 10} y") > plain + 50


async def test_token_counts_are_the_engines_own(running: Made) -> None:
    texts = [
        "Hello world", "  two  spaces\n\n\ttab", "1234567 8,900.50", "don't we'll I'm", "naïve café — “quoted”",
        "def f(x):\n    return x ** 2\n", "日本語のテキスト 🙂👍🏽", "<|im_start|>system", "", "a" * 500,
        "Ω≈ç√∫˜µ≤≥÷ ٣٤٥",
    ]  # fmt: skip
    counted = counter_for(running.model_path)(texts)
    async with httpx.AsyncClient(timeout=30) as client:
        for text, count in zip(texts, counted, strict=True):
            body = {"content": text, "add_special": False, "parse_special": False}
            root = running.base_url.removesuffix("/v1")
            answer = await client.post(root + "/tokenize", json=body, headers=headers(running))
            assert len(answer.json()["tokens"]) == count, text


async def test_a_killed_engine_is_a_typed_error_and_back_within_ten_seconds_each_time(own: Made) -> None:
    first = asyncio.Event()

    async def read() -> None:
        async for _ in chat(own, LONG).astream(STORY):
            first.set()

    address, pid, crashes = own.base_url, own.status().pid, own.status().crashes
    task = asyncio.create_task(read())
    await asyncio.wait_for(first.wait(), 60)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(EngineDied):
        await asyncio.wait_for(task, 5)
    with pytest.raises(EngineError):
        await chat(own).ainvoke("hi")
    await back(own, crashes + 1)
    assert (await chat(own).ainvoke("Say hello.", max_tokens=2)).text
    assert own.base_url == address
    again = own.status().pid
    assert again is not None
    assert again != pid
    os.kill(again, signal.SIGKILL)
    await back(own, crashes + 2)
    assert (await chat(own).ainvoke("Say hello.", max_tokens=2)).text


async def test_a_killed_half_of_the_engine_takes_the_other_along_and_both_come_back(own: Made) -> None:
    pid, crashes = own.status().pid, own.status().crashes
    assert pid is not None
    halves = children(pid)
    if not halves:
        pytest.skip("one process only")
    os.kill(halves[0], signal.SIGKILL)
    await back(own, crashes + 1)
    assert (await chat(own).ainvoke("Say hello.", max_tokens=2)).text


async def test_an_engine_that_hangs_is_replaced(own: Made) -> None:
    pid, crashes = own.status().pid, own.status().crashes
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    await until(lambda: own.status().crashes == crashes + 1, 25)
    await back(own, crashes + 1)
    assert own.status().pid != pid


@pytest.mark.parametrize("kind", sorted(ENGINES))
async def test_the_engine_ends_when_its_parent_is_killed(
    kind: str, chat_model_path: Path, converted_model: Path
) -> None:
    made = ENGINES[kind]
    file = converted_model if made is OpenVinoEngine else chat_model_path
    program = (
        "import asyncio, sys, time\nfrom pathlib import Path\n"
        f"from {made.__module__} import {made.__name__} as Engine\n"
        "e = Engine(Path(sys.argv[1]))\nasyncio.run(e.start())\nprint(e.status().pid, flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(file)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(await asyncio.to_thread(parent.stdout.readline))
        assert Path(f"/proc/{pid}").exists()
        family = [pid, *children(pid)]
        parent.kill()
    await until(lambda: all(gone(p) for p in family), 5)


async def test_metrics_tell_what_was_done_to_whoever_has_the_key(own: Made) -> None:
    async with httpx.AsyncClient(timeout=30) as client:
        url = own.base_url.removesuffix("/v1") + "/metrics"
        if not own.capabilities.metrics:
            assert (await client.get(url, headers=headers(own))).status_code in (401, 404, 501)
            return
        before = values(await client.get(url, headers=headers(own)))
        answer = await chat(own).ainvoke("Say hello. " * 40, max_tokens=4)
        await chat(own).ainvoke("Say hello. " * 40, max_tokens=4)
        after = values(await client.get(url, headers=headers(own)))
        assert (await client.get(url)).status_code == 401
    assert answer.usage_metadata is not None
    done = {name: after[name] - before[name] for name in after}
    assert done["requests_total"] == done["first_token_seconds_count"] == 2
    assert done["prompt_tokens_total"] == 2 * answer.usage_metadata["input_tokens"]
    assert done["prompt_tokens_cached_total"] > 64
    assert after["requests_running"] == 0


def values(answer: httpx.Response) -> dict[str, float]:
    lines = (line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
    return {name.removeprefix("trimtab_engine_"): float(value) for name, value in lines}


async def test_an_engine_that_stops_ends_well_and_can_start_again(own: Made, hurt_log: Path) -> None:
    """What it is at is finished (where it can), no process stays, and its log has neither the key nor the questions."""
    await chat(own).ainvoke("My password is swordfish-9000.", max_tokens=2)
    with pytest.raises(TooLarge, match="too long"):
        await chat(own).ainvoke("swordfish-9000 " * 4000)
    first = asyncio.Event()

    async def read() -> str:
        text = ""
        async for piece in chat(own).astream("Count from one to ten.", max_tokens=10):
            text += piece.text
            first.set()
        return text

    pid = own.status().pid
    assert pid is not None
    family = [pid, *children(pid)]
    task = asyncio.create_task(read())
    await asyncio.wait_for(first.wait(), 60)
    await own.stop()
    if own.capabilities.metrics:  # llama.cpp's server has no drain
        assert await task
    else:
        await asyncio.gather(task, return_exceptions=True)
    assert own.status().state is EngineState.STOPPED
    await until(lambda: all(gone(p) for p in family), 5)
    assert not await own.health()
    log = hurt_log.read_text()
    assert own.key.get_secret_value() not in log
    assert "swordfish" not in log
    await own.start()
    assert (await chat(own).ainvoke("Say hello.", max_tokens=2)).text


async def first_logprob(engine: Made, prompt: str, active: dict[int, float]) -> float:
    """Of the likeliest first word of an answer with these adapters: shows whether they are at work."""
    extra = engine.adapters_body(active)
    answer = await chat(engine).ainvoke(prompt, max_tokens=1, logprobs=True, extra_body=extra)
    return float(answer.response_metadata["logprobs"]["content"][0]["logprob"])


async def telling(engine: Made) -> tuple[str, float, float]:
    """The prompt for which adapter 0 makes the greatest difference, and what is found without it and with it."""
    found = []
    for prompt in ("Say hello.", "Count to three.", "Is Paris in France?", "Name a colour.", "Who are you?"):
        plain, on = await first_logprob(engine, prompt, {}), await first_logprob(engine, prompt, {0: 1.0})
        found.append((abs(on - plain), prompt, plain, on))
    return max(found)[1:]


async def adapters_keep_apart(engine: Made) -> tuple[str, float, float]:
    """Adapter 0 works on the requests that ask for it and on no other, whoever shares their batch."""
    prompt, plain, on = await telling(engine)
    noise = 0.2 * abs(on - plain)  # an 8-bit cache has some; under the wrong adapter all of it would be missing
    assert noise > 0.05
    weaker = 0.5 if engine.capabilities.adapter_scales else 0.0
    for scales in ((1.0, 0.0), (0.0, 1.0, 1.0), (1.0, 0.0, weaker, 0.0)):
        found = await asyncio.gather(*(first_logprob(engine, prompt, {0: s}) for s in scales))
        for scale, value in zip(scales, found, strict=True):
            if scale in (0.0, 1.0):
                assert value == pytest.approx(on if scale else plain, abs=noise), scales
    with pytest.raises(InvalidInput, match="adapter"):
        engine.adapters_body({1: 1.0})
    if not engine.capabilities.adapter_scales:
        with pytest.raises(InvalidInput, match="scale"):
            engine.adapters_body({0: 0.5})
    return prompt, plain, on


async def test_an_adapter_changes_only_the_requests_that_ask_for_it(own: Made, tmp_path: Path) -> None:
    """A random LoRA: what it does is noise, that it does something only when asked is the promise. Where the engine
    can, it is added while an answer is written, and is there again after a crash."""
    assert own.capabilities.adapters
    if not own.capabilities.hot_adapters:
        with pytest.raises(InvalidInput, match="adapter"):
            await own.add_adapter(lora(tmp_path))
        engine = type(own)(own.model_path, EngineOptions(slots=2, slot_context=512, adapters=(lora(tmp_path),)))
        await engine.start()
        try:
            await adapters_keep_apart(engine)
        finally:
            await engine.stop()
        return
    pid, crashes = own.status().pid, own.status().crashes
    writing = asyncio.create_task(chat(own, LONG).ainvoke(STORY, max_tokens=300))
    assert await own.add_adapter(lora(tmp_path)) == 0
    prompt, plain, on = await adapters_keep_apart(own)
    assert (await writing).response_metadata["finish_reason"] in ("stop", "length")
    with pytest.raises(InvalidInput, match="adapter"):
        await own.add_adapter(tmp_path / "missing.gguf")
    assert own.status().pid == pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await back(own, crashes + 1)
    noise = 0.2 * abs(on - plain)
    assert await first_logprob(own, prompt, {0: 1.0}) == pytest.approx(on, abs=noise)
    assert await first_logprob(own, prompt, {}) == pytest.approx(plain, abs=noise)


def lora(folder: Path) -> Path:
    """A strong rank-4 adapter for the feed-forward output of every fifth layer, with random numbers in it."""
    import gguf
    import numpy as np

    random = np.random.default_rng(5)
    file = folder / "adapter.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 64.0)
    for layer in range(0, 30, 5):
        name = f"blk.{layer}.ffn_down.weight"
        writer.add_tensor(name + ".lora_a", random.normal(0, 0.05, (4, 1536)).astype(np.float32))
        writer.add_tensor(name + ".lora_b", random.normal(0, 0.05, (576, 4)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.mark.parametrize("damage", ["truncated", "no gguf", "flipped"])
async def test_a_damaged_model_file_is_refused_and_says_which(
    make: Callable[..., Made], chat_model_path: Path, tmp_path: Path, damage: str
) -> None:
    bad = tmp_path / "bad.gguf"
    data = chat_model_path.read_bytes()[: 3 << 20]
    kinds = {"truncated": data, "no gguf": b"PK" + data[2:], "flipped": data[:8] + b"\xff" * 16 + data[24:]}
    bad.write_bytes(kinds[damage])
    with pytest.raises(ModelFileError, match=r"bad\.gguf"):
        await make(bad).start()
