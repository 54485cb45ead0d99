"""Every variant opens in a fresh process with public libraries alone, and computes the same."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from reloading import run

from fluxconv.converters import Checkpoint, Variant
from fluxconv.converters.architectures import ARCHITECTURES
from fluxconv.converters.backends import all_backends
from fluxconv.converters.load import load_decoded

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EVERY = [(name, part) for name in all_backends() for part in ARCHITECTURES]
Outputs = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def reloaded(
    tiny_variants: dict[str, Variant], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Outputs | str]:
    """The outputs of every variant's components, from fresh processes; or what went wrong."""
    folder = tmp_path_factory.mktemp("reloaded")
    request: list[dict[str, Any]] = []
    for name, variant in tiny_variants.items():
        files = {
            part: plan_files(variant, part)
            for part in variant.manifest.components
            if cannot_run(variant, part) is None
        }
        whole = len(files) == len(variant.manifest.components)
        first = {part: found[0] for part, found in files.items()}
        request.append(
            {
                "root": str(variant.root),
                "code": variant.backend.snippet(str(variant.root), first) if whole else None,
                "components": files,
                "file": str(folder / f"{name}.pt"),
            }
        )
    script = Path(__file__).with_name("reloading.py")

    def ask(number: int) -> None:
        asked = folder / f"request-{number}.json"
        asked.write_text(json.dumps({"device": DEVICE, "variants": request[number::2]}))
        subprocess.run([sys.executable, str(script), str(asked)], check=True, capture_output=True)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(ask, (0, 1)))
    return {
        name: torch.load(folder / f"{name}.pt")
        if (folder / f"{name}.pt").is_file()
        else (folder / f"{name}.failed").read_text()
        for name in tiny_variants
    }


def plan_files(variant: Variant, part: str) -> list[str]:
    return variant.manifest.components[part].files


def cannot_run(variant: Variant, part: str) -> str | None:
    config = json.loads((variant.root / part / "config.json").read_text())
    return variant.backend.cannot_run(ARCHITECTURES[part], config, DEVICE)


@pytest.mark.parametrize(("name", "part"), EVERY)
def test_reloads_and_computes_what_the_library_quantized(
    name: str,
    part: str,
    tiny_checkpoint: Checkpoint,
    tiny_variants: dict[str, Variant],
    reloaded: dict[str, Outputs | str],
) -> None:
    """Bit for bit the output of the model that the library itself quantized, in memory; where no
    library quantizes, nearly the output of the plain model with the decoded weights."""
    variant, architecture = tiny_variants[name], ARCHITECTURES[part]
    why = cannot_run(variant, part)
    if why is not None:
        pytest.skip(why)
    found = reloaded[name]
    assert isinstance(found, dict), found
    if variant.backend.library_refuses(architecture, DEVICE) is None:
        folder = tiny_checkpoint.components[part].path
        model = variant.backend.quantize_with_library(folder, architecture, (), DEVICE)
        assert torch.equal(found[part], run(part, model.to(DEVICE), DEVICE))
    else:
        plan = variant.component_plans()[part]
        want = run(part, load_decoded(variant.root, plan).to(DEVICE), DEVICE)
        # GGUF's loaders decode in half precision.
        assert (found[part] - want).norm() < 0.02 * want.norm()
