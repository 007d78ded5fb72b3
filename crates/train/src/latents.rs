//! The stage `latents`: composes pictures and encodes them once; later stages read only these. Run again with a greater count
//! (or after it was cut short), it goes on where it stopped.

use crate::config::{Origin, TrainConfig};
use crate::error::{Error, Result};
use crate::latent_cache::{
    EncodedPicture, FeatureMap, LatentManifest, LatentStatistics, feature_statistics_of, statistics_of,
};
use crate::networks::feature_network;
use crate::params::Component;
use crate::picture_source::{PictureSource, Sample, to_tensor};
use crate::stage_folder::StageFolder;
use crate::trained;
use crate::trainer::{Budget, Summary};
use prima_data::ComposerOptions;
use prima_models::{EfficientNetLite, Vae};
use prima_picture::Picture;
use prima_tensor::{Param, Tensor, no_grad};
use rayon::prelude::*;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// The folder below `run_dir` and the section of the configuration.
pub(crate) const NAME: &str = "latents";

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LatentsConfig {
    /// Pictures to compose and encode.
    pub(crate) count: usize,
    pub(crate) batch_size: usize,
    /// Pictures of every size that the scene generator composes for, in place of the run's own size.
    pub(crate) every_size: bool,
    /// Keep what the run's feature network sees in each picture, for `teacher.alignment`.
    pub(crate) features: bool,
    /// Share of captions in English; the data set's own where absent.
    pub(crate) english: Option<f32>,
    /// Share of captions that name the style; the data set's own where absent.
    pub(crate) style: Option<f32>,
    /// Share of objects moved off the centre; the data set's own where absent. With 0 a caption has
    /// one placement, so that the mean over all its pictures, which is what one step paints, is sharp.
    pub(crate) jitter: Option<f32>,
    /// Show every object in this style, where its noun has it.
    pub(crate) only_style: Option<String>,
    /// The style that a caption without a style means ...
    pub(crate) unnamed_style: Option<String>,
    /// ... which is left out of this share of the captions that end with it.
    pub(crate) unnamed_share: f32,
    /// Share of captions with words around them that no picture shows ([`crate::captions::loose`]).
    pub(crate) reworded_share: f32,
    /// Pictures that training shall see more often than others.
    pub(crate) emphasis: Option<Emphasis>,
}

/// Pictures whose captions have one of some words count as several: what people type most is learned first.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Emphasis {
    /// Words or several in a row, in lower case.
    words: Vec<String>,
    /// How often such a picture counts.
    times: usize,
}

impl Emphasis {
    /// How often the picture of this caption counts.
    pub(crate) fn times(&self, caption: &str) -> usize {
        let words = caption.to_lowercase().replace(|c: char| !c.is_alphanumeric(), " ");
        let caption = format!(" {words} ");
        let named = self.words.iter().any(|word| caption.contains(&format!(" {word} ")));
        if named { self.times.max(1) } else { 1 }
    }
}

impl Default for LatentsConfig {
    fn default() -> Self {
        Self {
            count: 24_000,
            batch_size: 16,
            every_size: false,
            features: false,
            english: None,
            style: None,
            jitter: None,
            only_style: None,
            unnamed_style: None,
            unnamed_share: 0.7,
            reworded_share: 0.0,
            emphasis: None,
        }
    }
}

impl LatentsConfig {
    /// How the run composes its pictures.
    pub(crate) fn adjust(&self, options: &mut ComposerOptions) {
        // Captions are dropped while training, row by row; the cache keeps them all.
        options.empty_caption = 0.0;
        if let Some(english) = self.english {
            options.english = english;
        }
        if let Some(style) = self.style {
            options.style = style;
        }
        if let Some(jitter) = self.jitter {
            options.jitter = jitter;
        }
    }
}

/// Pictures of a shard: what is lost at most when the machine goes.
const SHARD: usize = 2048;

/// Composes and encodes pictures until there are enough of them or the budget is spent.
pub fn latents(config: &TrainConfig, budget: Budget) -> Result<Summary> {
    let source = config.pictures(|options| {
        options.favoured_style = config.latents.only_style.clone().map(|style| (style, 1.0));
    })?;
    let dir = config.stage_dir(NAME);
    let _folder = StageFolder::hold(&dir)?;
    let summary = encode_all(config, &*source, &dir, budget)?;
    trained::write_summary(config, NAME, &summary)?;
    Ok(summary)
}

