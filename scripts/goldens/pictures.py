"""Whole pictures of the tiny pipelines: prompt and seed to pixels, with every step's latents between.

Writes goldens/pictures/cases.json (arguments of each case, with the whole scheduler config) and one safetensors
file a case: `start` (latents before the first step), `trajectory` ([steps, B, 4, h, w], after each step),
`pixels` (u8 [B, H, W, 3]), and for image to image `init_image` (u8 [H, W, 3]). The seed is torch's CPU generator.
Given names, only those cases are written, and the others stay as they are.
"""

import json
import shutil
import sys

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderTiny, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from diffusers.schedulers import AysSchedules
from PIL import Image

from common import GOLDENS, noise, save_json, save_tensors
from folders import SDXL_SCHEDULER

OUT = GOLDENS / "pictures"
PROMPT = "a photo of an astronaut riding a horse on mars"
NEGATIVE = "blurry low quality picture, text, watermark"


def scheduler(name, **overrides):
    return getattr(diffusers, name).from_config({**SDXL_SCHEDULER, **overrides})


def euler(**overrides):
    return scheduler("EulerDiscreteScheduler", **overrides)


TURBO = dict(guidance_scale=0.0, scheduler=scheduler("EulerAncestralDiscreteScheduler", timestep_spacing="trailing"))
LIGHTNING = dict(guidance_scale=0.0, scheduler=euler(timestep_spacing="trailing"))
DPM, SINGLESTEP = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
UNIPC = "UniPCMultistepScheduler"
SDE = dict(algorithm_type="sde-dpmsolver++")
LCM = scheduler("LCMScheduler")
TWO = dict(prompt_2="a red apple on a table", negative_prompt=NEGATIVE, negative_prompt_2="a green pear")
LONG = ", ".join(["a photo of a red roof lighthouse at sunset, soft light, film grain",
                  "oil painting of a mountain village in winter, snow falling on the houses, shallow depth of field"] * 4)

