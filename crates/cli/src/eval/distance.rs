//! `prima eval distance`: how far one folder of pictures is from another.

use super::with_bar;
use crate::Usage;
use crate::out::say;
use anyhow::{Context, Result};
use clap::{Args as ClapArgs, ValueEnum};
use prima_eval::distances::{Distances, between, cmmd, frechet};
use prima_eval::{ClipNet, FeatureNet, Features, Inception, Networks, Patches, Resize, Seen};
use prima_picture::Picture;
use std::path::{Path, PathBuf};

/// The network that looks at pictures.
#[derive(ClapArgs)]
pub struct By {
    /// EfficientNet-lite0 weights made by scripts/eval/convert_efficientnet.py
    #[arg(long, required_unless_present = "inception", conflicts_with = "inception")]
    features: Option<PathBuf>,
    /// Inception weights made by scripts/eval/inception.py: the distances are FID and KID then
    #[arg(long, value_name = "FILE")]
    inception: Option<PathBuf>,
    /// How Inception's pictures are resized: as clean-fid does it, or as pytorch-fid
    #[arg(long, value_name = "HOW", default_value = "clean", requires = "inception")]
    resize: ResizeArg,
    /// Measure the Frechet distance of patches too: of the middle of each picture, so many pixels wide (299 in the paper, for
    /// pictures of 1024)
    #[arg(long, value_name = "PX", requires = "inception", value_parser = clap::value_parser!(u16).range(1..))]
    patch: Option<u16>,
    /// A CLIP folder of transformers (config.json, model.safetensors, a tokenizer): CMMD, and CLIP scores where there are prompts
    #[arg(long, value_name = "DIR")]
    clip: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ResizeArg {
    Clean,
    Bilinear,
}

impl By {
    pub fn open(&self) -> Result<Networks> {
        let mut networks = match (&self.features, &self.inception) {
            (Some(weights), None) => Networks::of(Box::new(FeatureNet::open(weights)?)),
            (_, Some(weights)) => {
                let resize = match self.resize {
                    ResizeArg::Clean => Resize::Clean,
                    ResizeArg::Bilinear => Resize::Bilinear,
                };
                let network = Inception::open(weights, resize)?;
                let patches = self.patch.map(|side| Patches {
                    side_px: side.into(),
                    network: network.clone(),
                });
                Networks {
                    patches: patches.map(|patches| Box::new(patches) as Box<dyn Features>),
                    ..Networks::of(Box::new(network))
                }
            }
            (None, None) => return Err(Usage("name --features or --inception".to_owned()).into()),
        };
        networks.clip = self.clip.as_ref().map(|folder| ClipNet::open(folder)).transpose()?;
        Ok(networks)
    }
}

#[derive(ClapArgs)]
pub struct DistanceArgs {
    /// Folder of real pictures (PNG, JPEG, WebP)
    real: PathBuf,
    /// Folder of the pictures to measure
    other: PathBuf,
    #[command(flatten)]
    by: By,
    /// Seed of the subsets of the kernel distance
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &DistanceArgs) -> Result<()> {
    let networks = args.by.open()?;
    let [real, other] = [&args.real, &args.other].map(|folder| seen(&networks, folder));
    let (real, other) = (real?, other?);
    let found = between(&real.features, &other.features, args.seed).map_err(|error| Usage(error.to_string()))?;
    let patch_frechet = networks
        .patches
        .is_some()
        .then(|| frechet(&real.patches, &other.patches));
    let cmmd = networks.clip.is_some().then(|| cmmd(&real.clip, &other.clip));
    let Distances {
        pictures: [reals, others],
        frechet,
        kernel: [kernel, deviation],
        precision,
        recall,
    } = found;
    if args.json {
        let report = serde_json::json!({
            "features": networks.names(), "distances": found, "patch_frechet": patch_frechet, "cmmd": cmmd,
        });
        say!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        say!(
            "{others} pictures against {reals} real ones; features: {}",
            networks.names()
        );
        say!("Frechet distance {frechet:.4}, kernel distance {kernel:.5} (deviation {deviation:.5})");
        say!("precision {:.1} %, recall {:.1} %", 100.0 * precision, 100.0 * recall);
        if let Some(patches) = patch_frechet {
            say!("Frechet distance of patches {patches:.4}");
        }
        if let Some(cmmd) = cmmd {
            say!("CMMD {cmmd:.4}");
        }
    }
    Ok(())
}

/// What is seen in each picture of a folder, by name.
pub fn seen(networks: &Networks, folder: &Path) -> Result<Seen> {
    let listed = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<PathBuf> = listed.flatten().map(|entry| entry.path()).collect();
    let is_picture = |path: &PathBuf| {
        let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        matches!(ending.as_deref(), Some("png" | "jpg" | "jpeg" | "webp"))
    };
    paths.retain(is_picture);
    paths.sort();
    with_bar("pictures", |on_progress| {
        let mut seen = Seen::default();
        for (i, path) in paths.iter().enumerate() {
            on_progress(i, paths.len());
            let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
            networks.see(&Picture::decode(&bytes, &path.display().to_string())?, &mut seen);
        }
        Ok(seen)
    })
}
