"""Drawing the source once, for all its variants."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxconv.recipes.devices import device_of
from fluxconv.recipes.graph import Result
from fluxconv.recipes.kinds import Kind, Work
from fluxconv.recipes.kinds.fetch import reopened

if TYPE_CHECKING:
    from fluxconv.validators import Options, Settings

#: The libraries that a picture depends on.
PACKAGES = ("torch", "diffusers", "transformers")


def settings_of(arguments: Mapping[str, Any], folder: Path) -> Settings:
    """What is drawn, for the source in `folder`."""
    from fluxconv.validators import load_settings

    prompts = arguments["prompts"]
    return load_settings(
        folder,
        arguments["overrides"],
        Path(prompts["path"]) if prompts else None,
        preset=arguments["preset"],
        limit=arguments["limit"],
    )


def options_of(arguments: Mapping[str, Any], modes: tuple[str, ...] = ()) -> Options:
    """How a validation is done; with `modes`, memory and time are measured in these."""
    from fluxconv.converters.modes import find_mode
    from fluxconv.validators import Options

    thresholds, cache = arguments.get("thresholds"), arguments["cache"]
    return Options(
        device=device_of(arguments["device"]),
        mode=find_mode(arguments["offload"], compiles=False).name,
        modes=modes,
        thresholds=Path(thresholds["path"]) if thresholds else None,
        cache=Path(cache["path"]) if cache else None,
        preset=arguments["preset"],
    )


def _run(work: Work) -> dict[str, Any]:
    from fluxconv.validators.reference import hash_reference
    from fluxconv.validators.source_drawings import SourceDrawings

    source = reopened(work.only("fetch"))
    options = options_of(work.arguments)
    hashes = hash_reference(source, work.progress)
    settings = settings_of(work.arguments, source.root)
    drawings = SourceDrawings(
        source, hashes, settings, options.device, options.mode, work.progress, options.cache
    )
    drawings.ensure()
    files = sorted(path.name for path in drawings.folder.iterdir() if path.is_file())
    return {
        "hashes": hashes,
        "folder": str(drawings.folder),
        "files": files,
        "digest": drawings.key,
    }


def _stands(result: Result, _output: Path) -> bool:
    folder = Path(result["folder"])
    return all((folder / name).is_file() for name in result["files"])


KIND = Kind("reference", 1, _run, _stands, lambda _: PACKAGES)
