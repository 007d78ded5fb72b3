//! What the config files of all models share: strict reading of a JSON object.

use prima_checkpoint::Error;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A value for all blocks, or one value per block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T: Clone> OneOrMany<T> {
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
    pub(crate) fn per_block(&self, blocks: usize) -> Result<Vec<OneOrMany<usize>>, Error> {
        let all = match self {
            Self::One(layers) => OneOrMany::One(OneOrMany::One(*layers)),
            Self::PerBlock(layers) => OneOrMany::Many(layers.clone()),
        };
        all.per_block(blocks, "transformer_layers_per_block")
    }
}

/// An error about the values of a config.
pub(crate) fn invalid(message: String) -> Error {
    Error::File {
        file: "config.json".into(),
        message,
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
pub(crate) fn read<T: DeserializeOwned + Serialize + Default>(
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
    serde_json::from_value(Value::Object(object)).map_err(|e| fail(format!("{e}")))
}

fn check_unused(key: &str, value: &Value, neutral: &[Neutral]) -> Result<(), String> {
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
