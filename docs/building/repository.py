"""Pages may link to files of the repository outside `docs/`: each becomes a page of the site.

So a link works in the repository and on the site alike; one to a file that is not there fails the
build, as a link to a page does.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

log = get_plugin_logger("repository")

FOLDER = "repository"
#: `](../path)`, with or without an anchor.
_OUTWARD = re.compile(r"\]\((?P<path>(?:\.\./)+[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
_LANGUAGES = {".yaml": "yaml", ".py": "python", ".toml": "toml", ".sh": "sh"}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add a page for each file outside that a page links to."""
    docs = Path(config.docs_dir)
    wanted: set[str] = set()
    for file in files.documentation_pages():
        found = _OUTWARD.finditer(file.content_string)
        wanted |= {path for match in found if (path := _outside(file.src_uri, match["path"]))}
    for path in sorted(wanted):
        if (docs.parent / path).is_file():
            text = (docs.parent / path).read_text("utf-8")
            made = File.generated(config, _place(path), content=_shown(path, text))
            made.inclusion = InclusionLevel.NOT_IN_NAV
            files.append(made)
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point each such link at the page of its file."""

    def pointed(match: re.Match[str]) -> str:
        path = _outside(page.file.src_uri, match["path"])
        if path is None:
            return match[0]
        if files.get_file_from_path(_place(path)) is None:
            log.warning(f"{page.file.src_uri}: links to {path}, which is not in the repository")
        to = posixpath.relpath(_place(path), posixpath.dirname(page.file.src_uri) or ".")
        return f"]({to}{match['anchor'] or ''})"

    return _OUTWARD.sub(pointed, markdown)


def _outside(page: str, link: str) -> str | None:
    """The path in the repository that a page's link leads to, None if that is in `docs/`."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
    return None if path.startswith("docs/") else path


def _place(path: str) -> str:
    return f"{FOLDER}/{path.removesuffix('.md')}.md"


def _shown(path: str, text: str) -> str:
    if path.endswith(".md"):
        return text.replace("](docs/", "](../")  # pages that stand at the top of the repository
    language = _LANGUAGES.get(Path(path).suffix, "text")
    return f"# {path}\n\n````{language}\n{text.rstrip()}\n````\n"
