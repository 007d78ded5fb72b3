"""Inputs and outputs of every network of the tiny models: one safetensors file a model, NCHW, f32 and i64."""

import pathlib

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from common import GOLDENS, noise, save_json, save_tensors

OUT = GOLDENS / "components"
PROMPTS = [
    "",
    "a photo of an astronaut riding a horse on mars",
    "  A Watercolour   PAINTING of a\tLighthouse,\nat sunset!  ",
    "it's the cat's toy, they'll say; we're done... (really?) [x] {y} <z> 50% off #1 & 2+2=4",
    "naïve café: Ångström, ΑΒΓ, Жёлтый дом, ÇA VA, ﬁne",
    "雪の山 \u3000と 富士山",
    "a cat 🐈\u200d⬛ and a flag 🏳️\u200d🌈 👩🏽\u200d🚀",
    "year 2024, 1234567890 pixels, 3.14159",
    "e\u0301 combining, I\u0307stanbul, İstanbul, ẞ straße",
    "literal <|endoftext|> inside <|startoftext|>text",
    "supercalifragilisticexpialidocious_under_scores-and-hyphens/slashes\\back",
    ", ".join(["portrait of a woman with silver hair, soft light, film grain"] * 12),
    "!!! !! !",
    "lone surrogates are not text; zero\u200bwidth, nbsp\u00a0here, thin\u2009space",
]


def tokens():
    cases = []
    for folder in ("tiny-sdxl", "tiny-lcm"):
        pair = [CLIPTokenizer.from_pretrained(GOLDENS / folder / n) for n in ("tokenizer", "tokenizer_2")]
        for prompt in PROMPTS:
            ids = [t(prompt, padding="max_length", max_length=77, truncation=True).input_ids for t in pair]
            full = pair[0](prompt).input_ids
            cases.append({"folder": folder, "prompt": prompt, "untruncated_length": len(full), "input_ids": ids[0],
                          "input_ids_2": ids[1]})
    half = len(cases) // 2
    for a, b in zip(cases[:half], cases[half:]):
        assert a["input_ids"] == b["input_ids"] and a["input_ids_2"] == b["input_ids_2"], a["prompt"]
    save_json(OUT / "tokens.json", cases)
    return [c["input_ids"] for c in cases[:half]], [c["input_ids_2"] for c in cases[:half]]


def text_encoders(ids_1, ids_2):
    for folder in ("tiny-sdxl", "tiny-lcm"):
        for name, cls, ids in (("text_encoder", CLIPTextModel, ids_1),
                               ("text_encoder_2", CLIPTextModelWithProjection, ids_2)):
            model = cls.from_pretrained(GOLDENS / folder / name).eval()
            ids = torch.tensor(ids)
            if folder == "tiny-lcm":  # the first eos counts here, wherever the largest id is
                ids = ids.clone()
                ids[0, 5] = model.config.eos_token_id
                ids[0, 3] = 17
            out = model(ids, output_hidden_states=True)
            pooled = out.text_embeds if name == "text_encoder_2" else out.pooler_output
            tensors = {"input_ids": ids, "penultimate": out.hidden_states[-2], "pooled": pooled,
                       "last_hidden_state": out.last_hidden_state}
            tensors = {k: v if k == "input_ids" else v[:6] for k, v in tensors.items()}
            tensors["input_ids"] = tensors["input_ids"][:6]
            tensors["hidden_states.0"] = out.hidden_states[0][:2]
            tensors["hidden_states.1"] = out.hidden_states[1][:2]
            save_tensors(OUT / f"{folder}.{name}.safetensors", tensors)


def unet_inputs(unet, seed, batch, height, width, length):
    c = unet.config
    inputs = {"sample": noise(seed, batch, c.in_channels, height, width),
              "encoder_hidden_states": noise(seed + 1, batch, length, c.cross_attention_dim)}
    if c.addition_embed_type == "text_time":
        pooled = c.projection_class_embeddings_input_dim - 6 * c.addition_time_embed_dim
        inputs["text_embeds"] = noise(seed + 2, batch, pooled)
        sizes = [[1024, 768, 0, 16, 512, 640], [64, 64, 0, 0, 64, 64], [512, 1024, 128, 64, 1024, 1024]]
        inputs["time_ids"] = torch.tensor((sizes * batch)[:batch], dtype=torch.float32)
    if c.time_cond_proj_dim:
        inputs["timestep_cond"] = noise(seed + 3, batch, c.time_cond_proj_dim)
    return inputs


