//! The shapes in which a model comes (a diffusers folder, the same folder embedded in the binary, one file in the original
//! layout, any of these with files for some of its networks) behind one set of questions.

use crate::assembled::Assembled;
use crate::files::{kind_of, read_small};
use crate::single_file::{Family, SingleFile};
use crate::tensor_file::TensorFile;
use crate::{Error, Reader, clip_vocabulary, hub, in_range};
use serde_json::Value;
use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

/// A model, wherever its files are. Paths are relative to the model and use `/`
/// (`unet/config.json`); a component is a folder of it (`unet`, `text_encoder_2`).
#[derive(Clone, Debug)]
pub enum ModelSource {
    /// A diffusers folder.
    Folder(PathBuf),
    /// A diffusers folder in the binary; made by [`ModelSource::embedded`].
    Embedded(EmbeddedModel),
    /// One file in the original layout of Stable Diffusion 1.x, 2.x or SDXL. The configs follow from its tensors, and the
    /// vocabulary is CLIP's; a folder beside it, `<stem>.config/` or `config/`, overrides both.
    SingleFile(PathBuf),
    /// A model of which some networks are in files of their own; made by [`ModelSource::with_part`].
    Assembled(Box<Assembled>),
}

/// The files of a model that is part of the binary.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddedModel {
    pub name: &'static str,
    /// (relative path, contents).
    pub files: &'static [(&'static str, &'static [u8])],
}

impl EmbeddedModel {
    fn get(&self, path: &str) -> Option<&'static [u8]> {
        self.files
            .iter()
            .find(|(name, _)| *name == path)
            .map(|(_, bytes)| *bytes)
    }
}

impl ModelSource {
    /// A diffusers folder in the binary, as (relative path, contents); errors call it `name`.
    pub fn embedded(name: &'static str, files: &'static [(&'static str, &'static [u8])]) -> Self {
        Self::Embedded(EmbeddedModel { name, files })
    }

    /// What `name` is: a folder with `model_index.json`, a `.safetensors` file, or the id of a
    /// model or of a file in the local hub cache (`stabilityai/sdxl-turbo`).
    pub fn open(name: impl AsRef<Path>) -> Result<Self, Error> {
        let path = name.as_ref();
        if path.is_dir() {
            return Self::folder(path);
        }
        if path.is_file() {
            return if is_weights_file(path) {
                Ok(Self::SingleFile(path.to_path_buf()))
            } else {
                Err(unsupported_file(path))
            };
        }
        if let Ok(metadata) = path.metadata() {
            return Err(Error::Kind {
                path: path.to_path_buf(),
                kind: kind_of(metadata.file_type()),
            });
        }
        let id = path.to_string_lossy();
        match hub::find(&id) {
            Some(found) => Self::of_hub(&found),
            None => Err(Error::NoModel {
                fix: hub::Id::parse(&id).map_or_else(String::new, |id| {
                    format!("; `prima models pull {id}` gets it from the hub")
                }),
                name: id.into_owned(),
            }),
        }
    }

    /// A snapshot, of which perhaps only a file was asked for, or a file in one.
    fn of_hub(found: &Path) -> Result<Self, Error> {
        if found.is_file() {
            return Self::open(found);
        }
        if !found.join("model_index.json").is_file()
            && let Some(file) = only_weights_in(found)
        {
            return Ok(Self::SingleFile(file));
        }
        Self::folder(found)
    }

    /// The model with `file` for its `component`: `unet`, `vae`, `text_encoder` or `text_encoder_2`.
    pub fn with_part(self, component: &'static str, file: &Path) -> Result<Self, Error> {
        if file.is_file() && !is_weights_file(file) {
            return Err(unsupported_file(file));
        }
        Ok(Self::Assembled(Box::new(Assembled::new(self, component, file)?)))
    }

    /// What the file or folder of its UNet is called, without its ending: what says most of how the model was made.
    pub fn unet_name(&self) -> String {
        let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match self {
            Self::Embedded(model) => model.name.to_owned(),
            Self::SingleFile(path) => name(path),
            Self::Folder(path) => hub::repository_of(path)
                .unwrap_or_else(|| path.file_name().unwrap_or_default().to_string_lossy().into_owned()),
            Self::Assembled(assembled) => match assembled.file_of("unet") {
                Some(file) => name(file),
                None => assembled.base().unet_name(),
            },
        }
    }

    /// What the metadata of its UNet's file call it: the ModelSpec's title, or what kohya's scripts wrote.
    pub fn title(&self) -> Option<String> {
        let path = match self {
            Self::SingleFile(path) => path,
            Self::Assembled(assembled) => match assembled.file_of("unet") {
                Some(path) => path,
                None => return assembled.base().title(),
            },
            _ => return None,
        };
        let file = TensorFile::open(path).ok()?;
        let titles = ["modelspec.title", "ss_output_name"];
        titles.into_iter().find_map(|key| file.metadata().get(key).cloned())
    }

