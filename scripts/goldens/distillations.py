"""The teacher, and the students that follow its path, in PyTorch, each from its paper's formulas, for training.py."""

import numpy as np
import torch
from torch.nn.functional import mse_loss, softplus

import draws
from trainer import (SEED, Heads, Objective, blocks_of, denoise, guidance_embedding, guided, prefixed, trailing, unet,
                     with_guidance_input)


def moved(network):
    """Away from where its pretrained copy is, so that a student has something to learn."""
    network.conv_out.bias.data.add_(0.5)
    return network


class Teacher(Objective):
    """v-prediction (Salimans and Ho 2022) with dropped captions; the text encoders learn along."""

    stage = "teacher"

    def players(self):
        return {"teacher": {**prefixed("unet", self.model.unet), **self.model.text_params()}}

    def loss(self, player, number):
        rows = self.data.rows(number, self.n)
        x0, (hidden, pooled) = self.data.latents[rows], self.model.cond(rows)
        keep = torch.from_numpy(draws.uniform(SEED, draws.DROPOUT, number, self.n) >= self.section["caption_dropout"]).float()
        cond = hidden * keep.view(-1, 1, 1), pooled * keep.view(-1, 1)
        levels = self.section["timesteps"]
        share, z = draws.uniform(SEED, draws.TIMESTEP, number, self.n), draws.normal(SEED, 1, draws.TIMESTEP, number, self.n)
        log_sigma = lambda z: np.float32(levels["log_sigma_mean"]) + np.float32(levels["log_sigma_std"]) * z
        timesteps = [self.noising.last if u < levels["max_noise_share"] else self.noising.timestep_of(log_sigma(z))
                     for u, z in zip(share, z)]
        eps = draws.noise(SEED, draws.NOISE, number, x0.shape)
        output = denoise(self.model.unet, self.noising.noised(timesteps, x0, eps), timesteps, cond)
        return mse_loss(output, self.noising.velocity(timesteps, x0, eps))


class Student(Objective):
    """One that starts beside its teacher; the text encoders are frozen."""

    def __init__(self, section):
        super().__init__(section)
        self.teacher, self.student = unet(), moved(self.model.unet)

    def players(self):
        return {"student": prefixed("unet", self.student)}


class Progressive(Student):
    """One DDIM step where the teacher takes several; each phase's teacher is the student before."""

    stage, phase = "progressive", 0

    def __init__(self, section):
        super().__init__(section)
        self.ladders = [trailing(n) for n in (section["teacher_steps"], *section["steps"])]

    def turns(self, step):
        due = min(int(step / 10 * len(self.section["steps"])), len(self.section["steps"]) - 1)
        restart = due > self.phase
        if restart:
            self.teacher.load_state_dict(self.student.state_dict())
            self.phase += 1
        return [("student", restart)]

    def loss(self, player, number):
        x0, cond = self.drawn(number)
        fine, coarse = self.ladders[self.phase : self.phase + 2]
        several = len(fine) // len(coarse)
        rungs = [min(int(u * np.float32(len(coarse))), len(coarse) - 1)
                 for u in draws.uniform(SEED, draws.TIMESTEP, number, self.n)]
        timesteps = [coarse[r] for r in rungs]
        x = there = self.noising.noised(timesteps, x0, draws.noise(SEED, draws.NOISE, number, x0.shape))
        with torch.no_grad():
            for step in range(several):
                at = [fine[r * several + step] for r in rungs]
                v = guided(self.teacher, there, at, cond, self.section["guidance_scale"] if self.phase == 0 else 1.0)
                end = [fine[i] if (i := r * several + step + 1) < len(fine) else None for r in rungs]
                there = self.noising.noised(end, self.noising.denoised(at, there, v), self.noising.noise_of(at, there, v))
            # x0 such that a DDIM step with the noise that x then has arrives there (papers.md 4.1).
            (a, s), (a_end, s_end) = self.noising.at(timesteps), self.noising.at(end)
            x0 = (there - s_end / s * x) / (a_end - s_end / s * a)
            eps = (x - a * x0) / s
            target = self.noising.velocity(timesteps, x0, eps)
        return mse_loss(denoise(self.student, x, timesteps, cond), target)


