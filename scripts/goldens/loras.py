"""LoRAs and their relatives on tiny-sdxl, and LoRAs on goldens/families' models: a file of each kind, and what diffusers paints
with it.

Writes goldens/loras/: NAME.safetensors, the file as its writers spell it, cases.json and NAME.picture.safetensors as
pictures.py writes them. What diffusers reads (kohya's and diffusers' own LoRAs, DoRA) goes through its loader and peft; the
others are merged into the pipeline's weights by LyCORIS' own modules. Needs `peft`, `accelerate`, `psutil`, `lycoris-lora`
and `einops` beside requirements.txt.
"""

import json
import shutil

import torch
from lycoris.modules import get_module, make_module

import families
import pictures
from common import GOLDENS, noise, save_json, save_tensors
from pictures import euler

OUT = GOLDENS / "loras"
RANK = 4
# Diffusers' names of layers of every kind.
ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0"
LINEAR = [f"{ATTENTION}.attn1.to_q", f"{ATTENTION}.attn2.to_k", f"{ATTENTION}.attn2.to_v", f"{ATTENTION}.attn1.to_out.0",
          f"{ATTENTION}.ff.net.0.proj", "mid_block.attentions.0.proj_in",
          "up_blocks.0.attentions.1.transformer_blocks.1.ff.net.2", "time_embedding.linear_1",
          "down_blocks.1.resnets.0.time_emb_proj"]
CONV = ["conv_in", "down_blocks.1.resnets.1.conv1", "down_blocks.1.resnets.0.conv_shortcut", "down_blocks.0.downsamplers.0.conv",
        "up_blocks.0.upsamplers.0.conv", "up_blocks.2.resnets.0.conv2", "conv_out"]
# The same layers in the original's numbers.
ORIGINAL = {f"{ATTENTION}.attn1.to_q": "input_blocks_4_1_transformer_blocks_0_attn1_to_q",
            f"{ATTENTION}.attn2.to_v": "input_blocks_4_1_transformer_blocks_0_attn2_to_v",
            "mid_block.attentions.0.proj_in": "middle_block_1_proj_in",
            "up_blocks.0.attentions.1.transformer_blocks.1.ff.net.2": "output_blocks_1_1_transformer_blocks_1_ff_net_2"}
TEXT = ["text_model.encoder.layers.0.self_attn.q_proj", "text_model.encoder.layers.1.self_attn.out_proj",
        "text_model.encoder.layers.0.mlp.fc1"]
# Layers of Stable Diffusion 1 and 2, whose `proj_in` is a convolution in version 1.
SD = [name for name in LINEAR if not name.startswith("up_blocks")] + [
    "up_blocks.1.attentions.1.transformer_blocks.0.ff.net.2", "conv_in", "down_blocks.1.resnets.0.conv1",
    "up_blocks.1.resnets.0.conv_shortcut", "down_blocks.0.downsamplers.0.conv"]


def module(network, name):
    for part in [name, name.removeprefix("text_model.")]:
        try:
            return network.get_submodule(part)
        except AttributeError:
            pass
    raise AttributeError(name)


class Draw:
    """Values that matter: a product of two is about half as large as the weight that it changes."""

    def __init__(self, seed):
        self.seed = seed

    def __call__(self, *shape, gain=1.0):
        self.seed += 1
        return (gain * noise(self.seed, *shape)).half()

    def pair(self, weight, rank=RANK, gain=0.5):
        flat = weight[0].numel()
        down = self(rank, *weight.shape[1:], gain=flat ** -0.5)
        up = self(weight.shape[0], rank, *[1] * (weight.ndim - 2), gain=gain * rank ** -0.5)
        return down, up


def targets(pipe, unet, text=()):
    yield from (("unet", "lora_unet", pipe.unet, name) for name in unet)
    is_xl = hasattr(pipe, "text_encoder_2")
    for part, prefix in [("text_encoder", "lora_te1"), ("text_encoder_2", "lora_te2")] if is_xl else [("text_encoder", "lora_te")]:
        yield from ((part, prefix, getattr(pipe, part), name) for name in text)


