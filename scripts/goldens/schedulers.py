"""Writes goldens/schedulers.json: diffusers' scheduler tables and trajectories.

Every case runs a scheduler class of diffusers with a fixed fake network on a sample of three numbers.
Samples are f64 so that what is compared is the coefficients, which diffusers holds in f32.
The start sample, the noises and the network are the closed forms below; the Rust test repeats them.
"""

import importlib
import json
from importlib.metadata import version

import torch
from common import GOLDENS

WIDTH = 3
STEPS = [1, 2, 3, 4, 5, 6, 7, 8, 20, 50]
LATENT = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
MODULES = {
    "EulerDiscreteScheduler": "scheduling_euler_discrete",
    "EulerAncestralDiscreteScheduler": "scheduling_euler_ancestral_discrete",
    "DDIMScheduler": "scheduling_ddim",
    "LCMScheduler": "scheduling_lcm",
    "TCDScheduler": "scheduling_tcd",
    "DPMSolverMultistepScheduler": "scheduling_dpmsolver_multistep",
    "DPMSolverSinglestepScheduler": "scheduling_dpmsolver_singlestep",
    "HeunDiscreteScheduler": "scheduling_heun_discrete",
    "UniPCMultistepScheduler": "scheduling_unipc_multistep",
    "FlowMatchEulerDiscreteScheduler": "scheduling_flow_match_euler_discrete",
    "LMSDiscreteScheduler": "scheduling_lms_discrete",
    "PNDMScheduler": "scheduling_pndm",
    "DEISMultistepScheduler": "scheduling_deis_multistep",
    "KDPM2DiscreteScheduler": "scheduling_k_dpm_2_discrete",
    "KDPM2AncestralDiscreteScheduler": "scheduling_k_dpm_2_ancestral_discrete",
    "DDPMScheduler": "scheduling_ddpm",
    "EDMEulerScheduler": "scheduling_edm_euler",
    "EDMDPMSolverMultistepScheduler": "scheduling_edm_dpmsolver_multistep",
}
# The classes that the first cases were written for; the others have cases of their own.
FIRST = list(MODULES)[:6]


def start_sample():
    return torch.cos(1.3 * torch.arange(WIDTH, dtype=torch.float64) + 0.4)


def clean_image():
    return 0.5 * torch.sin(0.9 * torch.arange(WIDTH, dtype=torch.float64) + 0.2)


def step_noise(index):
    return torch.sin(2.1 * torch.arange(WIDTH, dtype=torch.float64) + 0.7 * index + 0.1)


def network(sample, timestep):
    lane = torch.arange(WIDTH, dtype=torch.float64)
    return 0.5 * torch.tanh(sample) + 0.3 * torch.cos(0.7 * lane + 0.003 * timestep)


def rounded(values):
    return [float(f"{float(v):.9g}") for v in values]


def build(cls, config):
    module = importlib.import_module("diffusers.schedulers." + MODULES[cls])
    # Keys of other classes are kept out, as from_config does.
    return module, getattr(module, cls).from_config(dict(config))


