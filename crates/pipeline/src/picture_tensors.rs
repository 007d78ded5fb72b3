//! Pictures into and out of the networks' value range.

use prima_picture::Picture;
use prima_tensor::{Tensor, picture_bytes};

/// `[1, H, W, 3]` in `-1..=1`, what an autoencoder's encoder takes.
pub fn picture_to_tensor(picture: &Picture) -> Tensor {
    let values = picture.rgb.iter().map(|&v| f32::from(v) / 255.0 * 2.0 - 1.0).collect();
    Tensor::from_vec(values, &[1, picture.height, picture.width, 3])
}

/// Pictures from `[B, H, W, 3]` in `-1..=1`.
pub fn pictures_of_tensor(x: &Tensor) -> Vec<Picture> {
    let (height, width) = (x.dim(1), x.dim(2));
    picture_bytes(x)
        .chunks((height * width * 3).max(1))
        .map(|bytes| Picture {
            width,
            height,
            rgb: bytes.to_vec(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_the_networks_range() {
        let rgb: Vec<u8> = (0..=255).flat_map(|v| [v, 255 - v, v / 2]).collect();
        let picture = Picture {
            width: 16,
            height: 16,
            rgb,
        };
        assert_eq!(pictures_of_tensor(&picture_to_tensor(&picture)), [picture]);
    }

    #[test]
    fn values_outside_the_range_are_clamped_and_nan_is_black() {
        let x = Tensor::from_vec(vec![-3.0, 3.0, f32::NAN], &[1, 1, 1, 3]);
        assert_eq!(pictures_of_tensor(&x)[0].rgb, [0, 255, 0]);
    }
}
