"""Regular expressions of a document, matched in linear time.

Python's `re` backtracks: a few characters of pattern and of text can take it years. Pydantic's engine (Rust's `regex`)
does not. What that engine has no form for, look-around and back-references, is not checked here; the service checks it.
"""

from __future__ import annotations

import functools
import warnings

from pydantic_core import SchemaError, SchemaValidator, ValidationError, core_schema

MAX_PATTERN = 500


@functools.lru_cache(maxsize=2000)
def compiled(pattern: str) -> SchemaValidator | None:
    """A matcher, or None where the pattern is too long, wrong, or not of the linear kind."""
    if len(pattern) > MAX_PATTERN:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex", strict=True))
    except SchemaError:
        return None


def fits(pattern: str, text: str) -> bool:
    """Whether the pattern occurs in the text, as JSON Schema means it. True where it cannot be checked."""
    matcher = compiled(pattern)
    if matcher is None:
        return True
    try:
        matcher.validate_python(text)
    except ValidationError:
        return False
    return True
