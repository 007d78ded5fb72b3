"""A small CLIP byte-level BPE vocabulary, learned here from a few sentences (no download)."""

import collections
import json

import regex

TEXT = """
a photo of an astronaut riding a horse on mars, cinematic light, highly detailed
a watercolour painting of a lighthouse at sunset with a red roof over the sea
the cat and the dog are sitting in the green garden under the old tree
portrait of a woman with silver hair, soft light, film grain, shallow depth of field
an oil painting of a mountain village in winter, snow falling on the houses
a bowl of ripe oranges and blue grapes on a wooden table, still life
isometric drawing of a small city street with shops and people walking
black and white photograph of a train in the fog, old station, long exposure
close up of a bee on a yellow flower, macro photography, sharp focus
blurry low quality picture, bad hands, text, watermark
"""
WORDS = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")
MERGES = 300


def byte_characters():
    """CLIP's printable stand-ins for the 256 bytes, in vocabulary order ("!" is id 0)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return [(b, chr(b)) for b in printable] + [(b, chr(256 + i)) for i, b in enumerate(others)]


def learn_merges(text, count):
    table = dict(byte_characters())
    words = collections.Counter(WORDS.findall(text.lower()))
    split = {w: [table[b] for b in w.encode()] for w in words}
    for symbols in split.values():
        symbols[-1] += "</w>"
    merges = []
    while len(merges) < count:
        pairs = collections.Counter()
        for w, s in split.items():
            for pair in zip(s, s[1:]):
                pairs[pair] += words[w]
        if not pairs:
            break
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        for s in split.values():
            i = 0
            while i + 1 < len(s):
                if (s[i], s[i + 1]) == best:
                    s[i : i + 2] = ["".join(best)]
                i += 1
    return merges


def write(folder, pad_token):
    """Writes vocab.json, merges.txt and the two config files of a CLIPTokenizer folder."""
    letters = [c for _, c in byte_characters()]
    merges = learn_merges(TEXT, MERGES)
    tokens = letters + [c + "</w>" for c in letters] + ["".join(m) for m in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    assert len(tokens) == len(set(tokens))
    folder.mkdir(parents=True, exist_ok=True)
    vocab = {t: i for i, t in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(m) for m in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>",
               "pad_token": pad_token}
    config = {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": 77,
              "tokenizer_class": "CLIPTokenizer", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=1) + "\n")
    return vocab