class Lcm(Student):
    """Latent consistency: the average's x0 one guided DDIM step further down; pseudo-Huber."""

    stage = "lcm"

    def __init__(self, section):
        super().__init__(section)
        self.target, self.ladder = unet(), section["timesteps"]
        if "guidance_scales" in section:
            dim = section["guidance_embedding_dim"]
            self.student, self.target = with_guidance_input(self.student, dim), with_guidance_input(self.target, dim)

    def guidance(self, number):
        """The teacher's scale, or that of each sample, and what the student is told of it."""
        if "guidance_scales" not in self.section:
            return self.section["guidance_scale"], None
        least, largest = (np.float32(scale) for scale in self.section["guidance_scales"])
        scales = [float(least + (largest - least) * u) for u in draws.uniform(SEED, draws.GUIDANCE, number, self.n)]
        return scales, guidance_embedding(scales, self.section["guidance_embedding_dim"])

    def updated(self, player):
        for slow, fast in zip(self.target.parameters(), self.student.parameters()):
            slow.data.lerp_(fast.data, 1 - self.section["target_decay"])

    def loss(self, player, number):
        x0, cond = self.drawn(number)
        u = draws.uniform(SEED, draws.TIMESTEP, number, 2 * self.n).reshape(-1, 2)
        count = len(self.ladder)
        rungs = [0 if a < self.section["max_noise_share"] else min(int(b * np.float32(count)), count - 1) for a, b in u]
        timesteps = [self.ladder[r] for r in rungs]
        x = self.noising.noised(timesteps, x0, draws.noise(SEED, draws.NOISE, number, x0.shape))
        scale, told = self.guidance(number)
        with torch.no_grad():
            v = guided(self.teacher, x, timesteps, cond, scale)
            of_teacher, eps = self.noising.denoised(timesteps, x, v), self.noising.noise_of(timesteps, x, v)
            below = [self.ladder[r + 1] if r + 1 < count else 0 for r in rungs]
            lower = self.noising.noised(below, of_teacher, eps)
            answer = self.noising.denoised(below, lower, denoise(self.target, lower, below, cond, told=told))
            is_last = torch.tensor([t == 0 for t in below]).view(-1, 1, 1, 1)
            target = torch.where(is_last, of_teacher, answer)
        answer = self.noising.denoised(timesteps, x, denoise(self.student, x, timesteps, cond, told=told))
        c = self.section["huber_c"]
        return (((answer - target) ** 2 + c * c).sqrt() - c).mean()


class Ect(Student):
    """Consistency tuning: two levels of one picture under one noise, ever closer (papers.md 4.2)."""

    stage = "ect"

    def loss(self, player, number):
        x0, cond = self.drawn(number)
        section, noising = self.section, self.noising
        apart = section["q"] ** -(int(self.step / 10 * section["stages"]) + 1)
        share, z = draws.uniform(SEED, draws.TIMESTEP, number, self.n), draws.normal(SEED, 1, draws.TIMESTEP, number, self.n)
        log_sigma = lambda z: np.float32(section["log_sigma_mean"]) + np.float32(section["log_sigma_std"]) * z
        upper = [noising.last if u < section["max_noise_share"] else max(noising.timestep_of(log_sigma(z)), 1)
                 for u, z in zip(share, z)]
        ratio = lambda t: float(noising.sigma[t] / noising.alpha[t].clamp(min=1e-6))
        sigmas = [min(ratio(t), 80.0) for t in upper]
        below = [t - t * apart * (1 + 8 / (1 + np.exp(t))) for t in sigmas]
        lower = [min(noising.timestep_of(np.log(r)), t - 1) if r >= ratio(0) else None for r, t in zip(below, upper)]
        weights = [1 / (t - (r if at is not None else 0)) for t, r, at in zip(sigmas, below, lower)]
        weights = torch.tensor(weights if section["weighting"] == "inverse_step" else [1.0] * self.n)
        eps = draws.noise(SEED, draws.NOISE, number, x0.shape)
        x = noising.noised(upper, x0, eps)
        answer = noising.denoised(upper, x, denoise(self.student, x, upper, cond))
        with torch.no_grad():
            if section["guidance_scale"] != 1.0:
                v = guided(self.teacher, x, upper, cond, section["guidance_scale"])
                x0, eps = noising.denoised(upper, x, v), noising.noise_of(upper, x, v)
            at = [t or 0 for t in lower]
            y = noising.noised(at, x0, eps)
            there = noising.denoised(at, y, denoise(self.student, y, at, cond))
            is_clean = torch.tensor([t is None for t in lower]).view(-1, 1, 1, 1)
            target = torch.where(is_clean, x0, there)
        norm = ((answer - target).square().mean((1, 2, 3)) + section["huber_c"] ** 2).sqrt() - section["huber_c"]
        return (weights * norm).mean()


