"""Pages of one repository: its card, its files, one file, its history, one commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from markupsafe import Markup
from starlette.responses import Response

from fluxconv.hub.rehearsal.errors import entry_not_found
from fluxconv.hub.rehearsal.metadata import without_metadata
from fluxconv.hub.rehearsal.pages import gallery, highlighting
from fluxconv.hub.rehearsal.pages.contents import PICTURES
from fluxconv.hub.rehearsal.pages.markdown import render
from fluxconv.hub.rehearsal.pages.opened import README, Opened
from fluxconv.hub.rehearsal.pages.remarks import remarks
from fluxconv.hub.rehearsal.pages.visit import Visit
from fluxconv.hub.rehearsal.pages.words import content_address
from fluxconv.hub.rehearsal.repository import DEFAULT_BRANCH, Commit, File


@dataclass(frozen=True)
class Change:
    """What a commit did to one file."""

    path: str
    verb: str
    before: File | None
    after: File | None


def card(visit: Visit) -> Response:
    """``GET /NS/NAME``: the card with what its metadata says."""
    opened = Opened.at(visit, DEFAULT_BRANCH)
    pictures = gallery.shown(opened)
    text = without_metadata(opened.readme or "")
    rendered = render(text, opened.place(), gallery.html(pictures))
    prompt = opened.facts.gate.prompt
    licence = opened.facts.licence
    return visit.page(
        "repository",
        opened=opened,
        card=rendered,
        gallery=Markup() if rendered.asked_for_gallery else gallery.html(pictures),
        gate=render(prompt, opened.place()).html,
        licence_link=opened.place().link(licence.link) if licence and licence.link else None,
        remarks=remarks(opened, rendered, pictures) if opened.owned else (),
    )


def files(visit: Visit) -> Response:
    """``GET /NS/NAME/tree/REV`` and ``.../PATH``: what there is, and where to get it."""
    opened = Opened.at(visit)
    path_given = "path" in visit.request.path_params
    folder = visit.call.parameter("path").strip("/") if path_given else ""
    flat = "all" in visit.request.query_params
    prefix = f"{folder}/" if folder else ""
    below = {p[len(prefix) :]: f for p, f in opened.commit.files.items() if p.startswith(prefix)}
    if not below and folder:
        raise entry_not_found(f"There is no folder {folder} here")
    here = sorted(below) if flat else sorted(path for path in below if "/" not in path)
    return visit.page(
        "files",
        opened=opened,
        folder=folder,
        prefix=prefix,
        folders=[] if flat else _folders(below),
        files=[(path, below[path]) for path in here],
        flat=flat,
        download=_download,
    )


def file(visit: Visit) -> Response:
    """``GET /NS/NAME/blob/REV/PATH``: one file, shown where it is text or a picture."""
    opened = Opened.at(visit)
    path = visit.call.parameter("path")
    found = opened.commit.files.get(path)
    if found is None:
        raise entry_not_found(f"There is no file {path} here")
    suffix = PurePosixPath(path).suffix.lower()
    # The card itself stands outside the gate.
    open_to_all = opened.readable or path == README
    text = opened.text(found) if open_to_all and suffix not in PICTURES else None
    return visit.page(
        "file",
        opened=opened,
        path=path,
        file=found,
        text=text,
        coloured=Markup(highlighting.highlighted(text, suffix[1:]) if text else ""),
        rendered=render(without_metadata(text), opened.place(path)).html
        if text and suffix == ".md"
        else None,
        picture=_download(opened, path) if opened.readable and suffix in PICTURES else None,
        download=_download,
    )


def commits(visit: Visit) -> Response:
    """``GET /NS/NAME/commits/REV``: how it came about, newest first."""
    opened = Opened.at(visit)
    history = opened.repo.history(opened.commit)
    changes = [_changes(opened, each) for each in history]
    return visit.page("commits", opened=opened, history=[*zip(history, changes, strict=True)])


def commit(visit: Visit) -> Response:
    """``GET /NS/NAME/commit/SHA``: what one commit did."""
    opened = Opened.at(visit)
    return visit.page("commit", opened=opened, changes=_changes(opened, opened.commit))


def _folders(below: Mapping[str, File]) -> list[tuple[str, int, int]]:
    """The folders right below: name, how many files, how many bytes."""
    names = sorted({path.partition("/")[0] for path in below if "/" in path})
    found = []
    for name in names:
        sizes = [file.size for path, file in below.items() if path.startswith(f"{name}/")]
        found.append((name, len(sizes), sum(sizes)))
    return found


def _changes(opened: Opened, commit: Commit) -> list[Change]:
    before = opened.repo.commit(commit.parents[0]).files if commit.parents else {}
    found = []
    for path in sorted({*before, *commit.files}):
        old, new = before.get(path), commit.files.get(path)
        if old is None or new is None or old.sha256 != new.sha256:
            verb = "added" if old is None else "removed" if new is None else "changed"
            found.append(Change(path, verb, old, new))
    return found


def _download(opened: Opened, path: str) -> str:
    return content_address(opened.repo.id, opened.revision, path)
