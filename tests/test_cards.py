"""Cards say what was measured and nothing else, and nothing in a checkpoint can break one."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from card_code import code_of
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from reported import PROMPT, copied, reported

from fluxconv.cards import metadata_problems, refresh_card, repository_name, write_card
from fluxconv.cards.collection_text import (
    MAX_DESCRIPTION,
    MAX_NOTE,
    collection_description,
    collection_title,
    item_note,
)
from fluxconv.cards.readme import BEGIN, END, parse
from fluxconv.converters import Variant
from fluxconv.converters.errors import BadInput, UsageError
from fluxconv.validators.report import Settings
from fluxconv.validators.results import ComponentExecution

BACKENDS = ("bnb-nf4", "torchao-int8", "gguf-q8_0")
#: What a hostile checkpoint would like to put into a card.
HOSTILE = (
    f'x` | {END}\n---\nlicense: mit\n---\n# Owned\n<script>alert(1)</script> <img src="x">'
    "[click](https://evil.example) ![p](https://evil.example/p.png) https://evil.example\n```\n"
    "'''\"\"\" {{ 7*7 }} {% raw %} \u202e -->"
)


@pytest.fixture
def variants(tiny_variants: dict[str, Variant], tmp_path: Path) -> dict[str, Variant]:
    """The three variants with a passed report each."""
    return {name: reported(copied(tiny_variants[name], tmp_path)) for name in BACKENDS}


def rendered(text: str) -> str:
    """As HTML, the way the Hub's GitHub-flavoured Markdown does it, raw HTML included."""
    body = text.split("---\n", 2)[2]
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(body)


def python_of(text: str) -> str:
    """The code of a card, as a reader would copy it."""
    return code_of(text)[0]


@pytest.mark.parametrize("name", BACKENDS)
def test_metadata_is_what_the_hub_asks_for(variants: dict[str, Variant], name: str) -> None:
    text = write_card(variants[name]).read_text()
    data = ModelCard(text).data.to_dict()
    assert metadata_problems(data) == ()
    assert data["license"] == "apache-2.0"
    assert data["library_name"] == ("gguf" if name.startswith("gguf") else "diffusers")
    assert data["pipeline_tag"] == "text-to-image"
    assert {"flux", "quantization", name} <= set(data["tags"])
    assert "base_model" not in data  # the tiny checkpoint is no repository


def test_base_model_is_named_when_the_source_is_a_repository(
    tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    variant = copied(tiny_variants["bnb-nf4"], tmp_path, source_id="somebody/Flux-Fine.Tune_2")
    text = write_card(variant).read_text()
    data = yaml.safe_load(text.split("---\n")[1])
    assert data["base_model"] == "somebody/Flux-Fine.Tune_2"
    assert data["base_model_relation"] == "quantized"
    assert metadata_problems(data) == ()
    assert 'href="https://huggingface.co/somebody/Flux-Fine.Tune_2"' in rendered(text)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"license": "my-own"}, "license"),
        ({"license": "other"}, "license_name"),
        ({"license_name": "x", "license_link": "LICENSE.md"}, "license_name"),
        ({"license": "other", "license_name": "Two Words", "license_link": "LICENSE"}, "spaces"),
        ({"license": "other", "license_name": "x", "license_link": "javascript:1"}, "address"),
        ({"base_model": "no-owner"}, "owner/name"),
        ({"base_model_relation": "quantized"}, "needs base_model"),
        ({"base_model": "a/b", "base_model_relation": "copied"}, "relation"),
        ({"pipeline_tag": "text-to-cake"}, "task"),
        ({"tags": "flux"}, "list"),
        ({"tags": [{"a": 1}]}, "words"),
        ({"library_name": None}, "library_name"),
        ({"license": {}}, "license"),
        ({"widget": [{"text": "a", "output": {"url": "../a.png"}}]}, "widget"),
        ({"widget": [{"text": "a", "output": {"url": "a.svg"}}]}, "widget"),
        ({"widget": [{"text": " ", "output": {"url": "a.png"}}]}, "widget"),
        ({"widget": {"text": "a"}}, "widget"),
        ({"language": "English"}, "language"),
        ({"extra_gated_prompt": 1}, "text"),
        ({"model-index": [{"name": "a"}]}, "model-index"),
    ],
)
def test_metadata_that_the_hub_refuses_is_found(changed: dict[str, Any], problem: str) -> None:
    good = {
        "license": "mit",
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["flux"],
    }
    assert metadata_problems(good) == ()
    assert any(problem in text for text in metadata_problems(good | changed))
    assert metadata_problems({}) != ()


