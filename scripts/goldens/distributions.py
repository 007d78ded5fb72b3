"""The students that learn from distributions, in PyTorch, each from its paper's formulas, for training.py."""

import numpy as np
import torch
from torch.nn.functional import mse_loss, softplus

import draws
from common import GOLDENS
from diffusers import AutoencoderKL
from distillations import Student
from safetensors.torch import load_file
from trainer import MODEL, SEED, Heads, blocks_of, denoise, empty, guided, prefixed, unet
from transformers import CLIPTokenizer


class Game(Student):
    """A student and a discriminator, in turns."""

    def rates(self):
        return {"discriminator": self.section["discriminator_learning_rate"]}

    def turns(self, step):
        return [("discriminator", False)] * self.section["discriminator_updates"] + [("student", False)]


class Ladd(Game):
    """Hinge on heads over the frozen teacher's features of renoised answers; R1 by finite differences; distillation."""

    stage, blocks = "ladd", ("down.1", "down.2", "mid", "up.0")

    def __init__(self, section):
        super().__init__(section)
        self.heads = Heads([16, 32, 32, 32])

    def players(self):
        return {**super().players(), "discriminator": dict(self.heads.named_parameters())}

    def answered(self, x0, cond, number):
        shares = np.array(self.section["shares"], dtype=np.float32)

        def rung(u):
            left = np.float32(u) * shares.sum()
            for t, share in zip(self.section["timesteps"], shares):
                left -= share
                if left < 0:
                    return t
            return self.section["timesteps"][0]

        timesteps = [rung(u) for u in draws.uniform(SEED, draws.RUNG, number, self.n)]
        x = self.noising.noised(timesteps, x0, draws.noise(SEED, draws.NOISE, number, x0.shape))
        return x, timesteps, self.noising.denoised(timesteps, x, denoise(self.student, x, timesteps, cond))

    def renoised(self, number):
        z = draws.normal(SEED, 1, draws.TIMESTEP, number, self.n)
        share = 1 / (1 + np.exp(-(np.float32(self.section["logit_mean"]) + np.float32(self.section["logit_std"]) * z)))
        return [int(s * np.float32(self.noising.last)) for s in share]

    def loss(self, player, number):
        x0, cond = self.drawn(number)
        levels, eps = self.renoised(number), draws.noise(SEED, draws.RENOISE, number, x0.shape)
        look = lambda x: blocks_of(self.teacher, self.blocks)(self.noising.noised(levels, x, eps), levels, cond)[1]
        if player == "student":
            x, timesteps, answer = self.answered(x0, cond, number)
            with torch.no_grad():
                v = guided(self.teacher, x, timesteps, cond, self.section["guidance_scale"])
                taught = self.noising.denoised(timesteps, x, v)
            fooled = -self.heads(look(answer)).mean()
            return fooled + self.section["distillation_weight"] * mse_loss(answer, taught)
        with torch.no_grad():
            fake, real = look(self.answered(x0, cond, number)[2]), look(x0)
        of_real, of_fake = self.heads(real), self.heads(fake)
        hinge = torch.relu(1 - of_real).mean() + torch.relu(1 + of_fake).mean()
        nudged = [x + 0.1 * draws.noise(SEED + i, draws.NUDGE, number, x.shape) for i, x in enumerate(real)]
        penalty = (((self.heads(nudged) - of_real) / 0.1) ** 2).mean()
        return hinge + self.section["gradient_penalty"] * penalty


