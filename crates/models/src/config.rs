//! What the config files of all models share: strict reading of a JSON object.

use prima_checkpoint::{Error, in_range};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::fmt::Display;
use std::ops::RangeBounds;

/// A value for all blocks, or one value per block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T: Clone> OneOrMany<T> {
    /// Every value in it.
    pub fn values(&self) -> &[T] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }

    /// One value per block; an error names `field` when the list has another length.
    pub(crate) fn per_block(&self, blocks: usize, field: &str) -> Result<Vec<T>, Error> {
        match self {
            Self::One(value) => Ok(vec![value.clone(); blocks]),
            Self::Many(values) if values.len() == blocks => Ok(values.clone()),
            Self::Many(values) => Err(invalid(format!(
                "{field} has {} entries, expected one number or {blocks} entries",
                values.len()
            ))),
        }
    }
}

/// `transformer_layers_per_block`: one number, or per block a number or one per layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TransformerLayers {
    One(usize),
    PerBlock(Vec<OneOrMany<usize>>),
}

impl TransformerLayers {
    /// Every number in it.
    pub(crate) fn values(&self) -> Vec<usize> {
        match self {
            Self::One(layers) => vec![*layers],
            Self::PerBlock(blocks) => blocks.iter().flat_map(OneOrMany::values).copied().collect(),
        }
    }

    pub(crate) fn per_block(&self, blocks: usize) -> Result<Vec<OneOrMany<usize>>, Error> {
        let all = match self {
            Self::One(layers) => OneOrMany::One(OneOrMany::One(*layers)),
            Self::PerBlock(layers) => OneOrMany::Many(layers.clone()),
        };
        all.per_block(blocks, "transformer_layers_per_block")
    }
}

/// What errors call a config that is not read from a file.
pub(crate) const CONFIG: &str = "config.json";

/// An error about the values of a config.
pub(crate) fn invalid(message: String) -> Error {
    Error::File {
        file: CONFIG.into(),
        message,
    }
}

/// What a config's numbers may be. Wide enough for every model there is: the bounds keep a damaged or hostile file from
/// asking for more memory than there is, from overflowing a product and from dividing by nothing.
pub(crate) trait Ranges {
    fn check_ranges(&self, check: &Check) -> Result<(), Error>;
}

/// Most entries of a list with one entry per block.
pub(crate) const MAX_BLOCKS: usize = 16;
/// Widest activation, and widest text embedding.
pub(crate) const MAX_CHANNELS: usize = 1 << 16;
/// Most layers of one block or encoder.
pub(crate) const MAX_LAYERS: usize = 256;

/// Checks the numbers of the config `file`.
pub(crate) struct Check<'a> {
    pub file: &'a str,
}

impl Check<'_> {
    pub fn within<T: PartialOrd + Display>(
        &self,
        field: &str,
        value: T,
        allowed: impl RangeBounds<T>,
    ) -> Result<(), Error> {
        in_range(self.file, field, value, allowed)
    }

    /// Each of several values of one field.
    pub fn each<T: PartialOrd + Display + Copy>(
        &self,
        field: &str,
        values: &[T],
        allowed: impl RangeBounds<T> + Clone,
    ) -> Result<(), Error> {
        values
            .iter()
            .try_for_each(|&value| self.within(field, value, allowed.clone()))
    }

    /// Widths: `(field, channels)`.
    pub fn channels(&self, fields: &[(&str, usize)]) -> Result<(), Error> {
        fields
            .iter()
            .try_for_each(|&(field, value)| self.within(field, value, 1..=MAX_CHANNELS))
    }

    /// The widths of the blocks, one or more.
    pub fn blocks(&self, field: &str, channels: &[usize]) -> Result<(), Error> {
        self.within(&format!("number of {field}"), channels.len(), 1..=MAX_BLOCKS)?;
        self.each(field, channels, 1..=MAX_CHANNELS)
    }

    /// What a norm adds to the variance.
    pub fn epsilon(&self, field: &str, eps: f64) -> Result<(), Error> {
        // The networks compute in f32, where less is zero.
        self.within(field, eps, f64::from(f32::MIN_POSITIVE)..=1.0)
    }

    /// A factor on latents: what encodes multiplies by it, what decodes divides.
    pub fn factor(&self, field: &str, factor: f64) -> Result<(), Error> {
        self.within(field, factor, 1e-6..=1e6)
    }
}

