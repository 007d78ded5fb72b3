"""torch's CPU normal generator: what `randn` gives for a seed, call after call.

Seen in torch 2.13: float16 and bfloat16 hold the rounded float32 values where the count is a multiple of 16. Where
it is not, they draw less: 16 uniforms for each whole chunk, then 16 for the last 16 values, none for the remainder.
"""

import torch

from common import GOLDENS, save_json

CASES = [  # seed, element type, shapes of consecutive calls on one generator
    (0, "float32", [[16]]),
    (0, "float32", [[1, 4, 8, 8]]),
    (42, "float32", [[36], [32]]),
    (42, "float32", [[17], [17]]),
    (7, "float32", [[31], [16], [100]]),
    (1, "float32", [[1]]),
    (1, "float32", [[5], [3], [15]]),
    (2, "float32", [[5], [16], [4], [20], [1]]),  # the cached half of a pair outlives a large call
    (2**32 - 1, "float32", [[18]]),
    (2**32 + 5, "float32", [[18]]),  # only the low 32 bits count: as seed 5
    (5, "float32", [[18]]),
    (2**63 - 1, "float32", [[3], [16]]),
    (3, "float32", [[2, 4, 6, 7], [2, 4, 6, 7]]),
    (4, "float16", [[40], [7]]),
    (4, "bfloat16", [[40], [7]]),
]


def main():
    rows = []
    for seed, dtype, shapes in CASES:
        g = torch.Generator("cpu").manual_seed(seed)
        calls = []
        for shape in shapes:
            values = torch.randn(shape, generator=g, dtype=getattr(torch, dtype))
            calls.append({"shape": shape, "values": values.double().flatten().tolist()})
        rows.append({"seed": seed, "dtype": dtype, "calls": calls})
    by_seed = {r["seed"]: r["calls"] for r in rows}
    assert by_seed[5] == by_seed[2**32 + 5]
    # Long runs, by a few of their values: the generator's state is renewed every 624 words.
    g = torch.Generator("cpu").manual_seed(123)
    long = torch.randn(5000, generator=g)
    picked = [0, 1, 623, 624, 625, 1247, 1248, 2500, 4983, 4984, 4991, 4992, 4999]
    save_json(GOLDENS / "torch_randn.json", {
        "cases": rows,
        "long": {"seed": 123, "count": 5000, "index": picked, "values": [long[i].item() for i in picked]},
    })


if __name__ == "__main__":
    main()
