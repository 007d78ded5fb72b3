"""Inception v3 for exact FID: pytorch-fid's weights to safetensors, and a reference of its arithmetic.

    pip install torch safetensors numpy pillow scipy
    python inception.py pt_inception-2015-12-05-6726825d.pth inception.safetensors     # pytorch-fid's file
    python inception.py --random 1 OUT.safetensors                                     # random weights of its shapes
    python inception.py --fid WEIGHTS.safetensors REAL OTHER [--resize clean|bilinear]
    python inception.py --golden goldens/inception-v3

Keys are pytorch-fid's, less the classifier. The reference is written from the papers (Szegedy et al. 2016; Heusel et al. 2017) with
what pytorch-fid changes of torchvision's network: 3x3 means that do not count padding, and a maximum in Mixed_7c. `clean` resizes
as clean-fid does (Parmar et al. 2022): Pillow's bicubic filter on floats, each channel by itself. `--golden` writes a random network
with a sixteenth of the channels, a picture, its features, and both resizings of it.
"""

import argparse
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

# name, output channels, kernel, stride, padding
def plain(n, c): return (n, c, (1, 1), 1, (0, 0))
def square(n, c, k): return (n, c, (k, k), 1, (k // 2, k // 2))
def halving(n, c): return (n, c, (3, 3), 2, (0, 0))
def wide(n, c): return (n, c, (1, 7), 1, (0, 3))
def tall(n, c): return (n, c, (7, 1), 1, (3, 0))
def flat3(n, c): return (n, c, (1, 3), 1, (0, 1))
def high3(n, c): return (n, c, (3, 1), 1, (1, 0))


STEM = [halving("Conv2d_1a_3x3", 32), ("Conv2d_2a_3x3", 32, (3, 3), 1, (0, 0)), square("Conv2d_2b_3x3", 64, 3), "pool",
        plain("Conv2d_3b_1x1", 80), ("Conv2d_4a_3x3", 192, (3, 3), 1, (0, 0)), "pool"]


def block_a(pool):
    return [[plain("branch1x1", 64)], [plain("branch5x5_1", 48), square("branch5x5_2", 64, 5)],
            [plain("branch3x3dbl_1", 64), square("branch3x3dbl_2", 96, 3), square("branch3x3dbl_3", 96, 3)],
            ["mean", plain("branch_pool", pool)]]


def block_c(c):
    return [[plain("branch1x1", 192)], [plain("branch7x7_1", c), wide("branch7x7_2", c), tall("branch7x7_3", 192)],
            [plain("branch7x7dbl_1", c), tall("branch7x7dbl_2", c), wide("branch7x7dbl_3", c), tall("branch7x7dbl_4", c),
             wide("branch7x7dbl_5", 192)], ["mean", plain("branch_pool", 192)]]


def block_e(pool):
    return [[plain("branch1x1", 320)], [plain("branch3x3_1", 384), [flat3("branch3x3_2a", 384), high3("branch3x3_2b", 384)]],
            [plain("branch3x3dbl_1", 448), square("branch3x3dbl_2", 384, 3),
             [flat3("branch3x3dbl_3a", 384), high3("branch3x3dbl_3b", 384)]], [pool, plain("branch_pool", 192)]]


BLOCKS = {
    "Mixed_5b": block_a(32), "Mixed_5c": block_a(64), "Mixed_5d": block_a(64),
    "Mixed_6a": [[halving("branch3x3", 384)],
                 [plain("branch3x3dbl_1", 64), square("branch3x3dbl_2", 96, 3), halving("branch3x3dbl_3", 96)], ["pool"]],
    "Mixed_6b": block_c(128), "Mixed_6c": block_c(160), "Mixed_6d": block_c(160), "Mixed_6e": block_c(192),
    "Mixed_7a": [[plain("branch3x3_1", 192), halving("branch3x3_2", 320)],
                 [plain("branch7x7x3_1", 192), wide("branch7x7x3_2", 192), tall("branch7x7x3_3", 192),
                  halving("branch7x7x3_4", 192)], ["pool"]],
    "Mixed_7b": block_e("mean"), "Mixed_7c": block_e("greatest"),
}
POOLS = {"pool": lambda x: F.max_pool2d(x, 3, 2), "greatest": lambda x: F.max_pool2d(x, 3, 1, 1),
         "mean": lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)}


class Network:
    """Runs on weights that are there, or makes random ones as it meets them."""

    def __init__(self, weights=None, seed=0, divisor=1):
        self.weights, self.is_random, self.divisor = weights or {}, weights is None, divisor
        self.generator = torch.Generator().manual_seed(seed)

    def unit(self, x, prefix, shape):
        name, channels, kernel, stride, padding = shape
        key, w = f"{prefix}{name}", self.weights
        if self.is_random:
            n = channels // self.divisor
            draw = lambda *size: torch.randn(size, generator=self.generator)
            made = {"conv.weight": draw(n, x.shape[1], *kernel) * (2 / (x.shape[1] * kernel[0] * kernel[1])) ** 0.5,
                    "bn.weight": 1 + 0.1 * draw(n), "bn.bias": 0.1 * draw(n), "bn.running_mean": 0.1 * draw(n),
                    "bn.running_var": 1 + 0.2 * draw(n).abs()}
            w.update({f"{key}.{k}": v.half().float() for k, v in made.items()})
        x = F.conv2d(x, w[f"{key}.conv.weight"], stride=stride, padding=padding)
        names = ("running_mean", "running_var", "weight", "bias")
        return F.relu(F.batch_norm(x, *(w[f"{key}.bn.{name}"] for name in names), eps=1e-3))

    def step(self, x, prefix, part):
        if isinstance(part, str):
            return POOLS[part](x)
        if isinstance(part, list):
            return torch.cat([self.unit(x, prefix, shape) for shape in part], 1)
        return self.unit(x, prefix, part)

    def features(self, x):
        """`[B, 3, H, W]` in [-1, 1] to `[B, 2048]`."""
        for part in STEM:
            x = self.step(x, "", part)
        for name, branches in BLOCKS.items():
            outputs = []
            for branch in branches:
                y = x
                for part in branch:
                    y = self.step(y, f"{name}.", part)
                outputs.append(y)
            x = torch.cat(outputs, 1)
        return x.mean((2, 3))


def resized(picture, how, side=299):
    """`[H, W, 3]` bytes to `[3, side, side]` floats from 0 to 255."""
    floats = np.asarray(picture, dtype=np.float32)
    if how == "bilinear":
        x = torch.from_numpy(floats).permute(2, 0, 1)[None]
        return F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)[0]
    planes = [np.asarray(Image.fromarray(floats[..., c]).resize((side, side), Image.BICUBIC)) for c in range(3)]
    return torch.from_numpy(np.stack(planes).clip(0, 255))


