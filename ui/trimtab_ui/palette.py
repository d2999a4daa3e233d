"""Colours and type: chart paper and ink by day, deep water by night, one brass accent.

Every text colour reaches 4.5:1 on the background it is used on (tests compute it). Fonts are the system's own: nothing
is fetched.
"""

from __future__ import annotations

BODY_FONT = 'ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif'
HEADING_FONT = '"Iowan Old Style", "Palatino Linotype", Palatino, "Book Antiqua", "Noto Serif", "DejaVu Serif", serif'
CODE_FONT = 'ui-monospace, "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace'

LIGHT = {
    "primaryColor": "#0b6468",
    "backgroundColor": "#fbfaf6",
    "secondaryBackgroundColor": "#eaf0ee",
    "textColor": "#12272d",
    "linkColor": "#0b6468",
    "borderColor": "#c5d3d1",
    "codeBackgroundColor": "#edf2f0",
    "greenColor": "#1c6b45",
    "orangeColor": "#94480c",
    "redColor": "#a32a2a",
}
LIGHT_SIDEBAR = {"backgroundColor": "#e4edeb", "secondaryBackgroundColor": "#fbfaf6", "textColor": "#12272d"}
DARK = {
    "primaryColor": "#2b8286",
    "backgroundColor": "#0e1b21",
    "secondaryBackgroundColor": "#172a32",
    "textColor": "#e4eeec",
    "linkColor": "#7fd0ca",
    "borderColor": "#2c444d",
    "codeBackgroundColor": "#14252c",
    "greenColor": "#7fd6a8",
    "orangeColor": "#f2b36b",
    "redColor": "#ff9d94",
}
DARK_SIDEBAR = {"backgroundColor": "#0a1419", "secondaryBackgroundColor": "#172a32", "textColor": "#e4eeec"}

SHARED = {
    "font": BODY_FONT,
    "headingFont": HEADING_FONT,
    "codeFont": CODE_FONT,
    "baseRadius": "0.6rem",
    "showWidgetBorder": "true",
    "showSidebarBorder": "false",
}


def theme_options() -> dict[str, str]:
    """Streamlit options for both looks; the browser's preference chooses, the menu can override it."""
    options = {f"theme.{name}": value for name, value in SHARED.items()}
    for prefix, colours in (
        ("theme.light", LIGHT),
        ("theme.light.sidebar", LIGHT_SIDEBAR),
        ("theme.dark", DARK),
        ("theme.dark.sidebar", DARK_SIDEBAR),
    ):
        options.update({f"{prefix}.{name}": value for name, value in colours.items()})
    return options


def contrast(one: str, other: str) -> float:
    """WCAG contrast ratio (1..21) of two ``#rrggbb`` colours."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