class Gan(Game):
    """No teacher: a generator of one step against an encoder with a head, relativistic; R1 and R2 by finite differences."""

    stage = "gan"

    def __init__(self, section):
        super().__init__(section)
        self.judge, self.head = unet(), Heads([32])

    def players(self):
        unused = ("up_blocks.", "conv_norm_out.", "conv_out.")
        judge = {f"judge.{k}": p for k, p in self.judge.named_parameters() if not k.startswith(unused)}
        return {**super().players(), "discriminator": {**judge, **prefixed("head", self.head)}}

    def loss(self, player, number):
        real, cond = self.drawn(number)
        timesteps = [self.noising.last] * self.n
        z = draws.noise(SEED, draws.NOISE, number, real.shape)
        painted = self.noising.denoised(timesteps, z, denoise(self.student, z, timesteps, cond))
        logits = lambda x: self.head(blocks_of(self.judge, ["mid"])(x, [0] * self.n, cond)[1])
        of_real = logits(real)
        if player == "student":
            weight = self.section["transport_weight"] * (1 - self.step / 10)
            return softplus(of_real.detach() - logits(painted)).mean() + weight * mse_loss(painted, z)
        painted = painted.detach()
        of_fake = logits(painted)
        total = softplus(of_fake - of_real).mean()
        for i, (x, before) in enumerate([(real, of_real), (painted, of_fake)]):
            nudged = x + 0.1 * draws.noise(SEED + i, draws.NUDGE, number, x.shape)
            total = total + self.section["gradient_penalty"] * (((logits(nudged) - before) / 0.1) ** 2).mean()
        return total


class Dmd2(Student):
    """Distribution matching with a fake score, a discriminator on its middle block, and backward simulation."""

    stage = "dmd2"

    def __init__(self, section):
        super().__init__(section)
        self.fake, self.heads = unet(), Heads([32])

    def players(self):
        return {**super().players(), "fake": {**prefixed("fake", self.fake), **dict(self.heads.named_parameters())}}

    def rates(self):
        return {"fake": self.section["fake_learning_rate"]}

    def turns(self, step):
        return [("fake", False)] * self.section["fake_updates"] + [("student", False)]

    def painted(self, shape, cond, number):
        rungs = self.section["timesteps"]
        last = min(int(draws.uniform(SEED, draws.RUNG, number, 1)[0] * np.float32(len(rungs))), len(rungs) - 1)
        x0 = torch.zeros(shape)
        for i, t in enumerate(rungs[: last + 1]):
            timesteps = [t] * self.n
            x = self.noising.noised(timesteps, x0, draws.noise(SEED, draws.NOISE, number * len(rungs) + i, shape))
            x0 = self.noising.denoised(timesteps, x, denoise(self.student, x, timesteps, cond))
            x0 = x0 if i == last else x0.detach()
        return x0

    def loss(self, player, number):
        real, cond = self.drawn(number)
        low, high = np.array(self.section["renoised"], dtype=np.float32)
        u = draws.uniform(SEED, draws.TIMESTEP, number, self.n)
        levels = [int((low + x * (high - low)) * np.float32(self.noising.last)) for x in u]
        eps = draws.noise(SEED, draws.RENOISE, number, real.shape)
        look = blocks_of(self.fake, ["mid"])
        painted = self.painted(real.shape, cond, number)
        if player == "fake":
            painted = painted.detach()
            output, middle = look(self.noising.noised(levels, painted, eps), levels, cond)
            denoising = mse_loss(output, self.noising.velocity(levels, painted, eps))
            of_real = look(self.noising.noised(levels, real, eps), levels, cond)[1]
            told = softplus(-self.heads(of_real)).mean() + softplus(self.heads(middle)).mean()
            return denoising + self.section["discriminator_weight"] * told
        x = self.noising.noised(levels, painted, eps)
        output, middle = look(x, levels, cond)
        with torch.no_grad():
            of_fake = self.noising.denoised(levels, x, output)
            v = guided(self.teacher, x, levels, cond, self.section["guidance_scale"])
            of_teacher = self.noising.denoised(levels, x, v)
            away = (painted - of_teacher).abs().mean((1, 2, 3), keepdim=True)
            target = painted - (of_fake - of_teacher) / away
        logits = self.heads(middle)
        weights = torch.ones(self.n)
        if self.section.get("divergence") == "forward_kl":  # f-distill: h(r) = r
            weights = logits.detach().flatten().clamp(-10, 10).exp().clamp(0.1, 20)
        matching = 0.5 * (painted - target).square().mean((1, 2, 3)) * weights / weights.mean()
        return matching.mean() + self.section["gan_weight"] * softplus(-logits).mean()


