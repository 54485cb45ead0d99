"""The tiny Flux really draws what captions say, also those that training never saw."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline
from evaluate_tiny_flux import draw
from shapes import held_out_sample, judge

from fluxconv.converters import Checkpoint


def test_is_small_enough_to_carry(tiny_checkpoint: Checkpoint) -> None:
    files = [path for path in tiny_checkpoint.root.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 20_000_000


@pytest.mark.parametrize(("length", "captions"), [(24, 100), (512, 12)])
def test_held_out_captions_come_out_right(
    length: int, captions: int, tiny_checkpoint: Checkpoint
) -> None:
    pipeline = FluxPipeline.from_pretrained(tiny_checkpoint.root, dtype=torch.bfloat16)
    pipeline.set_progress_bar_config(disable=True)
    sample = held_out_sample(captions, seed=1)
    pictures = draw(
        pipeline, [caption for _, caption in sample], steps=8, guidance=3.5, length=length, seed=0
    )
    seen = [judge(picture, scene) for picture, (scene, _) in zip(pictures, sample, strict=True)]
    assert sum(verdict.colours_right for verdict in seen) >= 0.95 * captions
    assert sum(verdict.shape_right for verdict in seen) >= 0.8 * captions


def test_tokenizers_take_any_text(tiny_checkpoint: Checkpoint) -> None:
    from transformers import AutoTokenizer

    for name in ("tokenizer", "tokenizer_2"):
        tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint.root / name)
        for text in ("a red circle", "", "Käfer 🪲 \u202e \x00", "x" * 5000):
            ids = tokenizer(text, truncation=True, max_length=77).input_ids
            assert ids and max(ids) < len(tokenizer)


def test_spiece_model_is_the_tokenizer(tiny_checkpoint: Checkpoint) -> None:
    import sentencepiece
    from transformers import AutoTokenizer

    folder: Path = tiny_checkpoint.root / "tokenizer_2"
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    ids = AutoTokenizer.from_pretrained(folder)("a large red star at the top").input_ids
    assert ids == [*pieces.encode("a large red star at the top"), pieces.eos_id()]
