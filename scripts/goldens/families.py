"""A tiny model of every family that people run, and what diffusers paints with it.

No weights are stored: each is a hash of its name and index, scaled as its row of `tensors.tsv` says, so that a test
makes the same model anew, as a diffusers folder and as a single file. Given names of families, only those are written.
goldens/families/<family>/ holds

    model_index.json, unet/config.json, ...   as diffusers saves them; tokenizers are those of tiny-sdxl
    tensors.tsv                               component, key, shape, center, scale, then key and view in a single file
                                              in LDM's layout (ComfyUI's too), and its key in the hub's where it differs
    <case>.safetensors                        as in goldens/pictures

and cases.json beside them the arguments of each picture. Where diffusers can read the single file, it must find the
folder's tensors in it. A case with a `mask` has `init_image` and `mask` in its file too; one with a `refiner` is handed over
to that family's model after the share `switch_at` of its steps.
"""

import json
import pathlib
import shutil
import sys
import tempfile

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, LatentConsistencyModelPipeline, StableDiffusionImg2ImgPipeline
from diffusers import StableDiffusionInpaintPipeline, StableDiffusionPipeline, StableDiffusionXLImg2ImgPipeline
from diffusers import StableDiffusionXLInpaintPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
import diffusers
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from common import GOLDENS, noise, save_json, save_tensors, values
from pictures import NEGATIVE, PROMPT, init_image, plain, scheduler
from single_file import BIG_G, CLIP_L, UNET, VAE, assemble, openclip_key, unet_key, vae_key, vae_view

OUT = GOLDENS / "families"
TOKENIZERS = GOLDENS / "tiny-sdxl"
VOCABULARY = 789
WIDTH = 64  # of a text encoder: one head, as wide as every real one's
# OpenCLIP's in Stable Diffusion 2: by this width alone are its UNets and text encoders told from those of version 1.
WIDTH_2 = 1024
REFINER_G = "conditioner.embedders.0.model."
CLIP_1, OPENCLIP_2 = "cond_stage_model.transformer.", "cond_stage_model.model."

CROSS_DOWN, CROSS_UP, PLAIN_DOWN, PLAIN_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D", "DownBlock2D", "UpBlock2D"
SD15 = dict(
    sample_size=64, block_out_channels=(32, 64, 64, 64), layers_per_block=2, attention_head_dim=8,
    cross_attention_dim=WIDTH, down_block_types=(CROSS_DOWN,) * 3 + (PLAIN_DOWN,),
    up_block_types=(PLAIN_UP,) + (CROSS_UP,) * 3,
)
SD21 = {**SD15, "sample_size": 96, "block_out_channels": (64, 64, 128, 128), "attention_head_dim": (1, 1, 2, 2),
        "use_linear_projection": True, "layers_per_block": 1, "cross_attention_dim": WIDTH_2}
TINY_SD = {**SD15, "block_out_channels": (32, 64, 64), "layers_per_block": 1, "mid_block_type": None,
           "down_block_types": (CROSS_DOWN,) * 3, "up_block_types": (CROSS_UP,) * 3}
SDXS = {**TINY_SD, "block_out_channels": (64, 64, 128), "attention_head_dim": (1, 1, 2), "use_linear_projection": True,
        "only_cross_attention": (True, False, False), "cross_attention_dim": WIDTH_2}
XL = dict(
    sample_size=128, block_out_channels=(64, 64, 128), layers_per_block=2, attention_head_dim=(1, 1, 2),
    cross_attention_dim=3 * WIDTH, down_block_types=(PLAIN_DOWN, CROSS_DOWN, CROSS_DOWN),
    up_block_types=(CROSS_UP, CROSS_UP, PLAIN_UP), use_linear_projection=True, addition_embed_type="text_time",
    addition_time_embed_dim=256, projection_class_embeddings_input_dim=6 * 256 + 2 * WIDTH,
    transformer_layers_per_block=(1, 1, 2),
)
# Depths as in segmind/SSD-1B, smaller: the way up is not the mirror of the way down.
SSD_1B = {**XL, "mid_block_type": "UNetMidBlock2D", "transformer_layers_per_block": (1, 2, 3),
          "reverse_transformer_layers_per_block": ((3, 3, 4), (2, 1, 1), 1)}
