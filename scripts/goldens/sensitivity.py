"""Checks the fixtures themselves: does every parameter of the tiny models visibly move its model's output?

Sets one parameter after the other to its neutral value and prints those that move the output by less than LEAST.
Only key biases may be listed (they cancel in a softmax). Takes two minutes.
"""

import json
import sys

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from common import GOLDENS, noise
from components import unet_inputs

LEAST = 4e-3


def weak(model, run):
    """Names of the parameters whose loss changes `run()` by less than LEAST, relative to its largest value."""
    base, names = run(), []
    for name, p in model.named_parameters():
        kept = p.data.clone()
        p.data.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        if (run() - base).abs().max() < LEAST * base.abs().max():
            names.append(name)
        p.data.copy_(kept)
    return names


def joined(*tensors):
    return torch.cat([t.flatten() for t in tensors])


def models():
    for folder in ["tiny-sdxl/unet", "tiny-lcm/unet", *sorted(f"unets/{d.name}" for d in (GOLDENS / "unets").iterdir())]:
        unet = UNet2DConditionModel.from_pretrained(GOLDENS / folder).eval()
        i = unet_inputs(unet, 1020, 2, 8, 8, 77)
        added = {k: i[k] for k in ("text_embeds", "time_ids") if k in i} or None
        yield folder, unet, lambda: unet(
            i["sample"], torch.tensor([749.0, 249.0]), i["encoder_hidden_states"],
            timestep_cond=i.get("timestep_cond"), added_cond_kwargs=added, return_dict=False)[0]
    latents, image = noise(1, 1, 4, 4, 4), noise(2, 1, 3, 32, 32)
    for folder in ("tiny-sdxl/vae", "vae-three-levels"):
        vae = AutoencoderKL.from_pretrained(GOLDENS / folder).eval()
        yield folder, vae, lambda: joined(vae.decode(latents, return_dict=False)[0],
                                          vae.encode(image).latent_dist.parameters)
    taesd = AutoencoderTiny.from_pretrained(GOLDENS / "taesd").eval()
    yield "taesd", taesd, lambda: joined(taesd.decode(latents, return_dict=False)[0],
                                         taesd.encode(image, return_dict=False)[0])
    ids = torch.tensor([c["input_ids"] for c in json.loads((GOLDENS / "components/tokens.json").read_text())[:6]])
    for name, cls in (("text_encoder", CLIPTextModel), ("text_encoder_2", CLIPTextModelWithProjection)):
        text = cls.from_pretrained(GOLDENS / "tiny-sdxl" / name).eval()

        def run():
            out = text(ids, output_hidden_states=True)
            return joined(out.hidden_states[-2], out[0])

        yield f"tiny-sdxl/{name}", text, run


def main():
    bad = False
    for name, model, run in models():
        names = weak(model, run)
        print(f"{name}: {', '.join(names) or 'every parameter matters'}", flush=True)
        bad |= any(not n.endswith(("k_proj.bias", "to_k.bias")) for n in names)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