class Rdm(Student):
    """Maximum mean discrepancy of frozen features, unbiased, by autograd."""

    stage, blocks = "rdm", Ladd.blocks
    painted = Dmd2.painted

    def loss(self, player, number):
        real, cond = self.drawn(number)
        low, high = np.array(self.section["renoised"], dtype=np.float32)
        u = draws.uniform(SEED, draws.TIMESTEP, number, 1)[0]
        levels = [int((low + u * (high - low)) * np.float32(self.noising.last))] * self.n
        eps = draws.noise(SEED, draws.RENOISE, number, real.shape)

        def features(x0):
            seen = blocks_of(self.teacher, self.blocks)(self.noising.noised(levels, x0, eps), levels, cond)[1]
            return torch.cat([m for x in seen for m in (x.mean((2, 3)), x.square().mean((2, 3)))], 1).double()

        fake = features(self.painted(real.shape, cond, number))
        with torch.no_grad():
            real = features(real)
            deviation = (real.var(0, unbiased=False) + 1e-6).sqrt()
        fake, real = fake / deviation, real / deviation
        different = ~torch.eye(self.n, dtype=torch.bool)
        squared = lambda a, b: (a[:, None] - b[None]).square().mean(2)
        scale = squared(real, real)[different].mean()
        captions = squared(cond[1].double(), cond[1].double())
        alike = (-self.section["caption_weight"] * captions / captions[different].mean()).exp()

        def kernel(a, b):
            each = [(-squared(a, b) / (width * scale)).exp() for width in (0.2, 1.0, 5.0)]
            return (sum(each) / 3 * alike)[different].mean()

        return kernel(fake, fake) + kernel(real, real) - 2 * kernel(fake, real)


class FeatureMaps:
    """The tiny EfficientNet-lite of goldens/efficientnet-lite: its maps before every halving, and the last one."""

    #: blocks, stride of the first, expansion (scripts/eval/convert_efficientnet.py has the rest in its weights)
    STAGES = [(1, 1, 1), (2, 2, 6), (2, 2, 6)]

    def __init__(self):
        self.weights = load_file(GOLDENS / "efficientnet-lite/model.safetensors")

    def layer(self, x, conv, norm, stride=1, groups=1):
        weight, pads = self.weights[f"{conv}.weight"], []
        for size, kernel in zip(reversed(x.shape[2:]), reversed(weight.shape[2:])):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        x = torch.nn.functional.conv2d(torch.nn.functional.pad(x, pads), weight, stride=stride, groups=groups)
        names = ("running_mean", "running_var", "weight", "bias")
        return torch.nn.functional.batch_norm(x, *(self.weights[f"{norm}.{name}"] for name in names), eps=1e-3)

    def __call__(self, picture):
        relu6 = torch.nn.functional.relu6
        x = relu6(self.layer(((picture + 1) * 127.5 - 127) / 128, "_conv_stem", "_bn0", 2))
        maps, index = [], 0
        for blocks, stride, expand in self.STAGES:
            for i in range(blocks):
                block, before, step = f"_blocks.{index}.", x, stride if i == 0 else 1
                if step > 1 and index > 0:
                    maps.append(x)
                if expand != 1:
                    x = relu6(self.layer(x, block + "_expand_conv", block + "_bn0"))
                x = relu6(self.layer(x, block + "_depthwise_conv", block + "_bn1", step, x.shape[1]))
                x = self.layer(x, block + "_project_conv", block + "_bn2")
                x = x + before if x.shape == before.shape else x
                index += 1
        return [*maps, x]


class ConditionedHeads(Heads):
    """With projections of the caption and of the real picture (Miyato and Koyama 2018)."""

    def __init__(self, widths, conditions):
        super().__init__(widths)
        for i, (head, width) in enumerate(zip(self.heads, widths)):
            for name, length in zip(("told_text", "told_picture"), conditions):
                layer = torch.nn.Linear(length, width, bias=False)
                layer.weight.data.copy_(draws.random_init(SEED, f"heads.{i}.{name}.weight", (width, length), length))
                setattr(head, name, layer)

    def forward(self, seen, told):
        logits = []
        for head, x in zip(self.heads, seen):
            pooled = torch.nn.functional.silu(head.norm(head.conv(x))).mean((2, 3))
            wanted = head.told_text(told[0]) + head.told_picture(told[1])
            logits.append(head.out(pooled) + (pooled * wanted).sum(1, keepdim=True) / pooled.shape[1] ** 0.5)
        return torch.cat(logits, 1)