/// A field that the code has no use for unless it differs from these values.
pub(crate) type Neutral = (&'static str, &'static [Plain]);

/// A JSON scalar that can be a constant.
#[derive(Clone, Copy)]
pub(crate) enum Plain {
    Null,
    Bool(bool),
    Num(f64),
    Str(&'static str),
    /// Whatever it is, it does not change the result.
    Any,
}

impl Plain {
    fn accepts(self, value: &Value) -> bool {
        match self {
            Self::Null => value.is_null(),
            Self::Bool(b) => value.as_bool() == Some(b),
            Self::Num(n) => value.as_f64() == Some(n),
            Self::Str(s) => value.as_str() == Some(s),
            Self::Any => true,
        }
    }

    fn describe(self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Bool(b) => b.to_string(),
            Self::Num(n) => n.to_string(),
            Self::Str(s) => format!("{s:?}"),
            Self::Any => "anything".into(),
        }
    }
}

/// Reads `json` (the text of `file`) as the config of one of `classes`. Fields of `T` are
/// read, those of `neutral` must have a listed value, those that start with `_` are notes of
/// the library that wrote the file; any other field with a value is an error.
pub(crate) fn read<T: DeserializeOwned + Serialize + Default + Ranges>(
    json: &str,
    file: &str,
    class_names: &[&str],
    neutral: &[Neutral],
) -> Result<T, Error> {
    let fail = |message: String| Error::File {
        file: file.into(),
        message,
    };
    let object: Map<String, Value> = serde_json::from_str(json).map_err(|e| fail(format!("not a JSON object: {e}")))?;
    if let Some(found) = object.get("_class_name").and_then(Value::as_str)
        && !class_names.contains(&found)
    {
        return Err(fail(format!(
            "_class_name is {found:?}, expected {}",
            class_names.join(" or ")
        )));
    }
    let known = match serde_json::to_value(T::default()) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    for (key, value) in &object {
        if key.starts_with('_') || known.contains_key(key) {
            continue;
        }
        check_unused(key, value, neutral).map_err(&fail)?;
    }
    let config: T = serde_json::from_value(Value::Object(object)).map_err(|e| fail(format!("{e}")))?;
    config.check_ranges(&Check { file })?;
    Ok(config)
}

/// The field that says how weights were quantized; the reader of prima's own files knows it by the tensors themselves.
const QUANTIZATION: &str = "quantization_config";

fn check_unused(key: &str, value: &Value, neutral: &[Neutral]) -> Result<(), String> {
    if key == QUANTIZATION && value["quant_method"] == "prima" {
        return Ok(());
    }
    let Some((_, allowed)) = neutral.iter().find(|(name, _)| *name == key) else {
        let empty = value.is_null() || value.as_bool() == Some(false);
        return if empty {
            Ok(())
        } else {
            Err(format!("unknown field {key} = {value}"))
        };
    };
    if allowed.iter().any(|plain| plain.accepts(value)) {
        return Ok(());
    }
    let allowed: Vec<String> = allowed.iter().map(|plain| plain.describe()).collect();
    Err(format!(
        "{key} = {value} is not supported, only {}",
        allowed.join(" or ")
    ))
}

/// The JSON of a config as diffusers writes it: the class first, then the fields.
pub(crate) fn write<T: Serialize>(config: &T, notes: &[(&str, &str)]) -> Value {
    let mut object = Map::new();
    for (key, value) in notes {
        object.insert((*key).into(), json!(value));
    }
    if let Ok(Value::Object(fields)) = serde_json::to_value(config) {
        object.extend(fields);
    }
    Value::Object(object)
}
