"""The key-value metadata of a GGUF file: what it is, where it comes from, its tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fluxconv.converters.architectures import T5_ENCODER, Architecture
from fluxconv.converters.gguf.tokenizer import add_t5_tokenizer


@dataclass(frozen=True)
class Metadata:
    """What the metadata of one file is made from.

    `source` is a Hub repository or the name of a folder, `revision` a commit of the repository.
    `parameters` is the number of weights, `tokenizer` the folder of the T5 tokenizer, if the
    checkpoint has one, `front_matter` the metadata of the source's README. `settings` are keys of
    their own about how the file was encoded.
    """

    architecture: Architecture
    config: Mapping[str, Any]
    parameters: int
    name: str
    source: str
    revision: str | None
    file_type: str
    front_matter: Mapping[str, Any]
    settings: Mapping[str, str | int]
    tokenizer: Path | None


def add_metadata(writer: Any, metadata: Metadata) -> None:
    """Add every key to a gguf-py `GGUFWriter`, in an order that never changes.

    `general.*` as ggml's `docs/gguf.md` and gguf-py's `Keys.General` define them, `quantize.*` as
    llama.cpp's `llama-quantize` writes it; under `fluxconv.*` what neither has a name for.
    """
    from gguf import GGML_QUANT_VERSION, LlamaFileType
    from gguf.utility import size_label

    writer.add_type("model")
    writer.add_name(metadata.name)
    writer.add_size_label(size_label(metadata.parameters, 0, 0, 0))
    _add_licence(writer, metadata.front_matter)
    _add_source(writer, metadata.source, metadata.revision)
    writer.add_quantized_by("fluxconv")
    writer.add_string("fluxconv.version", version("fluxconv"))
    adders = {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32}
    for key, value in metadata.settings.items():
        adders[type(value)](key, value)
    if metadata.architecture is T5_ENCODER:
        _add_t5(writer, metadata.config)
        if metadata.tokenizer is not None:
            add_t5_tokenizer(writer, metadata.tokenizer, int(metadata.config["vocab_size"]))
    writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_file_type(LlamaFileType[metadata.file_type])


def _add_licence(writer: Any, front_matter: Mapping[str, Any]) -> None:
    if not isinstance(front_matter.get("license"), str):
        return
    writer.add_license(front_matter["license"])
    for key, add in (
        ("license_name", writer.add_license_name),
        ("license_link", writer.add_license_link),
    ):
        if isinstance(front_matter.get(key), str):
            add(front_matter[key])


def _add_source(writer: Any, source: str, revision: str | None) -> None:
    """The source, both as what was converted and as what the file is a derivative of."""
    repository = f"https://huggingface.co/{source}" if "/" in source else None
    if repository:
        if revision:  # there is no key for it alone
            writer.add_source_url(f"{repository}/tree/{revision}")
        writer.add_source_repo_url(repository)
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, source.rpartition("/")[2])
    if revision:
        writer.add_base_model_version(0, revision)
    if repository:
        writer.add_base_model_repo_url(0, repository)


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
