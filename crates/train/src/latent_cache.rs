//! Pictures encoded once and reused for several epochs: raw latents with their captions, in shards that a run can go on
//! adding to, each a `NNNNN.safetensors` (f16; per size `latents.HxW` and `objects.HxW`) beside a `NNNNN.txt` (one caption a
//! line); `latents.json`, written last, says which shards there are and what makes their latents normal.

use crate::checksum::sha256;
use crate::error::{Error, Result};
use half::f16;
use prima_checkpoint::TensorFile;
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
    pub(crate) caption: String,
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
    pub(crate) shards: Vec<Shard>,
}

/// What a shard's two files have to be.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub(crate) struct Shard {
    pictures: usize,
    latents_sha256: String,
    captions_sha256: String,
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
fn shard_paths(dir: &Path, number: usize) -> [PathBuf; 2] {
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
    let (mut tensors, mut captions) = (Vec::new(), String::new());
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
        for picture in pictures {
            captions.push_str(&picture.caption.replace(['\n', '\r'], " "));
            captions.push('\n');
        }
    }
    let [latents_path, captions_path] = shard_paths(dir, number);
    write_bytes(&captions_path, captions.as_bytes())?;
    write_safetensors(&latents_path, &tensors, DType::F16)?;
    Ok(Shard {
        pictures: pictures.len(),
        latents_sha256: sha256(&latents_path)?,
        captions_sha256: sha256(&captions_path)?,
    })
}

/// Where a picture lies in the cache.
#[derive(Clone, Copy, Debug)]
struct Row {
    size: [usize; 2],
    /// Its first latent pixel.
    start: usize,
}

/// The cache in memory.
pub(crate) struct LatentCache {
    pub(crate) captions: Vec<String>,
    manifest: LatentManifest,
    rows: Vec<Row>,
    /// The rows of each size (height, width).
    sizes: Vec<([usize; 2], Vec<usize>)>,
    latents: Vec<f16>,
    /// Of each latent pixel, in 255ths.
    objects: Vec<u8>,
}

impl LatentCache {
    fn new(manifest: LatentManifest) -> Self {
        Self {
            captions: Vec::new(),
            manifest,
            rows: Vec::new(),
            sizes: Vec::new(),
            latents: Vec::new(),
            objects: Vec::new(),
        }
    }

