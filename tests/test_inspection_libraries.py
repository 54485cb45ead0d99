"""`inspect` says what other people made with the libraries: here they make it themselves."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from inspecting import only
from safetensors.torch import load_file

from fluxconv.converters import Checkpoint
from fluxconv.converters.architectures import FLUX
from fluxconv.converters.inspection import InspectedComponent

Save = Callable[[Any], Path]


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny T5 encoder, as transformers saves it."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=100,
        d_model=256,
        d_kv=64,
        d_ff=512,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    folder = tmp_path_factory.mktemp("t5")
    T5EncoderModel(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture
def saved(t5: Path, tmp_path: Path) -> Save:
    """The tiny T5, quantized and saved by transformers with a configuration of its own."""

    def save(config: Any) -> Path:
        from transformers import T5EncoderModel

        model = T5EncoderModel.from_pretrained(
            t5, dtype=torch.bfloat16, quantization_config=config, local_files_only=True
        )
        model.save_pretrained(tmp_path / "saved")
        return tmp_path / "saved"

    return save


def check(found: InspectedComponent, source: Path, library: str, scheme: str) -> dict[str, Any]:
    """Library, scheme, and the exact number of weights; returns the settings."""
    assert found.recognised is not None
    assert (found.recognised.library, found.recognised.scheme) == (library, scheme)
    weights = load_file(source / "model.safetensors")
    assert found.weights == sum(tensor.numel() for tensor in weights.values())
    return dict(found.recognised.settings)


def test_bitsandbytes_4bit_with_double_quantization(t5: Path, saved: Save) -> None:
    from transformers import BitsAndBytesConfig

    folder = saved(
        BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="fp4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float16,
            llm_int8_skip_modules=["SelfAttention.k"],
        )
    )
    found = only(folder)
    settings = check(found, t5, "bitsandbytes", "fp4")
    assert settings["double_quant"] is True
    assert settings["compute_dtype"] == "float16"
    assert settings["block_size"] == 64
    assert settings["skipped"] == ["SelfAttention.k"]
    kept = {name for name in found.kept if name.endswith((".k", ".wo"))}
    assert kept == {f"encoder.block.{i}.layer.{end}" for i in (0, 1) for end in (
        "0.SelfAttention.k", "1.DenseReluDense.wo"
    )}  # fmt: skip
    assert 4 < (found.bits_per_weight or 0) < 16


def test_bitsandbytes_8bit_says_its_threshold(t5: Path, saved: Save) -> None:
    from transformers import BitsAndBytesConfig

    found = only(saved(BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=4.5)))
    assert check(found, t5, "bitsandbytes", "int8")["threshold"] == 4.5


def test_torchao_says_its_granularity(t5: Path, saved: Save) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, PerGroup
    from transformers import TorchAoConfig

    found = only(saved(TorchAoConfig(Int8WeightOnlyConfig(granularity=PerGroup(64)))))
    settings = check(found, t5, "torchao", "Int8WeightOnlyConfig")
    assert settings["granularity"] == "PerGroup(group_size=64)"


def test_torchao_with_quantized_activations(t5: Path, saved: Save) -> None:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig
    from transformers import TorchAoConfig

    found = only(saved(TorchAoConfig(Int8DynamicActivationInt8WeightConfig())))
    settings = check(found, t5, "torchao", "Int8DynamicActivationInt8WeightConfig")
    assert settings["activations"] == "SYMMETRIC"


def test_torchao_is_known_from_the_header_alone(t5: Path, saved: Save) -> None:
    """The lone file, without the config beside it."""
    from torchao.quantization import Float8WeightOnlyConfig
    from transformers import TorchAoConfig

    folder = saved(TorchAoConfig(Float8WeightOnlyConfig()))
    found = only(folder / "model.safetensors")
    assert found.title == "safetensors file: T5 text encoder"
    assert check(found, t5, "torchao", "Float8Tensor")["granularity"] == "row"


def test_quanto_in_its_own_format(t5: Path, tmp_path: Path) -> None:
    """`quanto_qmap.json` and no `quantization_config`."""
    from optimum.quanto import QuantizedTransformersModel
    from transformers import AutoModelForTextEncoding, T5EncoderModel

    class QuantizedT5(QuantizedTransformersModel):  # type: ignore[misc]
        auto_class = AutoModelForTextEncoding

    model = T5EncoderModel.from_pretrained(t5, dtype=torch.bfloat16)
    QuantizedT5.quantize(model, weights="qint4", exclude="*.wo").save_pretrained(tmp_path / "q")
    found = only(tmp_path / "q")
    settings = check(found, t5, "optimum-quanto", "int4")
    assert settings["activations"] == "none"
    assert settings["group_size"] == 128
    assert "encoder.block.0.layer.1.DenseReluDense.wo" in found.kept


def test_a_transformer_that_diffusers_saved_with_quanto(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    from diffusers import FluxTransformer2DModel, QuantoConfig

    model = FluxTransformer2DModel.from_pretrained(
        tiny_checkpoint.root / "transformer",
        dtype=torch.bfloat16,
        quantization_config=QuantoConfig("int8", modules_to_not_convert=["x_embedder"]),
    )
    model.save_pretrained(tmp_path / "transformer")
    found = only(tmp_path / "transformer")
    assert found.quantization == "optimum-quanto int8"
    assert found.kept == ("x_embedder",)
    assert found.recognised is not None
    assert found.recognised.settings["skipped"] == ["x_embedder"]
    assert found.weights == sum(math.prod(shape) for shape in shapes(tiny_checkpoint).values())


def shapes(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    config = checkpoint.components["transformer"].config
    return {spec.name: spec.shape for spec in FLUX.specs(config)}
