"""Cleaned HTML in, the same with its links and pictures leading where they should.

This reads HTML that was cleaned already: every element closed, every value escaped. It writes the
same again, with addresses that were looked up in the commit's list of files.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from html import escape
from html.parser import HTMLParser
from urllib.parse import unquote

from fluxconv.hub.rehearsal.pages.places import PREFIX, Place, split

_VOID = {"br", "col", "hr", "img", "input", "wbr"}
# What a keyboard has to reach, because it scrolls by itself when it is wide.
_SCROLLS = {"role": "group", "tabindex": "0"}


class Rewriter(HTMLParser):
    """`parts` is what comes out; the lists say what its author may want to know."""

    def __init__(self, place: Place, gallery: str = "") -> None:
        super().__init__(convert_charrefs=False)
        self.parts: list[str] = []
        self.missing: list[str] = []
        self.elsewhere: list[str] = []
        self.wordless: list[str] = []
        self.asked_for_gallery = False
        self._place = place
        self._gallery = gallery
        self._links = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        match tag:
            case "gallery":
                self.asked_for_gallery = True
                self.parts.append(self._gallery)
                return
            case "img":
                self.parts.append(self.picture(given))
                return
            case "a":
                self._links += 1
                self._resolve(given)
            case "input":
                given["aria-label"] = "done" if "checked" in given else "to do"
            case "table":
                self.parts.append(_tag("div", {"class": "wide", "aria-label": "Table", **_SCROLLS}))
            case "pre":
                given |= {"aria-label": "Code", **_SCROLLS}
        self.parts.append(_tag(tag, given))

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID or tag == "gallery":
            return
        self._links -= tag == "a"
        self.parts.append(f"</{tag}>")
        if tag == "table":
            self.parts.append("</div>")

    def handle_data(self, data: str) -> None:
        self.parts.append(escape(data, quote=False))

    def handle_entityref(self, name: str) -> None:
        self.parts.append(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self.parts.append(f"&#{name};")

    def picture(self, given: Mapping[str, str]) -> str:
        """A picture of the repository, or what stands in its place."""
        url, words = given.get("src", ""), given.get("alt", "")
        found = self._place.picture(url)
        if found is None:
            return self._no_picture(url, words)
        if not words:
            self.wordless.append(url)
        if not self._place.readable:
            return f'<span class="unseen">Picture behind the gate: {escape(words or url)}</span>'
        name = words or posixpath.basename(unquote(split(url).path))
        return _tag("img", {**given, "src": found, "alt": name})

    def _no_picture(self, url: str, words: str) -> str:
        host = split(url).netloc
        if not host or host == self._place.host:
            self.missing.append(url or "a picture without an address")
            return f'<span class="missing">No such picture: {escape(url or "no address")}</span>'
        # Not loaded: whoever holds that host would learn who looks, and when.
        self.elsewhere.append(url)
        text = f"Picture on {escape(host)}" + (f": {escape(words)}" if words else "")
        link = self._place.link(url)
        if self._links or link is None:
            return f'<span class="unseen">{text}</span>'
        rel = "nofollow noopener noreferrer"
        return f"{_tag('a', {'class': 'unseen', 'href': link, 'rel': rel})}{text}</a>"

    def _resolve(self, given: dict[str, str]) -> None:
        url = given.get("href")
        if url is None:
            return
        if url.startswith("#"):
            given["href"] = f"#{PREFIX}{url[1:]}"
            return
        found = self._place.link(url)
        if found is not None:
            given["href"] = found
            return
        self.missing.append(url)
        given["class"] = "missing"
        del given["href"]


def _tag(tag: str, attributes: Mapping[str, str]) -> str:
    given = "".join(f' {name}="{escape(value)}"' for name, value in attributes.items())
    return f"<{tag}{given}>"