    /// Of pictures in memory, which are made normal.
    #[cfg(test)]
    pub(crate) fn of(pictures: &[EncodedPicture], channels: usize) -> Self {
        let mut cache = Self::new(LatentManifest {
            statistics: statistics_of(pictures, channels),
            fingerprint: 0,
            cell_px: 8,
            shards: Vec::new(),
        });
        for p in pictures {
            cache.add(p.size, &p.latents, &p.objects);
            cache.captions.push(p.caption.clone());
        }
        cache
    }

    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let manifest = LatentManifest::read(dir)?;
        let manifest = manifest.ok_or_else(|| Error::file(dir, "holds no latents: run the stage latents first"))?;
        let shards = manifest.shards.clone();
        let mut cache = Self::new(manifest);
        for (number, shard) in shards.iter().enumerate() {
            cache.read_shard(dir, number, shard)?;
        }
        if cache.rows.is_empty() {
            return Err(Error::file(dir, "holds no latents: run the stage latents first"));
        }
        Ok(cache)
    }

    fn read_shard(&mut self, dir: &Path, number: usize, shard: &Shard) -> Result<()> {
        let [path, captions] = shard_paths(dir, number);
        for (path, expected) in [(&path, &shard.latents_sha256), (&captions, &shard.captions_sha256)] {
            if sha256(path)? != *expected {
                let message =
                    "its SHA-256 is not the one in latents.json: remove the folder and run the stage latents again";
                return Err(Error::file(path, message));
            }
        }
        let text = std::fs::read_to_string(&captions).map_err(Error::io(&captions))?;
        let before = self.rows.len();
        let file = TensorFile::open(&path)?;
        let mut shapes: Vec<([usize; 2], String)> = Vec::new();
        for (key, entry) in file.tensors() {
            if let (Some(size), [_, h, w, _]) = (key.strip_prefix("latents."), &entry.shape[..]) {
                shapes.push(([*h, *w], size.to_owned()));
            }
        }
        shapes.sort();
        for (size, name) in shapes {
            let latents = file.read(&format!("latents.{name}"))?;
            let objects = format!("objects.{name}");
            let objects = if file.tensors().contains_key(&objects) {
                file.read(&objects)?.into_vec()
            } else {
                Vec::new()
            };
            let [n, h, w, c] = *latents.shape() else {
                return Err(Error::file(&path, format!("latents.{name} has no 4 axes")));
            };
            if c != self.channels() {
                let message = format!("latents have {c} channels, but latents.json {}", self.channels());
                return Err(Error::file(&path, message));
            }
            for i in 0..n {
                let objects = objects.get(i * h * w..(i + 1) * h * w).unwrap_or_default();
                self.add(size, &latents.data()[i * h * w * c..(i + 1) * h * w * c], objects);
            }
        }
        self.captions.extend(text.lines().map(str::to_owned));
        if self.captions.len() != self.rows.len() {
            let (found, wanted) = (self.captions.len() - before, self.rows.len() - before);
            return Err(Error::file(captions, format!("{found} captions for {wanted} pictures")));
        }
        Ok(())
    }

    fn add(&mut self, size: [usize; 2], latents: &[f32], objects: &[f32]) {
        let row = self.rows.len();
        self.rows.push(Row {
            size,
            start: self.objects.len(),
        });
        match self.sizes.iter_mut().find(|(known, _)| *known == size) {
            Some((_, rows)) => rows.push(row),
            None => self.sizes.push((size, vec![row])),
        }
        self.latents.extend(latents.iter().map(|&x| f16::from_f32(x)));
        let covered = |i: usize| objects.get(i).map_or(0, |share: &f32| (share * 255.0).round() as u8);
        self.objects.extend((0..size[0] * size[1]).map(covered));
    }

    fn channels(&self) -> usize {
        self.manifest.statistics.mean.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Rows of one size, `n` of them: a size by its share of the pictures at `u[0]`, a row at each of the rest, all from 0 to
    /// 1.
    pub(crate) fn draw(&self, u: &[f32]) -> Vec<usize> {
        let at = |u: f32, n: usize| ((f64::from(u) * n as f64) as usize).min(n - 1);
        let mut before = at(u[0], self.len());
        let found = self.sizes.iter().find(|(_, rows)| {
            let here = before < rows.len();
            before = before.saturating_sub(rows.len());
            here
        });
        let rows = found.map_or(&[][..], |(_, rows)| rows);
        u[1..].iter().map(|&u| rows[at(u, rows.len())]).collect()
    }

    /// Height and width of a row's picture in pixels.
    pub(crate) fn size_px(&self, row: usize) -> [f32; 2] {
        self.rows[row].size.map(|side| (side * self.manifest.cell_px) as f32)
    }

    /// Normalised latents of `rows`, all of one size, `[rows, h, w, c]`.
    pub(crate) fn batch(&self, rows: &[usize]) -> Tensor {
        let [h, w] = rows.first().map_or([0; 2], |&r| self.rows[r].size);
        let (c, LatentStatistics { mean, std }) = (self.channels(), &self.manifest.statistics);
        let mut values = Vec::with_capacity(rows.len() * h * w * c);
        for &row in rows {
            let start = self.rows[row].start * c;
            for pixel in self.latents[start..start + h * w * c].chunks_exact(c) {
                let scaled = pixel.iter().zip(mean).zip(std);
                values.extend(scaled.map(|((x, mean), std)| (x.to_f32() - mean) / std));
            }
        }
        Tensor::from_vec(values, &[rows.len(), h, w, c])
    }

    /// The share of each latent's pixels that show an object, row by row, `[rows, h, w]`.
    pub(crate) fn objects(&self, rows: &[usize]) -> Vec<f32> {
        let of = |&row: &usize| {
            let Row { size: [h, w], start } = self.rows[row];
            self.objects[start..start + h * w]
                .iter()
                .map(|&share| f32::from(share) / 255.0)
        };
        rows.iter().flat_map(of).collect()
    }
}

