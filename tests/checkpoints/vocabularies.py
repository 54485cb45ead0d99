"""Train the two tokenizers of the tiny Flux: a SentencePiece unigram model and a byte-level BPE.

Both are real ones, learned from the captions and from varied English-like text, and are saved
in the files their classes expect: ``spiece.model`` for T5, ``vocab.json`` and ``merges.txt``
for CLIP, each with the ``tokenizer.json`` that transformers writes.
"""

from __future__ import annotations

import io
import json
import random
import re
import string
from pathlib import Path

import sentencepiece
from shapes import TEMPLATES, scenes
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer, T5Tokenizer

T5_PIECES = 768
T5_SENTINELS = 100
"""T5 adds this many ``<extra_id_N>`` after its pieces."""
CLIP_MERGES = 400
CLIP_LENGTH = 77

_WORDS = re.findall(
    r"\w+",
    """
the of and to in is that it was for on are as with his they at be this from have or by one had not
but what all were when we there can an your which their said if do will each about how up out them
then she many some so these would other into has more her two like him see time could no make than
first been its who now people my made over did down only way find use may water long little very
after word called just where most know get through back much before go good new write our used me
man too any day same right look think also around another came come work three must because does
part even place well such here take why things help put years different away again off went old
number great tell men say small every found still between name should home big give air line set
own under read last never us left end along while might next sound below saw something thought both
few those always looked show large often together asked house world going want school important
until form food keep children feet land side without boy once animals life enough took four head
above kind began almost live page got earth need far hand high year mother light parts country
father let night following picture being study second eyes soon times story boys since white days
ever paper hard near sentence better best across during today others however sure means knew try
told young miles sun ways thing whole hear example heard several change answer room sea against top
turned learn point city play toward five using himself usually painting photograph drawing colour
shape bright dark soft sharp river mountain forest cloud flower garden window street castle robot
dragon portrait landscape detailed watercolor cinematic studio lighting vintage abstract minimal
""",
)

_ONSETS = re.findall(
    r"\w+", "b bl br c ch cl d dr f fl fr g gl gr h j k l m n p pl pr qu r s sh sl st t th tr v w z"
)
_VOWELS = re.findall(r"\w+", "a ai e ea ee i ie o oa oo u")
_ENDINGS = re.findall(r"\w+", "d l m n nd ng r rt s st t ck x y ing er")


def _text(lines: int, seed: int = 0) -> list[str]:
    """English-like lines: common words, invented words, numbers and punctuation."""
    rng = random.Random(seed)

    def invented() -> str:
        parts = [rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.randint(1, 3))]
        return "".join(parts) + rng.choice(_ENDINGS)

    def word() -> str:
        kind = rng.random()
        chosen = rng.choice(_WORDS) if kind < 0.8 else invented()
        chosen = str(rng.randint(0, 2100)) if kind > 0.97 else chosen
        return chosen.capitalize() if rng.random() < 0.08 else chosen

    def sentence() -> str:
        words = [word() for _ in range(rng.randint(4, 14))]
        return " ".join(words) + rng.choice([".", ".", "?", "!", ";", ", (and) so", ":"])

    # Every printable ASCII character gets a piece, so that any English text can be spelled.
    alphabet = [" ".join(string.printable[:94]), string.printable[:94]] * 20
    return [sentence() for _ in range(lines)] + alphabet


def corpus(seed: int = 0) -> list[str]:
    """What both tokenizers learn from: captions of training scenes, then English-like text."""
    rng = random.Random(seed)
    known = list(scenes(held_out=False))
    captions = [rng.choice(known).caption(rng.randrange(len(TEMPLATES))) for _ in range(6000)]
    return captions + _text(6000, seed)


def make_t5_tokenizer(folder: Path, lines: list[str]) -> T5Tokenizer:
    """Train a unigram model with T5's special pieces, and save it the way T5 checkpoints are."""
    folder.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="unigram",
        vocab_size=T5_PIECES,
        character_coverage=1.0,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece="<pad>",
        num_threads=1,
        minloglevel=1,
    )
    (folder / "spiece.model").write_bytes(model.getvalue())
    tokenizer = T5Tokenizer.from_pretrained(
        folder, model_max_length=512, extra_ids=T5_SENTINELS, clean_up_tokenization_spaces=False
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_clip_tokenizer(folder: Path, lines: list[str]) -> CLIPTokenizer:
    """Train byte-level BPE merges; the vocabulary is laid out in the order of OpenAI's.

    That order is: 256 bytes, the same 256 at the end of a word, the merges, and last the two
    special tokens. All 512 byte entries are there whether the corpus has them or not, so that
    any text can be spelled.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.normalizer = normalizers.Lowercase()
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=512 + CLIP_MERGES,
        end_of_word_suffix="</w>",
        initial_alphabet=alphabet,
        show_progress=False,
    )
    trained.train_from_iterator(lines, trainer)
    merges = json.loads(trained.to_str())["model"]["merges"][:CLIP_MERGES]
    pieces = alphabet + [byte + "</w>" for byte in alphabet]
    pieces += [left + right for left, right in merges] + ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    rows = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(rows) + "\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=CLIP_LENGTH)
    tokenizer.save_pretrained(folder)
    return tokenizer
