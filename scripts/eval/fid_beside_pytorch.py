"""prima's FID beside that of pytorch-fid, with random weights of Inception at full size: no download.

    pip install torch torchvision pytorch-fid safetensors
    python fid_beside_pytorch.py --prima PATH_TO/prima [--pictures 48]

Makes two folders of pictures (smooth noise, of other colours in each), weights of pytorch-fid's own network, which its own code reads
and `inception.py` turns into prima's file, and prints both distances. Exit code 1 if they are more than 1e-3 apart, relatively.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
from unittest import mock

import numpy as np
import torch
from PIL import Image
from pytorch_fid import fid_score, inception


def pictures(folder, count, seed, tint):
    folder.mkdir()
    generator = np.random.default_rng(seed)
    for i in range(count):
        coarse = generator.integers(0, 256, (9, 9, 3)).astype(np.float32) * tint
        smooth = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize((160, 120), Image.BICUBIC)
        smooth.save(folder / f"{i:03}.png")


def random_weights(path):
    """Of the shapes that pytorch-fid downloads, with which its constructor then starts."""
    torch.manual_seed(0)
    nothing = lambda *_, **__: {}
    with mock.patch.object(inception, "load_state_dict_from_url", nothing), mock.patch.object(torch.nn.Module, "load_state_dict", nothing):
        network = inception.fid_inception_v3()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, torch.nn.BatchNorm2d):
            for values, mean, spread in [(module.weight, 1, 0.1), (module.bias, 0, 0.1), (module.running_mean, 0, 0.1)]:
                torch.nn.init.normal_(values, mean, spread)
            module.running_var.uniform_(1, 1.5)
    state = network.state_dict()
    torch.save(state, path)
    inception.load_state_dict_from_url = lambda *_, **__: state


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prima", required=True)
    parser.add_argument("--pictures", type=int, default=48)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        folders = [work / "real", work / "other"]
        for i, (folder, tint) in enumerate(zip(folders, ([1, 1, 1], [1, 0.8, 0.5]))):
            pictures(folder, args.pictures, i, np.array(tint, np.float32))
        random_weights(work / "weights.pth")
        converter = pathlib.Path(__file__).with_name("inception.py")
        subprocess.run([sys.executable, converter, work / "weights.pth", work / "weights.safetensors"], check=True)
        theirs = fid_score.calculate_fid_given_paths([str(f) for f in folders], 16, "cpu", 2048, num_workers=0)
        command = [args.prima, "eval", "distance", *folders, "--inception", work / "weights.safetensors", "--resize", "bilinear"]
        answer = subprocess.run([*command, "--json"], check=True, stdout=subprocess.PIPE, text=True)
        ours = json.loads(answer.stdout)["distances"]["frechet"]
    apart = abs(ours - theirs) / theirs
    print(f"pytorch-fid {theirs:.6f}, prima {ours:.6f}: {apart:.1e} apart")
    sys.exit(int(apart > 1e-3))


if __name__ == "__main__":
    main()
