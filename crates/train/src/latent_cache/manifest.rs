//! What lies on the disk: shards of pictures, and the manifest that says which there are.

use crate::checksum::sha256;
use crate::error::{Error, Result};
use crate::picture_source::Cut;
use prima_checkpoint::export::{write_bytes, write_json, write_safetensors};
use prima_tensor::{DType, Param, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Mean and standard deviation of each latent channel: what makes them normal.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub(crate) struct LatentStatistics {
    pub(crate) mean: Vec<f32>,
    pub(crate) std: Vec<f32>,
}

impl LatentStatistics {
    /// Of raw latents, pixel by pixel.
    pub(crate) fn of<'a>(pixels: impl Iterator<Item = &'a [f32]> + Clone, channels: usize) -> Self {
        let mut count = 0u64;
        let mut mean = vec![0.0f64; channels];
        for pixel in pixels.clone() {
            count += 1;
            mean.iter_mut().zip(pixel).for_each(|(m, &x)| *m += f64::from(x));
        }
        let count = count.max(1) as f64;
        for m in &mut mean {
            *m /= count;
        }
        let mut variance = vec![0.0f64; channels];
        for pixel in pixels {
            let moments = variance.iter_mut().zip(&mean).zip(pixel);
            moments.for_each(|((v, m), &x)| *v += (f64::from(x) - m).powi(2));
        }
        Self {
            std: variance
                .into_iter()
                .map(|v| (v / count).sqrt().max(1e-6) as f32)
                .collect(),
            mean: mean.into_iter().map(|m| m as f32).collect(),
        }
    }

    /// Those that leave latents as they are.
    pub(crate) fn unit(channels: usize) -> Self {
        Self {
            mean: vec![0.0; channels],
            std: vec![1.0; channels],
        }
    }
}

/// One picture, encoded.
#[derive(Clone, Debug)]
pub(crate) struct EncodedPicture {
    /// Height and width in latents.
    pub(crate) size: [usize; 2],
    /// Raw, `[height, width, channels]`.
    pub(crate) latents: Vec<f32>,
    /// The share of each latent's pixels that show an object, `[height, width]`; empty where that is not known.
    pub(crate) objects: Vec<f32>,
    /// What a feature network sees in the picture, where the run asks for it.
    pub(crate) features: Option<FeatureMap>,
    pub(crate) caption: String,
    /// What it was cut from, where the network is to be told.
    pub(crate) cut: Option<Cut>,
}

/// Features of a picture, place by place.
#[derive(Clone, Debug)]
pub(crate) struct FeatureMap {
    /// Height, width, channels.
    pub(crate) shape: [usize; 3],
    pub(crate) values: Vec<f32>,
}

impl EncodedPicture {
    fn pixels(&self) -> std::slice::ChunksExact<'_, f32> {
        self.latents
            .chunks_exact(self.latents.len() / (self.size[0] * self.size[1]))
    }
}

/// `latents.json`: what later shards and stages have to go by.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub(crate) struct LatentManifest {
    #[serde(flatten)]
    pub(crate) statistics: LatentStatistics,
    /// Of the autoencoder's weights: latents of another one are another language.
    pub(crate) fingerprint: u64,
    /// Pixels along a side of the square that one latent stands for.
    pub(crate) cell_px: usize,
    /// What makes the pictures' features normal, where they are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) features: Option<LatentStatistics>,
    /// Of the files that they were made of, where those are a person's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pictures_sha256: Option<String>,
    pub(crate) shards: Vec<Shard>,
}

/// What a shard's two files have to be.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub(crate) struct Shard {
    pictures: usize,
    pub(super) latents_sha256: String,
    pub(super) captions_sha256: String,
    /// Of each picture, in the order of the file; empty where nothing was cut.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) cuts: Vec<Option<Cut>>,
}

impl LatentManifest {
    /// The folder's; `None` where there is none yet.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join("latents.json");
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        serde_json::from_str(&text).map(Some).map_err(|e| Error::file(&path, e))
    }

    /// Pictures in all shards.
    pub(crate) fn pictures(&self) -> usize {
        self.shards.iter().map(|shard| shard.pictures).sum()
    }

    /// Saves pictures as another shard.
    pub(crate) fn add(&mut self, dir: &Path, pictures: &[EncodedPicture]) -> Result<()> {
        let shard = save_shard(dir, self.shards.len(), pictures)?;
        self.shards.push(shard);
        self.write(dir)
    }

    fn write(&self, dir: &Path) -> Result<()> {
        let json = serde_json::to_value(self).map_err(|e| Error::file(dir, e))?;
        Ok(write_json(&dir.join("latents.json"), &json)?)
    }
}

