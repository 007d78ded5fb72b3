"""Writes goldens/adain/: naoto0804/pytorch-AdaIN's networks (`net.py`) with few channels and random weights, and what they make."""

import torch
from common import GOLDENS, randomise
from safetensors.torch import save_file
from torch import nn

OUT = GOLDENS / "adain"
A, B, C, D = 4, 6, 8, 12


def pad_conv(inputs, outputs, relu=True):
    return [nn.ReflectionPad2d(1), nn.Conv2d(inputs, outputs, 3)] + ([nn.ReLU()] if relu else [])


def pool():
    return [nn.MaxPool2d(2, 2, ceil_mode=True)]


def double():
    return [nn.Upsample(scale_factor=2, mode="nearest")]


def vgg():
    layers = [nn.Conv2d(3, 3, 1), *pad_conv(3, A), *pad_conv(A, A), *pool(), *pad_conv(A, B), *pad_conv(B, B), *pool(),
              *pad_conv(B, C), *pad_conv(C, C), *pad_conv(C, C), *pad_conv(C, C), *pool(), *pad_conv(C, D)]
    # One that is in the files and not used.
    return nn.Sequential(*layers, *pad_conv(D, D))


def decoder():
    return nn.Sequential(*pad_conv(D, C), *double(), *pad_conv(C, C), *pad_conv(C, C), *pad_conv(C, C), *pad_conv(C, B), *double(),
                         *pad_conv(B, B), *pad_conv(B, A), *double(), *pad_conv(A, A), *pad_conv(A, 3, relu=False))


def mean_std(feat, eps=1e-5):
    flat = feat.flatten(2)
    return flat.mean(2)[..., None, None], (flat.var(2) + eps).sqrt()[..., None, None]


def adain(content, style):
    (m, s), (sm, ss) = mean_std(content), mean_std(style)
    return (content - m) / s * ss + sm


def root(x):
    u, d, v = torch.svd(x)
    return u @ d.sqrt().diag() @ v.t()


def coral(source, target):
    """`function.py`: `source` with the colours of `target`."""
    def norm(x):
        flat = x.flatten(1)
        mean, std = flat.mean(1, keepdim=True), flat.std(1, keepdim=True)
        flat = (flat - mean) / std
        return flat, mean, std, flat @ flat.t() + torch.eye(3)

    s, _, _, s_cov = norm(source)
    _, mean, std, t_cov = norm(target)
    return ((root(t_cov) @ root(s_cov).inverse() @ s) * std + mean).view(source.shape)


def main():
    OUT.mkdir(exist_ok=True)
    encoder, dec = randomise(vgg(), 41, gain=1.5), randomise(decoder(), 42, gain=1.5)
    for name, net in (("vgg_normalised", encoder), ("decoder", dec)):
        save_file({k: v.half().contiguous() for k, v in net.state_dict().items()}, OUT / f"{name}.safetensors")
    encode = encoder[:31]
    g = torch.Generator().manual_seed(43)
    content, one, two = (torch.rand(1, 3, h, w, generator=g) for h, w in ((20, 27), (16, 16), (24, 40)))
    f, f1, f2 = encode(content), encode(one), encode(two)
    mixed = 0.7 * (0.25 * adain(f, f1) + 0.75 * adain(f, f2)) + 0.3 * f
    save_file({
        "content": content, "one": one, "two": two, "features": f, "mixed": mixed, "picture": dec(mixed),
        "coral": coral(one[0], content[0])[None],
    }, OUT / "outputs.safetensors")


if __name__ == "__main__":
    main()
