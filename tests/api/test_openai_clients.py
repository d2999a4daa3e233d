"""The `openai` and `langchain-openai` clients against the running server, unchanged."""

from __future__ import annotations

import json
import math

import openai
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from running import Running

pytestmark = pytest.mark.model
BARE = "SmolLM2-135M-Instruct.Q4_1"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather of a place",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string", "description": "A city"}},
            "required": ["place"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture
def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0)


def test_the_models_are_listed(client: openai.OpenAI) -> None:
    assert {"trimtab", BARE} <= {m.id for m in client.models.list()}


def test_the_assistant_answers_with_its_tools(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="trimtab", messages=[{"role": "user", "content": "What is 12*7?"}])
    assert "84" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"


def test_the_assistant_streams(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="trimtab", messages=[{"role": "user", "content": "Say hello."}], stream=True, max_tokens=20
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert len([p for p in pieces if p]) > 1


def test_the_bare_model_streams_with_usage(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=BARE,
        messages=[{"role": "user", "content": "Count from one to ten."}],
        stream=True,
        stream_options={"include_usage": True},
        max_tokens=16,
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert chunks[-1].usage is not None
    assert 0 < chunks[-1].usage.completion_tokens <= 16


def test_the_bare_model_decodes_under_a_schema(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    answer = client.chat.completions.create(
        model=BARE,
        messages=[{"role": "user", "content": "Which city is the capital of France? Answer as JSON."}],
        response_format={"type": "json_schema", "json_schema": {"name": "place", "schema": schema, "strict": True}},
        max_tokens=40,
    )
    assert set(json.loads(answer.choices[0].message.content or "")) == {"city"}


def test_a_clients_own_tool_is_called_back(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "What's the weather in Oslo?"}]
    answer = client.chat.completions.create(model=BARE, messages=messages, tools=[WEATHER])  # type: ignore[call-overload]
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"place": "Oslo"}
    assert answer.choices[0].finish_reason == "tool_calls"


def test_a_clients_own_tool_is_called_back_in_a_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="trimtab",
        messages=[{"role": "user", "content": "What's the weather in Oslo?"}],
        tools=[WEATHER],  # type: ignore[list-item]
    ) as stream:
        final = stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls or ()
    assert json.loads(call.function.arguments) == {"place": "Oslo"}


def test_embeddings_are_unit_vectors_that_know_what_is_alike(client: openai.OpenAI) -> None:
    texts = ["A dog barks.", "A puppy is barking.", "Interest rates rose."]
    answer = client.embeddings.create(model="all-minilm-l6-v2", input=texts)
    dog, puppy, rates = (item.embedding for item in answer.data)
    assert math.isclose(sum(x * x for x in dog), 1.0, rel_tol=1e-3)
    alike, unlike = (sum(a * b for a, b in zip(dog, other, strict=True)) for other in (puppy, rates))
    assert alike > 0.5 > unlike


def test_plain_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=BARE, prompt="One, two, three,", max_tokens=4, temperature=0)
    assert answer.choices[0].text.strip()


def test_an_unknown_model_is_a_404_that_names_those_there_are(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="trimtab"):
        client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "Hi"}])


def test_a_wrong_key_is_refused(server: Running) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="tt_wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        client.models.list()


@pytest.mark.parametrize(
    "body",
    [
        {"model": BARE, "messages": []},
        {"model": BARE, "messages": [{"role": "nobody", "content": "x"}], "tools": [WEATHER]},
        {"model": "trimtab", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
        {"model": BARE, "messages": [{"role": "user", "content": "x"}], "n": 2},
        {"model": BARE, "messages": [{"role": "user", "content": "x"}], "temperature": 99},
        {"model": "trimtab", "messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function"}]},
    ],
)
def test_a_malformed_request_is_a_400_that_says_what_is_wrong(server: Running, body: dict[str, object]) -> None:
    with server.client as http:
        response = http.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    assert len(response.json()["error"]["message"]) > 15


@pytest.fixture
def chain(server: Running) -> ChatOpenAI:
    return ChatOpenAI(base_url=f"{server.url}/v1", api_key=server.key, model=BARE, temperature=0, max_retries=0)  # type: ignore[arg-type]


def test_langchain_streams(chain: ChatOpenAI) -> None:
    pieces = [str(chunk.content) for chunk in chain.bind(max_tokens=16).stream("Say hello.")]
    assert len([p for p in pieces if p]) > 1


def test_langchain_calls_a_tool_and_takes_its_result_back(chain: ChatOpenAI) -> None:
    @tool
    def get_weather(place: str) -> str:
        """Get the current weather of a place."""
        return f"In {place} it is 14 degrees with light rain."

    bound = chain.bind_tools([get_weather])
    question = HumanMessage("What's the weather in Oslo?")
    asked = bound.invoke([question])
    assert asked.tool_calls[0]["args"] == {"place": "Oslo"}  # type: ignore[attr-defined]
    result = get_weather.invoke(asked.tool_calls[0])  # type: ignore[attr-defined]
    assert isinstance(result, ToolMessage)
    answer = bound.invoke([question, asked, result])
    assert not answer.tool_calls  # type: ignore[attr-defined]
    assert answer.content


def test_langchain_embeds(server: Running) -> None:
    embeddings = OpenAIEmbeddings(
        base_url=f"{server.url}/v1",
        api_key=server.key,  # type: ignore[arg-type]
        model="all-minilm-l6-v2",
        check_embedding_ctx_length=False,
    )
    assert len(embeddings.embed_query("A dog barks.")) == 384
