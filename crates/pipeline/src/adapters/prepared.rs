//! A file of changes made ready for one model: its factors as products read them, each beside the layer that it changes.

use crate::Error;
use crate::packed_weights::NamedParams;
use prima_checkpoint::lora::{Change, Delta, LayerName, LoraFile, Network, text_names, unet_names};
use prima_models::{Adapters, Term};
use prima_tensor::{Device, Keep, Param, Tensor};
use rayon::prelude::*;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// A model's parameters by component and key.
pub(crate) type Components = [(String, NamedParams)];

/// See the module.
pub(crate) struct Prepared {
    /// Another for each.
    pub id: u64,
    pub changes_text: bool,
    pub bytes: usize,
    /// What is to be said whenever it is used.
    pub warning: Option<String>,
    layers: Vec<Layer>,
    file: LoraFile,
    hash: OnceLock<Option<String>>,
}

/// A layer, and what becomes of it at weight 1.
struct Layer {
    network: Network,
    weight: Param,
    /// Its own.
    bias: Option<Param>,
    effect: Effect,
    added_bias: Option<Tensor>,
}

enum Effect {
    None,
    Product {
        factors: Arc<[Param]>,
        scale: f32,
    },
    /// To a norm's weight.
    Vector(Tensor),
    /// What is no multiple of the weight that the whole file is given.
    Uneven(Box<Change>),
}

/// Named, of keys that match nothing.
const NAMED_KEYS: usize = 4;

impl Prepared {
    /// Reads `path` for the model of these `components`, which errors call `model`.
    pub fn new(path: &Path, components: &Components, model: &str) -> Result<Self, Error> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let file = LoraFile::open(path)?;
        let targets = Targets::of(components);
        let (found, missed): (Vec<_>, Vec<_>) = file
            .layers()
            .map(|layer| (layer, targets.get(layer)))
            .partition(|(_, target)| target.is_some());
        let unmatched: Vec<&str> = missed
            .iter()
            .flat_map(|(layer, _)| file.keys_of(layer))
            .chain(file.strange_keys().iter().map(String::as_str))
            .collect();
        if found.is_empty() {
            return Err(no_layer(&file, &unmatched, model));
        }
        // The device is this thread's.
        let on_gpu = Device::current().is_gpu();
        let jobs = found.par_iter().filter_map(|(layer, target)| Some((layer, (*target)?)));
        let layers: Vec<Result<Layer, Error>> = jobs
            .map(|(layer, target)| Layer::new(&file, layer, target, on_gpu))
            .collect();
        let layers = layers.into_iter().collect::<Result<Vec<_>, _>>()?;
        let warning = (!unmatched.is_empty()).then(|| {
            let more = if unmatched.len() > NAMED_KEYS { ", ..." } else { "" };
            let named = unmatched[..NAMED_KEYS.min(unmatched.len())].join(", ");
            format!(
                "{}: {} of its {} keys match nothing in this model and have no effect: {named}{more}",
                file.name(),
                unmatched.len(),
                file.key_count()
            )
        });
        Ok(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            changes_text: layers.iter().any(|layer| layer.network != Network::Unet),
            bytes: layers.iter().map(Layer::bytes).sum(),
            warning,
            layers,
            file,
            hash: OnceLock::new(),
        })
    }

    /// As the web UI writes it into pictures; read from all of the file the first time.
    pub fn short_hash(&self) -> Option<&str> {
        self.hash.get_or_init(|| self.file.short_hash().ok()).as_deref()
    }

    /// Whether it was read.
    pub fn has_hash(&self) -> bool {
        self.hash.get().is_some()
    }

    /// Adds what this does at these weights.
    pub fn add_to(&self, adapters: &mut Adapters, unet: f32, text: f32) {
        for layer in &self.layers {
            let weight = if layer.network == Network::Unet { unet } else { text };
            if weight != 0.0 {
                layer.add_to(adapters, weight);
            }
        }
    }
}

fn no_layer(file: &LoraFile, unmatched: &[&str], model: &str) -> Error {
    let example = unmatched
        .first()
        .map_or_else(String::new, |key| format!(", such as `{key}`,"));
    let made_for = file.made_for().map(|family| format!(" (this one is for {family})"));
    let message = format!(
        "it changes nothing in {model}: its {} keys{example} match no layer; use a LoRA that was made for this family of models{}",
        file.key_count(),
        made_for.unwrap_or_default()
    );
    prima_checkpoint::Error::File {
        file: file.name().to_owned(),
        message,
    }
    .into()
}

/// A layer of a model.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub weight: &'a Param,
    pub bias: Option<&'a Param>,
}

/// A model's layers by all names that files may give them.
pub(crate) struct Targets<'a> {
    networks: Vec<(Network, HashMap<String, Target<'a>>)>,
}

