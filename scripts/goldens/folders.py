"""Writes the tiny random models, each in the layout of a diffusers folder.

    goldens/tiny-sdxl/   the block structure of SDXL, hub-style file contents (vocab.json + merges.txt,
                         `text_model.` prefixes, eos_token_id 2)
    goldens/tiny-lcm/    a UNet of two levels with guidance embedding; newer file contents (tokenizer.json only,
                         text encoder 1 without prefix, real eos_token_id)
    goldens/unets/*      UNet configs that a port must read from config.json rather than assume
    goldens/vae-three-levels/, goldens/taesd/
"""

import pathlib
import shutil

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, AutoencoderTiny, EulerDiscreteScheduler, StableDiffusionXLPipeline
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import tokenizer as tiny_tokenizer
from common import GOLDENS, randomise, save_json, save_tensors

# stabilityai/stable-diffusion-xl-base-1.0, scheduler/scheduler_config.json
SDXL_SCHEDULER = {
    "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": False,
    "interpolation_type": "linear", "num_train_timesteps": 1000, "prediction_type": "epsilon",
    "sample_max_value": 1.0, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
    "timestep_spacing": "leading", "trained_betas": None, "use_karras_sigmas": False,
}
HIDDEN_1, HIDDEN_2, PROJECTION = 32, 48, 40

UNET_SDXL = dict(
    sample_size=8, in_channels=4, out_channels=4, norm_num_groups=4, layers_per_block=2,
    block_out_channels=(8, 16, 32), attention_head_dim=(1, 2, 4),
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    transformer_layers_per_block=(1, 1, 2), cross_attention_dim=HIDDEN_1 + HIDDEN_2, use_linear_projection=True,
    addition_embed_type="text_time", addition_time_embed_dim=8,
    projection_class_embeddings_input_dim=6 * 8 + PROJECTION,
)
UNET_LCM = {
    **UNET_SDXL, "block_out_channels": (8, 16), "attention_head_dim": (1, 2), "layers_per_block": 1,
    "norm_num_groups": 4, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "transformer_layers_per_block": (1, 2),
    "time_cond_proj_dim": 24,
}
UNETS = {
    # segmind/SSD-1B: nested transformer counts, another list on the way up, no mid block.
    "ssd-1b": {
        **UNET_SDXL, "mid_block_type": None, "transformer_layers_per_block": (1, (2, 1), (1, 2)),
        "reverse_transformer_layers_per_block": ((2, 1, 1), (1, 2, 1), 1), "block_out_channels": (8, 16, 16),
        "attention_head_dim": (1, 2, 2),
    },
    # Fewer layers in some blocks, a mid block with attention switched to a plain one.
    "irregular": {
        **UNET_LCM, "time_cond_proj_dim": None, "layers_per_block": (1, 2), "mid_block_type": "UNetMidBlock2D",
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "transformer_layers_per_block": 1,
        "block_out_channels": (8, 16), "norm_num_groups": 4, "attention_head_dim": (1, 2),
    },
    # SD 2.1 / SD-Turbo: no added conditioning, attention at every level but the last.
    "sd21": {
        **UNET_LCM, "time_cond_proj_dim": None, "addition_embed_type": None, "addition_time_embed_dim": None,
        "projection_class_embeddings_input_dim": None, "cross_attention_dim": HIDDEN_2,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "transformer_layers_per_block": 1,
        "block_out_channels": (8, 16), "norm_num_groups": 4, "attention_head_dim": (1, 2),
    },
    # SD 1.5: 1x1 convolutions around the transformer blocks, one head count for all levels.
    "sd15": {
        **UNET_LCM, "time_cond_proj_dim": None, "addition_embed_type": None, "addition_time_embed_dim": None,
        "projection_class_embeddings_input_dim": None, "cross_attention_dim": HIDDEN_1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "transformer_layers_per_block": 1,
        "block_out_channels": (8, 16), "norm_num_groups": 4, "attention_head_dim": 2, "use_linear_projection": False,
    },
}
VAE = dict(
    in_channels=3, out_channels=3, latent_channels=4, norm_num_groups=4, sample_size=64, layers_per_block=2,
    block_out_channels=(8, 16, 16, 16), down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4, scaling_factor=0.13025, force_upcast=True,
)
VAE_PLAIN = {**VAE, "layers_per_block": 1, "block_out_channels": (8, 12, 16), "scaling_factor": 0.18215,
             "down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3,
             "force_upcast": False}
