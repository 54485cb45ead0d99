"""The exact GGUF file for a component, before any tensor is encoded.

GGUF (ggml, `docs/gguf.md`): magic, version, counts, key-value metadata, tensor infos, then the
data, each tensor padded to a multiple of 32 bytes. gguf-py writes everything in front of the data;
the data's places follow from the sizes, in the order of the infos.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from fluxconv.converters.backends.base import PlannedTensor
from fluxconv.converters.gguf.metadata import Metadata, add_metadata
from fluxconv.converters.layout import FileLayout, Placement


def lay_out(file_name: str, planned: Iterable[PlannedTensor], metadata: Metadata) -> FileLayout:
    """The file `file_name` with these tensors in this order."""
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter
    from gguf.constants import GGUF_DEFAULT_ALIGNMENT

    tensors = [stored for tensor in planned for stored in tensor.stored]
    with tempfile.TemporaryDirectory(prefix="fluxconv-") as folder:
        path = Path(folder) / "header.gguf"
        writer = GGUFWriter(path, metadata.architecture.gguf)
        add_metadata(writer, metadata)
        for tensor in tensors:
            kind = GGMLQuantizationType[tensor.dtype]
            assert kind in GGML_QUANT_SIZES
            # With any numpy type but uint8, gguf-py takes the shape as the logical one.
            writer.add_tensor_info(
                tensor.name,
                tensor.shape,
                np.dtype(np.float32),
                tensor.nbytes,
                raw_dtype=kind,
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        header = path.read_bytes()
    header += b"\0" * (-len(header) % GGUF_DEFAULT_ALIGNMENT)
    position = len(header)
    placements = {}
    for tensor in tensors:
        placements[tensor.name] = Placement(position, tensor.nbytes)
        position += tensor.nbytes + -tensor.nbytes % GGUF_DEFAULT_ALIGNMENT
    return FileLayout(file_name, header, placements, position)
