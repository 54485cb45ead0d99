"""Markdown to harmless HTML, nearly as the Hub makes it.

GitHub's dialect: tables, task lists, alerts, bare addresses as links, and HTML in between. The
HTML is cleaned by an allowlist of elements and attributes; what the Hub knows besides and this
does not: formulas, and the few inline styles that it lets through.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from fluxconv.hub.rehearsal.pages import highlighting
from fluxconv.hub.rehearsal.pages.places import PREFIX, Place
from fluxconv.hub.rehearsal.pages.rewriting import Rewriter

_ATTRIBUTES = {
    "*": {"align", "id", "dir", "title"},
    "a": {"href"},
    "blockquote": {"cite"},
    "details": {"open"},
    "img": {"src", "alt", "width", "height"},
    "ol": {"start"},
    "td": {"colspan", "rowspan"},
    "th": {"colspan", "rowspan", "scope"},
}
_TAGS = set(
    """
    a abbr b bdi bdo blockquote br caption center cite code col colgroup dd del details dfn div
    dl dt em figcaption figure gallery h1 h2 h3 h4 h5 h6 hr i img input ins kbd li mark ol p
    picture pre q rp rt ruby s samp small span strike strong sub summary sup table tbody td
    tfoot th thead tr tt u ul var wbr
    """.split()  # noqa: SIM905 - a list of a hundred lines says no more
)
_ALERTS = {f"markdown-alert-{kind}" for kind in ("note", "tip", "important", "warning", "caution")}
_CLASSES = {
    "div": {"markdown-alert", *_ALERTS},
    "li": {"task-list-item"},
    "p": {"markdown-alert-title"},
    "span": highlighting.CLASSES,
    "ul": {"contains-task-list"},
}
_COMPONENT = re.compile(r"<Gallery\s*(?:/>|>\s*</Gallery>)", re.IGNORECASE)
# Bounded, so that a card of nothing but such words is read in time.
_AFTER_WWW = re.compile(r"[a-z0-9-]{1,63}(?:\.[a-z0-9_-]{1,63}){1,8}[^\s<]{0,1000}", re.IGNORECASE)
_NOT_LAST = "?!.,:*_~\"'"
#: Characters; a longer text is shown as it is. Elements in elements take time by the square of
#: their number, in the cleaning and then in the browser; cards have a tenth of this.
LONGEST = 1 << 17
_PLAIN = Markup(
    '<p><span class="unseen">Longer than {:,} characters, so it is not rendered here.</span></p>'
    '<pre tabindex="0" role="group" aria-label="Text"><code>{}</code></pre>'
)
_ALIGNMENT = re.compile(r"text-align:(left|center|right)")


@dataclass(frozen=True)
class Rendered:
    """Harmless HTML, and what its author may want to know about it."""

    html: Markup
    missing: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    wordless: tuple[str, ...] = ()
    asked_for_gallery: bool = False


def render(text: str, place: Place, gallery: str = "") -> Rendered:
    """Markdown at a place in a repository; `gallery` is HTML in place of `<Gallery />`."""
    if len(text) > LONGEST:
        return Rendered(_PLAIN.format(LONGEST, text))
    parser = _parser()
    tokens = parser.parse(text)
    _prepare(tokens)
    unsafe = parser.renderer.render(tokens, parser.options, {})
    rewriter = Rewriter(place, gallery)
    rewriter.feed(_clean(unsafe))
    rewriter.close()
    return Rendered(
        Markup("".join(rewriter.parts)),
        tuple(dict.fromkeys(rewriter.missing)),
        tuple(dict.fromkeys(rewriter.elsewhere)),
        tuple(dict.fromkeys(rewriter.wordless)),
        rewriter.asked_for_gallery,
    )


def _clean(html: str) -> str:
    """Only what the allowlists name, every element closed, every value escaped."""
    return nh3.clean(
        html,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        allowed_classes=_CLASSES,
        # A box to tick is a picture of one: no card can have fields to fill in.
        set_tag_attribute_values={"input": {"type": "checkbox", "disabled": ""}},
        tag_attribute_values={"input": {"checked": {""}}},
        url_schemes={"http", "https", "mailto"},
        link_rel="nofollow noopener noreferrer",
        # Nothing in a card can be taken for a part of the page around it.
        id_prefix=PREFIX,
    )


@functools.cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("gfm-like2", {"highlight": highlighting.highlighted})
    if parser.linkify is None:
        raise ImportError("linkify-it-py is not installed")
    # Of bare words GitHub's dialect takes `www.` and mail for addresses, but not `file.md`, which
    # could be a host of Moldova.
    parser.linkify.set({"fuzzy_link": False, "fuzzy_email": True})
    parser.linkify.add("www.", {"validate": _bare_address, "normalize": _with_scheme})
    return parser


def _bare_address(_: object, text: str, start: int) -> int:
    """How many characters after `www.` belong to an address."""
    match = _AFTER_WWW.match(text, start)
    if match is None:
        return 0
    found = match[0].rstrip(_NOT_LAST)
    while found.endswith(")") and found.count(")") > found.count("("):
        found = found[:-1].rstrip(_NOT_LAST)
    return len(found)


def _with_scheme(_: object, match: Any) -> None:
    match.url = f"http://{match.url}"


def _prepare(tokens: Sequence[Token]) -> None:
    """Name the headings, and write alignment and components as the cleaning lets them through."""
    names: dict[str, int] = {}
    for i, token in enumerate(tokens):
        if token.type == "heading_open":
            token.attrSet("id", _slug(tokens[i + 1], names))
        elif token.type in ("td_open", "th_open"):
            if match := _ALIGNMENT.search(str(token.attrGet("style") or "")):
                token.attrSet("align", match[1])
        elif token.type == "html_block":
            token.content = _COMPONENT.sub("<gallery></gallery>", token.content)
        for child in token.children or ():
            if child.type == "html_inline":
                child.content = _COMPONENT.sub("<gallery></gallery>", child.content)


def _slug(heading: Token, names: dict[str, int]) -> str:
    """What GitHub and the Hub call a heading in addresses."""
    shown = ("text", "code_inline")
    text = "".join(t.content for t in heading.children or () if t.type in shown)
    slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
    count = names[slug] = names.get(slug, -1) + 1
    return f"{slug}-{count}" if count else slug