    /// Whose habits its networks have.
    pub(crate) fn family(&self) -> Result<Family, Error> {
        if let Self::SingleFile(file) = self
            && beside(file, "model_index.json").is_none()
        {
            return Ok(SingleFile::open(file)?.family());
        }
        let index = self.json("", "model_index.json")?;
        // Our own models may name no class, and are of SDXL's layout.
        if index["_class_name"].as_str().is_none_or(|class| class.contains("XL")) {
            return Ok(Family::Sdxl);
        }
        let unet = self.json("unet", "config.json")?;
        Ok(match unet["cross_attention_dim"].as_u64() {
            Some(1024) => Family::StableDiffusion2,
            _ => Family::StableDiffusion1,
        })
    }

    fn folder(path: &Path) -> Result<Self, Error> {
        if path.join("model_index.json").is_file() {
            Ok(Self::Folder(path.to_path_buf()))
        } else {
            Err(Error::NoModel {
                name: path.display().to_string(),
                fix: String::new(),
            })
        }
    }

    /// What errors and reports call this model.
    pub fn name(&self) -> String {
        match self {
            Self::Folder(path) | Self::SingleFile(path) => path.display().to_string(),
            Self::Embedded(model) => format!("{} (embedded)", model.name),
            Self::Assembled(assembled) => assembled.base().name(),
        }
    }

    /// Whether the model has the file `path`, on disk or, for a single file's configs, by inference
    /// (those are given by [`ModelSource::json`] only).
    pub fn exists(&self, path: &str) -> bool {
        match self {
            Self::Folder(root) => root.join(path).is_file(),
            Self::Embedded(model) => model.get(path).is_some(),
            Self::Assembled(assembled) => assembled.exists(path),
            Self::SingleFile(file) => {
                beside(file, path).is_some()
                    || vocabulary(file, path).is_some()
                    || SingleFile::open(file).is_ok_and(|single| {
                        let (component, name) = path.split_once('/').unwrap_or(("", path));
                        // A config that needs the folder beside (an error here) is not there yet; one that a tensor of
                        // a wrong rank stands for is, and reading it says what is wrong.
                        matches!(single.config(component, name), Ok(_) | Err(Error::Axes { .. }))
                    })
            }
        }
    }

    /// A file of the model, for instance `tokenizer/vocab.json`.
    pub fn read_bytes(&self, path: &str) -> Result<Vec<u8>, Error> {
        let missing = |hint: &str| Error::NoFile {
            model: self.name(),
            path: path.to_owned(),
            hint: hint.to_owned(),
        };
        match self {
            Self::Folder(root) => match read_small(&root.join(path)) {
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Err(missing("")),
                other => other,
            },
            Self::Embedded(model) => model.get(path).map(<[u8]>::to_vec).ok_or_else(|| missing("")),
            Self::Assembled(assembled) => assembled.base().read_bytes(path),
            Self::SingleFile(file) => match (beside(file, path), vocabulary(file, path)) {
                (Some(found), _) => read_small(&found),
                (None, Some(built_in)) => built_in,
                (None, None) => Err(missing("; put it in a `config` folder beside the file")),
            },
        }
    }

    /// The JSON `component/file`, or for the component `""` a JSON of the model itself.
    pub fn json(&self, component: &str, file: &str) -> Result<Value, Error> {
        let path = join(component, file);
        if let Self::Assembled(assembled) = self {
            return assembled.json(component, file);
        }
        if let Self::SingleFile(single) = self
            && beside(single, &path).is_none()
        {
            return SingleFile::open(single)?.config(component, file);
        }
        let bytes = self.read_bytes(&path)?;
        serde_json::from_slice(&bytes).map_err(|source| Error::Json {
            file: format!("{} in {}", path, self.name()),
            source,
        })
    }

    /// A reader of the component's weights.
    pub fn component_reader(&self, component: &str) -> Result<Reader, Error> {
        match self {
            Self::Folder(root) => folder_reader(&root.join(component)),
            Self::Embedded(model) => {
                for stem in STEMS {
                    let path = join(component, &format!("{stem}.safetensors"));
                    if let Some(bytes) = model.get(&path) {
                        return Reader::from_static(&format!("{path} in {}", self.name()), bytes);
                    }
                }
                let path = join(component, "*.safetensors");
                Err(Error::NoFile {
                    model: self.name(),
                    path,
                    hint: String::new(),
                })
            }
            Self::SingleFile(file) => SingleFile::open(file)?.reader(component),
            Self::Assembled(assembled) => assembled.reader(component),
        }
    }
}

/// How diffusers and transformers call a component's weights.
const STEMS: [&str; 2] = ["diffusion_pytorch_model", "model"];

fn join(component: &str, file: &str) -> String {
    if component.is_empty() {
        file.to_owned()
    } else {
        format!("{component}/{file}")
    }
}

/// A file of the folder that accompanies a single-file model.
fn beside(file: &Path, path: &str) -> Option<PathBuf> {
    let mut candidates = folders_beside(file).into_iter().map(|folder| folder.join(path));
    candidates.find(|candidate| candidate.is_file())
}

