"""The weights layer: what it measures is right, and honest variants pass it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import synthetic
import torch
from safetensors.torch import load_file, save_file

from fluxconv.converters import Checkpoint, Variant, open_checkpoint, quantize
from fluxconv.converters.backends import get_backend
from fluxconv.converters.progress import Silent
from fluxconv.converters.stored import decode_component
from fluxconv.validators.tensor_errors import TensorSums, sums_of
from fluxconv.validators.weights import compare_weights


def test_no_honest_variant_has_a_problem(
    tiny_variants: dict[str, Variant], tiny_checkpoint: Checkpoint
) -> None:
    for variant in tiny_variants.values():
        results = compare_weights(variant.root, tiny_checkpoint, Silent())
        problems = {name: result.problems for name, result in results.items()}
        assert problems == {"transformer": (), "text_encoder_2": ()}, variant.name


@pytest.mark.parametrize("backend", ["gguf-q4_k_m", "bnb-nf4", "quanto-int4"])
def test_figures_are_those_of_the_whole_tensors(
    backend: str, tiny_variants: dict[str, Variant], tiny_checkpoint: Checkpoint
) -> None:
    variant = tiny_variants[backend]
    result = compare_weights(variant.root, tiny_checkpoint, Silent())["transformer"]
    plan = variant.component_plans()["transformer"]
    decoded = dict(decode_component(variant.root, plan))
    assert len(result.tensors) + result.kept == len(plan.specs)
    for found in result.tensors:
        source = tiny_checkpoint.components["transformer"].read(found.name).double()
        error = decoded[found.name].double() - source
        relative = float(error.norm() / source.norm())
        assert found.relative_rms == pytest.approx(relative, rel=1e-5)
        assert found.snr == pytest.approx(-20 * math.log10(relative), abs=1e-3)
        assert found.largest == pytest.approx(float(error.abs().max()), rel=1e-6)
        gain = float(((error + source) * source).sum() / source.square().sum())
        assert found.gain == pytest.approx(gain, abs=1e-6)
        cosine = gain * float(source.norm() / (error + source).norm())
        assert found.cosine == pytest.approx(cosine, abs=1e-6)
        assert found.weights == source.numel()
    assert [each.name for each in result.tensors] == [
        spec.name for spec in plan.specs if plan.by_source[spec.name][0][0].quantized
    ]


def test_kinds_sum_up_what_differs_only_in_its_block(
    tiny_variants: dict[str, Variant], tiny_checkpoint: Checkpoint
) -> None:
    result = compare_weights(tiny_variants["gguf-q4_k_m"].root, tiny_checkpoint, Silent())
    kinds = {kind.name: kind for kind in result["transformer"].kinds}
    kind = kinds["transformer_blocks.*.ff.net.2.weight"]
    them = [t for t in result["transformer"].tensors if t.name.endswith("s.0.ff.net.2.weight")]
    assert kind.tensors == 2 and kind.weights == 2 * them[0].weights
    assert sum(kind.weights for kind in kinds.values()) == sum(
        tensor.weights for tensor in result["transformer"].tensors
    )


def test_worst_stretch_is_found_where_it_is() -> None:
    source = torch.randn(8, 700, generator=torch.Generator().manual_seed(0))
    decoded = source.clone()
    decoded[5, 512:] = 0  # the end of a row, less than a whole stretch
    sums = TensorSums("weight", "Q8_0", (8, 700))
    for row in (0, 3, 6):
        sums.add(row, sums_of(decoded[row : row + 3], source[row : row + 3]))
    found = sums.measured().worst
    assert found and (found.row, found.column) == (5, 512)
    assert found.relative == pytest.approx(1, abs=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torchao-int8", "bnb-nf4", "gguf-q4_k_m", "gguf-q2_k"])
def test_heavy_tails_and_outliers_are_no_fault(backend: str, tmp_path: Path) -> None:
    config = synthetic.transformer_config(double=1, single=1, heads=4, head_dim=128, joint=512)
    (file,) = synthetic.write_transformer(tmp_path / "source", config)
    noise = torch.Generator().manual_seed(0)
    tensors = load_file(file)
    for number, (name, weight) in enumerate(tensors.items()):
        if weight.ndim == 2:
            values = torch.randn(weight.shape, generator=noise) * 0.02
            match number % 4:
                case 0:
                    values[::97] *= 20
                case 1:
                    values[:, ::97] *= 10
                case 2:
                    values[torch.rand(weight.shape, generator=noise) < 1e-3] *= 20
                case 3:
                    values *= torch.exp(torch.randn(len(values), 1, generator=noise))
            tensors[name] = values.to(torch.bfloat16)
    save_file(tensors, file, {"format": "pt"})
    source = open_checkpoint(tmp_path / "source" / "transformer")
    (variant,) = quantize(source, [get_backend(backend)], tmp_path / "variants")
    assert compare_weights(variant.root, source, Silent())["transformer"].problems == ()
