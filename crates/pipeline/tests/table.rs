//! The table of docs/models.md, walked cell by cell: each family in each form paints diffusers' picture, or where there is none of
//! its own, is loaded as what it is. A row that nobody walks fails.

mod common;

use common::tiny_models::{Layout, TinyModel};
use common::{cases, check_picture, goldens};
use prima_checkpoint::{TensorFile, export};
use prima_pipeline::{LoadOptions, ModelSource, Parts, Pipeline};
use prima_schedulers::SchedulerConfig;
use prima_tensor::{DType, Param, Tensor};
use std::path::{Path, PathBuf};

/// Rows by how they begin, and the families of goldens/families that stand for them.
const ROWS: [(&str, &[&str]); 7] = [
    ("SDXL, Turbo", &["sdxl"]),
    ("LCM-SDXL", &[]),
    ("SSD-1B", &["ssd-1b", "vega", "koala"]),
    ("CosXL", &[]),
    ("Stable Diffusion 1.x", &["sd15", "lcm-dreamshaper", "tiny-sd", "sdxs"]),
    ("Stable Diffusion 2.x", &["sd21"]),
    ("inpainting", &["sd15-inpaint", "sdxl-inpaint"]),
];
/// Rows with tests of their own, and where these are.
const ELSEWHERE: [(&str, &str); 2] = [
    ("SDXL refiner", "pipeline/tests/families.rs"),
    ("ControlNets", "pipeline/tests/controlnets.rs"),
];

fn families() -> impl Iterator<Item = &'static str> {
    ROWS.into_iter().flat_map(|(_, families)| families.iter().copied())
}

/// Checks diffusers' first picture of a family.
fn check(source: &ModelSource, family: &str) {
    let mut all = cases("families").into_iter();
    let case = all.find(|case| case["family"] == family).unwrap();
    let mut parts = Parts::load(source, &LoadOptions::default()).unwrap();
    parts.scheduler_config = SchedulerConfig::from_json(&case["scheduler_config"].to_string()).unwrap();
    check_picture(&Pipeline::new(parts).unwrap(), &case, "families");
}

/// A family's single file, whose vocabulary is that of every file beside it.
fn single(family: &str) -> TinyModel {
    let model = TinyModel::new(family, Layout::SingleFile, &[]);
    let own = model.path.with_extension("config");
    std::fs::rename(own, model.path.with_file_name("config")).unwrap();
    model
}

/// The tensors of `from` whose keys begin with one of `prefixes`, without it, in a file for each; and the rest in another.
fn split(from: &Path, prefixes: &[&str]) -> (Vec<PathBuf>, PathBuf) {
    let file = TensorFile::open(from).unwrap();
    let mut taken = vec![Vec::new(); prefixes.len()];
    let mut left = Vec::new();
    for key in file.tensors().keys() {
        let param = Param::new(file.read(key).unwrap());
        let found = prefixes.iter().position(|prefix| key.starts_with(prefix));
        match found {
            Some(at) => taken[at].push((key[prefixes[at].len()..].to_owned(), param)),
            None => left.push((key.clone(), param)),
        }
    }
    let write = |name: &str, tensors: &[(String, Param)]| {
        assert!(!tensors.is_empty(), "{} has nothing for {name}", from.display());
        let path = from.with_file_name(name);
        export::write_safetensors(&path, tensors, DType::F32).unwrap();
        path
    };
    let parts = taken
        .iter()
        .enumerate()
        .map(|(i, tensors)| write(&format!("part{i}.safetensors"), tensors));
    (parts.collect(), write("rest.safetensors", &left))
}

/// How a single file calls its text encoders.
fn encoder_prefixes(file: &Path) -> Vec<&'static str> {
    let file = TensorFile::open(file).unwrap();
    let known = [
        "cond_stage_model.transformer.",
        "cond_stage_model.model.",
        "conditioner.embedders.0.transformer.",
        "conditioner.embedders.0.model.",
        "conditioner.embedders.1.model.",
    ];
    let is_there = |prefix: &&str| file.tensors().keys().any(|key| key.starts_with(prefix));
    known.into_iter().filter(is_there).collect()
}

