//! Pictures that steer what is painted, through ControlNets (diffusers `pipeline_controlnet_sd_xl.py`).

use crate::control::Control;
use crate::controlnets::misfit;
use crate::guidance::Steering;
use crate::settings::Settings;
use crate::{Error, Pipeline, Request};
use prima_tensor::Tensor;

impl Pipeline {
    /// What a request's controls come to for pictures of the size that `settings` says.
    pub(crate) fn steering(&self, request: &Request, settings: &Settings) -> Result<Vec<Steering>, Error> {
        let steering = |control: &Control| {
            let network = self.controlnets.network(&control.name, &self.parts)?;
            let picture = control.picture.resized(settings.width, settings.height);
            let picture = control.preprocessor.of(picture);
            let values = picture.rgb.iter().map(|&v| f32::from(v) / 255.0).collect();
            let embedded = network.embed(&Tensor::from_vec(values, &[1, picture.height, picture.width, 3]));
            let factor = self.parts.vae.scale_factor();
            if [embedded.dim(1), embedded.dim(2)] != [picture.height / factor, picture.width / factor] {
                let path = self.controlnets.path(&control.name)?;
                let key = "conditioning_embedding_out_channels";
                return Err(misfit(&path, key, "it makes latents of another size"));
            }
            Ok(Steering {
                network,
                embedded,
                scale: control.scale,
                start: control.start,
                end: control.end,
            })
        };
        request.controls.iter().map(steering).collect()
    }
}
