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
    assert notice.startswith("The FLUX.1 [dev] Model is licensed by Black Forest Labs Inc. under")
    assert "granted directly by Black Forest Labs Inc." in notice
    assert "not an official product" in notice
    assert "These weights were modified: they were quantized with fluxconv" in notice
    assert (variant.root / "LICENSE.md").read_text() == "The licence."
    assert licence_of(variant).gated == "auto"
    assert data["extra_gated_prompt"].startswith('By clicking "Agree"')


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


def test_notice_is_that_of_the_edition_at_hand(
    tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    variant = copied(tiny_variants["bnb-nf4"], tmp_path, metadata=FLUX_DEV)
    first = "The FLUX.1 [dev] Model is licensed by Black Forest Labs. Inc. under the FLUX.1 [dev]"
    rest = (
        " Non-Commercial License. Copyright Black Forest Labs. Inc. \nIN NO EVENT SHALL BLACK "
        "FOREST LABS, INC. BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN "
        "ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH USE OF "
        "THIS MODEL."
    )
    (variant.root / "LICENSE.md").write_text(f"notice: “{first}\n{rest}”")
    write_card(variant, validated=False)
    assert (variant.root / "NOTICE").read_text().startswith(first)


@pytest.mark.parametrize(
    ("source", "link"),
    [
        ("black-forest-labs/FLUX.1-Krea-dev", "FLUX.1-Krea-dev"),
        ("black-forest-labs/FLUX.1-Kontext-dev", "FLUX.1-Kontext-dev"),
        ("black-forest-labs/FLUX.1-Fill-dev", "FLUX.1-Fill-dev"),
        ("black-forest-labs/FLUX.1-Depth-dev", "FLUX.1-dev"),
        ("somebody/FLUX.1-Krea-dev", "FLUX.1-dev"),
    ],
)
def test_every_model_of_the_family_links_to_its_licence(
    tiny_variants: dict[str, Variant], tmp_path: Path, source: str, link: str
) -> None:
    variant = copied(tiny_variants["bnb-nf4"], tmp_path, metadata=FLUX_DEV, source_id=source)
    (variant.root / "LICENSE.md").write_text("The licence.")
    found = licence_of(variant)
    assert found.link == f"https://huggingface.co/black-forest-labs/{link}/blob/main/LICENSE.md"


def test_a_fine_tune_that_calls_it_otherwise_is_under_the_same_licence(
    tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    metadata = {"license": "other", "license_name": "flux1dev"}
    variant = copied(tiny_variants["bnb-nf4"], tmp_path, metadata=metadata)
    (variant.root / "LICENSE.md").write_text("The licence.")
    assert licence_of(variant).name == "flux-1-dev-non-commercial-license"


def test_what_is_free_is_not_gated(variant: Variant) -> None:
    found = licence_of(variant)
    assert found.gated is False and "extra_gated_prompt" not in found.metadata
