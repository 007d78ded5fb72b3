//! A model in 8 or 4 bits: every layer is measured while the model paints a picture, and those that lose little become bytes.

use crate::{Error, ModelSource, Parts, Pipeline, Request, families, picture_to_tensor};
use prima_checkpoint::export::{create_folder, weights_name, write_bytes, write_json};
use prima_checkpoint::{files_beside_weights, write_quantized};
use prima_schedulers::ScheduleOptions;
use prima_tensor::{Param, Trial, no_grad};
use serde::Serialize;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, PoisonError};

/// Fewest inputs and outputs of a quantized layer: the first and the last of a network have fewer, and with them its
/// pictures would be rounded themselves, for no gain.
const NARROWEST: usize = 16;
/// What the layers are measured on.
const PROMPT: &str = "a red fox in the snow, a lighthouse at night, two children with a kite";

/// What is asked of a quantized model.
#[derive(Clone, Copy, Debug)]
pub struct Quantization {
    /// 8, or 4: then the autoencoder's layers, and those of other networks that lose too much, have 8.
    pub bits: u8,
    /// Root of the mean square that products may be off, in parts of their own: layers above it stay in bf16.
    pub max_error: f64,
}

impl Quantization {
    /// Of 8 bits the error allowed is some three times what rounding does to values without outliers, of 4 some two.
    pub fn of_bits(bits: u8) -> Self {
        let max_error = if bits == 4 { 0.16 } else { 0.04 };
        Self { bits, max_error }
    }

    /// How far off a layer may be that was tried in `bits` bits.
    fn allowed(&self, bits: u8) -> f64 {
        if bits == self.bits {
            self.max_error
        } else {
            Self::of_bits(bits).max_error
        }
    }

    /// In how many bits a layer of that component is tried.
    fn bits_of(&self, component: &str) -> u8 {
        if component == "vae" { 8 } else { self.bits }
    }
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuantizeStage<'a> {
    Reading,
    /// The model paints, each layer twice.
    Measuring,
    Writing(&'a str),
}

/// What became of one weight.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    pub component: String,
    pub key: String,
    pub parameters: usize,
    /// How far its products in the bits asked for were off, in parts of their own size; `None` where the picture did not
    /// need it.
    pub error: Option<f64>,
    /// 16 where it stayed in bf16.
    pub bits: u8,
}

struct Layer {
    component: usize,
    key: String,
    param: Param,
    trial: Arc<Trial>,
    bits: u8,
}

/// Reads `source`, paints one picture with it, and writes it to the folder `out` with the layers in as many bits as are
/// asked for whose products are at most `asked.max_error` off, the others in more. Returns all layers, in the order of the files.
pub fn quantize(
    source: &ModelSource,
    out: &Path,
    asked: Quantization,
    on_stage: &mut dyn FnMut(QuantizeStage),
) -> Result<Vec<LayerReport>, Error> {
    let listing = families::Listing::default();
    on_stage(QuantizeStage::Reading);
    let parts = Parts::listed(source, &listing)?;
    let pipeline = Pipeline::new(parts)?;
    let components = listing.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut layers = Vec::new();
    for (component, (name, params)) in components.iter().enumerate() {
        for (key, param) in params.iter().filter(|(key, param)| is_layer(key, &param.shape())) {
            let bits = asked.bits_of(name);
            let tried = param.try_bits(bits).map(|trial| (bits, trial));
            // Where groups do not fit.
            let tried = tried.or_else(|| param.try_bits(8).map(|trial| (8, trial)));
            layers.extend(tried.map(|(bits, trial)| Layer {
                component,
                key: key.clone(),
                param: param.clone(),
                trial,
                bits,
            }));
        }
    }
    on_stage(QuantizeStage::Measuring);
    measure(&pipeline)?;
    let reports = layers.iter().map(|layer| {
        let error = layer.trial.error();
        let is_near = error.is_none_or(|error| error <= asked.allowed(layer.bits));
        let bits = match (layer.bits, is_near) {
            (bits, true) => bits,
            (4, false) => 8,
            _ => 16,
        };
        if bits < 16 {
            layer.param.quantize(bits);
        }
        LayerReport {
            component: components[layer.component].0.clone(),
            key: layer.key.clone(),
            parameters: layer.param.numel(),
            error,
            bits,
        }
    });
    let reports = reports.collect();
    let files = files_beside_weights(source)?;
    for (component, params) in &components {
        on_stage(QuantizeStage::Writing(component));
        write_component(source, out, component, params)?;
    }
    for (path, bytes) in files {
        let path = out.join(path);
        path.parent().map_or(Ok(()), create_folder)?;
        write_bytes(&path, &bytes)?;
    }
    Ok(reports)
}

fn is_layer(key: &str, shape: &[usize]) -> bool {
    let is_wide = shape.iter().take(2).all(|side| *side >= NARROWEST);
    shape.len() > 1 && is_wide && families::is_multiplied(key, shape)
}

/// One picture in one step, and back through the encoder.
fn measure(pipeline: &Pipeline) -> Result<(), Error> {
    let request = Request {
        prompt: PROMPT.to_owned(),
        schedule: ScheduleOptions {
            num_inference_steps: Some(1),
            ..ScheduleOptions::default()
        },
        ..Request::default()
    };
    let response = pipeline.paint(&request, &mut |_| ControlFlow::Continue(()))?;
    if let Some(picture) = response.pictures.first() {
        no_grad(|| pipeline.parts().vae.encode(&picture_to_tensor(picture), &mut || true))?;
    }
    Ok(())
}

fn write_component(source: &ModelSource, out: &Path, component: &str, params: &[(String, Param)]) -> Result<(), Error> {
    let mut config = source.json(component, "config.json")?;
    if let Value::Object(fields) = &mut config {
        let scheme = json!({
            "quant_method": "prima",
            "weights": "I8: one scale an output, in KEY_scale; U8: two of 4 bits a byte, of each 32 step and zero in KEY_groups",
            "activations": "int8, as they come",
        });
        fields.insert("quantization_config".to_owned(), scheme);
    }
    let folder = out.join(component);
    create_folder(&folder)?;
    write_quantized(&folder.join(weights_name(component)), params)?;
    Ok(write_json(&folder.join("config.json"), &config)?)
}
