//! Composed pictures encoded once and reused for several epochs: normalised latents with their
//! captions, in `latents.safetensors` (f16), `captions.txt` and `latents.json`.

use crate::checksum::sha256;
use crate::error::{Error, Result};
use prima_checkpoint::export::write_bytes;
use prima_checkpoint::whole_file::check_writable;
use prima_checkpoint::{TensorFile, write_safetensors};
use prima_tensor::{DType, Param, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Mean and standard deviation of each latent channel: what makes them normal.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub(crate) struct LatentStatistics {
    pub(crate) mean: Vec<f32>,
    pub(crate) std: Vec<f32>,
}

impl LatentStatistics {
    /// Of raw latents `[..., C]`.
    pub(crate) fn of(latents: &[f32], channels: usize) -> Self {
        let count = (latents.len() / channels).max(1) as f64;
        let moment = |f: &(dyn Fn(f64, usize) -> f64 + Sync)| -> Vec<f64> {
            (0..channels)
                .into_par_iter()
                .map(|c| {
                    latents
                        .iter()
                        .skip(c)
                        .step_by(channels)
                        .map(|&x| f(f64::from(x), c))
                        .sum::<f64>()
                        / count
                })
                .collect()
        };
        let mean = moment(&|x, _| x);
        let variance = moment(&|x, c| (x - mean[c]).powi(2));
        Self {
            std: variance.into_iter().map(|v| v.sqrt().max(1e-6) as f32).collect(),
            mean: mean.into_iter().map(|m| m as f32).collect(),
        }
    }

    /// `(x - mean) / std`, in place.
    pub(crate) fn normalise(&self, latents: &mut [f32]) {
        for pixel in latents.chunks_exact_mut(self.mean.len()) {
            for ((x, mean), std) in pixel.iter_mut().zip(&self.mean).zip(&self.std) {
                *x = (*x - mean) / std;
            }
        }
    }
}

const LATENTS: &str = "latents.safetensors";
const CAPTIONS: &str = "captions.txt";
/// Written last: it says which files the other two are.
const INDEX: &str = "latents.json";

#[derive(Serialize, Deserialize)]
struct Index {
    #[serde(flatten)]
    statistics: LatentStatistics,
    /// Older caches have none.
    #[serde(default)]
    latents_sha256: Option<String>,
    #[serde(default)]
    captions_sha256: Option<String>,
}

/// The cache in memory.
pub(crate) struct LatentCache {
    /// One sample: `[h, w, c]`.
    pub(crate) shape: [usize; 3],
    pub(crate) statistics: LatentStatistics,
    pub(crate) captions: Vec<String>,
    latents: Vec<f32>,
}

impl LatentCache {
    /// From raw latents; normalises them.
    pub(crate) fn new(shape: [usize; 3], mut latents: Vec<f32>, captions: Vec<String>) -> Self {
        let statistics = LatentStatistics::of(&latents, shape[2]);
        statistics.normalise(&mut latents);
        Self {
            shape,
            statistics,
            captions,
            latents,
        }
    }

    /// From latents that are normal already.
    pub(crate) fn of_normal(shape: [usize; 3], latents: Vec<f32>, captions: Vec<String>) -> Self {
        let statistics = LatentStatistics {
            mean: vec![0.0; shape[2]],
            std: vec![1.0; shape[2]],
        };
        Self {
            shape,
            statistics,
            captions,
            latents,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.captions.len()
    }

    /// Normalised latents of `rows`, `[rows, h, w, c]`.
    pub(crate) fn batch(&self, rows: &[usize]) -> Tensor {
        let size: usize = self.shape.iter().product();
        let values = rows
            .iter()
            .flat_map(|&r| &self.latents[r * size..(r + 1) * size])
            .copied()
            .collect();
        let [h, w, c] = self.shape;
        Tensor::from_vec(values, &[rows.len(), h, w, c])
    }

    /// Could a cache be saved here? Also removes what a killed process left of one.
    pub(crate) fn check_writable(dir: &Path) -> Result<()> {
        for name in [LATENTS, CAPTIONS, INDEX] {
            check_writable(&dir.join(name))?;
        }
        Ok(())
    }

    pub(crate) fn save(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let [h, w, c] = self.shape;
        let tensor = Tensor::from_vec(self.latents.clone(), &[self.len(), h, w, c]);
        write_safetensors(
            &dir.join(LATENTS),
            &[("latents".into(), Param::new(tensor))],
            DType::F16,
        )?;
        write_bytes(&dir.join(CAPTIONS), self.captions.join("\n").as_bytes())?;
        let index = Index {
            statistics: self.statistics.clone(),
            latents_sha256: Some(sha256(&dir.join(LATENTS))?),
            captions_sha256: Some(sha256(&dir.join(CAPTIONS))?),
        };
        let index = serde_json::to_string(&index).map_err(|e| Error::file(dir, e))?;
        Ok(write_bytes(&dir.join(INDEX), index.as_bytes())?)
    }

    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read_to_string(&path).map_err(Error::io(&path))
        };
        let index = serde_json::from_str(&read(INDEX)?).map_err(|e| Error::file(dir.join(INDEX), e))?;
        let Index {
            statistics,
            latents_sha256,
            captions_sha256,
        } = index;
        for (name, expected) in [(LATENTS, latents_sha256), (CAPTIONS, captions_sha256)] {
            let path = dir.join(name);
            if let Some(expected) = expected
                && sha256(&path)? != expected
            {
                let message = format!("its SHA-256 is not the one in {INDEX}: run the stage latents again");
                return Err(Error::file(path, message));
            }
        }
        let path = dir.join(LATENTS);
        let tensor = TensorFile::open(&path)?.read("latents")?;
        let captions: Vec<String> = read(CAPTIONS)?.lines().map(str::to_owned).collect();
        let [n, h, w, c] = *tensor.shape() else {
            return Err(Error::file(
                &path,
                format!("latents have shape {:?}, expected 4 axes", tensor.shape()),
            ));
        };
        if n != captions.len() || c != statistics.mean.len() {
            let (found, channels) = (captions.len(), statistics.mean.len());
            let message = format!("{n} latents of {c} channels, but {found} captions and {channels} channel means");
            return Err(Error::file(&path, message));
        }
        Ok(Self {
            shape: [h, w, c],
            statistics,
            captions,
            latents: tensor.into_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_normalises_each_channel_and_survives_the_disk() {
        let raw: Vec<f32> = (0..3 * 2 * 2 * 2)
            .map(|i| if i % 2 == 0 { i as f32 } else { 5.0 - 0.5 * i as f32 })
            .collect();
        let cache = LatentCache::new([2, 2, 2], raw, vec!["a".into(), "b".into(), "c".into()]);
        let all = cache.batch(&[0, 1, 2]);
        for channel in 0..2 {
            let values: Vec<f32> = all.data().iter().skip(channel).step_by(2).copied().collect();
            let mean = values.iter().sum::<f32>() / 12.0;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 12.0;
            assert!(
                mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-4,
                "channel {channel}: {mean} {variance}"
            );
        }
        let dir = std::env::temp_dir().join(format!("prima-latents-{}", std::process::id()));
        cache.save(&dir).unwrap();
        let opened = LatentCache::open(&dir).unwrap();
        std::fs::write(dir.join(CAPTIONS), "a\nb\nd").unwrap();
        let error = LatentCache::open(&dir).err().unwrap().to_string();
        assert!(
            error.contains(CAPTIONS) && error.contains("run the stage latents again"),
            "{error}"
        );
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!((opened.len(), opened.shape), (3, [2, 2, 2]));
        assert_eq!(opened.statistics, cache.statistics);
        let worst = opened
            .batch(&[1])
            .data()
            .iter()
            .zip(cache.batch(&[1]).data())
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(worst < 2e-3, "{worst}");
    }
}
