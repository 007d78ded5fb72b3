//! What a request says of ControlNets.

use crate::{Error, Picture};
use prima_picture::{canny, scribble};
use std::str::FromStr;

/// One ControlNet's share of a request.
#[derive(Clone, Debug)]
pub struct Control {
    /// Among those that the pipeline has.
    pub name: String,
    /// Stretched to the size that is painted.
    pub picture: Picture,
    pub preprocessor: Preprocessor,
    /// What the network adds is multiplied by it (`controlnet_conditioning_scale`).
    pub scale: f64,
    /// Shares of the steps between which it steers (`control_guidance_start`, `control_guidance_end`).
    pub start: f64,
    pub end: f64,
}

impl Control {
    /// Of all steps, with the picture as it is.
    pub fn new(name: impl Into<String>, picture: Picture) -> Self {
        Self {
            name: name.into(),
            picture,
            preprocessor: Preprocessor::None,
            scale: 1.0,
            start: 0.0,
            end: 1.0,
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if !(0.0..=10.0).contains(&self.scale) {
            return Err(Error::request(
                "controlnet_conditioning_scale",
                self.scale,
                "use 0 to 10",
            ));
        }
        for (field, share) in [
            ("control_guidance_start", self.start),
            ("control_guidance_end", self.end),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return Err(Error::request(field, share, "use 0 to 1"));
            }
        }
        if self.start >= self.end {
            let fix = format!("use more than the control_guidance_start of {}", self.start);
            return Err(Error::request("control_guidance_end", self.end, fix));
        }
        Ok(())
    }
}

/// Most ControlNets of one request.
pub const MAX_CONTROLS: usize = 8;

/// What is made of a picture before a ControlNet reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preprocessor {
    /// It is a map already: of edges, depths, poses.
    #[default]
    None,
    Canny,
    Scribble,
}

impl Preprocessor {
    pub const ALL: [Self; 3] = [Self::None, Self::Canny, Self::Scribble];

    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Canny => "canny",
            Self::Scribble => "scribble",
        }
    }

    pub(crate) fn of(self, picture: Picture) -> Picture {
        match self {
            Self::None => picture,
            // The web UI's own thresholds.
            Self::Canny => canny(&picture, 100, 200),
            Self::Scribble => scribble(&picture),
        }
    }
}

impl FromStr for Preprocessor {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let names = Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| Error::request("control_preprocessor", name, format!("use one of {names}")))
    }
}
