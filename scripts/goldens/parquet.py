"""Parquet files with pictures as Hugging Face keeps them, by pyarrow: goldens/parquet.

    python parquet.py ../../goldens/parquet

`imagefolder.parquet`: the columns of `datasets`' Image feature (a struct of bytes and path) and words, in two groups of rows,
Snappy; a row without a picture and one without words. `plain.parquet`: pictures as bytes alone, Zstandard. Needs pyarrow and Pillow.
"""

import io
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
from PIL import Image


def png(width, height, colour):
    out = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(out, "PNG")
    return out.getvalue()


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    files = [png(4, 8, (200, 0, 0)), png(6, 6, (0, 200, 0)), None, png(8, 4, (0, 0, 200)), png(4, 4, (9, 9, 9))]
    images = [{"bytes": file, "path": f"{i}.png"} for i, file in enumerate(files)]
    words = ["a red card", "a green card", "nothing", None, "a dark card"]
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = pyarrow.table({"text": pyarrow.array(words), "image": pyarrow.array(images, image)})
    pyarrow.parquet.write_table(table, folder / "imagefolder.parquet", row_group_size=3, compression="snappy")
    plain = pyarrow.table({"jpg": pyarrow.array(files[:2], pyarrow.binary()), "caption": pyarrow.array(words[:2])})
    pyarrow.parquet.write_table(plain, folder / "plain.parquet", compression="zstd")


if __name__ == "__main__":
    main()
