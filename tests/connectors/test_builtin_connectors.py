"""The built-in connectors, asked through the toolbox as the orchestrator asks them."""

import re
import socket
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import pytest

import connector_notes
from services import LoopbackServices
from trimtab.connect import ConnectOptions, Effect, InvalidInput, Override, Toolbox, ToolError

BUILT_IN = set("arxiv calculator clock currency email feeds files github hackernews sql weather web wikipedia".split())


@pytest.fixture
def services() -> Iterator[LoopbackServices]:
    with LoopbackServices() as running:
        yield running


@pytest.fixture
async def toolbox(services: LoopbackServices) -> AsyncIterator[Toolbox]:
    box = Toolbox.discover(ConnectOptions(overrides=services.overrides))
    yield box
    await box.aclose()


def test_the_built_in_connectors_are_found_and_sound() -> None:
    found = {status.name: status for status in Toolbox.discover().connectors}
    assert set(found) >= BUILT_IN
    for status in found.values():
        assert not status.error
        assert status.enabled
        for tool in status.tools:
            assert len(tool.info.examples) >= 6, tool.name
            assert (tool.info.effect is Effect.READ) is (tool.name not in {"github.create_issue", "email.send"})
            assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", tool.info.name)
            assert tool.schema["additionalProperties"] is False
            assert all(argument["description"] for argument in tool.schema["properties"].values())


def test_only_what_never_leaves_the_machine_is_trusted() -> None:
    trusted = {
        status.name for status in Toolbox.discover().connectors for tool in status.tools if not tool.info.untrusted
    }
    assert trusted == {"calculator", "clock"}


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("15% of 80", "15% of 80 = 12."),
        ("What is 3 squared?", "3 squared = 9."),
        ("12 times 7", "12 times 7 = 84."),
        ("23 plus 4", "23 plus 4 = 27."),
        ("square root of 2", "square root of 2 ≈ 1.41421356237."),
        ("0.1 + 0.2", "0.1 + 0.2 = 0.3."),
        ("1,234,567 + 1", "1,234,567 + 1 = 1,234,568."),
        ("max(1,200)", "max(1,200) = 200."),
        ("200 - 10%", "200 - 10% = 180."),
        ("10 % 3", "10 % 3 = 1."),
        ("-2^2", "-2^2 = -4."),
        ("2**3**2", "2**3**2 = 512."),
        ("-7 // 2", "-7 // 2 = -4."),
        ("twenty-five times four", "twenty-five times four = 100."),
        ("two hundred and five plus one", "two hundred and five plus one = 206."),
        ("average of 3, 5 and 10", "average of 3, 5 and 10 = 6."),
        ("subtract 5 from 9", "subtract 5 from 9 = 4."),
        ("what is 5!?", "5! = 120."),
        ("sin(30 degrees)", "sin(30 degrees) ≈ 0.5."),
        ("log(8, 2)", "log(8, 2) = 3."),
        ("1/3 of 90", "1/3 of 90 = 30."),
        ("a 20 percent tip on 45", "a 20 percent tip on 45 = 9."),
        ("2(3+4)", "2(3+4) = 14."),
        ("round(2.5)", "round(2.5) = 3."),
        ("3 million / 4", "3 million / 4 = 750,000."),
    ],
)
async def test_arithmetic_in_words_and_signs(toolbox: Toolbox, asked: str, answer: str) -> None:
    assert (await toolbox.call("calculator.calculate", {"expression": asked})).answer == answer


async def test_every_example_question_of_the_calculator_is_answered(toolbox: Toolbox) -> None:
    """The question as it is: with a small model the whole of it may end up in the argument."""
    (tool,) = toolbox.connector("calculator").tools
    for question in tool.info.examples:
        assert (await toolbox.call("calculator.calculate", {"expression": question})).answer
    for question, result in (
        ("Can you calculate 12 times 7 for me?", "84"),
        ("what is 15 percent of 80 dollars please", "12"),
        ("What does 3 + 4 equal?", "7"),
        ("How much do 5 and 6 make?", None),
    ):
        if result is None:
            with pytest.raises(ToolError):
                await toolbox.call("calculator.calculate", {"expression": question})
        else:
            assert (await toolbox.call("calculator.calculate", {"expression": question})).data["result"] == result


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ("9**9**9", "too large"),
        ("10^10^10", "too large"),
        ("99999^99999", "too large"),
        ("9!!!", "factorial"),
        ("1/0", "zero"),
        ("5 mod 0", "zero"),
        ("sqrt(-1)", "negative"),
        ("(" * 200, "nested too deeply"),
        ("2^" * 200 + "2", "nested too deeply"),
        ("-" * 400, "missing"),
        ("2 3", "not expected"),
        ("__import__('os').system('ls')", "not something that can be calculated"),
        ("the meaning of life", "not something that can be calculated"),
        ("()", "not something"),
    ],
)
async def test_what_has_no_value_is_explained_at_once(toolbox: Toolbox, asked: str, reason: str) -> None:
    started = datetime.now(UTC)
    with pytest.raises(ToolError, match=reason):
        await toolbox.call("calculator.calculate", {"expression": asked})
    assert datetime.now(UTC) - started < timedelta(seconds=1)


