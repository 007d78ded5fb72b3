"""LangChain's picture tool (`langchain-community`) against a running prima: the URL that it gives is a picture.

    python scripts/clients/langchain_client.py http://127.0.0.1:7860
"""

import base64
import sys
import warnings
from importlib.metadata import version

warnings.simplefilter("ignore")

from langchain_community.utilities.dalle_image_generator import DallEAPIWrapper  # noqa: E402


def main(url):
    tool = DallEAPIWrapper(api_key="any", base_url=f"{url.rstrip('/')}/v1", model="dall-e-3", size="1024x1792")
    head, data = tool.run("a red apple (ripe) on a table").split(",", 1)
    png = base64.b64decode(data)
    assert head == "data:image/png;base64", head
    assert png.startswith(b"\x89PNG") and int.from_bytes(png[20:24], "big") == 1792
    print(f"langchain-community {version('langchain-community')}: the picture tool works")


if __name__ == "__main__":
    main(sys.argv[1])
