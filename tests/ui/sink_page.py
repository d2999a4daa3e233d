"""Draws every payload on every surface the UI has for text from outside. Run by Streamlit in the sink test."""

from __future__ import annotations

import os
import sys

import streamlit as st

from trimtab_ui import cards, look, markup
from trimtab_ui.live import Call
from trimtab_ui.untrusted import plain, render_untrusted

sys.path.insert(0, os.environ["TESTS"])
from ui.payloads import aimed_at

SINK = os.environ["SINK"]

if st.query_params.get("control"):
    st.markdown(f"![control]({SINK}/control)")
    st.stop()

look.set_up()
for number, text in enumerate(aimed_at(SINK)):
    source = {"title": text, "url": text, "retrieved_at": text}
    render_untrusted(text, {1: text})
    markup.draw(markup.tag("p", text, title=text))
    markup.draw(markup.table((text,), [(text,)]))
    markup.notice(text, text)
    markup.note(text, markup.badge(text, title=text))
    markup.draw(cards.code({text: text}))
    asked = {"call_id": f"c{number}", "tool": text, "connector": text, "arguments": {text: text}, "effect": text}
    finished = {**asked, "status": text, "text": text, "data": {"x": text}, "sources": [source], "seconds": 1.0}
    st.session_state[f"call-k-c{number}"] = True
    cards.draw_call(Call(asked, finished=finished), f"k-c{number}")
    st.button(plain(text, 400), key=f"b{number}", help=plain(text, 400))
    st.checkbox(plain(text, 400), key=f"c{number}")
    st.text_input(plain(text, 400), key=f"t{number}", value=text)
    st.selectbox(plain(text, 400), [text], key=f"s{number}", format_func=cards.forms._option)
    with st.expander(plain(text, 400), expanded=True, key=f"e{number}"):
        st.text(text)
st.text("everything is drawn")
