"""Personal data does not reach a dataset; ordinary numbers do."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.align import dataset
from trimtab.align.curation import curate
from trimtab.align.pii import scrub
from trimtab.domain.judgement import Judgement, Kind, Said

CANARIES = {
    "e-mail": [
        "ann.lee@example.org", "o'neil+spam@mail.example.co.uk", "UPPER@EXAMPLE.COM", "x_y-z%1@sub.sub.example.net",
        "müller@beispiel.de", "bob (at) example.org", "carol[at]example.org",
    ],
    "phone": [
        "+49 30 901820", "+1 (415) 555-2671", "+44 20 7946 0958", "(020) 7946 0018", "415-555-2671", "030 9018 2000",
        "+33 1 23 45 67 89", "0171/2345678", "+4915112345678", "555.867.5309",
    ],
    "iban": [
        "DE89 3704 0044 0532 0130 00", "GB29NWBK60161331926819", "FR14 2004 1010 0505 0001 3M02 606",
        "CH93 0076 2011 6238 5295 7", "NL91ABNA0417164300", "es91 2100 0418 4502 0005 1332",
    ],
    "card": [
        "4111 1111 1111 1111", "5500-0000-0000-0004", "340000000000009", "30000000000004", "6011000000000004",
        "3530111333300000", "4012888888881881", "2223003122003222",
    ],
    "ip": [
        "192.168.17.4", "8.8.8.8", "203.0.113.77", "2001:db8::8a2e:370:7334", "fe80::1ff:fe23:4567:890a%eth0",
        "::ffff:10.0.0.1", "2001:0db8:85a3:0000:0000:8a2e:0370:7334",
    ],
    "key": [
        "sk-proj-4f9aB2c8D1e7F6a5B4c3D2e1", "ghp_16C7e42F292c6912E7710c838347Ae178B4a", "AKIAIOSFODNN7EXAMPLE",
        "xoxb-123456789012-abcdefGHIJKL", "hf_AbCdEf0123456789abcdef", "tt_9fX2aQ-7bLw3kPz81mNc4vRt",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N", "api_key=8f14e45fceea167a5a36dedd4bea2543",
        "password: hunter2secret", "glpat-20CharactersLong99xy", "AIzaSyD4k2m9Xq7LwP0vB3nR8tY1cZ6aE5fG4h",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA7\nq83\n-----END RSA PRIVATE KEY-----",
    ],
}  # fmt: skip
ALL = [canary for some in CANARIES.values() for canary in some]
PLACES = ("My data is {}.", "{}", "Write to {} please, or call.", "a,{},b", "({})", "It was {}; then\n{}\nagain")


def test_there_are_fifty_canaries() -> None:
    assert len(set(ALL)) == 50


@pytest.mark.parametrize(("kind", "canary"), [(k, c) for k, some in CANARIES.items() for c in some])
def test_each_is_found_wherever_it_stands(kind: str, canary: str) -> None:
    for place in PLACES:
        text, found = scrub(place.replace("{}", canary))
        assert canary not in text, (place, text)
        assert found[kind], (place, text, found)


def test_no_canary_is_left_in_a_dataset(tmp_path: Path) -> None:
    rows = [
        Judgement(
            id=f"fbk_{n}",
            kind=Kind.PREFERENCE,
            prompt=(Said("user", f"Question {n} of somebody: {canary}"), Said("assistant", f"You said {canary}."),
                    Said("user", f"Yes, {n}.")),
            completion=f"Answer {n}: {canary} is yours.",
            rejected=f"I do not know, {n}. Is it {canary}?",
            about={"feedback": f"fbk_{n}", "reason": f"because of {canary}"},
        )
        for n, canary in enumerate(ALL)
    ]  # fmt: skip
    found = curate(rows)
    made = dataset.write(found.rows, tmp_path, about=found.card())
    written = "".join(file.read_text("utf-8") for file in made.folder.iterdir())
    assert [canary for canary in ALL if canary in written or canary.replace("\n", "\\n") in written] == []
    assert sum(found.scrubbed.values()) >= 250
    assert made.card["scrubbed"] == dict(found.scrubbed)


@pytest.mark.parametrize(
    "text",
    [
        "15% of 80 is 12.",
        "The year 1989, or 1989-11-09, or 09.11.1989, at 12:30:05.",
        "There are 1,234,567.89 of them, or 1 234 567.",
        "Pi is 3.14159265358979, e is 2.718281828.",
        "Order 12345678 of 2024 has 40000000 parts.",
        "Version 1.2.3 and 10.0 came with Python 3.11.4.",
        "a::b is C++, and std::vector<int> too; the ratio is 16:9.",
        "The token is an old word; a secret garden, a password, a bearer of news.",
        "Call me maybe. Chapter 7, verses 12-14. 5 + 6 = 11, 2 ** 32 = 4294967296.",
        "Meet me at the @cafe at 7.",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert scrub(text)[0] == text