VEGA = {**XL, "mid_block_type": "UNetMidBlock2D", "transformer_layers_per_block": (1, 1, 2),
        "reverse_transformer_layers_per_block": ((2, 2, 2), (1, 1, 1), 1)}
KOALA = {**XL, "layers_per_block": 1, "mid_block_type": None, "transformer_layers_per_block": (1, (2,), (3,)),
         "reverse_transformer_layers_per_block": ((3, 3), (2, 2), 1)}
REFINER = {**XL, "block_out_channels": (64, 64, 128, 128), "layers_per_block": 1, "attention_head_dim": (1, 1, 2, 2),
           "cross_attention_dim": 2 * WIDTH, "down_block_types": (PLAIN_DOWN, CROSS_DOWN, CROSS_DOWN, PLAIN_DOWN),
           "up_block_types": (PLAIN_UP, CROSS_UP, CROSS_UP, PLAIN_UP), "transformer_layers_per_block": 2,
           "projection_class_embeddings_input_dim": 5 * 256 + 2 * WIDTH}
KL = dict(
    in_channels=3, out_channels=3, latent_channels=4, sample_size=512, layers_per_block=1,
    block_out_channels=(32, 32, 64, 64), down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4, scaling_factor=0.18215,
)
KL_XL = {**KL, "scaling_factor": 0.13025, "sample_size": 1024}
TINY_VAE = dict(
    encoder_block_out_channels=(16,) * 4, decoder_block_out_channels=(16,) * 4, num_encoder_blocks=(1, 1, 2, 1),
    num_decoder_blocks=(2, 1, 1, 1), scaling_factor=1.0,
)
# Latents of Playground 2.5 have a mean and a deviation, which its single file keeps as tensors.
EDM = {key: values(f"unread.{key}", [4], *center_scale) for key, center_scale in
       {"edm_mean": (-1.0, 2.0), "edm_std": (8.0, 2.0)}.items()}
KL_EDM = {**KL_XL, "scaling_factor": 0.5, "latents_mean": EDM["edm_mean"].tolist(), "latents_std": EDM["edm_std"].tolist()}
FAMILIES = {
    "sd15": dict(pipeline=StableDiffusionPipeline, unet=SD15, vae=KL, text="clip"),
    "sd21": dict(pipeline=StableDiffusionPipeline, unet=SD21, vae=KL, text="openclip", width=WIDTH_2),
    "lcm-dreamshaper": dict(pipeline=LatentConsistencyModelPipeline, unet={**SD15, "time_cond_proj_dim": 256}, vae=KL,
                            text="clip"),
    "tiny-sd": dict(pipeline=StableDiffusionPipeline, unet=TINY_SD, vae=KL, text="clip", hub=True),
    "sdxs": dict(pipeline=StableDiffusionPipeline, unet=SDXS, vae=TINY_VAE, text="openclip", hub=True, width=WIDTH_2),
    "sdxl": dict(pipeline=StableDiffusionXLPipeline, unet=XL, vae=KL_XL, text="both"),
    "ssd-1b": dict(pipeline=StableDiffusionXLPipeline, unet=SSD_1B, vae=KL_XL, text="both"),
    "vega": dict(pipeline=StableDiffusionXLPipeline, unet=VEGA, vae=KL_XL, text="both"),
    "koala": dict(pipeline=StableDiffusionXLPipeline, unet=KOALA, vae=KL_XL, text="both", hub=True),
    "playground": dict(pipeline=StableDiffusionXLPipeline, unet=XL, vae=KL_EDM, text="both",
                       extra=[("edm_mean", [4], -1.0, 2.0), ("edm_std", [4], 8.0, 2.0)]),
    "cosxl": dict(pipeline=StableDiffusionXLPipeline, unet=XL, vae=KL_XL, text="both",
                  extra=[("edm_vpred.sigma_max", [1], 120.0, 0.0), ("edm_vpred.sigma_min", [1], 0.002, 0.0)]),
    "sd15-inpaint": dict(pipeline=StableDiffusionInpaintPipeline, unet={**SD15, "in_channels": 9}, vae=KL, text="clip"),
    "sdxl-inpaint": dict(pipeline=StableDiffusionXLInpaintPipeline, unet={**XL, "in_channels": 9}, vae=KL_XL, text="both"),
    "sdxl-refiner": dict(pipeline=StableDiffusionXLImg2ImgPipeline, unet=REFINER, vae=KL_XL, text="second"),
}

