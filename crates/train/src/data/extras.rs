//! What only the full profile has: every other emoji concept, photographs and pixel art.

use super::build::{BuildOptions, Job};
use super::caption;
use super::dataset::{Kind, NounRecord};
use super::packages::{Concept, Drawing, read_archive};
use super::DataError;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Licences of the pictures that are not emoji sets: set, name, licence.
pub(super) const LICENCES: [(&str, (&str, &str)); 2] = [
    ("grocery", ("GroceryStoreDataset", "MIT")),
    ("dcss", ("Dungeon Crawl Stone Soup tiles", "CC0-1.0")),
];

/// Whether a concept is a picture of something: not a flag, key cap, letter, arrow, symbol or one of 24 clock faces.
pub(super) fn is_wanted(concept: &Concept) -> bool {
    let label = concept.label.as_str();
    let clock_face = label.ends_with("o’clock") || label.ends_with("-thirty");
    let family = label.starts_with("family:") || label.starts_with("kiss:") || label.starts_with("couple with heart:");
    let symbol = label.contains("button") || label.contains("arrow") && concept.group != 7 && concept.group != 0;
    matches!(concept.group, 0 | 1 | 3 | 4 | 5 | 6 | 7) && !clock_face && !family && !symbol
}

/// The noun phrase of a concept that is not in the core list.
pub(super) fn phrase(concept: &Concept) -> String {
    let label = match concept.label.split_once(": ") {
        Some((who, what)) => format!("{who} with {what}"),
        None => concept.label.clone(),
    };
    caption::phrase_of(&label)
}

/// Adds photographs and pixel art, with the nouns that they need.
pub(super) fn add(options: &BuildOptions, nouns: &mut Vec<NounRecord>, jobs: &mut Vec<Job>) -> Result<(), DataError> {
    if let Some(archive) = &options.photos {
        add_photos(archive, nouns, jobs)?;
    }
    if let Some(archive) = &options.pixel_art {
        add_pixel_art(archive, nouns, jobs)?;
    }
    Ok(())
}

/// The noun with this phrase, made if it is new.
fn noun_called(phrase: &str, nouns: &mut Vec<NounRecord>) -> usize {
    if let Some(found) = nouns.iter().position(|n| n.phrase == phrase) {
        return found;
    }
    let names = BTreeMap::from([("en".to_owned(), caption::without_article(phrase).to_owned())]);
    nouns.push(NounRecord { phrase: phrase.to_owned(), core_rank: None, tags: Vec::new(), names });
    nouns.len() - 1
}

#[derive(Deserialize)]
struct PhotoLabel {
    file: String,
    coarse: String,
    label: String,
}

/// A phrase for a photograph of produce. Kinds whose own name says what they are ("watermelon", "sweet potato") use it;
/// breeds ("Royal Gala") are called by what they are a breed of.
fn produce(label: &PhotoLabel) -> String {
    let name = label.label.to_lowercase();
    let own_name = ["pepper", "potato", "watermelon", "cantaloupe", "melon", "tomato"].iter().any(|w| name.contains(w));
    let name = if own_name { name } else { label.coarse.to_lowercase() };
    match name.as_str() {
        "carrots" => "some carrots".to_owned(),
        "satsumas" => "some satsumas".to_owned(),
        "asparagus" | "garlic" | "ginger" => format!("some {name}"),
        "aubergine" => "an eggplant".to_owned(),
        "red beet" => "a beet".to_owned(),
        "regular tomato" | "beef tomato" | "vine tomato" => "a tomato".to_owned(),
        "floury potato" | "solid potato" => "a potato".to_owned(),
        "brown cap mushroom" => "a mushroom".to_owned(),
        other => caption::phrase_of(other),
    }
}

fn add_photos(archive: &Path, nouns: &mut Vec<NounRecord>, jobs: &mut Vec<Job>) -> Result<(), DataError> {
    let mut files = read_archive(archive, |_| true)?;
    let missing = || DataError::MissingFile { archive: archive.to_owned(), file: "labels.jsonl".to_owned() };
    let labels = files.remove("labels.jsonl").ok_or_else(missing)?;
    for line in String::from_utf8_lossy(&labels).lines() {
        let label: PhotoLabel = serde_json::from_str(line)
            .map_err(|source| DataError::Json { file: archive.join("labels.jsonl"), source })?;
        // The list names some files more than once; each is taken once.
        let Some(bytes) = files.remove(&label.file) else { continue };
        let noun = noun_called(&produce(&label), nouns);
        jobs.push(Job { noun, set: "grocery", style: "photo", kind: Kind::Photo, drawing: Drawing::Photo(bytes) });
    }
    Ok(())
}

/// Tiles of monsters and items are named by their files; walls, floors and interface tiles are left out.
fn add_pixel_art(archive: &Path, nouns: &mut Vec<NounRecord>, jobs: &mut Vec<Job>) -> Result<(), DataError> {
    let files = read_archive(archive, |name| {
        name.ends_with(".png") && ["mon/", "item/"].iter().any(|part| name.trim_start_matches("./").starts_with(part))
    })?;
    for (path, bytes) in files {
        if let Some(phrase) = tile_phrase(&path) {
            let noun = noun_called(&phrase, nouns);
            let drawing = Drawing::PixelArt(bytes);
            jobs.push(Job { noun, set: "dcss", style: "pixel art", kind: Kind::PixelArt, drawing });
        }
    }
    Ok(())
}

/// `mon/animals/yellow_wasp.png` -> `a yellow wasp`; `None` for names of people and for parts of things.
fn tile_phrase(path: &str) -> Option<String> {
    if ["unique", "unrand", "segments", "artefact", "runes", "panlord", "tentacle"].iter().any(|w| path.contains(w)) {
        return None;
    }
    let stem = path.rsplit('/').next()?.strip_suffix(".png")?.trim_start_matches("i-");
    let words: Vec<&str> = stem
        .split(['_', '-'])
        .map(|w| w.trim_end_matches(|c: char| c.is_ascii_digit()))
        .filter(|w| !w.is_empty() && !["new", "old", "n", "s", "e", "w"].contains(w))
        .collect();
    let folder = path.rsplit('/').nth(1).unwrap_or_default();
    let mut name = words.join(" ");
    if ["staff", "amulet", "ring", "potion", "wand", "scroll"].contains(&folder) && !name.contains(folder) {
        name = format!("{name} {folder}");
    }
    (words.len() <= 4 && name.len() > 2).then(|| caption::phrase_of(&name))
}
