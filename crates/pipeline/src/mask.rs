//! Which part of an initial picture is painted anew.

use crate::Error;
use prima_picture::{Gray, Picture};
use std::str::FromStr;

/// Inpainting: white is painted, black stays.
#[derive(Clone, Debug)]
pub struct Mask {
    /// Of the initial picture's size.
    pub gray: Gray,
    /// Deviation of a Gaussian that softens the mask first, in pixels.
    pub blur_px: f32,
    /// Only what lies this far around the mask is painted, in pixels, at the size of the whole request, and put back into the
    /// picture (diffusers' `padding_mask_crop`).
    pub padding_px: Option<usize>,
    pub fill: MaskFill,
    /// What the mask leaves comes from the initial picture to the last bit, and not from the autoencoder. With a padding it
    /// always does.
    pub keeps_original: bool,
}

/// What painting begins with below the mask, as far as `strength` leaves any of it (A1111's `inpainting_fill`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaskFill {
    /// The colours around it.
    Surroundings,
    #[default]
    Original,
    /// Noise in the latents.
    Noise,
    /// Latents of zeros.
    Nothing,
    /// Mid-gray, which inpainting models know as "nothing there".
    Gray,
}

impl MaskFill {
    pub const ALL: [Self; 5] = [
        Self::Surroundings,
        Self::Original,
        Self::Noise,
        Self::Nothing,
        Self::Gray,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Surroundings => "fill",
            Self::Original => "original",
            Self::Noise => "latent-noise",
            Self::Nothing => "latent-nothing",
            Self::Gray => "gray",
        }
    }
}

impl FromStr for MaskFill {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let names = Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|fill| fill.name() == name);
        found.ok_or_else(|| Error::request("mask_fill", name, format!("use one of {names}")))
    }
}

/// Softer masks and wider paddings are no masks.
const MOST_PX: usize = 4096;

impl Mask {
    /// Of this, with nothing softened, cut out or filled.
    pub fn new(gray: Gray) -> Self {
        Self {
            gray,
            blur_px: 0.0,
            padding_px: None,
            fill: MaskFill::default(),
            keeps_original: true,
        }
    }

    /// The mask as it counts.
    pub(crate) fn softened(&self) -> Gray {
        self.gray.clone().blurred(self.blur_px)
    }

    /// What a picture's file says of it, under the web UI's names.
    pub(crate) fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![("Mask blur", self.blur_px.to_string())];
        fields.extend(self.padding_px.map(|px| ("Masked area padding", px.to_string())));
        if self.fill != MaskFill::Original {
            fields.push(("Masked content", self.fill.name().to_owned()));
        }
        fields
    }

    /// Checks it against the picture that it is of.
    pub(crate) fn check(&self, picture: Option<&Picture>) -> Result<(), Error> {
        let sides = |width: usize, height: usize| format!("{width}x{height}");
        let own = sides(self.gray.width, self.gray.height);
        let Some(picture) = picture else {
            let fix = "it says what of a picture is painted anew: give a picture to start from";
            return Err(Error::request("mask", format!("of {own}"), fix));
        };
        let whole = sides(picture.width, picture.height);
        if own != whole {
            let fix = format!("use one of the picture's size, {whole}");
            return Err(Error::request("mask", format!("of {own}"), fix));
        }
        if self.gray.bounds().is_none() {
            let fix = "make white what is to be painted";
            return Err(Error::request("mask", "that is black everywhere", fix));
        }
        if !(0.0..=MOST_PX as f32 / 16.0).contains(&self.blur_px) {
            let fix = format!("use 0 to {}", MOST_PX / 16);
            return Err(Error::request("mask_blur", self.blur_px, fix));
        }
        match self.padding_px {
            Some(padding) if padding > MOST_PX => {
                Err(Error::request("mask_padding", padding, format!("use 0 to {MOST_PX}")))
            }
            _ => Ok(()),
        }
    }
}
