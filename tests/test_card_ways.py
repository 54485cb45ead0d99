"""Every way to use a variant that its card gives: complete, and run where it can run here."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from card_code import code_of
from huggingface_hub import HfApi
from published import published
from reported import copied, reported

from fluxconv.cards import write_card
from fluxconv.cards.readme import parse
from fluxconv.commands.main import run
from fluxconv.converters import Variant
from fluxconv.converters.errors import BadInput
from fluxconv.hub.card_check import require_good_cards
from fluxconv.hub.rehearsal import RehearsalHub
from fluxconv.validators.report import Settings

pytestmark = pytest.mark.usefixtures("no_account_of_this_machine", "online_client")

#: What a prompt could try in a shell, and in the card around it.
HOSTILE = "a'; touch owned; ' $(touch owned) `touch owned` <!-- fluxconv:end --> ```"


def test_each_way_is_a_program_of_its_own(variant: Variant) -> None:
    text = write_card(variant, repository="me/x").read_text()
    ways = code_of(text)
    assert [
        name
        for code in ways
        for name in ("model_cpu_offload", "group_offload", "compile_repeated_blocks")
        if name in code
    ] == ["model_cpu_offload", "group_offload", "compile_repeated_blocks"]
    for code in ways:
        names = [node.attr for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Attribute)]
        assert {"from_pretrained", "save"} <= set(names)


def test_what_the_ways_call_is_there() -> None:
    from diffusers import FluxPipeline, FluxTransformer2DModel

    for name in ("enable_model_cpu_offload", "enable_group_offload", "to"):
        assert callable(getattr(FluxPipeline, name))
    assert callable(FluxTransformer2DModel.compile_repeated_blocks)


@pytest.mark.slow
@pytest.mark.parametrize("way", range(4))
def test_the_code_draws(
    variant: Variant, api: HfApi, hub: RehearsalHub, tmp_path: Path, way: int
) -> None:
    if way and not torch.cuda.is_available():
        pytest.skip("offloading and compiling, as the card does it, need a GPU")
    repository = published(api, variant)
    text = write_card(variant, repository=repository).read_text()
    environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", code_of(text)[way]],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "picture.png").stat().st_size > 0


@pytest.mark.parametrize("program", ["ComfyUI", "sd-cli"])
def test_shell_lines_bring_the_files_that_the_programs_open(
    tiny_variants: dict[str, Variant],
    api: HfApi,
    hub: RehearsalHub,
    tmp_path: Path,
    program: str,
) -> None:
    name = f"ways-{len(program)}-GGUF"
    variant = copied(tiny_variants["gguf-q4_k_s"], tmp_path)
    settings = Settings(height=64, width=64, steps=2, prompts=(HOSTILE,))
    reported(variant, settings=settings)
    repository = published(api, variant, name=name)
    text = write_card(variant, repository=repository).read_text()
    assert parse(text, "here").is_written_by_hand is False
    (code,) = [code for code in code_of(text, "sh") if program in code]
    tools = tmp_path / "tools"
    tools.mkdir()
    # A stand-in for the program: it takes down its words.
    (tools / "sd-cli").write_text(
        f"#!{sys.executable}\nimport json, sys\njson.dump(sys.argv[1:], open('words', 'w'))\n"
    )
    (tools / "sd-cli").chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    path = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        ["bash", "-euc", code],
        cwd=work,
        env={**os.environ, **environment, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not list(tmp_path.rglob("owned"))
    transformer, text_encoder = (c.files[0] for c in variant.manifest.components.values())
    if program == "ComfyUI":
        places = [f"ComfyUI/models/unet/{transformer}", f"ComfyUI/models/clip/{text_encoder}"]
    else:
        words = json.loads((work / "words").read_text())
        options = dict(zip(words[::2], words[1::2], strict=True))
        assert options["-p"] == HOSTILE and options["--steps"] == "2"
        places = [options["--diffusion-model"], options["--t5xxl"]]
    for place, file in zip(places, (transformer, text_encoder), strict=True):
        assert (work / place).read_bytes() == (variant.root / file).read_bytes()


def test_the_gallery_shows_the_reports_pictures(variant: Variant) -> None:
    text = write_card(variant).read_text()
    (shown,) = parse(text, "here").metadata["widget"]
    assert (variant.root / shown["output"]["url"]).is_file() and shown["text"]
    assert "<Gallery />" in text
    unproven = write_card(variant, validated=False).read_text()
    assert "<Gallery />" not in unproven and "widget" not in parse(unproven, "here").metadata


def test_a_gguf_card_says_what_to_choose_first(
    tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    large = reported(copied(tiny_variants["gguf-q8_0"], tmp_path))
    small = copied(tiny_variants["gguf-q4_k_s"], tmp_path)
    alone = write_card(large, repository="me/x").read_text()
    assert "The smallest is" not in alone
    text = write_card(large, siblings=[large, reported(small)], repository="me/x").read_text()
    assert "The smallest is `Q4_K_S`" in text or "Closest to the source is `Q4_K_S`" in text
    assert "fluxconv download me/x --vram 12GB" in text
    rows = [line for line in text.splitlines() if line.startswith("| `tiny-flux-")]
    assert len(rows) == 4 and all("MB of main memory" in row for row in rows)
    bare = write_card(reported(large, performance=())).read_text()
    assert "of main memory |" not in bare


def test_the_hubs_own_check_is_asked(
    variant: Variant,
    hub: RehearsalHub,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    words = ["card", str(variant.root), "--check-online", "--endpoint", hub.url]
    assert run(words) == 0
    with pytest.raises(BadInput, match="would refuse"):
        require_good_cards({Path("README.md"): "---\na: [\n---\n"}, endpoint=hub.url)
    assert run([*words[:-1], "http://127.0.0.1:1"]) == 5
    assert "Traceback" not in capsys.readouterr().err
