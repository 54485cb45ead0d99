"""Cards on the rehearsal Hub's pages: what Markdown becomes, where it leads, and nothing alive."""

from __future__ import annotations

import re
import time

import pytest
from hostile_card import METADATA, Elements, hostile_files
from hypothesis import given
from hypothesis import strategies as st

from fluxconv.hub.rehearsal.pages.markdown import LONGEST, render
from fluxconv.hub.rehearsal.pages.places import Place
from fluxconv.hub.rehearsal.repository import File

FILE = File("0" * 40, 1, "0" * 64, False)
PLACE = Place(
    "me/it", "main", "", {"a b.png": FILE, "docs/x.md": FILE, "LICENSE": FILE}, "here:1", True
)
HREF = r'rel="nofollow noopener noreferrer"'


def html(text: str, place: Place = PLACE) -> str:
    return str(render(text, place).html).strip()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("![a](a%20b.png)", '<p><img src="/-/file/me/it/main/a%20b.png" alt="a"></p>'),
        ("![a](./docs/../a%20b.png?x#y)", '<img src="/-/file/me/it/main/a%20b.png" alt="a">'),
        ("![a](/me/it/resolve/main/a%20b.png)", 'src="/-/file/me/it/main/a%20b.png"'),
        ("![a](http://here:1/me/it/resolve/main/a%20b.png)", 'src="/-/file/me/it/main/a%20b.png"'),
        ("![a](http://here:2/me/it/resolve/main/a%20b.png)", "Picture on here:2: a"),
        ("![a](../a%20b.png)", '<span class="missing">No such picture: ../a%20b.png</span>'),
        ('<img src="a b.png" onerror=x width=10>', 'src="/-/file/me/it/main/a%20b.png"'),
        ("[a](docs/x.md#part)", f'<a href="/me/it/blob/main/docs/x.md#card-part" {HREF}>a</a>'),
        ("[a](docs)", f'<a href="/me/it/tree/main/docs" {HREF}>a</a>'),
        ("[a](gone.md)", f'<a {HREF} class="missing">a</a>'),
        ("[a](/me/other)", f'<a href="/me/other" {HREF}>a</a>'),
        (
            "# A b `c`\n[a](#a-b-c)",
            '<h1 id="card-a-b-c">A b <code>c</code></h1>\n'
            f'<p><a href="#card-a-b-c" {HREF}>a</a></p>',
        ),
        ("# A\n# A", '<h1 id="card-a">A</h1>\n<h1 id="card-a-1">A</h1>'),
        ("|a|\n|-:|\n|b|", '<td align="right">b</td>'),
        ("see www.a.org/b_(c)).", f'<a href="http://www.a.org/b_(c)" {HREF}>www.a.org/b_(c)</a>).'),
        ("LICENSE.md and model.py", "<p>LICENSE.md and model.py</p>"),
        ("- [x] a", ' aria-label="done"> a</li>'),
        ("<details open><summary>a</summary>\n\n**b**\n</details>", "<strong>b</strong>"),
        ("<!-- fluxconv:begin -->\na\n<!-- fluxconv:end -->", "a"),
        ("```python\nimport a\n```", '<span class="kn">import</span>'),
        ("```nothing\n<a>\n```", "<code>&lt;a&gt;\n</code>"),
        ("a &lt;b&gt; &amp; c", "<p>a &lt;b&gt; &amp; c</p>"),
    ],
)
def test_markdown_becomes(text: str, expected: str) -> None:
    assert expected in html(text)


def assert_harmless(text: str) -> None:
    """Nothing in HTML of a card runs, loads, or leads where it must not."""
    parser = Elements()
    parser.feed(text)
    parser.close()
    for tag, attributes in parser.found:
        assert tag not in {
            "script",
            "style",
            "iframe",
            "form",
            "svg",
            "math",
            "base",
            "link",
            "meta",
        }
        assert tag != "input" or attributes["type"] == "checkbox"
        for name, value in attributes.items():
            assert not name.startswith("on") and name not in {"style", "srcset", "background"}
            assert name != "src" or value.startswith("/-/file/me/it/"), value
            assert name != "href" or re.match(r"https?://|mailto:|/|#", value, re.I), value
            assert name != "id" or value.startswith("card-")


PIECES = (
    "<script>", "</script>", "<style>", "<img src=", "<a href=", "javascript:alert(1)", "onerror=x",
    "![", "](", ")", "[", "]", '"', "'", ">", "<", "<!--", "-->", "<svg>", "<math>", "</p>", "\n",
    "\n\n", "`", "```", "|", "-|-", "&#106;", "\t", "data:text/html,", "//x.invalid", "a b.png",
    "<![CDATA[", "<table>", "<td>", "<noscript>", "<title>", "<textarea>", "=", " ", "x", "\0",
)  # fmt: skip


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=25).map("".join))
def test_no_markdown_is_alive(text: str) -> None:
    assert_harmless(html(text))


def test_hostile_card_is_harmless() -> None:
    text = html(hostile_files()["README.md"].decode().replace(METADATA, ""))
    assert_harmless(text)
    assert "The last words" in text


@pytest.mark.parametrize(
    "piece",
    [">", "[", "<div>", "<ul><li>", "*a ", "`a", "www.", "![a](b) ", "&a", "|a|b|\n|-|-|\n"],
)
def test_card_of_nothing_but_one_thing_is_read_in_time(piece: str) -> None:
    began = time.process_time()
    html(piece * (LONGEST // len(piece)))
    # On an idle machine the worst takes 2 s; unbounded, some took minutes.
    assert time.process_time() - began < 15


def test_card_too_long_to_be_read_is_shown_as_text() -> None:
    shown = html("# <script>" + "x" * LONGEST)
    assert "not rendered here" in shown and "<code># &lt;script&gt;xxx" in shown
