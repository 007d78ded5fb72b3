"""Writes the seeds in this folder anew: small, valid inputs of every target.

    python3 -m venv .venv && .venv/bin/pip install pillow
    .venv/bin/python fuzz/seeds/make.py
"""

import base64
import json
import struct
from pathlib import Path

from PIL import Image, PngImagePlugin

HERE = Path(__file__).parent
GOLDENS = HERE.parent.parent / "goldens"


def write(target, name, data):
    folder = HERE / target
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def safetensors(tensors, metadata=None):
    """A file of these {key: (dtype, shape)}, all zeros."""
    size = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8}
    header, at = ({"__metadata__": metadata} if metadata else {}), 0
    for key, (dtype, shape) in tensors.items():
        numel = 1
        for axis in shape:
            numel *= axis
        end = at + numel * size[dtype]
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(at)


def shrunk(path):
    """A model's header with every axis but 1 made 0: the keys of a real file without its data."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    return safetensors({key: ("F32", [0] * len(info["shape"])) for key, info in header.items()})


write("safetensors", "types", safetensors({
    "a": ("F32", [2, 3]), "b": ("F16", [4]), "c": ("BF16", [1, 1, 2]), "d": ("F64", []), "e": ("I64", [1]),
}, {"format": "pt"}))
write("safetensors", "vae", safetensors({
    "decoder.mid_block.attentions.0.query.weight": ("F32", [2, 2, 1, 1]), "text_model.x": ("F32", [0]), "x": ("F16", [1]),
}))

write("single_file", "sdxl", shrunk(GOLDENS / "single-file/tiny-sdxl.safetensors"))
unet, vae, clip = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.text_model."
write("single_file", "sd1", safetensors({
    unet + "input_blocks.0.0.weight": ("F16", [32, 4, 1, 1]),
    unet + "input_blocks.1.0.in_layers.2.weight": ("F16", [32, 1, 1, 1]),
    unet + "input_blocks.1.1.transformer_blocks.0.attn1.to_k.weight": ("F16", [1, 1]),
    unet + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": ("F16", [1, 2]),
    unet + "input_blocks.2.0.op.weight": ("F16", [1]),
    unet + "output_blocks.0.0.in_layers.2.weight": ("F16", [32, 1, 1, 1]),
    unet + "out.2.weight": ("F16", [4, 1, 1, 1]),
    unet + "time_embedding.cond_proj.weight": ("F16", [1, 8]),
    vae + "encoder.conv_in.weight": ("F16", [1, 3, 1, 1]),
    vae + "encoder.down.0.block.0.conv1.weight": ("F16", [32, 1, 1, 1]),
    vae + "decoder.conv_in.weight": ("F16", [1, 4, 1, 1]),
    vae + "decoder.conv_out.weight": ("F16", [3, 1, 1, 1]),
    vae + "decoder.up.0.block.0.conv1.weight": ("F16", [1]),
    clip + "embeddings.token_embedding.weight": ("F16", [2, 64]),
    clip + "embeddings.position_embedding.weight": ("F16", [2, 64]),
    clip + "encoder.layers.0.mlp.fc1.weight": ("F16", [2, 64]),
}, {"modelspec.prediction_type": "v"}))
open_clip = "cond_stage_model.model."
write("single_file", "sd2", safetensors({
    unet + "input_blocks.0.0.weight": ("F16", [32, 4, 1, 1]),
    vae + "taesd_decoder.1.weight": ("F16", [1, 4, 1, 1]),
    vae + "taesd_decoder.3.conv.0.weight": ("F16", [1]),
    vae + "taesd_encoder.0.weight": ("F16", [1, 3, 1, 1]),
    open_clip + "token_embedding.weight": ("F16", [2, 64]),
    open_clip + "positional_embedding": ("F16", [2, 64]),
    open_clip + "text_projection": ("F16", [1, 2]),
    open_clip + "transformer.resblocks.0.mlp.c_fc.weight": ("F16", [2, 64]),
    open_clip + "transformer.resblocks.0.attn.in_proj_bias": ("F16", [6]),
}))
write("single_file", "lora", safetensors({"a.lora_down.weight": ("F16", [1, 2])}))

kohya = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
write("lora", "kohya", safetensors({
    kohya + ".lora_down.weight": ("F16", [2, 4]), kohya + ".lora_up.weight": ("F16", [4, 2]), kohya + ".alpha": ("F32", []),
}, {"ss_network_dim": "2", "ss_output_name": "style"}))
write("lora", "peft", safetensors({
    "unet.down_blocks.1.attentions.0.proj_in.lora_A.weight": ("F32", [2, 4]),
    "unet.down_blocks.1.attentions.0.proj_in.lora_B.weight": ("F32", [4, 2]),
    "unet.down_blocks.1.attentions.0.proj_in.lora_magnitude_vector": ("F32", [4]),
}))
write("lora", "lycoris", safetensors({
    kohya + ".lokr_w1": ("F16", [2, 2]), kohya + ".lokr_w2_a": ("F16", [2, 1]), kohya + ".lokr_w2_b": ("F16", [1, 2]),
    "lora_te1_text_model_encoder_layers_0_mlp_fc1.hada_w1_a": ("F16", [4, 1]),
    "lora_te1_text_model_encoder_layers_0_mlp_fc1.hada_w1_b": ("F16", [1, 4]),
    "lora_te1_text_model_encoder_layers_0_mlp_fc1.hada_w2_a": ("F16", [4, 1]),
    "lora_te1_text_model_encoder_layers_0_mlp_fc1.hada_w2_b": ("F16", [1, 4]),
}))
write("lora", "word", safetensors({"clip_l": ("F32", [1, 8]), "clip_g": ("F32", [1, 8])}))


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(metadata, tensors):
    """A file of these {key: string} and {key: (type, shape, bytes)}; ggml counts axes from the innermost."""
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        out += text(key) + struct.pack("<I", 8) + text(value)
    at = 0
    for key, (kind, shape, data) in tensors.items():
        out += text(key) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", axis) for axis in reversed(shape))
        out += struct.pack("<IQ", kind, at)
        at += -(-len(data) // 32) * 32
    out += bytes(-len(out) % 32)
    for _, _, data in tensors.values():
        out += data + bytes(-len(data) % 32)
    return out


# Types of ggml: 0 is f32, 1 f16, 2 q4_0 (18 bytes for 32 values), 8 q8_0 (34), 12 q4_K (144 for 256).
write("gguf", "kinds", gguf({"general.name": "a model", "general.architecture": "sdxl"}, {
    "a": (0, [2, 3], bytes(24)), "b": (1, [4], bytes(8)), "c": (2, [2, 32], bytes(36)), "d": (8, [32], bytes(34)),
    "e": (12, [256], bytes(144)),
}))
write("gguf", "unet", gguf({}, {unet + "input_blocks.0.0.weight": (1, [32, 4, 1, 1], bytes(256))}))

graph = {
    "3": {"class_type": "KSampler", "inputs": {
        "seed": 5, "steps": 3, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, "model": ["4", 0],
        "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}},
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny-sdxl"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 48, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a (red) apple", "clip": ["10", 0]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["4", 1]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "ComfyUI", "images": ["11", 0]}},
    "10": {"class_type": "CLIPSetLastLayer", "inputs": {"clip": ["4", 1], "stop_at_clip_layer": -2}},
    "11": {"class_type": "ImageScale", "inputs": {
        "image": ["8", 0], "upscale_method": "lanczos", "width": 32, "height": 0, "crop": "disabled"}},
}
write("comfy", "workflow", json.dumps({"prompt": graph, "client_id": "me", "extra_data": {}}))
graph["5"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["12", 0], "vae": ["4", 2]}}
graph["12"] = {"class_type": "LoadImage", "inputs": {"image": "a.png"}}
graph["9"] = {"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}}
write("comfy", "picture", json.dumps({"prompt": graph, "front": True}))

for component in ["unet", "vae", "text_encoder", "text_encoder_2"]:
    write("configs", component, (GOLDENS / "tiny-sdxl" / component / "config.json").read_bytes())
write("configs", "scheduler", (GOLDENS / "tiny-sdxl/scheduler/scheduler_config.json").read_bytes())
write("configs", "taesd", json.dumps({"_class_name": "AutoencoderTiny", "scaling_factor": 1.0, "num_encoder_blocks": [1, 3]}))
write("configs", "card", json.dumps({"width": 128, "height": 96, "strength": 0.5, "timesteps": {"1": [399.0]}}))

tokens = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2, "r": 3, "e": 4, "d</w>": 5, "re": 6, "red</w>": 7}
merges = [["r", "e"], ["re", "d</w>"]]
tokenizer = {
    "version": "1.0", "truncation": None, "padding": None,
    "added_tokens": [{"id": 1, "content": "<|endoftext|>", "single_word": False, "lstrip": False, "rstrip": False,
                      "normalized": False, "special": True}],
    "normalizer": {"type": "Sequence", "normalizers": [
        {"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "}, {"type": "Lowercase"}]},
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "'s|[\\p{L}]+|[\\p{N}]"}, "behavior": "Removed", "invert": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]},
    "post_processor": {"type": "RobertaProcessing", "sep": ["<|endoftext|>", 1], "cls": ["<|startoftext|>", 0],
                       "trim_offsets": False, "add_prefix_space": False},
    "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    "model": {"type": "BPE", "dropout": None, "unk_token": "<|endoftext|>", "continuing_subword_prefix": "",
              "end_of_word_suffix": "</w>", "fuse_unk": False, "vocab": tokens, "merges": merges},
}
write("tokenizer", "json", json.dumps(tokenizer))
tokenizer["normalizer"] = {"type": "Replace", "pattern": {"String": "q"}, "content": "x"}
write("tokenizer", "replace", json.dumps(tokenizer))
write("tokenizer", "vocab", json.dumps(tokens).encode() + b"\0#version: 0.2\nr e\nre d</w>\n")

picture = Image.new("RGB", (5, 3), (200, 30, 10))
info = PngImagePlugin.PngInfo()
parameters = "a red apple\nNegative prompt: blurry\nSteps: 4, Sampler: Euler, CFG scale: 1, Seed: 1, Size: 64x64"
info.add_text("parameters", parameters)
info.add_itxt("Comment", "caf\u00e9", zip=True)
exif = Image.Exif()
exif[0x010E] = parameters
for target in ["pictures", "metadata"]:
    picture.save(HERE / target / "png", "PNG", pnginfo=info)
    picture.convert("P").save(HERE / target / "palette", "PNG")
    picture.save(HERE / target / "jpeg", "JPEG", exif=exif)
    picture.save(HERE / target / "webp", "WEBP", lossless=True, exif=exif)

write("prompt", "syntax", "[a:b:0.5] x [::0.3] BREAK (c:1.2) AND d :0.7 <lora:style:0.8:1> [e|f|g] \\[h\\] AND_NOT i")
write("prompt", "weights", "a (red:1.3) apple, ((shiny)) [dull] \\(not\\) (nested (deep:0.5):2)")
write("prompt", "parameters", parameters)
write("prompt", "size", "512x512")
write("prompt", "scheduler", "dpm++_2m_karras")
for i in range(12):
    write("schedule", f"{i:02}", bytes([i, i + 1, i % 8]) + struct.pack("<ddd", 0.5, 0.7, 999.0) + bytes([1 + i, 200, 20]))

# What clients send to the server. The boundary of forms is that of prima_server::BOUNDARY.
file = (HERE / "pictures/png").read_bytes()
image = base64.b64encode(file).decode()
paint = {"rev": 3, "prompt": "a (red:1.2) apple", "negative_prompt": "blurry", "seed": 7, "steps": 4, "guidance_scale": 1.5,
         "width": 64, "height": 64, "strength": 0.6, "scheduler": "euler", "format": "webp", "preview": True}
write("live", "paint", json.dumps({"type": "paint", **paint}))
write("live", "variants", json.dumps({"type": "variants", **paint, "seeds": [1, 2, 3]}))
write("live", "prompts", json.dumps({"type": "variants", "rev": 1, "prompt": "a", "prompts": ["a", "b"]}))
write("live", "sensitivity", json.dumps({"type": "sensitivity", **paint}))
write("live", "cancel", json.dumps({"type": "cancel", "rev": 9}))
write("live", "ping", json.dumps({"type": "ping", "id": {"a": [1, None]}}))
header = json.dumps({"type": "paint", **paint}).encode()
write("live", "sketch", struct.pack("<I", len(header)) + header + file)

openai = {"prompt": "a red apple", "n": 2, "size": "64x64", "quality": "high", "background": "auto", "output_format": "webp",
          "output_compression": 80, "response_format": "b64_json", "partial_images": 2, "stream": True, "seed": 5,
          "num_inference_steps": 4, "guidance_scale": 1.0, "negative_prompt": "", "strength": 0.5, "scheduler": "euler"}
write("openai", "all", json.dumps(openai))
write("openai", "few", json.dumps({"model": "gpt-image-1", "prompt": "a", "size": "auto", "user": "x"}))


def form(parts):
    body = b""
    for name, value in parts:
        kind = b"\"; filename=\"a.png\"\r\ncontent-type: image/png" if isinstance(value, bytes) else b"\""
        value = value if isinstance(value, bytes) else str(value).encode()
        body += b"--fuzz\r\ncontent-disposition: form-data; name=\"" + name.encode() + kind + b"\r\n\r\n" + value + b"\r\n"
    return body + b"--fuzz--\r\n"


write("openai_edit", "all", form([("image", file), *((key, value) for key, value in openai.items() if value != "")]))
write("openai_edit", "few", form([("prompt", "a"), ("image[]", file)]))

a1111 = {"prompt": "a red apple", "negative_prompt": "blurry", "styles": [], "seed": -1, "subseed_strength": 0,
         "sampler_name": "DPM++ 2M", "scheduler": "Karras", "batch_size": 1, "n_iter": 2, "steps": 4, "cfg_scale": 1.5,
         "width": 64, "height": 64, "eta": 0.5, "denoising_strength": 0.5, "enable_hr": False, "alwayson_scripts": {},
         "override_settings": {"CLIP_stop_at_last_layers": 2, "sd_model_checkpoint": ""}, "send_images": True,
         "force_task_id": "x"}
write("a1111", "txt2img", json.dumps(a1111))
write("a1111", "img2img", json.dumps({**a1111, "init_images": [image], "include_init_images": True}))
write("a1111", "png_info", json.dumps({"image": "data:image/png;base64," + image}))

prediction = {"prompt": "a red apple", "negative_prompt": "blurry", "resolution": "64x64", "num_outputs": 2,
              "num_inference_steps": 4, "guidance_scale": 1.5, "guidance_rescale": 0.7, "clip_skip": 1,
              "original_size": [64, 64], "crops_coords_top_left": [0, 0], "target_size": [64, 64], "scheduler": "K_EULER",
              "seed": 7, "output_format": "png"}
write("prediction", "nested", json.dumps({"input": prediction}))
write("prediction", "image", json.dumps({"prompt": "a", "image": image, "prompt_strength": 0.6, "width": 64, "height": 64}))
