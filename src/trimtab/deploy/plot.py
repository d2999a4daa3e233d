"""The measured candidates as a picture: speed to the right, memory upwards, quality as colour, in SVG.

Those on the front (nothing else is as fast, small and good) are filled and joined, the chosen one has a ring.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .choose import Choice, Judged
from .estimate import MB

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 900, 480, 70, 40, 230, 60
_COLOURS = ((0.01, "#1b7837", "up to 1 % worse"), (0.05, "#b8860b", "up to 5 %"), (1e9, "#b2182b", "more"))
"""Largest loss of quality, and its colour; told apart by words, too."""


def plot(choice: Choice) -> str:
    """An SVG document. What was measured with more users than the rest is left out: their tokens do not compare."""
    users = min(one.row.together.users for one in choice.judged)
    rows = [one for one in choice.judged if one.row.together.users == users]
    right = max(one.row.together.total for one in rows) * 1.15
    top = max(_memory(one) for one in rows) * 1.15
    places = [(one, _x(one.row.together.total, right), _y(_memory(one), top)) for one in rows]
    names = _names([(one.row.candidate.variant.name, x, y) for one, x, y in places])
    dots = [_dot(choice, *place, name) for place, name in zip(places, names, strict=True)]
    parts = [*_axes(right, top), *_line(places), *dots, *_legend()]
    size = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    body = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">\n{body}\n</svg>\n'


def _memory(one: Judged) -> float:
    return (one.row.memory or one.row.estimated_memory) / MB


def _x(value: float, most: float) -> float:
    return _LEFT + value / most * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float, most: float) -> float:
    return _HEIGHT - _BOTTOM - value / most * (_HEIGHT - _TOP - _BOTTOM)


def _axes(right: float, top: float) -> list[str]:
    found = [f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>']
    for n in range(6):
        x, y = _x(right * n / 5, right), _y(top * n / 5, top)
        found.append(f'<path d="M{x:.1f} {_TOP}V{_HEIGHT - _BOTTOM}M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>')
        found.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{right * n / 5:.0f}</text>')
        found.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{top * n / 5:.0f}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    found.append(f'<text x="{middle}" y="{_HEIGHT - 12}" text-anchor="middle">tokens a second, all users</text>')
    found.append(f'<text x="{_LEFT}" y="{_TOP - 16}">MB of memory (less is better)</text>')
    return found


def _line(places: Sequence[tuple[Judged, float, float]]) -> list[str]:
    on = sorted((x, y) for one, x, y in places if one.on_front)
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in on)
    return [f'<path d="M{path}" fill="none" stroke="#888" stroke-dasharray="4"/>'] if len(on) > 1 else []


def _names(places: Sequence[tuple[str, float, float]]) -> list[str]:
    """Each name beside its dot, on the side where there is room, moved up or down until it covers no other."""
    taken: list[tuple[float, float, float]] = []
    found = []
    for name, x, y in places:
        width = 6.4 * len(name)
        left = x + 12 if x + 12 + width < _WIDTH else x - 12 - width
        for step in range(2 * len(places) + 1):
            at = y + 4 + 13 * ((step + 1) // 2) * (1 if step % 2 else -1)
            if not any(abs(at - other) < 13 and left < end and start < left + width for start, end, other in taken):
                break
        taken.append((left, left + width, at))
        found.append(f'<text x="{left:.1f}" y="{at:.1f}" textLength="{width:.1f}">{escape(name)}</text>')
    return found


def _dot(choice: Choice, one: Judged, x: float, y: float, name: str) -> str:
    lost = one.row.quality.loss.value if one.row.quality else 0.0
    colour = next(c for most, c, _ in _COLOURS if lost <= most)
    filled = colour if one.on_front else "white"
    ring = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="10" fill="none" stroke="black"/>' if _is(choice, one) else ""
    told = escape(
        f"{one.row.candidate.name}: {one.row.together.total:.0f} tokens/s, {_memory(one):.0f} MB, {lost:+.1%}"
    )
    return (
        f'<g><title>{told}</title>{ring}<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{filled}" stroke="{colour}"/>'
        f"{name}</g>"
    )


def _is(choice: Choice, one: Judged) -> bool:
    return choice.chosen is not None and one.row.key == choice.chosen.key


def _legend() -> list[str]:
    return [
        f'<text x="{_WIDTH - 360 + 115 * n}" y="{_TOP - 16}" fill="{colour}">● {words}</text>'
        for n, (_, colour, words) in enumerate(_COLOURS)
    ]
