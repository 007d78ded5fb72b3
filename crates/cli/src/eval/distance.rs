//! `prima eval distance`: how far one folder of pictures is from another.

use super::with_bar;
use crate::Usage;
use crate::out::say;
use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use prima_eval::FeatureNet;
use prima_eval::distances::{Distances, between};
use prima_picture::Picture;
use std::path::{Path, PathBuf};

/// How the features are named beside every figure.
const FEATURES: &str = "EfficientNet-lite0, unit length";

#[derive(ClapArgs)]
pub struct DistanceArgs {
    /// Folder of real pictures (PNG, JPEG, WebP)
    real: PathBuf,
    /// Folder of the pictures to measure
    other: PathBuf,
    /// EfficientNet-lite0 weights made by scripts/eval/convert_efficientnet.py
    #[arg(long)]
    features: PathBuf,
    /// Seed of the subsets of the kernel distance
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &DistanceArgs) -> Result<()> {
    let net = FeatureNet::open(&args.features)?;
    let [real, other] = [&args.real, &args.other].map(|folder| features(&net, folder));
    let found = between(&real?, &other?, args.seed).map_err(|error| Usage(error.to_string()))?;
    let Distances {
        pictures: [reals, others],
        frechet,
        kernel: [kernel, deviation],
        precision,
        recall,
    } = found;
    if args.json {
        let report = serde_json::json!({ "features": FEATURES, "distances": found });
        say!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        say!("{others} pictures against {reals} real ones; features: {FEATURES}");
        say!("Frechet distance {frechet:.4}, kernel distance {kernel:.5} (deviation {deviation:.5})");
        say!("precision {:.1} %, recall {:.1} %", 100.0 * precision, 100.0 * recall);
    }
    Ok(())
}

/// Of each picture of a folder, by name.
fn features(net: &FeatureNet, folder: &Path) -> Result<Vec<Vec<f32>>> {
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
            Ok(net.features(&picture))
        });
        read.collect()
    })
}
