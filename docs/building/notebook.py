"""Shows `docs/example.ipynb` as a page. The notebook stays the only source."""

from __future__ import annotations

import json
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

NOTEBOOK = "example.ipynb"
PAGE = "example.md"


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the page to those that are files."""
    text = (Path(config.docs_dir) / NOTEBOOK).read_text("utf-8")
    files.append(File.generated(config, PAGE, content=page(text)))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: object) -> str:
    """Links to the notebook lead to its page, but for the page's own, which brings the file."""
    if page.file.src_uri == PAGE:
        return markdown
    return markdown.replace(f"]({NOTEBOOK})", f"]({PAGE})")


def page(notebook: str) -> str:
    """The notebook's cells as Markdown: what is Markdown as it is, code in fences."""
    title, *cells = json.loads(notebook)["cells"]
    parts = [_source(title), f"[Download this notebook]({NOTEBOOK})"]
    for cell in cells:
        source = _source(cell)
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    return "\n\n".join(parts) + "\n"


def _source(cell: dict[str, list[str]]) -> str:
    return "".join(cell["source"])
