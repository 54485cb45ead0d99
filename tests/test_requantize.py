"""A variant is a source only where that was asked for, and then as if it had been dequantized."""

from __future__ import annotations

from pathlib import Path

import pytest
from validating import failed_weights

from fluxconv.commands.main import run
from fluxconv.converters import Variant, dequantize, open_checkpoint, open_variant, quantize
from fluxconv.converters.errors import MalformedFile, NotACheckpoint, UsageError
from fluxconv.converters.manifest import MANIFEST_NAME
from fluxconv.converters.planning import plan
from fluxconv.converters.progress import Silent
from fluxconv.converters.sources.requantized import REQUANTIZED
from fluxconv.converters.variant import hash_file
from fluxconv.validators.reference import check_hashes, check_sizes, hash_reference

SOURCES = ("gguf-q8_0", "gguf-q4_0", "fp8-layerwise", "torchao-fp8")


@pytest.mark.parametrize("backend", SOURCES)
def test_it_gives_what_the_dequantized_variant_gives(
    backend: str, tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    first = tiny_variants[backend]
    again = open_checkpoint(first.root, allow_requantize=True)
    (made,) = quantize(again, ["bnb-nf4"], tmp_path / "made")
    plain = dequantize(first, tmp_path / first.name)
    (want,) = quantize(open_checkpoint(plain), ["bnb-nf4"], tmp_path / "want")
    assert made.name == want.name == f"{first.name}-bnb-nf4"
    assert made.manifest.files == want.manifest.files
    assert made.manifest.source.id == first.name
    assert made.manifest.source.metadata == first.manifest.source.metadata
    for name, record in made.manifest.source.files.items():
        assert hash_file(first.root / name) == record


def test_it_is_the_reference_of_what_was_made_of_it(
    tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    again = open_checkpoint(tiny_variants["gguf-q8_0"].root, allow_requantize=True)
    (made,) = quantize(again, ["bnb-nf4"], tmp_path)
    assert check_sizes([made], again, force=False) == [None]
    hashes = hash_reference(again, Silent())
    assert check_hashes([made], again, hashes, force=False) == [None]
    assert failed_weights(made, again) == []


def test_without_being_asked_for_it_is_refused(tiny_variants: dict[str, Variant]) -> None:
    with pytest.raises(
        NotACheckpoint, match=r"already quantized \(gguf-q8_0\).*--allow-requantize"
    ):
        open_checkpoint(tiny_variants["gguf-q8_0"].root)


def test_what_lost_too_much_is_refused(tiny_variants: dict[str, Variant]) -> None:
    assert not "bnb-nf4".startswith(REQUANTIZED)
    for allowed in (True, False):
        with pytest.raises(NotACheckpoint, match=r"already quantized \(bnb-nf4\); dequantize it"):
            open_checkpoint(tiny_variants["bnb-nf4"].root, allow_requantize=allowed)
    with pytest.raises(NotACheckpoint, match="already quantized"):  # its folder alone
        open_checkpoint(tiny_variants["bnb-nf4"].root / "transformer", allow_requantize=True)


def test_its_parts_are_not_carried_over(tiny_variants: dict[str, Variant]) -> None:
    again = open_checkpoint(tiny_variants["gguf-q8_0"].root, allow_requantize=True)
    with pytest.raises(UsageError, match="quantize text_encoder_2, too"):
        plan(again, ["bnb-nf4"], ("transformer",))


def test_a_damaged_variant_is_no_source(broken, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    variant = broken("gguf-q8_0")
    other = variant.root / next(n for n in variant.manifest.files if n.endswith("flux-Q8_0.gguf"))
    t5 = variant.root / next(n for n in variant.manifest.files if "text_encoder_2-Q8" in n)
    other.write_bytes(t5.read_bytes())
    assert (variant.root / MANIFEST_NAME).is_file() and open_variant(variant.root)
    with pytest.raises(MalformedFile, match="is not as planned"):
        open_checkpoint(variant.root, allow_requantize=True)


def test_a_variant_cannot_lend_what_it_has_quantized(
    tiny_variants: dict[str, Variant], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    variant = tiny_variants["gguf-q4_k_m"].root
    file = variant / "tiny-flux-Q4_K_M.gguf"
    words = ["dequantize", str(file), "--base", str(variant), "-o", str(tmp_path / "out")]
    assert run(words) == 3
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "is a gguf-q4_k_m variant, its text_encoder_2 quantized; give the pipeline it was" in said
    )


def test_a_variant_takes_no_base(
    tiny_variants: dict[str, Variant], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["dequantize", str(tiny_variants["gguf-q4_k_m"].root), "--base", "x"]
    assert run([*words, "-o", str(tmp_path / "out")]) == 2
    assert "is a folder, and only a single file takes one" in capsys.readouterr().err