class MeanFlow(Student):
    """The mean velocity between two levels, by its identity (papers.md 4.5), along the angle of the path."""

    stage = "mean-flow"

    def mean_velocity(self, x, upper, lower, cond):
        v = denoise(self.student, x, upper, cond, crop_top=lower)
        d = (self.angle(upper) - self.lower_angle(lower)).view(-1, 1, 1, 1)
        # (x - (cos d x - sin d v)) / d
        return torch.where(d == 0, v, ((1 - d.cos()) * x + d.sin() * v) / torch.where(d == 0, 1.0, d))

    def angle(self, timesteps):
        a, s = self.noising.at(timesteps)
        return torch.atan2(s, a).flatten()

    def lower_angle(self, timesteps):
        return self.angle([t or None for t in timesteps])

    def levels(self, number):
        section = self.section
        u = draws.uniform(SEED, draws.TIMESTEP, number, 2 * self.n).reshape(-1, 2)
        z = draws.normal(SEED, 1, draws.TIMESTEP, number, 2 * self.n).reshape(-1, 2)
        share = 1 / (1 + np.exp(-(np.float32(section["logit_mean"]) + np.float32(section["logit_std"]) * z)))
        timesteps = (share * np.float32(self.noising.last)).astype(int)
        upper, lower = [], []
        for (far, same), pair in zip(u, timesteps.tolist()):
            t, r = max(*pair, 1), min(pair)
            if far < section["max_noise_share"]:
                t, r = self.noising.last, 0
            elif same < section["same_share"]:
                r = t
            upper.append(t)
            lower.append(r)
        return upper, lower

    def loss(self, player, number):
        x0, cond = self.drawn(number)
        upper, lower = self.levels(number)
        eps = draws.noise(SEED, draws.NOISE, number, x0.shape)
        x = self.noising.noised(upper, x0, eps)
        with torch.no_grad():
            scale = self.section["guidance_scale"]
            v = self.noising.velocity(upper, x0, eps) if scale == 1.0 else guided(self.teacher, x, upper, cond, scale)
            sides = []
            for step in (self.section["derivative_step"], -self.section["derivative_step"]):
                at = [min(max(t + step, 0), self.noising.last) for t in upper]
                moved = (self.angle(at) - self.angle(upper)).view(-1, 1, 1, 1)
                sides.append((self.mean_velocity(x + moved * v, at, lower, cond), moved))
            (above, up), (below, down) = sides
            d = (self.angle(upper) - self.lower_angle(lower)).view(-1, 1, 1, 1)
            target = v - d * (above - below) / (up - down)
        squared = (self.mean_velocity(x, upper, lower, cond) - target).square().mean((1, 2, 3))
        return (squared * (squared.detach() + self.section["adaptive_c"]) ** -self.section["adaptive_p"]).mean()