CASES = {
    "turbo-1": dict(num_inference_steps=1, **TURBO),
    "turbo-2": dict(num_inference_steps=2, seed=1, **TURBO),
    "turbo-4": dict(num_inference_steps=4, seed=2**32 + 5, **TURBO),
    "turbo-4-wide": dict(num_inference_steps=4, seed=7, width=96, height=64, **TURBO),
    "turbo-2-two-images": dict(num_inference_steps=2, seed=3, num_images_per_prompt=2, **TURBO),
    "turbo-1-two-prompts": dict(num_inference_steps=1, seed=3, prompt=[PROMPT, "a cat in the garden"], **TURBO),
    "turbo-1-taesd": dict(num_inference_steps=1, vae="taesd", **TURBO),
    "lightning-4": dict(num_inference_steps=4, seed=11, **LIGHTNING),
    "lightning-1-x0": dict(num_inference_steps=1, seed=12, guidance_scale=0.0,
                           scheduler=euler(timestep_spacing="trailing", prediction_type="sample")),
    "lcm-1": dict(folder="tiny-lcm", num_inference_steps=1, seed=13, guidance_scale=8.0, scheduler=LCM),
    "lcm-4": dict(folder="tiny-lcm", num_inference_steps=4, seed=14, guidance_scale=8.0, scheduler=LCM),
    "lcm-lora-style-4": dict(num_inference_steps=4, seed=15, guidance_scale=1.0, scheduler=LCM),
    "lcm-cfg-4": dict(num_inference_steps=4, seed=16, guidance_scale=1.5, negative_prompt=NEGATIVE, scheduler=LCM),
    "dmd2-4": dict(timesteps=[999, 749, 499, 249], seed=17, guidance_scale=0.0, scheduler=LCM),
    "hyper-1": dict(timesteps=[800], seed=18, guidance_scale=0.0, scheduler=LCM),
    "euler-20": dict(num_inference_steps=20, seed=19, guidance_scale=7.0, negative_prompt=NEGATIVE,
                     scheduler=euler()),
    "euler-6-no-negative": dict(num_inference_steps=6, seed=20, guidance_scale=5.0, scheduler=euler()),
    "euler-6-empty-negative": dict(num_inference_steps=6, seed=20, guidance_scale=5.0, negative_prompt="",
                                   scheduler=euler()),
    "euler-6-rescale-crop-clip-skip": dict(num_inference_steps=6, seed=21, guidance_scale=6.0, guidance_rescale=0.7,
                                           negative_prompt=NEGATIVE, clip_skip=1, crops_coords_top_left=(8, 24),
                                           original_size=(512, 384), scheduler=euler()),
    "euler-karras-6": dict(num_inference_steps=6, seed=22, guidance_scale=3.0,
                           scheduler=euler(use_karras_sigmas=True)),
    "euler-v-6": dict(num_inference_steps=6, seed=23, guidance_scale=3.0,
                      scheduler=euler(prediction_type="v_prediction", timestep_spacing="trailing",
                                      rescale_betas_zero_snr=True)),
    "ddim-10": dict(num_inference_steps=10, seed=24, guidance_scale=4.0, negative_prompt=NEGATIVE,
                    scheduler=scheduler("DDIMScheduler")),
    "ddim-trailing-4": dict(num_inference_steps=4, seed=25, guidance_scale=0.0,
                            scheduler=scheduler("DDIMScheduler", timestep_spacing="trailing")),
    "dpmpp-2m-8": dict(num_inference_steps=8, seed=26, guidance_scale=4.0, scheduler=scheduler(DPM)),
    "dpmpp-2m-karras-8": dict(num_inference_steps=8, seed=27, guidance_scale=4.0,
                              scheduler=scheduler(DPM, use_karras_sigmas=True)),
    "dpmpp-2m-order-3-8": dict(num_inference_steps=8, seed=40, guidance_scale=4.0,
                               scheduler=scheduler(DPM, solver_order=3)),
    "dpmpp-2m-lu-8": dict(num_inference_steps=8, seed=41, guidance_scale=4.0,
                          scheduler=scheduler(DPM, use_lu_lambdas=True)),
    "dpmpp-2m-sde-8": dict(num_inference_steps=8, seed=42, guidance_scale=4.0, scheduler=scheduler(DPM, **SDE)),
    "dpmpp-2m-sde-karras-6": dict(num_inference_steps=6, seed=43, guidance_scale=2.0, num_images_per_prompt=2,
                                  scheduler=scheduler(DPM, use_karras_sigmas=True, **SDE)),
    "dpmpp-2s-8": dict(num_inference_steps=8, seed=44, guidance_scale=4.0, scheduler=scheduler(SINGLESTEP)),
    "dpmpp-sde-8": dict(num_inference_steps=8, seed=45, guidance_scale=4.0, scheduler=scheduler(SINGLESTEP, **SDE)),
    "unipc-8": dict(num_inference_steps=8, seed=46, guidance_scale=3.0, scheduler=scheduler(UNIPC)),
    "unipc-order-3-10": dict(num_inference_steps=10, seed=47, guidance_scale=3.0,
                             scheduler=scheduler(UNIPC, solver_order=3)),
    "heun-5": dict(num_inference_steps=5, seed=53, guidance_scale=3.0, scheduler=scheduler("HeunDiscreteScheduler")),
    "img2img-heun-5": dict(num_inference_steps=5, seed=54, strength=0.6, guidance_scale=3.0,
                           scheduler=scheduler("HeunDiscreteScheduler")),
    "euler-exponential-6": dict(num_inference_steps=6, seed=48, guidance_scale=3.0,
                                scheduler=euler(use_exponential_sigmas=True)),
    "euler-beta-6": dict(num_inference_steps=6, seed=49, guidance_scale=3.0, scheduler=euler(use_beta_sigmas=True)),
    "euler-ays-10": dict(timesteps=AysSchedules["StableDiffusionXLTimesteps"], timestep_spacing="ays", seed=50,
                         guidance_scale=3.0, scheduler=euler(timestep_spacing="trailing")),
    "tcd-4": dict(num_inference_steps=4, seed=28, guidance_scale=0.0, eta=0.3, scheduler=scheduler("TCDScheduler")),
    "img2img-turbo-4": dict(num_inference_steps=4, seed=29, strength=0.5, **TURBO),
    "img2img-turbo-1-full": dict(num_inference_steps=1, seed=30, strength=1.0, **TURBO),
    "img2img-lightning-wide": dict(num_inference_steps=4, seed=31, strength=0.75, width=96, height=64, **LIGHTNING),
    "img2img-lcm-4": dict(folder="tiny-lcm", num_inference_steps=4, seed=32, strength=0.5, guidance_scale=8.0,
                          scheduler=LCM),
    "img2img-ddim-10-cfg": dict(num_inference_steps=10, seed=33, strength=0.3, guidance_scale=5.0,
                                negative_prompt=NEGATIVE, scheduler=scheduler("DDIMScheduler")),
    "img2img-unipc-8": dict(num_inference_steps=8, seed=51, strength=0.6, guidance_scale=3.0,
                            scheduler=scheduler(UNIPC)),
    "img2img-dpmpp-sde-8": dict(num_inference_steps=8, seed=52, strength=0.6, guidance_scale=3.0,
                                scheduler=scheduler(SINGLESTEP, **SDE)),
    "controls-two-prompts": dict(num_inference_steps=4, seed=55, guidance_scale=5.0, scheduler=euler(), **TWO),
    "controls-second-prompt-only": dict(num_inference_steps=2, seed=56, prompt_2="a red apple", **LIGHTNING),
    "controls-sizes": dict(num_inference_steps=4, seed=57, guidance_scale=5.0, original_size=(640, 512),
                           crops_coords_top_left=(16, 0), target_size=(128, 96), scheduler=euler()),
    "controls-end": dict(num_inference_steps=10, seed=58, guidance_scale=4.0, denoising_end=0.6, scheduler=euler()),
    "controls-end-dpmpp": dict(num_inference_steps=7, seed=59, guidance_scale=4.0, denoising_end=0.8,
                               scheduler=scheduler(DPM)),
    "controls-start": dict(num_inference_steps=10, seed=60, strength=0.5, guidance_scale=4.0, denoising_start=0.6,
                           scheduler=euler()),
    "controls-start-end-dpmpp": dict(num_inference_steps=10, seed=61, strength=0.5, guidance_scale=4.0,
                                     denoising_start=0.3, denoising_end=0.8, scheduler=scheduler(DPM)),
    "plain-brackets": dict(num_inference_steps=2, seed=62, prompt="a photo of a cat (sitting) in the garden [old]",
                           **LIGHTNING),
    "plain-marks": dict(num_inference_steps=2, seed=63, prompt="a (cat:1.3) BREAK a [dog|bird] AND a pear",
                        prompt_syntax="plain", **LIGHTNING),
    "plain-long": dict(num_inference_steps=2, seed=64, prompt=LONG, prompt_syntax="plain", **LIGHTNING),
    "a1111-adjacent": dict(num_inference_steps=2, seed=65, prompt="(photo:1.2)(horse:1.3) on mars",
                           pieces=[("photo", 1.2), ("horse", 1.3), (" on mars", 1)], **LIGHTNING),
    "a1111-inside": dict(num_inference_steps=2, seed=66, prompt="photo(graph:1.3)y of ((a [dog]))",
                         prompt_syntax="a1111", pieces=[("photo", 1), ("graph", 1.3), ("y of ", 1), ("a ", 1.21),
                                                        ("dog", 1.1)], **LIGHTNING),
    "a1111-break": dict(num_inference_steps=2, seed=67, prompt="a cat in the garden BREAK a (dog:0.5) on the table",
                        pieces=[("a cat in the garden", 1), "BREAK", ("a ", 1), ("dog", 0.5), (" on the table", 1)],
                        **LIGHTNING),
    "a1111-long": dict(num_inference_steps=2, seed=68, prompt=LONG, pieces=[(LONG, 1)], **LIGHTNING),
    "img2img-turbo-two-images": dict(num_inference_steps=4, seed=34, strength=0.5, num_images_per_prompt=2, **TURBO),
}
# `timestep_spacing` is the name under which a port knows the timesteps given.
# `pieces` are what A1111's rules make of the prompt, texts with weights; the prompt is not read here then.
NOT_ARGUMENTS = ("folder", "vae", "seed", "scheduler", "strength", "timestep_spacing", "prompt_syntax", "pieces")
DEFAULTS = dict(folder="tiny-sdxl", prompt=PROMPT, negative_prompt=None, width=64, height=64, seed=0, strength=None,
                num_images_per_prompt=1, eta=0.0, vae=None)


