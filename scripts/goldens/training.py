"""Ten steps of every objective of crates/train in PyTorch: losses, and the first gradients of each player.

The model is tiny-sdxl under v-prediction and zero terminal SNR; the draws are prima's own (draws.py), so that both see the same
batches. goldens/training/ holds for each objective

    <name>.json           the stage's section of a configuration, the draws' seed, and the losses of each step by player
    <name>.safetensors    for each player `[parameters, 9]`, in the order of their sorted names: the norm of the first gradient
                          and eight of its values, evenly spaced
"""

import argparse
import json

from common import GOLDENS, save_json, save_tensors
from distillations import Ect, Lcm, LcmLora, Lightning, Lora, MeanFlow, Progressive, Teacher
from distributions import Add, Dmd2, Gan, Ladd, Rdm
from trainer import LOOP, SEED, STEPS, train

OUT = GOLDENS / "training"


def gentle(rate):
    """An optimizer that moves by the gradient, not by its sign, for ADD: its gradient jumps where a unit of the feature network's ReLU6
    bends, and what AdamW with an epsilon of 1e-4 makes of a last bit of the weights (1e-7) is a tenth of the loss seven steps later, in
    PyTorch too, in f32 against f64. With these settings f32 and f64 part by 2e-6 in ten steps."""
    return {**LOOP, "optimizer": {**LOOP["optimizer"], "learning_rate": rate, "epsilon": 1e-2}}


LEVELS = {"max_noise_share": 0.25, "log_sigma_mean": 0.4, "log_sigma_std": 1.3}
DMD2 = {"batch_size": 4, "timesteps": [999, 499], "fake_updates": 2, "fake_learning_rate": 2.0,
        "renoised": [0.02, 0.98], "gan_weight": 0.003, "discriminator_weight": 0.01, "guidance_scale": 2.0}
ADD = {"batch_size": 4, "timesteps": [999, 749, 499, 249], "shares": [0.4, 0.2, 0.2, 0.2], "discriminator_updates": 1,
       "discriminator_learning_rate": 0.25, "gradient_penalty": 0.01, "distillation_weight": 2.5, "renoised": [0.02, 0.9],
       "negative_prompt": "a blurry picture"}
ECT = {"batch_size": 4, "max_noise_share": 0.25, "log_sigma_mean": -0.4, "log_sigma_std": 2.0, "q": 2.0, "stages": 2,
       "huber_c": 0.001}
MEAN_FLOW = {"batch_size": 4, "max_noise_share": 0.25, "same_share": 0.25, "logit_mean": -0.4, "logit_std": 1.0,
             "derivative_step": 5, "adaptive_c": 0.001}
LCM = {"batch_size": 4, "timesteps": [999, 749, 499, 249], "guidance_scale": 2.0, "max_noise_share": 0.5, "target_decay": 0.95,
       "huber_c": 0.1}
SIZE = {"rank": 3, "alpha": 6.0, "layers": "all", "block_ranks": {"mid_block": 2, "down_blocks.0": 0}}
OBJECTIVES = {
    "teacher": (Teacher, {"batch_size": 4, "timesteps": LEVELS, "caption_dropout": 0.3}),
    "progressive": (Progressive, {"batch_size": 4, "teacher_steps": 8, "steps": [4, 2], "guidance_scale": 2.0}),
    "lcm": (Lcm, LCM),
    "lcm-guidance-input": (Lcm, {**{key: value for key, value in LCM.items() if key != "guidance_scale"},
                                 "guidance_scales": [1.0, 5.0], "guidance_embedding_dim": 16}),
    "lcm-lora": (LcmLora, {"size": {**SIZE, "layers": "transformer"}, "lcm": LCM}),
    "lora": (Lora, {"batch_size": 4, "size": {"rank": 2, "alpha": 2.0, "layers": "attention"}, "trains_text_encoders": False,
                    "caption_dropout": 0.3}),
    "lora-few-steps": (Lora, {"batch_size": 4, "size": SIZE, "trains_text_encoders": True, "caption_dropout": 0.0,
                              "timesteps": [999, 749, 499, 249], "prior": {"prompt": "a thing", "weight": 0.5}}),
    "ladd": (Ladd, {"batch_size": 4, "timesteps": [999, 749, 499, 249], "shares": [0.4, 0.2, 0.2, 0.2], "logit_mean": 0.0,
                    "logit_std": 1.0, "discriminator_updates": 2, "discriminator_learning_rate": 2.0, "gradient_penalty": 1.0,
                    "distillation_weight": 0.5, "guidance_scale": 2.0}),
    "add": (Add, {**ADD, "weighting": "exponential", "guidance_scale": 2.0, "loop": gentle(2e-4)}),
    "add-nfsd": (Add, {**ADD, "weighting": "nfsd", "guidance_scale": 3.0, "renoised": [0.02, 0.6], "loop": gentle(1e-4)}),
    "add-sds": (Add, {**ADD, "weighting": "sds", "guidance_scale": 2.0, "told": "caption", "adversarial_weight": 0.5,
                      "loop": gentle(2e-4)}),
    "dmd2": (Dmd2, DMD2),
    "dmd2-forward-kl": (Dmd2, {**DMD2, "divergence": "forward_kl", "discriminator_weight": 1.0}),
    "ect": (Ect, {**ECT, "guidance_scale": 1.0, "weighting": "inverse_step"}),
    "ect-guided": (Ect, {**ECT, "guidance_scale": 2.0, "weighting": "uniform"}),
    "gan": (Gan, {"batch_size": 4, "discriminator_updates": 2, "discriminator_learning_rate": 0.5, "gradient_penalty": 0.25,
                  "transport_weight": 0.2}),
    "rdm": (Rdm, {"batch_size": 8, "timesteps": [999, 499], "renoised": [0.02, 0.2], "caption_weight": 0.5}),
    "mean-flow": (MeanFlow, {**MEAN_FLOW, "guidance_scale": 1.0, "adaptive_p": 0.75}),
    "mean-flow-guided": (MeanFlow, {**MEAN_FLOW, "guidance_scale": 2.0, "adaptive_p": 0.5}),
    "lightning": (Lightning, {"batch_size": 4, "teacher_steps": 8, "steps": [4, 2, 1], "mse_phases": 1, "guidance_scale": 2.0,
                              "trajectory_share": 0.5, "renoised": [10, 250, 500, 750], "renoised_shares": [1.0] * 4}),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="objectives; all where none is named")
    for name in parser.parse_args().names or OBJECTIVES:
        cls, section = OBJECTIVES[name]
        losses, firsts = train(cls(section))
        print(name, json.dumps(losses))
        section = {**section, "lcm": {**section["lcm"], "loop": LOOP}} if "lcm" in section else {**section, "loop": section.get("loop", LOOP)}
        fixture = {"stage": cls.stage, "section": section, "seed": SEED, "steps": STEPS, "losses": losses}
        save_json(OUT / f"{name}.json", fixture)
        save_tensors(OUT / f"{name}.safetensors", firsts)


if __name__ == "__main__":
    main()
