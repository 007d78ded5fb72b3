//! One network in a file of its own, to stand in for a model's: a UNet, an autoencoder, a text encoder.

use super::config::{text_config, vae_config};
use super::network::{Network, TextLayout};
use super::unet_config::unet_config;
use super::{Family, text_reader, what_is_it};
use crate::tensor_file::TensorFile;
use crate::{Error, FileKind, Reader};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// A component of a model, found in a file that may hold others too.
pub(crate) struct Part {
    network: Network,
    /// Of a text encoder.
    layout: TextLayout,
    component: &'static str,
}

impl Part {
    /// The `component` that `path` holds; a file that holds none is refused by what it is.
    pub fn open(path: &Path, component: &'static str) -> Result<Self, Error> {
        let file = Arc::new(TensorFile::open(path)?);
        let kind = what_is_it(&file);
        let refuse = |found: String, fix: String| Error::Unsupported {
            file: path.display().to_string(),
            field: component.replace('_', " "),
            found,
            fix,
        };
        if kind == FileKind::ControlNet {
            return Err(refuse(
                "a ControlNet".to_owned(),
                "give it with --controlnet".to_owned(),
            ));
        }
        if kind == FileKind::Lora {
            return Err(refuse("a LoRA".to_owned(), "give it with --lora".to_owned()));
        }
        if component == "unet" && kind == FileKind::Refiner {
            let found = "an SDXL refiner, whose text encoder is another";
            return Err(refuse(
                found.to_owned(),
                "give the file with --model or --refiner".to_owned(),
            ));
        }
        let mut layout = TextLayout::Transformers;
        let network = match component {
            "unet" => Network::unet(&file),
            "vae" => Network::vae(&file),
            _ => Self::text_encoder(&file, component).map(|(network, found)| {
                layout = found;
                network
            }),
        };
        let network = network.ok_or_else(|| {
            let found = format!("{kind:?}").to_lowercase();
            refuse(found, format!("it holds no {}", component.replace('_', " ")))
        })?;
        Ok(Self {
            network,
            layout,
            component,
        })
    }

    /// That of a whole model goes by the same name; a file of one text encoder may be either.
    fn text_encoder(file: &Arc<TensorFile>, component: &str) -> Option<(Network, TextLayout)> {
        let of_models = [Family::Sdxl, Family::StableDiffusion2, Family::StableDiffusion1];
        let prefixes = of_models
            .into_iter()
            .flat_map(|family| super::text_prefixes(family, component));
        let mut named =
            prefixes.filter_map(|&(prefix, layout)| Some((Network::text_encoder(file, prefix, layout)?, layout)));
        named.next().or_else(|| Network::any_text_encoder(file))
    }

    /// Whose UNet it is; other parts do not tell.
    pub fn unet_family(&self) -> Option<Family> {
        (self.component == "unet").then(|| self.network.unet_family())
    }

    /// The JSON that a diffusers folder would have as `component/config.json`, in a model of this family.
    pub fn config(&self, family: Family) -> Result<Value, Error> {
        let sample_size = if family == Family::Sdxl { 128 } else { 64 };
        match self.component {
            "unet" => unet_config(&self.network, family, sample_size),
            "vae" => vae_config(&self.network, family, 8 * sample_size),
            component => text_config(&self.network, self.layout, component, family),
        }
    }

    pub fn reader(self, family: Family) -> Reader {
        match self.component {
            component @ ("unet" | "vae") => self.network.reader(component),
            component => text_reader(self.network, self.layout, component, family),
        }
    }
}
