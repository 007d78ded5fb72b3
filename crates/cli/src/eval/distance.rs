//! `prima eval distance`: how far one folder of pictures is from another.

use super::with_bar;
use crate::Usage;
use crate::out::say;
use anyhow::{Context, Result};
use clap::{Args as ClapArgs, ValueEnum};
use prima_eval::distances::{Distances, between};
use prima_eval::{FeatureNet, Features, Inception, Resize};
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
}

#[derive(Clone, Copy, ValueEnum)]
enum ResizeArg {
    Clean,
    Bilinear,
}

impl By {
    pub fn open(&self) -> Result<Box<dyn Features>> {
        match (&self.features, &self.inception) {
            (Some(weights), None) => Ok(Box::new(FeatureNet::open(weights)?)),
            (_, Some(weights)) => {
                let resize = match self.resize {
                    ResizeArg::Clean => Resize::Clean,
                    ResizeArg::Bilinear => Resize::Bilinear,
                };
                Ok(Box::new(Inception::open(weights, resize)?))
            }
            (None, None) => Err(Usage("name --features or --inception".to_owned()).into()),
        }
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
    let net = args.by.open()?;
    let [real, other] = [&args.real, &args.other].map(|folder| features(&*net, folder));
    let found = between(&real?, &other?, args.seed).map_err(|error| Usage(error.to_string()))?;
    let Distances {
        pictures: [reals, others],
        frechet,
        kernel: [kernel, deviation],
        precision,
        recall,
    } = found;
    if args.json {
        let report = serde_json::json!({ "features": net.name(), "distances": found });
        say!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        say!("{others} pictures against {reals} real ones; features: {}", net.name());
        say!("Frechet distance {frechet:.4}, kernel distance {kernel:.5} (deviation {deviation:.5})");
        say!("precision {:.1} %, recall {:.1} %", 100.0 * precision, 100.0 * recall);
    }
    Ok(())
}

/// Of each picture of a folder, by name.
pub fn features(net: &dyn Features, folder: &Path) -> Result<Vec<Vec<f32>>> {
    let listed = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<PathBuf> = listed.flatten().map(|entry| entry.path()).collect();
    let is_picture = |path: &PathBuf| {
        let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        matches!(ending.as_deref(), Some("png" | "jpg" | "jpeg" | "webp"))
    };
    paths.retain(is_picture);
    paths.sort();
    with_bar("pictures", |on_progress| {
        let read = paths.iter().enumerate().map(|(i, path)| {
            on_progress(i, paths.len());
            let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
            let picture = Picture::decode(&bytes, &path.display().to_string())?;
            Ok(net.of(&picture))
        });
        read.collect()
    })
}
