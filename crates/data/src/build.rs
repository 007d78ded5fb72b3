//! Builds a data set from downloaded packages.

use crate::bpe::{self, WordCounts, WordSplitter};
use crate::caption;
use crate::colour::Palette;
use crate::dataset::{FORMAT, Kind, Manifest, NounRecord, Source, SpriteRecord, write_jsonl};
use crate::extras;
use crate::languages;
use crate::nouns::core_nouns;
use crate::packages::{
    Concept, Drawing, Emojibase, IconifySet, code_points, find_package, has_extension, read_archive,
};
use crate::random::Random;
use crate::render::{self, SIZE_PX};
use crate::{DataError, NOTICE, Profile};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::path::PathBuf;

/// What to build, from what.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// Folder with the .tgz files that `npm pack NAME` writes.
    pub packages: PathBuf,
    /// Archive (.tar) of photographs with a `labels.jsonl`; full profile only.
    pub photos: Option<PathBuf>,
    /// Archive (.tar.gz) of pixel-art tiles; full profile only.
    pub pixel_art: Option<PathBuf>,
    /// Folder to write; made if it is not there.
    pub out: PathBuf,
    pub profile: Profile,
    /// Entries of the tokenizer.
    pub vocab_size: usize,
    /// Chooses the held-back sets and which skin tones are kept.
    pub seed: u64,
}

/// A drawing and what it shows, before it is drawn.
pub(super) struct Job {
    pub noun: usize,
    pub set: &'static str,
    pub style: &'static str,
    pub kind: Kind,
    /// Whether it may be repainted and called by a colour. People may not ("a brown woman" is no caption), nor may
    /// what already says its colour ("a blue green apple").
    pub has_colour: bool,
    pub drawing: Drawing,
}

/// A set of emoji pictures: name, style word, npm package, licence.
struct EmojiSet {
    name: &'static str,
    style: &'static str,
    package: &'static str,
    licence: &'static str,
    full_only: bool,
}

const FLUENT_3D: &str = "@lobehub/fluent-emoji-3d";

const SETS: [EmojiSet; 8] = [
    set("fluent-3d", "glossy 3d", FLUENT_3D, "MIT", false),
    set("fluent-flat", "flat", "@iconify-json/fluent-emoji-flat", "MIT", false),
    set("noto", "noto", "@iconify-json/noto", "Apache-2.0", false),
    set("noto-v1", "classic noto", "@iconify-json/noto-v1", "Apache-2.0", false),
    set("twemoji", "twemoji", "@iconify-json/twemoji", "CC-BY-4.0", false),
    set("emojione", "emojione", "@iconify-json/emojione", "CC-BY-4.0", false),
    set("fxemoji", "cartoon", "@iconify-json/fxemoji", "Apache-2.0", true),
    set(
        "streamline",
        "line art",
        "@iconify-json/streamline-emojis",
        "CC-BY-4.0",
        true,
    ),
];

const fn set(
    name: &'static str,
    style: &'static str,
    package: &'static str,
    licence: &'static str,
    full_only: bool,
) -> EmojiSet {
    EmojiSet {
        name,
        style,
        package,
        licence,
        full_only,
    }
}

/// The pictures of a set by code points.
struct Pictures {
    set: &'static EmojiSet,
    drawings: BTreeMap<String, Drawing>,
}

fn open_sets(options: &BuildOptions, words: &mut Emojibase) -> Result<Vec<Pictures>, DataError> {
    static ALL: [EmojiSet; 8] = SETS;
    let wanted = ALL.iter().filter(|s| options.profile == Profile::Full || !s.full_only);
    let mut vector = Vec::new();
    let mut all = Vec::new();
    for set in wanted {
        if set.package == FLUENT_3D {
            let archive = find_package(&options.packages, set.package)?;
            let drawings = read_archive(&archive, |name| has_extension(name, "webp"))?
                .into_iter()
                .filter_map(|(name, bytes)| {
                    let stem = name.rsplit('/').next()?.strip_suffix(".webp")?;
                    Some((code_points(stem), Drawing::Bitmap(bytes)))
                })
                .collect();
            all.push(Pictures { set, drawings });
        } else {
            let icons = IconifySet::open(&options.packages, set.package)?;
            words.learn_names(&icons);
            vector.push((set, icons));
        }
    }
    for (set, icons) in vector {
        let drawings = words
            .join(&icons)
            .into_iter()
            .filter_map(|(code, name)| Some((code, Drawing::Svg(icons.svg(&name)?))))
            .collect();
        all.push(Pictures { set, drawings });
    }
    Ok(all)
}

/// The nouns of the data set and the code points whose pictures show each.
struct Vocabulary {
    nouns: Vec<NounRecord>,
    codes: Vec<Vec<String>>,
    is_person: Vec<bool>,
}

/// Emojibase's group of people and parts of the body.
const PEOPLE: u32 = 1;

