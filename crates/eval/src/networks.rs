//! The networks that look at pictures together, and what they see.

use crate::{ClipNet, Features};
use prima_picture::Picture;
use rayon::prelude::*;

/// Those that a measurement has.
pub struct Networks {
    /// What distances are measured in.
    pub features: Box<dyn Features>,
    /// For CMMD and CLIP scores.
    pub clip: Option<ClipNet>,
    /// What the distance of patches is measured in.
    pub patches: Option<Box<dyn Features>>,
}

/// Of each picture, what each network sees; nothing of a network that is not there.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub features: Vec<Vec<f32>>,
    pub clip: Vec<Vec<f32>>,
    pub patches: Vec<Vec<f32>>,
}

impl Networks {
    /// The features alone.
    pub fn of(features: Box<dyn Features>) -> Self {
        Self {
            features,
            clip: None,
            patches: None,
        }
    }

    /// Looks at one more picture.
    pub fn see(&self, picture: &Picture, seen: &mut Seen) {
        seen.features.push(self.features.of(picture));
        seen.clip.extend(self.clip.as_ref().map(|clip| clip.of(picture)));
        seen.patches
            .extend(self.patches.as_ref().map(|patches| patches.of(picture)));
    }

    /// Looks at many.
    pub fn see_all(&self, pictures: &[Picture]) -> Seen {
        let by = |net: &dyn Features| pictures.par_iter().map(|picture| net.of(picture)).collect();
        Seen {
            features: by(&*self.features),
            clip: self.clip.as_ref().map_or_else(Vec::new, |clip| by(clip)),
            patches: self.patches.as_ref().map_or_else(Vec::new, |patches| by(&**patches)),
        }
    }

    /// What is to be said beside the figures.
    pub fn names(&self) -> String {
        let mut names = self.features.name();
        for (what, name) in [
            ("CMMD and CLIP scores", self.clip.as_ref().map(Features::name)),
            ("patches", self.patches.as_ref().map(|patches| patches.name())),
        ] {
            if let Some(name) = name {
                names = format!("{names}; {what}: {name}");
            }
        }
        names
    }
}
