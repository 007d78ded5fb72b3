"""What every objective of training.py is made of: the tiny model, its data, the noise, the loop."""


import numpy as np
import torch
from diffusers import DDIMScheduler, LatentConsistencyModelPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import draws
from common import GOLDENS

MODEL, STEPS = GOLDENS / "tiny-sdxl", 10
CAPTIONS = ["a red apple", "a cat", "two dogs on the grass", "the sea at night", "a blue car", "an old house", "rain",
            "a cake"]
SEED, SIDE, CHANNELS = 1, 8, 4
OPTIMIZER = {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-4, "weight_decay": 0.01, "max_grad_norm": 1.0,
             "lr_warmup_steps": 1, "lr_scheduler": "constant"}
LOOP = {"optimizer": OPTIMIZER, "log_every": 1, "sample_every": 0, "save_every_s": 100000}


class Noising:
    """x_t = alpha x0 + sigma noise, and v-prediction."""

    def __init__(self):
        betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
        scheduler = DDIMScheduler(**betas, rescale_betas_zero_snr=True)
        self.alpha, self.sigma = scheduler.alphas_cumprod.sqrt(), (1 - scheduler.alphas_cumprod).sqrt()
        self.last = len(self.alpha) - 1

    def at(self, timesteps):
        """Factors of picture and noise, `[B, 1, 1, 1]`; no timestep is no noise."""
        a = torch.tensor([1.0 if t is None else float(self.alpha[t]) for t in timesteps]).view(-1, 1, 1, 1)
        s = torch.tensor([0.0 if t is None else float(self.sigma[t]) for t in timesteps]).view(-1, 1, 1, 1)
        return a, s

    def noised(self, timesteps, x0, eps):
        a, s = self.at(timesteps)
        return a * x0 + s * eps

    def velocity(self, timesteps, x0, eps):
        a, s = self.at(timesteps)
        return a * eps - s * x0

    def denoised(self, timesteps, x, v):
        a, s = self.at(timesteps)
        return a * x - s * v

    def noise_of(self, timesteps, x, v):
        a, s = self.at(timesteps)
        return s * x + a * v

    def timestep_of(self, log_sigma):
        ratios = (self.sigma / self.alpha.clamp(min=1e-6)).numpy()
        return min(int(np.searchsorted(ratios, np.exp(np.float32(log_sigma)))), self.last)


def trailing(steps):
    return [int(t) for t in np.round(np.arange(1000, 0, -1000 / steps)) - 1][:steps]


class Data:
    """Eight captions, each with its latents, as crates/train's cache keeps them."""

    def __init__(self):
        each = SIDE * SIDE * CHANNELS
        raw = draws.normal(5, 0, draws.LATENT, 0, len(CAPTIONS) * each).reshape(-1, CHANNELS)
        mean, std = raw.astype(np.float64).mean(0).astype(np.float32), raw.astype(np.float64).std(0).astype(np.float32)
        stored = raw.astype(np.float16).astype(np.float32)
        latents = ((stored - mean) / std).reshape(len(CAPTIONS), SIDE, SIDE, CHANNELS)
        self.latents = torch.from_numpy(latents).permute(0, 3, 1, 2).contiguous()

    def rows(self, number, n, seed=SEED):
        u = draws.uniform(seed, draws.ROW, number, n + 1)[1:].astype(np.float64)
        return [min(int(x * len(CAPTIONS)), len(CAPTIONS) - 1) for x in u]


