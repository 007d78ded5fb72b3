//! Reading the npm packages (`npm pack NAME` writes one .tgz each) that hold the pictures and the words.

use crate::DataError;
use flate2::read::GzDecoder;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Languages of the captions, with emojibase's folder names. English is first.
pub const LANGUAGES: [&str; 8] = ["en", "de", "es", "fr", "it", "pt", "ja", "zh"];

/// One picture before it is drawn.
#[derive(Debug, Clone)]
pub enum Drawing {
    /// A whole SVG document.
    Svg(String),
    /// An encoded bitmap (webp, png, jpeg).
    Bitmap(Vec<u8>),
    /// An encoded bitmap of a few pixels, enlarged with hard edges.
    PixelArt(Vec<u8>),
    /// An encoded photograph, cropped to a square; it has no transparent background.
    Photo(Vec<u8>),
}

/// The file in `folder` that `npm pack` made of `package` (`@scope/name` becomes `scope-name-VERSION.tgz`).
pub fn find_package(folder: &Path, package: &str) -> Result<PathBuf, DataError> {
    let stem = package.trim_start_matches('@').replace('/', "-");
    let entries = std::fs::read_dir(folder).map_err(|e| DataError::io(folder, e))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            name.strip_prefix(&stem)
                .and_then(|rest| rest.strip_prefix('-'))
                .is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()) && has_extension(v, "tgz"))
        })
        .collect();
    found.sort();
    found.pop().ok_or_else(|| DataError::MissingPackage {
        package: package.to_owned(),
        folder: folder.to_owned(),
    })
}

/// Whether a file name ends in this extension (lower case, no dot).
pub fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|e| e == extension)
}

/// The files of a .tar or .tar.gz archive whose path `wanted` accepts, by path.
pub fn read_archive(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<BTreeMap<String, Vec<u8>>, DataError> {
    let file = File::open(path).map_err(|e| DataError::io(path, e))?;
    let plain = path.extension().is_some_and(|e| e == "tar");
    let reader: Box<dyn Read> = if plain {
        Box::new(file)
    } else {
        Box::new(GzDecoder::new(file))
    };
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(reader)
        .entries()
        .map_err(|e| DataError::io(path, e))?
    {
        let mut entry = entry.map_err(|e| DataError::io(path, e))?;
        let name = entry
            .path()
            .map_err(|e| DataError::io(path, e))?
            .to_string_lossy()
            .into_owned();
        if entry.header().entry_type().is_file() && wanted(&name) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(|e| DataError::io(path, e))?;
            files.insert(name, bytes);
        }
    }
    Ok(files)
}

fn json<'a, T: Deserialize<'a>>(package: &Path, name: &str, bytes: &'a [u8]) -> Result<T, DataError> {
    serde_json::from_slice(bytes).map_err(|source| DataError::Json {
        file: package.join(name),
        source,
    })
}

/// An Iconify package: SVG bodies by name, and the code points of some names.
pub struct IconifySet {
    icons: IconifyJson,
    chars: HashMap<String, String>,
}

#[derive(Deserialize)]
struct IconifyJson {
    icons: BTreeMap<String, IconifyIcon>,
    #[serde(default)]
    width: Option<f32>,
    #[serde(default)]
    height: Option<f32>,
}

#[derive(Deserialize)]
struct IconifyIcon {
    body: String,
    #[serde(default)]
    left: f32,
    #[serde(default)]
    top: f32,
    width: Option<f32>,
    height: Option<f32>,
}

impl IconifySet {
    pub fn open(folder: &Path, package: &str) -> Result<Self, DataError> {
        let path = find_package(folder, package)?;
        let files = read_archive(&path, |n| n == "package/icons.json" || n == "package/chars.json")?;
        let icons = files.get("package/icons.json").ok_or_else(|| DataError::MissingFile {
            archive: path.clone(),
            file: "package/icons.json".to_owned(),
        })?;
        let chars = match files.get("package/chars.json") {
            Some(bytes) => json(&path, "package/chars.json", bytes)?,
            None => HashMap::new(),
        };
        Ok(Self {
            icons: json(&path, "package/icons.json", icons)?,
            chars,
        })
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.icons.icons.keys().map(String::as_str)
    }

    /// Code points (normalised, see [`code_points`]) and icon names that the package itself joins.
    pub fn chars(&self) -> impl Iterator<Item = (String, &str)> {
        self.chars.iter().map(|(hex, name)| (code_points(hex), name.as_str()))
    }

    /// The whole SVG document of an icon.
    pub fn svg(&self, name: &str) -> Option<String> {
        let icon = self.icons.icons.get(name)?;
        let width = icon.width.or(self.icons.width).unwrap_or(16.0);
        let height = icon.height.or(self.icons.height).unwrap_or(16.0);
        Some(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\" \
             viewBox=\"{} {} {width} {height}\" width=\"{width}\" height=\"{height}\">{}</svg>",
            icon.left, icon.top, icon.body
        ))
    }
}

/// Lower-case code points without variation selectors: the key that joins all of the sets.
pub fn code_points(hexcode: &str) -> String {
    let lower = hexcode.to_lowercase();
    let parts: Vec<&str> = lower.split('-').filter(|part| *part != "fe0f").collect();
    parts.join("-")
}

