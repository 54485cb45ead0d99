"""Pushes as a user types them, and what the Hub has before and after."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from hub_client import USER, api_of, commits
from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile

from fluxconv.commands.main import run
from fluxconv.converters import Variant
from fluxconv.converters.variant import hash_file
from fluxconv.hub.rehearsal import RehearsalHub

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
TITLE = "Pushed"


@dataclass(frozen=True)
class Ran:
    """A push that has come to its end."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def sentence(self) -> str:
        """What the user reads of a failure: one line, and no other of that kind."""
        (line,) = [each for each in self.err.splitlines() if each.startswith("fluxconv: ")]
        return line


class Pusher:
    """The command, for one variant, against one Hub."""

    def __init__(
        self, hub: RehearsalHub, variant: Variant, capsys: pytest.CaptureFixture[str], home: Path
    ) -> None:
        self.hub, self.variant, self.api = hub, variant, api_of(hub)
        self._capsys, self.home = capsys, home

    @property
    def name(self) -> str:
        return f"{USER}/{self.variant.name}"

    @property
    def title(self) -> str:
        """Of this test's own collection."""
        return f"{TITLE} {self.variant.name}"[:60]

    def arguments(self, *more: str) -> list[str]:
        known = ["push", str(self.variant.root), "--namespace", USER, "-q"]
        return [*known, "--endpoint", self.hub.url, *more]

    def run(self, *more: str, token: str | None = None) -> Ran:
        """Push in this process, as the command line does; no token may be in what it says."""
        began = time.monotonic()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HF_TOKEN", token or self.hub.token)
            code = run(self.arguments(*more))
        seconds = time.monotonic() - began
        said = self._capsys.readouterr()
        self.refuse_tokens(said.out + said.err)
        return Ran(code, said.out, said.err, seconds)

    def start(self, *more: str, home: Path | None = None) -> subprocess.Popen[str]:
        """Push in a process of its own, which can be killed."""
        environment = {**os.environ, "HF_TOKEN": self.hub.token, "HF_HUB_OFFLINE": "0"}
        environment["XDG_STATE_HOME"] = str(home or self.home)
        return subprocess.Popen(
            [sys.executable, "-m", "fluxconv.commands", *self.arguments(*more)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def refuse_tokens(self, said: str) -> None:
        """Neither what was said nor any file that a push writes holds a token of this Hub."""
        texts = {"output": said}
        for folder in (self.home, self.variant.root):
            for path in folder.rglob("*"):
                if path.is_file() and path.suffix not in (".safetensors", ".png", ".model"):
                    texts[str(path)] = path.read_text("utf-8", "replace")
        for where, text in texts.items():
            for token in self.hub.tokens.values():
                assert token not in text, where
            assert "Bearer" not in text, where

    def is_untouched(self) -> bool:
        """Whether nothing of ours can be seen: no repository, or a private one without content."""
        if not self.api.repo_exists(self.name):
            return True
        private = self.api.model_info(self.name).private
        return bool(private) and commits(self.api, self.name) == 1

    def is_whole(self) -> bool:
        """Whether the content is there, in one commit, whatever else is still missing."""
        tree = remote_tree(self.api, self.name)
        return commits(self.api, self.name) == 2 and set(self.variant.manifest.files) <= set(tree)

    def is_complete(self, *, count: int = 2) -> bool:
        """Whether the Hub has the whole variant, in one commit of ours after its own first one."""
        info = self.api.model_info(self.name)
        tree = remote_tree(self.api, self.name)
        wanted = {p: r.sha256 for p, r in self.variant.manifest.files.items()}
        wanted["fluxconv.json"] = hash_file(self.variant.root / "fluxconv.json").sha256
        has_all = all(path in tree and tree[path] in (sha, None) for path, sha in wanted.items())
        tags = [tag.target_commit for tag in self.api.list_repo_refs(self.name).tags]
        return (
            has_all
            and {"README.md", "report.json", "LICENSE.md", "NOTICE"} <= set(tree)
            and commits(self.api, self.name) == count
            and not info.private
            and info.sha in tags
        )

    def converges(self, *more: str, count: int = 2) -> None:
        """The same command again ends in the whole, and once more changes nothing."""
        again = self.run(*more)
        assert again.code == 0, again.err
        assert self.is_complete(count=count)
        before = state_of(self.api, self.name)
        last = self.run(*more, "--json")
        assert last.code == 0
        (repository,) = json.loads(last.out)["repositories"]
        assert repository["uploaded"] == [] and repository["commit"] == before[0]
        assert state_of(self.api, self.name) == before


def remote_tree(api: HfApi, name: str) -> Mapping[str, str | None]:
    """Path -> sha256 of a large file, None for any other."""
    return {
        each.path: each.lfs.sha256 if each.lfs else None
        for each in api.list_repo_tree(name, recursive=True)
        if isinstance(each, RepoFile)
    }


def state_of(api: HfApi, name: str) -> tuple[object, ...]:
    """All that a push could change about a repository."""
    info = api.model_info(name)
    tags = sorted((tag.name, tag.target_commit) for tag in api.list_repo_refs(name).tags)
    return info.sha, info.private, info.gated, tags, commits(api, name)
