"""Weather forecasts from Open-Meteo, which needs no key for non-commercial use.

Two services: one finds the place, the other forecasts for its coordinates. https://open-meteo.com/en/docs
"""

from datetime import UTC, date, datetime
from typing import Annotated

from pydantic import BaseModel, Field

from trimtab.connect import Cache, Connector, Effect, Http, Result, Source, ToolError

connector = Connector(
    name="weather",
    version="1.0.0",
    description="Weather now and for the next days, from Open-Meteo (CC BY 4.0).",
    hosts=("geocoding-api.open-meteo.com", "api.open-meteo.com"),
    cache=Cache(lifetime=600, stale_if_error=86400),
)

# WMO code table 4677 as Open-Meteo uses it.
SKY = {
    0: "clear sky",
    1: "mainly clear",
    2: "partly cloudy",
    3: "overcast",
    45: "fog",
    48: "freezing fog",
    51: "light drizzle",
    53: "drizzle",
    55: "heavy drizzle",
    56: "light freezing drizzle",
    57: "freezing drizzle",
    61: "light rain",
    63: "rain",
    65: "heavy rain",
    66: "light freezing rain",
    67: "freezing rain",
    71: "light snow",
    73: "snow",
    75: "heavy snow",
    77: "snow grains",
    80: "light showers",
    81: "showers",
    82: "violent showers",
    85: "light snow showers",
    86: "heavy snow showers",
    95: "thunderstorm",
    96: "thunderstorm with light hail",
    99: "thunderstorm with heavy hail",
}


class Place(BaseModel):
    name: str
    latitude: float
    longitude: float
    country: str = ""
    country_code: str = ""
    admin1: str = ""
    timezone: str = "UTC"


class Found(BaseModel):
    results: list[Place] = []
    """Missing in the answer when nothing was found."""


class Now(BaseModel):
    time: str
    temperature_2m: float
    weather_code: int
    wind_speed_10m: float


class Days(BaseModel):
    """Lists of equal length; a value is null where the model has none."""

    time: list[date]
    weather_code: list[int | None]
    temperature_2m_max: list[float | None]
    temperature_2m_min: list[float | None]
    precipitation_probability_max: list[float | None] = []


class Forecast(BaseModel):
    current: Now
    daily: Days


@connector.tool(
    effect=Effect.READ,
    examples=(
        "What is the weather in Paris?",
        "Will it rain in London tomorrow?",
        "What's the weather forecast for Berlin this week?",
        "How warm is it in Madrid right now?",
        "Do I need an umbrella in Amsterdam today?",
        "Is it going to snow in Oslo?",
        "What will the temperature be in Tokyo tomorrow?",
        "How windy is it in Lisbon?",
    ),
)
async def forecast(
    place: Annotated[str, Field(min_length=2, max_length=100), "A town or city, e.g. Paris, or Paris, Texas"],
    http: Http,
    days: Annotated[int, Field(ge=1, le=7), "How many days, today included"] = 3,
) -> Result:
    """Get the weather in a place: temperature, rain, wind and sky now, and the forecast for the next days."""
    spot = await locate(place, http)
    reply = await http.get(
        "https://api.open-meteo.com/v1/forecast",
        params={
            "latitude": spot.latitude,
            "longitude": spot.longitude,
            "current": ["temperature_2m", "weather_code", "wind_speed_10m"],
            "daily": ["weather_code", "temperature_2m_max", "temperature_2m_min", "precipitation_probability_max"],
            "timezone": spot.timezone,
            "forecast_days": days,
        },
    )
    found = reply.into(Forecast)
    lines = [f"{label}: {line}" for label, line in described(found.daily)]
    current = found.current
    now = f"{degrees(current.temperature_2m)}, {sky(current.weather_code)}, wind {current.wind_speed_10m:.0f} km/h"
    title = ", ".join(part for part in (spot.name, spot.admin1, spot.country) if part)
    link = f"https://open-meteo.com/en/docs?latitude={spot.latitude}&longitude={spot.longitude}"
    return Result(
        text="\n".join([f"Weather in {title}", f"now: {now}", *lines]),
        data={"place": spot.model_dump(), **found.model_dump(mode="json")},
        sources=[Source(f"Open-Meteo forecast for {title}", link, datetime.now(UTC).isoformat(timespec="seconds"))],
        answer=f"In {spot.name} now: {now}. T{'; '.join(lines[:3])[1:]}.",
    )


async def locate(place: str, http: Http) -> Place:
    """The best match; words after a comma choose among places of one name.

    Raises:
        ToolError: nothing is called that.
    """
    name, _, rest = (part.strip() for part in place.partition(","))
    reply = await http.get(
        "https://geocoding-api.open-meteo.com/v1/search",
        params={"name": name, "count": 10, "language": "en", "format": "json"},
    )
    places = reply.into(Found).results
    wanted = [word.strip().casefold() for word in rest.split(",") if word.strip()]
    fitting = [spot for spot in places if all(word in _regions(spot) for word in wanted)]
    if not fitting:
        known = "; ".join(dict.fromkeys(f"{spot.name}, {spot.country}" for spot in places[:3]))
        raise ToolError(f"No place called {place!r} was found." + (f" There is: {known}." if known else ""))
    return fitting[0]


def _regions(spot: Place) -> set[str]:
    known = {spot.country.casefold(), spot.country_code.casefold(), spot.admin1.casefold()}
    aliases = {"us": {"usa", "america"}, "gb": {"uk", "england", "britain"}}
    return known | aliases.get(spot.country_code.casefold(), set())


def described(daily: Days) -> list[tuple[str, str]]:
    """A label and a line for each day; the first is today at that place."""
    rows = []
    chances = daily.precipitation_probability_max or [None] * len(daily.time)
    columns = (daily.time, daily.weather_code, daily.temperature_2m_min, daily.temperature_2m_max, chances)
    for i, (day, code, low, high, chance) in enumerate(zip(*columns, strict=False)):
        label = ("today", "tomorrow")[i] if i < 2 else f"{day:%A}"
        parts = [sky(code), f"{degrees(low)} to {degrees(high)}"]
        if chance is not None:
            parts.append(f"{chance:.0f} % chance of rain")
        rows.append((label, ", ".join(parts)))
    return rows


def sky(code: int | None) -> str:
    return SKY.get(-1 if code is None else code, "unknown sky")


def degrees(value: float | None) -> str:
    return "unknown" if value is None else f"{round(value)} °C"
