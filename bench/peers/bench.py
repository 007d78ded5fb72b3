"""A whole model at full size, prima beside PyTorch through diffusers, in alternating rounds on one processor.

    python bench.py --prima PATH_TO/prima --model FOLDER [--quantized FOLDER...] [--dtype bf16] [--size 512] [--steps 1]
                    [--rounds 2] [--repeats 3] [--cache FOLDER [--max-memory 2G]]

`cargo xtask bench peers --python PYTHON -- --model FOLDER` builds prima and runs this; make_sdxl.py makes such a folder. Each round
starts each engine anew, one after the other. Seconds are minima over the warm pictures of all rounds; load and memory are of
the first round, memory the largest resident set, pages of files included. Where the scheduler takes one step, the engines paint
the same picture: the table says how far each is from PyTorch's. `--quantized` names folders that `prima models quantize` wrote
of the same model: a row each. With --cache prima also starts from packed weights that an earlier start left there (one that is
not measured, if need be), and with --max-memory from these within so much memory. Exit codes: 0; 1 something failed; 3 something
is missing.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

STAGES = ("text", "unet", "vae")
PROMPT = "a red fox in the snow"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prima", required=True, help="the program prima")
    parser.add_argument("--model", required=True, help="a diffusers folder of SDXL's layout")
    parser.add_argument("--quantized", nargs="*", default=[], help="the same model in fewer bits, for prima")
    parser.add_argument("--dtype", choices=("bf16", "f32"), default="bf16")
    parser.add_argument("--torch-dtype", choices=("bf16", "f32"), help="PyTorch's, where it is another: f32 on processors without bf16 products")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="warm pictures a round")
    parser.add_argument("--cache", help="a folder for packed weights")
    parser.add_argument("--max-memory", help="such as 2G")
    parser.add_argument("--json", help="write the results there as well")
    return parser.parse_args()


def prima(args, picture, model=None, memory=("--cache", "off")):
    command = [args.prima, "paint", PROMPT, "--model", model or args.model, "--dtype", args.dtype, "--steps", str(args.steps), *memory]
    command += ["--width", str(args.size), "--height", str(args.size), "--guidance-scale", "1", "--seed", "7"]
    command += ["--rng", "torch-cpu", "--scheduler", "euler", "--repeat", str(args.repeats), "--json"]
    return command + ["--output", picture]


def prima_cached(args, picture):
    return prima(args, picture, memory=("--cache", args.cache))


def prima_streamed(args, picture):
    return prima(args, picture, memory=("--cache", args.cache, "--max-memory", args.max_memory))


def torch(args, picture):
    script = str(Path(__file__).with_name("torch_peer.py"))
    sizes = [str(args.size), str(args.steps), str(args.repeats)]
    return [sys.executable, script, args.model, args.torch_dtype or args.dtype, *sizes, picture]


def prima_rows(said):
    cold, warm = said["timings_ms"], said["warm_ms"]
    row = {"text": warm["text"], "unet": warm["steps"], "vae": warm["decode"]}
    rows = [{stage: ms / 1e3 for stage, ms in row.items()}]
    first = (cold["text"] + sum(cold["steps"]) + cold["decode"]) / 1e3
    return cold["load"] / 1e3, first, rows


def torch_rows(said):
    cold, *warm = said["rows"]
    return said["load"], sum(cold.values()), warm


CACHED = "prima from its cache"
WITHIN = "prima within"


def engines(args):
    chosen = {"prima": (prima, prima_rows)}
    for folder in args.quantized:
        command = lambda args, picture, folder=folder: prima(args, picture, folder)
        chosen[f"prima {Path(folder).name}"] = (command, prima_rows)
    if args.cache:
        chosen[CACHED] = (prima_cached, prima_rows)
    if args.cache and args.max_memory:
        chosen[f"{WITHIN} {args.max_memory}"] = (prima_streamed, prima_rows)
    return {**chosen, "PyTorch": (torch, torch_rows)}


def watch(process, peak):
    """The largest resident set in bytes: pages of its own and of files."""
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            kib = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
            peak[0] = max(peak[0], kib[0] * 1024 if kib else 0)
        except OSError:
            pass
        time.sleep(0.05)


def measure(engine, name, args, picture):
    command, rows = engine
    process = subprocess.Popen(command(args, picture), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak = [0]
    watcher = threading.Thread(target=watch, args=(process, peak))
    watcher.start()
    out, errors = process.communicate()
    watcher.join()
    if process.returncode != 0:
        sys.exit(f"{name} failed:\n{errors[-2000:]}")
    load, first, warm = rows(json.loads(out))
    return {"load": load, "first_picture": load + first, "warm": warm, "peak_bytes": peak[0]}


def decibels(*pictures):
    """Between two pictures."""
    import numpy
    from PIL import Image

    a, b = (numpy.asarray(Image.open(picture).convert("RGB"), dtype=float) for picture in pictures)
    error = ((a - b) ** 2).mean()
    return float("inf") if error == 0 else 10 * numpy.log10(255**2 / error)


def summary(runs):
    warm = [row for run in runs for row in run["warm"]]
    best = {stage: min(row[stage] for row in warm) for stage in STAGES}
    return {**best, "total": min(sum(row.values()) for row in warm), **{key: runs[0][key] for key in ("load", "first_picture", "peak_bytes")}}


def main():
    args = arguments()
    if subprocess.run([sys.executable, "-c", "import torch, diffusers, transformers"], stderr=subprocess.DEVNULL).returncode:
        print("this needs a Python with torch, diffusers and transformers")
        sys.exit(3)
    with tempfile.TemporaryDirectory() as folder:
        chosen = engines(args)
        pictures = {name: os.path.join(folder, f"{name}.png") for name in chosen}
        runs = {name: [] for name in chosen}
        if args.cache:
            measure(chosen[CACHED], CACHED, args, os.path.join(folder, "unmeasured.png"))
        for _ in range(args.rounds):
            for name, engine in chosen.items():
                runs[name].append(measure(engine, name, args, pictures[name]))
                print(name, json.dumps(runs[name][-1]), file=sys.stderr, flush=True)
        apart = {name: decibels(pictures[name], pictures["PyTorch"]) for name in chosen if args.steps == 1 and name != "PyTorch"}
        for name in chosen:
            if name.startswith((CACHED, WITHIN)) and decibels(pictures["prima"], pictures[name]) != float("inf"):
                sys.exit(f"{name} painted another picture than prima without a cache")
    results = {name: summary(of) for name, of in runs.items()}
    print(f"{datetime.date.today()}, {platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} threads, "
          f"{args.dtype} (PyTorch {args.torch_dtype or args.dtype}), {args.size}x{args.size}, {args.steps} steps; seconds")
    print("| engine | text | UNet | VAE | total | load | first picture | peak GB |\n|---|---|---|---|---|---|---|---|")
    for name, found in results.items():
        keys = (*STAGES, "total", "load", "first_picture")
        cells = [f"{found[key]:.2f}" for key in keys] + [f"{found['peak_bytes'] / 1e9:.1f}"]
        print(f"| {name} | {' | '.join(cells)} |")
    for name in runs:
        if name == "PyTorch":
            continue
        shares = [f"{results[name][key] / results['PyTorch'][key]:.2f}" for key in (*STAGES, "total", "load")]
        print(f"{name}'s share of PyTorch's: text, UNet, VAE, total, load = {', '.join(shares)}")
        if name in apart:
            print(f"its picture and PyTorch's are {apart[name]:.1f} dB apart")
    if args.json:
        Path(args.json).write_text(json.dumps({"arguments": vars(args), "runs": runs, "decibels": apart}, indent=1))


main()
