//! A model of which some networks are in files of their own: a base with the UNet of a distillation, a file without a VAE and
//! one that has it.

use crate::single_file::{Family, Part, SingleFile};
use crate::{Error, ModelSource, Reader};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A model and the files that stand in for its components.
#[derive(Clone, Debug)]
pub struct Assembled {
    base: ModelSource,
    component: &'static str,
    file: PathBuf,
}

impl Assembled {
    /// `base` with what `file` holds of `component`, which has to fit its family.
    pub(crate) fn new(base: ModelSource, component: &'static str, file: &Path) -> Result<Self, Error> {
        let part = Part::open(file, component)?;
        let family = base.family()?;
        if let Some(found) = part.unet_family().filter(|found| *found != family) {
            return Err(Error::File {
                file: file.display().to_string(),
                message: format!(
                    "it is a UNet of {}, and {} is of {}",
                    found.name(),
                    base.name(),
                    family.name()
                ),
            });
        }
        Ok(Self {
            base,
            component,
            file: file.to_path_buf(),
        })
    }

    pub(crate) fn base(&self) -> &ModelSource {
        &self.base
    }

    /// The file that stands in for a component, of this or of what it is built on.
    pub(crate) fn file_of(&self, component: &str) -> Option<&Path> {
        match &self.base {
            _ if component == self.component => Some(&self.file),
            ModelSource::Assembled(base) => base.file_of(component),
            _ => None,
        }
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        path == format!("{}/config.json", self.component) || self.base.exists(path)
    }

    pub(crate) fn json(&self, component: &str, file: &str) -> Result<Value, Error> {
        if (component, file) == (self.component, "config.json") {
            return self.config();
        }
        // A UNet that was trained on other noise says so, and its model does not.
        if (component, self.component) == ("scheduler", "unet") {
            let single = SingleFile::open(&self.file)?;
            if single.has_noise_markers() {
                return single.config(component, file);
            }
        }
        self.base.json(component, file)
    }

    pub(crate) fn reader(&self, component: &str) -> Result<Reader, Error> {
        if component == self.component {
            return Ok(Part::open(&self.file, self.component)?.reader(self.base.family()?));
        }
        self.base.component_reader(component)
    }

    /// The base's config where the file is of the same shape, which says what no shape tells; else what the file's tensors say.
    fn config(&self) -> Result<Value, Error> {
        let told = Part::open(&self.file, self.component)?.config(self.base.family()?);
        let has_own = self.base.exists(&format!("{}/config.json", self.component));
        let own = has_own
            .then(|| self.base.json(self.component, "config.json"))
            .transpose()?;
        Ok(match (own, told) {
            (None, told) => told?,
            // Widths that no convention of its family fits: only the base can tell.
            (Some(own), Err(_)) => own,
            (Some(own), Ok(told)) if is_same_shape(&own, &told) => own,
            (Some(own), Ok(mut told)) => {
                let same_class = own["_class_name"] == told["_class_name"];
                // Latents are the family's, whoever decodes them.
                if same_class && self.component == "vae" {
                    for field in ["scaling_factor", "shift_factor", "latents_mean", "latents_std"] {
                        told[field] = own[field].clone();
                    }
                }
                told
            }
        })
    }
}

/// The fields of configs that follow from shapes.
const OF_SHAPES: [&str; 19] = [
    "_class_name",
    "block_out_channels",
    "layers_per_block",
    "down_block_types",
    "up_block_types",
    "mid_block_type",
    "transformer_layers_per_block",
    "reverse_transformer_layers_per_block",
    "in_channels",
    "out_channels",
    "latent_channels",
    "cross_attention_dim",
    "time_cond_proj_dim",
    "projection_class_embeddings_input_dim",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "vocab_size",
    "projection_dim",
];

fn is_same_shape(own: &Value, told: &Value) -> bool {
    OF_SHAPES.into_iter().all(|field| own[field] == told[field])
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::StableDiffusion1 => "Stable Diffusion 1.x",
            Self::StableDiffusion2 => "Stable Diffusion 2.x",
            Self::Sdxl => "SDXL",
        }
    }
}
