//! Resizing on floats as the tools do that measure FID, since their figures depend on it (Parmar et al. 2022).

use prima_picture::Picture;

/// How a picture becomes as large as the network wants it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resize {
    /// clean-fid's: Pillow's bicubic filter, whose width grows where a picture shrinks.
    #[default]
    Clean,
    /// pytorch-fid's: the four nearest pixels, whatever the size.
    Bilinear,
}

/// What each pixel of a line is made of: the first of the old pixels, and their weights.
type Line = Vec<(usize, Vec<f64>)>;

impl Resize {
    pub fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Bilinear => "bilinear",
        }
    }

    /// `[side, side, 3]` from 0 to 255, not rounded.
    pub(crate) fn apply(self, picture: &Picture, side: usize) -> Vec<f32> {
        self.apply_to(picture, [side; 2])
    }

    /// `[height, width, 3]`.
    pub(crate) fn apply_to(self, picture: &Picture, [height, width]: [usize; 2]) -> Vec<f32> {
        let (columns, rows) = (self.line(picture.width, width), self.line(picture.height, height));
        let values: Vec<f32> = picture.rgb.iter().map(|v| f32::from(*v)).collect();
        let narrow = horizontally(&values, picture.width, &columns);
        let out = vertically(&narrow, 3 * width, &rows);
        out.into_iter().map(|v| v.clamp(0.0, 255.0)).collect()
    }

    fn line(self, from: usize, to: usize) -> Line {
        let scale = from as f64 / to as f64;
        (0..to)
            .map(|at| match self {
                Self::Clean => cubic(at, scale, from),
                Self::Bilinear => linear(at, scale, from),
            })
            .collect()
    }
}

/// Pillow's: the filter's centre in the old line, everything within its reach, weights that sum to 1.
fn cubic(at: usize, scale: f64, from: usize) -> (usize, Vec<f64>) {
    let stretched = scale.max(1.0);
    let (centre, reach) = ((at as f64 + 0.5) * scale, 2.0 * stretched);
    let first = (centre - reach + 0.5).max(0.0) as usize;
    let end = ((centre + reach + 0.5) as usize).min(from);
    let weight = |pixel: usize| bicubic((pixel as f64 - centre + 0.5) / stretched);
    let weights: Vec<f64> = (first..end).map(weight).collect();
    let sum: f64 = weights.iter().sum();
    (first, weights.into_iter().map(|w| w / sum).collect())
}

/// Keys' cubic with a = -0.5.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn linear(at: usize, scale: f64, from: usize) -> (usize, Vec<f64>) {
    let centre = ((at as f64 + 0.5) * scale - 0.5).max(0.0);
    let first = (centre as usize).min(from - 1);
    if first + 1 == from {
        return (first, vec![1.0]);
    }
    let share = centre - first as f64;
    (first, vec![1.0 - share, share])
}

fn horizontally(values: &[f32], width: usize, columns: &Line) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len() / width * columns.len());
    for row in values.chunks_exact(3 * width) {
        for (first, weights) in columns {
            let pixels = &row[3 * first..];
            out.extend((0..3).map(|channel| {
                let each = weights.iter().enumerate();
                each.map(|(i, weight)| weight * f64::from(pixels[3 * i + channel]))
                    .sum::<f64>() as f32
            }));
        }
    }
    out
}

fn vertically(values: &[f32], width: usize, rows: &Line) -> Vec<f32> {
    let mut out = Vec::with_capacity(width * rows.len());
    for (first, weights) in rows {
        out.extend((0..width).map(|column| {
            let each = weights.iter().enumerate();
            each.map(|(i, weight)| weight * f64::from(values[(first + i) * width + column]))
                .sum::<f64>() as f32
        }));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use prima_checkpoint::TensorFile;
    use std::path::Path;

    #[test]
    fn pictures_are_resized_as_pillow_and_pytorch_do_it() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens/inception-v3/outputs.safetensors");
        let golden = TensorFile::open(&path).unwrap();
        let pixels = golden.read("picture").unwrap();
        let picture = Picture {
            width: 52,
            height: 40,
            rgb: pixels.data().iter().map(|v| *v as u8).collect(),
        };
        for resize in [Resize::Clean, Resize::Bilinear] {
            let want = golden.read(&format!("{}.resized", resize.name())).unwrap();
            let found = resize.apply(&picture, 91);
            let farthest = found
                .iter()
                .zip(want.data())
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            assert!(farthest < 0.05, "{}: {farthest}", resize.name());
        }
        // A smaller one: the mean of a flat picture is its value, whatever the filter.
        let flat = Picture {
            width: 64,
            height: 48,
            rgb: vec![77; 64 * 48 * 3],
        };
        assert!(Resize::Clean.apply(&flat, 10).iter().all(|v| (v - 77.0).abs() < 1e-3));
    }
}