class Lightning(Student):
    """Progressive adversarial distillation: squared error, then the encoder as the judge, with trajectory and without."""

    stage, phase, sees_start = "lightning", 0, True

    def __init__(self, section):
        super().__init__(section)
        self.judge, self.with_start, self.without_start = unet(), Heads([64]), Heads([32])
        self.steps = [section["teacher_steps"], *section["steps"]]

    def players(self):
        unused = ("up_blocks.", "conv_norm_out.", "conv_out.")
        judge = {f"judge.{k}": p for k, p in self.judge.named_parameters() if not k.startswith(unused)}
        heads = {**prefixed("with_start", self.with_start), **prefixed("without_start", self.without_start)}
        return {**super().players(), "discriminator": {**judge, **heads}}

    def turns(self, step):
        count = len(self.section["steps"])
        due = min(int(step / 10 * count), count - 1)
        begins = due > self.phase
        if begins:
            self.teacher.load_state_dict(self.student.state_dict())
            self.phase += 1
        sees_start = step / 10 * count - self.phase < self.section["trajectory_share"]
        judge_begins = begins or sees_start != self.sees_start
        if judge_begins:
            self.judge.load_state_dict(self.teacher.state_dict())
            self.with_start.begin_anew()
            self.without_start.begin_anew()
        self.sees_start = sees_start
        student = [("student", begins)]
        return student if self.phase < self.section["mse_phases"] else [("discriminator", judge_begins), *student]

    def ddim(self, at, x, v, to):
        return self.noising.noised(to, self.noising.denoised(at, x, v), self.noising.noise_of(at, x, v))

    def way(self, x0, cond, number):
        """From where each sample goes, and where the teacher takes it: timesteps, latents, timesteps, latents."""
        fine, coarse = self.steps[self.phase : self.phase + 2]
        starts = max(coarse, 4)
        grid = trailing(max(fine, 4))  # as long as both divide it
        places = [min(int(u * np.float32(starts)), starts - 1) * len(grid) // starts
                  for u in draws.uniform(SEED, draws.TIMESTEP, number, self.n)]
        start = [grid[p] for p in places]
        x = self.noising.noised(start, x0, draws.noise(SEED, draws.NOISE, number, x0.shape))
        rows = []
        for i, place in enumerate(places):  # one by one: some arrive before the others
            here, place_end = x[i : i + 1], place + len(grid) // coarse
            one = cond[0][i : i + 1], cond[1][i : i + 1]
            while place < min(place_end, len(grid)):
                below = place + len(grid) // fine
                v = guided(self.teacher, here, [grid[place]], one, self.section["guidance_scale"] if self.phase == 0 else 1.0)
                here = self.ddim([grid[place]], here, v, [grid[below] if below < len(grid) else None])
                place = below
            rows.append((here, grid[place] if place < len(grid) else None))
        return start, x, [to for _, to in rows], torch.cat([there for there, _ in rows])

    def logits(self, start, x, to, end, cond, number):
        shares = np.array(self.section["renoised_shares"], dtype=np.float32)
        bounds = np.cumsum(shares) / shares.sum()
        drawn = [self.section["renoised"][int(np.searchsorted(bounds, u, side="right"))]
                 for u in draws.uniform(SEED, draws.RUNG, number, self.n)]
        at = [d if t is None else t for t, d in zip(to, drawn)]
        clean = torch.tensor([t is None for t in to]).view(-1, 1, 1, 1)
        end = torch.where(clean, self.noising.noised(at, end, draws.noise(SEED, draws.RENOISE, number, end.shape)), end)
        look = lambda x, t: blocks_of(self.judge, ["mid"])(x, t, cond)[1][0]
        if self.sees_start:
            return self.with_start([torch.cat([look(end, at), look(x, start)], 1)])
        return self.without_start([look(end, at)])

    def loss(self, player, number):
        x0, cond = self.drawn(number)
        with torch.no_grad():
            start, x, to, there = self.way(x0, cond, number)
        output = denoise(self.student, x, start, cond)
        if player == "student" and self.phase < self.section["mse_phases"]:
            (a, s), (a_end, s_end) = self.noising.at(start), self.noising.at(to)
            x0 = (there - s_end / s * x) / (a_end - s_end / s * a)
            return mse_loss(output, self.noising.velocity(start, x0, (x - a * x0) / s))
        end = self.ddim(start, x, output, to)
        if player == "student":
            return softplus(-self.logits(start, x, to, end, cond, number)).mean()
        real, fake = (self.logits(start, x, to, y, cond, number) for y in (there, end.detach()))
        return softplus(-real).mean() + softplus(fake).mean()


