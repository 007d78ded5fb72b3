"""goldens/tiny-sdxl as one file with the keys of the original SDXL release, in float16.

The weights are f16-representable, so the file holds the same numbers and every picture of `tiny-sdxl` must come
out of it. What a single file cannot say (head counts, scaling factor, tokenizer, activations) comes from a config
folder: `tiny-sdxl` itself. diffusers' own loader reads the file back here, and each tensor is compared.
"""

import re

import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file

from common import GOLDENS, save_json, save_tensors
from pictures import PROMPT, TURBO

FOLDER = GOLDENS / "tiny-sdxl"
OUT = GOLDENS / "single-file"
UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP_L, BIG_G = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
          "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
UNET_TOP = {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
            "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
            "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPENCLIP_TOP = {"text_projection.weight": "text_projection", "final_layer_norm.weight": "ln_final.weight",
                "final_layer_norm.bias": "ln_final.bias",
                "embeddings.position_embedding.weight": "positional_embedding",
                "embeddings.token_embedding.weight": "token_embedding.weight"}
OPENCLIP = {"self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc",
            "mlp.fc2": "mlp.c_proj"}


def unet_key(key, all_keys, layers=2, hub=False):
    """A diffusers UNet key in LDM's words, for down blocks of `layers` resnets.

    LDM (and ComfyUI) number blocks without gaps. The script with which models of fewer layers were converted for the
    hub counts three to a block whatever there is, and gives upsamplers a number of their own then.
    """
    module, _, leaf = key.rpartition(".")
    if module in UNET_TOP:
        return f"{UNET_TOP[module]}.{leaf}"
    if module == "time_embedding.cond_proj":
        return key
    parts = key.split(".")
    stride = 3 if hub else layers + 1
    if parts[0] == "mid_block":
        kind, index, rest = parts[1], int(parts[2]), ".".join(parts[3:])
        place = f"middle_block.{1 if kind == 'attentions' else 2 * index}"
    else:
        block, kind, index, rest = int(parts[1]), parts[2], int(parts[3]), ".".join(parts[4:])
        if parts[0] == "down_blocks":
            slot = 1 + block * stride + (stride - 1 if kind == "downsamplers" else index)
            place = f"input_blocks.{slot}.{1 if kind == 'attentions' else 0}"
            rest = rest.replace("conv", "op", 1) if kind == "downsamplers" else rest
        else:
            slot = block * stride + (stride - 1 if kind == "upsamplers" else index)
            # After the resnet and, where the block has one, the attention.
            after = 2 if f"up_blocks.{block}.attentions.0.norm.weight" in all_keys else 1
            after = (1 if block == 0 else 2) if hub else after
            place = f"output_blocks.{slot}.{ {'resnets': 0, 'attentions': 1, 'upsamplers': after}[kind] }"
    if kind == "resnets":
        module, _, leaf = rest.rpartition(".")
        rest = f"{RESNET[module]}.{leaf}"
    return f"{place}.{rest}"


def vae_key(key, levels):
    side, _, rest = key.partition(".")
    if side not in ("encoder", "decoder"):
        return key
    parts = rest.split(".")
    leaf = parts[-1]
    if parts[0] == "conv_norm_out":
        return f"{side}.norm_out.{leaf}"
    if parts[0] in ("conv_in", "conv_out"):
        return key
    if parts[0] == "mid_block":
        if parts[1] == "attentions":
            return f"{side}.mid.attn_1.{VAE_ATTENTION['.'.join(parts[3:-1])]}.{leaf}"
        place, inner = f"{side}.mid.block_{int(parts[2]) + 1}", parts[3]
    else:
        up = parts[0] == "up_blocks"
        level = levels - 1 - int(parts[1]) if up else int(parts[1])
        base = f"{side}.{'up' if up else 'down'}.{level}"
        if parts[2] in ("upsamplers", "downsamplers"):
            return f"{base}.{'upsample' if up else 'downsample'}.conv.{leaf}"
        place, inner = f"{base}.block.{parts[3]}", parts[4]
    return f"{place}.{'nin_shortcut' if inner == 'conv_shortcut' else inner}.{leaf}"


