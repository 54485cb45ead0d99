"""Every weight of every variant decodes to that of its source."""

from __future__ import annotations

import pytest

from fluxconv.converters import Checkpoint, Variant
from fluxconv.converters.backends import all_backends
from fluxconv.converters.stored import decode_component
from fluxconv.converters.tensor_data import read_tensor

#: What a tensor's relative RMS error may be, by the class of bits.
LARGEST_ERROR = {2: 0.75, 3: 0.4, 4: 0.2, 5: 0.1, 6: 0.05, 8: 0.08, 16: 0.01}


@pytest.mark.parametrize("backend", list(all_backends()))
def test_every_weight_decodes_to_its_source(
    backend: str,
    tiny_checkpoint: Checkpoint,
    tiny_variants: dict[str, Variant],
) -> None:
    """Also under its own name: a swapped q and k is off by about 1.4, a wrong scale by its error.

    The worst tensor of nf4 is `x_embedder`, with rows of 16 and a few large weights, at 0.139.
    """
    variant = tiny_variants[backend]
    largest_error = LARGEST_ERROR[int(variant.backend.bits)]
    for name, component_plan in variant.component_plans().items():
        component = tiny_checkpoint.components[name]
        seen = set()
        for tensor, weight in decode_component(variant.root, component_plan):
            source = read_tensor(component.tensors[tensor]).float()
            error = (weight.float() - source).norm() / source.norm().clamp_min(1e-12)
            assert float(error) <= largest_error, tensor
            seen.add(tensor)
        assert seen == set(component.tensors)