class LoraSet:
    """Trained matrices beside frozen layers, `y + alpha / rank * B A x` (Hu et al. 2021), added by hooks while it is active."""

    ENDINGS = {
        "attention": ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "self_attn.out_proj"),
        "transformer": ("proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "fc1", "fc2"),
        "all": ("conv1", "conv2", "conv_shortcut", "time_emb_proj", "conv"),
    }

    def __init__(self, size, components, seed, seed_up):
        self.params, self.active = {}, False
        kinds = list(self.ENDINGS)[: list(self.ENDINGS).index(size["layers"]) + 1]
        endings = tuple(f".{ending}" for kind in kinds for ending in self.ENDINGS[kind])
        for component, network in components.items():
            for name, layer in network.named_modules():
                if component != "unet" and not name.startswith("text_model."):
                    name = f"text_model.{name}"
                full = f"{component}.{name}"
                if not hasattr(layer, "weight") or not full.endswith(endings):
                    continue
                starts = [s for s in size.get("block_ranks", {}) if f"{full}.".startswith((f"{s}.", f"unet.{s}."))]
                rank = size["block_ranks"][max(starts, key=len)] if starts else size["rank"]
                if rank:
                    self.add(full, layer, rank, size["alpha"] / rank, seed, seed_up)

    def add(self, full, layer, rank, scale, seed, seed_up):
        outputs, inputs, *kernel = layer.weight.shape
        shapes = {"A": (rank, inputs, *kernel), "B": (outputs, rank, *(1 for _ in kernel))}
        fan_in = {"A": layer.weight[0].numel(), "B": rank}
        a, b = (torch.nn.Parameter(draws.random_init(s, f"{full}.lora_{which}.weight", shapes[which], fan_in[which]))
                for which, s in (("A", seed), ("B", seed_up)))
        self.params[f"{full}.lora_A.weight"], self.params[f"{full}.lora_B.weight"] = a, b

        def added(layer, args, output):
            if not self.active:
                return output
            if not kernel:
                return output + scale * torch.nn.functional.linear(torch.nn.functional.linear(args[0], a), b)
            hidden = torch.nn.functional.conv2d(args[0], a, stride=layer.stride, padding=layer.padding)
            return output + scale * torch.nn.functional.conv2d(hidden, b)

        layer.register_forward_hook(added)

    def __enter__(self):
        self.active = True

    def __exit__(self, *_):
        self.active = False


class Lora(Objective):
    """A few pictures, with the weights frozen; at a model's few timesteps by the squared error of the picture."""

    stage = "lora"

    def __init__(self, section):
        super().__init__(section)
        components = {"unet": self.model.unet}
        if section["trains_text_encoders"]:
            components.update(zip(("text_encoder", "text_encoder_2"), self.model.encoders))
        self.lora = LoraSet(section["size"], components, SEED, SEED + 1)

    def players(self):
        return {"lora": self.lora.params}

    def part(self, seed, number, dropout):
        rows = self.data.rows(number, self.n, seed)
        x0, (hidden, pooled) = self.data.latents[rows], self.model.cond(rows)
        keep = torch.from_numpy(draws.uniform(seed, draws.DROPOUT, number, self.n) >= dropout).float()
        cond = hidden * keep.view(-1, 1, 1), pooled * keep.view(-1, 1)
        u, few = draws.uniform(seed, draws.TIMESTEP, number, 2 * self.n), self.section.get("timesteps")
        if few:
            timesteps = [few[min(int(x * np.float32(len(few))), len(few) - 1)] for x in u[1::2]]
        else:
            timesteps = [min(int(x * np.float32(self.noising.last + 1)), self.noising.last) for x in u[: self.n]]
        eps = draws.noise(seed, draws.NOISE, number, x0.shape)
        x = self.noising.noised(timesteps, x0, eps)
        output = denoise(self.model.unet, x, timesteps, cond)
        if few:
            return mse_loss(self.noising.denoised(timesteps, x, output), x0)
        return mse_loss(output, self.noising.velocity(timesteps, x0, eps))

    def loss(self, player, number):
        with self.lora:
            own = self.part(SEED, number, self.section["caption_dropout"])
            prior = self.section.get("prior")
            return own + prior["weight"] * self.part(SEED + 1, number, 0.0) if prior else own


class LcmLora(Lcm):
    """Latent consistency of which a LoRA is trained: one network is teacher, student and target."""

    stage = "lcm-lora"

    def __init__(self, section):
        Objective.__init__(self, section["lcm"])
        self.ladder = section["lcm"]["timesteps"]
        network = {"unet": self.model.unet}
        self.lora = LoraSet(section["size"], network, SEED, SEED + 1)
        self.slow = LoraSet(section["size"], network, SEED, SEED + 2)
        plain = lambda *args, **kwargs: self.model.unet(*args, **kwargs)

        def within(loras):
            def run(*args, **kwargs):
                with loras:
                    return self.model.unet(*args, **kwargs)
            return run

        self.teacher, self.student, self.target = plain, within(self.lora), within(self.slow)

    def players(self):
        return {"student": self.lora.params}

    def updated(self, player):
        for slow, fast in zip(self.slow.params.values(), self.lora.params.values()):
            slow.data.lerp_(fast.data, 1 - self.section["target_decay"])
