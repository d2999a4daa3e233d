"""Untrusted text keeps its shape and loses everything a browser would fetch, follow or run."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_ui.characters import clean, hidden
from trimtab_ui.markup import TAGS, Safe, draw, escape, tag
from trimtab_ui.untrusted import LONGEST, host_of, plain, to_html
from ui.payloads import aimed_at


class Seen(HTMLParser):
    """Which elements and attributes a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.add(name)
        self.attributes |= {attribute for attribute, _ in attributes}


@pytest.mark.parametrize("payload", aimed_at("http://127.0.0.1:9"))
def test_no_payload_becomes_an_element_that_fetches(payload: str) -> None:
    seen = Seen(to_html(payload))
    assert seen.elements <= TAGS
    assert seen.attributes <= {"class", "title", "start"}


@given(st.text(alphabet=st.sampled_from("![]()<>\"'`*_#|-:$\\&; \nahtp/=\u200b"), max_size=80))
def test_no_text_at_all_becomes_such_an_element(text: str) -> None:
    seen = Seen(to_html(text))
    assert seen.elements <= TAGS
    assert seen.attributes <= {"class", "title", "start"}


def test_headings_lists_code_quotes_and_tables_stay() -> None:
    text = "# Title\n\n1. one\n2. *two*\n\n- a\n\n> said\n\n```py\nx < 1\n```\n\n| a | b |\n|---|---|\n| 1 | **2** |"
    shown = to_html(text)
    for part in (
        "<h3>Title</h3>",
        "<ol",
        "<li>one</li>",
        "<em>two</em>",
        "<ul>",
        "<blockquote><p>said</p></blockquote>",
        "<pre><code>x &lt; 1\n</code></pre>",
        "<th>a</th>",
        "<strong>2</strong>",
    ):
        assert part in shown


def test_a_link_becomes_its_text_and_the_host_it_leads_to() -> None:
    shown = to_html("See [the bank](https://evil.example/path?x=1).")
    assert "the bank" in shown
    assert "(evil.example)" in shown
    assert "<a" not in shown


def test_an_image_is_named_and_not_shown() -> None:
    assert "[image removed: a cat]" in to_html("![a cat](https://evil.example/cat.png)")


def test_raw_html_is_shown_as_the_characters_it_is() -> None:
    assert "&lt;b&gt;bold&lt;/b&gt;" in to_html("<b>bold</b>")


def test_what_streamlit_would_decorate_stays_plain() -> None:
    text = ":red[x] :material/home: :smile: $E=mc^2$ www.example.org"
    assert text in to_html(text)


def test_a_citation_becomes_a_mark_only_where_such_a_source_exists() -> None:
    shown = to_html("Opens at 7:30. [1] Closes at 18:00. [2] `[1]`", {1: 'hand"book'})
    assert '<sup class="tt-cite" title="hand&quot;book">1</sup>' in shown
    assert "[2]" in shown
    assert "<code>[1]</code>" in shown


def test_hidden_characters_are_removed_and_counted() -> None:
    shown = to_html("safe\u202etxet\u200b\U000e0041 \x1b[31m")
    assert "safetxet [31m" in shown
    assert "4 hidden characters removed" in shown


def test_joiners_stay_where_a_script_needs_them() -> None:
    family, persian = "\U0001f468\u200d\U0001f469", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    assert clean(family) == family
    assert clean(persian) == persian
    assert clean("a\u200db") == "ab"


@given(st.text())
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    assert hidden(once) == 0


def test_a_very_long_text_is_cut_and_says_so() -> None:
    shown = to_html("x" * (LONGEST + 5))
    assert "and 5 more characters" in shown


def test_a_label_shows_its_text_and_nothing_streamlit_could_act_on() -> None:
    label = plain("**b** ![x](http://evil.example) :red[y] :smile: $a$ <b> www.a.b")
    bare = label.replace("\\", "").replace("\u2060", "")
    assert bare == "**b** ![x](http://evil.example) :red[y] :smile: $a$ <b> www.a.b"
    assert "\\!\\[x\\](" in label
    assert "\\$a\\$" in label
    assert "http://" not in label.replace("\\", "")
    assert ":smile:" not in label.replace("\\", "")


def test_a_long_label_ends_in_an_ellipsis_and_has_one_line() -> None:
    assert plain("one\ntwo " + "x" * 200, 20) == "one two xxxxxxxxxxx…"


def test_hosts_are_told_for_strange_addresses_too() -> None:
    assert host_of("https://User:Pw@Example.org:8443/x") == "example.org"
    assert host_of("javascript:alert(1)") == "javascript"
    assert host_of("http://[bad") == "unreadable address"


def test_only_html_built_here_can_be_drawn() -> None:
    with pytest.raises(TypeError, match="Safe HTML only"):
        draw("<img src=x>")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not an element"):
        tag("img")
    assert tag("b", "<i>", title='"') == Safe('<b title="&quot;">&lt;i&gt;</b>')
    assert escape("&") == "&amp;"
