//! Contact sheets: many samples of a kind side by side.

use super::{Kind, SIZES, Sample, World};

/// A sheet of samples.
#[derive(Debug)]
pub struct Sheet {
    /// [height, width, 3] sRGB.
    pub rgb: Vec<u8>,
    pub width: usize,
    pub height: usize,
    pub captions: Vec<String>,
    /// Mean time of one sample on one core, ms.
    pub sample_ms: f64,
}

/// Draws samples `0..count` of a kind (`None`: of the training mix), `columns` in a row, in cells of 256 px.
pub fn sheet(world: &World, kind: Option<Kind>, seed: u64, count: usize, columns: usize) -> Sheet {
    let start = std::time::Instant::now();
    let samples: Vec<Sample> = (0..count as u64)
        .map(|number| match kind {
            Some(kind) => world.sample_of(kind, seed, number, SIZES[0]),
            None => world.sample(seed, number),
        })
        .collect();
    let sample_ms = start.elapsed().as_secs_f64() * 1000.0 / count.max(1) as f64;
    let columns = columns.clamp(1, count.max(1));
    let cell = samples.iter().map(|s| s.width.max(s.height)).max().unwrap_or(1);
    let (width, height) = (columns * cell, count.div_ceil(columns) * cell);
    let mut rgb = vec![255u8; width * height * 3];
    for (index, sample) in samples.iter().enumerate() {
        let left = (index % columns) * cell + (cell - sample.width) / 2;
        let top = (index / columns) * cell + (cell - sample.height) / 2;
        for (row, line) in sample.rgb.chunks_exact(sample.width * 3).enumerate() {
            rgb[((top + row) * width + left) * 3..][..line.len()].copy_from_slice(line);
        }
    }
    Sheet {
        rgb,
        width,
        height,
        captions: samples.into_iter().map(|s| s.caption).collect(),
        sample_ms,
    }
}
