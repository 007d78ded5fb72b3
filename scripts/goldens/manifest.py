"""Writes goldens/MANIFEST.json: where each fixture comes from, how close a port must be, and its hash.

Run it last, after any generator. `--check` only compares the hashes.
"""

import argparse
import hashlib
import importlib.metadata
import json
import platform
import posixpath
import sys

from common import GOLDENS, save_json

MANIFEST = GOLDENS / "MANIFEST.json"
NETWORKS = "max |a - b| <= 1e-4 * max |b| for each output tensor, in f32"
PICTURES = "start and trajectory: max |a - b| <= 1e-4 * max |b|; pixels: at most 1 of 255 apart"
RANDN = "1e-6 absolute for float32; float16 and bfloat16: one unit in the last place"
RULES = [  # first match wins: prefix, generator, tolerance
    ("components/tokens.json", "components.py", "equal"),
    ("components/", "components.py", NETWORKS),
    ("pictures/", "pictures.py", PICTURES),
    ("controlnets/", "controlnets.py", PICTURES), ("families/", "families.py", PICTURES), ("loras/", "loras.py", PICTURES), ("embeddings/", "embeddings.py", PICTURES),
    ("single-file/", "single_file.py", "tensors equal to those of tiny-sdxl; pictures as in pictures/"),
    ("torch_randn.json", "torch_randn.py", RANDN),
    ("training/lora-keys.json", "lora_keys.py", "equal"),
    ("training/", "training.py", "losses: 1e-3 relative; first gradients: 1e-3 of each one's norm, and of its root mean square"),
    ("parquet/", "parquet.py", "equal"),
    ("muon", "muon.py", "1e-5 absolute"),
    ("schedulers", "schedulers.py", "as the fixture says"),
    ("tiny-", "folders.py", "an input"), ("unets/", "folders.py", "an input"), ("taesd/", "folders.py", "an input"),
    ("vae-three-levels/", "folders.py", "an input"),
    ("upscalers/picture-ncnn.png", "upscalers.py", "mean 0.01 of 255, at most 1 of 255 apart"),
    ("upscalers/", "upscalers.py", NETWORKS),
    ("sam/", "sam.py", NETWORKS),
    ("adain/", "adain.py", NETWORKS),
    ("clip/outputs", "clip.py", NETWORKS + "; pictures prepared: 0.02 absolute (a byte of 255 is 0.015); scores and CMMD 1e-3 absolute"),
    ("clip/", "clip.py", "an input"),
    ("inception-v3/", "../eval/inception.py", NETWORKS + "; resized pictures: 1e-3 of 255"),
    ("efficientnet-lite/", "../eval/convert_efficientnet.py", NETWORKS),
]


def files():
    for path in sorted(GOLDENS.rglob("*")):
        if path.is_file() and path != MANIFEST and not path.name.startswith("."):
            yield path.relative_to(GOLDENS).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()


def rows():
    for name, digest in files():
        rule = next((r for r in RULES if name.startswith(r[0])), None)
        if rule is None:
            sys.exit(f"goldens/{name}: no rule in manifest.py says which script writes it")
        yield {"file": name, "script": posixpath.normpath(f"scripts/goldens/{rule[1]}"), "tolerance": rule[2], "sha256": digest}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        listed = {r["file"]: r["sha256"] for r in json.loads(MANIFEST.read_text())["files"]}
        found = dict(files())
        wrong = sorted(n for n in listed.keys() | found.keys() if listed.get(n) != found.get(n))
        sys.exit(f"differ from MANIFEST.json: {', '.join(wrong)}" if wrong else 0)
    names = ["torch", "diffusers", "transformers", "tokenizers", "safetensors", "numpy", "pillow"]
    versions = {"python": platform.python_version(), **{n: importlib.metadata.version(n) for n in names}}
    save_json(MANIFEST, {"versions": versions, "files": list(rows())})


if __name__ == "__main__":
    main()
