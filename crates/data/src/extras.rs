//! What only the full profile has: every other emoji concept, photographs and pixel art.

use crate::DataError;
use crate::build::{BuildOptions, Job};
use crate::caption;
use crate::dataset::{Kind, NounRecord};
use crate::packages::{Concept, Drawing, has_extension, read_archive};
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
    // Mirrored twins, and signs that show nothing.
    let mirrored = label.contains("facing right");
    let sign = ["ZZZ", "anger symbol", "palms up together", "head shaking", "motorway"]
        .iter()
        .any(|s| label.contains(s));
    let symbol = mirrored
        || sign
        || label.contains("button")
        || label.contains("arrow") && concept.group != 7 && concept.group != 0;
    matches!(concept.group, 0 | 1 | 3 | 4 | 5 | 6 | 7) && !clock_face && !family && !symbol
}

/// Phrases for labels that are no noun phrase as they stand.
const PHRASES: [(&str, &str); 40] = [
    ("rolling on the floor laughing", "a face rolling on the floor laughing"),
    ("star-struck", "a star-struck face"),
    ("collision", "an explosion"),
    ("dizzy", "a dizzy star"),
    ("dashing away", "a puff of smoke"),
    ("hundred points", "a hundred points sign"),
    ("nauseated face", "a sick green face"),
    ("breast-feeding", "a woman breast-feeding"),
    ("soap", "a bar of soap"),
    ("unlocked", "an open lock"),
    ("locked with pen", "a lock with a pen"),
    ("locked with key", "a lock with a key"),
    ("foggy", "a foggy city"),
    ("wood", "a log of wood"),
    ("cooking", "a fried egg"),
    ("hot springs", "a hot spring"),
    ("airplane departure", "an airplane taking off"),
    ("airplane arrival", "an airplane landing"),
    ("hourglass done", "an hourglass"),
    ("hourglass not done", "a running hourglass"),
    ("high voltage", "a lightning bolt"),
    ("fork and knife", "a fork and a knife"),
    ("fork and knife with plate", "a plate with a fork and a knife"),
    ("running shirt", "a running shirt"),
    ("camping", "a campsite"),
    ("building construction", "a construction site"),
    ("light rail", "a light rail train"),
    ("flag in hole", "a golf flag"),
    ("man: bald", "a bald man"),
    ("woman: bald", "a bald woman"),
    ("person: bald", "a bald person"),
    ("person: beard", "a person with a beard"),
    ("man: beard", "a man with a beard"),
    ("woman: beard", "a woman with a beard"),
    ("chart increasing", "a rising chart"),
    ("chart decreasing", "a falling chart"),
    ("linked paperclips", "two linked paperclips"),
    ("bowling", "a bowling ball and pins"),
    ("ping pong", "a ping pong paddle"),
    ("construction", "a construction barrier"),
];

/// The noun phrase of a concept that is not in the core list.
pub(super) fn phrase(concept: &Concept) -> String {
    if let Some((_, phrase)) = PHRASES.iter().find(|(label, _)| *label == concept.label) {
        return (*phrase).to_owned();
    }
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
    nouns.push(NounRecord {
        phrase: phrase.to_owned(),
        core_rank: None,
        tags: Vec::new(),
        names,
    });
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
    let own_name = ["pepper", "potato", "watermelon", "cantaloupe", "melon", "tomato"]
        .iter()
        .any(|w| name.contains(w));
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
    for (phrase, bytes) in photos(archive)? {
        let noun = noun_called(&phrase, nouns);
        jobs.push(Job {
            noun,
            set: "grocery",
            style: "photo",
            kind: Kind::Photo,
            has_colour: false,
            drawing: Drawing::Photo(bytes),
        });
    }
    Ok(())
}