pub(crate) fn statistics_of(pictures: &[EncodedPicture], channels: usize) -> LatentStatistics {
    LatentStatistics::of(pictures.iter().flat_map(EncodedPicture::pixels), channels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(size: [usize; 2], at: usize) -> EncodedPicture {
        let n = size[0] * size[1];
        EncodedPicture {
            size,
            latents: (at..at + 2 * n)
                .map(|i| if i % 2 == 0 { i as f32 } else { 5.0 - 0.5 * i as f32 })
                .collect(),
            objects: (0..n).map(|i| i as f32 / n as f32).collect(),
            caption: format!("picture\n{at}"),
        }
    }

    #[test]
    fn a_cache_normalises_each_channel_survives_the_disk_and_grows() {
        let pictures: Vec<EncodedPicture> = (0..3).map(|i| picture([2, 2], 8 * i)).collect();
        let cache = LatentCache::of(&pictures, 2);
        let all = cache.batch(&[0, 1, 2]);
        for channel in 0..2 {
            let values: Vec<f32> = all.data().iter().skip(channel).step_by(2).copied().collect();
            let mean = values.iter().sum::<f32>() / 12.0;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 12.0;
            assert!(
                mean.abs() < 1e-3 && (variance - 1.0).abs() < 1e-2,
                "channel {channel}: {mean} {variance}"
            );
        }
        let dir = std::env::temp_dir().join(format!("prima-latents-{}", std::process::id()));
        let mut manifest = LatentManifest {
            statistics: statistics_of(&pictures, 2),
            fingerprint: 7,
            cell_px: 8,
            shards: Vec::new(),
        };
        std::fs::create_dir_all(&dir).unwrap();
        manifest.add(&dir, &pictures).unwrap();
        manifest.add(&dir, &[picture([1, 2], 3), picture([2, 2], 1)]).unwrap();
        let opened = LatentCache::open(&dir).unwrap();
        assert_eq!((manifest.shards.len(), manifest.pictures()), (2, 5));
        assert_eq!(LatentManifest::read(&dir).unwrap(), Some(manifest));
        std::fs::write(dir.join("00001.txt"), "picture 3\npicture 2\n").unwrap();
        let error = LatentCache::open(&dir).err().unwrap().to_string();
        assert!(
            error.contains("00001.txt") && error.contains("run the stage latents again"),
            "{error}"
        );
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(
            (opened.len(), opened.size_px(1), opened.size_px(3)),
            (5, [16.0; 2], [8.0, 16.0])
        );
        assert_eq!(opened.captions[3..], ["picture 3", "picture 1"]);
        assert_eq!(opened.batch(&[1]).data(), cache.batch(&[1]).data());
        let objects = opened.objects(&[0]);
        assert!(
            objects
                .iter()
                .zip([0.0, 0.25, 0.5, 0.75])
                .all(|(a, b)| (a - b).abs() < 3e-3)
        );
    }

    #[test]
    fn a_draw_is_of_one_size_and_sizes_come_by_their_share() {
        let pictures: Vec<EncodedPicture> = (0..8)
            .map(|i| picture(if i % 4 == 0 { [1, 2] } else { [2, 2] }, i))
            .collect();
        let cache = LatentCache::of(&pictures, 2);
        let sizes: Vec<[f32; 2]> = (0..8)
            .map(|i| {
                let rows = cache.draw(&[i as f32 / 8.0, 0.0, 0.5, 0.999]);
                assert!(rows.iter().all(|&r| cache.size_px(r) == cache.size_px(rows[0])));
                cache.size_px(rows[0])
            })
            .collect();
        assert_eq!(sizes.iter().filter(|size| **size == [8.0, 16.0]).count(), 2);
    }
}
