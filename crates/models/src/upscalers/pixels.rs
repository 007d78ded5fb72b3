//! Channels to pixels and back, as torch's `PixelShuffle` and `PixelUnshuffle` order them. They stand at the ends of a network,
//! where the values are on the host or go there anyway.

use prima_tensor::Tensor;

/// `[B, H, W, C·r²] -> [B, r·H, r·W, C]`.
pub(super) fn shuffle(x: &Tensor, r: usize) -> Tensor {
    let [batch, height, width, channels] = [x.dim(0), x.dim(1), x.dim(2), x.dim(3) / (r * r)];
    let mut out = vec![0.0; x.numel()];
    for (i, row) in x.data().chunks_exact(width * channels * r * r).enumerate() {
        let rows = &mut out[i * row.len()..][..row.len()];
        for (column, pixel) in row.chunks_exact(channels * r * r).enumerate() {
            for (at, value) in pixel.iter().enumerate() {
                let (channel, y, x) = (at / (r * r), at / r % r, at % r);
                rows[((y * width + column) * r + x) * channels + channel] = *value;
            }
        }
    }
    Tensor::from_vec(out, &[batch, height * r, width * r, channels])
}

/// `[B, r·H, r·W, C] -> [B, H, W, C·r²]`.
pub(super) fn unshuffle(x: &Tensor, r: usize) -> Tensor {
    let [batch, height, width, channels] = [x.dim(0), x.dim(1) / r, x.dim(2) / r, x.dim(3)];
    let mut out = vec![0.0; x.numel()];
    let row = width * channels * r * r;
    for (i, rows) in x.data().chunks_exact(row).enumerate() {
        for (column, pixel) in out[i * row..][..row].chunks_exact_mut(channels * r * r).enumerate() {
            for (at, value) in pixel.iter_mut().enumerate() {
                let (channel, y, x) = (at / (r * r), at / r % r, at % r);
                *value = rows[((y * width + column) * r + x) * channels + channel];
            }
        }
    }
    Tensor::from_vec(out, &[batch, height, width, channels * r * r])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_become_pixels_in_torchs_order_and_back() {
        // Two pixels side by side of one channel and four places.
        let x = Tensor::from_vec((0..8).map(|i| i as f32).collect(), &[1, 1, 2, 4]);
        let y = shuffle(&x, 2);
        assert_eq!(y.shape(), [1, 2, 4, 1]);
        assert_eq!(y.data(), [0.0, 1.0, 4.0, 5.0, 2.0, 3.0, 6.0, 7.0]);
        assert_eq!(unshuffle(&y, 2).data(), x.data());
        let x = Tensor::from_vec((0..2 * 3 * 2 * 18).map(|i| i as f32).collect(), &[2, 3, 2, 18]);
        assert_eq!(unshuffle(&shuffle(&x, 3), 3).data(), x.data());
    }
}