PLAYGROUND = diffusers.EDMDPMSolverMultistepScheduler(
    sigma_min=0.002, sigma_max=80.0, sigma_data=0.5, sigma_schedule="karras", prediction_type="epsilon", rho=7.0,
    solver_order=2, algorithm_type="dpmsolver++", solver_type="midpoint", lower_order_final=True, final_sigmas_type="zero")
COSXL = diffusers.EDMEulerScheduler(sigma_min=0.002, sigma_max=120.0, sigma_data=1.0, sigma_schedule="exponential",
                                    prediction_type="v_prediction")
EULER, TRAILING = "EulerDiscreteScheduler", dict(timestep_spacing="trailing")
CASES = {
    "sd15-cfg": dict(family="sd15", num_inference_steps=4, seed=50, guidance_scale=7.5, scheduler=scheduler(EULER)),
    "sd15-clip-skip": dict(family="sd15", num_inference_steps=4, seed=51, guidance_scale=5.0, clip_skip=1,
                           negative_prompt=NEGATIVE, width=96, scheduler=scheduler("DDIMScheduler")),
    "sd15-img2img": dict(family="sd15", num_inference_steps=4, seed=52, guidance_scale=3.0, strength=0.5,
                         scheduler=scheduler(EULER)),
    "sd21-v": dict(family="sd21", num_inference_steps=4, seed=53, guidance_scale=7.5, negative_prompt=NEGATIVE,
                   scheduler=scheduler("DDIMScheduler", prediction_type="v_prediction")),
    "sd-turbo": dict(family="sd21", num_inference_steps=1, seed=54, guidance_scale=0.0, scheduler=scheduler(EULER, **TRAILING),
                     metadata={"modelspec.prediction_type": "epsilon"}),
    "lcm-dreamshaper": dict(family="lcm-dreamshaper", num_inference_steps=4, seed=55, guidance_scale=8.0,
                            scheduler=scheduler("LCMScheduler")),
    "tiny-sd": dict(family="tiny-sd", num_inference_steps=4, seed=56, guidance_scale=7.5,
                    scheduler=scheduler("DPMSolverMultistepScheduler")),
    "sdxs": dict(family="sdxs", num_inference_steps=1, seed=57, guidance_scale=0.0, scheduler=scheduler(EULER, **TRAILING)),
    "sdxl": dict(family="sdxl", num_inference_steps=4, seed=58, guidance_scale=5.0, scheduler=scheduler(EULER)),
    "ssd-1b": dict(family="ssd-1b", num_inference_steps=4, seed=59, guidance_scale=5.0, negative_prompt=NEGATIVE,
                   scheduler=scheduler(EULER)),
    "vega": dict(family="vega", num_inference_steps=4, seed=60, guidance_scale=5.0, scheduler=scheduler(EULER)),
    "koala": dict(family="koala", num_inference_steps=4, seed=61, guidance_scale=3.5, scheduler=scheduler(EULER)),
    "playground": dict(family="playground", num_inference_steps=5, seed=62, guidance_scale=3.0, scheduler=PLAYGROUND),
    "cosxl": dict(family="cosxl", num_inference_steps=5, seed=63, guidance_scale=4.0, scheduler=COSXL),
    "inpaint-9": dict(family="sd15-inpaint", num_inference_steps=4, seed=64, guidance_scale=5.0, strength=1.0, mask={},
                      scheduler=scheduler(EULER)),
    "inpaint-9-strength": dict(family="sd15-inpaint", num_inference_steps=6, seed=65, guidance_scale=3.0, strength=0.7,
                               mask={}, scheduler=scheduler("DPMSolverMultistepScheduler")),
    "inpaint-9-sdxl": dict(family="sdxl-inpaint", num_inference_steps=4, seed=66, guidance_scale=4.0, strength=0.8, mask={},
                           negative_prompt=NEGATIVE, scheduler=scheduler(EULER)),
    "inpaint-9-sdxl-crop": dict(family="sdxl-inpaint", num_inference_steps=3, seed=67, guidance_scale=4.0, strength=1.0,
                                mask=dict(padding=6), picture=(112, 96), scheduler=scheduler(EULER)),
    "inpaint": dict(family="sdxl", num_inference_steps=5, seed=68, guidance_scale=4.0, strength=0.8, mask={},
                    scheduler=scheduler(EULER)),
    "inpaint-whole": dict(family="sdxl", num_inference_steps=4, seed=69, guidance_scale=0.0, strength=1.0, mask={},
                          scheduler=scheduler("EulerAncestralDiscreteScheduler", **TRAILING)),
    "inpaint-crop": dict(family="sdxl", num_inference_steps=4, seed=70, guidance_scale=4.0, strength=0.75,
                         mask=dict(padding=8), picture=(120, 88), scheduler=scheduler(EULER)),
    "inpaint-lcm": dict(family="sdxl", num_inference_steps=4, seed=71, guidance_scale=1.0, strength=1.0, mask={},
                        num_images_per_prompt=2, scheduler=scheduler("LCMScheduler")),
    "inpaint-dpmpp": dict(family="sdxl", num_inference_steps=7, seed=72, guidance_scale=3.0, strength=0.6, mask={},
                          scheduler=scheduler("DPMSolverMultistepScheduler")),
    "inpaint-heun": dict(family="sdxl", num_inference_steps=4, seed=73, guidance_scale=3.0, strength=0.8, mask={},
                         scheduler=scheduler("HeunDiscreteScheduler")),
    "inpaint-start-end": dict(family="sdxl", num_inference_steps=10, seed=74, guidance_scale=3.0, strength=0.5, mask={},
                              denoising_start=0.3, denoising_end=0.9, scheduler=scheduler(EULER)),
    "inpaint-sd15": dict(family="sd15", num_inference_steps=5, seed=75, guidance_scale=4.0, strength=0.7, mask={},
                         scheduler=scheduler("DDIMScheduler")),
    "refiner-alone": dict(family="sdxl-refiner", num_inference_steps=5, seed=76, guidance_scale=4.0, strength=0.6,
                          negative_prompt=NEGATIVE, scheduler=scheduler(EULER)),
    "refined": dict(family="sdxl", refiner="sdxl-refiner", switch_at=0.6, num_inference_steps=6, seed=77, guidance_scale=4.0,
                    negative_prompt=NEGATIVE, scheduler=scheduler(EULER)),
    "refined-dpmpp": dict(family="sdxl", refiner="sdxl-refiner", switch_at=0.8, num_inference_steps=8, seed=78,
                          guidance_scale=3.0, scheduler=scheduler("DPMSolverMultistepScheduler")),
    "refined-ancestral": dict(family="sdxl", refiner="sdxl-refiner", switch_at=0.5, num_inference_steps=6, seed=79,
                              guidance_scale=3.0, scheduler=scheduler("EulerAncestralDiscreteScheduler")),
}
# What the cases say beside a pipeline's own arguments.
NOT_ARGUMENTS = ("family", "seed", "scheduler", "strength", "metadata", "mask", "picture", "refiner", "switch_at")
DEFAULTS = dict(prompt=PROMPT, negative_prompt=None, width=64, height=64, strength=None, num_images_per_prompt=1)

