"""What a user sets about a backend: checked before work starts, kept in name, manifest and card."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxconv.commands.options import chosen_backends
from fluxconv.converters import Checkpoint, plan, quantize
from fluxconv.converters.backends import all_backends, get_backend, has_cuda, missing, require
from fluxconv.converters.errors import MissingRequirement, UsageError
from fluxconv.converters.variant import open_variant


def test_a_setting_goes_to_every_backend_that_has_it_or_to_the_one_named() -> None:
    names = ("bnb-nf4", "bnb-fp4", "torchao-int8")
    nf4, fp4, int8 = chosen_backends(names, ("double_quant=true",), (), ())
    assert nf4.options.changed() == fp4.options.changed() == {"double_quant": True}
    assert int8.options.changed() == {}
    nf4, fp4, _ = chosen_backends(names, ("bnb-fp4:double_quant=true",), ("proj_out",), ())
    assert nf4.options.changed() == {"skip": ["proj_out"]}
    assert fp4.options.changed() == {"skip": ["proj_out"], "double_quant": True}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("double_quants=true",), "did you mean double_quant?"),
        (("double_quant=perhaps",), "double_quant"),
        (("compute_dtype=bfloat",), "bfloat16, float16, float32.*did you mean bfloat16"),
        (("skip=proj_out",), "give --skip"),
        (("bnb-nf5:double_quant=1",), "did you mean bnb-nf4?"),
        (("double_quant",), "KEY=VALUE"),
    ],
)
def test_a_wrong_setting_gets_the_nearest_right_one(settings: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        chosen_backends(("bnb-nf4",), settings, (), ())


@pytest.mark.parametrize("name", list(all_backends()))
@pytest.mark.parametrize("pattern", ["no_such_module", "norm_q"])
def test_a_skip_that_would_change_nothing_is_refused(
    name: str, pattern: str, tiny_checkpoint: Checkpoint
) -> None:
    backend = get_backend(name).configured({"skip": [pattern]})
    with pytest.raises(UsageError, match="matches no module"):
        plan(tiny_checkpoint, [backend])


@pytest.mark.parametrize("name", [name for name in all_backends() if name != "fp8-layerwise"])
def test_skip_takes_both_kinds_of_names(name: str, tiny_checkpoint: Checkpoint) -> None:
    kept = []
    for pattern in (r"^transformer_blocks\.1\.ff\.net\.2$", r"^double_blocks\.1\.img_mlp\.2$"):
        backend = get_backend(name).configured({"skip": [pattern]})
        (planned,) = plan(tiny_checkpoint, [backend], ("transformer",))
        kept.append([t.name for t in planned.components[0].tensors if not t.quantized])
    assert kept[0] == kept[1]
    (whole,) = plan(tiny_checkpoint, [name], ("transformer",))
    assert len(kept[0]) > sum(not t.quantized for t in whole.components[0].tensors)


def test_settings_survive_in_name_and_manifest(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    backend = get_backend("bnb-nf4").configured({"skip": ["proj_out"], "double_quant": True})
    (made,) = quantize(tiny_checkpoint, [backend], tmp_path)
    assert made.name.startswith("tiny-flux-bnb-nf4-skip-")
    assert made.name.endswith("-double-quant")
    opened = open_variant(made.root)
    assert opened.manifest.options == {"skip": ["proj_out"], "double_quant": True}
    assert opened.backend == backend


@pytest.mark.skipif(has_cuda(), reason="there is a GPU here")
def test_a_backend_that_needs_a_gpu_says_so_at_once(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    backend = get_backend("torchao-int4")
    assert "GPU" in (missing(backend, "cpu") or "")
    with pytest.raises(MissingRequirement, match="torchao-int4 quantizes on cuda"):
        require(backend, "cpu")
    with pytest.raises(MissingRequirement):
        quantize(tiny_checkpoint, [backend], tmp_path / "out")
    assert not (tmp_path / "out").exists()
