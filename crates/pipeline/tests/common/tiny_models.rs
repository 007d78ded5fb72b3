//! Tiny models of every family, made anew from goldens/families: configs as diffusers saved them, and weights that are
//! a hash of their name and index (see scripts/goldens/families.py).

use super::goldens;
use prima_checkpoint::export::weights_name;
use prima_pipeline::ModelSource;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// How a model lies on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A diffusers folder.
    Folder,
    /// One file in LDM's layout, numbered as ComfyUI does it.
    SingleFile,
    /// One file as the hub's conversion script numbers blocks of fewer layers.
    Hub,
}

impl Layout {
    pub fn of(name: &str) -> Self {
        match name {
            "folder" => Self::Folder,
            "single_file" => Self::SingleFile,
            "hub" => Self::Hub,
            other => panic!("{other}"),
        }
    }
}

/// One line of `tensors.tsv`.
struct Row {
    component: String,
    key: String,
    shape: Vec<usize>,
    center: f64,
    scale: f64,
    stored: String,
    view: String,
    hub: String,
}

fn rows(family: &str) -> Vec<Row> {
    rows_of(&goldens().join("families").join(family))
}

fn rows_of(folder: &Path) -> Vec<Row> {
    let table = fs::read_to_string(folder.join("tensors.tsv")).unwrap();
    let row = |line: &str| {
        let columns: Vec<&str> = line.split('\t').collect();
        let text = |i: usize| columns[i].to_owned();
        let sizes = columns[2].split('x').filter(|size| !size.is_empty());
        Row {
            component: text(0),
            key: text(1),
            shape: sizes.map(|size| size.parse().unwrap()).collect(),
            center: columns[3].parse().unwrap(),
            scale: columns[4].parse().unwrap(),
            stored: text(5),
            view: columns.get(6).copied().unwrap_or("whole").to_owned(),
            hub: columns.get(7).copied().unwrap_or_default().to_owned(),
        }
    };
    table.lines().map(row).collect()
}

impl Row {
    fn values(&self) -> Vec<f32> {
        let name = format!("{}.{}", self.component, self.key);
        let key = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        });
        let value = |i: u64| {
            let mut z = key.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            let bits = (z ^ (z >> 31)) >> 40;
            (self.center + self.scale * (bits as f64 / (1u64 << 23) as f64 - 1.0)) as f32
        };
        let len: usize = self.shape.iter().product();
        (0..len as u64).map(value).collect()
    }
}

/// A model in a folder of its own, which goes with it.
pub struct TinyModel {
    pub place: TempDir,
    pub path: PathBuf,
}

impl TinyModel {
    pub fn new(family: &str, layout: Layout, metadata: &[(String, String)]) -> Self {
        let place = TempDir::new().unwrap();
        let path = match layout {
            Layout::Folder => folder(family, place.path()),
            _ => single_file(family, layout, metadata, place.path()),
        };
        Self { place, path }
    }

    pub fn open(&self) -> ModelSource {
        ModelSource::open(&self.path).unwrap()
    }

    /// Changes a JSON of a model folder.
    pub fn edit(&self, file: &str, change: impl FnOnce(&mut Value)) {
        let file = self.path.join(file);
        let mut json = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        change(&mut json);
        fs::write(file, json.to_string()).unwrap();
    }
}

fn folder(family: &str, place: &Path) -> PathBuf {
    copy_jsons(&goldens().join("families").join(family), place);
    copy_tokenizers(family, place);
    let mut components: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for row in rows(family) {
        components.entry(row.component.clone()).or_default().push(row);
    }
    components.remove("unread");
    for (component, rows) in components {
        let tensors = rows
            .into_iter()
            .map(|row| (row.key.clone(), (row.shape.clone(), row.values())));
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        write(
            &place.join(&component).join(weights_name(&component)),
            tensors.collect(),
            metadata,
        );
    }
    place.to_path_buf()
}

/// A ControlNet of goldens/controlnets in `place`: a diffusers folder, or one file with diffusers' names or the original's,
/// whose config is told by its tensors.
pub fn controlnet(name: &str, layout: Layout, place: &Path) -> PathBuf {
    let golden = goldens().join("controlnets").join(name);
    let is_original = layout == Layout::Hub;
    let tensor = |row: Row| {
        let key = if is_original {
            row.stored.clone()
        } else {
            row.key.clone()
        };
        (key, (row.shape.clone(), row.values()))
    };
    let tensors = rows_of(&golden).into_iter().map(tensor).collect();
    let path = match layout {
        Layout::Folder => {
            let folder = place.join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::copy(golden.join("config.json"), folder.join("config.json")).unwrap();
            write(
                &folder.join("diffusion_pytorch_model.safetensors"),
                tensors,
                HashMap::new(),
            );
            return folder;
        }
        _ => place.join(format!("{name}.safetensors")),
    };
    write(&path, tensors, HashMap::new());
    path
}

/// The file alone, with nothing but tokenizers beside it.
fn single_file(family: &str, layout: Layout, metadata: &[(String, String)], place: &Path) -> PathBuf {
    copy_tokenizers(family, &place.join("model.config"));
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)> = BTreeMap::new();
    for row in rows(family) {
        let key = match layout {
            Layout::Hub if !row.hub.is_empty() => row.hub.clone(),
            _ => row.stored.clone(),
        };
        let (shape, values) = (row.shape.clone(), row.values());
        match row.view.as_str() {
            "whole" => drop(tensors.insert(key, (shape, values))),
            "1x1" => drop(tensors.insert(key, ([shape, vec![1, 1]].concat(), values))),
            "transposed" => {
                let (rows, columns) = (shape[0], shape[1]);
                let turned = (0..columns).flat_map(|c| (0..rows).map(move |r| r * columns + c));
                let turned = turned.map(|i| values[i]).collect();
                tensors.insert(key, (vec![columns, rows], turned));
            }
            part => {
                let part: usize = part.strip_prefix("row").unwrap().parse().unwrap();
                let whole = [vec![3 * shape[0]], shape[1..].to_vec()].concat();
                let entry = tensors
                    .entry(key)
                    .or_insert_with(|| (whole, vec![0.0; 3 * values.len()]));
                entry.1[part * values.len()..(part + 1) * values.len()].copy_from_slice(&values);
            }
        }
    }
    let path = place.join("model.safetensors");
    write(&path, tensors, metadata.iter().cloned().collect());
    path
}

fn write(path: &Path, tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>, metadata: HashMap<String, String>) {
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(key, (shape, values))| (key, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views = bytes
        .iter()
        .map(|(key, shape, data)| (key, TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    safetensors::serialize_to_file(views, Some(metadata), path).unwrap();
}

fn copy_jsons(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_jsons(&path, &target);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// tiny-sdxl's two, which pad as CLIP's and OpenCLIP's do.
fn copy_tokenizers(family: &str, to: &Path) {
    let folder = goldens().join("families").join(family);
    let names = [("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")];
    for (component, tokenizer) in names {
        let Ok(config) = fs::read_to_string(folder.join(component).join("config.json")) else {
            continue;
        };
        let config: Value = serde_json::from_str(&config).unwrap();
        let is_clip = config["hidden_act"] == "quick_gelu";
        let from = goldens()
            .join("tiny-sdxl")
            .join(if is_clip { "tokenizer" } else { "tokenizer_2" });
        fs::create_dir_all(to.join(tokenizer)).unwrap();
        for file in fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(tokenizer).join(file.file_name())).unwrap();
        }
    }
}
