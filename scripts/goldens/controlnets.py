"""Tiny ControlNets for the models of families.py, and what diffusers paints with them.

As there no weights are stored: goldens/controlnets/<name>/ holds config.json and tensors.tsv (component, key, shape, center,
scale, and the key in a file of the original's names), and cases.json beside them the arguments of each picture, whose file
has the `control_0`, `control_1` that it reads.
"""

import shutil
import tempfile

import diffusers
import numpy as np
import torch
from diffusers import ControlNetModel, MultiControlNetModel
from PIL import Image

import families
from common import GOLDENS, noise, save_json, save_tensors
from families import EULER, FAMILIES, SD15, XL, fill, init_image, mask_picture, plain, scheduler
from pictures import NEGATIVE, PROMPT
from single_file import unet_key

OUT = GOLDENS / "controlnets"
EMBEDDING = dict(conditioning_embedding_out_channels=(16, 16, 32, 32))


def of_unet(config):
    """A ControlNet's config for a UNet's."""
    unused = ("up_block_types", "sample_size")
    return {k: v for k, v in config.items() if k not in unused} | EMBEDDING


NETWORKS = {
    "sdxl-canny": (of_unet(XL), ""), "sdxl-depth": (of_unet(XL), "2"),
    "sd15-pose": (of_unet(SD15), ""),
}
DEFAULTS = dict(prompt=PROMPT, negative_prompt=None, width=64, height=64, num_images_per_prompt=1, strength=None)
CASES = {
    "one": dict(family="sdxl", controls=["sdxl-canny"], num_inference_steps=4, seed=80, guidance_scale=4.0),
    "one-part": dict(family="sdxl", controls=["sdxl-canny"], num_inference_steps=5, seed=81, guidance_scale=4.0, scales=[0.7],
                     starts=[0.2], ends=[0.8], negative_prompt=NEGATIVE, num_images_per_prompt=2),
    "two": dict(family="sdxl", controls=["sdxl-canny", "sdxl-depth"], num_inference_steps=4, seed=82, guidance_scale=3.0,
                scales=[0.9, 0.5], starts=[0.0, 0.25], ends=[1.0, 1.0]),
    "sd15": dict(family="sd15", controls=["sd15-pose"], num_inference_steps=4, seed=83, guidance_scale=5.0, scales=[1.2]),
    "sd15-heun": dict(family="sd15", controls=["sd15-pose"], num_inference_steps=3, seed=84, guidance_scale=1.0, ends=[0.5],
                      scheduler=scheduler("HeunDiscreteScheduler")),
    "img2img": dict(family="sdxl", controls=["sdxl-canny"], num_inference_steps=5, seed=85, guidance_scale=4.0, strength=0.6),
    "inpaint": dict(family="sd15", controls=["sd15-pose"], num_inference_steps=5, seed=86, guidance_scale=4.0, strength=0.8,
                    mask={}),
}
CLASSES = {
    ("sdxl", "text"): diffusers.StableDiffusionXLControlNetPipeline,
    ("sdxl", "img2img"): diffusers.StableDiffusionXLControlNetImg2ImgPipeline,
    ("sd15", "text"): diffusers.StableDiffusionControlNetPipeline,
    ("sd15", "inpaint"): diffusers.StableDiffusionControlNetInpaintPipeline,
}


def original_key(key, all_keys):
    """The original's name of a ControlNet's tensor."""
    parts = key.split(".")
    if parts[0] == "controlnet_cond_embedding":
        blocks = 1 + max(int(k.split(".")[2]) for k in all_keys if k.startswith("controlnet_cond_embedding.blocks."))
        number = {"conv_in": 0, "conv_out": blocks + 1}.get(parts[1], int(parts[2]) + 1 if parts[1] == "blocks" else None)
        return f"control_model.input_hint_block.{2 * number}.{parts[-1]}"
    if parts[0] == "controlnet_down_blocks":
        return f"control_model.zero_convs.{parts[1]}.0.{parts[-1]}"
    if parts[0] == "controlnet_mid_block":
        return f"control_model.middle_block_out.0.{parts[-1]}"
    return "control_model." + unet_key(key, all_keys, 2)


