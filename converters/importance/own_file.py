"""fluxconv's importance file: safetensors with one fp32 vector (columns,) for each layer.

A vector is named after its layer's module in the source, `transformer_blocks.0.attn.to_q`; the
modules of the transformer and of T5 never share a name. The header's metadata says how it was
measured; `format` is the line that tells this format and its version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fluxconv.converters.errors import FluxconvError, MalformedFile, OutputExists
from fluxconv.converters.layout import LayoutWriter, StoredTensor
from fluxconv.converters.safetensors_header import Header, lay_out, read_header
from fluxconv.converters.staging import hidden, locked, sync
from fluxconv.converters.tensor_data import read_tensor
from fluxconv.converters.visible import visible, visible_path

if TYPE_CHECKING:
    import torch

FORMAT = "fluxconv importance 1"


def read_own(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """The layers of `file` and their vectors; raises what `read_header` raises, and
    `MalformedFile` if it is of another format."""
    for info in _read_own_header(file).tensors:
        if info.dtype != "F32":
            raise MalformedFile(
                f"{visible_path(file)}: '{visible(info.name)}' is {info.dtype}, not F32"
            )
        yield info.name, read_tensor(info)


def own_metadata(file: Path) -> Mapping[str, str]:
    """What `file` says on how it was measured; raises what `read_own` does."""
    return _read_own_header(file).metadata


def write_own(file: Path, vectors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write `vectors`, fp32 (columns,) by layer, to `file`, and have the disk hold them."""
    import torch

    tensors = [
        StoredTensor(name, "F32", tuple(vector.shape), vector.nbytes)
        for name, vector in vectors.items()
    ]
    layout = lay_out(file.name, tensors, {"format": FORMAT, **metadata})
    with LayoutWriter(file.parent, (layout,)) as writer:
        for name, vector in vectors.items():
            writer.write(name, vector.contiguous().view(torch.uint8).numpy().data)


@contextmanager
def staged_file(place: Path, *, overwrite: bool) -> Iterator[Path]:
    """Where to write an importance file that is put at `place` when the block ends well; else what
    is there stays.

    Raises `OutputExists` if `place` exists (unless `overwrite`, and then only an importance file is
    replaced) or if another run is writing it, `BadInput` if it cannot be written.
    """
    check_free(place, overwrite=overwrite)
    busy = f"{place}: another run is writing it"
    with locked(hidden(place, "partial"), busy) as folder:
        yield folder / place.name
        check_free(place, overwrite=overwrite)
        (folder / place.name).replace(place)
        sync(place.parent)


def check_free(place: Path, *, overwrite: bool) -> None:
    """Raise `OutputExists` as `staged_file` does."""
    if not (place.exists() or place.is_symlink()):
        return
    if not overwrite:
        raise OutputExists(f"{place}: exists; choose another file with -o, or give --overwrite")
    try:
        _read_own_header(place)
    except FluxconvError:
        raise OutputExists(
            f"{place}: is no importance file, so --overwrite leaves it alone; remove it"
        ) from None


def _read_own_header(file: Path) -> Header:
    header = read_header(file)
    found = header.metadata.get("format", "")
    if found != FORMAT:
        raise MalformedFile(
            f"{visible_path(file)}: is no importance file: its format is '{visible(found)}', not "
            f"'{FORMAT}'"
        )
    return header
