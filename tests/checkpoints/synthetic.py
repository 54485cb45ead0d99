"""Make Flux checkpoints of any geometry, filled with noise, without ever holding a model.

    python tests/checkpoints/synthetic.py out --double 1 --single 1
    python tests/checkpoints/synthetic.py out --layout bfl --prefix model.diffusion_model.
    python tests/checkpoints/synthetic.py out --components transformer,text_encoder_2

Names and shapes come from the real classes on the meta device; files are laid out, named and
sharded as ``save_pretrained`` would. Each tensor is written straight to its place in the file.

Weights are Gaussian, but are not drawn one by one: a pool of ``POOL`` normal numbers is drawn
once, and a tensor is the pool, scaled, from an offset, repeated as often as needed. Scale and
offset come from a hash of the seed and the tensor's diffusers name, so a tensor has the same
values in every layout. The pool's length is prime, so rows of a matrix do not repeat.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

Shape = tuple[int, ...]

POOL = 4_194_301
DTYPES = {
    "bf16": (torch.bfloat16, "BF16"),
    "fp16": (torch.float16, "F16"),
    "fp32": (torch.float32, "F32"),
    "fp8": (torch.float8_e4m3fn, "F8_E4M3"),
}

# FLUX.1's names: left as Black Forest Labs' single files have them, right as diffusers has them.
# Several on the right are stacked along rows. Weight and bias follow the same rule; the norms have
# only a weight, which is a scale on the left.
_NAMES = json.loads(Path(__file__).with_name("bfl_names.json").read_text())


@dataclass(frozen=True)
class Piece:
    """A run of one source tensor's elements, ``start`` to ``stop``."""

    name: str
    shape: Shape
    start: int
    stop: int


@dataclass(frozen=True)
class Entry:
    """One tensor of an output file, and the pieces that it is made of, in order."""

    name: str
    shape: Shape
    pieces: tuple[Piece, ...]


def whole(name: str, shape: Shape) -> Piece:
    """All of a tensor."""
    return Piece(name, shape, 0, math.prod(shape))


