"""The time here and elsewhere, and days between dates. Works offline, from the time zone database."""

import re
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Annotated
from zoneinfo import ZoneInfo, available_timezones

from pydantic import Field

from trimtab.connect import Connector, Effect, Result, ToolError

connector = Connector(
    name="clock",
    version="1.0.0",
    description="Says what time it is, here or in another city, and counts days. Runs on this machine.",
)

# Cities and countries that people ask about and the time zone database does not name.
ALSO = {
    "America/Chicago": "dallas houston austin minneapolis new_orleans",
    "America/Los_Angeles": "san_francisco san_diego seattle las_vegas portland california",
    "America/New_York": "boston washington washington_dc philadelphia miami atlanta new_york_city nyc",
    "America/Sao_Paulo": "rio_de_janeiro rio são_paulo brasilia",
    "America/Toronto": "ottawa montreal montréal quebec",
    "Africa/Johannesburg": "cape_town south_africa",
    "Africa/Lagos": "nigeria abuja",
    "Asia/Dubai": "abu_dhabi",
    "Asia/Ho_Chi_Minh": "hanoi vietnam",
    "Asia/Kolkata": "mumbai delhi new_delhi bangalore bengaluru chennai hyderabad india",
    "Asia/Seoul": "south_korea korea",
    "Asia/Shanghai": "beijing shenzhen guangzhou china",
    "Asia/Tokyo": "osaka kyoto japan",
    "Australia/Sydney": "canberra",
    "Europe/Berlin": "munich hamburg frankfurt cologne germany",
    "Europe/Istanbul": "ankara turkey",
    "Europe/London": "manchester edinburgh glasgow cambridge oxford england scotland uk britain united_kingdom",
    "Europe/Madrid": "barcelona seville spain",
    "Europe/Paris": "lyon marseille nice france",
    "Europe/Rome": "milan naples florence venice italy",
    "Europe/Zurich": "geneva basel bern switzerland",
    "Pacific/Auckland": "wellington christchurch new_zealand",
    "Pacific/Honolulu": "hawaii",
    "UTC": "gmt greenwich",
}
MONTHS = {
    name: number
    for number, names in enumerate(
        "january jan|february feb|march mar|april apr|may|june jun|july jul|august aug|september sep sept"
        "|october oct|november nov|december dec".split("|"),
        start=1,
    )
    for name in names.split()
}
FEASTS = {
    "christmas": (12, 25),
    "christmas day": (12, 25),
    "christmas eve": (12, 24),
    "halloween": (10, 31),
    "new year": (1, 1),
    "new year's day": (1, 1),
    "new year's eve": (12, 31),
    "valentine's day": (2, 14),
}
WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
HERE = frozenset({"", "here", "local", "local time", "my location", "home"})