def run(cls, config, n=None, timesteps=None, eta=None, strength=None, spacing=None):
    """One case. `spacing`: a name for the timesteps given, which a port must know by it."""
    module, scheduler = build(cls, config)
    if timesteps is None:
        scheduler.set_timesteps(n)
    else:
        scheduler.set_timesteps(timesteps=timesteps)
        n = len(timesteps)
    case = {"config": {"_class_name": cls, **config}}
    chosen = ("spacing", spacing) if spacing else ("explicit", timesteps)
    case.update({k: v for k, v in [("n", n), chosen, ("eta", eta), ("strength", strength)] if v is not None})

    begin = 0
    if strength is not None:  # StableDiffusionXLImg2ImgPipeline.get_timesteps
        begin = max(n - min(int(n * strength), n), 0)
    order = scheduler.order  # network evaluations a step
    run_timesteps = scheduler.timesteps[begin * order:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin * order)
    case["timesteps"] = rounded(run_timesteps[::order])
    repeats = cls == "PNDMScheduler" and n > 1  # the first step is taken twice
    if repeats:
        del case["timesteps"][1]
    if hasattr(scheduler, "sigmas"):
        case["sigmas"] = rounded([*scheduler.sigmas[begin * order:-1:order], scheduler.sigmas[-1]])
        if cls.startswith("KDPM2"):  # ends at zero twice over
            case["sigmas"].pop()
    if strength is None:
        init_noise_sigma = getattr(scheduler, "init_noise_sigma", 1.0)
        case["init_noise_sigma"] = rounded([init_noise_sigma])[0]
        sample = start_sample() * float(init_noise_sigma)
    else:
        add_noise = getattr(scheduler, "add_noise", None)
        if add_noise is None:
            sample = scheduler.scale_noise(clean_image(), run_timesteps[:1], start_sample())
        else:
            sample = add_noise(clean_image(), start_sample(), run_timesteps[:1])
        case["noisy"] = rounded(sample)

    trajectory = []
    sample = sample[None]  # UniPC wants a batch
    for index, timestep in enumerate(run_timesteps):
        module.randn_tensor = lambda *args, **kwargs: step_noise(begin + index)
        scaled = scheduler.scale_model_input(sample, timestep) if hasattr(scheduler, "scale_model_input") else sample
        output = network(scaled, float(timestep))
        kwargs = {} if eta is None else {"eta": eta}
        sample = scheduler.step(output, timestep, sample, return_dict=False, **kwargs)[0]
        last = index + 1 == len(run_timesteps)
        if repeats and index == 0:
            continue
        if last or ((n - begin) <= 4 and (index + 1) % order == 0):
            trajectory.append(rounded(sample[0]))
    case["trajectory"] = trajectory
    return case


def spacing_cases():
    for cls in ["EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"]:
        for spacing in ["trailing", "leading", "linspace"]:
            for prediction in ["epsilon", "v_prediction", "sample"]:
                if cls == "EulerAncestralDiscreteScheduler" and prediction == "sample":
                    continue  # diffusers has not implemented it
                for n in STEPS:
                    config = {**LATENT, "timestep_spacing": spacing, "prediction_type": prediction}
                    if cls == "DDIMScheduler":
                        config |= {"clip_sample": False, "set_alpha_to_one": False}
                    yield run(cls, config, n)
    for cls in ["LCMScheduler", "TCDScheduler"]:
        for prediction in ["epsilon", "v_prediction", "sample"]:
            for n in STEPS:
                yield run(cls, {**LATENT, "prediction_type": prediction}, n)


