//! Pictures encoded once and reused for several epochs: raw latents with their captions, in shards that a run can go on
//! adding to, each a `NNNNN.safetensors` (f16; per size `latents.HxW`, `objects.HxW` and
//! `features.HxW`) beside a `NNNNN.txt` (one caption a
//! line); `latents.json`, written last, says which shards there are and what makes their latents normal.

mod manifest;

use crate::captions::time_ids;
use crate::checksum::sha256;
use crate::error::{Error, Result};
use crate::picture_source::Cut;
use half::f16;
pub(crate) use manifest::{
    EncodedPicture, FeatureMap, LatentManifest, LatentStatistics, captions, feature_statistics_of, is_ours,
    statistics_of,
};
use manifest::{Shard, shard_paths};
use prima_checkpoint::TensorFile;
use prima_tensor::Tensor;
use std::path::Path;

/// Where a picture lies in the cache.
#[derive(Clone, Copy, Debug)]
struct Row {
    size: [usize; 2],
    /// Its first latent pixel.
    start: usize,
    features: Option<FeatureRow>,
    cut: Option<Cut>,
}

/// Where a picture's features lie.
#[derive(Clone, Copy, Debug)]
struct FeatureRow {
    /// Height, width, channels.
    shape: [usize; 3],
    /// The first value.
    start: usize,
}

