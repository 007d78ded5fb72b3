"""The students that learn from distributions, in PyTorch, each from its paper's formulas, for training.py."""

import numpy as np
import torch
from torch.nn.functional import mse_loss, softplus

import draws
from distillations import Student
from trainer import SEED, Heads, blocks_of, denoise, guided, prefixed, unet


class Ladd(Student):
    """Hinge on heads over the frozen teacher's features of renoised answers; R1 by finite differences; distillation."""

    stage, blocks = "ladd", ("down.1", "down.2", "mid", "up.0")

    def __init__(self, section):
        super().__init__(section)
        self.heads = Heads([16, 32, 32, 32])

    def players(self):
        return {**super().players(), "discriminator": dict(self.heads.named_parameters())}

    def rates(self):
        return {"discriminator": self.section["discriminator_learning_rate"]}

    def turns(self, step):
        return [("discriminator", False)] * self.section["discriminator_updates"] + [("student", False)]

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