#[test]
fn every_row_of_the_table_has_tests() {
    let doc = include_str!("../../../docs/models.md");
    let rows: Vec<&str> = doc
        .lines()
        .skip_while(|line| !line.starts_with("| family"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_start_matches("| "))
        .collect();
    assert!(rows.len() >= ROWS.len(), "{rows:?}");
    for row in &rows {
        let known = ROWS
            .iter()
            .map(|(begins, _)| begins)
            .chain(ELSEWHERE.iter().map(|(begins, _)| begins));
        assert!(
            known.into_iter().any(|begins| row.starts_with(begins)),
            "no test walks this row: {row}"
        );
    }
    for (begins, _) in ROWS {
        let row = rows.iter().find(|row| row.starts_with(begins));
        let cells: Vec<&str> = row
            .unwrap_or_else(|| panic!("{begins} is in no row"))
            .split('|')
            .map(str::trim)
            .collect();
        let walked = if begins == "CosXL" {
            [
                "yes",
                "yes",
                "with its marker keys, or a base of its noise",
                "yes",
                "yes",
            ]
        } else {
            ["yes"; 5]
        };
        assert_eq!(cells[1..6], walked, "{begins}");
    }
}

#[test]
fn folders_and_single_files() {
    for family in families() {
        check(&TinyModel::new(family, Layout::Folder, &[]).open(), family);
        check(&single(family).open(), family);
    }
}

#[test]
fn a_unet_alone() {
    for family in families() {
        let base = TinyModel::new(family, Layout::Folder, &[]);
        let single = single(family);
        let (parts, _) = split(&single.path, &["model.diffusion_model."]);
        check(&base.open().with_part("unet", &parts[0]).unwrap(), family);
        let own = base.path.join("unet/diffusion_pytorch_model.safetensors");
        let elsewhere = base.place.path().join("unet.safetensors");
        std::fs::copy(own, &elsewhere).unwrap();
        check(&base.open().with_part("unet", &elsewhere).unwrap(), family);
    }
}

#[test]
fn an_autoencoder_alone() {
    for family in families() {
        let single = single(family);
        let (parts, rest) = split(&single.path, &["first_stage_model."]);
        check(
            &ModelSource::open(rest).unwrap().with_part("vae", &parts[0]).unwrap(),
            family,
        );
        let base = TinyModel::new(family, Layout::Folder, &[]);
        let own = base.path.join("vae/diffusion_pytorch_model.safetensors");
        check(&single.open().with_part("vae", &own).unwrap(), family);
    }
}

#[test]
fn text_encoders_alone() {
    for family in families() {
        let single = single(family);
        let prefixes = encoder_prefixes(&single.path);
        let (parts, rest) = split(&single.path, &prefixes);
        let mut source = ModelSource::open(rest).unwrap();
        // Of KOALA's and Vega's two encoders, as of SDXL's, each takes its own.
        let names = if prefixes == ["conditioner.embedders.0.model."] {
            vec!["text_encoder_2"]
        } else {
            vec!["text_encoder", "text_encoder_2"]
        };
        for (name, file) in names.into_iter().zip(&parts) {
            source = source.with_part(name, file).unwrap();
        }
        check(&source, family);
    }
}

/// A single file of SDXL with further tensors.
fn with_tensors(extra: &[(&str, &[usize], f32)]) -> (TinyModel, PathBuf) {
    let single = single("sdxl");
    let file = TensorFile::open(&single.path).unwrap();
    let own = file
        .tensors()
        .keys()
        .map(|key| (key.clone(), Param::new(file.read(key).unwrap())));
    let extra = extra.iter().map(|(key, shape, value)| {
        let len = shape.iter().product();
        (
            (*key).to_owned(),
            Param::new(Tensor::from_vec(vec![*value; len], shape)),
        )
    });
    let all: Vec<_> = own.chain(extra).collect();
    let path = single.place.path().join("marked.safetensors");
    export::write_safetensors(&path, &all, DType::F32).unwrap();
    (single, path)
}

#[test]
fn lcm_sdxl_in_every_form() {
    let folder = goldens().join("tiny-lcm");
    let pipeline = |source: &ModelSource| Pipeline::load(source, &LoadOptions::default()).unwrap();
    let own = ModelSource::open(&folder).unwrap();
    let width = pipeline(&own).guidance_embedding_dim();
    assert!(width.is_some());
    for (component, file) in [
        ("unet", "unet/diffusion_pytorch_model.safetensors"),
        ("vae", "vae/diffusion_pytorch_model.safetensors"),
        ("text_encoder", "text_encoder/model.safetensors"),
        ("text_encoder_2", "text_encoder_2/model.safetensors"),
    ] {
        let source = own.clone().with_part(component, &folder.join(file)).unwrap();
        assert_eq!(pipeline(&source).guidance_embedding_dim(), width, "{component}");
    }
    let hidden = {
        let file = TensorFile::open(&single("sdxl").path).unwrap();
        file.tensors()["model.diffusion_model.time_embed.0.weight"].shape[1]
    };
    let (_kept, marked) = with_tensors(&[(
        "model.diffusion_model.time_embedding.cond_proj.weight",
        &[hidden, 256],
        0.0,
    )]);
    let config = ModelSource::open(&marked).unwrap().json("unet", "config.json").unwrap();
    assert_eq!(config["time_cond_proj_dim"], 256);
    assert_eq!(
        pipeline(&ModelSource::open(&marked).unwrap()).guidance_embedding_dim(),
        Some(256)
    );
}

#[test]
fn models_of_edm_noise_in_every_form() {
    let (single, marked) = with_tensors(&[
        ("edm_vpred.sigma_max", &[1], 120.0),
        ("edm_vpred.sigma_min", &[1], 0.002),
    ]);
    let is_edm = |source: &ModelSource| {
        Parts::load(source, &LoadOptions::default())
            .unwrap()
            .scheduler_config
            .is_edm()
    };
    let source = ModelSource::open(&marked).unwrap();
    assert!(is_edm(&source) && !is_edm(&single.open()));
    // With its marker keys, or on a base of its noise.
    let (parts, _) = split(&single.path, &["model.diffusion_model."]);
    assert!(is_edm(&source.clone().with_part("unet", &parts[0]).unwrap()));
    let file = TensorFile::open(&marked).unwrap();
    let unet_and_markers = file
        .tensors()
        .keys()
        .filter(|key| key.starts_with("model.diffusion_model.") || key.starts_with("edm_"));
    let tensors: Vec<_> = unet_and_markers
        .map(|key| (key.clone(), Param::new(file.read(key).unwrap())))
        .collect();
    let alone = single.place.path().join("cosxl_unet.safetensors");
    export::write_safetensors(&alone, &tensors, DType::F32).unwrap();
    assert!(is_edm(&single.open().with_part("unet", &alone).unwrap()));
    let (vae, rest) = split(&marked, &["first_stage_model."]);
    assert!(is_edm(
        &ModelSource::open(rest).unwrap().with_part("vae", &vae[0]).unwrap()
    ));
    let (encoders, rest) = split(&marked, &encoder_prefixes(&marked));
    let bare = ModelSource::open(rest)
        .unwrap()
        .with_part("text_encoder", &encoders[0])
        .unwrap();
    assert!(is_edm(&bare.with_part("text_encoder_2", &encoders[1]).unwrap()));
}