class Model:
    """tiny-sdxl: its UNet, its text encoders, and what the UNet is told."""

    def __init__(self):
        self.unet = unet()
        encoders = (CLIPTextModel, CLIPTextModelWithProjection)
        names = ("text_encoder", "text_encoder_2")
        self.encoders = [cls.from_pretrained(MODEL / name).eval() for cls, name in zip(encoders, names)]
        tokenizers = [CLIPTokenizer.from_pretrained(MODEL / name) for name in ("tokenizer", "tokenizer_2")]
        tokens = lambda t: t(CAPTIONS, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        self.ids = [tokens(tokenizer) for tokenizer in tokenizers]

    def cond(self, rows):
        outputs = [e(ids[rows], output_hidden_states=True) for e, ids in zip(self.encoders, self.ids)]
        return torch.cat([out.hidden_states[-2] for out in outputs], -1), outputs[1].text_embeds

    def text_params(self):
        named = {}
        for name, encoder in zip(("text_encoder", "text_encoder_2"), self.encoders):
            for key, param in encoder.named_parameters():
                key = key if key.startswith(("text_model.", "text_projection")) else f"text_model.{key}"
                named[f"{name}.{key}"] = param
        return named


def unet():
    return UNet2DConditionModel.from_pretrained(MODEL / "unet").eval()


def empty(cond):
    return tuple(torch.zeros_like(part) for part in cond)


def with_guidance_input(network, dim):
    """The same network with an input for the guidance scale, which says nothing yet."""
    wider = UNet2DConditionModel.from_config({**network.config, "time_cond_proj_dim": dim}).eval()
    wider.load_state_dict(network.state_dict(), strict=False)
    torch.nn.init.zeros_(wider.time_embedding.cond_proj.weight)
    return wider


def guidance_embedding(scales, dim):
    """diffusers' LatentConsistencyModelPipeline.get_guidance_scale_embedding."""
    of = LatentConsistencyModelPipeline.get_guidance_scale_embedding
    return of(None, torch.tensor(scales) - 1, embedding_dim=dim)


def denoise(network, x, timesteps, cond, crop_top=None, told=None):
    side = float(8 * SIDE)
    ids = torch.tensor([[side, side, 0.0, 0.0, side, side]]).repeat(len(x), 1)
    if crop_top is not None:
        ids[:, 2] = torch.tensor([float(t) for t in crop_top])
    added = {"text_embeds": cond[1], "time_ids": ids}
    timesteps = torch.tensor([float(t) for t in timesteps])
    return network(x, timesteps, encoder_hidden_states=cond[0], added_cond_kwargs=added, timestep_cond=told).sample


def guided(network, x, timesteps, cond, scale):
    text = denoise(network, x, timesteps, cond)
    if scale == 1.0:
        return text
    plain = denoise(network, x, timesteps, empty(cond))
    return plain + (scale if isinstance(scale, float) else torch.tensor(scale).view(-1, 1, 1, 1)) * (text - plain)


def blocks_of(network, names):
    """Runs `network` and gives its output and what the blocks called `names` made."""
    blocks = {**{f"down.{i}": b for i, b in enumerate(network.down_blocks)}, "mid": network.mid_block,
              **{f"up.{i}": b for i, b in enumerate(network.up_blocks)}}

    def run(x, timesteps, cond):
        seen, hooks = [], []
        for name in names:
            keep = lambda _m, _i, out: seen.append(out[0] if isinstance(out, tuple) else out)
            hooks.append(blocks[name].register_forward_hook(keep))
        output = denoise(network, x, timesteps, cond)
        for hook in hooks:
            hook.remove()
        return output, seen

    return run


class Heads(torch.nn.Module):
    """Convolution, norm, mean over all places, one number: one head for each of `widths`."""

    def __init__(self, widths):
        super().__init__()
        self.heads = torch.nn.ModuleList()
        for width in widths:
            head = torch.nn.Module()
            head.conv = torch.nn.Conv2d(width, width, 3, padding=1)
            head.norm = torch.nn.GroupNorm(width // 16 if width % 16 == 0 else 1, width)
            head.out = torch.nn.Linear(width, 1)
            self.heads.append(head)
        self.begin_anew()

    def begin_anew(self):
        for name, param in self.named_parameters():
            if param.ndim > 1:
                param.data.copy_(draws.random_init(SEED, name, param.shape, param[0].numel()))
            else:
                param.data.fill_(1.0 if name.endswith("norm.weight") else 0.0)

    def forward(self, seen):
        one = lambda head, x: head.out(torch.nn.functional.silu(head.norm(head.conv(x))).mean((2, 3)))
        return torch.cat([one(head, x) for head, x in zip(self.heads, seen)], 1)


def prefixed(prefix, module):
    return {f"{prefix}.{key}": param for key, param in module.named_parameters()}


class Objective:
    """What crates/train calls so: players, turns, losses."""

    def __init__(self, section):
        self.section, self.data, self.model, self.noising = section, Data(), Model(), Noising()
        self.n = section["batch_size"]

    def drawn(self, number):
        rows = self.data.rows(number, self.n)
        with torch.no_grad():
            cond = self.model.cond(rows)
        return self.data.latents[rows], cond

    #: Of the step at hand; its fraction of all is what is spent of the budget.
    step = 0

    def rates(self):
        return {}

    def turns(self, step):
        return [(next(iter(self.players())), False)]

    def updated(self, player):
        pass


def optimizer_of(params, rate, o):
    matrices = [p for p in params if p.ndim > 1]
    others = [p for p in params if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": o["weight_decay"]}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate * o["learning_rate"], betas=(o["beta1"], o["beta2"]), eps=o["epsilon"])


def gradients(objective, player, number):
    params = objective.players()[player]
    with torch.enable_grad():
        loss = objective.loss(player, number)
        found = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
    return loss.item(), dict(zip(params, found))


def sketch(params, found):
    rows = []
    for key in sorted(params):
        gradient = torch.zeros_like(params[key]) if found[key] is None else found[key]
        flat = gradient.flatten()
        rows.append([flat.norm().item(), *(flat[i * len(flat) // 8].item() for i in range(8))])
    return torch.tensor(rows)


def train(objective):
    players = objective.players()
    firsts = {player: sketch(players[player], gradients(objective, player, 0)[1]) for player in players}
    settings = objective.section.get("loop", LOOP)["optimizer"]
    fresh = lambda player: optimizer_of(players[player].values(), objective.rates().get(player, 1.0), settings)
    optimizers, number, losses = {player: fresh(player) for player in players}, 0, {player: [] for player in players}
    for step in range(STEPS):
        objective.step = step
        of_step = {player: [] for player in players}
        for player, restart in objective.turns(step):
            if restart:
                optimizers[player] = fresh(player)
            loss, found = gradients(objective, player, number)
            for key, param in players[player].items():
                param.grad = found[key]
            torch.nn.utils.clip_grad_norm_(players[player].values(), settings["max_grad_norm"])
            optimizers[player].step()
            objective.updated(player)
            of_step[player].append(loss)
            number += 1
        for player, turns in of_step.items():
            losses[player] += [float(np.mean(turns))] if turns else []
    return losses, firsts
