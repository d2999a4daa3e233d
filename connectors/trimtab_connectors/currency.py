"""Exchange rates from Frankfurter, which relays the daily reference rates of the ECB and other central banks.

No key is needed. The rates are published once or a few times a day: good for a price, not for trading.
https://frankfurter.dev
"""

from datetime import date
from typing import Annotated

from pydantic import BaseModel, Field

from trimtab.connect import Cache, Connector, Effect, Http, Result, Source, ToolError

connector = Connector(
    name="currency",
    version="1.0.0",
    description="Exchange rates of central banks, today's and past ones, from Frankfurter.",
    hosts=("api.frankfurter.dev",),
    cache=Cache(lifetime=3600, stale_if_error=3 * 86400),
)

# Words that people use. Where several countries have one, the most traded.
NAMES = {
    "dollar": "USD", "dollars": "USD", "us dollar": "USD", "us dollars": "USD", "american dollars": "USD", "$": "USD",
    "bucks": "USD", "euro": "EUR", "euros": "EUR", "€": "EUR", "pound": "GBP", "pounds": "GBP", "£": "GBP",
    "pound sterling": "GBP", "british pounds": "GBP", "sterling": "GBP", "yen": "JPY", "japanese yen": "JPY",
    "¥": "JPY", "franc": "CHF", "francs": "CHF", "swiss franc": "CHF", "swiss francs": "CHF", "yuan": "CNY",
    "renminbi": "CNY", "chinese yuan": "CNY", "rupee": "INR", "rupees": "INR", "indian rupees": "INR", "₹": "INR",
    "zloty": "PLN", "zlotys": "PLN", "złoty": "PLN", "swedish krona": "SEK", "swedish kronor": "SEK",
    "norwegian krone": "NOK", "norwegian kroner": "NOK", "danish krone": "DKK", "danish kroner": "DKK",
    "forint": "HUF", "forints": "HUF", "czech koruna": "CZK", "koruna": "CZK", "lira": "TRY", "turkish lira": "TRY",
    "won": "KRW", "korean won": "KRW", "real": "BRL", "reais": "BRL", "rand": "ZAR", "baht": "THB", "shekel": "ILS",
    "shekels": "ILS", "canadian dollar": "CAD", "canadian dollars": "CAD", "australian dollar": "AUD",
    "australian dollars": "AUD", "new zealand dollars": "NZD", "hong kong dollars": "HKD",
    "singapore dollars": "SGD", "mexican pesos": "MXN", "peso": "MXN", "pesos": "MXN",
}  # fmt: skip
COMMON = ("USD", "EUR", "GBP", "JPY", "CHF", "CNY", "CAD", "AUD")
Currency = Annotated[str, Field(min_length=1, max_length=30)]


class Rate(BaseModel):
    """One unit of `base` costs `rate` of `quote`."""

    date: date
    base: str
    quote: str
    rate: float = Field(gt=0, allow_inf_nan=False)


@connector.tool(
    effect=Effect.READ,
    examples=(
        "How much is 100 dollars in euros?",
        "Convert 50 GBP to USD",
        "What is 20 zloty in yen?",
        "What's the exchange rate from lira to pesos?",
        "How many Swiss francs do I get for 250 forint?",
        "Exchange 1000 rupees into rand",
        "What was 100 CAD in AUD on 2020-03-16?",
        "How many Norwegian kroner is 75 pounds?",
    ),
)
async def convert(
    source: Annotated[Currency, "The currency to convert from, as a code or a name: USD, dollars"],
    target: Annotated[Currency, "The currency to convert to, as a code or a name: EUR, euros"],
    http: Http,
    amount: Annotated[float, Field(gt=0, le=1e15), "How much of it"] = 1.0,
    day: Annotated[date | None, "The day of the rate, e.g. 2020-03-16; the latest when left out"] = None,
) -> Result:
    """Convert an amount of money from one currency to another at the latest exchange rate, or at that of a past day."""
    base, quote = code(source), code(target)
    if base == quote:
        raise ToolError(f"Both currencies are {base}. Name two different ones.")
    rate = (await rates_of(base, (quote,), day, http))[0]
    value = money(amount * rate.rate)
    said = f"{money(amount)} {base} is {value} {quote}"
    return Result(
        text=f"{said} (1 {base} = {rate.rate:.6g} {quote}, reference rate of {rate.date})",
        data={"amount": amount, "base": base, "quote": quote, "rate": rate.rate, "value": amount * rate.rate,
              "date": rate.date},
        sources=[Source(f"Frankfurter, rate of {rate.date}", f"https://frankfurter.dev/{base.lower()}/{quote.lower()}/")],
        answer=f"{said}, at the reference rate of {rate.date}.",
    )  # fmt: skip


