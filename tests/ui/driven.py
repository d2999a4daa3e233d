"""A page under Streamlit's own test driver: what it shows, and pressing its buttons."""

from __future__ import annotations

from pathlib import Path

from streamlit.testing.v1 import AppTest

import trimtab_ui

MAIN = Path(trimtab_ui.__file__).parent / "main.py"
EVIL = "![x](http://evil.example/x.png) <img src=http://evil.example/y>"


def shown(app: AppTest) -> str:
    """Everything drawn as HTML, and the labels around it."""
    bodies = [node.proto.body for node in app.get("html")]
    labels = [e.label for e in app.expander] + [b.label for b in app.button]
    return "\n".join([*bodies, *labels])


def click(app: AppTest, key: str) -> AppTest:
    app.button(key=key).click().run()
    assert not app.exception, app.exception
    return app
