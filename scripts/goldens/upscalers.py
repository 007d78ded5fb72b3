"""Writes goldens/upscalers/: tiny random networks of the Real-ESRGAN family with their results, and what ncnn makes of a small
picture with the real network that prima carries (and with any other that is named, which is printed, not written).

It also needs `ncnn` from PyPI (1.0.20261020), which computes here in f32.
"""

import sys
import tempfile

import ncnn
import numpy as np
import torch
import torch.nn.functional as F
from common import GOLDENS, ROOT, randomise
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

OUT = GOLDENS / "upscalers"
EMBEDDED = ROOT / "assets/realesr-animevideov3/model.safetensors"


def conv(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, 1, 1)


class Compact(nn.Module):
    """realesrgan/archs/srvgg_arch.py: SRVGGNetCompact with PReLU."""

    def __init__(self, feat, convs, upscale):
        super().__init__()
        layers = [conv(3, feat), nn.PReLU(feat)]
        for _ in range(convs):
            layers += [conv(feat, feat), nn.PReLU(feat)]
        self.body = nn.Sequential(*layers, conv(feat, 3 * upscale**2))
        self.upscale = upscale

    def forward(self, x):
        return F.pixel_shuffle(self.body(x), self.upscale) + F.interpolate(x, scale_factor=self.upscale)


class Dense(nn.Module):
    def __init__(self, feat, grow):
        super().__init__()
        for i in range(5):
            setattr(self, f"conv{i + 1}", conv(feat + i * grow, feat if i == 4 else grow))

    def forward(self, x):
        seen = [x]
        for i in range(1, 5):
            seen.append(F.leaky_relu(getattr(self, f"conv{i}")(torch.cat(seen, 1)), 0.2))
        return self.conv5(torch.cat(seen, 1)) * 0.2 + x


class Block(nn.Module):
    def __init__(self, feat, grow):
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (Dense(feat, grow) for _ in range(3))

    def forward(self, x):
        return self.rdb3(self.rdb2(self.rdb1(x))) * 0.2 + x


class Rrdb(nn.Module):
    """basicsr/archs/rrdbnet_arch.py: RRDBNet."""

    def __init__(self, feat, blocks, grow, scale):
        super().__init__()
        self.packed = 4 // scale
        self.conv_first = conv(3 * self.packed**2, feat)
        self.body = nn.Sequential(*(Block(feat, grow) for _ in range(blocks)))
        self.conv_body, self.conv_up1, self.conv_up2, self.conv_hr = (conv(feat, feat) for _ in range(4))
        self.conv_last = conv(feat, 3)

    def forward(self, x):
        h = self.conv_first(F.pixel_unshuffle(x, self.packed) if self.packed > 1 else x)
        h = h + self.conv_body(self.body(h))
        for up in (self.conv_up1, self.conv_up2):
            h = F.leaky_relu(up(F.interpolate(h, scale_factor=2)), 0.2)
        return self.conv_last(F.leaky_relu(self.conv_hr(h), 0.2))


def numbered(key, blocks):
    """ESRGAN's first names."""
    module, kind = key.rsplit(".", 1)
    if module.startswith("body."):
        _, block, dense, c = module.split(".")
        return f"model.1.sub.{block}.{dense.upper()}.{c}.0.{kind}"
    names = {"conv_first": "0", "conv_body": f"1.sub.{blocks}", "conv_up1": "3", "conv_up2": "6", "conv_hr": "8", "conv_last": "10"}
    return f"model.{names[module]}.{kind}"


def tiny():
    picture = torch.rand(1, 3, 10, 14, generator=torch.Generator().manual_seed(7))
    cases = {
        "compact": (Compact(8, 2, 4), "params.{}".format),
        "rrdb-x4": (Rrdb(8, 2, 4, 4), lambda key: numbered(key, 2)),
        "rrdb-x2": (Rrdb(8, 1, 4, 2), "params_ema.{}".format),
        "rrdb-x1": (Rrdb(8, 1, 4, 1), str),
    }
    outputs = {"picture": picture}
    for seed, (name, (network, key)) in enumerate(cases.items()):
        if name == "rrdb-x1":
            picture = F.interpolate(picture, size=(12, 16))
            outputs["picture-x1"] = picture
        randomise(network, 100 + seed, gain=1.4)
        outputs[name] = network(picture)
        state = {key(k): v.half().contiguous() for k, v in network.state_dict().items()}
        save_file(state, OUT / f"{name}.safetensors")
    save_file(outputs, OUT / "outputs.safetensors")
    network = Compact(4, 1, 2)
    randomise(network, 200)
    write_ncnn(network.state_dict(), OUT / "ncnn-compact")
    picture = (outputs["picture"] * 255).round()
    made = run_ncnn(OUT / "ncnn-compact", picture.numpy()[0] / 255)
    expected = network(picture / 255)[0].numpy()
    assert np.abs(made - expected).max() < 1e-3, np.abs(made - expected).max()
    save_file({"picture": picture / 255, "ncnn-compact": torch.from_numpy(made)[None]}, OUT / "ncnn.safetensors")


