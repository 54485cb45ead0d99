"""A variant passes only if it was reopened, compared with its source and drew what that draws."""

from __future__ import annotations

from PIL import Image
from validating import PROMPTS, SAFETENSORS, Validated

from fluxconv.converters.progress import Silent
from fluxconv.validators import read_report, require_passed
from fluxconv.validators.kept import FOLDER
from fluxconv.validators.report import CONTACT_SHEET


def test_every_variant_passes(validated: Validated) -> None:
    _, reports, _ = validated
    for report in reports:
        assert report.verdict.passed, [c.text for c in report.verdict.checks if not c.passed]
        assert report.structure.problems == ()
        assert report.structure.files > 10 and report.structure.tensors > 100
        assert report.weights and set(report.weights) == {"transformer", "text_encoder_2"}
        assert report.execution and set(report.execution) == set(report.weights)
        assert report.reference_difference is None


def test_source_is_drawn_once_for_all_variants(validated: Validated) -> None:
    variants, _, jobs = validated
    assert [job for job, _ in jobs].count("source") == 1
    for variant in variants.values():
        assert jobs.count(("draw", variant.name)) == 1


def test_decoded_execution_is_reported_with_its_reason(validated: Validated) -> None:
    variants, reports, _ = validated
    by_backend = dict(zip(variants, reports, strict=True))
    nf4 = by_backend["bnb-nf4"].execution
    assert nf4 and nf4["transformer"].mode == "decoded" and "GPU" in nf4["transformer"].why
    assert not by_backend[SAFETENSORS].is_decoded


def test_report_on_disk_is_the_one_returned_and_passes_the_gate(validated: Validated) -> None:
    variants, reports, _ = validated
    for variant, report in zip(variants.values(), reports, strict=True):
        assert read_report(variant) == report == require_passed(variant)
        assert report.pictures and len(report.pictures.pictures) == len(PROMPTS)
        for picture in report.pictures.pictures:
            for name in (picture.source, picture.variant, picture.flip_map):
                assert Image.open(variant.root / name).size == (64, 64)
        assert Image.open(variant.root / CONTACT_SHEET).width > 3 * 192
        hidden = [path.name for path in variant.root.iterdir() if path.name.startswith(".")]
        assert hidden == [FOLDER]
        variant.check_hashes(Silent())


def test_fewer_bits_give_larger_errors(validated: Validated) -> None:
    variants, reports, _ = validated
    errors = {
        variant.backend.bits: report.weights["transformer"].relative_rms
        for variant, report in zip(variants.values(), reports, strict=True)
        if report.weights
    }
    ordered = [errors[bits] for bits in sorted(errors)]
    assert ordered == sorted(ordered, reverse=True)
