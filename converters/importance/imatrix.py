"""llama.cpp's importance matrix in its GGUF form.

Format (llama.cpp, `tools/imatrix/imatrix.cpp`, `save_imatrix`): `general.type` is `imatrix`; for
each weight `<name>.in_sum2`, F32 (matrices, columns), the sums of squares over all tokens, and
`<name>.counts`, F32 (matrices, 1), how many tokens those were. A layer has one matrix; of a layer
of experts each is one. Reading (`common/imatrix-loader.cpp`, and `load_imatrix` in
`tools/quantize/quantize.cpp`): the mean is sums / counts, and ones where nothing was counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fluxconv.converters.errors import MalformedFile
from fluxconv.converters.gguf.reader import GgufTensor, read_gguf_header
from fluxconv.converters.safetensors_header import TensorInfo
from fluxconv.converters.tensor_data import read_tensor
from fluxconv.converters.visible import visible, visible_path

if TYPE_CHECKING:
    import torch

#: How the names of its two kinds of tensors end.
SUMS, COUNTS = ".in_sum2", ".counts"
_REQUIRED = ("imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size")


def read_imatrix(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights of `file` and their mean squares, fp32 (matrices x columns,), by name.

    Raises `MalformedFile` where llama.cpp would refuse it, and for impossible counts.
    """
    header = read_gguf_header(file)
    _check_metadata(file, header.metadata)
    sums = _ending(header.tensors, SUMS)
    counts = _ending(header.tensors, COUNTS)
    for name in sorted(sums.keys() | counts.keys()):
        if name not in sums or name not in counts:
            lacking = COUNTS if name in sums else SUMS
            raise MalformedFile(f"{visible_path(file)}: lacks '{visible(name)}{lacking}'")
        yield name, _mean(file, sums[name], counts[name])


def _check_metadata(file: Path, metadata: Mapping[str, object]) -> None:
    kind = metadata.get("general.type", "model")
    if kind != "imatrix":
        raise MalformedFile(f"{visible_path(file)}: is a {visible(kind)}, not an imatrix")
    for key in _REQUIRED:
        if key not in metadata:
            raise MalformedFile(f"{visible_path(file)}: lacks '{key}', which every imatrix has")


def _ending(tensors: tuple[GgufTensor, ...], suffix: str) -> dict[str, GgufTensor]:
    return {t.name.removesuffix(suffix): t for t in tensors if t.name.endswith(suffix)}


def _mean(file: Path, sums: GgufTensor, counts: GgufTensor) -> torch.Tensor:
    import torch

    total, count = _read(file, sums), _read(file, counts)
    if not len(count) or len(total) % len(count):
        raise MalformedFile(
            f"{visible_path(file)}: '{visible(sums.name)}' has {len(total)} numbers, which "
            f"{len(count)} counts cannot share"
        )
    if not bool(((count >= 0) & torch.isfinite(count)).all()):
        raise MalformedFile(f"{visible_path(file)}: '{visible(counts.name)}' counts no tokens")
    whole = count.add(0.5).floor().unsqueeze(1)  # llama.cpp rounds them
    means = total.view(len(count), -1) / whole
    return means.where(whole > 0, torch.ones(())).flatten()


def _read(file: Path, tensor: GgufTensor) -> torch.Tensor:
    if tensor.type_name != "F32":
        raise MalformedFile(
            f"{visible_path(file)}: '{visible(tensor.name)}' is {tensor.type_name}, not F32"
        )
    info = TensorInfo(tensor.name, "F32", tensor.shape, file, tensor.offset, tensor.nbytes)
    return read_tensor(info).flatten()
