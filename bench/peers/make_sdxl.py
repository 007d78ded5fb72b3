"""SDXL at full size with small random weights in bf16, as a diffusers folder: what bench.py measures.

    python make_sdxl.py OUT --open-clip-wheel open_clip_torch-3.3.0-py3-none-any.whl

About 7 GB. The configs are those of bench/gpu/sdxl.json; CLIP's vocabulary is taken from the wheel of PyPI's open-clip-torch
(`pip download open-clip-torch --no-deps`). Needs torch, diffusers, transformers and safetensors.
"""

import argparse
import gzip
import json
import zipfile
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

POOL = 1 << 22


def values(name, parameter, is_norm, pool, at):
    """Norms are the identity, biases zero, other weights uniform with the spread of a fresh layer: activations keep their size."""
    leaf = name.rsplit(".", 1)[1]
    if is_norm:
        return torch.ones(parameter.shape) if leaf == "weight" else torch.zeros(parameter.shape)
    if leaf == "bias":
        return torch.zeros(parameter.shape)
    fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
    scale = 0.035 if "embeddings." in name else (1.0 / fan_in) ** 0.5
    count = parameter.numel()
    repeated = torch.cat([pool[at % POOL:]] + [pool] * (count // POOL + 1))
    return repeated[:count].view(parameter.shape) * scale


def save(model, folder, file, pool):
    folder.mkdir(parents=True, exist_ok=True)
    norms = {
        name for name, module in model.named_modules() if isinstance(module, (torch.nn.LayerNorm, torch.nn.GroupNorm))
    }
    tensors, at = {}, 0
    for name, parameter in model.named_parameters():
        drawn = values(name, parameter, name.rsplit(".", 1)[0] in norms, pool, at)
        at += 102947 + parameter.numel()
        # Files keep the prefix that transformers 5 has dropped.
        is_bare = isinstance(model, CLIPTextModel) and not name.startswith("text_model.")
        tensors["text_model." + name if is_bare else name] = drawn.to(torch.bfloat16).contiguous()
    save_file(tensors, folder / file, metadata={"format": "pt"})
    print(folder, sum(tensor.numel() for tensor in tensors.values()), "parameters", flush=True)


def bytes_to_characters():
    """GPT-2's table of printable characters for bytes."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) for byte in shown] + [chr(256 + i) for i in range(len(hidden))]


def save_tokenizers(out, wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith("bpe_simple_vocab_16e6.txt.gz")]
    merges = gzip.decompress(archive.read(name)).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    characters = bytes_to_characters()
    words = characters + [character + "</w>" for character in characters] + ["".join(pair.split()) for pair in merges]
    words += ["<|startoftext|>", "<|endoftext|>"]
    for name, pad in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        vocabulary = {word: number for number, word in enumerate(words)}
        (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
        special = {
            "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>",
            "unk_token": "<|endoftext|>",
            "pad_token": pad,
        }
        (folder / "special_tokens_map.json").write_text(json.dumps(special))
        config = {**special, "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--open-clip-wheel", required=True)
    args = parser.parse_args()
    configs = json.loads((Path(__file__).parent.parent / "gpu" / "sdxl.json").read_text())
    plain = lambda part: {key: value for key, value in configs[part].items() if not key.startswith("_")}
    clip = lambda part: CLIPTextConfig(
        **{key: value for key, value in configs[part].items() if key not in ("architectures", "model_type")}
    )
    with torch.device("meta"):
        models = {
            "text_encoder": CLIPTextModel(clip("text_encoder")),
            "text_encoder_2": CLIPTextModelWithProjection(clip("text_encoder_2")),
            "vae": AutoencoderKL(**plain("vae")),
            "unet": UNet2DConditionModel(**plain("unet")),
        }
    pool = torch.rand(POOL, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for part, model in models.items():
        is_text = part.startswith("text")
        save(model, args.out / part, "model.safetensors" if is_text else "diffusion_pytorch_model.safetensors", pool)
        if is_text:
            (args.out / part / "config.json").write_text(json.dumps(configs[part], indent=1))
        else:
            model.save_config(args.out / part)
    scheduler = EulerAncestralDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="trailing", steps_offset=1
    )
    scheduler.save_pretrained(args.out / "scheduler")
    save_tokenizers(args.out, args.open_clip_wheel)
    classes = {
        "scheduler": ["diffusers", "EulerAncestralDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    index = {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": True, **classes}
    (args.out / "model_index.json").write_text(json.dumps(index, indent=1))


if __name__ == "__main__":
    main()