def build(name):
    config, suffix = NETWORKS[name]
    network = ControlNetModel(**config)
    rows = fill(f"controlnet{suffix}", network)
    return network, [(f"controlnet{suffix}", *row) for row in rows]


def write_network(name):
    network, rows = build(name)
    keys = {row[1] for row in rows}
    with tempfile.TemporaryDirectory() as place:
        network.save_config(place)
        (OUT / name).mkdir(parents=True)
        shutil.copy(f"{place}/config.json", OUT / name / "config.json")
    lines = ["\t".join([component, key, "x".join(map(str, shape)), repr(center), repr(scale), original_key(key, keys)])
             for component, key, shape, center, scale in rows]
    (OUT / name / "tensors.tsv").write_text("\n".join(lines) + "\n")


def control_picture(seed, width, height):
    """Lines and patches, which reach both ends of a byte."""
    coarse = torch.nn.functional.interpolate(noise(seed, 1, 3, 9, 9), (height, width), mode="nearest")[0]
    return ((coarse > 0.3).float() * 255).byte().permute(1, 2, 0).contiguous()


def paint(pipe, case):
    case = {"scheduler": scheduler(EULER), **DEFAULTS, **case}
    count = len(case["controls"])
    task = "text" if case["strength"] is None else "inpaint" if "mask" in case else "img2img"
    networks = [build(name)[0] for name in case["controls"]]
    extra = {"add_watermarker": False} if case["family"] == "sdxl" else {"requires_safety_checker": False}
    parts = {**pipe.components, "controlnet": networks[0] if count == 1 else MultiControlNetModel(networks)}
    pipe = CLASSES[case["family"], task](**parts, **extra)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = type(case["scheduler"]).from_config(case["scheduler"].config)
    size = case["width"], case["height"]
    result = {f"control_{i}": control_picture(case["seed"] + 100 * (i + 1), *size) for i in range(count)}
    controls = [Image.fromarray(result[f"control_{i}"].numpy()) for i in range(count)]
    one = lambda values: values[0] if count == 1 else values
    args = {k: case[k] for k in ("prompt", "negative_prompt", "num_inference_steps", "guidance_scale", "num_images_per_prompt")}
    args |= {"controlnet_conditioning_scale": one(case.get("scales", [1.0] * count)),
             "control_guidance_start": one(case.get("starts", [0.0] * count)),
             "control_guidance_end": one(case.get("ends", [1.0] * count)), "width": size[0], "height": size[1]}
    if task == "text":
        args["image"] = one(controls)
    else:
        result["init_image"] = init_image(case["seed"], *size)
        args |= {"image": Image.fromarray(result["init_image"].numpy()), "control_image": one(controls), "strength": case["strength"]}
    if task == "inpaint":
        result["mask"] = mask_picture(*size)
        args["mask_image"] = Image.fromarray(result["mask"].numpy())
    trajectory = []

    def keep(pipe, evaluation, _timestep, tensors):
        if (evaluation + 1) % pipe.scheduler.order == 0 or evaluation + 1 == pipe.num_timesteps:
            trajectory.append(tensors["latents"].clone())
        return tensors

    generator = torch.Generator("cpu").manual_seed(case["seed"])
    images = pipe(**args, generator=generator, callback_on_step_end=keep, output_type="np").images
    result["trajectory"] = torch.stack(trajectory)
    result["pixels"] = torch.from_numpy((images * 255).round().astype(np.uint8))
    return case, result


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    for name in NETWORKS:
        write_network(name)
    rows, pipes = [], {}
    for name, case in CASES.items():
        family = case["family"]
        pipes.setdefault(family, families.build(FAMILIES[family])[0])
        full, result = paint(pipes[family], case)
        pixels = result["pixels"].float()
        print(f"{name:12} latents std {result['trajectory'][-1].std():8.2f} pixel std {pixels.std():6.1f}", flush=True)
        save_tensors(OUT / f"{name}.safetensors", result)
        chosen = full.pop("scheduler")
        full = {k: v for k, v in full.items() if v is not None}
        rows.append({"name": name, **full, "file": f"{name}.safetensors",
                     "scheduler_config": {"_class_name": type(chosen).__name__, **plain(chosen.config)}})
    save_json(OUT / "cases.json", rows)


if __name__ == "__main__":
    main()
