//! One run of the network over a picture, tile by tile.

use super::Upscaler;
use super::tiles::Span;
use crate::Error;
use crate::progress::{OnProgress, Progress};
use prima_picture::Picture;
use prima_tensor::{Tensor, device};
use std::ops::Range;

impl Upscaler {
    /// The picture `times` larger, which divides the network's scale: more pixels than that are averaged at once.
    pub(super) fn pass(&self, picture: &Picture, times: usize, on: OnProgress) -> Result<Picture, Error> {
        let cut = self.cut();
        let padded = |side: usize| side.next_multiple_of(cut.multiple);
        let (columns, rows) = (cut.spans(padded(picture.width)), cut.spans(padded(picture.height)));
        let mut out = Picture {
            width: picture.width * times,
            height: picture.height * times,
            rgb: vec![0; picture.rgb.len() * times * times],
        };
        let total = rows.len() * columns.len();
        for (done, (row, column)) in rows
            .iter()
            .flat_map(|row| columns.iter().map(move |column| (row, column)))
            .enumerate()
        {
            let progress = Progress { done, total };
            let tile = device::catch(|| {
                let seen = values(picture, &row.seen, &column.seen);
                let tile = self.forward(&seen, &mut || on(progress).is_continue())?;
                // Read back here, where a device that fails is an error.
                tile.data();
                Ok::<_, Error>(tile)
            })??;
            put(&tile, self.scale(), times, [row, column], &mut out);
        }
        if on(Progress { done: total, total }).is_break() {
            return Err(Error::Cancelled);
        }
        Ok(out)
    }
}

/// Part of a picture in 0..1, `[1, H, W, 3]`; beyond its last pixels they are repeated.
fn values(picture: &Picture, rows: &Range<usize>, columns: &Range<usize>) -> Tensor {
    let mut values = Vec::with_capacity(rows.len() * columns.len() * 3);
    for y in rows.clone() {
        let row = &picture.rgb[y.min(picture.height - 1) * picture.width * 3..][..picture.width * 3];
        let inside = columns.start * 3..columns.end.min(picture.width) * 3;
        values.extend(row[inside].iter().map(|byte| f32::from(*byte) / 255.0));
        for _ in picture.width..columns.end {
            values.extend(row[row.len() - 3..].iter().map(|byte| f32::from(*byte) / 255.0));
        }
    }
    Tensor::from_vec(values, &[1, rows.len(), columns.len(), 3])
}

/// Writes what is kept of a tile that is `scale` times as large as what the network saw into a picture `times` as large.
fn put(tile: &Tensor, scale: usize, times: usize, [row, column]: [&Span; 2], out: &mut Picture) {
    let (width, share) = (tile.dim(2) * 3, scale / times);
    let per = 1.0 / (share * share) as f32;
    let place = |span: &Span, at: usize| ((span.kept.start - span.seen.start) * times + at) * share;
    let height = (row.kept.end * times).min(out.height) - row.kept.start * times;
    let len = (column.kept.end * times).min(out.width) - column.kept.start * times;
    for y in 0..height {
        let first = ((row.kept.start * times + y) * out.width + column.kept.start * times) * 3;
        let into = out.rgb[first..][..len * 3].as_chunks_mut::<3>().0;
        let down = row.weight(y, times);
        for (x, pixel) in into.iter_mut().enumerate() {
            let mut sum = [0.0; 3];
            for dy in 0..share {
                let from = (place(row, y) + dy) * width + place(column, x) * 3;
                for values in tile.data()[from..][..share * 3].as_chunks::<3>().0 {
                    for (sum, value) in sum.iter_mut().zip(values) {
                        *sum += value.clamp(0.0, 1.0);
                    }
                }
            }
            let weight = down * column.weight(x, times);
            for (byte, sum) in pixel.iter_mut().zip(sum) {
                let value = sum * per * 255.0;
                let value = if weight < 1.0 {
                    f32::from(*byte) * (1.0 - weight) + value * weight
                } else {
                    value
                };
                *byte = value.round() as u8;
            }
        }
    }
}