/// A name as Iconify writes it: lower case, words joined by hyphens.
pub fn slug(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars().flat_map(char::to_lowercase) {
        if c.is_ascii_alphanumeric() {
            out.push(c);
        } else if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
    }
    out.trim_end_matches('-').to_owned()
}

/// One emoji of emojibase, in every language of [`LANGUAGES`].
#[derive(Debug, Clone)]
pub struct Concept {
    /// See [`code_points`].
    pub code: String,
    /// English label, as emojibase writes it.
    pub label: String,
    /// English tags.
    pub tags: Vec<String>,
    /// Label by language code, English included.
    pub names: BTreeMap<String, String>,
    /// Emojibase's group number (0 smileys, 1 people, 3 animals, 4 food, 5 travel, 6 activities, 7 objects, ...).
    pub group: u32,
    /// Code points of the variants with skin tones.
    pub skins: Vec<String>,
}

#[derive(Deserialize)]
struct EmojibaseEntry {
    label: String,
    hexcode: String,
    #[serde(default)]
    tags: Vec<String>,
    group: Option<u32>,
    #[serde(default)]
    skins: Vec<EmojibaseSkin>,
}

#[derive(Deserialize)]
struct EmojibaseSkin {
    hexcode: String,
}

/// The words: concepts in emojibase's order, and every name by which a package may call them.
pub struct Emojibase {
    pub concepts: Vec<Concept>,
    by_slug: HashMap<String, String>,
}

impl Emojibase {
    pub fn open(folder: &Path) -> Result<Self, DataError> {
        let path = find_package(folder, "emojibase-data")?;
        let data = |language: &str| format!("package/{language}/data.json");
        let files = read_archive(&path, |name| {
            LANGUAGES.iter().any(|l| name == data(l))
                || (name.starts_with("package/en/shortcodes/") && has_extension(name, "json"))
        })?;
        let entries = |language: &str| -> Result<Vec<EmojibaseEntry>, DataError> {
            let name = data(language);
            let bytes = files.get(&name).ok_or_else(|| DataError::MissingFile {
                archive: path.clone(),
                file: name.clone(),
            })?;
            json(&path, &name, bytes)
        };
        let mut concepts: Vec<Concept> = Vec::new();
        let mut by_code = HashMap::new();
        let mut by_slug = HashMap::new();
        for entry in entries("en")? {
            let Some(group) = entry.group else { continue };
            let code = code_points(&entry.hexcode);
            by_code.insert(code.clone(), concepts.len());
            by_slug.entry(slug(&entry.label)).or_insert_with(|| code.clone());
            concepts.push(Concept {
                code,
                names: BTreeMap::from([("en".to_owned(), entry.label.clone())]),
                label: entry.label,
                tags: entry.tags,
                group,
                skins: entry.skins.iter().map(|s| code_points(&s.hexcode)).collect(),
            });
        }
        for language in &LANGUAGES[1..] {
            for entry in entries(language)? {
                if let Some(i) = by_code.get(&code_points(&entry.hexcode)) {
                    concepts[*i].names.insert((*language).to_owned(), entry.label);
                }
            }
        }
        for (name, bytes) in files.iter().filter(|(n, _)| n.contains("/shortcodes/")) {
            add_shortcodes(&mut by_slug, &json(&path, name, bytes)?);
        }
        Ok(Self { concepts, by_slug })
    }

    /// The concept with this English label.
    pub fn by_label(&self, label: &str) -> Option<&Concept> {
        self.concepts.iter().find(|concept| concept.label == label)
    }

    /// Teaches the names that a package joins with code points, for the packages that have names only.
    pub fn learn_names(&mut self, set: &IconifySet) {
        for (code, name) in set.chars() {
            self.by_slug.entry(name.to_owned()).or_insert(code);
        }
    }

    /// The icons of a set by code points: by the package's own table, else by name.
    pub fn join(&self, set: &IconifySet) -> BTreeMap<String, String> {
        let mut joined: BTreeMap<String, String> = BTreeMap::new();
        let glued: HashMap<String, &String> = self.by_slug.iter().map(|(k, v)| (k.replace('-', ""), v)).collect();
        for name in set.names() {
            let code = self
                .by_slug
                .get(name)
                .or_else(|| glued.get(&name.replace('-', "")).copied());
            if let Some(code) = code {
                joined.entry(code.clone()).or_insert_with(|| name.to_owned());
            }
        }
        for (code, name) in set.chars() {
            joined.insert(code, name.to_owned());
        }
        joined
    }
}

fn add_shortcodes(by_slug: &mut HashMap<String, String>, table: &BTreeMap<String, serde_json::Value>) {
    for (hexcode, names) in table {
        let names: Vec<&str> = match names {
            serde_json::Value::String(name) => vec![name],
            serde_json::Value::Array(list) => list.iter().filter_map(|v| v.as_str()).collect(),
            _ => Vec::new(),
        };
        for name in names {
            by_slug.entry(slug(name)).or_insert_with(|| code_points(hexcode));
        }
    }
}