def center_and_scale(component, name, shape):
    """Uniform values with the deviations of common.randomise."""
    if component == "vae" and "decoder" in name and name.split(".")[-2] in ("conv_out", "13"):
        # Pictures that use the range of a u8 without clipping most of it.
        return (0.0, 0.07) if name.endswith("weight") else (0.5 if "layers" in name else 0.0, 0.1)
    if len(shape) == 1 and ("norm" in name or "ln_" in name):
        return (1.0, 0.35) if name.endswith("weight") else (0.0, 0.35)
    if len(shape) == 1:
        return 0.0, 0.17
    if "embeddings." in name or "embedding.weight" in name:
        return 0.0, 0.85
    return 0.0, float(f"{(3 / np.prod(shape[1:])) ** 0.5:.6f}")


def fill(component, module):
    """Gives every parameter its value; (name, shape, center, scale) of each."""
    rows = []
    for name, p in sorted(module.state_dict().items()):
        if name.endswith("position_ids"):
            continue
        # Files name a text encoder's tensors so; transformers 5 does not.
        is_short = component.startswith("text_encoder") and not name.startswith(("text_model.", "text_projection"))
        key = f"text_model.{name}" if is_short else name
        row = key, list(p.shape), *center_and_scale(component, key, p.shape)
        p.copy_(values(f"{component}.{key}", *row[1:]))
        rows.append(row)
    module.eval()
    return rows