/// Encodes what `source` has into `dir`: all of it where it has an end, `latents.count` where it has none.
pub(crate) fn encode_all(
    config: &TrainConfig,
    source: &dyn PictureSource,
    dir: &Path,
    budget: Budget,
) -> Result<Summary> {
    let started = Instant::now();
    let encoder = Encoder::open(config)?;
    let mut manifest = LatentManifest::read(dir)?;
    if let Some(manifest) = &manifest {
        check_goes_on(manifest, &encoder, source).map_err(|message| Error::file(dir, message))?;
    }
    let count = source
        .len()
        .map_or(config.latents.count, |all| all.min(config.latents.count));
    // Those of an end have what sizes they have.
    let every_size = config.latents.every_size || source.len().is_some();
    let sample = |i: u64| {
        if every_size {
            source.sample_of_any_size(i)
        } else {
            source.sample(i)
        }
    };
    let before = manifest.as_ref().map_or(0, LatentManifest::pictures);
    let mut done = before;
    let in_time = || budget.deadline.is_none_or(|d| Instant::now() < d);
    while done < count && in_time() {
        let mut pictures: Vec<EncodedPicture> = Vec::new();
        let wanted = SHARD.min(count - done);
        while pictures.len() < wanted && in_time() {
            let first = (done + pictures.len()) as u64;
            let end = first + config.latents.batch_size.min(wanted - pictures.len()) as u64;
            let samples = (first..end).into_par_iter().map(sample);
            pictures.extend(encoder.encode(samples.collect::<Result<Vec<_>>>()?)?);
        }
        let manifest = manifest.get_or_insert_with(|| encoder.manifest(&pictures, source.sha256()));
        manifest.add(dir, &pictures)?;
        done = manifest.pictures();
        let rate = (done - before) as f64 / started.elapsed().as_secs_f64();
        tracing::info!("latents: {done} of {count}, {rate:.1} pictures/s");
    }
    Ok(Summary {
        steps: done as u64,
        samples: done as u64,
        seconds: started.elapsed().as_secs_f64(),
        loss: 0.0,
        stopped: false,
    })
}

/// Says why what is there is not what would be added.
fn check_goes_on(
    manifest: &LatentManifest,
    encoder: &Encoder,
    source: &dyn PictureSource,
) -> std::result::Result<(), &'static str> {
    if manifest.fingerprint != encoder.fingerprint {
        return Err("holds latents of another autoencoder: move it away, or go back to that autoencoder");
    }
    if manifest.features.is_some() != encoder.features.is_some() {
        return Err("latents.features was set for some of its pictures only: move it away, or set it as it was");
    }
    if manifest.pictures_sha256 != source.sha256() {
        return Err(
            "holds latents of other pictures, captions or sizes than there are now: move it away, or give this run another \
             run_dir",
        );
    }
    Ok(())
}

/// Removes what `dir` has of them, for a run that begins anew.
pub(crate) fn discard(dir: &Path) -> Result<()> {
    if dir.exists() {
        StageFolder::hold(dir)?.clear()
    } else {
        Ok(())
    }
}

/// Refuses latents of another autoencoder than `vae`, the run's: a model that was exchanged for another after they were made.
pub(crate) fn check_made_by(config: &TrainConfig, vae: &Component<Vae>) -> Result<()> {
    let dir = config.stage_dir(NAME);
    match LatentManifest::read(&dir)? {
        Some(manifest) if manifest.fingerprint != encoder_fingerprint(vae) => {
            let message = "holds latents of another autoencoder than this run's: go back to the model that they were made with, \
                           or give this one another run_dir and run the stage latents";
            Err(Error::file(dir, message))
        }
        _ => Ok(()),
    }
}

/// Of the encoder alone: the decoder may be refined later, and latents stay valid.
fn encoder_fingerprint(vae: &Component<Vae>) -> u64 {
    fingerprint(vae.params.iter().filter(|(key, _)| key.starts_with("encoder.")))
}

/// What makes latents of pictures.
struct Encoder {
    vae: Vae,
    /// The model's own scale makes its latents what its UNet knows; those of an autoencoder that was trained here are
    /// measured first.
    is_normal: bool,
    fingerprint: u64,
    features: Option<EfficientNetLite>,
}

