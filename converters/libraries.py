"""The libraries beneath, kept from talking over us."""

from __future__ import annotations

import logging
import os
import warnings

# What these say at warning level is about their own optional kernels and deprecations; a user of
# fluxconv can act on none of it. `fluxconv -v` lets them speak.
_TALKATIVE = (
    "accelerate",
    "bitsandbytes",
    "diffusers",
    "torch.utils._pytree",
    "torchao",
    "transformers",
)


def hush() -> None:
    """Silence the warnings and progress bars of the libraries fluxconv builds on."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    warnings.filterwarnings("ignore")
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