/// The two files of shard `number`.
pub(super) fn shard_paths(dir: &Path, number: usize) -> [PathBuf; 2] {
    [".safetensors", ".txt"].map(|ending| dir.join(format!("{number:05}{ending}")))
}

/// The captions of all shards in the folder, of which there may be none.
pub(crate) fn captions(dir: &Path) -> Result<Vec<String>> {
    let shards = LatentManifest::read(dir)?.map_or(0, |manifest| manifest.shards.len());
    let mut captions = Vec::new();
    for number in 0..shards {
        let [_, path] = shard_paths(dir, number);
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        captions.extend(text.lines().map(str::to_owned));
    }
    Ok(captions)
}

/// Is `name` that of a file which a cache is made of?
pub(crate) fn is_ours(name: &str) -> bool {
    let number = name.strip_suffix(".safetensors").or_else(|| name.strip_suffix(".txt"));
    name == "latents.json" || number.is_some_and(|n| n.len() == 5 && n.bytes().all(|b| b.is_ascii_digit()))
}

/// Writes pictures as shard `number`.
fn save_shard(dir: &Path, number: usize, pictures: &[EncodedPicture]) -> Result<Shard> {
    let mut by_size: BTreeMap<[usize; 2], Vec<&EncodedPicture>> = BTreeMap::new();
    for picture in pictures {
        by_size.entry(picture.size).or_default().push(picture);
    }
    let (mut tensors, mut captions, mut cuts) = (Vec::new(), String::new(), Vec::new());
    for ([h, w], pictures) in by_size {
        let n = pictures.len();
        let mut add = |name: &str, values: Vec<f32>, shape: &[usize]| {
            let tensor = Tensor::from_vec(values, shape);
            tensors.push((format!("{name}.{h}x{w}"), Param::new(tensor)));
        };
        let latents: Vec<f32> = pictures.iter().flat_map(|p| &p.latents).copied().collect();
        let channels = latents.len() / (n * h * w);
        add("latents", latents, &[n, h, w, channels]);
        let objects: Vec<f32> = pictures.iter().flat_map(|p| &p.objects).copied().collect();
        if objects.len() == n * h * w {
            add("objects", objects, &[n, h, w]);
        }
        let maps: Vec<&FeatureMap> = pictures.iter().filter_map(|p| p.features.as_ref()).collect();
        if let Some([h, w, c]) = maps.first().map(|map| map.shape)
            && maps.len() == n
        {
            let values = maps.iter().flat_map(|map| &map.values).copied().collect();
            add("features", values, &[n, h, w, c]);
        }
        for picture in pictures {
            captions.push_str(&picture.caption.replace(['\n', '\r'], " "));
            captions.push('\n');
            cuts.push(picture.cut);
        }
    }
    let [latents_path, captions_path] = shard_paths(dir, number);
    write_bytes(&captions_path, captions.as_bytes())?;
    write_safetensors(&latents_path, &tensors, DType::F16)?;
    Ok(Shard {
        pictures: pictures.len(),
        latents_sha256: sha256(&latents_path)?,
        captions_sha256: sha256(&captions_path)?,
        cuts: if cuts.iter().any(Option::is_some) {
            cuts
        } else {
            Vec::new()
        },
    })
}

/// Of the features of `pictures`; `None` where they have none.
pub(crate) fn feature_statistics_of(pictures: &[EncodedPicture]) -> Option<LatentStatistics> {
    let maps = || pictures.iter().filter_map(|p| p.features.as_ref());
    let channels = maps().next()?.shape[2];
    let places: Vec<&[f32]> = maps().flat_map(|map| map.values.chunks_exact(channels)).collect();
    Some(LatentStatistics::of(places.into_iter(), channels))
}

pub(crate) fn statistics_of(pictures: &[EncodedPicture], channels: usize) -> LatentStatistics {
    LatentStatistics::of(pictures.iter().flat_map(EncodedPicture::pixels), channels)
}
