"""llama.cpp runs our T5 files: their tokenizer and their output, beside transformers'.

    python benchmarks/llama_t5.py [CHECKPOINT] [--backend NAME ...]

Makes the T5 encoder of CHECKPOINT (the tests' tiny Flux, which is trained) as every GGUF type, and
opens each file in llama.cpp, which `building.py` builds once. Prints, for each, whether the tokens
of a prompt are those of the checkpoint's tokenizer, and the relative difference of the states from
those of transformers with the same file, in fp32. llama.cpp rounds the inputs of a quantized weight
to 8 bits. Exits with 1 if a file does not open, or has other tokens.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import types
from functools import cache
from pathlib import Path
from typing import Any

import building
import click
import numpy as np
from numpy.typing import NDArray
from streaming import folder_option, measure, working_folder

from fluxconv.converters.backends import all_backends

TINY = Path(__file__).parent.parent / "tests" / "checkpoints" / "tiny-flux"
GGUF = [name for name, each in all_backends().items() if each.container == "gguf"]
PROMPT = "A red star above two blue circles,  and the word “Flux” 2024"


@click.command(help=__doc__)
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path), default=TINY)
@click.option("--backend", "chosen", multiple=True, type=click.Choice(GGUF), help="[all]")
@folder_option
def main(checkpoint: Path, chosen: tuple[str, ...], folder: Path | None) -> None:
    from transformers import AutoTokenizer

    llama = bindings()
    tokens = AutoTokenizer.from_pretrained(checkpoint / "tokenizer_2")(PROMPT).input_ids
    failed = False
    click.echo("| backend | tokens | states |")
    click.echo("|---|---|---|")
    with working_folder(folder) as work:
        names = chosen or GGUF
        words = [word for name in names for word in ("--backend", name)]
        words += ["--component", "text_encoder_2", "-q", "--device", "cpu", "-o", str(work)]
        measure([sys.executable, "-m", "fluxconv.commands", "quantize", str(checkpoint), *words])
        for name in names:
            (file,) = work.glob(f"*-{name}/*.gguf")
            found, states = run(llama, file)
            want = states_of(file, tokens)
            same = found == tokens
            failed |= not same
            share = np.linalg.norm(states - want) / np.linalg.norm(want) if same else np.nan
            click.echo(f"| `{name}` | {'equal' if same else 'DIFFERENT'} | {share:.5f} |")
    sys.exit(int(failed))


def bindings() -> Any:
    """llama-cpp-python's ctypes module, without the rest of the package, over what we built."""
    package = types.ModuleType("llama_cpp")
    package.__path__ = [str(building.source("llama-cpp-python") / "llama_cpp")]
    sys.modules["llama_cpp"] = package
    os.environ["LLAMA_CPP_LIB_PATH"] = str(building.llama().parent)
    llama = importlib.import_module("llama_cpp.llama_cpp")
    llama.llama_log_set(_silent(llama), None)
    llama.llama_backend_init()
    return llama


@cache
def _silent(llama: Any) -> Any:
    """A log that drops everything; cached, since C keeps no reference to it."""
    return llama.llama_log_callback(lambda level, text, data: None)


def run(llama: Any, file: Path) -> tuple[list[int], NDArray[np.float32]]:
    """The prompt's tokens by the file's own tokenizer, and the encoder's states (tokens, width)."""
    model = llama.llama_model_load_from_file(os.fsencode(file), llama.llama_model_default_params())
    if not model:
        raise click.ClickException(f"llama.cpp does not open {file.name}")
    settings = llama.llama_context_default_params()
    settings.embeddings, settings.pooling_type = True, llama.LLAMA_POOLING_TYPE_NONE
    context = llama.llama_init_from_model(model, settings)
    text = PROMPT.encode()
    tokens = (llama.llama_token * 256)()
    vocabulary = llama.llama_model_get_vocab(model)
    count = llama.llama_tokenize(vocabulary, text, len(text), tokens, len(tokens), True, False)
    if llama.llama_encode(context, llama.llama_batch_get_one(tokens, count)):
        raise click.ClickException(f"llama.cpp does not run {file.name}")
    width = llama.llama_model_n_embd(model)
    states = ctypes.cast(llama.llama_get_embeddings(context), ctypes.POINTER(ctypes.c_float))
    found = np.ctypeslib.as_array(states, (count, width)).copy()
    llama.llama_free(context)
    llama.llama_model_free(model)
    return list(tokens[:count]), found


def states_of(file: Path, tokens: list[int]) -> NDArray[np.float32]:
    """The states by transformers, which decodes the file with gguf-py, in fp32."""
    import torch
    from transformers import T5Config, T5EncoderModel

    config = T5Config.from_pretrained(file.parent, subfolder="text_encoder_2")
    model = T5EncoderModel.from_pretrained(
        file.parent, gguf_file=file.name, config=config, dtype=torch.float32, local_files_only=True
    )
    with torch.inference_mode():
        states: NDArray[np.float32] = model(torch.tensor([tokens])).last_hidden_state[0].numpy()
    return states


if __name__ == "__main__":
    main()