impl<'a> Targets<'a> {
    pub fn of(components: &'a Components) -> Self {
        let networks = [Network::Unet, Network::TextEncoder, Network::TextEncoder2].into_iter();
        let networks = networks.filter_map(|network| {
            let (_, params) = components.iter().find(|(name, _)| name == network.component())?;
            Some((network, Self::of_network(network, params)))
        });
        Self {
            networks: networks.collect(),
        }
    }

    fn of_network(network: Network, params: &'a NamedParams) -> HashMap<String, Target<'a>> {
        let by_key: HashMap<&str, &Param> = params.iter().map(|(key, param)| (key.as_str(), param)).collect();
        let modules = params.iter().filter_map(|(key, _)| key.strip_suffix(".weight"));
        // Tables of embeddings are no layers.
        let modules = modules.filter(|module| !module.contains("embeddings."));
        let names = match network {
            Network::Unet => unet_names(modules),
            _ => text_names(modules),
        };
        let target = |(name, module): (String, &str)| {
            let weight = by_key.get(format!("{module}.weight").as_str())?;
            let bias = by_key.get(format!("{module}.bias").as_str()).copied();
            Some((name, Target { weight, bias }))
        };
        names.into_iter().filter_map(target).collect()
    }

    pub fn get(&self, layer: &LayerName) -> Option<Target<'a>> {
        let (_, layers) = self.networks.iter().find(|(network, _)| *network == layer.network)?;
        layers.get(&layer.layer).copied()
    }
}

/// `tensor` as a parameter that is multiplied with where `base` is.
fn kept(tensor: &Tensor, base: &Param, on_gpu: bool) -> Param {
    let param = Param::absent(tensor.shape());
    let dtype = base.dtype();
    let keep = if on_gpu {
        Keep::Stored(dtype)
    } else {
        Keep::Packed(dtype)
    };
    let Ok(()) = param.fill(tensor.data(), keep);
    param
}

impl Layer {
    fn new(file: &LoraFile, name: &LayerName, target: Target, on_gpu: bool) -> Result<Self, Error> {
        let (weight, shape) = (target.weight, target.weight.shape());
        let mut change = file.change(name, &shape)?;
        let added_bias = change.bias.take();
        let is_vector = shape.len() < 2;
        let effect = match &change.delta {
            None => Effect::None,
            _ if change.magnitude.is_some() => Effect::Uneven(Box::new(change)),
            Some(Delta::Product { factors, scale }) => Effect::Product {
                factors: factors.iter().map(|factor| kept(factor, weight, on_gpu)).collect(),
                scale: *scale,
            },
            Some(Delta::Dense(vector)) if is_vector => Effect::Vector(vector.clone()),
            Some(_) => match change.dense(&shape, 1.0, &|| weight.tensor()) {
                Some(sum) => Effect::Product {
                    factors: [kept(&sum, weight, on_gpu)].into(),
                    scale: 1.0,
                },
                None => Effect::None,
            },
        };
        Ok(Self {
            network: name.network,
            weight: weight.clone(),
            bias: target.bias.cloned(),
            effect,
            added_bias,
        })
    }

    fn bytes(&self) -> usize {
        let effect = match &self.effect {
            Effect::None => 0,
            Effect::Product { factors, .. } => factors.iter().map(|f| f.numel() * f.dtype().size()).sum(),
            Effect::Vector(vector) => 4 * vector.numel(),
            // The sum that is made of it.
            Effect::Uneven(_) => self.weight.numel() * self.weight.dtype().size(),
        };
        effect + self.added_bias.as_ref().map_or(0, |bias| 4 * bias.numel())
    }

    fn add_to(&self, adapters: &mut Adapters, weight: f32) {
        let adapter = adapters.layer(&self.weight);
        match &self.effect {
            Effect::None => {}
            Effect::Product { factors, scale } => adapter.terms.push(Term {
                factors: factors.clone(),
                scale: scale * weight,
            }),
            Effect::Vector(vector) => {
                let own = adapter.weight.as_ref().unwrap_or(&self.weight);
                adapter.weight = Some(summed(&own.tensor(), vector, weight));
            }
            Effect::Uneven(change) => {
                let sum = change.dense(&self.weight.shape(), weight, &|| self.weight.tensor());
                adapter.terms.extend(sum.map(|sum| Term {
                    factors: [kept(&sum, &self.weight, Device::current().is_gpu())].into(),
                    scale: 1.0,
                }));
            }
        }
        if let Some(added) = &self.added_bias {
            let own = adapter.bias.as_ref().or(self.bias.as_ref());
            let own = own.map_or_else(|| Tensor::zeros(added.shape()), Param::tensor);
            adapter.bias = Some(summed(&own, added, weight));
        }
    }
}

/// `own + weight · added` of vectors.
fn summed(own: &Tensor, added: &Tensor, weight: f32) -> Param {
    let values = own
        .data()
        .iter()
        .zip(added.data())
        .map(|(own, added)| own + weight * added);
    Param::new(Tensor::from_vec(values.collect(), own.shape()))
}