@cache
def _pool(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(POOL, dtype=np.float32)


def _fill(piece: Piece, seed: int, dtype: torch.dtype) -> Iterator[memoryview]:
    """The bytes of a piece, in chunks no longer than the pool."""
    digest = hashlib.sha256(f"{seed}:{piece.name}".encode()).digest()
    offset = int.from_bytes(digest[:8], "little") % POOL
    std, mean = 0.02 + 0.02 * digest[8] / 255, 0.0
    if "norm" in piece.name and len(piece.shape) == 1 and piece.name.endswith(".weight"):
        std, mean = 0.05, 1.0
    position, left = (offset + piece.start) % POOL, piece.stop - piece.start
    pool = _pool(seed)
    if left < POOL:  # scale only what is needed, for the many small tensors
        pool = np.take(pool, np.arange(position, position + left), mode="wrap")
        position = 0
    values = torch.from_numpy(pool).mul(std).add_(mean).to(dtype)
    data = memoryview(values.view(torch.uint8).numpy())
    width = dtype.itemsize
    while left > 0:
        count = min(left, len(values) - position)
        yield data[position * width : (position + count) * width]
        left, position = left - count, 0


def write_safetensors(path: Path, entries: Iterable[Entry], *, dtype: str, seed: int) -> int:
    """Stream entries into one file, laid out as safetensors' own writer does; returns its size."""
    torch_dtype, label = DTYPES[dtype]
    # The official order is by dtype width, widest first, then by name; here all widths are equal.
    ordered = sorted(entries, key=lambda entry: entry.name.encode())
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for entry in ordered:
        start, end = end, end + math.prod(entry.shape) * torch_dtype.itemsize
        header[entry.name] = {
            "dtype": label,
            "shape": list(entry.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for entry in ordered:
            for piece in entry.pieces:
                for chunk in _fill(piece, seed, torch_dtype):
                    file.write(chunk)
        if file.tell() != 8 + len(text) + end:
            raise RuntimeError(f"{path}: wrote {file.tell()} bytes, planned {8 + len(text) + end}")
    return 8 + len(text) + end


def bfl_entries(shapes: dict[str, Shape], prefix: str = "") -> list[Entry]:
    """The same tensors under Black Forest Labs' names, fused and swapped the way they expect."""
    left = dict(shapes)

    def stacked(name: str, sources: list[str]) -> Iterator[Entry]:
        for kind in ("weight", "bias"):
            names = [f"{source}.{kind}" for source in sources]
            if names[0] in left:
                found = [whole(n, left.pop(n)) for n in names]
                shape = (sum(piece.shape[0] for piece in found), *found[0].shape[1:])
                if name.startswith("final_layer.adaLN"):  # [scale, shift] becomes [shift, scale]
                    half = found[0].stop // 2
                    first = found[0]
                    found = [Piece(first.name, first.shape, half, first.stop),
                             Piece(first.name, first.shape, 0, half)]  # fmt: skip
                yield Entry(f"{prefix}{name}.{kind}", shape, tuple(found))

    def blocks(theirs: str, ours: str) -> Iterator[Entry]:
        numbers = {int(name.split(".")[1]) for name in shapes if name.startswith(f"{ours}.")}
        for i in sorted(numbers):
            for name, sources in _NAMES[theirs].items():
                yield from stacked(f"{theirs}.{i}.{name}", [f"{ours}.{i}.{s}" for s in sources])
            for name, source in _NAMES[f"{theirs[:-1]}_norms"].items():
                weight = f"{ours}.{i}.{source}.weight"
                piece = whole(weight, left.pop(weight))
                yield Entry(f"{prefix}{theirs}.{i}.{name}.scale", piece.shape, (piece,))

    entries = [entry for name, them in _NAMES["outer"].items() for entry in stacked(name, them)]
    entries += blocks("double_blocks", "transformer_blocks")
    entries += blocks("single_blocks", "single_transformer_blocks")
    if left:
        raise RuntimeError(f"tensors without a BFL name: {sorted(left)[:5]}")
    return entries


def transformer_config(
    *, double: int = 19, single: int = 38, heads: int = 24, head_dim: int = 128, joint: int = 4096,
    pooled: int = 768, in_channels: int = 64, guidance: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """A transformer's config; the defaults are FLUX.1-dev."""
    rest = head_dim * 7 // 16 // 2 * 2
    return {
        "in_channels": in_channels,
        "num_layers": double,
        "num_single_layers": single,
        "attention_head_dim": head_dim,
        "num_attention_heads": heads,
        "joint_attention_dim": joint,
        "pooled_projection_dim": pooled,
        "guidance_embeds": guidance,
        "axes_dims_rope": (head_dim - 2 * rest, rest, rest),
    }


def t5_config(
    *,
    width: int = 4096,
    inner: int = 10240,
    layers: int = 24,
    heads: int = 64,
    vocabulary: int = 32128,
) -> dict[str, Any]:
    """A T5 encoder's config; the defaults are T5 v1.1 XXL."""
    return {
        "d_model": width,
        "d_ff": inner,
        "num_layers": layers,
        "num_heads": heads,
        "d_kv": 64,
        "vocab_size": vocabulary,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "decoder_start_token_id": 0,
    }


def _write_model(
    folder: Path,
    stem: str,
    shapes: dict[str, Shape],
    *,
    shard_size: int | str,
    dtype: str,
    seed: int,
) -> list[Path]:
    """Write a component's weights into one file or into shards with an index, as libraries do."""
    from huggingface_hub.serialization import split_state_dict_into_shards_factory

    folder.mkdir(parents=True, exist_ok=True)
    width = DTYPES[dtype][0].itemsize
    split = split_state_dict_into_shards_factory(
        shapes,
        get_storage_size=lambda shape: math.prod(shape) * width,
        get_storage_id=lambda shape: None,
        filename_pattern=stem + "{suffix}.safetensors",
        max_shard_size=shard_size,
    )
    for name, keys in split.filename_to_tensors.items():
        entries = [Entry(key, shapes[key], (whole(key, shapes[key]),)) for key in keys]
        write_safetensors(folder / name, entries, dtype=dtype, seed=seed)
    if split.is_sharded:
        parameters = sum(map(math.prod, shapes.values()))
        # Only transformers counts them.
        count = {"total_parameters": parameters} if stem == "model" else {}
        index = {"metadata": count | split.metadata, "weight_map": split.tensor_to_filename}
        path = folder / f"{stem}.safetensors.index.json"
        path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    return [folder / name for name in split.filename_to_tensors]


def write_transformer(
    output: Path, config: dict[str, Any], *, layout: str = "diffusers", prefix: str = "",
    shard_size: int | str = "10GB", dtype: str = "bf16", seed: int = 0,
) -> list[Path]:  # fmt: skip
    """Write ``output/transformer``; for ``bfl`` one file beside ``transformer/config.json``."""
    from diffusers import FluxTransformer2DModel

    with torch.device("meta"):
        model = FluxTransformer2DModel(**config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    model.save_config(output / "transformer")
    if layout == "diffusers":
        return _write_model(
            output / "transformer", "diffusion_pytorch_model", shapes,
            shard_size=shard_size, dtype=dtype, seed=seed,
        )  # fmt: skip
    path = output / "flux-synthetic.safetensors"
    write_safetensors(path, bfl_entries(shapes, prefix), dtype=dtype, seed=seed)
    return [path]


def write_t5(
    output: Path,
    config: dict[str, Any],
    *,
    shard_size: int | str = "5GB",
    dtype: str = "bf16",
    seed: int = 0,
) -> list[Path]:
    """Write ``output/text_encoder_2``; the default shard size is FLUX.1-dev's."""
    from transformers import T5Config, T5EncoderModel

    settings = T5Config(**config)
    with torch.device("meta"):
        model = T5EncoderModel(settings)
    # transformers goes by name where diffusers goes by module. The embedding has two names in the
    # model, and save_pretrained keeps one of them.
    shapes = {name: tuple(tensor.shape) for name, tensor in sorted(model.state_dict().items())}
    del shapes["encoder.embed_tokens.weight"]
    model.config.architectures = ["T5EncoderModel"]
    model.config.dtype = DTYPES[dtype][0]
    model.config.save_pretrained(output / "text_encoder_2")
    return _write_model(
        output / "text_encoder_2", "model", shapes, shard_size=shard_size, dtype=dtype, seed=seed
    )


def carry_over(pipeline: Path, output: Path) -> None:
    """Copy what is missing from a pipeline folder; its index only if then every part is whole."""
    index = json.loads((pipeline / "model_index.json").read_text())
    parts = [name for name, value in index.items() if isinstance(value, list) and value[0]]
    for name in parts:
        if not (output / name).exists():
            shutil.copytree(pipeline / name, output / name)
    # The BFL layout leaves only a config in transformer/, which is not a part of a pipeline.
    if any((output / "transformer").glob("*.safetensors")):
        shutil.copy(pipeline / "model_index.json", output)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _config_of(pipeline: Path | None, component: str) -> dict[str, Any]:
    if pipeline is None:
        return {}
    config = json.loads((pipeline / component / "config.json").read_text())
    return {name: value for name, value in config.items() if not name.startswith("_")}


@click.command(help=__doc__)
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--components", default="transformer", show_default=True, help="Comma-separated.")
@click.option(
    "--layout", type=click.Choice(["diffusers", "bfl"]), default="diffusers", show_default=True
)
@click.option("--prefix", default="", help="Before every BFL name, e.g. model.diffusion_model.")
@click.option("--double", type=int, help="Double blocks [19].")
@click.option("--single", type=int, help="Single blocks [38].")
@click.option("--heads", type=int, help="Attention heads [24].")
@click.option("--width", type=int, help="Inner width, a multiple of the heads [3072].")
@click.option("--joint", type=int, help="Width of the T5 states [4096].")
@click.option("--pooled", type=int, help="Width of the CLIP vector [768].")
@click.option(
    "--guidance/--no-guidance", default=None, help="A guidance embedding, as in dev [yes]."
)
@click.option("--t5-layers", type=int, help="Layers of the T5 encoder [24].")
@click.option("--shard-size", help="Such as 2GB [10GB, T5 5GB].")
@click.option("--dtype", type=click.Choice(list(DTYPES)), default="bf16", show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--from", "pipeline", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Take unset options and all other parts from this pipeline folder.")  # fmt: skip
def main(
    output: Path, components: str, layout: str, prefix: str, double: int | None, single: int | None,
    heads: int | None, width: int | None, joint: int | None, pooled: int | None,
    guidance: bool | None, t5_layers: int | None, shard_size: str | None, dtype: str,
    seed: int, pipeline: Path | None,
) -> None:  # fmt: skip
    wanted = set(components.split(","))
    if unknown := wanted - {"transformer", "text_encoder_2"}:
        raise click.BadParameter(f"no such component: {', '.join(sorted(unknown))}")
    output.mkdir(parents=True, exist_ok=True)
    common = _given(shard_size=shard_size, dtype=dtype, seed=seed)
    started, files = time.monotonic(), []
    if "transformer" in wanted:
        config = transformer_config() | _config_of(pipeline, "transformer")
        config |= _given(
            num_layers=double, num_single_layers=single, num_attention_heads=heads,
            joint_attention_dim=joint, pooled_projection_dim=pooled, guidance_embeds=guidance,
        )  # fmt: skip
        if width is not None:
            head_dim, rest = divmod(width, config["num_attention_heads"])
            if rest or head_dim % 16:
                raise click.BadParameter("--width must be --heads times a multiple of 16")
            config |= {
                name: transformer_config(head_dim=head_dim)[name]
                for name in ("attention_head_dim", "axes_dims_rope")
            }
        files += write_transformer(output, config, layout=layout, prefix=prefix, **common)
    if "text_encoder_2" in wanted:
        config = t5_config() | _config_of(pipeline, "text_encoder_2")
        config |= _given(d_model=joint, num_layers=t5_layers)
        files += write_t5(output, config, **common)
    if pipeline:
        carry_over(pipeline, output)
    total, seconds = sum(file.stat().st_size for file in files), time.monotonic() - started
    for file in files:
        click.echo(f"{file.stat().st_size:>14,}  {file}")
    click.echo(f"{total / 1e9:.2f} GB in {seconds:.1f} s, {total / 1e6 / seconds:,.0f} MB a second")


if __name__ == "__main__":
    main()
