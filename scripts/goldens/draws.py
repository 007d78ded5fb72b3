"""What training draws at random, as crates/train/src/draws.rs does: Philox4x32-10, keyed by seed, purpose and batch."""

import numpy as np
import torch

from common import GAMMA, fnv1a, mix

TIMESTEP, NOISE, ROW, DROPOUT, RUNG, RENOISE, NUDGE, GUIDANCE = 1, 2, 3, 4, 10, 8, 11, 12
LATENT = 99


def philox(seed, image, purpose, step, length):
    """`length` outputs of 32 bits."""
    blocks = -(-length // 4)
    u64 = lambda x: np.full(blocks, x, dtype=np.uint64)
    counter = [np.arange(blocks, dtype=np.uint64), u64(image), u64(purpose), u64(step)]
    key, low = [seed & 0xFFFFFFFF, seed >> 32], np.uint64(0xFFFFFFFF)
    for _ in range(10):
        p, q = counter[0] * np.uint64(0xD2511F53), counter[2] * np.uint64(0xCD9E8D57)
        counter = [(q >> np.uint64(32)) ^ counter[1] ^ np.uint64(key[0]), q & low,
                   (p >> np.uint64(32)) ^ counter[3] ^ np.uint64(key[1]), p & low]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.stack(counter, 1).reshape(-1)[:length]


def uniform(seed, purpose, batch, n, image=0):
    """`n` values in [0, 1)."""
    return ((philox(seed, image, purpose, batch, n) >> np.uint64(8)).astype(np.float32) * np.float32(2.0**-24))


def normal(seed, image, purpose, batch, n):
    """`n` standard normal values, by Box and Muller."""
    units = (philox(seed, image, purpose, batch, -(-n // 4) * 4) >> np.uint64(8)).astype(np.float64)
    radius = np.sqrt(-2 * np.log((units[0::2] + 1) * 2.0**-24))
    angle = 2 * np.pi * units[1::2] * 2.0**-24
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).reshape(-1)[:n].astype(np.float32)


def noise(seed, purpose, batch, shape):
    """Of `shape` `[B, C, H, W]`, drawn channels last, each sample from its own stream."""
    n, c, h, w = shape
    rows = [normal(seed, image, purpose, batch, h * w * c).reshape(h, w, c) for image in range(n)]
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).contiguous()


def random_init(seed, name, shape, fan_in):
    """A parameter at random, as crates/checkpoint's RandomInit starts it."""
    key = mix(np.array([seed ^ fnv1a(name)], dtype=np.uint64))
    bits = mix(key + np.arange(int(np.prod(shape)), dtype=np.uint64) * np.uint64(GAMMA)) >> np.uint64(11)
    values = 2 * ((bits + 0.5) / 2.0**53).astype(np.float32) - 1
    return torch.from_numpy(np.float32(fan_in**-0.5) * values).reshape(shape)
