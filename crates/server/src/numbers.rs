//! Numbers and switches as programs write them: `"20"` and `20.0` for 20, `"true"` for true, nothing for nothing.

use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Value;

/// For `#[serde(deserialize_with)]`: a whole number, or none.
pub(crate) fn whole<'de, D: Deserializer<'de>, T: TryFrom<i128>>(from: D) -> Result<Option<T>, D::Error> {
    given(from, "a whole number", |value| {
        whole_of(value).and_then(|n| T::try_from(n).ok())
    })
}

/// The same for any finite number.
pub(crate) fn number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    given(from, "a number", number_of)
}

/// The same for true and false.
pub(crate) fn flag<'de, D: Deserializer<'de>>(from: D) -> Result<Option<bool>, D::Error> {
    given(from, "true or false", |value| match value {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) => text.trim().to_ascii_lowercase().parse().ok(),
        other => number_of(other).map(|n| n != 0.0),
    })
}

fn given<'de, D: Deserializer<'de>, T>(
    from: D,
    what: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Option<T>, D::Error> {
    let value = Option::<Value>::deserialize(from)?.unwrap_or_default();
    if value.is_null() || value.as_str().is_some_and(|text| text.trim().is_empty()) {
        return Ok(None);
    }
    let wrong = || {
        let text = crate::refusal::short(&value.to_string(), 40);
        D::Error::custom(format!("{text} is not {what} that is possible here"))
    };
    read(&value).map(Some).ok_or_else(wrong)
}

/// What a whole number says, also as text or with a zero behind its point.
pub(crate) fn whole_of(value: &Value) -> Option<i128> {
    let as_text = |text: &str| text.trim().parse().ok();
    match value {
        Value::Number(number) => as_text(&number.to_string()),
        Value::String(text) => as_text(text),
        _ => None,
    }
    .or_else(|| number_of(value).filter(|n| n.fract() == 0.0).map(|n| n as i128))
}

fn number_of(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
    .filter(|n: &f64| n.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Fields {
        #[serde(deserialize_with = "whole")]
        steps: Option<usize>,
        #[serde(deserialize_with = "whole")]
        seed: Option<i128>,
        #[serde(deserialize_with = "number")]
        scale: Option<f64>,
        #[serde(deserialize_with = "flag")]
        on: Option<bool>,
    }

    fn read(value: Value) -> Result<Fields, String> {
        Fields::deserialize(value).map_err(|e| e.to_string())
    }

    #[test]
    fn numbers_come_as_text_and_with_a_point() {
        for given in [
            json!({"steps": 20, "seed": -1, "scale": 7.5, "on": true}),
            json!({"steps": "20", "seed": "-1", "scale": "7.5", "on": "True"}),
            json!({"steps": 20.0, "seed": -1.0, "scale": 7.5, "on": 1}),
        ] {
            let expected = Fields {
                steps: Some(20),
                seed: Some(-1),
                scale: Some(7.5),
                on: Some(true),
            };
            assert_eq!(read(given.clone()), Ok(expected), "{given}");
        }
        let large = json!({"seed": u64::MAX});
        assert_eq!(read(large).unwrap().seed, Some(u64::MAX.into()));
        for nothing in [json!({}), json!({"steps": null, "seed": "", "scale": " ", "on": null})] {
            assert_eq!(read(nothing), Ok(Fields::default()));
        }
    }

    #[test]
    fn what_is_no_number_is_named() {
        for (given, word) in [
            (json!({"steps": "many"}), "many"),
            (json!({"steps": 2.5}), "2.5"),
            (json!({"steps": -3}), "-3"),
            (json!({"seed": [1]}), "[1]"),
            (json!({"scale": "inf"}), "inf"),
            (json!({"on": "maybe"}), "maybe"),
        ] {
            let error = read(given).unwrap_err();
            assert!(error.contains(word) && error.contains("is not"), "{error}");
        }
    }
}
