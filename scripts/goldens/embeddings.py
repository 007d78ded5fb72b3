"""Learnt words (textual inversion) on tiny-sdxl: files, and what diffusers paints with them.

Writes goldens/embeddings/: moodxl.safetensors (two vectors for each text encoder), and cases.json and pictures as pictures.py
writes them.
"""

import shutil

import pictures
from common import GOLDENS, noise, save_json, save_tensors
from pictures import euler

OUT = GOLDENS / "embeddings"
CASES = {
    "one": dict(prompt="a cat in the garden, moodxl", seed=80),
    "in-the-middle": dict(prompt="a photo of moodxl, blurry", negative_prompt="moodxl moodxl", seed=81),
}


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    open_pipe, rows = pictures.load, []
    pipe = open_pipe("tiny-sdxl", None, False)
    widths = [encoder.config.hidden_size for encoder in (pipe.text_encoder, pipe.text_encoder_2)]
    file = {key: (0.5 * noise(900 + i, 2, width)).half() for i, (key, width) in enumerate(zip(("clip_l", "clip_g"), widths))}
    save_tensors(OUT / "moodxl.safetensors", file)
    pipe.load_textual_inversion(file["clip_l"].float(), token="moodxl", text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)
    pipe.load_textual_inversion(file["clip_g"].float(), token="moodxl", text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2)
    pictures.load = lambda *_: pipe
    for name, case in CASES.items():
        full, result = pictures.paint(dict(num_inference_steps=2, guidance_scale=3.0, scheduler=euler(), **case))
        save_tensors(OUT / f"{name}.picture.safetensors", result)
        chosen = full.pop("scheduler")
        full = {k: v for k, v in full.items() if v is not None}
        rows.append({"name": name, **full,
                     "scheduler_config": {"_class_name": type(chosen).__name__, **pictures.plain(chosen.config)},
                     "file": f"{name}.picture.safetensors"})
    save_json(OUT / "cases.json", rows)


if __name__ == "__main__":
    main()