def kohya(pipe, draw, unet=LINEAR, text=TEXT, alpha=2.0, dora=False, names=None):
    file = {}
    for _, prefix, network, name in targets(pipe, unet, text):
        weight = module(network, name).weight
        key = f"{prefix}_{(names or {}).get(name, name).replace('.', '_')}"
        file[f"{key}.lora_down.weight"], file[f"{key}.lora_up.weight"] = draw.pair(weight)
        file[f"{key}.alpha"] = torch.tensor(alpha)
        if dora:
            length = weight.flatten(1).norm(dim=1)
            file[f"{key}.dora_scale"] = (length * (1 + 0.3 * draw(len(length)).float())).reshape(-1, *[1] * (weight.ndim - 1))
    return file, {}


def peft(pipe, draw, unet=LINEAR):
    file = {}
    for part, _, network, name in targets(pipe, unet, TEXT):
        file[f"{part}.{name}.lora_A.weight"], file[f"{part}.{name}.lora_B.weight"] = draw.pair(module(network, name).weight)
    settings = {}
    for part in {part: None for part, *_ in targets(pipe, unet, TEXT)}:
        names = unet if part == "unet" else [name.removeprefix("text_model.") for name in TEXT]
        settings |= {f"{part}.r": RANK, f"{part}.lora_alpha": 2 if part == "unet" else 6, f"{part}.target_modules": names}
    return file, {"lora_adapter_metadata": json.dumps(settings)}


def dora(pipe, draw):
    """peft's keys: of kohya's, diffusers leaves the magnitudes out."""
    file, _ = peft(pipe, draw)
    file = {key: value for key, value in file.items() if key.startswith("unet.")}
    for name in LINEAR:
        length = module(pipe.unet, name).weight.flatten(1).norm(dim=1)
        file[f"unet.{name}.lora_magnitude_vector"] = length * (1 + 0.3 * draw(len(length)).float())
    return file, {}


def processors(pipe, draw):
    file = {}
    for layer in ["to_q", "to_k", "to_v", "to_out"]:
        weight = module(pipe.unet, f"{ATTENTION}.attn2.{layer}{'.0' if layer == 'to_out' else ''}").weight
        key = f"unet.{ATTENTION}.attn2.processor.{layer}_lora"
        file[f"{key}.down.weight"], file[f"{key}.up.weight"] = draw.pair(weight)
    for part in ["text_encoder", "text_encoder_2"]:
        weight = module(getattr(pipe, part), TEXT[0]).weight
        key = f"{part}.{TEXT[0]}.lora_linear_layer"
        file[f"{key}.down.weight"], file[f"{key}.up.weight"] = draw.pair(weight)
    return file, {}


def lycoris(kind):
    def make(pipe, draw):
        file = {}
        for _, prefix, network, name in targets(pipe, LINEAR + CONV, TEXT):
            layer = module(network, name)
            file |= {f"{prefix}_{name.replace('.', '_')}.{part}": value for part, value in kind(draw, layer).items()}
        return file, {}
    return make


def loha(draw, layer):
    out, flat = layer.weight.shape[0], layer.weight[0].numel()
    gain = (0.5 * flat ** -0.5 / RANK) ** 0.25
    parts = {f"hada_w{i}_{half}": draw(*shape, gain=gain) for i in (1, 2) for half, shape in [("a", (out, RANK)), ("b", (RANK, flat))]}
    # LyCORIS 4.1 multiplies by alpha / rank twice where it merges this kind and the next: here that is 1.
    return parts | {"alpha": torch.tensor(float(RANK))}


def loha_tucker(draw, layer):
    weight = layer.weight
    if weight.ndim < 4 or weight.shape[-1] == 1:
        return loha(draw, layer)
    out, inputs, kh, kw = weight.shape
    gain = (0.5 * weight[0].numel() ** -0.5) ** 0.16
    parts = {}
    for i in (1, 2):
        parts |= {f"hada_t{i}": draw(RANK, RANK, kh, kw, gain=gain / RANK), f"hada_w{i}_a": draw(RANK, out, gain=gain),
                  f"hada_w{i}_b": draw(RANK, inputs, gain=gain)}
    return parts | {"alpha": torch.tensor(float(RANK))}


