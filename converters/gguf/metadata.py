"""The key-value metadata of a GGUF file: what it is, where it comes from, its tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluxconv.converters.architectures import T5_ENCODER, Architecture
from fluxconv.converters.gguf.tokenizer import add_t5_tokenizer


@dataclass(frozen=True)
class Metadata:
    """What the metadata of one file is made from.

    `tokenizer` is the folder of the T5 tokenizer, if the checkpoint has one; `front_matter` the
    metadata of the source's README.
    """

    architecture: Architecture
    config: Mapping[str, Any]
    name: str
    source: str
    revision: str | None
    file_type: str
    front_matter: Mapping[str, Any]
    tokenizer: Path | None


def add_metadata(writer: Any, metadata: Metadata) -> None:
    """Add every key to a gguf-py `GGUFWriter`, in an order that never changes."""
    from gguf import GGML_QUANT_VERSION, LlamaFileType

    writer.add_type("model")
    writer.add_name(metadata.name)
    licence = metadata.front_matter.get("license")
    if isinstance(licence, str):
        writer.add_license(licence)
        for key, add in (
            ("license_name", writer.add_license_name),
            ("license_link", writer.add_license_link),
        ):
            if isinstance(metadata.front_matter.get(key), str):
                add(metadata.front_matter[key])
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, metadata.source.rpartition("/")[2])
    if "/" in metadata.source:
        writer.add_base_model_repo_url(0, f"https://huggingface.co/{metadata.source}")
    if metadata.revision:
        writer.add_base_model_version(0, metadata.revision)
    writer.add_string("general.quantized_by", "fluxconv")
    if metadata.architecture is T5_ENCODER:
        _add_t5(writer, metadata.config)
        if metadata.tokenizer is not None:
            add_t5_tokenizer(writer, metadata.tokenizer, int(metadata.config["vocab_size"]))
    writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_file_type(LlamaFileType[metadata.file_type])


def _add_t5(writer: Any, config: Mapping[str, Any]) -> None:
    """The hyperparameters that llama.cpp's `t5encoder` requires (`convert_hf_to_gguf.py`)."""
    writer.add_context_length(int(config.get("n_positions", 512)))
    writer.add_embedding_length(int(config["d_model"]))
    writer.add_feed_forward_length(int(config["d_ff"]))
    writer.add_block_count(int(config["num_layers"]))
    writer.add_head_count(int(config["num_heads"]))
    writer.add_key_length(int(config["d_kv"]))
    writer.add_value_length(int(config["d_kv"]))
    writer.add_layer_norm_eps(float(config["layer_norm_epsilon"]))
    writer.add_relative_attn_buckets_count(int(config.get("relative_attention_num_buckets", 32)))
    writer.add_layer_norm_rms_eps(float(config["layer_norm_epsilon"]))