def frechet(a, b):
    """As pytorch-fid computes it."""
    from scipy import linalg
    (m, c), (n, d) = ((x.mean(0), np.cov(x, rowvar=False)) for x in (a, b))
    root = linalg.sqrtm(c @ d)
    if not np.isfinite(root).all():
        eye = np.eye(len(c)) * 1e-6
        root = linalg.sqrtm((c + eye) @ (d + eye))
    return (m - n) @ (m - n) + np.trace(c) + np.trace(d) - 2 * np.trace(root.real)


def features_of(network, folder, how):
    paths = sorted(p for p in pathlib.Path(folder).iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))
    rows = [network.features(resized(Image.open(p).convert("RGB"), how)[None] / 127.5 - 1) for p in paths]
    return torch.cat(rows).numpy().astype(np.float64)


def golden(folder):
    network = Network(seed=3, divisor=16)
    bytes_ = torch.randint(0, 256, (40, 52, 3), generator=torch.Generator().manual_seed(4), dtype=torch.uint8)
    out = {"picture": bytes_.float()}
    for how in ("clean", "bilinear"):
        out[f"{how}.resized"] = resized(bytes_.numpy(), how, 91).permute(1, 2, 0)
    out["features"] = network.features(out["clean.resized"].permute(2, 0, 1)[None] / 127.5 - 1)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.half().contiguous() for k, v in sorted(network.weights.items())}, folder / "model.safetensors")
    save_file({k: v.contiguous() for k, v in sorted(out.items())}, folder / "outputs.safetensors")


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*", type=pathlib.Path)
    parser.add_argument("--random", type=int)
    parser.add_argument("--fid", action="store_true")
    parser.add_argument("--resize", choices=("clean", "bilinear"), default="clean")
    parser.add_argument("--golden", type=pathlib.Path)
    args = parser.parse_args()
    if args.golden:
        golden(args.golden)
    elif args.random is not None:
        network = Network(seed=args.random)
        network.features(torch.zeros(1, 3, 299, 299))
        save_file(network.weights, args.paths[0])
    elif args.fid:
        network = Network(load_file(args.paths[0]))
        print(frechet(*(features_of(network, folder, args.resize) for folder in args.paths[1:])))
    else:
        weights = torch.load(args.paths[0], map_location="cpu", weights_only=True)
        keep = {k: v.float().contiguous() for k, v in weights.items() if not k.startswith(("fc.", "AuxLogits.")) and "num_batches" not in k}
        save_file(keep, args.paths[1])


if __name__ == "__main__":
    main()