fn folders_beside(file: &Path) -> [PathBuf; 2] {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    [format!("{stem}.config"), "config".to_owned()].map(|folder| file.with_file_name(folder))
}

/// A file of CLIP's tokenizer, for models beside which no other lies.
fn vocabulary(file: &Path, path: &str) -> Option<Result<Vec<u8>, Error>> {
    let (folder, name) = path.split_once('/')?;
    let has_own = folders_beside(file)
        .into_iter()
        .any(|beside| beside.join(folder).is_dir());
    if has_own || !["tokenizer", "tokenizer_2"].contains(&folder) {
        return None;
    }
    let family = SingleFile::open(file).ok()?.family();
    let is_open_clip = folder == "tokenizer_2" || family == Family::StableDiffusion2;
    if folder == "tokenizer_2" && family != Family::Sdxl {
        return None;
    }
    clip_vocabulary::file(name, is_open_clip)
}

/// By its ending, in whatever case.
pub(crate) fn is_weights_file(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default();
    ["safetensors", "sft", "gguf"]
        .into_iter()
        .any(|known| ending.eq_ignore_ascii_case(known))
}

fn unsupported_file(path: &Path) -> Error {
    Error::Unsupported {
        file: path.display().to_string(),
        field: "file type".to_owned(),
        found: path
            .extension()
            .map_or_else(String::new, |e| e.to_string_lossy().into_owned()),
        fix: "only .safetensors files and .gguf are read (a .ckpt, .pt or .bin can run code when opened: convert it)"
            .to_owned(),
    }
}

/// The weights in a component's folder: whole or in shards, full precision first, then fp16.
pub(crate) fn folder_reader(folder: &Path) -> Result<Reader, Error> {
    for variant in ["", ".fp16"] {
        for stem in STEMS {
            let whole = folder.join(format!("{stem}{variant}.safetensors"));
            if whole.is_file() {
                return Reader::open(&whole);
            }
            let indexes = [
                format!("{stem}{variant}.safetensors.index.json"),
                format!("{stem}.safetensors.index{variant}.json"),
            ];
            if let Some(index) = indexes.iter().map(|name| folder.join(name)).find(|path| path.is_file()) {
                return sharded_reader(&index);
            }
        }
    }
    // As it was downloaded, under a name of its own.
    if let Some(only) = only_weights_in(folder) {
        return Reader::open(&only);
    }
    let pickle = STEMS
        .iter()
        .flat_map(|stem| [folder.join(format!("{stem}.bin")), folder.join("pytorch_model.bin")]);
    if let Some(pickle) = pickle.into_iter().find(|path| path.is_file()) {
        return Err(unsupported_file(&pickle));
    }
    let hint = " (looked for diffusion_pytorch_model and model, whole, sharded and .fp16)".to_owned();
    Err(Error::NoFile {
        model: folder.display().to_string(),
        path: "weights".to_owned(),
        hint,
    })
}

/// The file of weights in a folder that has one.
pub(crate) fn only_weights_in(folder: &Path) -> Option<PathBuf> {
    let paths = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let mut weights = paths.filter(|path| is_weights_file(path) && path.is_file());
    weights.next().filter(|_| weights.next().is_none())
}

/// All are open at once; the largest models of the hub have some 200.
const MAX_SHARDS: usize = 512;

/// The shards that an index file lists.
fn sharded_reader(index: &Path) -> Result<Reader, Error> {
    let file = index.display().to_string();
    let text = read_small(index)?;
    let json: Value = serde_json::from_slice(&text).map_err(|source| Error::Json {
        file: file.clone(),
        source,
    })?;
    let Some(weight_map) = json["weight_map"].as_object() else {
        return Err(Error::File {
            file,
            message: "has no `weight_map` from keys to shards".to_owned(),
        });
    };
    if let Some((key, value)) = weight_map.iter().find(|(_, name)| !name.is_string()) {
        let message = format!("gives `{key}` the shard {value}, which is no file name");
        return Err(Error::File { file, message });
    }
    let names: BTreeSet<&str> = weight_map.values().filter_map(Value::as_str).collect();
    let plain = |name: &&str| !name.contains(['/', '\\']);
    if let Some(name) = names.iter().find(|name| !plain(name)) {
        return Err(Error::File {
            file,
            message: format!("shard `{name}` lies outside of the model's folder"),
        });
    }
    in_range(&file, "number of shards", names.len(), 1..=MAX_SHARDS)?;
    let shards = names.iter().map(|name| TensorFile::open(&index.with_file_name(name)));
    let shards = shards.collect::<Result<Vec<_>, _>>()?;
    let stored: HashSet<&String> = shards.iter().flat_map(|file| file.tensors().keys()).collect();
    for key in weight_map.keys() {
        if !stored.contains(key) {
            let message = format!("lists `{key}`, which is in none of its shards");
            return Err(Error::File { file, message });
        }
    }
    Ok(Reader::from_files(file, shards))
}
