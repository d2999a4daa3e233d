"""Personal data in a text, replaced by what it was: ``[e-mail]``, ``[phone]``, ``[card]``.

Found by shape, and where there is one by checksum (IBAN: ISO 7064 mod 97; cards: Luhn), so that order numbers and sums
mostly stay. It finds data with a form of its own. Names, addresses and what somebody tells about themselves have none
and stay: that is what consent and reading the rows are for.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from trimtab.domain.judgement import Judgement, Said

_ANY_KEY = r"[A-Za-z0-9_\-+/=.]"


def _luhn(text: str) -> bool:
    digits = [int(c) for c in text if c.isdigit()]
    doubled = [d * 2 - 9 * (d > 4) if place % 2 else d for place, d in enumerate(reversed(digits))]
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and sum(doubled) % 10 == 0


def _iban(text: str) -> bool:
    plain = re.sub(r"[\s-]", "", text).upper()
    if not 15 <= len(plain) <= 34:
        return False
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def _address(text: str) -> bool:
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return found.version == 4 or any(c.isdigit() for c in text)  # std::dec is C++


_AMOUNT = re.compile(r"\d{1,3}(,\d{3})+(\.\d+)?|\d{1,3}(\.\d{3})+(,\d+)?|\d{1,3}( \d{3})+([.,]\d+)?|\d+\.\d+")


def _phone(text: str) -> bool:
    """Seven to fifteen digits (E.164), and written like a number to call: with a +, a leading 0 or grouped by threes
    and fours; not a date, not a decimal number."""
    digits = re.sub(r"\D", "", text)
    if not 7 <= len(digits) <= 15:
        return False
    if re.fullmatch(r"(19|20)\d\d[-./ ]\d\d?[-./ ]\d\d?|\d\d?[-./ ]\d\d?[-./ ](19|20)\d\d", text.strip()):
        return False
    if _AMOUNT.fullmatch(text.strip()) and digits[0] != "0":
        return False
    grouped = re.search(r"\d[ ./-]\(?\d{3,}|\(\d{2,5}\)", text) is not None
    return text.lstrip("( ")[0] == "+" or (digits[0] == "0" and len(digits) >= 9) or (grouped and len(digits) >= 9)


def _any(_: str) -> bool:
    return True


Check = Callable[[str], bool]
_RULES: tuple[tuple[str, re.Pattern[str], Check], ...] = (
    ("key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S), _any),
    ("key", re.compile(rf"\beyJ[A-Za-z0-9_-]{{8,}}\.{_ANY_KEY}{{8,}}"), _any),  # a JSON web token
    (
        "key",
        re.compile(
            rf"\b(?:sk|pk|rk|tt|ghp|gho|ghu|ghs|ghr|glpat|xox[abprs]|hf|npm|pypi|dop|AIza|ya29|AKIA|ASIA|github_pat|"
            rf"SG)[-_.]?{_ANY_KEY}{{16,}}"
        ),
        lambda text: any(c.isdigit() for c in text),
    ),
    (
        "key",
        re.compile(
            r"(?i)(?<!\w)(?:api[_ -]?key|access[_ -]?key|secret|token|passw(?:or)?d|pwd|bearer|authorization)"
            r"(?:\s+is)?\s*[:=]?\s*[\"']?[^\s\"',;]{8,}"
        ),
        lambda text: any(c.isdigit() for c in text.split()[-1]),
    ),
    ("e-mail", re.compile(r"(?i)[\w.+%'-]+\s?(?:@|\(at\)|\[at\])\s?(?:[\w-]+\.)+[a-z]{2,}"), _any),
    ("iban", re.compile(r"(?i)\b[a-z]{2}\d{2}(?:[ -]?[a-z0-9]){11,30}\b"), _iban),
    ("card", re.compile(r"(?<![\d.+])\d(?:[ -]?\d){12,18}(?![\d])"), _luhn),
    ("ip", re.compile(r"(?<![\w.:])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\d)"), _address),
    ("ip", re.compile(r"(?i)(?<![\w:.])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?:%\w+)?(?![\w:])"), _address),
    ("phone", re.compile(r"(?<![\w.])\(?\+?\(?\d(?:[ ()./-]{0,2}\d){6,14}(?![\w])"), _phone),
)


def scrub(text: str) -> tuple[str, Counter[str]]:
    """`text` with personal data replaced, and how much of each kind there was."""
    found: Counter[str] = Counter()
    for name, pattern, right in _RULES:

        def put(match: re.Match[str], name: str = name, right: Check = right) -> str:
            length = _longest(match[0], right)
            if not length:
                return match[0]
            found[name] += 1
            return f"[{name}]{match[0][length:]}"

        text = pattern.sub(put, text)
    return text, found


def _longest(text: str, right: Check) -> int:
    """The length of the longest beginning of whole words that passes: what follows may look like part of a number."""
    ends = [len(text), *(m.start() for m in reversed(list(re.finditer(r"[ -]", text))))]
    return next((end for end in ends if right(text[:end])), 0)


def scrub_row(row: Judgement) -> tuple[Judgement, Counter[str]]:
    """A judgement with every text in it scrubbed, the reason somebody gave included."""
    counts: Counter[str] = Counter()

    def clean(text: str) -> str:
        new, found = scrub(text)
        counts.update(found)
        return new

    prompt = tuple(Said(said.role, clean(said.content)) for said in row.prompt)
    about = {name: clean(value) if name == "reason" else value for name, value in row.about.items()}
    changed = replace(row, prompt=prompt, completion=clean(row.completion), rejected=clean(row.rejected), about=about)
    return (changed if counts else row), counts
