//! What the model pack holds: `models.tsv`, with the corrections of `fixes.tsv`, and the meshes behind it.

use super::WorldError;
use super::mesh::Mesh;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::OnceLock;

/// How large a thing is, roughly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Size {
    Tiny,
    Small,
    Medium,
    Large,
    Huge,
}

/// Where a thing belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    Ground,
    Table,
    Sky,
    Water,
    Wall,
    Held,
}

/// How a model may be recoloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tint {
    No,
    /// The masked part.
    Main,
    /// The whole model has one colour, given by hand.
    All,
    /// The part whose colour is near the model's main one: coats of animals.
    Near,
}

/// One model of the pack.
#[derive(Debug, Clone)]
pub struct Model {
    pub id: String,
    pub noun: String,
    pub plural: String,
    /// A word that is true of this model and may stand before the noun; often empty.
    pub modifier: String,
    pub synonyms: Vec<String>,
    pub category: String,
    pub tint: Tint,
    /// sRGB of the main colour.
    pub main_rgb: [u8; 3],
    /// The colour that at least 60 % of the model show.
    pub colour: Option<String>,
    pub size: Size,
    pub placement: Placement,
    /// Degrees from +Z towards +X at which a camera sees the front.
    pub front_yaw: Option<f32>,
    /// Never the only thing that a judge or a learner knows the noun by: hard to recognise.
    pub weak: bool,
    smooth: bool,
}

/// The models, by noun, and their meshes, parsed when first asked for.
#[derive(Debug)]
pub struct Catalogue {
    pub models: Vec<Model>,
    /// Indices of models, by noun.
    pub nouns: BTreeMap<String, Vec<usize>>,
    /// Names in other languages by noun and code.
    pub names: BTreeMap<String, BTreeMap<String, String>>,
    files: Vec<Vec<u8>>,
    meshes: Vec<OnceLock<Mesh>>,
}

impl Catalogue {
    /// Opens a folder that holds `models.tsv`, `fixes.tsv`, `names.tsv` and `models.tar.zst`.
    pub fn open(folder: &Path) -> Result<Self, WorldError> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(|source| WorldError::Io { path, source })
        };
        let table = |name: &str| Ok::<_, WorldError>(String::from_utf8_lossy(&read(name)?).into_owned());
        let corrections = table("fixes.tsv")?;
        let fixes = parse_fixes(&corrections)?;
        let mut models: Vec<Model> = Vec::new();
        for (number, line) in table("models.tsv")?.lines().enumerate().skip(1) {
            let mut model = parse_model(line, number + 1)?;
            let mut keep = true;
            for (key, value) in fixes.get(model.id.as_str()).into_iter().flatten() {
                keep &= apply_fix(&mut model, key, value)?;
            }
            if keep {
                models.push(model);
            }
        }
        let path = folder.join("models.tar.zst");
        let mut files = unpack(&path, &read("models.tar.zst")?)?;
        let files: Vec<Vec<u8>> = models
            .iter()
            .map(|model| {
                files.remove(&model.id).ok_or_else(|| WorldError::Model {
                    id: model.id.clone(),
                    what: "its file is not in models.tar.zst".into(),
                })
            })
            .collect::<Result<_, _>>()?;
        let mut nouns: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, model) in models.iter().enumerate() {
            nouns.entry(model.noun.clone()).or_default().push(index);
        }
        let names = parse_names(&table("names.tsv")?);
        let meshes = models.iter().map(|_| OnceLock::new()).collect();
        Ok(Self {
            models,
            nouns,
            names,
            files,
            meshes,
        })
    }

    /// The mesh of a model. A file that cannot be read gives an empty mesh; [`Catalogue::check`] reports it.
    pub fn mesh(&self, index: usize) -> &Mesh {
        self.meshes[index].get_or_init(|| self.parse(index).unwrap_or_default())
    }

    fn parse(&self, index: usize) -> Result<Mesh, WorldError> {
        let model = &self.models[index];
        let mut mesh = Mesh::from_glb(&model.id, &self.files[index], model.smooth.then_some(40.0))?;
        if model.tint == Tint::Near {
            let main = model.main_rgb.map(|v| f32::from(v) / 255.0);
            for colour in &mut mesh.colours {
                let distance: f32 = (0..3).map(|c| (super::maths::encode(colour[c]) - main[c]).abs()).sum();
                colour[3] = 1.0 - super::maths::smoothstep(0.45, 0.75, distance);
            }
        }
        Ok(mesh)
    }

    /// Parses every file: for tests and for whoever changes the pack.
    pub fn check(&self) -> Result<(), WorldError> {
        (0..self.models.len()).try_for_each(|index| self.parse(index).map(drop))
    }
}

/// GLB files by model id.
fn unpack(path: &Path, bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, WorldError> {
    let failed = |source| WorldError::Io {
        path: path.to_owned(),
        source,
    };
    let decoder = ruzstd::decoding::StreamingDecoder::new(bytes)
        .map_err(|error| failed(std::io::Error::other(error.to_string())))?;
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(decoder).entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        let name = entry.path().map_err(failed)?.into_owned();
        if name.extension().is_some_and(|e| e == "glb")
            && let Some(stem) = name.file_stem().and_then(|s| s.to_str())
        {
            let id = stem.to_owned();
            let mut file = Vec::new();
            entry.read_to_end(&mut file).map_err(failed)?;
            files.insert(id, file);
        }
    }
    Ok(files)
}

