"""Writes goldens/clip/: a tiny random CLIP of transformers with tiny-sdxl's tokenizer, what it makes of pictures and words, and what
CMMD (Jayasumana et al. 2024) and the CLIP score (Hessel et al. 2021, as torchmetrics scales it) come to from that."""

import json
import shutil

import numpy as np
import torch
from common import GOLDENS, noise, randomise, save_tensors
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

OUT, TINY = GOLDENS / "clip", GOLDENS / "tiny-sdxl"
WORDS = ["a red apple", "two dogs on the grass"]


def cmmd(x, y):
    """As google-research/cmmd: sigma 10, scale 1000, means with the diagonals."""
    kernel = lambda a, b: torch.exp(-torch.cdist(a, b).square() / (2 * 10**2)).mean()
    return 1000 * (kernel(x, x) + kernel(y, y) - 2 * kernel(x, y))


def main():
    OUT.mkdir(exist_ok=True)
    text = json.loads((TINY / "text_encoder/config.json").read_text())
    keep = ("vocab_size", "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")
    text = dict({k: text[k] for k in keep}, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    vision = dict(hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8,
                  hidden_act="gelu")
    net = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
    net.config._attn_implementation = "eager"
    for seed, part in enumerate((net.text_model, net.vision_model, net.text_projection, net.visual_projection)):
        randomise(part, 41 + seed)
    net.eval()
    # Like a folder of the hub.
    net.half().save_pretrained(OUT)
    net.float()
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
        if (TINY / "tokenizer" / name).exists():
            shutil.copyfile(TINY / "tokenizer" / name, OUT / name)
    rng = np.random.default_rng(5)
    small = [rng.integers(0, 256, (n, n, 3), dtype=np.uint8) for n in (6, 9)]
    # Smooth, so that a filter's last bit is no rounding of a byte.
    pictures = [Image.fromarray(s).resize((60, 44), Image.BICUBIC) for s in small]
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pixels = processor(pictures, return_tensors="pt").pixel_values
    tokens = CLIPTokenizer.from_pretrained(TINY / "tokenizer")
    ids = tokens(WORDS, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    out = net(input_ids=ids, pixel_values=pixels)
    seen, said = out.image_embeds, out.text_embeds  # of unit length
    a, b = (torch.nn.functional.normalize(noise(seed, n, 24), dim=-1) for seed, n in ((51, 7), (52, 5)))
    tensors = {
        "pictures": torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).float(),
        "pixel_values": pixels,
        "image_embeds": net.visual_projection(net.vision_model(pixels).pooler_output),
        "input_ids": ids.float(),
        "text_embeds": net.text_projection(net.text_model(ids).pooler_output),
        "scores": 100 * (seen * said).sum(-1).clamp(min=0),
        "cmmd.a": a,
        "cmmd.b": b,
        "cmmd": cmmd(a.double(), b.double()).float().reshape(1),
    }
    save_tensors(OUT / "outputs.safetensors", tensors)
    (OUT / "model.safetensors").chmod(0o644)


if __name__ == "__main__":
    main()