@connector.tool(
    effect=Effect.READ,
    examples=(
        "Show me today's exchange rates for the euro",
        "What are the current rates of the dollar?",
        "List the exchange rates of the pound against the main currencies",
        "How does the yen stand against other currencies?",
        "Give me the Danish krone exchange rates from 2 January 2024",
        "What is the Swiss franc worth in rupees, zloty and pesos?",
    ),
)
async def rates(
    base: Annotated[Currency, "The currency whose rates are wanted, as a code or a name: EUR, euro"],
    http: Http,
    targets: Annotated[
        list[Currency] | None, Field(max_length=30), "In which currencies; the most traded ones when left out"
    ] = None,
    day: Annotated[date | None, "The day of the rates, e.g. 2024-01-02; the latest when left out"] = None,
) -> Result:
    """List the exchange rates of a currency against other currencies, the latest or those of a past day."""
    unit = code(base)
    wanted = tuple(dict.fromkeys(code(target) for target in targets or ())) or COMMON
    found = await rates_of(unit, tuple(quote for quote in wanted if quote != unit), day, http)
    lines = [f"1 {unit} = {rate.rate:.6g} {rate.quote}" for rate in found]
    at = max(rate.date for rate in found)
    return Result(
        text="\n".join([f"Reference rates of {at}", *lines]),
        data=found,
        sources=[Source(f"Frankfurter, rates of {at}", f"https://frankfurter.dev/{unit.lower()}/")],
        answer=f"On {at}: " + "; ".join(lines[:8]) + ".",
    )


async def rates_of(base: str, quotes: tuple[str, ...], day: date | None, http: Http) -> list[Rate]:
    """At least one.

    Raises:
        ToolError: there is none of that currency, or none of that day.
    """
    if not quotes:
        raise ToolError(f"Name another currency than {base} to compare it with.")
    params = {"base": base, "quotes": ",".join(quotes), **({"date": day} if day else {})}
    reply = await http.get("/v2/rates", params=params, ok=(404, 422))
    found = [] if reply.status in (404, 422) else reply.into(list[Rate])
    fitting = [rate for rate in found if rate.base == base and rate.quote in quotes]
    if found and not fitting:
        raise ToolError("api.frankfurter.dev answered with rates that were not asked for. It may have changed.")
    if not fitting:
        when = f" on {day}" if day else ""
        raise ToolError(f"There is no rate from {base} to {', '.join(quotes)}{when}. Check the codes and the day.")
    return sorted(fitting, key=lambda rate: quotes.index(rate.quote))


def code(name: str) -> str:
    """The ISO 4217 code of a currency's name.

    Raises:
        ToolError: it is neither a code nor a known name.
    """
    known = NAMES.get(name.strip().casefold().removeprefix("the "))
    if known:
        return known
    if len(name) == 3 and name.isascii() and name.isalpha():
        return name.upper()
    raise ToolError(f"{name!r} is not a currency that is known here. Give its code of three letters, e.g. USD.")


def money(value: float) -> str:
    """With two decimals; small amounts with the digits that matter."""
    if abs(value) < 0.1:
        return f"{value:.3g}"
    text = f"{value:,.2f}"
    return text.removesuffix(".00")
