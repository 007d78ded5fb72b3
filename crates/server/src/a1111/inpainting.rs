//! The fields of `img2img` about its mask.

use crate::masks::Masking;
use crate::numbers::{flag, number, whole};
use crate::refusal::Refusal;
use prima_pipeline::MaskFill;
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct MaskFields {
    #[serde(deserialize_with = "number")]
    mask_blur: Option<f64>,
    /// Of older versions: each way, of which the larger counts here.
    #[serde(deserialize_with = "number")]
    mask_blur_x: Option<f64>,
    #[serde(deserialize_with = "number")]
    mask_blur_y: Option<f64>,
    #[serde(deserialize_with = "whole")]
    inpainting_fill: Option<usize>,
    #[serde(deserialize_with = "flag")]
    inpaint_full_res: Option<bool>,
    #[serde(deserialize_with = "whole")]
    inpaint_full_res_padding: Option<usize>,
    #[serde(deserialize_with = "flag")]
    inpainting_mask_invert: Option<bool>,
}

/// By the web UI's numbers.
const FILLS: [MaskFill; 4] = [
    MaskFill::Surroundings,
    MaskFill::Original,
    MaskFill::Noise,
    MaskFill::Nothing,
];

impl MaskFields {
    /// `masking` with these, and the web UI's own defaults where they do not say.
    pub fn over<B>(&self, masking: Masking<B>) -> Result<Masking<B>, Refusal> {
        let fill = self.inpainting_fill.unwrap_or(0);
        let fill = FILLS.get(fill).ok_or_else(|| {
            Refusal::field(
                "inpainting_fill",
                format!("inpainting_fill {fill} is not possible: use 0 to 3"),
            )
        })?;
        let each_way = self.mask_blur_x.into_iter().chain(self.mask_blur_y).reduce(f64::max);
        let full_res = self.inpaint_full_res.unwrap_or(true);
        Ok(Masking {
            blur_px: self.mask_blur.or(each_way).unwrap_or(4.0) as f32,
            padding_px: full_res.then(|| self.inpaint_full_res_padding.unwrap_or(0)),
            fill: *fill,
            is_inverted: self.inpainting_mask_invert.unwrap_or(false),
            is_stretched: true,
            ..masking
        })
    }
}
