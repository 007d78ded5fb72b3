#!/usr/bin/env python3
"""The hundred prompts that a model is judged on by eye, from published lists, by a rule that no model has a say in.

    prima data captions -o captions.txt
    python scripts/eval/hundred.py PROMPTS captions.txt crates/eval/src/hundred.txt

PROMPTS is a folder with PartiPrompts.tsv, geneval_evaluation_metadata.jsonl and t2icompbench_{color,numeracy,spatial}_val.txt.

A prompt is usable if every word of it is in some caption of the scene generator, it has two to twelve words, and no digit or
number above four. Of PartiPrompts, less the categories Abstract and World Knowledge, 40 are taken: the first usable one of each
pair of category and challenge, then the second of each. In the order of the other lists are taken: of GenEval five of each of its six tags; of T2I-CompBench ten of each list. Where a
list has fewer, the next usable ones of the lists fill the hundred, in the order above.
"""

import csv
import json
import re
import sys
from pathlib import Path

PARTI, GENEVAL_TAG, COMPBENCH, ALL = 40, 5, 10, 100
TAGS = ["single_object", "two_object", "counting", "colors", "position", "color_attr"]


MANY = {"five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"}


def words(text):
    return re.findall(r"[a-z0-9]+", text.lower())


def is_usable(prompt, known):
    own = words(prompt)
    plain = not any(word in MANY or any(c.isdigit() for c in word) for word in own)
    return plain and 2 <= len(own) <= 12 and known.issuperset(own)


def in_turn(groups):
    """The first of each group, then the second of each."""
    longest = max(map(len, groups), default=0)
    return [group[i] for i in range(longest) for group in groups if i < len(group)]


def lists(folder, known):
    """(name, how many, prompts) of each part, in order."""
    with open(folder / "PartiPrompts.tsv", encoding="utf-8") as file:
        groups = {}
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            if row["Category"] not in ("Abstract", "World Knowledge") and is_usable(row["Prompt"], known):
                groups.setdefault((row["Category"], row["Challenge"]), []).append(row["Prompt"])
        yield "PartiPrompts", PARTI, in_turn(list(groups.values()))
    lines = (folder / "geneval_evaluation_metadata.jsonl").read_text().splitlines()
    geneval = [json.loads(line) for line in lines]
    for tag in TAGS:
        yield f"GenEval {tag}", GENEVAL_TAG, [one["prompt"] for one in geneval if one["tag"] == tag]
    for part in ["color", "numeracy", "spatial"]:
        text = (folder / f"t2icompbench_{part}_val.txt").read_text()
        yield f"T2I-CompBench {part}", COMPBENCH, text.splitlines()


def main():
    folder, captions, out = map(Path, sys.argv[1:])
    known = set(words(captions.read_text(encoding="utf-8")))
    taken, rest = [], []
    for name, most, prompts in lists(folder, known):
        usable = [p.strip() for p in prompts if is_usable(p, known)]
        usable = list(dict.fromkeys(usable))
        taken.append((name, usable[:most]))
        rest.append((name, usable[most:]))
    missing = ALL - sum(len(prompts) for _, prompts in taken)
    spare = [(name, p) for name, prompts in rest for p in prompts][:missing]
    parts = [(name, prompts + [p for n, p in spare if n == name]) for name, prompts in taken]
    head = [
        "# A hundred prompts for judging a model by eye, chosen by scripts/eval/hundred.py before there was a model to judge; nobody",
        "# tunes on them. From PartiPrompts (Apache-2.0, text in LICENSE-APACHE), GenEval (MIT, Copyright (c) 2023 Dhruba Ghosh) and",
        "# T2I-CompBench (MIT, Copyright (c) 2023 HKU; the text of both is that of LICENSE-MIT).",
    ]
    body = [line for name, prompts in parts for line in [f"# {name}: {len(prompts)}", *prompts]]
    out.write_text("\n".join(head + body) + "\n", encoding="utf-8")


main()