@connector.tool(
    effect=Effect.READ,
    untrusted=False,
    timeout=5.0,
    examples=(
        "What time is it?",
        "What time is it in Tokyo?",
        "What's the current time in New York?",
        "What is today's date?",
        "Which day of the week is it today?",
        "What time is it now in London?",
        "Tell me the time in Sydney",
        "What date is it in Los Angeles?",
    ),
)
async def now(
    place: Annotated[
        str,
        Field(max_length=80),
        "A city or an IANA time zone, e.g. Tokyo or America/New_York. Empty means here.",
    ] = "",
) -> Result:
    """Tell the current time, date and weekday, here or in a city of the world."""
    away = place.strip().lower() not in HERE
    zone = zone_of(place) if away else None
    moment = datetime.now(UTC).astimezone(zone)
    shown = place.strip().title() if place.islower() else place.strip()
    minutes = int((moment.utcoffset() or timedelta()).total_seconds() // 60)
    hours, rest = divmod(abs(minutes), 60)
    offset = f"{'-' if minutes < 0 else '+'}{hours}" + (f":{rest:02d}" if rest else "")
    day = f"{moment:%A}, {moment.day} {moment:%B %Y}"
    answer = f"It is {moment:%H:%M} on {day}{f' in {shown}' if away else ''} (UTC{offset})."
    data = {
        "iso": moment.isoformat(timespec="seconds"),
        "weekday": f"{moment:%A}",
        "zone": zone.key if zone else str(moment.tzname()),
    }
    return Result(text=answer, data=data, answer=answer)


@connector.tool(
    effect=Effect.READ,
    untrusted=False,
    timeout=5.0,
    examples=(
        "How many days until Christmas?",
        "How many days are there between 1 March 2026 and 15 June 2026?",
        "How long is it until 2027-01-01?",
        "How many days ago was 2020-02-29?",
        "Count the days from today to 4 July",
        "How many days between January 5 and March 10?",
    ),
)
async def days_between(
    end: Annotated[str, Field(max_length=40), "A date, e.g. 2026-12-25, 25 December 2026, 4 July, Christmas"],
    start: Annotated[
        str, Field(max_length=40), "The date to count from, e.g. 2026-03-01. Today when left out."
    ] = "today",
) -> Result:
    """Count the days between two dates, or from today until a date."""
    today = datetime.now(UTC).astimezone().date()
    first = read_date(start, today)
    last = read_date(end, first if first > today else today)
    days = (last - first).days
    count = f"{abs(days)} day" + ("" if abs(days) == 1 else "s")
    begin = "today" if first == today else spoken(first)
    answer = f"From {begin} to {spoken(last)} it is {count}."
    if days < 0:
        answer = f"{spoken(last)} was {count} before {begin}."
    return Result(text=answer, data={"start": str(first), "end": str(last), "days": days}, answer=answer)


@cache
def _zones() -> dict[str, str]:
    """Lower-case name, with ``_`` for spaces, to time zone key."""
    keys = sorted(available_timezones())
    known = {key.lower(): key for key in keys}
    # A city's short name is taken from the zones of a continent, not from the old aliases such as US/Eastern.
    known |= {key.rsplit("/", 1)[1].lower(): key for key in reversed(keys) if "/" in key and not key.startswith("Etc/")}
    return known | {name: key for key, names in ALSO.items() for name in names.split()}


def zone_of(place: str) -> ZoneInfo:
    """The time zone of a city or of a key such as ``Asia/Tokyo``.

    Raises:
        ToolError: it is not one that is known here.
    """
    name = place.strip().lower().replace(" ", "_").replace(".", "")
    for candidate in (name, name.split(",")[0].rstrip("_")):
        if key := _zones().get(candidate):
            return ZoneInfo(key)
    raise ToolError(f"The time zone of {place!r} is not known. Name a big city near it, or a zone like Europe/Paris.")


def read_date(text: str, today: date) -> date:
    """A date as people write it. Without a year: the next such day, `today` included.

    Raises:
        ToolError: it is not a date.
    """
    plain = re.sub(r"(?<=\d)(st|nd|rd|th)\b|\bthe\b|\bof\b|,", " ", text.strip().lower())
    words = plain.split()
    joined = " ".join(words)
    near = {"": 0, "today": 0, "now": 0, "tomorrow": 1, "yesterday": -1}
    if joined in near:
        return today + timedelta(days=near[joined])
    try:
        if re.fullmatch(r"\d{4}-\d{1,2}-\d{1,2}", joined):
            year, month, day = (int(part) for part in joined.split("-"))
            return date(year, month, day)
        if joined in FEASTS:
            return _next(*FEASTS[joined], today)
        if words and words[-1] in WEEKDAYS and len(words) <= 2:  # "Friday", "next Friday": the next one after today
            return today + timedelta(days=(WEEKDAYS.index(words[-1]) - today.weekday() - 1) % 7 + 1)
        month = next(MONTHS[word] for word in words if word in MONTHS)
        numbers = [int(word) for word in words if word.isdecimal()]
        if len(numbers) == 2:
            return date(max(numbers), month, min(numbers))
        if len(numbers) == 1 and len(words) == 2:
            return _next(month, numbers[0], today)
    except (StopIteration, ValueError):
        pass
    raise ToolError(f"{text!r} is not a date that is understood. Write it like 2026-12-25 or 25 December 2026.")


def _next(month: int, day: int, today: date) -> date:
    return next(
        found
        for year in range(today.year, today.year + 9)
        if day <= 28 or _exists(year, month, day)
        for found in [date(year, month, day)]
        if found >= today
    )


def _exists(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


def spoken(day: date) -> str:
    return f"{day.day} {day:%B %Y}"