/// The cache in memory.
pub(crate) struct LatentCache {
    pub(crate) captions: Vec<String>,
    manifest: LatentManifest,
    rows: Vec<Row>,
    /// The rows of each size (height, width), some of them several times.
    sizes: Vec<([usize; 2], Vec<usize>)>,
    latents: Vec<f16>,
    /// Of each latent pixel, in 255ths.
    objects: Vec<u8>,
    features: Vec<f16>,
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
            features: Vec::new(),
        }
    }

    /// Of pictures in memory, which are made normal.
    #[cfg(test)]
    pub(crate) fn of(pictures: &[EncodedPicture], channels: usize) -> Self {
        let mut cache = Self::new(LatentManifest {
            statistics: statistics_of(pictures, channels),
            fingerprint: 0,
            cell_px: 8,
            features: feature_statistics_of(pictures),
            pictures_sha256: None,
            shards: Vec::new(),
        });
        for p in pictures {
            let features = p.features.as_ref().map(|map| (map.shape, &map.values[..]));
            cache.add(p.size, &p.latents, &p.objects, features);
            cache.cut_last(p.cut);
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
            self.read_size(&file, &path, size, &name)?;
        }
        for (row, cut) in self.rows[before..].iter_mut().zip(&shard.cuts) {
            row.cut = *cut;
        }
        self.captions.extend(text.lines().map(str::to_owned));
        if self.captions.len() != self.rows.len() {
            let (found, wanted) = (self.captions.len() - before, self.rows.len() - before);
            return Err(Error::file(captions, format!("{found} captions for {wanted} pictures")));
        }
        Ok(())
    }

    /// The pictures of one size in a shard.
    fn read_size(&mut self, file: &TensorFile, path: &Path, size: [usize; 2], name: &str) -> Result<()> {
        let read = |kind: &str| {
            let key = format!("{kind}.{name}");
            let is_there = file.tensors().contains_key(&key);
            is_there.then(|| file.read(&key)).transpose()
        };
        let latents = file.read(&format!("latents.{name}"))?;
        let objects = read("objects")?.map(Tensor::into_vec).unwrap_or_default();
        let features = read("features")?;
        let [n, h, w, c] = *latents.shape() else {
            return Err(Error::file(path, format!("latents.{name} has no 4 axes")));
        };
        if c != self.channels() {
            let message = format!("latents have {c} channels, but latents.json {}", self.channels());
            return Err(Error::file(path, message));
        }
        let kept = self.manifest.features.as_ref().map(|statistics| statistics.mean.len());
        let map = match features.as_ref().map(Tensor::shape) {
            None => None,
            Some(&[count, h, w, c]) if count == n && Some(c) == kept => Some([h, w, c]),
            Some(shape) => {
                let message =
                    format!("features.{name} is {shape:?}: remove the folder and run the stage latents again");
                return Err(Error::file(path, message));
            }
        };
        for i in 0..n {
            let objects = objects.get(i * h * w..(i + 1) * h * w).unwrap_or_default();
            let features = features.as_ref().zip(map).map(|(features, shape)| {
                let each: usize = shape.iter().product();
                (shape, &features.data()[i * each..(i + 1) * each])
            });
            let latents = &latents.data()[i * h * w * c..(i + 1) * h * w * c];
            self.add(size, latents, objects, features);
        }
        Ok(())
    }

    fn add(&mut self, size: [usize; 2], latents: &[f32], objects: &[f32], features: Option<([usize; 3], &[f32])>) {
        let row = self.rows.len();
        self.rows.push(Row {
            size,
            start: self.objects.len(),
            features: features.map(|(shape, _)| FeatureRow {
                shape,
                start: self.features.len(),
            }),
            cut: None,
        });
        if let Some((_, values)) = features {
            self.features.extend(values.iter().map(|&x| f16::from_f32(x)));
        }
        match self.sizes.iter_mut().find(|(known, _)| *known == size) {
            Some((_, rows)) => rows.push(row),
            None => self.sizes.push((size, vec![row])),
        }
        self.latents.extend(latents.iter().map(|&x| f16::from_f32(x)));
        let covered = |i: usize| objects.get(i).map_or(0, |share: &f32| (share * 255.0).round() as u8);
        self.objects.extend((0..size[0] * size[1]).map(covered));
    }

    #[cfg(test)]
    fn cut_last(&mut self, cut: Option<Cut>) {
        if let Some(row) = self.rows.last_mut() {
            row.cut = cut;
        }
    }

    fn channels(&self) -> usize {
        self.manifest.statistics.mean.len()
    }

    /// Has [`draw`](Self::draw) take each picture for as many as `times` says of its caption.
    pub(crate) fn emphasise(&mut self, times: impl Fn(&str) -> usize) {
        for (_, rows) in &mut self.sizes {
            let several = |row: &usize| std::iter::repeat_n(*row, times(&self.captions[*row]));
            *rows = rows.iter().flat_map(several).collect();
        }
    }

    /// Rows of one size, `n` of them: a size by its share of the pictures at `u[0]`, a row at each of the rest, all from 0 to
    /// 1.
    pub(crate) fn draw(&self, u: &[f32]) -> Vec<usize> {
        let at = |u: f32, n: usize| ((f64::from(u) * n as f64) as usize).min(n - 1);
        let all = self.sizes.iter().map(|(_, rows)| rows.len()).sum();
        let mut before = at(u[0], all);
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

    /// What SDXL's micro-conditioning says of `rows`: original height and width, crop, height and width.
    pub(crate) fn time_ids(&self, rows: &[usize]) -> Vec<[f32; 6]> {
        let of = |&row: &usize| {
            let size @ [height, width] = self.size_px(row);
            let Some(Cut { original_px, crop_px }) = self.rows[row].cut else {
                return time_ids(size);
            };
            let [original, crop] = [original_px, crop_px].map(|pair| pair.map(|side| side as f32));
            [original[0], original[1], crop[0], crop[1], height, width]
        };
        rows.iter().map(of).collect()
    }

    /// Normalised latents of `rows`, all of one size, `[rows, h, w, c]`.
    pub(crate) fn batch(&self, rows: &[usize]) -> Tensor {
        let [h, w] = rows.first().map_or([0; 2], |&r| self.rows[r].size);
        let (c, LatentStatistics { mean, std }) = (self.channels(), &self.manifest.statistics);
        let mut values = Vec::with_capacity(rows.len() * h * w * c);
        for &row in rows {
            let start = self.rows[row].start * c;
            for pixel in self.latents[start..start + h * w * c].chunks_exact(c) {
                values.extend(normal(pixel, mean, std));
            }
        }
        Tensor::from_vec(values, &[rows.len(), h, w, c])
    }

    /// The share of each latent's pixels that show an object, row by row, `[rows, h, w]`.
    pub(crate) fn objects(&self, rows: &[usize]) -> Vec<f32> {
        let of = |&row: &usize| {
            let Row {
                size: [h, w], start, ..
            } = self.rows[row];
            self.objects[start..start + h * w]
                .iter()
                .map(|&share| f32::from(share) / 255.0)
        };
        rows.iter().flat_map(of).collect()
    }

    /// Channels of the pictures' features, where every picture has them.
    pub(crate) fn feature_channels(&self) -> Option<usize> {
        let all = self.rows.iter().all(|row| row.features.is_some());
        self.manifest.features.as_ref().filter(|_| all).map(|s| s.mean.len())
    }

    /// How often latents are halved (rounding up) to be as large as the features; `None` where no such number fits all.
    pub(crate) fn feature_halvings(&self) -> Option<usize> {
        let fits = |row: &Row, k: usize| {
            let halved = row.size.map(|side| (0..k).fold(side, |side, _| side.div_ceil(2)));
            row.features.is_some_and(|f| f.shape[..2] == halved)
        };
        (0..8).find(|&k| self.rows.iter().all(|row| fits(row, k)))
    }

    /// Normalised features of `rows`, all of one size, `[rows, h, w, c]`; `None` where one has none.
    pub(crate) fn features(&self, rows: &[usize]) -> Option<Tensor> {
        let LatentStatistics { mean, std } = self.manifest.features.as_ref()?;
        let [h, w, c] = self.rows[*rows.first()?].features?.shape;
        let mut values = Vec::with_capacity(rows.len() * h * w * c);
        for &row in rows {
            let start = self.rows[row].features?.start;
            for place in self.features[start..start + h * w * c].chunks_exact(c) {
                values.extend(normal(place, mean, std));
            }
        }
        Some(Tensor::from_vec(values, &[rows.len(), h, w, c]))
    }
}

