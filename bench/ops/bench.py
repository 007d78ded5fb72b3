"""prima's ops beside those of PyTorch and ONNX Runtime on one processor, in the same run.

    python bench.py --prima PATH_TO/ops [--rounds 5] [--threads N] [--only conv,attention] [--json out.json]

Needs torch; with onnxruntime and onnx its matrix products and convolutions too. `cargo xtask bench ops --peers` builds the program
and runs this. Each op is measured by one engine after the other, round after round, the others idle meanwhile; the figures
are medians of the rounds, the ratios medians of each round's. PyTorch runs convolutions in both memory formats and is given
the faster one. Exit codes: 0; 1 something failed; 3 torch is missing.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prima", required=True, help="the program ops")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", default="linear,conv,doubled_conv,attention,training,narrow_training")
    parser.add_argument("--json", help="write the results there as well")
    return parser.parse_args()


def median_seconds(work):
    """As the program measures: the median of at least five calls, for a second, after a fifth of one."""
    start = time.perf_counter()
    while time.perf_counter() - start < 0.2:
        work()
    times, start = [], time.perf_counter()
    while len(times) < 5 or time.perf_counter() - start < 1.0:
        t = time.perf_counter()
        work()
        times.append(time.perf_counter() - t)
    return statistics.median(times)


class Prima:
    name = "prima"

    def __init__(self, args):
        self.args = args
        self.environment = dict(os.environ, RAYON_NUM_THREADS=str(args.threads))
        lines = subprocess.run([args.prima, "--list"], stdout=subprocess.PIPE, check=True, text=True).stdout
        self.ops = [dict(json.loads(line), number=number) for number, line in enumerate(lines.splitlines())]

    def work(self, op):
        command = [self.args.prima, "--json", str(op["number"])]

        def measure():
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=self.environment)
            return json.loads(done.stdout)["seconds"]

        return measure


class Torch:
    name = "torch"

    def __init__(self, args):
        import torch

        self.torch = torch
        torch.set_num_threads(args.threads)
        torch.manual_seed(0)
        self.version = torch.__version__

    def work(self, op):
        torch, sizes = self.torch, op["sizes"]
        dtype = torch.bfloat16 if op["dtype"] == "bf16" else torch.float32
        functional = torch.nn.functional
        random = lambda *shape: torch.randn(*shape).to(dtype)
        if op["kind"] == "linear":
            m, k, n = sizes
            x, w = random(m, k), random(n, k)
            return self.inference(lambda: functional.linear(x, w))
        if op["kind"] in ("conv", "doubled_conv"):
            channels, size = sizes
            before = size // 2 if op["kind"] == "doubled_conv" else size
            x, w = random(1, channels, before, before), random(channels, channels, 3, 3)

            def convolve(x, w):
                if before != size:
                    x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
                return functional.conv2d(x, w, padding=1)

            last = [t.to(memory_format=torch.channels_last) for t in (x, w)]
            both = [self.inference(lambda: convolve(x, w)), self.inference(lambda: convolve(*last))]
            return lambda: min(measure() for measure in both)
        if op["kind"] == "attention":
            heads, length, dim = sizes
            x = random(1, heads, length, dim)
            return self.inference(lambda: functional.scaled_dot_product_attention(x, x, x))
        training = self.narrow_training if op["kind"] == "narrow_training" else self.training
        return training(*sizes, autocast=op["dtype"] == "bf16")

    def inference(self, work):
        def measure():
            with self.torch.inference_mode():
                return median_seconds(work)

        return measure

    def training(self, batch, autocast):
        torch = self.torch
        channels = [(64, 64), (64, 128), (128, 128), (128, 256), (256, 256)]
        last = torch.channels_last
        weights = [
            (0.02 * torch.randn(o, i, 3, 3)).to(memory_format=last).requires_grad_() for i, o in channels
        ]
        x = torch.randn(batch, 64, 32, 32).to(memory_format=last)

        def step():
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                h = x
                for weight in weights:
                    h = torch.nn.functional.conv2d(h, weight, padding=1)
                tokens = h.flatten(2).transpose(1, 2).reshape(batch, 1024, 4, 64).transpose(1, 2)
                attended = torch.nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
                loss = (tokens + attended).float().square().mean()
            torch.autograd.grad(loss, weights)

        return lambda: median_seconds(step)


    def narrow_training(self, batch, autocast):
        """The layers of NARROW in bench/src/bin/ops.rs."""
        torch, nn = self.torch, self.torch.nn

        class Residual(nn.Module):
            def __init__(self, channels):
                super().__init__()
                self.norm = nn.GroupNorm(4, channels, eps=1e-6)
                self.conv = nn.Conv2d(channels, channels, 3, padding=1)

            def forward(self, x):
                return x + self.conv(nn.functional.silu(self.norm(x)))

        layers = [
            nn.Conv2d(3, 16, 3, padding=1),
            Residual(16),
            Residual(16),
            nn.ZeroPad2d((0, 1, 0, 1)),
            nn.Conv2d(16, 24, 3, stride=2),
            Residual(24),
            Residual(24),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(24, 16, 3, padding=1),
            Residual(16),
            nn.Conv2d(16, 3, 3, padding=1),
        ]

        def step_in(memory_format):
            network = nn.Sequential(*layers).to(memory_format=memory_format)
            x = torch.randn(batch, 3, 128, 128).to(memory_format=memory_format)

            def step():
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                    out = network(x)
                loss = (out.float() - x).square().mean()
                torch.autograd.grad(loss, list(network.parameters()))

            return median_seconds(step)

        return lambda: min(step_in(torch.channels_last), step_in(torch.contiguous_format))


class OnnxRuntime:
    """f32 only: its CPU kernels for bf16 are few."""

    name = "onnxruntime"

    def __init__(self, args):
        import numpy
        import onnx
        import onnxruntime

        self.numpy, self.onnx, self.runtime = numpy, onnx, onnxruntime
        self.version = onnxruntime.__version__
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = args.threads
        self.options.log_severity_level = 3

    def work(self, op):
        if op["kind"] not in ("linear", "conv") or op["dtype"] != "f32":
            return None
        if op["kind"] == "linear":
            m, k, n = op["sizes"]
            x, w, node = [m, k], [k, n], self.onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
        else:
            channels, size = op["sizes"]
            x, w = [1, channels, size, size], [channels, channels, 3, 3]
            node = self.onnx.helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
        helper, float32 = self.onnx.helper, self.onnx.TensorProto.FLOAT
        random = self.numpy.random.default_rng(0)
        weight = self.onnx.numpy_helper.from_array(random.standard_normal(w, dtype="float32"), "w")
        inputs = [helper.make_tensor_value_info("x", float32, x)]
        outputs = [helper.make_tensor_value_info("y", float32, None)]
        graph = helper.make_graph([node], "op", inputs, outputs, [weight])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        session = self.runtime.InferenceSession(
            model.SerializeToString(), self.options, providers=["CPUExecutionProvider"]
        )
        value = random.standard_normal(x, dtype="float32")
        return lambda: median_seconds(lambda: session.run(None, {"x": value}))


def main():
    args = arguments()
    try:
        peers = [Torch(args)]
    except ImportError as error:
        print(f"not run: {error}; install torch", file=sys.stderr)
        sys.exit(3)
    try:
        peers.append(OnnxRuntime(args))
    except ImportError as error:
        print(f"without ONNX Runtime: {error}", file=sys.stderr)
    prima = Prima(args)
    print(f"{args.threads} threads, " + ", ".join(f"{peer.name} {peer.version}" for peer in peers))
    print(f"{'GFLOP/s, and prima as a multiple of each':<44} {'prima':>8}" + "".join(f"{p.name:>20}" for p in peers))
    results = []
    for op in prima.ops:
        if op["kind"] not in args.only.split(","):
            continue
        work = {engine.name: engine.work(op) for engine in [prima, *peers]}
        rounds = {name: [] for name, measure in work.items() if measure}
        for _ in range(args.rounds):
            for name in rounds:
                rounds[name].append(work[name]())
        gflops = {name: op["flops"] / statistics.median(times) / 1e9 for name, times in rounds.items()}
        ratios = {
            name: statistics.median(peer / own for own, peer in zip(rounds["prima"], times))
            for name, times in rounds.items()
            if name != "prima"
        }
        results.append({"op": op["name"], "gflops": gflops, "times_faster": ratios})
        cells = [f"{gflops[p.name]:>11.1f} ({ratios[p.name]:>4.2f}x)" if p.name in ratios else f"{'':>19}" for p in peers]
        print(f"{op['name']:<44} {gflops['prima']:>8.1f} " + " ".join(cells), flush=True)
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"threads": args.threads, "rounds": args.rounds, "results": results}, file, indent=1)


main()