async def test_the_clock_knows_cities_zones_and_here(toolbox: Toolbox) -> None:
    for place, zone in [("Tokyo", "Asia/Tokyo"), ("new york", "America/New_York"), ("Mumbai, India", "Asia/Kolkata")]:
        outcome = await toolbox.call("clock.now", {"place": place})
        assert outcome.data["zone"] == zone
        told = datetime.fromisoformat(outcome.data["iso"])
        assert abs(datetime.now(UTC) - told) < timedelta(seconds=5)
        assert told.strftime("%H:%M") in outcome.answer
    for here in ({}, {"place": "here"}):
        assert " in " not in (await toolbox.call("clock.now", here)).answer
    with pytest.raises(ToolError, match="Nowhereville"):
        await toolbox.call("clock.now", {"place": "Nowhereville"})


@pytest.mark.parametrize(
    ("start", "end", "days"),
    [
        ("1 March 2026", "15 June 2026", 106),
        ("2026-03-01", "March 2nd, 2026", 1),
        ("2024-02-28", "1 March 2024", 2),
        ("2026-12-31", "2026-01-01", -364),
    ],
)
async def test_days_between_dates_as_people_write_them(toolbox: Toolbox, start: str, end: str, days: int) -> None:
    outcome = await toolbox.call("clock.days_between", {"start": start, "end": end})
    assert outcome.data["days"] == days
    assert str(abs(days)) in outcome.answer


async def test_a_day_without_a_year_is_the_next_one(toolbox: Toolbox) -> None:
    for said, ends in (("Christmas", "-12-25"), ("4 July", "-07-04"), ("February 29", "-02-29"), ("next Friday", "")):
        outcome = await toolbox.call("clock.days_between", {"end": said})
        assert outcome.data["end"].endswith(ends)
        assert 0 <= outcome.data["days"] <= 8 * 366


async def test_a_forecast_says_the_weather_and_where_it_comes_from(
    toolbox: Toolbox, services: LoopbackServices
) -> None:
    outcome = await toolbox.call("weather.forecast", {"place": "Paris", "days": 3})
    assert outcome.answer.startswith(
        "In Paris now: 14 °C, light rain, wind 12 km/h. Today: light rain, 9 °C to 17 °C, 60 % chance of rain; "
        "tomorrow: overcast, 10 °C to 18 °C, 10 % chance of rain; "
    )
    assert "Île-de-France, France" in outcome.text
    assert outcome.sources[0].url.startswith("https://open-meteo.com/")
    asked = services.requests[-1]
    assert asked.query["forecast_days"] == ["3"]
    assert asked.query["timezone"] == ["Europe/Paris"]
    assert asked.headers["user-agent"].startswith("Trimtab/")


async def test_words_after_a_comma_choose_among_places_of_one_name(toolbox: Toolbox) -> None:
    outcome = await toolbox.call("weather.forecast", {"place": "Paris, Texas"})
    assert outcome.data["place"]["country_code"] == "US"
    with pytest.raises(ToolError, match=r"Paris, Peru.*There is: Paris, France"):
        await toolbox.call("weather.forecast", {"place": "Paris, Peru"})
    with pytest.raises(ToolError, match="No place called 'Xyzzy'"):
        await toolbox.call("weather.forecast", {"place": "Xyzzy"})


async def test_a_summary_is_two_sentences_with_its_article(toolbox: Toolbox) -> None:
    outcome = await toolbox.call("wikipedia.summary", {"title": "Ada Lovelace"})
    assert outcome.answer.startswith("Augusta Ada King, Countess of Lovelace was an English mathematician")
    assert outcome.answer.endswith("beyond pure calculation.")
    assert outcome.sources[0].url == "https://en.wikipedia.org/wiki/Ada_Lovelace"
    assert "CC BY-SA" in outcome.sources[0].title


async def test_a_redirected_title_and_a_near_one_find_the_article(toolbox: Toolbox) -> None:
    assert (await toolbox.call("wikipedia.summary", {"title": "Ada King"})).data["title"] == "Ada Lovelace"
    near = await toolbox.call("wikipedia.summary", {"title": "tower of Eiffel"})
    assert near.data["title"] == "Eiffel Tower"
    assert "nearest" in near.text
    unclear = await toolbox.call("wikipedia.summary", {"title": "Mercury"})
    assert "several things" in unclear.answer
    with pytest.raises(ToolError, match="no article on 'qqqq'"):
        await toolbox.call("wikipedia.summary", {"title": "qqqq"})


async def test_a_search_lists_articles_without_their_markup(toolbox: Toolbox) -> None:
    outcome = await toolbox.call("wikipedia.search", {"query": "ancient Greek computer"})
    assert "Antikythera mechanism" in outcome.answer
    assert "<span" not in outcome.text
    assert "&amp;" not in outcome.text