fn tags(words: &Concept, phrase: &str) -> Vec<String> {
    let said: HashSet<&str> = phrase.split([' ', '-']).collect();
    let is_word = |tag: &str| tag.len() > 2 && tag.chars().all(|c| c.is_ascii_alphabetic() || c == ' ' || c == '-');
    let new = |tag: &&String| is_word(tag) && !tag.split([' ', '-']).all(|w| said.contains(w));
    words
        .tags
        .iter()
        .filter(new)
        .take(6)
        .map(|t| t.to_lowercase())
        .collect()
}

fn vocabulary(words: &Emojibase, options: &BuildOptions) -> Result<Vocabulary, DataError> {
    let mut nouns = Vec::new();
    let mut codes = Vec::new();
    let mut is_person = Vec::new();
    let mut taken: HashSet<String> = HashSet::new();
    for (rank, core) in core_nouns().into_iter().enumerate() {
        let find = |label: &String| {
            words.by_label(label).ok_or_else(|| DataError::UnknownLabel {
                line: core.line,
                label: label.clone(),
            })
        };
        let named = find(&core.words)?;
        let shown = core
            .labels
            .iter()
            .map(|l| Ok(find(l)?.code.clone()))
            .collect::<Result<Vec<_>, DataError>>()?;
        taken.extend(shown.iter().cloned());
        let mut names = named.names.clone();
        names.insert("en".to_owned(), caption::without_article(&core.phrase).to_owned());
        nouns.push(NounRecord {
            tags: tags(named, &core.phrase),
            phrase: core.phrase,
            core_rank: Some(rank),
            names,
        });
        codes.push(shown);
        is_person.push(named.group == PEOPLE);
    }
    if options.profile == Profile::Full {
        for concept in words
            .concepts
            .iter()
            .filter(|c| extras::is_wanted(c) && !taken.contains(&c.code))
        {
            let phrase = extras::phrase(concept);
            // A whole dog and a dog's face are both "a dog".
            if let Some(same) = nouns.iter().position(|n: &NounRecord| n.phrase == phrase) {
                codes[same].push(concept.code.clone());
                continue;
            }
            nouns.push(NounRecord {
                tags: tags(concept, &phrase),
                phrase,
                core_rank: None,
                names: concept
                    .names
                    .iter()
                    .map(|(l, n)| (l.clone(), n.to_lowercase()))
                    .collect(),
            });
            let mut shown = vec![concept.code.clone()];
            // At most one skin tone in five: keep one tone of some people.
            let mut random = Random::new(&[options.seed, u64::from(concept.group), nouns.len() as u64]);
            if random.chance(0.5) {
                shown.extend(random.pick(&concept.skins).cloned());
            }
            codes.push(shown);
            is_person.push(concept.group == PEOPLE);
        }
    }
    Ok(Vocabulary {
        nouns,
        codes,
        is_person,
    })
}

/// Draws everything and writes the data set. `progress` is told (done, total) pictures.
pub fn build(options: &BuildOptions, progress: &(dyn Fn(usize, usize) + Sync)) -> Result<Manifest, DataError> {
    std::fs::create_dir_all(&options.out).map_err(|e| DataError::io(&options.out, e))?;
    let mut words = Emojibase::open(&options.packages)?;
    let sets = open_sets(options, &mut words)?;
    let mut vocabulary = vocabulary(&words, options)?;
    let mut jobs = emoji_jobs(&vocabulary, &sets);
    if options.profile == Profile::Full {
        extras::add(options, &mut vocabulary.nouns, &mut jobs)?;
    }
    let (mut records, sha256) = draw_all(options, &jobs, progress)?;
    let licences: HashMap<&str, (&str, &str)> = SETS
        .iter()
        .map(|s| (s.name, (s.package, s.licence)))
        .chain(extras::LICENCES)
        .collect();
    hold_back(&mut records, options.seed);
    write_jsonl(&options.out.join("sprites.jsonl"), &records)?;
    write_jsonl(&options.out.join("nouns.jsonl"), &vocabulary.nouns)?;
    let tokenizer = bpe::train(&word_counts(&words, &vocabulary.nouns)?, options.vocab_size);
    tokenizer.write(&options.out.join("tokenizer"))?;
    let write = |name: &str, text: &str| {
        let path = options.out.join(name);
        std::fs::write(&path, text).map_err(|e| DataError::io(&path, e))
    };
    write("NOTICE", NOTICE)?;

    let mut sources: Vec<Source> = Vec::new();
    for record in &records {
        let (name, licence) = licences
            .get(record.set.as_str())
            .copied()
            .unwrap_or((record.set.as_str(), ""));
        match sources.iter_mut().find(|s| s.name == name) {
            Some(source) => source.sprites += 1,
            None => sources.push(Source {
                name: name.to_owned(),
                licence: licence.to_owned(),
                sprites: 1,
            }),
        }
    }
    sources.push(Source {
        name: "emojibase-data".to_owned(),
        licence: "MIT".to_owned(),
        sprites: 0,
    });
    let manifest = Manifest {
        format: FORMAT,
        profile: options.profile,
        size_px: SIZE_PX,
        sprites: records.len(),
        held_back_sprites: records.iter().filter(|r| r.held_back).count(),
        nouns: vocabulary.nouns.len(),
        core_nouns: vocabulary.nouns.iter().filter(|n| n.core_rank.is_some()).count(),
        tokenizer_entries: tokenizer.vocab.len(),
        seed: options.seed,
        sources,
        sha256,
    };
    let text = serde_json::to_string_pretty(&manifest).map_err(|source| DataError::Json {
        file: options.out.join("manifest.json"),
        source,
    })?;
    // Written last: a folder without it is not a data set.
    write("manifest.json", &text)?;
    Ok(manifest)
}

