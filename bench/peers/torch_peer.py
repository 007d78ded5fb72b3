"""PyTorch's side of bench.py: one model through diffusers' parts, channels last, on the CPU.

    python torch_peer.py MODEL bf16|f32 SIZE STEPS REPEATS [PICTURE.png]

Prints one JSON object with the seconds of each stage, a row a repeat; the first row is the cold one.
"""

import json
import os
import sys
import time
import warnings

warnings.filterwarnings("ignore")
START = time.perf_counter()

import diffusers  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel  # noqa: E402
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer  # noqa: E402

PROMPT = "a red fox in the snow"


def main():
    model, dtype, size, steps, repeats = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
    dtype = {"bf16": torch.bfloat16, "f32": torch.float32}[dtype]
    transformers.logging.set_verbosity_error()
    diffusers.logging.set_verbosity_error()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    tokenizers = [CLIPTokenizer.from_pretrained(f"{model}/{name}") for name in ("tokenizer", "tokenizer_2")]
    encoders = [
        kind.from_pretrained(f"{model}/{name}", dtype=dtype).eval()
        for kind, name in ((CLIPTextModel, "text_encoder"), (CLIPTextModelWithProjection, "text_encoder_2"))
    ]
    unet, vae = (
        kind.from_pretrained(f"{model}/{name}", torch_dtype=dtype).eval().to(memory_format=torch.channels_last)
        for kind, name in ((UNet2DConditionModel, "unet"), (AutoencoderKL, "vae"))
    )
    # One step is the same as the ancestral scheduler's; of several the noise would differ.
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="trailing", steps_offset=1
    )
    load = time.perf_counter() - START

    def paint():
        marks = [time.perf_counter()]
        ids = [
            tokenizer(PROMPT, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
            for tokenizer in tokenizers
        ]
        texts = [encoder(i, output_hidden_states=True) for encoder, i in zip(encoders, ids)]
        embeds = torch.cat([text.hidden_states[-2] for text in texts], -1)
        marks.append(time.perf_counter())
        scheduler.set_timesteps(steps)
        noise = torch.randn((1, 4, size // 8, size // 8), generator=torch.Generator().manual_seed(7))
        latents = noise.to(dtype) * scheduler.init_noise_sigma
        added = {"text_embeds": texts[1][0], "time_ids": torch.tensor([[size, size, 0, 0, size, size]], dtype=dtype)}
        for timestep in scheduler.timesteps:
            scaled = scheduler.scale_model_input(latents, timestep)
            output = unet(scaled, timestep, encoder_hidden_states=embeds, added_cond_kwargs=added).sample
            latents = scheduler.step(output, timestep, latents).prev_sample
        marks.append(time.perf_counter())
        picture = vae.decode(latents / vae.config.scaling_factor).sample
        marks.append(time.perf_counter())
        return [after - before for before, after in zip(marks, marks[1:])], picture

    rows = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            row, picture = paint()
            rows.append(dict(zip(("text", "unet", "vae"), row)))
    print(json.dumps({"load": load, "rows": rows, "versions": f"torch {torch.__version__}, diffusers {diffusers.__version__}"}))
    if len(sys.argv) > 6:
        from PIL import Image

        pixels = (picture.float()[0].permute(1, 2, 0).clamp(-1, 1) / 2 + 0.5) * 255
        Image.fromarray(pixels.round().to(torch.uint8).numpy()).save(sys.argv[6])


main()
