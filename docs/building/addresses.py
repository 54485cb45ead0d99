"""Holds the built site to its promise: no page asks another host for anything.

Links that a reader may follow to other hosts are listed in `build/external-links.txt`, and not
fetched.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority, get_plugin_logger

log = get_plugin_logger("addresses")

LIST = "external-links.txt"
#: `<link>` of these kinds say where something is; all others are fetched.
_NOT_FETCHED = {"canonical", "prev", "next", "alternate"}
_IN_STYLES = re.compile(r"""(?:@import\s*|url\()\s*["']?((?:https?:)?//[^"')\s]+)""")


class _Addresses(HTMLParser):
    """What a page asks for when it is opened, and where its links lead."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: set[str] = set()
        self.followed: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "a":
            self._note(self.followed, given.get("href", ""))
        elif tag == "link" and given.get("rel") not in _NOT_FETCHED:
            self._note(self.fetched, given.get("href", ""))
        for name in ("src", "poster", "data", "action"):
            self._note(self.fetched, given.get(name, ""))
        for entry in given.get("srcset", "").split(","):
            self._note(self.fetched, entry.strip().partition(" ")[0])

    @staticmethod
    def _note(into: set[str], address: str) -> None:
        if address.startswith(("http:", "https:", "//")):
            into.add(address)


@event_priority(-200)
def on_post_build(*, config: MkDocsConfig) -> None:
    """Look at every page and style of the site."""
    site = Path(config.site_dir)
    followed: dict[str, list[str]] = {}
    for file in sorted(site.rglob("*.html")):
        found = _Addresses()
        found.feed(file.read_text("utf-8"))
        where = str(file.relative_to(site))
        for address in sorted(found.fetched):
            log.warning(f"{where}: fetches {address}; bring it along instead")
        for address in found.followed:
            followed.setdefault(address, []).append(where)
    for file in sorted(site.rglob("*.css")):
        for address in sorted(set(_IN_STYLES.findall(file.read_text("utf-8")))):
            log.warning(f"{file.relative_to(site)}: fetches {address}; bring it along instead")
    lines = [f"{address}  ({', '.join(pages)})\n" for address, pages in sorted(followed.items())]
    (site.parent / LIST).write_text("".join(lines), "utf-8")
    log.info(f"{len(lines)} links lead to other hosts: {site.parent / LIST}")
