"""A tiny model of every family that people run, and what diffusers paints with it.

No weights are stored: each is a hash of its name and index, scaled as its row of `tensors.tsv` says, so that a test
makes the same model anew, as a diffusers folder and as a single file. goldens/families/<family>/ holds

    model_index.json, unet/config.json, ...   as diffusers saves them; tokenizers are those of tiny-sdxl
    tensors.tsv                               component, key, shape, center, scale, then key and view in a single file
                                              in LDM's layout (ComfyUI's too), and its key in the hub's where it differs
    <case>.safetensors                        as in goldens/pictures

and cases.json beside them the arguments of each picture. Where diffusers can read the single file, it must find the
folder's tensors in it.
"""

import json
import pathlib
import shutil
import tempfile

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, LatentConsistencyModelPipeline, StableDiffusionImg2ImgPipeline
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from common import GOLDENS, noise, save_json, save_tensors, values
from pictures import NEGATIVE, PROMPT, init_image, plain, scheduler
from single_file import BIG_G, CLIP_L, UNET, VAE, assemble, openclip_key, unet_key, vae_key, vae_view

OUT = GOLDENS / "families"
TOKENIZERS = GOLDENS / "tiny-sdxl"
VOCABULARY = 789
WIDTH = 64  # of a text encoder: one head, as wide as every real one's
CLIP_1, OPENCLIP_2 = "cond_stage_model.transformer.", "cond_stage_model.model."

CROSS_DOWN, CROSS_UP, PLAIN_DOWN, PLAIN_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D", "DownBlock2D", "UpBlock2D"
SD15 = dict(
    sample_size=64, block_out_channels=(32, 64, 64, 64), layers_per_block=2, attention_head_dim=8,
    cross_attention_dim=WIDTH, down_block_types=(CROSS_DOWN,) * 3 + (PLAIN_DOWN,),
    up_block_types=(PLAIN_UP,) + (CROSS_UP,) * 3,
)
SD21 = {**SD15, "sample_size": 96, "block_out_channels": (64, 64, 128, 128), "attention_head_dim": (1, 1, 2, 2),
        "use_linear_projection": True, "layers_per_block": 1}
TINY_SD = {**SD15, "block_out_channels": (32, 64, 64), "layers_per_block": 1, "mid_block_type": None,
           "down_block_types": (CROSS_DOWN,) * 3, "up_block_types": (CROSS_UP,) * 3}
SDXS = {**TINY_SD, "block_out_channels": (64, 64, 128), "attention_head_dim": (1, 1, 2), "use_linear_projection": True,
        "only_cross_attention": (True, False, False), "cross_attention_dim": 192}
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
FAMILIES = {
    "sd15": dict(pipeline=StableDiffusionPipeline, unet=SD15, vae=KL, text="clip"),
    "sd21": dict(pipeline=StableDiffusionPipeline, unet=SD21, vae=KL, text="openclip"),
    "lcm-dreamshaper": dict(pipeline=LatentConsistencyModelPipeline, unet={**SD15, "time_cond_proj_dim": 256}, vae=KL,
                            text="clip"),
    "tiny-sd": dict(pipeline=StableDiffusionPipeline, unet=TINY_SD, vae=KL, text="clip", hub=True),
    "sdxs": dict(pipeline=StableDiffusionPipeline, unet=SDXS, vae=TINY_VAE, text="openclip", hub=True, width=192),
    "sdxl": dict(pipeline=StableDiffusionXLPipeline, unet=XL, vae=KL_XL, text="both"),
    "ssd-1b": dict(pipeline=StableDiffusionXLPipeline, unet=SSD_1B, vae=KL_XL, text="both"),
    "vega": dict(pipeline=StableDiffusionXLPipeline, unet=VEGA, vae=KL_XL, text="both"),
    "koala": dict(pipeline=StableDiffusionXLPipeline, unet=KOALA, vae=KL_XL, text="both", hub=True),
}

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
}
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
        key = name if component in ("unet", "vae") or name.startswith(("text_model.", "text_projection")) else f"text_model.{name}"
        row = key, list(p.shape), *center_and_scale(component, key, p.shape)
        p.copy_(values(f"{component}.{key}", *row[1:]))
        rows.append(row)
    module.eval()
    return rows


