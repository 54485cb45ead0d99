"""What is generated for a repository (card, licence text, notice), and writing it to a variant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fluxconv.cards.blind_tests import merge_blind_tests
from fluxconv.cards.facts import Facts, facts_of
from fluxconv.cards.licences import LICENCE_FILES, licence_of
from fluxconv.cards.metadata import card_metadata, gallery
from fluxconv.cards.naming import HUB, folder_in_repository, repository_name, shares_repository
from fluxconv.cards.readme import BEGIN, Readme, compose, parse
from fluxconv.cards.rendering import CardContents, render_card, render_notice
from fluxconv.cards.rules import metadata_problems
from fluxconv.converters.errors import BadInput, UsageError
from fluxconv.converters.manifest import MANIFEST_NAME
from fluxconv.converters.progress import Progress, Silent
from fluxconv.converters.variant import Variant
from fluxconv.validators.report import CONTACT_SHEET, require_passed

README = "README.md"
#: Our notice goes to the second name where the source brings a NOTICE of its own.
NOTICES = ("NOTICE", "NOTICE.md")
#: Every name that fluxconv generates in a variant, and publishes beside the manifest's files.
GENERATED = (README, LICENCE_FILES[0], *NOTICES)
_OURS = "they were quantized with fluxconv"


def write(
    variants: Sequence[Variant],
    *,
    namespace: str | None = None,
    validated: bool = True,
    blind_tests: Sequence[Path] = (),
    progress: Progress | None = None,
) -> tuple[Path, ...]:
    """Write the cards of variants that belong together, each with all of them in its table;
    returns the READMEs.

    `namespace` is the user or organisation of the Hub that they will be published as. With
    `validated=False` no report is relied on and the cards say so. `blind_tests` are results that
    report.html saved; each is kept in the variants that it is about.

    Raises `CheckFailed` for a variant without a passed report, before anything is written,
    `UsageError` for a blind test beside `validated=False`, `BadInput` for one that is none, and
    what `write_card` raises.
    """
    progress = progress or Silent()
    if not validated and blind_tests:
        raise UsageError(
            "--blind-test: a card that says 'not validated' (--no-validate) relies on no pictures; "
            "give one of the two"
        )
    if validated:
        for variant in variants:
            require_passed(variant)
    merge_blind_tests(blind_tests, variants)
    progress.start("Writing cards", len(variants), "cards")
    written = []
    for variant in variants:
        repository = f"{namespace}/{repository_name(variant)}" if namespace else None
        written.append(
            write_card(variant, siblings=variants, repository=repository, validated=validated)
        )
        progress.advance(1, variant.name)
    progress.finish()
    return tuple(written)


def write_card(
    variant: Variant,
    *,
    siblings: Sequence[Variant] = (),
    repository: str | None = None,
    validated: bool = True,
    endpoint: str = HUB,
) -> Path:
    """Write README.md, the licence's text and NOTICE into the variant's folder; returns the README.

    `siblings` are variants of the same checkpoint that stand in the table too; `repository` is
    where the variant is, or will be, published: `owner/name`, at `endpoint`. With
    `validated=False` no report is relied on and the card says so. What somebody wrote around our
    part of the README stays. Raises `MissingLicence`, `UsageError` for an impossible repository,
    `BadInput` for a README whose markers or front matter are broken.
    """
    own, others = split_siblings(variant, siblings)
    texts = documents(
        own,
        others=others,
        repository=repository,
        validated=validated,
        endpoint=endpoint,
        existing=local_readme(variant),
        published=False,
    )
    write_documents(variant, texts)
    return variant.root / README


def refresh_card(variant: Variant, *, siblings: Sequence[Variant] = ()) -> bool:
    """Write the card again if there is one of ours, because the report changed; whether it was.

    Raises what `write_card` raises.
    """
    place = variant.root / README
    if not place.is_file() or BEGIN not in place.read_text("utf-8", errors="replace"):
        return False
    write_card(variant, siblings=siblings)
    return True


def split_siblings(
    variant: Variant, siblings: Sequence[Variant]
) -> tuple[tuple[Variant, ...], tuple[Variant, ...]]:
    """Those that share the variant's repository, itself included, and those that do not."""
    others = [
        other
        for other in siblings
        if other.name != variant.name and _source_of(other) == _source_of(variant)
    ]
    if not shares_repository(variant):
        return (variant,), tuple(others)
    name = repository_name(variant)
    shared = [other for other in others if repository_name(other) == name]
    return (variant, *shared), tuple(other for other in others if other not in shared)


def _source_of(variant: Variant) -> tuple[str, str | None]:
    source = variant.manifest.source
    return source.id, source.revision


def local_readme(variant: Variant) -> Readme:
    """The README in the variant's folder, empty if there is none; raises `BadInput`."""
    place = variant.root / README
    if not place.exists():
        return Readme({}, "", "")
    try:
        return parse(place.read_text("utf-8"), str(place))
    except UnicodeDecodeError as error:
        raise BadInput(f"{place}: is not UTF-8 text") from error


def documents(
    own: Sequence[Variant],
    *,
    others: Sequence[Variant] = (),
    repository: str | None = None,
    validated: bool = True,
    endpoint: str = HUB,
    existing: Readme,
    published: bool,
) -> dict[str, str]:
    """The generated texts of the repository that holds the variants `own`, by file name.

    `published` chooses the paths of pictures: as they lie in the repository, or in the folder of
    the first variant. Raises as `write_card` does.
    """
    first = own[0]
    licence = licence_of(first)
    namespace = repository.partition("/")[0] if repository else None
    notice = _notice_name(first)
    inner = {variant.name: folder_in_repository(variant) if published else "" for variant in own}
    sheets = {
        variant.name: inner[variant.name] + CONTACT_SHEET
        for variant in (own if published else own[:1])
        if (variant.root / CONTACT_SHEET).is_file()
    }
    facts = [_facts(v, namespace, endpoint, validated) for v in own]
    contents = CardContents(
        facts,
        [_facts(v, namespace, endpoint, validated) for v in others],
        repository,
        licence,
        notice,
        inner[first.name] + MANIFEST_NAME,
        sheets,
        bool(gallery(facts[0], inner[first.name])),
    )
    metadata = card_metadata(facts, licence, inner[first.name])
    text = compose(render_card(contents), metadata, existing)
    problems = metadata_problems(parse(text, README).metadata)
    if problems:
        raise BadInput(f"{first.root}/{README}: its front matter has: {'; '.join(problems)}")
    found = {README: text, notice: render_notice(own, licence)}
    if licence.file is None and licence.shipped is not None:
        found[LICENCE_FILES[0]] = licence.shipped
    return found


def write_documents(variant: Variant, texts: dict[str, str]) -> None:
    """Write generated texts into the variant's folder; each file is old or complete, never half."""
    for name, text in texts.items():
        place = variant.root / name
        if place.is_symlink():
            raise BadInput(f"{place}: is a symbolic link; remove it")
        if place.is_file() and place.read_bytes() == text.encode():
            continue
        partial = place.with_name(f".{name}.partial")
        partial.write_bytes(text.encode())
        partial.replace(place)


def _facts(variant: Variant, namespace: str | None, endpoint: str, validated: bool) -> Facts:
    return facts_of(variant, namespace=namespace, endpoint=endpoint, validated=validated)


def _notice_name(variant: Variant) -> str:
    first, second = NOTICES
    if first in variant.manifest.files:
        return second
    place = variant.root / first
    if place.is_file() and _OURS not in place.read_text("utf-8", errors="replace"):
        return second
    return first