/// The photographs of an archive, each with its noun phrase, in the order of its `labels.jsonl`.
pub(super) fn photos(archive: &Path) -> Result<Vec<(String, Vec<u8>)>, DataError> {
    let mut photos = Vec::new();
    let mut files = read_archive(archive, |_| true)?;
    let missing = || DataError::MissingFile {
        archive: archive.to_owned(),
        file: "labels.jsonl".to_owned(),
    };
    let labels = files.remove("labels.jsonl").ok_or_else(missing)?;
    for line in String::from_utf8_lossy(&labels).lines() {
        let label: PhotoLabel = serde_json::from_str(line).map_err(|source| DataError::Json {
            file: archive.join("labels.jsonl"),
            source,
        })?;
        // The list names some files more than once; each is taken once.
        let Some(bytes) = files.remove(&label.file) else {
            continue;
        };
        photos.push((produce(&label), bytes));
    }
    Ok(photos)
}

fn add_pixel_art(archive: &Path, nouns: &mut Vec<NounRecord>, jobs: &mut Vec<Job>) -> Result<(), DataError> {
    for (phrase, bytes) in tiles(archive)? {
        let noun = noun_called(&phrase, nouns);
        let drawing = Drawing::PixelArt(bytes);
        let (set, style, kind) = ("dcss", "pixel art", Kind::PixelArt);
        jobs.push(Job {
            noun,
            set,
            style,
            kind,
            has_colour: true,
            drawing,
        });
    }
    Ok(())
}

/// The tiles of an archive that have a name, each with its noun phrase: monsters and things are named by their files;
/// walls, floors and interface tiles are left out.
pub(super) fn tiles(archive: &Path) -> Result<Vec<(String, Vec<u8>)>, DataError> {
    let files = read_archive(archive, |name| {
        has_extension(name, "png") && tile_phrase(name).is_some()
    })?;
    Ok(files
        .into_iter()
        .filter_map(|(path, bytes)| Some((tile_phrase(&path)?, bytes)))
        .collect())
}

/// Folders of things that all look like one kind of thing.
const TILE_KINDS: [(&str, &str); 9] = [
    ("item/potion/", "a potion"),
    ("item/scroll/", "a scroll"),
    ("item/wand/", "a wand"),
    ("item/staff/", "a staff"),
    ("item/rod/", "a rod"),
    ("item/ring/", "a ring"),
    ("item/amulet/", "an amulet"),
    ("item/book/", "a book"),
    ("item/gold/", "gold coins"),
];

/// Names of particular people, parts of larger pictures, and words that only the game's players know.
const UNNAMEABLE: [&str; 34] = [
    "unique",
    "unrand",
    "segments",
    "artefact",
    "panlord",
    "tentacle",
    "overlay",
    "/draco/",
    "statues",
    "demonspawn",
    "vault",
    "simulacrum",
    "spectral",
    "skeleton_",
    "zombie_",
    "_base",
    "elementalist",
    "monk_ghost",
    "sprint",
    "ufetubus",
    "ynoxinul",
    "neqoxec",
    "lorocyproca",
    "sixfirhy",
    "wucad",
    "guardian_eye",
    "zonguldrok",
    "cigotuvis",
    "tarantella",
    "dimme",
    "convoker",
    "preserver",
    "test_spawner",
    "freed",
];

/// `mon/animals/yellow_wasp.png` -> `a yellow wasp`; `None` for what has no name that says what is seen.
fn tile_phrase(path: &str) -> Option<String> {
    let path = path.trim_start_matches("./");
    let stem = path.rsplit('/').next()?.strip_suffix(".png")?;
    // "i-" marks the small signs that the game draws over an unidentified thing.
    if stem.starts_with("i-") || UNNAMEABLE.iter().any(|w| path.contains(w)) {
        return None;
    }
    if let Some((_, phrase)) = TILE_KINDS.iter().find(|(folder, _)| path.starts_with(folder)) {
        return Some((*phrase).to_owned());
    }
    if !["mon/", "item/weapon/", "item/food/"]
        .iter()
        .any(|folder| path.starts_with(folder))
    {
        return None;
    }
    let words: Vec<&str> = stem
        .split(['_', '-'])
        .map(|w| w.trim_end_matches(|c: char| c.is_ascii_digit()))
        .filter(|w| {
            ![
                "", "new", "old", "n", "s", "e", "w", "melee", "water", "c", "large", "small",
            ]
            .contains(w)
        })
        .collect();
    let name = words.join(" ");
    (words.len() <= 3 && name.len() > 2).then(|| caption::phrase_of(&name))
}
