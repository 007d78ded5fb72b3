"""prima beside PyTorch on one GPU: SDXL at full size with random weights, and a training step of the scene model's teacher.

    python bench.py --prima PATH_TO/gpu [--device cuda:0] [--dtype bf16] [--runs 20] [--json out.json]
                    [--tiny] [--skip-compile] [--only turbo,lightning,train]

Needs torch and diffusers (with transformers); no model files. `cargo xtask bench gpu` builds the program and runs this; on a
machine without cargo, carry the program and this file there. Both sides run the same networks, from the configs that the program
prints, in the same types, on the same card, one after the other. Exit codes: 0; 1 something failed; 3 a GPU, torch or diffusers
is missing, and what can be measured without was.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

TEXT_TOKENS = 77


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prima", required=True, help="the program gpu")
    parser.add_argument("--device", default="cuda:0", help="cuda:N, or cpu to try the bench itself")
    parser.add_argument("--dtype", default="bf16", choices=["bf16", "f32"])
    parser.add_argument("--tf32", action="store_true", help="TF32 products in f32, on both sides")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=4)
    parser.add_argument("--tiny", action="store_true", help="very small networks: tries the bench, measures nothing")
    parser.add_argument("--skip-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--only", default="turbo,lightning,train")
    parser.add_argument("--json", help="write the results there as well")
    return parser.parse_args()


def run_prima(args):
    """The program's measurements; None where it found no GPU."""
    command = [args.prima, "--device", args.device, "--dtype", args.dtype, "--only", args.only]
    command += ["--runs", str(args.runs), "--warmup", str(args.warmup)]
    command += ["--tiny"] * args.tiny + ["--tf32"] * args.tf32
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode == 3:
        return None
    if done.returncode:
        sys.exit(f"{args.prima} failed ({done.returncode})")
    return json.loads(done.stdout)


def layouts(args):
    command = [args.prima, "--layouts"] + ["--tiny"] * args.tiny
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)


