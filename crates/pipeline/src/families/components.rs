//! A model's components one by one: the network that its config describes, with parameters from wherever the caller
//! takes them.

use super::Family;
use crate::conditioning::{TextEncoder, TextEncoders};
use crate::known_words::KnownWords;
use crate::packed_weights::{Loading, NamedParams, kept_as, rest_of};
use crate::{Error, Vae};
use prima_checkpoint::{Init, ModelSource, ParamSource, Reader, quantized_bits};
use prima_models::{ClipTextConfig, ClipTextModel, Tokenizer, Unet2dCondition, Unet2dConditionConfig};
use prima_schedulers::{SchedulerConfig, SchedulerKind};
use prima_tensor::{DType, Param, summed_values};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The UNet that `unet/config.json` describes, with parameters from `params`: the model's own
/// ([`read`]), or any others under the same keys.
pub fn load_unet(source: &ModelSource, params: &mut dyn ParamSource) -> Result<Unet2dCondition, Error> {
    let (json, file) = config(source, "unet")?;
    let config = Unet2dConditionConfig::from_json(&json, &file)?;
    Ok(Unet2dCondition::new(config, params).map_err(named(&file))?)
}

/// The same for a text encoder; `component` is `text_encoder` or `text_encoder_2`.
pub fn load_text_encoder(
    source: &ModelSource,
    component: &str,
    params: &mut dyn ParamSource,
) -> Result<ClipTextModel, Error> {
    let (json, file) = config(source, component)?;
    let config = ClipTextConfig::from_json(&json, &file)?;
    Ok(ClipTextModel::new(config, params).map_err(named(&file))?)
}

/// The same for the autoencoder.
pub fn load_vae(source: &ModelSource, params: &mut dyn ParamSource) -> Result<Vae, Error> {
    let (json, file) = config(source, "vae")?;
    Ok(Vae::new(&json, &file, params).map_err(named(&file))?)
}

/// What `load` makes of the component's own weights, each of which it has to read once.
///
/// ```no_run
/// # use prima_pipeline::{Error, ModelSource, families};
/// let source = ModelSource::open("path/to/a/model")?;
/// let (unet, params) = families::read(&source, "unet", |reader| {
///     let unet = families::load_unet(&source, reader)?;
///     Ok((unet, reader.params().to_vec()))
/// })?;
/// # Ok::<(), Error>(())
/// ```
pub fn read<T>(
    source: &ModelSource,
    component: &str,
    load: impl FnOnce(&mut Reader) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut reader = source.component_reader(component)?;
    let made = load(&mut reader)?;
    reader.finish()?;
    Ok(made)
}

/// The model's `scheduler_config.json`, as it is in the file.
pub fn scheduler_config(source: &ModelSource) -> Result<SchedulerConfig, Error> {
    let (component, name) = ("scheduler", "scheduler_config.json");
    // Python writes infinities, which JSON does not have: the text goes to the schedulers as it is.
    let text = match text(source, component, name) {
        Ok(text) => text,
        Err(_) => source.json(component, name)?.to_string(),
    };
    let file = path(source, component, name);
    SchedulerConfig::from_json(&text).map_err(|source| Error::SchedulerConfig { file, source })
}

/// diffusers' classes that take other steps through the same noise as those we have: the model's config runs under
/// another class then, as `OtherScheduler.from_config(config)` does in diffusers.
const SAME_NOISE: [&str; 2] = ["DPMSolverSDEScheduler", "SASolverScheduler"];

/// A class of scheduler that a model names and prima does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    pub class: String,
    /// Whether its noise is that of classes we have. Of others only whoever asks can say which scheduler will do.
    pub same_noise: bool,
}

/// The config under a class that we have, and the class that it replaced.
pub fn known_scheduler(mut config: SchedulerConfig) -> (SchedulerConfig, Option<Replaced>) {
    let replaced = config
        .class_name
        .take_if(|class| class.parse::<SchedulerKind>().is_err());
    let replaced = replaced.map(|class| Replaced {
        same_noise: SAME_NOISE.contains(&class.as_str()),
        class,
    });
    if replaced.is_some() {
        config.class_name = Some(SchedulerKind::Euler.class_name().to_owned());
        // What only that class reads.
        config.other.clear();
    }
    (config, replaced)
}

/// The parameters of each component, by their keys.
pub(crate) type Listing = Mutex<Vec<(String, NamedParams)>>;

/// What a pipeline's weights are.
#[derive(Clone, Copy)]
pub(crate) enum Weights<'a> {
    /// The model's own.
    Read(&'a Loading<'a>),
    /// The same, and what they are.
    Listed(&'a Loading<'a>, &'a Listing),
    /// None: only to find out what the networks need. The tokenizers know no words either, unless a prompt will be read.
    Absent { words: bool },
}