def init_image(seed, width, height):
    """A smooth seeded picture."""
    coarse = noise(seed, 1, 3, 5, 5).mul(0.35).add(0.5)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)[0]
    return (smooth.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous()


def load(folder, vae, image_to_image):
    cls = StableDiffusionXLImg2ImgPipeline if image_to_image else StableDiffusionXLPipeline
    extra = {"vae": AutoencoderTiny.from_pretrained(GOLDENS / vae)} if vae else {}
    pipe = cls.from_pretrained(GOLDENS / folder, add_watermarker=False, **extra)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def chunked(pieces, tokenizer):
    """Chunks of 75 tokens with their weights, ended at a comma among the last 20 (A1111's `tokenize_line`)."""
    comma, chunks, chunk, last_comma = tokenizer.convert_tokens_to_ids(",</w>"), [], [], None
    for piece in pieces:
        if piece == "BREAK":
            chunks, chunk, last_comma = chunks + [chunk], [], None
            continue
        for token in tokenizer(piece[0], add_special_tokens=False, truncation=False).input_ids:
            if token == comma:
                last_comma = len(chunk)
            elif len(chunk) == 75 and last_comma is not None and 75 - last_comma <= 20:
                chunks, chunk, last_comma = chunks + [chunk[: last_comma + 1]], chunk[last_comma + 1:], None
            if len(chunk) == 75:
                chunks, chunk, last_comma = chunks + [chunk], [], None
            chunk.append((token, piece[1]))
    return chunks + [chunk] if chunk or not chunks else chunks


@torch.no_grad()
def embedded(pieces, pipe):
    """`prompt_embeds` and `pooled_prompt_embeds` by A1111's rules: weights on hidden states, each chunk's mean kept, chunks
    side by side, pooled of the first."""
    columns, pooled = [], None
    for tokenizer, encoder in [(pipe.tokenizer, pipe.text_encoder), (pipe.tokenizer_2, pipe.text_encoder_2)]:
        states = []
        for number, chunk in enumerate(chunked(pieces, tokenizer)):
            ids = [tokenizer.bos_token_id, *(token for token, _ in chunk), tokenizer.eos_token_id]
            padding = 77 - len(ids)
            weights = torch.tensor([1.0, *(float(weight) for _, weight in chunk), 1.0, *[1.0] * padding])
            output = encoder(torch.tensor([ids + [tokenizer.pad_token_id] * padding]), output_hidden_states=True)
            state = output.hidden_states[-2]
            weighted = state * weights[None, :, None]
            states.append(weighted * (state.mean() / weighted.mean()))
            pooled = output[0] if number == 0 else pooled
        columns.append(torch.cat(states, 1))
    return torch.cat(columns, 2), pooled


def paint(case, nudge=0.0):
    """Runs one case. `nudge` disturbs the first latents, to measure how much a rounding error grows."""
    case = {**DEFAULTS, **case}
    args = {k: v for k, v in case.items() if k not in NOT_ARGUMENTS}
    pipe = load(case["folder"], case["vae"], case["strength"] is not None)
    pipe.scheduler = type(case["scheduler"]).from_config(case["scheduler"].config)
    result = {}
    if "pieces" in case:
        del args["prompt"]
        args["prompt_embeds"], args["pooled_prompt_embeds"] = embedded(case["pieces"], pipe)
    if case["strength"] is not None:
        picture = init_image(case["seed"], case["width"], case["height"])
        result["init_image"] = picture
        args |= {"image": Image.fromarray(picture.numpy()), "strength": case["strength"]}
        del args["width"], args["height"]
    prepare, trajectory = pipe.prepare_latents, []

    def prepare_and_keep(*a, **k):
        latents = prepare(*a, **k)
        result["start"] = latents.clone()
        return latents + nudge * latents.abs().mean() * noise(99, *latents.shape)

    def keep(pipe, evaluation, _timestep, values):
        if (evaluation + 1) % pipe.scheduler.order == 0 or evaluation + 1 == pipe.num_timesteps:
            trajectory.append(values["latents"].clone())
        return values

    pipe.prepare_latents = prepare_and_keep
    generator = torch.Generator("cpu").manual_seed(case["seed"])
    images = pipe(**args, generator=generator, callback_on_step_end=keep, output_type="np").images
    result["trajectory"] = torch.stack(trajectory)
    result["pixels"] = torch.from_numpy((images * 255).round().astype(np.uint8))
    return case, result


def plain(config):
    keep = {k: list(v) if isinstance(v, tuple) else v for k, v in config.items() if not k.startswith("_")}
    return dict(sorted(keep.items()))


def main():
    wanted = sys.argv[1:]
    kept = {}
    if wanted:
        kept = {row["name"]: row for row in json.loads((OUT / "cases.json").read_text())}
    else:
        shutil.rmtree(OUT, ignore_errors=True)
    rows = []
    for name, case in CASES.items():
        if wanted and name not in wanted:
            rows.append(kept[name])
            continue
        full, result = paint(case)
        _, nudged = paint(case, 1e-5)
        last, other = result["trajectory"][-1], nudged["trajectory"][-1]
        growth = ((last - other).abs().max() / last.abs().max() / 1e-5).item()
        off = (result["pixels"].int() - nudged["pixels"].int()).abs()
        clipped = ((result["pixels"] == 0) | (result["pixels"] == 255)).float().mean().item()
        print(f"{name:32} growth {growth:8.2f} pixels off {off.max():3d} latents std {last.std():8.2f} "
              f"pixel std {result['pixels'].float().std():6.1f} clipped {clipped:.3f}", flush=True)
        save_tensors(OUT / f"{name}.safetensors", result)
        chosen = full.pop("scheduler")
        full = {k: v for k, v in full.items() if v is not None and k != "pieces"}
        rows.append({"name": name, "task": "image_to_image" if "strength" in full else "text_to_image", **full,
                     "scheduler_config": {"_class_name": type(chosen).__name__, **plain(chosen.config)},
                     "file": f"{name}.safetensors"})
    save_json(OUT / "cases.json", rows)


if __name__ == "__main__":
    main()