class Torch:
    """The same networks in diffusers and transformers."""

    def __init__(self, args, layout, compiled):
        import torch

        self.torch, self.args, self.layout, self.compiled = torch, args, layout, compiled
        self.device = torch.device(args.device)
        self.dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.tf32
        torch.backends.cudnn.benchmark = True
        torch.manual_seed(0)

    def synchronize(self):
        if self.device.type == "cuda":
            self.torch.cuda.synchronize(self.device)

    def reset_peak(self):
        if self.device.type == "cuda":
            self.torch.cuda.empty_cache()
            self.torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self):
        return self.torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0

    def median_ms(self, work):
        times = []
        for run in range(self.args.warmup + self.args.runs):
            self.synchronize()
            start = time.perf_counter()
            work()
            self.synchronize()
            if run >= self.args.warmup:
                times.append((time.perf_counter() - start) * 1e3)
        return statistics.median(times)

    def compile(self, work):
        """CUDA graphs where there is a GPU, as prima has them."""
        if not self.compiled:
            return work
        mode = "max-autotune" if self.device.type == "cuda" else "default"
        return self.torch.compile(work, mode=mode, fullgraph=True)

    def networks(self):
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

        torch, configs = self.torch, self.layout["configs"]

        def ready(network):
            # Random everywhere: zeros, as in a network that is yet to be trained, would be multiplied faster.
            with torch.no_grad():
                for parameter in network.parameters():
                    if parameter.dim() >= 2:
                        parameter.normal_(0, (3 * parameter[0].numel()) ** -0.5)
            return network.to(self.dtype).to(memory_format=torch.channels_last).eval().requires_grad_(False)

        with self.device:
            self.text_1 = ready(CLIPTextModel(CLIPTextConfig(**configs["text_encoder"])))
            self.text_2 = ready(CLIPTextModelWithProjection(CLIPTextConfig(**configs["text_encoder_2"])))
            self.unet = ready(UNet2DConditionModel.from_config(configs["unet"]))
            self.vae = ready(AutoencoderKL.from_config(configs["vae"]))
        self.scaling_factor = configs["vae"]["scaling_factor"]
        self.run_unet = self.compile(lambda *inputs: self.unet(*inputs[:3], added_cond_kwargs=inputs[3], return_dict=False)[0])
        self.run_vae = self.compile(lambda latents: self.vae.decode(latents, return_dict=False)[0])

    def text(self):
        ids = self.torch.randint(3, 50, (1, TEXT_TOKENS)).to(self.device)
        first = self.text_1(ids, output_hidden_states=True)
        second = self.text_2(ids, output_hidden_states=True)
        return self.torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1), second.text_embeds

    def denoise(self, latents, timestep, text):
        side = 8.0 * latents.shape[-1]
        time_ids = self.torch.tensor([[side, side, 0, 0, side, side]], device=self.device, dtype=self.dtype)
        timestep = self.torch.tensor(timestep, device=self.device)
        self.mark()
        return self.run_unet(latents.to(self.dtype), timestep, text[0], {"text_embeds": text[1], "time_ids": time_ids})

    def mark(self):
        """Tells the compiled graphs that what they gave before is done with."""
        if self.compiled and self.device.type == "cuda":
            self.torch.compiler.cudagraph_mark_step_begin()

    def decode(self, latents):
        """To bytes on the host."""
        self.mark()
        picture = self.run_vae((latents / self.scaling_factor).to(self.dtype))
        return ((picture.float() * 0.5 + 0.5).clamp(0, 1) * 255).round().to(self.torch.uint8).permute(0, 2, 3, 1).cpu()

    def noise(self, painting):
        side = painting["size_px"] // 2 ** (len(self.layout["configs"]["vae"]["block_out_channels"]) - 1)
        latents = self.torch.randn(1, 4, side, side, device=self.device)
        return latents.to(memory_format=self.torch.channels_last)

    def schedule(self, painting):
        import diffusers

        scheduler = getattr(diffusers, painting["scheduler"])(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="trailing"
        )
        scheduler.set_timesteps(painting["steps"])
        return scheduler.timesteps.tolist(), scheduler.sigmas.tolist()

    def paint(self, painting, timesteps, sigmas):
        """Text, Euler's steps with their numbers known before, picture."""
        text = self.text()
        latents = self.noise(painting) * (sigmas[0] ** 2 + 1) ** 0.5
        for timestep, sigma, following in zip(timesteps, sigmas, sigmas[1:]):
            output = self.denoise(latents / (sigma**2 + 1) ** 0.5, timestep, text)
            latents = latents + (following - sigma) * output.float()
        return self.decode(latents)

    def measure_painting(self, painting):
        with self.torch.no_grad():
            self.reset_peak()
            timesteps, sigmas = self.schedule(painting)
            text, latents = self.text(), self.noise(painting)
            return {
                "text_ms": self.median_ms(self.text),
                "unet_ms": self.median_ms(lambda: self.denoise(latents, 999.0, text)),
                "vae_ms": self.median_ms(lambda: self.decode(latents)),
                "end_to_end_ms": self.median_ms(lambda: self.paint(painting, timesteps, sigmas)),
                "peak_bytes": self.peak(),
            }

    def measure_training(self):
        """Weights in f32, activations by autocast in bf16, AdamW: as prima trains."""
        from diffusers import UNet2DConditionModel

        torch, plan = self.torch, self.layout["training"]
        with self.device:
            unet = UNet2DConditionModel.from_config(plan["unet"]).to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4, fused=self.device.type == "cuda")
        batch, side, channels = plan["batch"], plan["latent_px"], plan["unet"]["in_channels"]
        random = lambda *shape: torch.randn(*shape, device=self.device)
        sample, target = random(batch, channels, side, side), random(batch, channels, side, side)
        context = random(batch, plan["tokens"], plan["unet"]["cross_attention_dim"])
        ids = torch.tensor([[128.0, 128, 0, 0, 128, 128]] * batch, device=self.device)
        added = {"text_embeds": random(batch, plan["pooled"]), "time_ids": ids}
        timesteps = torch.full((batch,), 500, device=self.device)

        def loss_of(sample, timesteps, context, added):
            out = unet(sample, timesteps, context, added_cond_kwargs=added, return_dict=False)[0]
            return torch.nn.functional.mse_loss(out.float(), target)

        run = self.compile(loss_of)

        def step():
            self.mark()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.args.dtype == "bf16"):
                loss = run(sample, timesteps, context, added)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
            optimizer.step()
            return loss.item()

        self.reset_peak()
        step_ms = self.median_ms(step)
        return {"batch": batch, "step_ms": step_ms, "samples_per_s": batch / step_ms * 1e3, "peak_bytes": self.peak()}

    def measure(self):
        wanted, out = self.args.only.split(","), {}
        paintings = [p for p in self.layout["paintings"] if p["name"] in wanted]
        if paintings:
            self.networks()
        for painting in paintings:
            out[painting["name"]] = self.measure_painting(painting)
        for part in ["text_1", "text_2", "unet", "vae", "run_unet", "run_vae"]:
            self.__dict__.pop(part, None)
        if "train" in wanted:
            out["train"] = self.measure_training()
        return out


