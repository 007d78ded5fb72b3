//! What a request asks for, as far as a gateway has to know: the model, how many pictures, and in what words.

use axum::body::Body;
use axum::extract::{FromRequest as _, Multipart, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// More than any API paints in one request: what claims more is refused by the worker, and counted as this.
const MOST_PICTURES: u64 = 10_000;

#[derive(Debug, Default, PartialEq)]
pub(super) struct Wanted {
    /// Names that may be those of a model.
    pub models: Vec<String>,
    pub pictures: u32,
    pub prompts: Vec<String>,
}

/// The fields of all APIs; what else there is, pictures above all, is passed over.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    model: Value,
    override_settings: Value,
    n: Value,
    batch_size: Value,
    n_iter: Value,
    num_outputs: Value,
    #[serde(rename = "imageList")]
    image_list: Vec<IgnoredAny>,
    prompt: Value,
    prompt_2: Value,
    hr_prompt: Value,
    prompts: Value,
    input: Option<Box<Fields>>,
}

impl Wanted {
    /// From JSON or a form; of what is neither, one picture and no words.
    pub async fn read(parts: &Parts, body: &Bytes) -> Self {
        let kind = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let fields = if kind.is_some_and(|kind| kind.starts_with("multipart/")) {
            form(parts, body).await
        } else {
            serde_json::from_slice(body).unwrap_or_default()
        };
        Self::of(fields)
    }

    /// Of a message of a live session, also one that carries a picture behind its header.
    pub fn of_a_message(message: &[u8]) -> Self {
        Self::of(serde_json::from_slice(message).unwrap_or_default())
    }

    fn of(mut fields: Fields) -> Self {
        if let Some(input) = fields.input.take() {
            return Self::of(*input);
        }
        let count = |field: &Value| whole(field).unwrap_or(1).clamp(1, MOST_PICTURES);
        let counts = [&fields.n, &fields.batch_size, &fields.n_iter, &fields.num_outputs].map(count);
        let pictures = counts.iter().fold(1u64, |all, n| all.saturating_mul(*n));
        let pictures = pictures.max(fields.image_list.len() as u64).min(MOST_PICTURES);
        let models = [&fields.model, &fields.override_settings["sd_model_checkpoint"]];
        let several = fields.prompts.as_array().into_iter().flatten();
        let prompts = [&fields.prompt, &fields.prompt_2, &fields.hr_prompt]
            .into_iter()
            .chain(several);
        let texts = |values: Vec<&Value>| values.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
        Self {
            models: texts(models.to_vec()),
            pictures: pictures as u32,
            prompts: texts(prompts.collect()),
        }
    }
}

/// Programs write numbers also as text, or with a zero behind the point.
fn whole(value: &Value) -> Option<u64> {
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())?;
    (number >= 0.0).then_some(number as u64)
}

async fn form(parts: &Parts, body: &Bytes) -> Fields {
    let mut fields = Fields::default();
    let mut copy = Request::new(Body::from(body.clone()));
    copy.headers_mut().clone_from(&parts.headers);
    let Ok(mut form) = Multipart::from_request(copy, &()).await else {
        return fields;
    };
    while let Ok(Some(field)) = form.next_field().await {
        if field.file_name().is_some() {
            continue;
        }
        let name = field.name().unwrap_or_default().to_owned();
        let Ok(text) = field.text().await else { continue };
        let place = match name.as_str() {
            "model" => &mut fields.model,
            "n" => &mut fields.n,
            "prompt" => &mut fields.prompt,
            "prompt_2" => &mut fields.prompt_2,
            _ => continue,
        };
        *place = Value::String(text);
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn of(kind: &str, body: &str) -> Wanted {
        let request = Request::builder().header(CONTENT_TYPE, kind).body(()).unwrap();
        Wanted::read(&request.into_parts().0, &Bytes::copy_from_slice(body.as_bytes())).await
    }

    #[tokio::test]
    async fn each_api_says_in_its_own_fields_how_many_pictures_it_wants() {
        for (body, pictures) in [
            (r#"{"prompt":"x"}"#, 1),
            (r#"{"n":3}"#, 3),
            (r#"{"batch_size":"2","n_iter":4.0}"#, 8),
            (r#"{"input":{"num_outputs":4}}"#, 4),
            (r#"{"imageList":[{},{},{}]}"#, 3),
            (r#"{"n":-1}"#, 1),
            (r#"{"n":1e300}"#, 10_000),
            ("no JSON", 1),
        ] {
            assert_eq!(of("application/json", body).await.pictures, pictures, "{body}");
        }
    }

    #[tokio::test]
    async fn words_and_models_are_found_in_json_and_in_forms() {
        let body = r#"{"input":{"prompt":"a","prompt_2":"b","model":"m"}}"#;
        let wanted = of("application/json", body).await;
        assert_eq!(
            (wanted.prompts, wanted.models),
            (vec!["a".into(), "b".into()], vec!["m".into()])
        );
        let body = r#"{"prompt":"a","hr_prompt":"b","override_settings":{"sd_model_checkpoint":"m"}}"#;
        let wanted = of("application/json", body).await;
        assert_eq!(
            (wanted.prompts, wanted.models),
            (vec!["a".into(), "b".into()], vec!["m".into()])
        );
        let part = |name: &str, text: &str| {
            format!("--X\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n")
        };
        let body = [
            part("prompt", "a cat"),
            part("n", "2"),
            part("model", "m"),
            "--X--\r\n".into(),
        ]
        .concat();
        let wanted = of("multipart/form-data; boundary=X", &body).await;
        let want = Wanted {
            models: vec!["m".into()],
            pictures: 2,
            prompts: vec!["a cat".into()],
        };
        assert_eq!(wanted, want);
    }
}