fn emoji_jobs(vocabulary: &Vocabulary, sets: &[Pictures]) -> Vec<Job> {
    let mut jobs = Vec::new();
    for (noun, codes) in vocabulary.codes.iter().enumerate() {
        for pictures in sets {
            for drawing in codes.iter().filter_map(|code| pictures.drawings.get(code)) {
                let (set, style) = (pictures.set.name, pictures.set.style);
                let has_colour = !vocabulary.is_person[noun] && !caption::says_colour(&vocabulary.nouns[noun].phrase);
                jobs.push(Job {
                    noun,
                    set,
                    style,
                    kind: Kind::Object,
                    has_colour,
                    drawing: drawing.clone(),
                });
            }
        }
    }
    jobs
}

/// Pictures drawn before they are written.
const CHUNK: usize = 256;

/// Draws the jobs in parallel and writes the pixels in their order; a drawing that shows nothing is left out.
fn draw_all(
    options: &BuildOptions,
    jobs: &[Job],
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<(Vec<SpriteRecord>, String), DataError> {
    let path = options.out.join("sprites.rgba");
    let mut file = std::fs::File::create(&path).map_err(|e| DataError::io(&path, e))?;
    let mut records = Vec::with_capacity(jobs.len());
    let mut digest = Sha256::new();
    let mut done = 0;
    for chunk in jobs.chunks(CHUNK) {
        let drawn: Vec<Option<Vec<u8>>> = chunk.par_iter().map(|job| render::sprite(&job.drawing)).collect();
        for (job, pixels) in chunk.iter().zip(drawn) {
            let Some(pixels) = pixels else { continue };
            let palette = Palette::of(&pixels);
            records.push(SpriteRecord {
                noun: job.noun,
                set: job.set.to_owned(),
                style: job.style.to_owned(),
                kind: job.kind,
                hue_shiftable: job.has_colour && palette.is_hue_shiftable(),
                hue: palette.hue,
                luma: palette.luma,
                main_colour: palette.main.filter(|_| job.has_colour).map(|c| c.name().to_owned()),
                mean_rgb: palette.mean.map(|v| (v * 255.0).round() as u8),
                held_back: false,
            });
            digest.update(&pixels);
            file.write_all(&pixels).map_err(|e| DataError::io(&path, e))?;
        }
        done += chunk.len();
        progress(done, jobs.len());
    }
    let sha256 = format!("{:x}", digest.finalize());
    Ok((records, sha256))
}

/// Fewest sets that must draw a noun before one is held back.
const SETS_TO_HOLD_BACK: usize = 5;

/// Marks the sprites of one vector set per noun as held back. The 3D set is always trained on: nothing else looks like it.
fn hold_back(records: &mut [SpriteRecord], seed: u64) {
    let mut sets: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for record in records.iter().filter(|r| r.kind == Kind::Object) {
        let of_noun = sets.entry(record.noun).or_default();
        if !of_noun.contains(&record.set) {
            of_noun.push(record.set.clone());
        }
    }
    let chosen: HashMap<usize, String> = sets
        .into_iter()
        .filter(|(_, sets)| sets.len() >= SETS_TO_HOLD_BACK)
        .filter_map(|(noun, mut sets)| {
            sets.retain(|s| SETS.iter().any(|e| e.name == s && s != "fluent-3d" && !e.full_only));
            Some((noun, Random::new(&[seed, 7, noun as u64]).pick(&sets)?.clone()))
        })
        .collect();
    for record in records {
        record.held_back = record.kind == Kind::Object && chosen.get(&record.noun) == Some(&record.set);
    }
}

/// Words of all captions that any profile can write. English and the core nouns weigh more, so that each common word is
/// one token.
fn word_counts(words: &Emojibase, nouns: &[NounRecord]) -> Result<WordCounts, DataError> {
    let splitter = WordSplitter::new()?;
    let mut counts = WordCounts::new();
    let mut add = |text: &str, weight: u64| -> Result<(), DataError> {
        for word in splitter.words(text)? {
            *counts.entry(word).or_default() += weight;
        }
        Ok(())
    };
    for concept in words.concepts.iter().filter(|c| extras::is_wanted(c)) {
        for (language, name) in &concept.names {
            add(name, if language == "en" { 6 } else { 1 })?;
        }
        for tag in &concept.tags {
            add(tag, 2)?;
        }
    }
    for noun in nouns {
        let weight = if noun.core_rank.is_some() { 60 } else { 6 };
        add(&noun.phrase, weight)?;
        add(&caption::plural(noun.noun()), weight / 3)?;
        for name in noun.names.values() {
            add(name, weight / 12)?;
        }
    }
    for words in caption::template_words().iter().chain(&languages::words()) {
        add(words, 100)?;
    }
    Ok(counts)
}