class Add(Ladd):
    """Heads on a frozen feature network's maps of decoded answers, told caption and picture, and a distillation term (Sauer et al.
    2023)."""

    stage = "add"

    def __init__(self, section):
        Student.__init__(self, section)
        self.vae, self.maps = AutoencoderKL.from_pretrained(MODEL / "vae").eval(), FeatureMaps()
        tokenizers = [CLIPTokenizer.from_pretrained(MODEL / name) for name in ("tokenizer", "tokenizer_2")]
        words = lambda t: t([section["negative_prompt"]] * self.n, padding="max_length", max_length=77, truncation=True,
                            return_tensors="pt").input_ids
        outputs = [e(words(t), output_hidden_states=True) for e, t in zip(self.model.encoders, tokenizers)]
        self.negative = torch.cat([out.hidden_states[-2] for out in outputs], -1), outputs[1].text_embeds
        x0, cond = self.drawn(0)
        maps = self.maps(self.decoded(x0[:1]))
        self.heads = ConditionedHeads([m.shape[1] for m in maps], [cond[1].shape[1], maps[-1].shape[1]])

    def decoded(self, latents):
        return self.vae.decode(latents / self.vae.config.scaling_factor).sample

    def taught(self, x0, cond, number):
        section, (low, high) = self.section, (np.float32(v) for v in self.section["renoised"])
        u = draws.uniform(SEED, draws.TIMESTEP, number, self.n)
        timesteps = [int((low + (high - low) * x) * np.float32(self.noising.last)) for x in u]
        x = self.noising.noised(timesteps, x0, draws.noise(SEED, draws.RENOISE, number, x0.shape))
        a, s = self.noising.at(timesteps)
        if section["weighting"] == "nfsd":
            score = lambda c: self.noising.noise_of(timesteps, x, denoise(self.teacher, x, timesteps, c))
            with_text, without, away = score(cond), score(empty(cond)), score(self.negative)
            clean = torch.tensor([t < 0.2 * self.noising.last for t in timesteps]).view(-1, 1, 1, 1)
            step = torch.where(clean, without, without - away) + section["guidance_scale"] * (with_text - without)
            return x0 - s / a * step, a * s / 2
        v = guided(self.teacher, x, timesteps, cond, section["guidance_scale"])
        return self.noising.denoised(timesteps, x, v), a if section["weighting"] == "exponential" else a * s / 2

    def loss(self, player, number):
        x0, cond = self.drawn(number)
        with torch.no_grad():
            real = self.maps(self.decoded(x0))
            told = cond[1], real[-1].mean((2, 3))
            if self.section.get("told") == "caption":
                told = told[0], torch.zeros_like(told[1])
        if player == "student":
            answer = self.answered(x0, cond, number)[2]
            painted = self.decoded(answer)
            fooled = -self.heads(self.maps(painted), told).mean()
            with torch.no_grad():
                target, weights = self.taught(answer.detach(), cond, number)
                target = self.decoded(target)
            distance = (weights.flatten() * (painted - target).square().mean((1, 2, 3))).mean()
            weight = self.section.get("adversarial_weight", 1.0)
            return weight * fooled + self.section["distillation_weight"] * distance
        with torch.no_grad():
            fake = self.maps(self.decoded(self.answered(x0, cond, number)[2]))
        of_real, of_fake = self.heads(real, told), self.heads(fake, told)
        hinge = torch.relu(1 - of_real).mean() + torch.relu(1 + of_fake).mean()
        nudged = [x + 0.1 * draws.noise(SEED + i, draws.NUDGE, number, x.shape) for i, x in enumerate(real)]
        penalty = (((self.heads(nudged, told) - of_real) / 0.1) ** 2).mean()
        return hinge + self.section["gradient_penalty"] * penalty