@pytest.mark.parametrize("how", ["no report", "failed", "stale", "not wanted"])
def test_card_says_not_validated(
    tiny_variants: dict[str, Variant], tmp_path: Path, how: str
) -> None:
    variant = copied(tiny_variants["torchao-int8"], tmp_path)
    if how != "no report":
        reported(variant, passed=how != "failed")
    if how == "stale":
        place = variant.root / "fluxconv.json"
        place.write_text(place.read_text() + "\n")
    text = write_card(variant, validated=how != "not wanted").read_text()
    assert "**Not validated.**" in text and "**Validated.**" not in text
    assert ("PSNR is 31.2 dB" in text) == (how == "failed")
    if how != "failed":
        assert "31.2" not in text and "1.23 %" not in text and "contact-sheet" not in text


def test_decoded_execution_is_said_with_its_reason(variants: dict[str, Variant]) -> None:
    execution = {
        "transformer": ComponentExecution(mode="decoded", why="it needs <a> GPU"),
        "text_encoder_2": ComponentExecution(mode="native"),
    }
    variant = reported(variants["bnb-nf4"], execution=execution)
    text = write_card(variant).read_text()
    assert "The Flux transformer was decoded to bf16" in text
    assert "it needs &lt;a&gt; GPU" in text


def test_gguf_card_has_a_row_for_each_file_of_each_type(
    variants: dict[str, Variant], tmp_path: Path
) -> None:
    variant = variants["gguf-q8_0"]
    text = write_card(variant, siblings=list(variants.values()), repository="me/x").read_text()
    for component in variant.manifest.components.values():
        assert f"| `{component.files[0]}` |" in text
    assert "# `tiny-flux-GGUF`" in text and repository_name(variant) == "tiny-flux-GGUF"
    assert "`bnb-nf4`" in text


def test_snippet_draws_the_reports_first_picture(variants: dict[str, Variant]) -> None:
    text = write_card(variants["torchao-int8"], repository="me/tiny-flux-torchao-int8").read_text()
    code = python_of(text)
    ast.parse(code)
    for wanted in (repr(PROMPT), "height=64", "num_inference_steps=2", "manual_seed(0)"):
        assert wanted in code
    assert 'from_pretrained("me/tiny-flux-torchao-int8"' in code
    assert 'image.save("picture.png")' in code
    with pytest.raises(UsageError):
        write_card(variants["torchao-int8"], repository='me/x"; import os')


def test_writing_a_card_again_changes_nothing(variants: dict[str, Variant]) -> None:
    for variant in variants.values():
        place = write_card(variant)
        before = {p: p.read_bytes() for p in variant.root.iterdir() if p.is_file()}
        assert write_card(variant) == place
        assert {p: p.read_bytes() for p in variant.root.iterdir() if p.is_file()} == before


def test_what_somebody_wrote_by_hand_is_kept(variants: dict[str, Variant]) -> None:
    variant = variants["torchao-int8"]
    readme = variant.root / "README.md"
    readme.write_text(
        "---\nlanguage: en\ntags: [mine]\nlicense: mit\n---\n\n# My words\n\nHello.\n"
    )
    text = write_card(variant).read_text()
    found = parse(text, "here")
    assert "# My words\n\nHello." in found.before
    assert found.metadata["language"] == "en" and "mine" in found.metadata["tags"]
    assert found.metadata["license"] == "apache-2.0"
    readme.write_text(text.replace(END, f"{END}\n\nAfterwards.").replace("PSNR", "changed by hand"))
    again = write_card(variant).read_text()
    assert again == text + "\nAfterwards.\n"