def variant_cases():
    euler, ancestral, ddim, lcm, tcd, dpm = FIRST
    trailing = {**LATENT, "timestep_spacing": "trailing"}
    # Every default of every class.
    for cls in FIRST:
        for n in [1, 4]:
            yield run(cls, {"clip_sample": False} if cls == ddim else {}, n)
    for cls in FIRST:
        clip = {"clip_sample": False} if cls == ddim else {}
        for betas in ["linear", "squaredcos_cap_v2"]:
            yield run(cls, {**trailing, **clip, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": betas}, 4)
        yield run(cls, {**trailing, **clip, "num_train_timesteps": 400, "trained_betas": None}, 5)
        zero = {**trailing, **clip, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
        for n in [1, 4]:
            yield run(cls, zero, n)
    for n in [1, 4]:
        yield run(euler, {**trailing, "rescale_betas_zero_snr": True}, n)
        yield run(ancestral, {**trailing, "rescale_betas_zero_snr": True}, n)
    for spacing in ["trailing", "leading", "linspace"]:
        for n in [2, 4, 8, 20]:
            karras = {**LATENT, "timestep_spacing": spacing, "use_karras_sigmas": True}
            yield run(euler, karras, n)
            yield run(dpm, karras, n)
    yield run(euler, {**trailing, "use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 10.0}, 5)
    for cls in [euler, dpm]:
        for n in [4, 20]:
            yield run(cls, {**trailing, "final_sigmas_type": "sigma_min"}, n)
    yield run(dpm, {**trailing, "solver_order": 1}, 6)
    yield run(dpm, {**trailing, "final_sigmas_type": "sigma_min", "lower_order_final": False}, 6)
    yield run(dpm, {**trailing, "final_sigmas_type": "sigma_min", "euler_at_final": True, "lower_order_final": False}, 6)
    for eta in [0.5, 1.0]:
        for n in [2, 3, 4]:
            yield run(ddim, {**trailing, "clip_sample": False, "set_alpha_to_one": False}, n, eta=eta)
    for eta in [0.0, 0.5, 1.0]:
        for n in [1, 4]:
            yield run(tcd, LATENT, n, eta=eta)
    yield run(lcm, {**LATENT, "original_inference_steps": 100, "timestep_scaling": 3.0}, 4)
    # Every rounding tie of trailing below 100 steps sits in one of these.
    for n in [16, 32, 48, 64, 80, 96, 99]:
        yield run(euler, trailing, n)


def explicit_cases():
    euler, _, _, lcm, tcd, dpm = FIRST
    for timesteps in [[800], [399], [999, 749, 499, 249], [999, 899, 799, 699], [999, 120, 3]]:
        for cls in [euler, lcm, tcd, dpm]:
            yield run(cls, {**LATENT, "timestep_spacing": "trailing"}, timesteps=timesteps)


def strength_cases():
    for cls in FIRST:
        config = {**LATENT, "timestep_spacing": "trailing"}
        if cls == "DDIMScheduler":
            config |= {"clip_sample": False, "set_alpha_to_one": False}
        for n, strength in [(1, 1.0), (2, 0.5), (4, 0.3), (4, 0.75), (8, 0.6), (20, 0.15)]:
            yield run(cls, config, n, strength=strength)


TRAILING = {**LATENT, "timestep_spacing": "trailing"}


def solver_cases():
    multistep, singlestep = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
    to_sigma_min = {**TRAILING, "final_sigmas_type": "sigma_min"}
    for cls in [multistep, singlestep]:
        for algorithm in ["dpmsolver++", "sde-dpmsolver++"]:
            for order in [1, 2, 3]:
                for solver in ["midpoint", "heun"]:
                    solver = {"algorithm_type": algorithm, "solver_order": order, "solver_type": solver}
                    for n in [4, 7, 20]:
                        yield run(cls, {**TRAILING, **solver}, n)
                    yield run(cls, {**to_sigma_min, **solver, "lower_order_final": False}, 6)
            sde = {**TRAILING, "algorithm_type": algorithm}
            for n in [1, 2, 3, 5, 6]:
                yield run(cls, sde, n)
            for prediction in ["v_prediction", "sample"]:
                yield run(cls, {**sde, "prediction_type": prediction}, 4)
            for n, strength in [(4, 0.5), (8, 0.6), (8, 0.4), (9, 1.0)]:
                yield run(cls, {**sde, "solver_order": 3}, n, strength=strength)
                yield run(cls, sde, n, strength=strength)
    for n in [3, 4, 6]:
        yield run(singlestep, {**to_sigma_min, "lower_order_final": True, "solver_order": 3}, n)
    yield run(singlestep, {**LATENT, "use_karras_sigmas": True, "rescale_betas_zero_snr": True}, 6)
    yield run(multistep, {**to_sigma_min, "solver_order": 3, "lower_order_final": False, "euler_at_final": True}, 6)
    yield run(multistep, {**to_sigma_min, "solver_order": 3}, 20)


def sigma_rule_cases():
    euler, dpm, singlestep = "EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
    for rule in ["use_exponential_sigmas", "use_beta_sigmas"]:
        for spacing in ["trailing", "leading"]:
            for n in [1, 2, 4, 7, 20]:
                config = {**LATENT, "timestep_spacing": spacing, rule: True}
                for cls in [euler, dpm, singlestep]:
                    yield run(cls, config, n)
        yield run(euler, {**TRAILING, rule: True, "sigma_min": 0.1, "sigma_max": 10.0}, 5)
    for n in [1, 2, 4, 7, 20]:
        yield run(dpm, {**TRAILING, "use_lu_lambdas": True}, n)
    cosine = {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True}
    for cls in [dpm, singlestep]:
        yield run(cls, cosine, 6)
    for name, table in [("ays", "StableDiffusionTimesteps"), ("ays_sdxl", "StableDiffusionXLTimesteps")]:
        from diffusers.schedulers import AysSchedules

        for cls in [euler, dpm, singlestep]:
            yield run(cls, TRAILING, timesteps=AysSchedules[table], spacing=name)


def flow_cases():
    euler = "FlowMatchEulerDiscreteScheduler"
    for shift in [1.0, 3.0]:
        for n in [1, 2, 4, 7, 20]:
            yield run(euler, {"shift": shift}, n)
        yield run(euler, {"shift": shift, "stochastic_sampling": True}, 4)
        yield run(euler, {"shift": shift}, timesteps=[1000.0, 700.0, 250.0])
        for n, strength in [(4, 0.5), (8, 0.6)]:
            yield run(euler, {"shift": shift}, n, strength=strength)
    for rule in ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"]:
        yield run(euler, {"shift": 3.0, rule: True}, 6)
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    for cls in ["DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"]:
        for shift in [1.0, 3.0]:
            for n in [1, 4, 20]:
                yield run(cls, {**flow, "flow_shift": shift}, n)
        yield run(cls, {**flow, "algorithm_type": "sde-dpmsolver++"}, 6)
        yield run(cls, {**flow, "solver_order": 3, "flow_shift": 3.0}, 8, strength=0.6)


def unipc_cases():
    unipc = "UniPCMultistepScheduler"
    to_sigma_min = {**TRAILING, "final_sigmas_type": "sigma_min"}
    for spacing in ["trailing", "leading", "linspace"]:
        for n in STEPS:
            yield run(unipc, {**LATENT, "timestep_spacing": spacing}, n)
    for order in [1, 2, 3]:
        for n in [4, 7, 20]:
            yield run(unipc, {**TRAILING, "solver_order": order}, n)
            # To a last sigma of zero it gives NaN.
            yield run(unipc, {**to_sigma_min, "solver_order": order, "solver_type": "bh1"}, n)
        yield run(unipc, {**to_sigma_min, "solver_order": order, "lower_order_final": False}, 6)
        yield run(unipc, {**TRAILING, "solver_order": order, "disable_corrector": [0, 2]}, 6)
        for n, strength in [(4, 0.5), (8, 0.6), (9, 1.0)]:
            yield run(unipc, {**TRAILING, "solver_order": order}, n, strength=strength)
    for prediction in ["v_prediction", "sample"]:
        yield run(unipc, {**TRAILING, "prediction_type": prediction}, 4)
    yield run(unipc, {**TRAILING, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}, 6)
    yield run(unipc, {}, 4)
    for rule in ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"]:
        for n in [4, 7]:
            yield run(unipc, {**TRAILING, rule: True}, n)
        yield run(unipc, {**to_sigma_min, rule: True, "sigma_min": 0.1, "sigma_max": 10.0}, 5)
    for shift in [1.0, 3.0]:
        flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": shift}
        for n in [1, 4, 20]:
            yield run(unipc, flow, n)


def heun_cases():
    heun = "HeunDiscreteScheduler"
    for spacing in ["trailing", "leading", "linspace"]:
        for n in STEPS:
            yield run(heun, {**LATENT, "timestep_spacing": spacing}, n)
    for prediction in ["v_prediction", "sample"]:
        for n in [1, 4]:
            yield run(heun, {**TRAILING, "prediction_type": prediction}, n)
    for n in [1, 4]:
        yield run(heun, {}, n)
    for rule in ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"]:
        for spacing in ["trailing", "leading"]:
            yield run(heun, {**LATENT, "timestep_spacing": spacing, rule: True}, 6)
    yield run(heun, {**LATENT, "timestep_spacing": "trailing"}, timesteps=[999, 749, 499, 249])
    for n, strength in [(1, 1.0), (4, 0.5), (8, 0.6)]:
        yield run(heun, TRAILING, n, strength=strength)


def sigma_solver_cases():
    """LMS and the two of DPM-Solver-2."""
    for cls in ["LMSDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"]:
        for spacing in ["trailing", "leading", "linspace"]:
            for n in [1, 2, 4, 7, 20] if cls == "LMSDiscreteScheduler" else [2, 4, 7, 20]:
                yield run(cls, {**LATENT, "timestep_spacing": spacing}, n)
        yield run(cls, {**TRAILING, "prediction_type": "v_prediction"}, 4)
        yield run(cls, {}, 4)
        for rule in ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"]:
            yield run(cls, {**TRAILING, rule: True}, 6)


def table_solver_cases():
    """PNDM and DDPM."""
    for spacing in ["trailing", "leading", "linspace"]:
        for n in STEPS:
            yield run("PNDMScheduler", {**LATENT, "timestep_spacing": spacing, "skip_prk_steps": True}, n)
            yield run("DDPMScheduler", {**LATENT, "timestep_spacing": spacing, "clip_sample": False}, n)
    for n in [4, 20]:
        yield run("PNDMScheduler", {**LATENT, "skip_prk_steps": True, "prediction_type": "v_prediction"}, n)
        yield run("PNDMScheduler", {**LATENT, "skip_prk_steps": True, "set_alpha_to_one": True}, n)
    for prediction in ["v_prediction", "sample"]:
        yield run("DDPMScheduler", {**LATENT, "clip_sample": False, "prediction_type": prediction}, 4)
    for n, strength in [(1, 1.0), (4, 0.75), (8, 0.6)]:
        yield run("DDPMScheduler", {**TRAILING, "clip_sample": False}, n, strength=strength)


def deis_cases():
    deis = "DEISMultistepScheduler"
    for spacing in ["trailing", "leading", "linspace"]:
        for n in [1, 2, 4, 7, 20]:
            yield run(deis, {**LATENT, "timestep_spacing": spacing}, n)
    for order in [1, 3]:
        for n in [4, 7, 20]:
            yield run(deis, {**TRAILING, "solver_order": order}, n)
    for prediction in ["v_prediction", "sample"]:
        yield run(deis, {**TRAILING, "prediction_type": prediction}, 4)
    for rule in ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"]:
        for n in [6, 16]:
            yield run(deis, {**TRAILING, rule: True}, n)


def edm_cases():
    euler, dpm = "EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"
    cosxl = {"sigma_min": 0.002, "sigma_max": 120.0, "sigma_data": 1.0, "sigma_schedule": "exponential",
             "prediction_type": "v_prediction"}
    playground = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5, "sigma_schedule": "karras", "rho": 7.0}
    for config in [cosxl, playground]:
        for cls in [euler, dpm]:
            for n in [2, 4, 8, 20]:
                yield run(cls, config, n)
            yield run(cls, {**config, "final_sigmas_type": "sigma_min"}, 6)
        yield run(euler, {**config, "rho": 5.0, "sigma_schedule": "karras"}, 5)
        yield run(dpm, {**config, "algorithm_type": "sde-dpmsolver++"}, 6)
        yield run(dpm, {**config, "solver_order": 3}, 20)


def noise_schedules():
    from diffusers import DDIMScheduler

    indices = [0, 1, 2, 3, 5, 10, 20, 50, 99, 100, 249, 399, 499, 500, 749, 800, 990, 998, 999]
    for betas in ["linear", "scaled_linear", "squaredcos_cap_v2"]:
        for zero in [False, True]:
            config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": betas, "rescale_betas_zero_snr": zero}
            table = DDIMScheduler(**config).alphas_cumprod
            yield {"config": config, "indices": indices, "alphas_cumprod": rounded(table[indices])}


def main():
    import logging

    logging.disable(logging.WARNING)
    cases = [*spacing_cases(), *variant_cases(), *explicit_cases(), *strength_cases(), *solver_cases(),
             *sigma_rule_cases(), *flow_cases(), *unipc_cases(), *heun_cases(),
             *sigma_solver_cases(), *table_solver_cases(), *deis_cases(), *edm_cases()]
    golden = {
        "script": "scripts/goldens/schedulers.py",
        "versions": {p: version(p) for p in ["diffusers", "torch", "numpy"]},
        "note": "trajectory: every sample up to 4 steps, only the last above",
        "tolerance": {
            "timesteps": "exact (1e-6 of the largest with Karras, exponential or beta sigmas)",
            "sigmas, init_noise_sigma": "1e-6 relative (sigmas with rescale_betas_zero_snr: 1e-4)",
            "trajectory": "max(1, max |b|) * (3e-7 * max(steps, 6) + 3e-8 * init_noise_sigma)",
            "alphas_cumprod": "exact in f32 (with rescale_betas_zero_snr: 5e-7)",
        },
        "noise_schedules": list(noise_schedules()),
        "cases": cases,
    }
    lines = json.dumps(golden, separators=(",", ":")).replace('{"config"', '\n{"config"')
    (GOLDENS / "schedulers.json").write_text(lines + "\n", encoding="utf-8")
    print(len(cases), "cases,", len(lines), "bytes")


if __name__ == "__main__":
    main()
