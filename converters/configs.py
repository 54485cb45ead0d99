"""A component's `config.json`, as its library's `save_pretrained` writes it."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

from fluxconv.converters.planning import ComponentPlan


def quantized_config(component: ComponentPlan) -> dict[str, Any]:
    """The source's config as its library reads and saves it, quantization included.

    What newer versions ask for is filled in and what they do not know is dropped, so a source saved
    long ago gives the same file as a new one.
    """
    build = {"diffusers": _diffusers_config, "transformers": _transformers_config}
    config = build[component.architecture.library](component)
    if component.quantization_config is not None:
        config["quantization_config"] = component.quantization_config
    return config


def write_configs(component: ComponentPlan, folder: Path) -> None:
    """Write everything of the component that is not weights: config, index, the library's own."""
    place = folder / component.component
    place.mkdir(exist_ok=True)
    files = component.backend.extra_files(component.tensors, component.architecture)
    files = dict(files) | {"config.json": _text(quantized_config(component))}
    if component.index is not None:
        files[f"{component.architecture.weights_name}.safetensors.index.json"] = _text(
            component.index
        )
    for name, text in files.items():
        (place / name).write_text(text, "utf-8")


def _text(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def _diffusers_config(component: ComponentPlan) -> dict[str, Any]:
    # diffusers saves its constructor's arguments, and knows no others. To ask the class itself
    # would be to import it, which takes longer than to quantize a small model. `_name_or_path`, a
    # path of some machine, stays out.
    fields = component.architecture.config_fields
    found = {name: component.config.get(name, default) for name, default in fields.items()}
    return found | {
        "_class_name": component.architecture.class_name,
        "_diffusers_version": metadata.version("diffusers"),
    }


def _transformers_config(component: ComponentPlan) -> dict[str, Any]:
    import torch
    import transformers

    kind = getattr(transformers, component.architecture.class_name)
    given = {k: v for k, v in component.config.items() if k != "quantization_config"}
    with torch.device("meta"):  # T5's encoder changes its config as it is built
        config = kind(kind.config_class.from_dict(given)).config
    config.architectures = [component.architecture.class_name]
    config.dtype = torch.bfloat16
    loaded: dict[str, Any] = json.loads(config.to_json_string(use_diff=True))
    return loaded