UNET_SHAPES = [  # name, timestep per image, latent height and width, text length
    ("t999", [999.0], 8, 8, 77), ("t0", [0.0], 8, 8, 77), ("batch2", [749.0, 249.0], 8, 8, 77),
    ("wide", [499.0], 8, 12, 77), ("tall_short_text", [0.25, 980.5, 1.0], 12, 8, 5),
]


def unet(folder, file):
    model = UNet2DConditionModel.from_pretrained(GOLDENS / folder).eval()
    tensors = {}
    for i, (name, timestep, height, width, length) in enumerate(UNET_SHAPES):
        inputs = unet_inputs(model, 1000 + 10 * i, len(timestep), height, width, length)
        added = {k: inputs[k] for k in ("text_embeds", "time_ids") if k in inputs} or None
        t = torch.tensor(timestep)
        out = model(inputs["sample"], t, inputs["encoder_hidden_states"], timestep_cond=inputs.get("timestep_cond"),
                    added_cond_kwargs=added, return_dict=False)[0]
        tensors |= {f"{name}.{k}": v for k, v in inputs.items()}
        tensors |= {f"{name}.timestep": t, f"{name}.model_output": out}
    print(file, {n[0]: round(tensors[n[0] + ".model_output"].std().item(), 3) for n in UNET_SHAPES})
    save_tensors(OUT / f"{file}.safetensors", tensors)


def vae(folder, file):
    model = AutoencoderKL.from_pretrained(GOLDENS / folder).eval()
    tensors = {}
    factor = 2 ** (len(model.config.block_out_channels) - 1)
    for i, (name, batch, h, w) in enumerate([("square", 2, 4, 4), ("wide", 1, 3, 5)]):
        image = noise(2000 + i, batch, 3, h * factor, w * factor).mul(0.5).clamp(-1, 1)
        posterior = model.encode(image).latent_dist
        latents = noise(2010 + i, batch, 4, h, w)
        tensors |= {f"{name}.image": image, f"{name}.moments": posterior.parameters, f"{name}.mean": posterior.mean,
                    f"{name}.std": posterior.std, f"{name}.latents": latents,
                    f"{name}.decoded": model.decode(latents, return_dict=False)[0]}
        d = tensors[f"{name}.decoded"]
        print(file, name, d.std().item(), d.abs().max().item(), posterior.mean.std().item(), posterior.std.mean().item())
    save_tensors(OUT / f"{file}.safetensors", tensors)


def taesd():
    model = AutoencoderTiny.from_pretrained(GOLDENS / "taesd").eval()
    tensors = {}
    for i, (name, batch, h, w) in enumerate([("square", 2, 4, 4), ("wide", 1, 3, 5)]):
        image = noise(3000 + i, batch, 3, 8 * h, 8 * w).mul(0.5).clamp(-1, 1)
        latents = noise(3010 + i, batch, 4, h, w)
        latents.view(-1)[0] = 7.5  # the decoder's tanh(x / 3) * 3 clamp shows here
        tensors |= {f"{name}.image": image, f"{name}.encoded": model.encode(image, return_dict=False)[0],
                    f"{name}.latents": latents, f"{name}.decoded": model.decode(latents, return_dict=False)[0]}
        d = tensors[f"{name}.decoded"]
        print("taesd", name, d.std().item(), d.abs().max().item(), tensors[f"{name}.encoded"].std().item())
    save_tensors(OUT / "taesd.safetensors", tensors)


def main():
    text_encoders(*tokens())
    unet("tiny-sdxl/unet", "tiny-sdxl.unet")
    unet("tiny-lcm/unet", "tiny-lcm.unet")
    for folder in sorted((GOLDENS / "unets").iterdir()):
        unet(f"unets/{folder.name}", f"unets.{folder.name}")
    vae("tiny-sdxl/vae", "tiny-sdxl.vae")
    vae("vae-three-levels", "vae-three-levels")
    taesd()


if __name__ == "__main__":
    main()