def write_ncnn(state, path):
    """The files of ncnn for the weights of either network under BasicSR's keys, in f16."""
    lines, blobs, last = [], [], ["data"]

    def layer(kind, inputs, count=1, *values):
        outputs = [f"b{len(lines)}.{i}" for i in range(count)]
        words = [kind, f"l{len(lines)}", str(len(inputs)), str(count), *inputs, *outputs]
        lines.append(" ".join(words + [f"{i}={v}" for i, v in values]))
        return outputs

    def convolution(name, x):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        blobs.append(np.uint32(0x01306B47).tobytes())
        data = weight.half().numpy().tobytes()
        blobs.extend([data, b"\0" * (-len(data) % 4), bias.float().numpy().tobytes()])
        out, _, k, _ = weight.shape
        return layer("Convolution", [x], 1, (0, out), (1, k), (4, 1), (5, 1), (6, weight.numel()))[0]

    def split(x, count):
        return layer("Split", [x], count)

    def leaky(x):
        return layer("ReLU", [x], 1, (0, "2.000000e-01"))[0]

    def doubled(x):
        return layer("Interp", [x], 1, (0, 1), (1, "2.000000e+00"), (2, "2.000000e+00"))[0]

    def plus_share(x, y):
        y = layer("BinaryOp", [y], 1, (0, 2), (1, 1), (2, "2.000000e-01"))[0]
        return layer("BinaryOp", [x, y], 1, (0, 0))[0]

    lines.append("Input data 0 1 data")
    if "conv_first.weight" in state:
        skip, x = split(convolution("conv_first", "data"), 2)
        blocks = 1 + max(int(k.split(".")[1]) for k in state if k.startswith("body."))
        for block in range(blocks):
            outer, x = split(x, 2)
            for dense in (1, 2, 3):
                *copies, x = split(x, 6)
                seen, more = [], []
                # What each convolution sees is a copy of its own.
                made = leaky(convolution(f"body.{block}.rdb{dense}.conv1", copies[0]))
                parts = [copies[1:5], split(made, 4)]
                for c in (2, 3, 4):
                    seen = layer("Concat", [p.pop() for p in parts])[0]
                    made = leaky(convolution(f"body.{block}.rdb{dense}.conv{c}", seen))
                    parts.append(split(made, 5 - c) if c < 4 else [made])
                seen = layer("Concat", [p.pop() for p in parts])[0]
                x = plus_share(x, convolution(f"body.{block}.rdb{dense}.conv5", seen))
            x = plus_share(outer, x)
        x = layer("BinaryOp", [skip, convolution("conv_body", x)], 1, (0, 0))[0]
        for name in ("conv_up1", "conv_up2"):
            x = leaky(convolution(name, doubled(x)))
        convolution("conv_last", leaky(convolution("conv_hr", x)))
    else:
        x, skip = split("data", 2)
        last = max(int(k.split(".")[1]) for k in state)
        scale = int((state[f"body.{last}.weight"].shape[0] // 3) ** 0.5)
        for i in range(0, last, 2):
            x = convolution(f"body.{i}", x)
            slope = state[f"body.{i + 1}.weight"]
            blobs.append(slope.float().numpy().tobytes())
            x = layer("PReLU", [x], 1, (0, slope.numel()))[0]
        x = layer("PixelShuffle", [convolution(f"body.{last}", x)], 1, (0, scale))[0]
        skip = layer("Interp", [skip], 1, (0, 1), (1, f"{scale:e}"), (2, f"{scale:e}"))[0]
        layer("BinaryOp", [x, skip], 1, (0, 0))
    blob_count = sum(int(line.split()[3]) for line in lines)
    path.with_suffix(".param").write_text("\n".join(["7767517", f"{len(lines)} {blob_count}", *lines]) + "\n")
    path.with_suffix(".bin").write_bytes(b"".join(blobs))


def run_ncnn(path, picture):
    """`[3, H, W]` in 0..1 to the network's result."""
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
        setattr(net.opt, f"use_{option}", False)
    net.opt.num_threads = 1
    assert net.load_param(str(path.with_suffix(".param"))) == 0 and net.load_model(str(path.with_suffix(".bin"))) == 0
    # A Mat of an array does not keep it alive.
    array = np.ascontiguousarray(picture, np.float32)
    with net.create_extractor() as extractor:
        extractor.input("data", ncnn.Mat(array).clone())
        name = path.with_suffix(".param").read_text().split("\n")[-2].split()
        name = next(word for word in reversed(name) if "=" not in word)
        code, out = extractor.extract(name)
        assert code == 0
        return np.array(out)


def enlarged(weights, picture):
    """What ncnn makes of an RGB picture, `[H, W, 3]` bytes, with the network of a safetensors file."""
    with tempfile.TemporaryDirectory() as folder:
        path = OUT.__class__(folder) / "network"
        write_ncnn(load_file(weights), path)
        made = run_ncnn(path, picture.transpose(2, 0, 1) / 255)
    return (made.clip(0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)


def main():
    OUT.mkdir(exist_ok=True)
    if len(sys.argv) == 4:
        weights, picture, to = sys.argv[1:]
        Image.fromarray(enlarged(weights, np.array(Image.open(picture).convert("RGB")))).save(to)
        return
    tiny()
    picture = np.array(Image.open(ROOT / "docs/images/world.webp").convert("RGB"))[384:448, 576:656]
    Image.fromarray(picture).save(OUT / "picture.png")
    Image.fromarray(enlarged(EMBEDDED, picture)).save(OUT / "picture-ncnn.png")


if __name__ == "__main__":
    main()
