"""The geometry of the tiny Flux, and how its parts become a pipeline folder.

Every part is the real class with every feature of FLUX.1-dev that matters to a quantizer; only
the sizes are small. All inner widths are multiples of 256, the block of the GGUF K-quants.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
)
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)
from vocabularies import CLIP_LENGTH

SEQUENCE_LENGTH = 24
"""T5 tokens of a caption while training; the longest caption has 14."""
LATENT_CHANNELS = 4
WIDTH = 256
CLIP_WIDTH = 64


def make_transformer() -> FluxTransformer2DModel:
    """Two double and two single blocks, initialised so that every block starts as identity."""
    model = FluxTransformer2DModel(
        in_channels=4 * LATENT_CHANNELS,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=64,
        num_attention_heads=WIDTH // 64,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=CLIP_WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(8, 28, 28),
    )
    # Zero modulation is how diffusion transformers are started; diffusers leaves it to training.
    modulations = ("norm.linear", "norm1.linear", "norm1_context.linear", "norm_out.linear")
    for name, module in model.named_modules():
        if name.endswith(modulations) or name == "proj_out":
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return model


def make_t5(tokenizer: T5Tokenizer) -> T5EncoderModel:
    """Two layers of T5 v1.1: gated GELU, relative bias in the first layer, shared embedding."""
    config = T5Config(
        # Real T5 rounds its embedding up to a round number of rows, too.
        vocab_size=-(-len(tokenizer) // 128) * 128,
        d_model=WIDTH,
        d_kv=64,
        d_ff=2 * WIDTH,
        num_layers=2,
        num_heads=WIDTH // 64,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )
    model = T5EncoderModel(config)
    # Which word belongs to which ("red" to "circle" or to "background") is a matter of neighbours.
    # Left to itself the bias, which starts near zero, takes thousands of steps to find them, so it
    # starts as: previous token, next token, both sides, everywhere.
    bias = model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    previous, following = 1, config.relative_attention_num_buckets // 2 + 1  # T5's buckets
    with torch.no_grad():
        bias.normal_(std=0.05)
        bias[previous, 0] = bias[following, 1] = 5.0
        bias[previous : previous + 2, 2] = bias[following : following + 2, 2] = 3.0
    return model


def make_clip(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """One random, never trained layer: Flux takes only a pooled vector from CLIP."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=CLIP_WIDTH,
        intermediate_size=2 * CLIP_WIDTH,
        projection_dim=CLIP_WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=CLIP_LENGTH,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return CLIPTextModel(config).eval().requires_grad_(False)


def make_vae() -> AutoencoderKL:
    """Two halvings, so that a 64 x 64 picture is 8 x 8 tokens after Flux's packing."""
    return AutoencoderKL(
        block_out_channels=(32, 32, 48),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=64,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def make_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """FLUX.1-dev's, shifted further: most of what a caption decides is decided above 0.9."""
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000,
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=1.1,
        max_shift=1.15,
        base_image_seq_len=64,
        max_image_seq_len=4096,
    )


def save_pipeline(
    folder: Path,
    *,
    transformer: FluxTransformer2DModel,
    text_encoder: CLIPTextModel,
    text_encoder_2: T5EncoderModel,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    tokenizer_2: T5Tokenizer,
) -> None:
    """Write everything in bf16 beside ``folder``, then move it into place in one step."""
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    pipeline = FluxPipeline(
        transformer=transformer.to(torch.bfloat16),
        text_encoder=text_encoder.to(torch.bfloat16),
        text_encoder_2=text_encoder_2.to(torch.bfloat16),
        vae=vae.to(torch.bfloat16),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        scheduler=make_scheduler(),
    )
    pipeline.save_pretrained(fresh)
    # The tokenizers' own folders hold files that save_pretrained does not write again, such as
    # spiece.model, which a GGUF writer needs.
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(Path(tokenizer.name_or_path, name), fresh / "tokenizer" / name)
    shutil.copy(Path(tokenizer_2.name_or_path, "spiece.model"), fresh / "tokenizer_2")
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        for kept in ("README.md", "validation.yaml"):
            if (folder / kept).exists():
                shutil.copy(folder / kept, fresh / kept)
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
