//! What a request asks for, as far as a gateway has to know: the model, how many pictures, and in what words.

use axum::body::Body;
use axum::extract::{FromRequest as _, Multipart, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use bytes::Bytes;
use serde_json::{Value, json};

/// More than any API paints in one request: what claims more is refused by the worker, and counted as this.
const MOST_PICTURES: u64 = 10_000;

#[derive(Debug, Default, PartialEq)]
pub(super) struct Wanted {
    /// Names that may be those of a model.
    pub models: Vec<String>,
    pub pictures: u32,
    pub prompts: Vec<String>,
}

impl Wanted {
    /// From JSON or a form; of what is neither, one picture and no words.
    pub async fn read(parts: &Parts, body: &Bytes) -> Self {
        let kind = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_form = kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with("multipart/"));
        // Servers do not all look at the type before they read JSON.
        match serde_json::from_slice(body) {
            Ok(fields) => Self::of(&fields),
            Err(_) if is_form => Self::of(&form(parts, body).await),
            Err(_) => Self::of(&Value::Null),
        }
    }

    /// Of a message of a live session, or the header of one that carries a picture.
    pub fn of_a_message(message: &[u8]) -> Self {
        Self::of(&serde_json::from_slice(message).unwrap_or_default())
    }

    /// All fields of all APIs, whatever else there is: nobody hides one behind another that his API does not read. Of a field that
    /// is there twice the last one counts, as with those who read it.
    fn of(fields: &Value) -> Self {
        let count = |name: &str| whole(&fields[name]).unwrap_or(1).clamp(1, MOST_PICTURES);
        let counts = ["n", "batch_size", "n_iter", "num_outputs"].map(count);
        let pictures = counts.iter().fold(1u64, |all, n| all.saturating_mul(*n));
        let listed = fields["imageList"].as_array().map_or(0, Vec::len) as u64;
        let models = [&fields["model"], &fields["override_settings"]["sd_model_checkpoint"]];
        let several = fields["prompts"].as_array().into_iter().flatten();
        let prompts = ["prompt", "prompt_2", "hr_prompt"].iter().map(|name| &fields[*name]);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let mut wanted = Self {
            models: models.into_iter().filter_map(text).collect(),
            pictures: pictures.max(listed).min(MOST_PICTURES) as u32,
            prompts: prompts.chain(several).filter_map(text).collect(),
        };
        if fields["input"].is_object() {
            let inner = Self::of(&fields["input"]);
            wanted.pictures = wanted.pictures.max(inner.pictures);
            wanted.models.extend(inner.models);
            wanted.prompts.extend(inner.prompts);
        }
        wanted
    }
}

/// Programs write numbers also as text, or with a zero behind the point.
fn whole(value: &Value) -> Option<u64> {
    let number = value
        .as_f64()
        .or_else(|| value.as_str()?.trim_matches([' ', '"']).parse().ok())?;
    (number >= 0.0).then_some(number as u64)
}

/// The fields of a form as JSON.
async fn form(parts: &Parts, body: &Bytes) -> Value {
    let mut fields = json!({});
    let mut copy = Request::new(Body::from(body.clone()));
    copy.headers_mut().clone_from(&parts.headers);
    let Ok(mut form) = Multipart::from_request(copy, &()).await else {
        return fields;
    };
    while let Ok(Some(field)) = form.next_field().await {
        let name = field.name().unwrap_or_default().to_owned();
        if !["model", "n", "prompt", "prompt_2"].contains(&name.as_str()) {
            continue;
        }
        if let Ok(text) = field.text().await {
            fields[name] = Value::String(text);
        }
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
            (r#"{"n":4,"imageList":0,"input":7}"#, 4),
            (r#"{"n":4,"input":{}}"#, 4),
            (r#"{"n":1,"n":4}"#, 4),
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
        // JSON that is called a form.
        let wanted = of("multipart/form-data; boundary=X", body).await;
        assert_eq!(wanted.prompts, ["a", "b"]);
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
