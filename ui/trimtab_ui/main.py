"""The app `streamlit run` starts: pages, and what a person sees when the server is not there."""

from __future__ import annotations

import streamlit as st

from trimtab_ui import (
    align_page,
    chat,
    connectors_page,
    knowledge,
    label_page,
    learn_page,
    look,
    models_page,
    plan_page,
    session,
    settings_page,
)
from trimtab_ui.client import KeyRefused, ServerDown, UiError
from trimtab_ui.markup import draw, notice, tag


def main() -> None:
    look.set_up()
    page = st.navigation(
        [
            st.Page(chat.page, title="Chat", icon=":material/forum:", url_path="chat", default=True),
            st.Page(knowledge.page, title="Knowledge", icon=":material/menu_book:", url_path="knowledge"),
            st.Page(connectors_page.page, title="Connectors", icon=":material/cable:", url_path="connectors"),
            st.Page(label_page.page, title="Label", icon=":material/thumbs_up_down:", url_path="label"),
            st.Page(align_page.page, title="Align", icon=":material/explore:", url_path="align"),
            st.Page(models_page.page, title="Models", icon=":material/deployed_code:", url_path="models"),
            st.Page(plan_page.page, title="Plan", icon=":material/checklist:", url_path="plan"),
            st.Page(learn_page.page, title="Learn", icon=":material/school:", url_path="learn"),
            st.Page(settings_page.page, title="Settings", icon=":material/tune:", url_path="settings"),
        ],
        position="top",
    )
    session.arrive(page.url_path)
    try:
        page.run()
    except UiError as error:
        in_the_way(error)


def in_the_way(error: UiError) -> None:
    """A whole page for an error nothing can be drawn around."""
    if isinstance(error, ServerDown):
        draw(tag("div", tag("h2", "The server is not running"), tag("p", error.message), cls="tt-hero"))
        st.text("Start it in a terminal, then come back here:")
        st.code("trimtab up", language="bash")
        st.text("What was asked before is kept by the server and will be here again.")
    elif isinstance(error, KeyRefused):
        draw(tag("div", tag("h2", "The server does not know this key"), tag("p", error.message), cls="tt-hero"))
        notice(error.advice, kind="info")
    else:
        notice(error.message, error.advice, "bad")
    st.button("Try again", key="try-again", type="primary", icon=":material/refresh:")


main()