def vae_view(key, shape):
    # The original's attention projections are 1x1 convolutions.
    return "1x1" if ".attentions." in key and key.endswith("weight") and len(shape) == 2 else "whole"


def openclip_key(key):
    """OpenCLIP's name of a transformers key, and how the tensor lies there."""
    key = key.removeprefix("text_model.")
    if key in OPENCLIP_TOP:
        return OPENCLIP_TOP[key], "transposed" if key == "text_projection.weight" else "whole"
    _, _, layer, rest = key.split(".", 3)
    module, _, leaf = rest.rpartition(".")
    place = f"transformer.resblocks.{layer}"
    part = re.fullmatch(r"self_attn\.([qkv])_proj", module)
    if part:
        return f"{place}.attn.in_proj_{leaf}", f"row{'qkv'.index(part[1])}"
    return f"{place}.{OPENCLIP[module]}.{leaf}", "whole"


def assemble(rows):
    """(tensor, its key in the file, view) to the tensors of the file."""
    out, parts = {}, {}
    for value, key, view in rows:
        assert key not in out, key
        if view.startswith("row"):
            parts.setdefault(key, {})[view] = value
        else:
            out[key] = {"whole": lambda v: v, "transposed": lambda v: v.T, "1x1": lambda v: v[:, :, None, None]}[view](value)
    return out | {key: torch.cat([three[f"row{i}"] for i in range(3)]) for key, three in parts.items()}


def read(part, file="diffusion_pytorch_model"):
    return load_file(FOLDER / part / f"{file}.safetensors")


def write(path):
    unet, vae = read("unet"), read("vae")
    levels = len({k.split(".")[2] for k in vae if k.startswith("decoder.up_blocks.")})
    text_1, text_2 = read("text_encoder", "model"), read("text_encoder_2", "model")
    rows = [(v, UNET + unet_key(k, unet), "whole") for k, v in unet.items()]
    rows += [(v, VAE + vae_key(k, levels), vae_view(k, v.shape)) for k, v in vae.items()]
    rows += [(v, CLIP_L + k, "whole") for k, v in text_1.items()]
    rows += [(v, BIG_G + openclip_key(k)[0], openclip_key(k)[1]) for k, v in text_2.items()]
    whole = assemble(rows) | {BIG_G + "logit_scale": torch.tensor(4.605)}
    whole = {k: v.half() for k, v in whole.items()}
    # Present in the released file, read by nobody.
    whole[CLIP_L + "text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_tensors(path, whole, {"modelspec.architecture": "stable-diffusion-xl-v1-base"})


def check(path):
    """diffusers' loader must give the folder's tensors and pictures back."""
    folder = StableDiffusionXLPipeline.from_pretrained(FOLDER, add_watermarker=False)
    single = StableDiffusionXLPipeline.from_single_file(str(path), config=str(FOLDER), add_watermarker=False,
                                                        local_files_only=True, torch_dtype=torch.float32)
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        a, b = getattr(folder, part).state_dict(), getattr(single, part).state_dict()
        assert a.keys() == b.keys()
        for k in a:
            assert torch.equal(a[k], b[k]), (part, k)
    pictures = []
    for pipe in (folder, single):
        pipe.scheduler = TURBO["scheduler"]
        pictures.append(pipe(PROMPT, num_inference_steps=1, guidance_scale=0.0, width=64, height=64, output_type="np",
                             generator=torch.Generator("cpu").manual_seed(0)).images)
    # The sums of a matrix product depend on where its operands lie in memory, so not bit for bit.
    assert abs(pictures[0] - pictures[1]).max() < 1e-5
    print("single file: diffusers loads it, tensors and picture equal the folder's")


def main():
    path = OUT / "tiny-sdxl.safetensors"
    write(path)
    check(path)
    save_json(OUT / "cases.json", [{
        "file": path.name, "config_folder": "tiny-sdxl", "same_weights_as": "tiny-sdxl", "pictures": "turbo-1",
        "note": "head counts, tokenizers, activations, scaling_factor: from config_folder, not from the file",
        "unread_by_name": [CLIP_L + "text_model.embeddings.position_ids", BIG_G + "logit_scale"],
    }])


if __name__ == "__main__":
    main()
