"""The official `openai` package against a running prima: generate, stream, edit, list, and an error.

    python scripts/clients/openai_client.py http://127.0.0.1:7860
"""

import base64
import io
import sys

import openai


def is_png(text):
    return base64.b64decode(text).startswith(b"\x89PNG")


def main(url):
    client = openai.OpenAI(base_url=f"{url.rstrip('/')}/v1", api_key="any", max_retries=0)

    names = [model.id for model in client.models.list()]
    assert len(names) == 1, names

    answer = client.images.generate(model=names[0], prompt="a red apple", size="auto", extra_body={"seed": 1})
    assert is_png(answer.data[0].b64_json) and answer.usage.input_tokens > 0
    again = client.images.generate(model="dall-e-3", prompt="a red apple", extra_body={"seed": 1})
    assert again.data[0].b64_json == answer.data[0].b64_json, "one seed, one picture"

    events = list(
        client.images.generate(
            prompt="a red apple", stream=True, partial_images=2, extra_body={"seed": 1, "num_inference_steps": 4}
        )
    )
    kinds = [event.type for event in events]
    assert kinds == ["image_generation.partial_image"] * 2 + ["image_generation.completed"], kinds
    assert all(is_png(event.b64_json) for event in events)

    picture = io.BytesIO(base64.b64decode(answer.data[0].b64_json))
    picture.name = "apple.png"
    edited = client.images.edit(image=picture, prompt="a green apple", extra_body={"strength": 0.75, "seed": 1})
    assert is_png(edited.data[0].b64_json) and edited.data[0].b64_json != answer.data[0].b64_json

    try:
        client.images.generate(prompt="a", size="4x100")
    except openai.BadRequestError as error:
        assert "width 4" in str(error), error
    else:
        raise AssertionError("a size of 4x100 was accepted")
    print(f"openai {openai.__version__}: generate, stream, edit, models and errors work")


if __name__ == "__main__":
    main(sys.argv[1])
