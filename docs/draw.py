"""Draw one picture with a downloaded variant and nothing but diffusers."""

import sys

import torch
from diffusers import FluxPipeline

folder, picture = sys.argv[1:]
pipe = FluxPipeline.from_pretrained(folder, dtype=torch.bfloat16)
pipe.to("cuda" if torch.cuda.is_available() else "cpu")
image = pipe(
    "a red triangle on a blue background at the left",
    height=64,
    width=64,
    num_inference_steps=8,
    guidance_scale=3.5,
    max_sequence_length=24,
    generator=torch.Generator("cpu").manual_seed(0),
).images[0]
image.save(picture)
print(f"drew {picture}")
