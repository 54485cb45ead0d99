"""The source's licence travels with its weights, and what is missing of it is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from reported import copied, reported

from fluxconv.cards import licence_of, write_card
from fluxconv.cards.licences import Licence
from fluxconv.cards.readme import parse
from fluxconv.converters import Variant
from fluxconv.converters.errors import MissingLicence

FLUX_DEV = {
    "license": "other",
    "license_name": "flux-1-dev-non-commercial-license",
    "license_link": "LICENSE.md",
}


@pytest.fixture
def variant(tiny_variants: dict[str, Variant], tmp_path: Path) -> Variant:
    """A variant with a passed report, and an Apache licence by its metadata alone."""
    return reported(copied(tiny_variants["bnb-nf4"], tmp_path))


def test_flux_dev_licence_and_notice_travel_with_the_weights(
    tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    variant = copied(
        tiny_variants["bnb-nf4"],
        tmp_path,
        metadata=FLUX_DEV,
        source_id="black-forest-labs/FLUX.1-dev",
    )
    with pytest.raises(MissingLicence, match=r"LICENSE\.md"):
        write_card(variant)
    assert not (variant.root / "README.md").exists()
    (variant.root / "LICENSE.md").write_text("The licence.")
    data = parse(write_card(variant).read_text(), "here").metadata
    assert data["license"] == "other"
    assert data["license_name"] == "flux-1-dev-non-commercial-license"
    assert data["license_link"].endswith("/FLUX.1-dev/blob/main/LICENSE.md")
    notice = (variant.root / "NOTICE").read_text()
    assert notice.startswith("The FLUX.1 [dev] Model is licensed by Black Forest Labs. Inc. under")
    assert "These weights were modified: they were quantized with fluxconv" in notice
    assert (variant.root / "LICENSE.md").read_text() == "The licence."
    assert licence_of(variant).gated


def test_apache_licence_text_is_added_where_it_is_missing(variant: Variant) -> None:
    write_card(variant)
    assert "Apache License" in (variant.root / "LICENSE.md").read_text()


def test_notice_of_the_source_is_kept(variant: Variant) -> None:
    root = variant.root
    (root / "NOTICE").write_text("By somebody.")
    write_card(variant)
    assert (root / "NOTICE").read_text() == "By somebody."
    assert "quantized with fluxconv" in (root / "NOTICE.md").read_text()


@pytest.mark.parametrize(
    ("metadata", "what"),
    [
        ({}, "license: "),
        ({"license": None}, "license: "),
        ({"license": "other"}, "license_name"),
        ({"license": "secret-sauce"}, r"LICENSE\.md"),
        ({"license": "mit"}, r"LICENSE\.md"),
    ],
)
def test_missing_or_unknown_licence_says_what_to_add(
    tiny_variants: dict[str, Variant], tmp_path: Path, metadata: dict[str, Any], what: str
) -> None:
    variant = copied(tiny_variants["bnb-nf4"], tmp_path, metadata=metadata)
    with pytest.raises(MissingLicence, match=what) as caught:
        licence_of(variant)
    assert str(variant.root) in str(caught.value)


def test_unknown_licence_passes_with_its_text(
    tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    variant = copied(tiny_variants["bnb-nf4"], tmp_path, metadata={"license": "Secret Sauce 1.0"})
    (variant.root / "LICENSE.txt").write_text("Terms.")
    licence = licence_of(variant)
    assert isinstance(licence, Licence)
    assert licence.metadata == {
        "license": "other",
        "license_name": "secret-sauce-1.0",
        "license_link": "LICENSE.txt",
    }