def text_encoder(kind, width):
    shared = dict(vocab_size=VOCABULARY, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
                  num_attention_heads=max(1, width // 64), projection_dim=width, eos_token_id=2, bos_token_id=0, pad_token_id=1)
    cls = CLIPTextModelWithProjection if kind == "openclip-xl" else CLIPTextModel
    return cls(CLIPTextConfig(hidden_act="quick_gelu" if kind == "clip" else "gelu", **shared))


def build(spec):
    """The pipeline, and the rows of tensors.tsv."""
    width = spec.get("width", WIDTH)
    kinds = {"clip": ["clip"], "openclip": ["openclip"], "both": ["clip", "openclip-xl"]}[spec["text"]]
    parts = {"unet": UNet2DConditionModel(**spec["unet"]),
             "vae": (AutoencoderTiny if spec["vae"] is TINY_VAE else AutoencoderKL)(**spec["vae"])}
    for name, kind in zip(("text_encoder", "text_encoder_2"), kinds):
        parts[name] = text_encoder(kind, 2 * width if kind == "openclip-xl" else width)
    rows = [(component, *row) for component, module in parts.items() for row in fill(component, module)]
    for name, kind in zip(("tokenizer", "tokenizer_2"), kinds):
        parts[name] = CLIPTokenizer.from_pretrained(TOKENIZERS / ("tokenizer" if kind == "clip" else "tokenizer_2"))
    extra = {"add_watermarker": False} if spec["text"] == "both" else {
        "safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
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
            stored = (BIG_G if spec["text"] == "both" else OPENCLIP_2) + stored
        yield component, key, shape, center, scale, stored, view, hub
    if spec["text"] == "openclip":
        # The whole OpenCLIP of Stable Diffusion 2: the last layer and the projection are read by nobody.
        width = spec.get("width", WIDTH)
        last = f"{OPENCLIP_2}transformer.resblocks.2."
        for key, shape in (("ln_1.weight", [width]), ("attn.in_proj_weight", [3 * width, width]),
                           ("attn.in_proj_bias", [3 * width]), ("mlp.c_fc.weight", [2 * width, width])):
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
            **({"add_watermarker": False} if spec["text"] == "both" else {"safety_checker": None}))
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if getattr(pipe, part, None) is None:
            continue
        a, b = getattr(pipe, part).state_dict(), getattr(single, part).state_dict()
        assert a.keys() == b.keys(), part
        for k in a.keys() - {"time_embedding.cond_proj.weight"}:  # which diffusers' converter drops
            assert torch.equal(a[k], b[k]), (part, k)
    print("  diffusers reads the single file")


def paint(pipe, case, nudge=0.0):
    case = {**DEFAULTS, **case}
    args = {k: v for k, v in case.items() if k not in ("family", "seed", "scheduler", "strength", "metadata")}
    result, trajectory = {}, []
    if case["strength"] is not None:
        pipe = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
        pipe.set_progress_bar_config(disable=True)
        picture = init_image(case["seed"], case["width"], case["height"])
        result["init_image"] = picture
        args |= {"image": Image.fromarray(picture.numpy()), "strength": case["strength"]}
        del args["width"], args["height"]
    if isinstance(pipe, LatentConsistencyModelPipeline):
        del args["negative_prompt"]
    pipe.scheduler = type(case["scheduler"]).from_config(case["scheduler"].config)
    prepare = type(pipe).prepare_latents

    def prepare_and_nudge(*a, **k):
        latents = prepare(pipe, *a, **k)
        return latents + nudge * latents.abs().mean() * noise(99, *latents.shape)

    def keep(_pipe, _step, _timestep, tensors):
        trajectory.append(tensors["latents"].clone())
        return tensors

    if "clip_skip" in case:
        # Where diffusers 0.42.1 looks for the final norm; in transformers 5 the model is its own `text_model`.
        pipe.text_encoder.__dict__["text_model"] = pipe.text_encoder
    pipe.prepare_latents = prepare_and_nudge
    generator = torch.Generator("cpu").manual_seed(case["seed"])
    images = pipe(**args, generator=generator, callback_on_step_end=keep, output_type="np").images
    result["trajectory"] = torch.stack(trajectory)
    result["pixels"] = torch.from_numpy((images * 255).round().astype(np.uint8))
    return case, result


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    rows = []
    for family, spec in FAMILIES.items():
        folder = OUT / family
        pipe, tensors = build(spec)
        table = list(in_single_file(tensors, spec))
        write_folder(folder, pipe, table)
        print(family, sum(int(np.prod(row[2])) for row in tensors), "parameters", flush=True)
        check_single_file(pipe, table, spec, folder)
        for name, case in ((n, c) for n, c in CASES.items() if c["family"] == family):
            full, result = paint(pipe, case)
            _, nudged = paint(pipe, case, 1e-5)
            last, other = result["trajectory"][-1], nudged["trajectory"][-1]
            growth = ((last - other).abs().max() / last.abs().max() / 1e-5).item()
            pixels = result["pixels"].float()
            clipped = ((pixels == 0) | (pixels == 255)).float().mean().item()
            print(f"  {name:20} growth {growth:8.2f} latents std {last.std():8.2f} pixel std {pixels.std():6.1f} "
                  f"clipped {clipped:.3f}", flush=True)
            save_tensors(folder / f"{name}.safetensors", result)
            chosen = full.pop("scheduler")
            full = {k: v for k, v in full.items() if v is not None}
            rows.append({"name": name, **full, "file": f"{family}/{name}.safetensors",
                         "layouts": ["folder", "single_file"] + (["hub"] if spec.get("hub") else []),
                         "scheduler_config": {"_class_name": type(chosen).__name__, **plain(chosen.config)}})
    save_json(OUT / "cases.json", rows)


if __name__ == "__main__":
    main()
