"""A ComfyUI client library (`comfy_api_simplified`) against a running prima: a workflow, its pictures, an upload, a refusal.

    python scripts/clients/comfyui_client.py http://127.0.0.1:7860
"""

import asyncio
import io
import json
import pathlib
import sys
import tempfile
import urllib.request
from importlib.metadata import version

from comfy_api_simplified import ComfyApiWrapper
from PIL import Image


def workflow(model):
    def node(kind, title, **inputs):
        return {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}

    return {
        "1": node("CheckpointLoaderSimple", "model", ckpt_name=model),
        "2": node("CLIPTextEncode", "prompt", text="a red apple", clip=["1", 1]),
        "3": node("CLIPTextEncode", "negative", text="", clip=["1", 1]),
        "4": node("EmptyLatentImage", "size", width=128, height=128, batch_size=1),
        "5": node("KSampler", "sampler", model=["1", 0], positive=["2", 0], negative=["3", 0], latent_image=["4", 0], seed=5,
                  steps=2, cfg=1.0, sampler_name="euler", scheduler="normal", denoise=1.0),
        "6": node("VAEDecode", "decode", samples=["5", 0], vae=["1", 2]),
        "7": node("SaveImage", "save", images=["6", 0], filename_prefix="ComfyUI"),
    }


def main(url):
    api = ComfyApiWrapper(url)
    with urllib.request.urlopen(f"{url.rstrip('/')}/object_info/CheckpointLoaderSimple") as answer:
        info = json.load(answer)
    model = info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0][0]
    graph = workflow(model)
    prompt_id = api.queue_prompt(graph, "prima-client")["prompt_id"]
    again, _previews = asyncio.run(api.queue_prompt_and_wait(graph))
    saved = api.get_history(again)[again]["outputs"]["7"]["images"][0]
    picture = api.get_image(saved["filename"], saved["subfolder"], saved["type"])
    assert Image.open(io.BytesIO(picture)).size == (128, 128)
    first = api.get_history(prompt_id)[prompt_id]["outputs"]["7"]["images"][0]
    assert api.get_image(first["filename"], first["subfolder"], first["type"]) == picture, "one seed, one picture"

    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "apple.png"
        file.write_bytes(picture)
        uploaded = api.upload_image(file)
    over = workflow(model)
    over["9"] = {"class_type": "LoadImage", "inputs": {"image": f"{uploaded['subfolder']}/{uploaded['name']}"}}
    over["4"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["9", 0], "vae": ["1", 2]}}
    over["5"]["inputs"]["denoise"] = 0.5
    painted = list(api.queue_and_wait_images(over, "save").values())[-1]
    assert painted != picture and Image.open(io.BytesIO(painted)).size == (128, 128)

    graph["8"] = {"class_type": "IPAdapterModelLoader", "inputs": {}}
    try:
        api.queue_prompt(graph)
    except Exception as error:
        assert "400" in str(error), error
    else:
        raise AssertionError("a graph with an unknown node was accepted")
    print(f"comfy_api_simplified {version('comfy_api_simplified')}: workflows, their history and pictures, uploads, and a refusal work")


if __name__ == "__main__":
    main(sys.argv[1])