def torch_or_reason(args):
    """None if PyTorch's side can run, else what is missing."""
    try:
        import diffusers  # noqa: F401
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        return f"PyTorch's side did not run: this Python has no {error.name} (pip install torch diffusers transformers)"
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        return "PyTorch's side did not run: torch finds no GPU"
    return None


ROWS = [
    ("text_ms", "text, ms"),
    ("unet_ms", "UNet, one evaluation, ms"),
    ("vae_ms", "VAE and bytes, ms"),
    ("end_to_end_ms", "end to end, ms"),
    ("step_ms", "training step, ms"),
    ("samples_per_s", "samples a second"),
    ("peak_bytes", "peak memory, MiB"),
]


def table(results):
    """One line a number; ratios are PyTorch's over prima's, of speeds prima's over PyTorch's: above 1 prima is ahead."""
    sides = [side for side in ["prima", "eager", "compile"] if results.get(side)]
    peers = [side for side in sides if side != "prima" and "prima" in sides]
    heads = ["what"] + sides + [f"{side} / prima" for side in peers]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name in ["turbo", "lightning", "train"]:
        for key, title in ROWS:
            numbers = {side: results[side].get(name, {}).get(key) for side in sides}
            if not any(numbers.values()):
                continue
            scale = 2**-20 if key == "peak_bytes" else 1
            cells = [f"{numbers[side] * scale:.2f}" if numbers[side] else "-" for side in sides]
            for side in peers:
                a, b = numbers[side], numbers["prima"]
                ratio = (b / a if key == "samples_per_s" else a / b) if a and b else None
                cells.append(f"{ratio:.2f}" if ratio else "-")
            lines.append(f"| {name}: {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    args = arguments()
    missing = []
    layout = layouts(args)
    results = {"device": args.device, "dtype": args.dtype, "tf32": args.tf32, "tiny": args.tiny, "runs": args.runs}
    results["prima"] = run_prima(args)
    if results["prima"] is None:
        missing.append("prima's side did not run: it finds no GPU (its own sentence is above)")
    reason = torch_or_reason(args)
    if reason:
        missing.append(reason)
    else:
        import diffusers
        import torch

        results["versions"] = {"torch": torch.__version__, "diffusers": diffusers.__version__}
        if args.device.startswith("cuda"):
            results["card"] = torch.cuda.get_device_name(torch.device(args.device))
        results["eager"] = Torch(args, layout, compiled=False).measure()
        if not args.skip_compile:
            results["compile"] = Torch(args, layout, compiled=True).measure()
    if results["prima"] or results.get("eager"):
        print(f"{results.get('card', args.device)}, {args.dtype}, median of {args.runs}", end="")
        print("; very small networks: this measures nothing" if args.tiny else "")
        print(table(results))
    print(json.dumps(results))
    if args.json:
        with open(args.json, "w") as file:
            json.dump(results, file, indent=1)
    for sentence in missing:
        print(f"missing: {sentence}", file=sys.stderr)
    sys.exit(3 if missing else 0)


if __name__ == "__main__":
    main()