impl Weights<'_> {
    fn of<T>(
        self,
        source: &ModelSource,
        component: &'static str,
        load: impl FnOnce(&mut dyn ParamSource) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match self {
            Self::Absent { .. } => load(&mut AbsentParams),
            Self::Read(loading) => Ok(loading.component(source, component, load)?.0),
            Self::Listed(loading, listing) => {
                let (made, params) = loading.component(source, component, load)?;
                let mut listing = listing.lock().unwrap_or_else(PoisonError::into_inner);
                listing.push((component.to_owned(), params));
                Ok(made)
            }
        }
    }

    fn reads_words(self) -> bool {
        !matches!(self, Self::Absent { words: false })
    }
}

/// Whether a parameter is what linear layers or convolutions multiply with.
pub(crate) fn is_multiplied(key: &str, shape: &[usize]) -> bool {
    kept_as(key, shape, DType::F32).1
}

/// What a model's parameters take on the CPU, by the headers of its files.
pub(crate) fn weight_bytes(source: &ModelSource, family: &Family, dtype: DType) -> Result<usize, Error> {
    let encoders = family.text_encoders.iter().map(|components| components.text_encoder);
    let encoders = encoders.filter(|name| source.exists(&format!("{name}/config.json")));
    let mut bytes = 0;
    for component in encoders.chain(["unet", "vae"]) {
        bytes += network_bytes(&source.component_reader(component)?, dtype);
    }
    Ok(bytes)
}

/// What one network's parameters take.
pub(crate) fn network_bytes(reader: &Reader, dtype: DType) -> usize {
    let dtype = rest_of(reader, dtype);
    let mut bytes = 0;
    for (key, stored, shape) in reader.tensors() {
        let bits = match (quantized_bits(stored), kept_as(key, &shape, dtype).0) {
            (Some(bits), _) => bits.ceil() as usize,
            (None, DType::F32) => 32,
            (None, _) => 16,
        };
        // Of the few that are not summed too much is said.
        let values = if bits == 16 {
            summed_values(&shape)
        } else {
            shape.iter().product()
        };
        bytes += values * bits / 8;
    }
    bytes
}

struct AbsentParams;

impl ParamSource for AbsentParams {
    fn param(&mut self, _: &str, shape: &[usize], _: Init) -> Result<Param, prima_checkpoint::Error> {
        Ok(Param::absent(shape))
    }
}

pub(crate) fn text_encoders(source: &ModelSource, family: &Family, weights: Weights) -> Result<TextEncoders, Error> {
    let mut encoders = Vec::new();
    for components in family.text_encoders {
        let component: &'static str = components.text_encoder;
        if components.is_optional && !source.exists(&format!("{component}/config.json")) {
            continue;
        }
        let model = weights.of(source, component, |params| load_text_encoder(source, component, params))?;
        let length = model.config().max_position_embeddings;
        let tokenizer = if weights.reads_words() {
            Tokenizer::load(source, components.tokenizer, length)?
        } else {
            Tokenizer::without_words(length)
        };
        let (max_id, vocab_size) = (tokenizer.max_id() as usize, model.config().vocab_size);
        if max_id >= vocab_size {
            return Err(Error::Model {
                model: path(source, components.tokenizer, ""),
                message: format!("it has a token {max_id}, and {component} knows those below {vocab_size} only"),
            });
        }
        encoders.push(TextEncoder { tokenizer, model });
    }
    let width = encoders
        .last()
        .map_or(0, |e: &TextEncoder| e.model.config().projection_dim);
    let encoders = TextEncoders::new(encoders, family.hidden_state);
    if !weights.reads_words() {
        return Ok(encoders);
    }
    Ok(encoders.with_known_words(KnownWords::load(source, width)?))
}

pub(crate) fn unet(source: &ModelSource, weights: Weights) -> Result<Unet2dCondition, Error> {
    weights.of(source, "unet", |params| load_unet(source, params))
}

/// diffusers' `force_upcast` is about f16, whose range SDXL's autoencoder leaves; bf16 has that of f32.
pub(crate) fn vae(source: &ModelSource, weights: Weights) -> Result<Vae, Error> {
    weights.of(source, "vae", |params| load_vae(source, params))
}

/// A network knows its config's values, not whose they are: the error gets the file's full name.
fn named(file: &str) -> impl FnOnce(prima_checkpoint::Error) -> prima_checkpoint::Error {
    move |error| match error {
        prima_checkpoint::Error::File { file: short, message } if file.ends_with(&short) => {
            prima_checkpoint::Error::File {
                file: file.to_owned(),
                message,
            }
        }
        other => other,
    }
}

/// The text of a component's `config.json`, and what errors call it.
fn config(source: &ModelSource, component: &str) -> Result<(String, String), Error> {
    let json = source.json(component, "config.json")?;
    Ok((json.to_string(), path(source, component, "config.json")))
}

pub(crate) fn text(source: &ModelSource, component: &str, file: &str) -> Result<String, Error> {
    let bytes = source.read_bytes(&Path::new(component).join(file).to_string_lossy())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub(crate) fn path(source: &ModelSource, component: &str, file: &str) -> String {
    let inside = Path::new(component).join(file);
    match source {
        ModelSource::Folder(root) => root.join(inside).display().to_string(),
        _ => format!("{} in {}", inside.display(), source.name()),
    }
}