async def test_a_title_with_a_slash_stays_one_path_segment(toolbox: Toolbox, services: LoopbackServices) -> None:
    with pytest.raises(ToolError):
        await toolbox.call("wikipedia.summary", {"title": "../../w/api.php?x=1#y"})
    paths = [request.path for request in services.requests if "summary" in request.path]
    assert paths == ["/api/rest_v1/page/summary/..%2F..%2Fw%2Fapi.php%3Fx%3D1%23y"]


async def test_a_page_is_read_as_text_without_its_menu_and_scripts(
    toolbox: Toolbox, services: LoopbackServices
) -> None:
    outcome = await toolbox.call("web.read", {"url": services.page()})
    assert outcome.data["title"] == "How lighthouses work"
    assert "Fresnel in 1822" in outcome.text
    assert "tracking" not in outcome.text
    assert outcome.sources[0].url == services.page()
    moved = await toolbox.call("web.read", {"url": services.page("moved")})
    assert moved.sources[0].url == services.page()
    plain = await toolbox.call("web.read", {"url": services.page("notes.txt")})
    assert "Call the harbour master." in plain.text
    latin = await toolbox.call("web.read", {"url": services.page("latin")})
    assert "phâre" in latin.text


@pytest.mark.parametrize(
    ("page", "reason"), [("report.pdf", "application/pdf"), ("empty", "no readable text"), ("gone", "404")]
)
async def test_what_is_not_a_page_is_explained(
    toolbox: Toolbox, services: LoopbackServices, page: str, reason: str
) -> None:
    with pytest.raises(ToolError, match=reason):
        await toolbox.call("web.read", {"url": services.page(page)})


async def test_without_leave_the_web_connector_opens_nothing_local(services: LoopbackServices) -> None:
    toolbox = Toolbox.discover()
    port = services.url.rsplit(":", 1)[1]
    for url in (services.page(), f"http://127.0.0.1:{port}", "http://localhost", "https://[::1]/", "http://0/"):
        with pytest.raises(ToolError):
            await toolbox.call("web.read", {"url": url})
    assert services.requests == []


async def test_a_service_that_is_down_is_said_in_one_sentence(services: LoopbackServices) -> None:
    services.down = True
    toolbox = Toolbox.discover(ConnectOptions(overrides=services.overrides))
    with pytest.raises(ToolError, match=r"has a problem of its own \(status 503\)"):
        await toolbox.call("weather.forecast", {"place": "Paris"})
    status = toolbox.connector("weather")
    assert status.failures == 1
    assert "503" in status.last_errors[0].message


async def test_offline_is_said_quickly() -> None:
    def nowhere(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    toolbox = Toolbox.discover(ConnectOptions(resolver=nowhere))
    started = datetime.now(UTC)
    with pytest.raises(ToolError, match=r"Could not reach geocoding-api\.open-meteo\.com: no internet connection"):
        await toolbox.call("weather.forecast", {"place": "Paris"})
    assert datetime.now(UTC) - started < timedelta(seconds=1)


async def test_a_changed_service_is_named_not_a_traceback(services: LoopbackServices) -> None:
    here = Override(base_url=services.url + "/pages", allow_private=True)
    toolbox = Toolbox.discover(ConnectOptions(overrides={"weather": here}))
    with pytest.raises(ToolError, match="status 404"):
        await toolbox.call("weather.forecast", {"place": "Paris"})


async def test_wrong_arguments_are_named_and_nothing_is_sent(toolbox: Toolbox, services: LoopbackServices) -> None:
    with pytest.raises(InvalidInput, match="days") as caught:
        await toolbox.call("weather.forecast", {"place": "Paris", "days": 99})
    assert caught.value.detail["fields"] == ["days"]
    with pytest.raises(InvalidInput, match="place"):
        await toolbox.call("weather.forecast", {})
    with pytest.raises(InvalidInput, match="extra"):
        await toolbox.call("calculator.calculate", {"expression": "1", "extra": 1})
    assert services.requests == []


async def test_a_tool_that_writes_says_so_and_writes_once(services: LoopbackServices) -> None:
    toolbox = Toolbox(ConnectOptions(overrides=services.overrides))
    toolbox.add(connector_notes)
    effects = {tool.name: tool.info.effect for tool in toolbox.connector("notes").tools}
    assert effects == {
        "notes.add": Effect.WRITE,
        "notes.list_all": Effect.READ,
        "notes.delete": Effect.IRREVERSIBLE,
    }
    await toolbox.call("notes.add", {"text": "buy milk"})
    assert services.notes == {1: "buy milk"}
    assert (await toolbox.call("notes_list_all", {})).answer == "Your notes: buy milk."
    services.down = True
    with pytest.raises(ToolError):
        await toolbox.call("notes.add", {"text": "again"})
    assert [request.method for request in services.requests] == ["POST", "GET", "POST"]