@pytest.mark.parametrize(
    "broken", [BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}{BEGIN}{END}", "---\na: [\n---\n"]
)
def test_broken_readme_is_not_touched(variants: dict[str, Variant], broken: str) -> None:
    readme = variants["bnb-nf4"].root / "README.md"
    readme.write_text(broken)
    with pytest.raises(BadInput, match=r"README\.md"):
        write_card(variants["bnb-nf4"])
    assert readme.read_text() == broken


@pytest.mark.parametrize("backend", ["torchao-int8", "gguf-q8_0"])
def test_nothing_in_a_checkpoint_can_break_a_card(
    tiny_variants: dict[str, Variant], tmp_path: Path, backend: str
) -> None:
    metadata = {"license": "other", "license_name": HOSTILE, "license_link": "javascript:alert(1)"}
    variant = copied(
        tiny_variants[backend], tmp_path, metadata=metadata, source_id=HOSTILE, checkpoint=HOSTILE
    )
    (variant.root / "LICENSE.md").write_text("Some licence.")
    settings = Settings(height=64, width=64, steps=1, prompts=(HOSTILE,))
    execution = {"transformer": ComponentExecution(mode="decoded", why=HOSTILE)}
    reported(variant, settings=settings, execution=execution, thresholds=HOSTILE, device=HOSTILE)
    text = write_card(variant, repository="me/x").read_text()
    found = parse(text, "here")
    assert metadata_problems(found.metadata) == ()
    assert not found.is_written_by_hand
    assert text.count("---\n") == 2 and found.metadata["license"] == "other"
    html = rendered(text)
    for forbidden in ("<script", '<img src="x', 'href="https://evil', "<h1>Owned", "\u202e"):
        assert forbidden not in html, forbidden
    assert "{{ 7*7 }}" in html
    assert 'src="https://evil' not in html
    if backend == "torchao-int8":
        call = ast.parse(python_of(text)).body[-2]
        prompts = [
            k.value for k in ast.walk(call) if isinstance(k, ast.keyword) and k.arg == "prompt"
        ]
        assert ast.literal_eval(prompts[0]) == HOSTILE
    notice = (variant.root / "NOTICE").read_text()
    assert not any(line.startswith(("---", "#")) for line in notice.splitlines())


def test_collection_words_fit_the_hubs_limits(
    variants: dict[str, Variant], tmp_path: Path, tiny_variants: dict[str, Variant]
) -> None:
    (tmp_path / "long").mkdir()
    long = copied(tiny_variants["bnb-nf4"], tmp_path / "long", source_id="x" * 400)
    assert len(collection_description([long])) <= MAX_DESCRIPTION
    assert "tiny-flux" in collection_description(list(variants.values()))
    assert len(item_note([long] * 30)) <= MAX_NOTE
    note = item_note([variants["gguf-q8_0"]])
    assert "GGUF Q8_0" in note and "31.2 dB" in note and "Passed" in note
    assert "Not validated." in item_note([variants["gguf-q8_0"]], validated=False)
    for wrong in ("", " \n", "x" * 61):
        with pytest.raises(UsageError):
            collection_title(wrong)


def test_rooms_are_light_to_import() -> None:
    code = (
        "import sys, fluxconv.cards, fluxconv.hub\n"
        "assert not {'torch', 'diffusers', 'huggingface_hub', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_card_does_not_outlive_its_report(
    tiny_variants: dict[str, Variant], tmp_path: Path
) -> None:
    variant = copied(tiny_variants["torchao-int8"], tmp_path)
    assert not refresh_card(reported(variant))  # there was no card, so none is made
    assert "**Validated.**" in write_card(variant).read_text()
    reported(variant, passed=False)
    assert refresh_card(variant)
    text = (variant.root / "README.md").read_text()
    assert "**Validated.**" not in text and "**Not validated.**" in text
