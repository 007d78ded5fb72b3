"""An A1111 client library (`webuiapi`) against a running prima: txt2img, img2img, progress, interrupt.

    python scripts/clients/a1111_client.py http://127.0.0.1:7860
"""

import sys
import threading
import time
from importlib.metadata import version
from urllib.parse import urlparse

import webuiapi


def main(url):
    address = urlparse(url)
    api = webuiapi.WebUIApi(host=address.hostname, port=address.port)
    small = {"steps": 2, "cfg_scale": 1, "width": 64, "height": 64, "sampler_name": "Euler a"}

    painted = api.txt2img(prompt="a red apple", negative_prompt="", seed=5, **small)
    assert painted.image.size == (64, 64)
    assert painted.info["seed"] == 5 and painted.info["all_seeds"] == [5], painted.info
    again = api.txt2img(prompt="a red apple", seed=5, **small)
    assert again.image.tobytes() == painted.image.tobytes(), "one seed, one picture"

    over = api.img2img(images=[painted.image], prompt="a green apple", seed=5, denoising_strength=0.6, **small)
    assert over.image.size == (64, 64) and over.image.tobytes() != painted.image.tobytes()

    assert "Euler a" in [sampler["name"] for sampler in api.get_samplers()]
    assert len(api.get_sd_models()) == 1
    assert api.get_options()["sd_model_checkpoint"] == api.util_get_current_model()
    assert "Seed: 5" in api.png_info(painted.image).info
    assert api.get_progress()["progress"] == 0

    result = {}

    def long_request():
        result["answer"] = api.txt2img(
            prompt="slow", seed=5, steps=100, cfg_scale=1, width=256, height=256, batch_size=8, sampler_name="Euler a"
        )

    thread = threading.Thread(target=long_request)
    thread.start()
    progress = 0
    deadline = time.monotonic() + 60
    while progress == 0 and time.monotonic() < deadline:
        progress = api.get_progress()["progress"]
    assert 0 < progress < 1, progress
    api.interrupt()
    thread.join(60)
    assert not thread.is_alive(), "interrupt did not end the request"
    assert 1 <= len(result["answer"].images) < 8, len(result["answer"].images)

    try:
        api.txt2img(prompt="a", steps=2, sampler_name="Nonsense")
    except RuntimeError as error:
        assert "Nonsense" in str(error), error
    else:
        raise AssertionError("a sampler called Nonsense was accepted")
    print(f"webuiapi {version('webuiapi')}: txt2img, img2img, progress and interrupt work")


if __name__ == "__main__":
    main(sys.argv[1])
