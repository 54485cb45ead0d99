"""The structure layer: the files of a variant against its manifest and its plan.

Runs in a fresh process, opens everything from disk, and lists all problems, in words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fluxconv.converters.checkpoint import read_json
from fluxconv.converters.errors import FluxconvError
from fluxconv.converters.layout import StoredTensor
from fluxconv.converters.load import model_class
from fluxconv.converters.manifest import MANIFEST_NAME
from fluxconv.converters.planning import ComponentPlan
from fluxconv.converters.progress import Progress
from fluxconv.converters.stored import StoredEntry, matches, read_entries
from fluxconv.converters.variant import Variant, open_variant
from fluxconv.validators.file_scan import hash_and_scan
from fluxconv.validators.report import IMAGES
from fluxconv.validators.results import StructureResult

_INDEX = "model_index.json"
# What the libraries' own parsers raise for a config they cannot use.
_PARSER_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    ImportError,
    RuntimeError,
)


def check_structure(root: Path, progress: Progress, *, contents: bool = True) -> StructureResult:
    """Check the variant in `root`. Expected faults of any kind are problems, not exceptions.

    Without `contents` only names, sizes, headers and configs are looked at, and no file is hashed.
    """
    try:
        variant = open_variant(root)
    except FluxconvError as error:
        return StructureResult(files=0, tensors=0, problems=(str(error),))
    problems = [*_file_problems(variant, progress, contents), *_index_problems(variant)]
    try:
        plans = variant.component_plans()
    except FluxconvError as error:
        problems.append(str(error))
        plans = {}
    except (KeyError, TypeError, ValueError) as error:
        # A config without a field that the architecture needs.
        problems.append(f"no plan can be made from the configs: {type(error).__name__} {error}")
        plans = {}
    tensors = 0
    for name, plan in plans.items():
        problems += _tensor_problems(variant, plan)
        problems += _config_problems(variant, plan)
        recorded = variant.manifest.components[name].files
        if recorded != [file.name for file in plan.files]:
            problems.append(f"{name}: {MANIFEST_NAME} names other weight files than the plan")
        tensors += sum(len(tensor.stored) for tensor in plan.tensors)
    return StructureResult(
        files=len(variant.manifest.files), tensors=tensors, problems=tuple(problems)
    )


def _file_problems(variant: Variant, progress: Progress, contents: bool) -> Iterator[str]:
    files = variant.manifest.files
    weights = {name for each in variant.manifest.components.values() for name in each.files}
    progress.start(f"Checking {variant.name}", sum(record.size for record in files.values()))
    for name, record in files.items():
        path = variant.root / name
        if not path.is_file():
            yield f"{name} is missing"
        elif path.stat().st_size != record.size:
            size = path.stat().st_size
            yield f"{name} has {size} bytes where {MANIFEST_NAME} has {record.size}"
        elif contents:
            found, no_numbers = hash_and_scan(path, _entries(path) if name in weights else ())
            if found != record:
                yield f"{name} differs from its hash in {MANIFEST_NAME}"
            for tensor in no_numbers:
                yield f"{name}: the tensor '{tensor}' holds NaN or infinity"
        progress.advance(record.size, name)
    progress.finish()
    # A stray weight file or index beside the right ones can change what a library loads.
    for folder in sorted({name.split("/")[0] for name in files if "/" in name} - {IMAGES}):
        for path in sorted((variant.root / folder).rglob("*")):
            name = path.relative_to(variant.root).as_posix()
            if path.is_file() and name not in files and not path.name.startswith("."):
                yield f"{name} is not named in {MANIFEST_NAME}"


def _entries(path: Path) -> tuple[StoredEntry, ...]:
    """The tensors of a weight file; none if it is malformed, which `_tensor_problems` says."""
    try:
        return read_entries(path)
    except FluxconvError:
        return ()


def _index_problems(variant: Variant) -> Iterator[str]:
    if _INDEX not in variant.manifest.source.files:  # made from a lone component
        return
    try:
        class_name = read_json(variant.root / _INDEX).get("_class_name")
    except FluxconvError as error:
        yield str(error)
        return
    if not str(class_name).startswith("Flux"):
        yield f"{_INDEX} names the pipeline {class_name}, which is not a Flux one"


def _tensor_problems(variant: Variant, plan: ComponentPlan) -> Iterator[str]:
    found: dict[str, StoredEntry] = {}
    seen: Counter[str] = Counter()
    for file in plan.files:
        try:
            entries = read_entries(variant.root / file.name)
        except FluxconvError as error:
            yield str(error)
            return  # without its file, every tensor would be reported as missing
        seen.update(entry.name for entry in entries)
        found |= {entry.name: entry for entry in entries}
    planned = {stored.name: stored for tensor in plan.tensors for stored in tensor.stored}
    for name, count in seen.items():
        if name not in planned:
            yield f"{plan.component}: the tensor '{name}' is not planned"
        elif count > 1:
            yield f"{plan.component}: the tensor '{name}' is there {count} times"
    for name, wanted in planned.items():
        if name not in found:
            yield f"{plan.component}: the tensor '{name}' is missing"
        elif not matches(found[name], wanted):
            yield (
                f"{plan.component}: the tensor '{name}' is {_described(found[name])}, planned as "
                f"{_described(wanted)}"
            )


def _described(tensor: StoredEntry | StoredTensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}, {tensor.nbytes} bytes"


def _config_problems(variant: Variant, plan: ComponentPlan) -> Iterator[str]:
    """The library's own parsers must take `config.json` and its `quantization_config`."""
    where, library = f"{plan.component}/config.json", plan.architecture.library
    try:
        _parse_config(variant.root, plan)
    except _PARSER_ERRORS as error:
        yield f"{where} is refused by {library}: {_first_line(error)}"
        return
    quantization = plan.config.get("quantization_config")
    if (quantization is None) != (
        plan.backend.quantization_config(plan.architecture, plan.skipped) is None
    ):
        fault = "lacks a" if quantization is None else "has a needless"
        yield f"{where} {fault} quantization_config"
    elif quantization is not None:
        try:
            _parse_quantization(library, quantization)
        except _PARSER_ERRORS as error:
            yield f"{where}: {library} refuses its quantization_config: {_first_line(error)}"


def _parse_config(root: Path, plan: ComponentPlan) -> None:
    loader = model_class(plan.component)
    if plan.architecture.library == "diffusers":
        loader.load_config(root, subfolder=plan.component, local_files_only=True)
    else:
        loader.config_class.from_pretrained(root, subfolder=plan.component, local_files_only=True)


def _parse_quantization(library: str, quantization: Mapping[str, Any]) -> None:
    if library == "diffusers":
        from diffusers.quantizers.auto import DiffusersAutoQuantizer

        DiffusersAutoQuantizer.from_dict(dict(quantization))
    else:
        from transformers.quantizers.auto import AutoQuantizationConfig

        AutoQuantizationConfig.from_dict(dict(quantization))


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip().split("\n")[0]
