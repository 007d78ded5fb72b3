"""`litellm`, which many proxies and chat front ends speak through, against a running prima: a picture by its OpenAI route.

    python scripts/clients/litellm_client.py http://127.0.0.1:7860
"""

import base64
import os
import sys
from importlib.metadata import version

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # asks nobody for prices

import litellm  # noqa: E402


def main(url):
    api = {"model": "openai/prima", "api_base": f"{url.rstrip('/')}/v1", "api_key": "any"}
    answer = litellm.image_generation(prompt="a red apple", n=2, size="1024x1024", **api)
    assert len(answer.data) == 2
    for picture in answer.data:
        png = base64.b64decode(picture.b64_json)
        assert png.startswith(b"\x89PNG") and int.from_bytes(png[16:20], "big") == 1024
    try:
        litellm.image_generation(prompt="a", size="9999x64", **api)
    except litellm.BadRequestError as error:
        assert "width 9999" in str(error), error
    else:
        raise AssertionError("a width of 9999 was accepted")
    print(f"litellm {version('litellm')}: pictures of a size asked for, and errors work")


if __name__ == "__main__":
    main(sys.argv[1])
