//! A second model for the last steps (diffusers' ensemble of experts: `denoising_end` of the base, `denoising_start` of the
//! refiner): it gets the latents as they are, noise and all, and its own reading of the prompts.

use crate::guidance::Guidance;
use crate::settings::Settings;
use crate::{Error, Pipeline, Request};

impl Pipeline {
    /// The same with `refiner`, whose latents have to be of the same kind.
    pub fn with_refiner(self, refiner: Self) -> Result<Self, Error> {
        let of = |pipeline: &Self| {
            let vae = &pipeline.parts.vae;
            (vae.latent_channels(), vae.scale_factor())
        };
        let (own, others) = (of(&self), of(&refiner));
        if own != others {
            return Err(Error::Model {
                model: refiner.name().to_owned(),
                message: format!(
                    "it refines latents of {} channels for every {} pixels, and {} has {} for every {}; use a refiner of its family",
                    others.0,
                    others.1,
                    self.name(),
                    own.0,
                    own.1
                ),
            });
        }
        Ok(Self {
            refiner: Some(Box::new(refiner)),
            ..self
        })
    }

    /// The model that takes the last steps, where a request asks for it.
    pub fn refiner(&self) -> Option<&Self> {
        self.refiner.as_deref()
    }

    /// What is left to it of a request of which `base` settles what comes before.
    pub(crate) fn refining(
        &self,
        request: &Request,
        base: &Settings,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Refining<'_>>, Error> {
        let (Some(pipeline), Some(_)) = (self.refiner(), request.refiner_switch_at) else {
            return Ok(None);
        };
        let settings = Settings::of_refiner(pipeline, request, base)?;
        Ok(Some(Refining {
            pipeline,
            // Whatever there is to say of the prompts, the base says it.
            guidance: Guidance::new(pipeline, request, &settings, &mut Vec::new(), keep_going)?,
            settings,
        }))
    }
}

/// The part of a request that another model paints.
pub(crate) struct Refining<'a> {
    pub pipeline: &'a Pipeline,
    pub settings: Settings,
    pub guidance: Guidance<'a>,
}