impl Encoder {
    fn open(config: &TrainConfig) -> Result<Self> {
        let is_normal = matches!(config.origin()?, Origin::Model(_));
        let vae = trained::vae(config)?;
        let side = config.picture_size_px()[0] as usize;
        let factor = vae.network.scale_factor();
        if !side.is_multiple_of(factor) {
            let message = format!("pictures of {side} pixels do not divide into the autoencoder's cells of {factor}");
            return Err(Error::Config(message));
        }
        Ok(Self {
            fingerprint: encoder_fingerprint(&vae),
            vae: vae.network,
            is_normal,
            features: config.latents.features.then(|| feature_network(config)).transpose()?,
        })
    }

    fn manifest(&self, pictures: &[EncodedPicture], pictures_sha256: Option<String>) -> LatentManifest {
        let channels = self.vae.latent_channels();
        LatentManifest {
            statistics: if self.is_normal {
                LatentStatistics::unit(channels)
            } else {
                statistics_of(pictures, channels)
            },
            fingerprint: self.fingerprint,
            cell_px: self.vae.scale_factor(),
            features: feature_statistics_of(pictures),
            pictures_sha256,
            shards: Vec::new(),
        }
    }

    /// As the cache takes them, size by size.
    fn encode(&self, samples: Vec<Sample>) -> Result<Vec<EncodedPicture>> {
        let mut by_size: BTreeMap<[usize; 2], Vec<Sample>> = BTreeMap::new();
        for sample in samples {
            let size = [sample.picture.height, sample.picture.width];
            by_size.entry(size).or_default().push(sample);
        }
        let mut encoded = Vec::new();
        for samples in by_size.into_values() {
            let pictures = to_tensor(&samples);
            let latents = no_grad(|| self.vae.encode(&pictures, &mut || true))?.mode();
            let latents = if self.is_normal {
                self.vae.scale_latents(&latents)
            } else {
                latents
            };
            let [_, h, w, c] = *latents.shape() else {
                return Err(Error::Config("the autoencoder's latents have no 4 axes".into()));
            };
            let maps = self.features_of(&pictures);
            for (i, (sample, latents)) in samples
                .into_iter()
                .zip(latents.data().chunks_exact(h * w * c))
                .enumerate()
            {
                encoded.push(EncodedPicture {
                    size: [h, w],
                    latents: latents.to_vec(),
                    objects: coverage(&sample, [h, w]),
                    features: maps.get(i).cloned(),
                    caption: sample.caption,
                    cut: sample.cut,
                });
            }
        }
        Ok(encoded)
    }

    /// Of each picture, where there is a network for them.
    fn features_of(&self, pictures: &Tensor) -> Vec<FeatureMap> {
        let Some(network) = &self.features else {
            return Vec::new();
        };
        let maps = no_grad(|| network.map(pictures));
        let shape = [maps.dim(1), maps.dim(2), maps.dim(3)];
        let each = maps.data().chunks_exact(shape.iter().product());
        each.map(|values| FeatureMap {
            shape,
            values: values.to_vec(),
        })
        .collect()
    }
}

/// The share of each latent's pixels that show an object; empty where the sample does not know.
fn coverage(sample: &Sample, [h, w]: [usize; 2]) -> Vec<f32> {
    let Picture { width, height, .. } = sample.picture;
    if sample.objects.len() != width * height {
        return Vec::new();
    }
    let (cell_h, cell_w) = (height / h, width / w);
    let mut shares = vec![0.0; h * w];
    for (y, row) in sample.objects.chunks_exact(width).enumerate() {
        for (x, _) in row.iter().enumerate().filter(|(_, object)| **object != 0) {
            shares[(y / cell_h).min(h - 1) * w + (x / cell_w).min(w - 1)] += 1.0 / (cell_h * cell_w) as f32;
        }
    }
    shares
}

/// Of the bits of every 61st weight (FNV-1a): enough to tell two trained networks apart.
fn fingerprint<'a>(params: impl Iterator<Item = &'a (String, Param)>) -> u64 {
    params.fold(0xcbf2_9ce4_8422_2325, |hash, (_, param)| {
        let tensor = param.tensor();
        tensor.data().iter().step_by(61).fold(hash, |hash, value| {
            (hash ^ u64::from(value.to_bits())).wrapping_mul(0x0000_0100_0000_01b3)
        })
    })
}
