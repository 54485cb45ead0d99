"""GGUF files beside gguf-py, the format's own library."""

from __future__ import annotations

import torch

from fluxconv.converters import Checkpoint, Variant, plan
from fluxconv.converters.stored import read_entries


def test_gguf_reader_lists_the_plan(
    tiny_checkpoint: Checkpoint, tiny_variants: dict[str, Variant]
) -> None:
    import gguf

    variant = tiny_variants["gguf-q8_0"]
    (planned,) = plan(tiny_checkpoint, ["gguf-q8_0"])
    for component in planned.components:
        reader = gguf.GGUFReader(variant.root / component.files[0].name)
        found = {
            t.name: (t.tensor_type.name, tuple(int(n) for n in reversed(t.shape)), int(t.n_bytes))
            for t in reader.tensors
        }
        stored = [s for t in component.tensors for s in t.stored]
        assert found == {s.name: (s.dtype, s.shape, s.nbytes) for s in stored}
        fields = {name: field.contents() for name, field in reader.fields.items()}
        assert fields["general.architecture"] == component.architecture.gguf
        assert fields["general.quantization_version"] == 2
        assert fields["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q8_0


def test_gguf_blocks_equal_gguf_py(
    tiny_checkpoint: Checkpoint, tiny_variants: dict[str, Variant]
) -> None:
    """One fused weight, q over k over v, against gguf-py encoding the concatenation whole."""
    import gguf
    from safetensors.torch import load_file

    source = load_file(
        tiny_checkpoint.components["transformer"].path / "diffusion_pytorch_model.safetensors"
    )
    block = "single_transformer_blocks.1"
    parts = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
    fused = torch.cat([source[f"{block}.{part}.weight"] for part in parts]).float().numpy()
    want = gguf.quants.quantize(fused, gguf.GGMLQuantizationType.Q8_0)
    file = tiny_variants["gguf-q8_0"].root / "tiny-flux-Q8_0.gguf"
    entry = {e.name: e for e in read_entries(file)}["single_blocks.1.linear1.weight"]
    assert entry.read().numpy().tobytes() == want.tobytes()
