"""Shared by every golden script: seeds, weights that matter, saving."""

import json
import pathlib

import numpy as np
import torch
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDENS = ROOT / "goldens"
GAMMA, MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
torch.set_grad_enabled(False)


def randomise(module, seed, gain=1.0):
    """Gives every parameter a seeded value at which it visibly changes the output.

    Default initialisation leaves biases at 0, norms at 1 and CLIP's projections tiny, so a port that drops one
    of them would still pass. Values are rounded to float16, so an f16 copy of the file holds the same numbers.
    """
    g = torch.Generator("cpu").manual_seed(seed)
    norms = {
        f"{name}.{leaf}"
        for name, m in module.named_modules()
        if isinstance(m, (torch.nn.LayerNorm, torch.nn.GroupNorm))
        for leaf in ("weight", "bias")
    }
    for name, p in sorted(module.named_parameters()):
        noise = torch.randn(p.shape, generator=g)
        if name in norms:
            value = 1.0 + 0.2 * noise if name.endswith("weight") else 0.2 * noise
        elif name.endswith("bias"):
            value = 0.1 * noise
        elif "embedding" in name and p.ndim == 2 and "linear" not in name and "cond_proj" not in name:
            value = 0.5 * noise
        else:
            value = gain * noise / p[0].numel() ** 0.5
        p.data.copy_(value.half().float())
    return module.eval()


def mix(z):
    """SplitMix64's output function, on a numpy array of u64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def fnv1a(name):
    key = 0xCBF29CE484222325
    for byte in name.encode():
        key = (key ^ byte) * 0x100000001B3 & MASK
    return key


def values(name, shape, center, scale):
    """center + scale * (a number in [-1, 1) of 24 bits, a hash of name and index), rounded once to f32."""
    key = fnv1a(name)
    index = np.arange(int(np.prod(shape, dtype=np.int64)), dtype=np.uint64)
    bits = mix(np.uint64(key) + index * np.uint64(GAMMA)) >> np.uint64(40)
    x = bits.astype(np.float64) / 2**23 - 1.0
    return torch.from_numpy((center + scale * x).astype(np.float32)).reshape(shape)


def noise(seed, *shape):
    """Seeded standard normal values; the fixture holds them, so no reader needs torch's generator."""
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))


def save_tensors(path, tensors, metadata=None):
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().contiguous().clone() for k, v in sorted(tensors.items())}, path, metadata)
    path.chmod(0o644)


def save_json(path, value):
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
