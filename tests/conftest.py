"""What the tests share: the tiny Flux that really draws, its variants, and a rehearsal Hub."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_client import api_of
from huggingface_hub import HfApi, constants
from reported import copied, reported
from validating import QUICK, Validated, copy_of, quick

from fluxconv.converters import Checkpoint, Variant, open_checkpoint, quantize
from fluxconv.converters.backends import all_backends, get_backend, missing
from fluxconv.hub.rehearsal import RehearsalHub, running
from fluxconv.validators import Report, validate
from fluxconv.validators.process import Worker

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TINY_FLUX = Path(__file__).parent / "checkpoints" / "tiny-flux"


# Begun by a shell in the background, this process ignores Ctrl-C, as would all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


# The tiny Flux and its variants ------------------------------------------------------------------


@pytest.fixture(scope="session")
def tiny_checkpoint() -> Checkpoint:
    """The trained tiny pipeline. Read-only."""
    return open_checkpoint(TINY_FLUX)


class Made(dict[str, Variant]):
    """Variants by backend. Asking for one that needs a device which is not here skips the test,
    and says so."""

    def __missing__(self, name: str) -> Variant:
        pytest.skip(f"{name} {missing(get_backend(name), DEVICE)}")


@pytest.fixture(scope="session")
def tiny_variants(
    tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Variant]:
    """One variant of the tiny pipeline for each backend that this device can quantize with. Copy
    before changing one. A library that is not installed is an error, and hides no backend."""
    names = [name for name, each in all_backends().items() if DEVICE in each.quantizes_on]
    folder = tmp_path_factory.mktemp("variants")
    made = quantize(tiny_checkpoint, names, folder, device=DEVICE)
    return Made(zip(names, made, strict=True))


@pytest.fixture(scope="session")
def validated(
    tiny_checkpoint: Checkpoint,
    tiny_variants: dict[str, Variant],
    tmp_path_factory: pytest.TempPathFactory,
) -> Validated:
    """Copies of all variants, their reports, and the jobs that were run for them."""
    root = tmp_path_factory.mktemp("validated")
    variants = {name: copy_of(variant, root) for name, variant in tiny_variants.items()}
    jobs: list[tuple[str, str]] = []
    run = Worker.run

    def spy(worker: Worker, job: str, request: Any, progress: Any) -> Any:
        jobs.append((job, Path(request.get("variant", "")).name))
        return run(worker, job, request, progress)

    # Memory and time have tests of their own; for every backend they would take minutes.
    options = quick(tmp_path_factory.mktemp("cache"))

    def judged(some: list[Variant]) -> tuple[Report, ...]:
        return validate(some, tiny_checkpoint, settings=QUICK, options=options)

    first, *others = variants.values()
    half = len(others) // 2
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(Worker, "run", spy)
        reports = judged([first])  # draws the source, once
        reports += sum(pool.map(judged, (others[:half], others[half:])), ())
    return variants, reports, jobs


@pytest.fixture(scope="session")
def validated_variants(validated: Validated) -> dict[str, Variant]:
    """One variant for each backend, with a real report of QUICK. Copy before changing one."""
    return validated[0]


@pytest.fixture
def broken(tiny_variants: dict[str, Variant], tmp_path: Path) -> Callable[[str], Variant]:
    """A copy of a variant, to be broken."""
    return lambda backend: copy_of(tiny_variants[backend], tmp_path)


@pytest.fixture
def variant(
    tiny_variants: dict[str, Variant], tmp_path: Path, request: pytest.FixtureRequest
) -> Variant:
    """A validated variant whose name, and so whose repository, belongs to the test alone."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[-80:]
    return reported(copied(tiny_variants["torchao-int8"], tmp_path / "made", name=name))


# The rehearsal Hub -------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_state_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pushes keep their journals with the test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def online_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client goes online."""
    # Whatever the environment says: these tests talk to loopback only.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture
def no_account_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The client finds no token and no address but those that the test gives it."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalHub]:
    """One server for all tests that do not stop it; they use repositories of their own in it."""
    with running(tmp_path_factory.mktemp("rehearsal") / "hub") as hub:
        yield hub


@pytest.fixture
def api(hub: RehearsalHub) -> HfApi:
    """The client, as the owner."""
    return api_of(hub)


@pytest.fixture
def visitor(hub: RehearsalHub) -> HfApi:
    """The client, as somebody else."""
    return HfApi(endpoint=hub.url, token=hub.visitor_token)


@pytest.fixture
def anonymous(hub: RehearsalHub) -> HfApi:
    """The client, without a token."""
    return HfApi(endpoint=hub.url, token=False)


@pytest.fixture
def repo(api: HfApi, request: pytest.FixtureRequest) -> str:
    """A new repository, named after the test."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)[:80].strip("-")
    created = api.create_repo(name.replace("--", "-").replace("--", "-"))
    return str(created.repo_id)