TAESD = dict(
    in_channels=3, out_channels=3, latent_channels=4, encoder_block_out_channels=(8, 8, 8, 8),
    decoder_block_out_channels=(8, 8, 8, 8), num_encoder_blocks=(1, 1, 2, 1), num_decoder_blocks=(2, 1, 1, 1),
    scaling_factor=1.0,
)


def text_config(hidden, layers, act, vocab, eos):
    return CLIPTextConfig(
        vocab_size=vocab, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers,
        num_attention_heads=4, max_position_embeddings=77, hidden_act=act, layer_norm_eps=1e-5,
        projection_dim=PROJECTION, bos_token_id=vocab - 2 if eos != 2 else 0, eos_token_id=eos,
        pad_token_id=vocab - 1 if eos != 2 else 1,
    )


def make_vae(config, seed):
    vae = randomise(AutoencoderKL(**config), seed)
    # A decoder whose pictures use the range of a u8 without clipping most of it.
    vae.decoder.conv_out.weight.copy_((vae.decoder.conv_out.weight * 0.5).half())
    return vae


def make_taesd(seed):
    taesd = randomise(AutoencoderTiny(**TAESD), seed)
    taesd.decoder.layers[-1].weight.copy_((taesd.decoder.layers[-1].weight * 0.25).half())
    taesd.decoder.layers[-1].bias.copy_((taesd.decoder.layers[-1].bias + 0.5).half())
    return taesd


def set_prefix(file, wanted):
    """Names CLIPTextModel's tensors with `text_model.` (every hub file) or without (transformers 5)."""
    tensors = {k.removeprefix("text_model."): v for k, v in load_file(file).items()}
    head = {k: tensors.pop(k) for k in list(tensors) if k.startswith("text_projection")}
    prefix = "text_model." if wanted else ""
    save_tensors(file, {**{prefix + k: v for k, v in tensors.items()}, **head}, {"format": "pt"})


def write_tokenizers(folder, hub_style):
    for name, pad in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
        vocab = tiny_tokenizer.write(folder / name, pad)
        if not hub_style:
            loaded = CLIPTokenizer.from_pretrained(folder / name)
            shutil.rmtree(folder / name)
            loaded.save_pretrained(folder / name)
    return vocab


def write_pipeline(folder, hub_style, unet_config, seed):
    folder = pathlib.Path(folder)
    shutil.rmtree(folder, ignore_errors=True)
    vocab = len(write_tokenizers(folder, hub_style))
    eos = 2 if hub_style else vocab - 1
    text_1 = randomise(CLIPTextModel(text_config(HIDDEN_1, 3, "quick_gelu", vocab, eos)), seed)
    text_2 = randomise(CLIPTextModelWithProjection(text_config(HIDDEN_2, 3, "gelu", vocab, eos)), seed + 1)
    StableDiffusionXLPipeline(
        vae=make_vae(VAE, seed + 2), text_encoder=text_1, text_encoder_2=text_2,
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(folder / "tokenizer_2"),
        unet=randomise(UNet2DConditionModel(**unet_config), seed + 3),
        scheduler=EulerDiscreteScheduler.from_config(SDXL_SCHEDULER), force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    ).save_pretrained(folder)
    if hub_style:  # save_pretrained wrote the newer files over ours
        for name in ("tokenizer", "tokenizer_2"):
            shutil.rmtree(folder / name)
        write_tokenizers(folder, hub_style)
    set_prefix(folder / "text_encoder" / "model.safetensors", hub_style)
    set_prefix(folder / "text_encoder_2" / "model.safetensors", True)


def main():
    print(torch.__version__, diffusers.__version__, transformers.__version__)
    write_pipeline(GOLDENS / "tiny-sdxl", True, UNET_SDXL, 100)
    write_pipeline(GOLDENS / "tiny-lcm", False, UNET_LCM, 200)
    for i, (name, config) in enumerate(UNETS.items()):
        shutil.rmtree(GOLDENS / "unets" / name, ignore_errors=True)
        randomise(UNet2DConditionModel(**config), 300 + i).save_pretrained(GOLDENS / "unets" / name)
    make_vae(VAE_PLAIN, 400).save_pretrained(GOLDENS / "vae-three-levels")
    make_taesd(401).save_pretrained(GOLDENS / "taesd")
    for file in GOLDENS.rglob("*.safetensors"):
        file.chmod(0o644)


if __name__ == "__main__":
    main()
