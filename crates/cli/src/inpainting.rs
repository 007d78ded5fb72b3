//! `--mask` and `--outpaint`: which part of a picture is painted, or what around it.

use crate::output;
use anyhow::Result;
use prima_picture::{Gray, MAX_SIDE_PX};
use prima_pipeline::{Mask, MaskFill, Picture};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// A picture of which is painted what this one, of the same size, shows in white (or transparent)
    #[arg(long, value_name = "FILE", requires = "image")]
    mask: Option<PathBuf>,
    /// Paint what the mask shows in black
    #[arg(long, requires = "mask")]
    mask_invert: bool,
    /// Soften the mask's edge, in pixels
    #[arg(long, value_name = "PX", default_value_t = 0.0, allow_negative_numbers = true)]
    mask_blur: f32,
    /// Paint the masked area only, at the size that is asked for, with so much around it, in pixels
    #[arg(long, value_name = "PX", requires = "mask")]
    mask_padding: Option<usize>,
    /// What painting begins with below the mask: original, fill (the colours around it), latent-noise, latent-nothing, gray
    #[arg(long, value_name = "NAME", default_value = "original", value_parser = <MaskFill as std::str::FromStr>::from_str)]
    mask_fill: MaskFill,
    /// Leave what is not masked as the autoencoder gives it, as diffusers does
    #[arg(long)]
    no_mask_overlay: bool,
    /// Paint a margin around the picture, in pixels
    #[arg(long, value_name = "LEFT,TOP,RIGHT,BOTTOM", requires = "image", conflicts_with = "mask",
        value_parser = margin)]
    outpaint: Option<[usize; 4]>,
}

fn margin(text: &str) -> Result<[usize; 4], String> {
    let sides: Option<Vec<usize>> = text.split(',').map(|side| side.trim().parse().ok()).collect();
    let sides = sides.and_then(|sides| <[usize; 4]>::try_from(sides).ok());
    let possible =
        sides.filter(|sides| sides.iter().all(|side| *side <= MAX_SIDE_PX) && sides.iter().any(|side| *side > 0));
    possible.ok_or_else(|| "use four margins in pixels such as 0,0,256,0".to_owned())
}

impl Args {
    /// The picture to start from as it is painted over, and its mask.
    pub fn over(&self, picture: Option<Picture>) -> Result<(Option<Picture>, Option<Mask>)> {
        let Some(picture) = picture else {
            return Ok((None, None));
        };
        let (picture, gray) = match (&self.mask, self.outpaint) {
            (Some(path), _) => {
                let gray = Gray::decode_mask(
                    &output::read_file(path, "mask")?,
                    &path.display().to_string(),
                    usize::MAX,
                )?;
                (picture, if self.mask_invert { gray.inverted() } else { gray })
            }
            (None, Some(margin)) => picture.with_margin(margin),
            (None, None) => return Ok((Some(picture), None)),
        };
        let mask = Mask {
            blur_px: self.mask_blur,
            padding_px: self.mask_padding,
            fill: self.mask_fill,
            keeps_original: !self.no_mask_overlay,
            ..Mask::new(gray)
        };
        Ok((Some(picture), Some(mask)))
    }
}

/// A picture's file.
pub fn picture(path: &Path) -> Result<Picture> {
    Ok(Picture::decode(
        &output::read_file(path, "picture")?,
        &path.display().to_string(),
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn margins_are_four_numbers_of_which_one_is_not_zero() {
        assert_eq!(margin("0, 0,256,8"), Ok([0, 0, 256, 8]));
        for wrong in ["", "256", "0,0,0,0", "1,2,3", "-1,0,0,0", "99999,0,0,0"] {
            assert!(margin(wrong).is_err(), "{wrong}");
        }
    }
}