def text_encoder(kind, width):
    shared = dict(vocab_size=VOCABULARY, hidden_size=width, intermediate_size=min(256, 2 * width), num_hidden_layers=2,
                  num_attention_heads=max(1, width // 64), projection_dim=width, eos_token_id=2, bos_token_id=0, pad_token_id=1)
    cls = CLIPTextModelWithProjection if kind == "openclip-xl" else CLIPTextModel
    return cls(CLIPTextConfig(hidden_act="quick_gelu" if kind == "clip" else "gelu", **shared))


# The text encoders of a model by name, and what they are.
KINDS = {"clip": {"text_encoder": "clip"}, "openclip": {"text_encoder": "openclip"},
         "both": {"text_encoder": "clip", "text_encoder_2": "openclip-xl"}, "second": {"text_encoder_2": "openclip-xl"}}


def is_xl(spec):
    return spec["text"] in ("both", "second")


def build(spec):
    """The pipeline, and the rows of tensors.tsv."""
    width = spec.get("width", WIDTH)
    kinds = KINDS[spec["text"]]
    parts = {"unet": UNet2DConditionModel(**spec["unet"]),
             "vae": (AutoencoderTiny if spec["vae"] is TINY_VAE else AutoencoderKL)(**spec["vae"])}
    for name, kind in kinds.items():
        parts[name] = text_encoder(kind, 2 * width if kind == "openclip-xl" else width)
    rows = [(component, *row) for component, module in parts.items() for row in fill(component, module)]
    for name, kind in kinds.items():
        place = TOKENIZERS / ("tokenizer" if kind == "clip" else "tokenizer_2")
        parts[name.replace("text_encoder", "tokenizer")] = CLIPTokenizer.from_pretrained(place)
    extra = {"add_watermarker": False} if is_xl(spec) else {
        "safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    if spec["text"] == "second":
        extra |= {"text_encoder": None, "tokenizer": None, "requires_aesthetics_score": True,
                  "force_zeros_for_empty_prompt": False}
    pipe = spec["pipeline"](**parts, scheduler=scheduler(EULER), **extra)
    pipe.set_progress_bar_config(disable=True)
    return pipe, rows


def taesd_key(key):
    """ComfyUI's name of a tensor of TAESD inside a checkpoint: its decoder begins with a clamp that diffusers leaves out."""
    side, _, index, rest = key.split(".", 3)
    return f"taesd_{side}.{int(index) + (side == 'decoder')}.{rest}"


def in_single_file(rows, spec):
    """Adds key and view in a single file, and the key in the hub's layout where that is another."""
    unet_keys = {key for component, key, *_ in rows if component == "unet"}
    layers = spec["unet"]["layers_per_block"]
    for component, key, shape, center, scale in rows:
        view, hub = "whole", ""
        if component == "unet":
            stored = UNET + unet_key(key, unet_keys, layers)
            other = UNET + unet_key(key, unet_keys, layers, hub=True)
            hub = other if spec.get("hub") and other != stored else ""
        elif component == "vae" and spec["vae"] is TINY_VAE:
            stored = VAE + taesd_key(key)
        elif component == "vae":
            stored, view = VAE + vae_key(key, 4), vae_view(key, shape)
        elif component == "text_encoder" and spec["text"] != "openclip":
            stored = (CLIP_L if spec["text"] == "both" else CLIP_1) + key
        else:
            stored, view = openclip_key(key)
            stored = {"both": BIG_G, "second": REFINER_G}.get(spec["text"], OPENCLIP_2) + stored
        yield component, key, shape, center, scale, stored, view, hub
    for key, shape, center, scale in spec.get("extra", []):
        yield "unread", key, shape, center, scale, key, "whole", ""
    if spec["text"] == "openclip":
        # The whole OpenCLIP of Stable Diffusion 2: the last layer and the projection are read by nobody.
        width = spec.get("width", WIDTH)
        last = f"{OPENCLIP_2}transformer.resblocks.2."
        for key, shape in (("ln_1.weight", [width]), ("attn.in_proj_bias", [3 * width]), ("mlp.c_fc.weight", [256, width])):
            yield "unread", last + key, shape, 0.0, 0.1, last + key, "whole", ""
        for key, shape in (("text_projection", [width, width]), ("logit_scale", [])):
            yield "unread", OPENCLIP_2 + key, shape, 0.0, 0.1, OPENCLIP_2 + key, "whole", ""


def write_folder(folder, pipe, table):
    """The configs as diffusers saves them, and the table."""
    with tempfile.TemporaryDirectory() as place:
        pipe.save_pretrained(place)
        for file in pathlib.Path(place).rglob("*.json"):
            target = folder / file.relative_to(place)
            if target.parent.name.startswith("tokenizer"):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    lines = ["\t".join([c, k, "x".join(map(str, shape)), repr(center), repr(scale), stored, view, hub])
             for c, k, shape, center, scale, stored, view, hub in table]
    (folder / "tensors.tsv").write_text("\n".join(lines) + "\n")


def check_single_file(pipe, table, spec, folder):
    """diffusers must read the same tensors from the single file."""
    if spec["vae"] is TINY_VAE:
        return print("  (diffusers reads no TAESD from a single file)")
    rows = [(values(f"{c}.{k}", shape, center, scale), stored, view) for c, k, shape, center, scale, stored, view, _ in table]
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        save_tensors(place / "one.safetensors", assemble(rows))
        shutil.copytree(folder, place / "config")
        for name in ("tokenizer", "tokenizer_2"):
            shutil.copytree(TOKENIZERS / name, place / "config" / name)
        single = spec["pipeline"].from_single_file(
            str(place / "one.safetensors"), config=str(place / "config"), local_files_only=True, torch_dtype=torch.float32,
            **({"add_watermarker": False} if is_xl(spec) else {"safety_checker": None}))
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if getattr(pipe, part, None) is None:
            continue
        a, b = getattr(pipe, part).state_dict(), getattr(single, part).state_dict()
        assert a.keys() == b.keys(), part
        for k in a.keys() - {"time_embedding.cond_proj.weight"}:  # which diffusers' converter drops
            assert torch.equal(a[k], b[k]), (part, k)
    print("  diffusers reads the single file")


def mask_picture(width, height):
    """White in an ellipse and along its edge of every brightness: binarising it matters."""
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    distance = (((x - 0.45) / 0.33) ** 2 + ((y - 0.55) / 0.3) ** 2).sqrt()
    return ((1.15 - distance).clamp(0, 0.3) / 0.3 * 255).round().byte()


def prepare(pipe, case, result):
    """The pipeline of a case's task, and its arguments; pictures that go in are kept in `result`."""
    args = {k: v for k, v in case.items() if k not in NOT_ARGUMENTS}
    is_sdxl = hasattr(pipe, "text_encoder_2")
    if case["strength"] is not None:
        size = case.get("picture", (case["width"], case["height"]))
        result["init_image"] = init_image(case["seed"], *size)
        args |= {"image": Image.fromarray(result["init_image"].numpy()), "strength": case["strength"]}
        if "mask" in case:
            result["mask"] = mask_picture(*size)
            args |= {"mask_image": Image.fromarray(result["mask"].numpy()), "padding_mask_crop": case["mask"].get("padding"),
                     "output_type": "pil"}
        else:
            del args["width"], args["height"]
        classes = {(False, False): StableDiffusionImg2ImgPipeline, (True, False): StableDiffusionXLImg2ImgPipeline,
                   (False, True): StableDiffusionInpaintPipeline, (True, True): StableDiffusionXLInpaintPipeline}
        extra = dict(add_watermarker=False, requires_aesthetics_score=pipe.config.get("requires_aesthetics_score", False),
                     force_zeros_for_empty_prompt=pipe.config.force_zeros_for_empty_prompt) if is_sdxl else {
            "requires_safety_checker": False}
        pipe = classes[is_sdxl, "mask" in case](**pipe.components, **extra)
        pipe.set_progress_bar_config(disable=True)
    if isinstance(pipe, LatentConsistencyModelPipeline):
        del args["negative_prompt"]
    if "refiner" in case:
        args |= {"denoising_end": case["switch_at"], "output_type": "latent"}
    return pipe, args


def paint(pipe, case, nudge=0.0, refiner=None):
    case = {**DEFAULTS, **case}
    result, trajectory = {}, []
    pipe, args = prepare(pipe, case, result)
    own = type(pipe).prepare_latents

    def prepare_and_nudge(*a, **k):
        latents = own(pipe, *a, **k)
        first = latents[0] if isinstance(latents, tuple) else latents
        nudged = first + nudge * first.abs().mean() * noise(99, *first.shape)
        return (nudged, *latents[1:]) if isinstance(latents, tuple) else nudged

    def keep(pipe, evaluation, _timestep, tensors):
        if (evaluation + 1) % pipe.scheduler.order == 0 or evaluation + 1 == pipe.num_timesteps:
            trajectory.append(tensors["latents"].clone())
        return tensors

    if "clip_skip" in case:
        # Where diffusers 0.42.1 looks for the final norm; in transformers 5 the model is its own `text_model`.
        pipe.text_encoder.__dict__["text_model"] = pipe.text_encoder
    pipe.prepare_latents = prepare_and_nudge
    run = dict(generator=torch.Generator("cpu").manual_seed(case["seed"]), callback_on_step_end=keep)
    for part in (pipe, refiner) if refiner else (pipe,):
        part.scheduler = type(case["scheduler"]).from_config(case["scheduler"].config)
    images = pipe(**{"output_type": "np", **args}, **run).images
    if refiner:
        rest = {k: v for k, v in args.items() if k not in ("denoising_end", "output_type", "width", "height")}
        images = refiner(**rest, image=images, denoising_start=case["switch_at"], output_type="np", **run).images
    if isinstance(images, list):  # of pictures that were put back into others
        images = np.stack([np.asarray(image) for image in images]).astype(np.float32) / 255
    result["trajectory"] = torch.stack(trajectory)
    result["pixels"] = torch.from_numpy((images * 255).round().astype(np.uint8))
    return case, result


def write_case(name, case, pipe, spec):
    """A case's file and its row of cases.json."""
    folder, refiner = OUT / case["family"], build(FAMILIES[case["refiner"]])[0] if "refiner" in case else None
    full, result = paint(pipe, case, refiner=refiner)
    _, nudged = paint(pipe, case, 1e-5, refiner=refiner)
    last, other = result["trajectory"][-1], nudged["trajectory"][-1]
    growth = ((last - other).abs().max() / last.abs().max() / 1e-5).item()
    pixels = result["pixels"].float()
    clipped = ((pixels == 0) | (pixels == 255)).float().mean().item()
    print(f"  {name:20} growth {growth:8.2f} latents std {last.std():8.2f} pixel std {pixels.std():6.1f} "
          f"clipped {clipped:.3f}", flush=True)
    save_tensors(folder / f"{name}.safetensors", result)
    chosen = full.pop("scheduler")
    full = {k: v for k, v in full.items() if v is not None}
    return {"name": name, **full, "file": f"{case['family']}/{name}.safetensors",
            "layouts": ["folder", "single_file"] + (["hub"] if spec.get("hub") else []),
            "scheduler_config": {"_class_name": type(chosen).__name__, **plain(chosen.config)}}


def main():
    wanted, kept = sys.argv[1:], {}
    if wanted:
        kept = {row["name"]: row for row in json.loads((OUT / "cases.json").read_text())}
    else:
        shutil.rmtree(OUT, ignore_errors=True)
    rows = []
    for family, spec in FAMILIES.items():
        cases = {name: case for name, case in CASES.items() if case["family"] == family}
        if wanted and family not in wanted:
            rows.extend(kept[name] for name in cases)
            continue
        shutil.rmtree(OUT / family, ignore_errors=True)
        pipe, tensors = build(spec)
        table = list(in_single_file(tensors, spec))
        write_folder(OUT / family, pipe, table)
        print(family, sum(int(np.prod(row[2])) for row in tensors), "parameters", flush=True)
        check_single_file(pipe, table, spec, OUT / family)
        rows.extend(write_case(name, case, pipe, spec) for name, case in cases.items())
    save_json(OUT / "cases.json", rows)


if __name__ == "__main__":
    main()
