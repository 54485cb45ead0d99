"""T5's SentencePiece model as GGUF tokenizer metadata, as llama.cpp's converter writes it.

Source: llama.cpp, `convert_hf_to_gguf.py`, `T5Model.set_vocab`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fluxconv.converters.errors import MalformedFile

_UNUSED = 5  # SentencePiece's own number of the type


def add_t5_tokenizer(writer: Any, folder: Path, vocabulary: int) -> None:
    """Add pieces, scores, types and special ids; pads up to `vocabulary` with unused pieces.

    Does nothing where the folder has no `spiece.model`. Raises `MalformedFile` if it is garbled.
    """
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    file = folder / "spiece.model"
    if not file.is_file():
        return
    model = sentencepiece_model_pb2.ModelProto()
    try:
        model.ParseFromString(file.read_bytes())
    except DecodeError as error:
        raise MalformedFile(f"{file}: is not a SentencePiece model") from error
    tokens = [piece.piece.encode() for piece in model.pieces]
    scores = [float(piece.score) for piece in model.pieces]
    types = [int(piece.type) for piece in model.pieces]
    if len(tokens) > vocabulary:
        raise MalformedFile(f"{file}: has {len(tokens)} pieces for a vocabulary of {vocabulary}")
    missing = vocabulary - len(tokens)
    tokens += [f"[PAD{i}]".encode() for i in range(len(tokens), vocabulary)]
    scores += [-10000.0] * missing
    types += [_UNUSED] * missing
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_add_space_prefix(model.normalizer_spec.add_dummy_prefix)
    writer.add_remove_extra_whitespaces(model.normalizer_spec.remove_extra_whitespaces)
    if model.normalizer_spec.precompiled_charsmap:
        writer.add_precompiled_charsmap(model.normalizer_spec.precompiled_charsmap)
    writer.add_eos_token_id(model.trainer_spec.eos_id)
    writer.add_unk_token_id(model.trainer_spec.unk_id)
    writer.add_pad_token_id(max(model.trainer_spec.pad_id, 0))
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(True)
