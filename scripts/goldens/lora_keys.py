"""The keys under which peft and kohya's converter in diffusers write a LoRA of tiny-sdxl, with their shapes: what a trained LoRA
has to be called so that diffusers, and whoever reads kohya's files, finds every layer.

    goldens/training/lora-keys.json    {"peft": {key: "2x32"}, "kohya": {key: "2x32"}}

Needs `peft` beside requirements.txt. With a file as argument it loads that into tiny-sdxl with diffusers and says how far the picture moves: the other way round.
"""

import pathlib
import sys

import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.utils import convert_state_dict_to_kohya
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file

from common import GOLDENS, save_json

RANK, ALPHA = 2, 3
UNET = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut",
        "time_emb_proj", "conv"]
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


def pipeline():
    return StableDiffusionXLPipeline.from_pretrained(GOLDENS / "tiny-sdxl")


def keys():
    pipe, peft = pipeline(), {}
    for name, targets in (("unet", UNET), ("text_encoder", TEXT), ("text_encoder_2", TEXT)):
        network = getattr(pipe, name)
        network.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets))
        for key, value in get_peft_model_state_dict(network).items():
            # transformers 5 has no `text_model.` in its modules, files have it.
            key = key if name == "unet" or key.startswith("text_model.") else f"text_model.{key}"
            peft[f"{name}.{key}"] = value
    kohya = {}
    for key, value in convert_state_dict_to_kohya(dict(peft)).items():
        for long, short in (("unet.", "lora_unet."), ("text_encoder_2.", "lora_te2."), ("text_encoder.", "lora_te1.")):
            key = short + key.removeprefix(long) if key.startswith(long) else key
        kohya[key] = value
    shapes = lambda tensors: {key: "x".join(map(str, tensors[key].shape)) for key in sorted(tensors)}
    return {"peft": shapes(peft), "kohya": shapes(kohya)}


def check(path):
    pipe = pipeline()
    paint = lambda: torch.from_numpy(pipe("a zog", num_inference_steps=2, guidance_scale=0.0, output_type="np", width=64, height=64,
                                          generator=torch.Generator().manual_seed(0)).images)
    plain = paint()
    pipe.load_lora_weights(path)
    layers = sum("lora_A" in name for network in (pipe.unet, pipe.text_encoder, pipe.text_encoder_2)
                 for name, _ in network.named_parameters())
    wanted = sum(key.endswith(("lora_A.weight", "lora_down.weight")) for key in load_file(path))
    print(f"{path}: {layers} of {wanted} layers, the picture moves by {(paint() - plain).abs().max():.3f}")
    sys.exit(layers != wanted)


if __name__ == "__main__":
    if sys.argv[1:]:
        check(pathlib.Path(sys.argv[1]))
    save_json(GOLDENS / "training/lora-keys.json", keys())