fn parse_model(line: &str, number: usize) -> Result<Model, WorldError> {
    let bad = || WorldError::Table {
        file: "models.tsv".into(),
        line: number,
    };
    let columns: Vec<&str> = line.split('\t').collect();
    let &[
        id,
        _,
        noun,
        plural,
        _article,
        modifier,
        synonyms,
        category,
        tint,
        rgb,
        colours,
        size,
        placement,
        front,
        _,
        _,
        _,
        _,
        pack,
        ..,
    ] = columns.as_slice()
    else {
        return Err(bad());
    };
    let channels: Vec<u8> = rgb.split(',').filter_map(|v| v.parse().ok()).collect();
    let colour = colours.split(' ').find_map(|part| {
        let (name, share) = part.split_once(':')?;
        (share.parse::<f32>().ok()? >= 0.6).then(|| name.to_owned())
    });
    Ok(Model {
        id: id.to_owned(),
        noun: noun.to_owned(),
        plural: plural.to_owned(),
        modifier: modifier.to_owned(),
        synonyms: split_list(synonyms),
        category: category.to_owned(),
        tint: parse_tint(tint).ok_or_else(bad)?,
        main_rgb: channels.try_into().map_err(|_| bad())?,
        colour,
        size: parse_size(size).ok_or_else(bad)?,
        placement: parse_placement(placement).ok_or_else(bad)?,
        front_yaw: front.parse().ok(),
        weak: false,
        smooth: pack.starts_with("The Base Mesh"),
    })
}

fn split_list(text: &str) -> Vec<String> {
    text.split(',')
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .map(str::to_owned)
        .collect()
}

fn parse_tint(text: &str) -> Option<Tint> {
    Some(match text {
        "no" => Tint::No,
        "main" => Tint::Main,
        "all" => Tint::All,
        "near" => Tint::Near,
        _ => return None,
    })
}

fn parse_size(text: &str) -> Option<Size> {
    Some(match text {
        "tiny" => Size::Tiny,
        "small" => Size::Small,
        "medium" => Size::Medium,
        "large" => Size::Large,
        "huge" => Size::Huge,
        _ => return None,
    })
}

fn parse_placement(text: &str) -> Option<Placement> {
    Some(match text {
        "ground" => Placement::Ground,
        "table" => Placement::Table,
        "sky" => Placement::Sky,
        "water" => Placement::Water,
        "wall" => Placement::Wall,
        "held" => Placement::Held,
        _ => return None,
    })
}

/// A header line of language codes, then a noun and its names; a missing name is empty.
fn parse_names(text: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut lines = text.lines();
    let codes: Vec<&str> = lines.next().unwrap_or_default().split('\t').skip(1).collect();
    lines
        .filter_map(|line| {
            let (noun, names) = line.split_once('\t')?;
            let by_code = codes
                .iter()
                .zip(names.split('\t'))
                .filter(|(_, name)| !name.is_empty())
                .map(|(code, name)| ((*code).to_owned(), name.to_owned()))
                .collect();
            Some((noun.to_owned(), by_code))
        })
        .collect()
}

/// Keys and values by model id.
type Fixes<'a> = BTreeMap<&'a str, Vec<(&'a str, &'a str)>>;

/// `id TAB key=value[; key=value...]`.
fn parse_fixes(text: &str) -> Result<Fixes<'_>, WorldError> {
    let mut fixes: Fixes = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = || WorldError::Table {
            file: "fixes.tsv".into(),
            line: number + 1,
        };
        let (id, rest) = line.split_once('\t').ok_or_else(bad)?;
        for part in rest.split(';') {
            let part = part.trim();
            fixes
                .entry(id)
                .or_default()
                .push(part.split_once('=').unwrap_or((part, "")));
        }
    }
    Ok(fixes)
}

/// Changes one field; false leaves the model out.
fn apply_fix(model: &mut Model, key: &str, value: &str) -> Result<bool, WorldError> {
    let bad = || WorldError::Model {
        id: model.id.clone(),
        what: format!("fixes.tsv says {key}={value}, which is not known"),
    };
    match key {
        "drop" => return Ok(false),
        "weak" => model.weak = true,
        "noun" => value.clone_into(&mut model.noun),
        "plural" => value.clone_into(&mut model.plural),
        "modifier" => value.clone_into(&mut model.modifier),
        "synonyms" => model.synonyms = split_list(value),
        "category" => value.clone_into(&mut model.category),
        "tint" => model.tint = parse_tint(value).ok_or_else(bad)?,
        "colour" => model.colour = Some(value.to_owned()).filter(|v| !v.is_empty()),
        "size" => model.size = parse_size(value).ok_or_else(bad)?,
        "placement" => model.placement = parse_placement(value).ok_or_else(bad)?,
        "front" => model.front_yaw = value.parse().ok(),
        _ => return Err(bad()),
    }
    Ok(true)
}