fn normal<'a>(values: &'a [f16], mean: &'a [f32], std: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
    let scaled = values.iter().zip(mean).zip(std);
    scaled.map(|((x, mean), std)| (x.to_f32() - mean) / std)
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
            features: Some(FeatureMap {
                shape: [1, size[1] / 2, 3],
                values: (at..at + 3 * size[1] / 2).map(|i| (i * i) as f32).collect(),
            }),
            caption: format!("picture\n{at}"),
            cut: (at == 3).then_some(Cut {
                original_px: [300, 500],
                crop_px: [0, 7],
            }),
        }
    }

    #[test]
    fn emphasised_pictures_are_drawn_as_often_as_several() {
        let mut pictures: Vec<EncodedPicture> = (0..4).map(|i| picture([2, 2], 8 * i)).collect();
        for (picture, caption) in pictures
            .iter_mut()
            .zip(["A cat!", "a cathedral", "two hot dogs", "a hot dog, red"])
        {
            picture.caption = caption.to_owned();
        }
        let mut cache = LatentCache::of(&pictures, 2);
        let emphasis = serde_json::json!({ "words": ["cat", "hot dog"], "times": 3 });
        let emphasis: crate::latents::Emphasis = serde_json::from_value(emphasis).unwrap();
        cache.emphasise(|caption| emphasis.times(caption));
        let draws: Vec<f32> = (0..9)
            .map(|i| if i == 0 { 0.5 } else { (i as f32 - 0.5) / 8.0 })
            .collect();
        assert_eq!(cache.draw(&draws), [0, 0, 0, 1, 2, 3, 3, 3]);
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
            features: feature_statistics_of(&pictures),
            pictures_sha256: None,
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
            (opened.captions.len(), opened.size_px(1), opened.size_px(3)),
            (5, [16.0; 2], [8.0, 16.0])
        );
        assert_eq!(opened.captions[3..], ["picture 3", "picture 1"]);
        let told = opened.time_ids(&[3, 4]);
        assert_eq!(
            told,
            [[300.0, 500.0, 0.0, 7.0, 8.0, 16.0], [16.0, 16.0, 0.0, 0.0, 16.0, 16.0]]
        );
        assert_eq!(opened.batch(&[1]).data(), cache.batch(&[1]).data());
        let (features, kept) = (opened.features(&[1, 2]).unwrap(), cache.features(&[1, 2]).unwrap());
        assert_eq!(
            (features.shape(), opened.feature_channels()),
            (&[2, 1, 1, 3][..], Some(3))
        );
        assert_eq!(features.data(), kept.data());
        assert!(cache.features(&[0, 1, 2]).unwrap().data().iter().sum::<f32>().abs() < 1e-2);
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