def split(n):
    """The factor of `n` that LyCORIS chooses: the largest up to its root."""
    return max(d for d in range(1, int(n ** 0.5) + 1) if n % d == 0)


def lokr(draw, layer):
    weight = layer.weight
    out, inputs, taps = weight.shape[0], weight.shape[1], weight.shape[2:]
    m, n = split(out), split(inputs)
    if max(out // m, inputs // n) <= 2:
        return lokr_whole(draw, layer)
    # LyCORIS keeps the second factor whole where a product would hardly be smaller.
    rank, flat = 1, inputs // n * weight[0, 0].numel()
    return {"lokr_w1": draw(m, n), "lokr_w2_a": draw(out // m, rank, gain=0.5),
            "lokr_w2_b": draw(rank, flat, gain=weight[0].numel() ** -0.5), "alpha": torch.tensor(float(rank))}


def lokr_whole(draw, layer):
    weight = layer.weight
    out, inputs = weight.shape[:2]
    m, n = split(out), split(inputs)
    second = draw(out // m, inputs // n, *weight.shape[2:], gain=0.5 * weight[0].numel() ** -0.5)
    return {"lokr_w1": draw(m, n), "lokr_w2": second, "alpha": torch.tensor(1.0)}


def glora(draw, layer):
    weight = layer.weight
    out, inputs, flat = weight.shape[0], weight.shape[1], weight[0].numel()
    parts = {"a1.weight": draw(inputs, RANK, gain=0.5 * RANK ** -0.5), "a2.weight": draw(RANK, inputs, gain=inputs ** -0.5),
             "b1.weight": draw(out, RANK, gain=0.5 * RANK ** -0.5), "b2.weight": draw(RANK, flat, gain=flat ** -0.5)}
    if weight.ndim == 4:
        parts = {key: value.reshape(*value.shape, 1, 1) for key, value in parts.items()}
        parts["b2.weight"] = parts["b2.weight"].reshape(RANK, *weight.shape[1:])
    return parts | {"alpha": torch.tensor(3.0)}


def locon_tucker(draw, layer):
    weight = layer.weight
    if weight.ndim < 4 or weight.shape[-1] == 1:
        down, up = draw.pair(weight)
        return {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(2.0)}
    out, inputs, kh, kw = weight.shape
    return {"lora_down.weight": draw(RANK, inputs, 1, 1, gain=inputs ** -0.5), "lora_mid.weight": draw(RANK, RANK, kh, kw, gain=1 / 6),
            "lora_up.weight": draw(out, RANK, 1, 1, gain=0.5), "alpha": torch.tensor(2.0)}


def difference(draw, layer):
    parts = {"diff": draw(*layer.weight.shape, gain=0.4 * layer.weight[0].numel() ** -0.5)}
    if layer.bias is not None:
        parts["diff_b"] = draw(*layer.bias.shape, gain=0.1)
    return parts


def differences(pipe, draw):
    file, _ = lycoris(difference)(pipe, draw)
    for _, prefix, network, name in targets(pipe, ["down_blocks.1.resnets.0.norm2", f"{ATTENTION}.norm2"], ["text_model.final_layer_norm"]):
        layer = module(network, name)
        key = f"{prefix}_{name.replace('.', '_')}"
        file |= {f"{key}.w_norm": draw(*layer.weight.shape, gain=0.2), f"{key}.b_norm": draw(*layer.bias.shape, gain=0.2)}
    return file, {}


def load(pipe, path, weight):
    pipe.load_lora_weights(path, adapter_name=path.stem)
    return path.stem, weight


def merge(pipe, file, weight):
    names = {f"{prefix}_{name.replace('.', '_')}": module(network, name) for _, prefix, network, name in
             [t for part in ("unet", "text_encoder", "text_encoder_2") for t in all_layers(pipe, part)]}
    for key in sorted({key.split(".")[0] for key in file}):
        kind, params = get_module({k: v.float() for k, v in file.items()}, key)
        make_module(kind, params, key, names[key]).merge_to(weight)


def all_layers(pipe, part):
    prefix = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}[part]
    network = getattr(pipe, part)
    for name, layer in network.named_modules():
        if getattr(layer, "weight", None) is not None:
            name = name if part == "unet" or name.startswith(("text_model.", "text_projection")) else f"text_model.{name}"
            yield part, prefix, network, name


CASES = {
    "kohya": dict(make=kohya, weight=0.7),
    "kohya-original-blocks": dict(make=lambda p, d: kohya(p, d, unet=list(ORIGINAL), text=[], names=ORIGINAL), weight=1.0),
    "kohya-convolutions": dict(make=lambda p, d: kohya(p, d, unet=CONV, text=[], alpha=4.0), weight=0.8),
    "peft": dict(make=peft, weight=1.0),
    "processors": dict(make=processors, weight=0.9),
    "dora": dict(make=dora, weight=1.0),
    "dora-kohya": dict(make=lambda p, d: kohya(p, d, text=[], dora=True), weight=1.0, merged=True),
    "dora-weaker": dict(file="dora", weight=0.6),
    "locon-tucker": dict(make=lycoris(locon_tucker), weight=0.8, merged=True),
    "loha": dict(make=lycoris(loha), weight=0.8, merged=True),
    "loha-tucker": dict(make=lycoris(loha_tucker), weight=1.0, merged=True),
    "lokr": dict(make=lycoris(lokr), weight=0.9, merged=True),
    "lokr-whole": dict(make=lycoris(lokr_whole), weight=0.9, merged=True),
    "glora": dict(make=lycoris(glora), weight=0.7, merged=True),
    "differences": dict(make=differences, weight=0.8, merged=True),
    "two": dict(files=[("kohya", 0.6), ("kohya-convolutions", -0.4)]),
    "sd15-kohya": dict(family="sd15", make=lambda p, d: kohya(p, d, unet=SD), weight=0.8),
    "sd15-peft": dict(family="sd15", make=lambda p, d: peft(p, d, unet=SD), weight=1.0),
    "sd21-kohya": dict(family="sd21", make=lambda p, d: kohya(p, d, unet=SD), weight=0.8),
    "sd21-peft": dict(family="sd21", make=lambda p, d: peft(p, d, unet=SD), weight=1.0),
}


def paint(case, pipe, seed):
    """The picture of a case, once with its LoRAs in `pipe` and once in a new pipeline without."""
    own = dict(num_inference_steps=2, seed=seed, guidance_scale=3.0, scheduler=euler())
    if "family" in case:
        own["family"] = case["family"]
        return families.paint(pipe, own), families.paint(open_model(case), own)[1]
    load_folder = pictures.load
    pictures.load = lambda *_: pipe
    with_loras = pictures.paint(own)
    pictures.load = load_folder
    return with_loras, pictures.paint(own)[1]


def open_model(case):
    if "family" in case:
        return families.build(families.FAMILIES[case["family"]])[0]
    return pictures.load("tiny-sdxl", None, False)


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    rows = []
    for seed, (name, case) in enumerate(CASES.items()):
        pipe = open_model(case)
        if "make" in case:
            file, metadata = case["make"](pipe, Draw(1000 * (seed + 1)))
            save_tensors(OUT / f"{name}.safetensors", file, metadata or None)
        files = case.get("files") or [(case.get("file", name), case["weight"])]
        if case.get("merged"):
            merge(pipe, file, case["weight"])
        else:
            loaded = [load(pipe, OUT / f"{stem}.safetensors", weight) for stem, weight in files]
            pipe.set_adapters([stem for stem, _ in loaded], [weight for _, weight in loaded])
        (full, result), without = paint(case, pipe, 60 + seed)
        moved = (result["pixels"].float() - without["pixels"].float()).abs().mean().item()
        print(f"{name:24} moves the picture by {moved:6.2f} of 255", flush=True)
        save_tensors(OUT / f"{name}.picture.safetensors", result)
        chosen = full.pop("scheduler")
        full = {k: v for k, v in full.items() if v is not None}
        rows.append({"name": name, "loras": [[f"{stem}.safetensors", weight] for stem, weight in files], **full,
                     "scheduler_config": {"_class_name": type(chosen).__name__, **pictures.plain(chosen.config)},
                     "file": f"{name}.picture.safetensors"})
    save_json(OUT / "cases.json", rows)


if __name__ == "__main__":
    main()
