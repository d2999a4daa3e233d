"""Ids, as many at a time as go into one query: databases bound how many values a statement may have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

PAGE = 400


def pages(ids: Iterable[str]) -> Iterator[Sequence[str]]:
    """All of them once, some hundreds at a time, in order of the alphabet."""
    listed = sorted(set(ids))
    return (listed[start : start + PAGE] for start in range(0, len(listed), PAGE))
