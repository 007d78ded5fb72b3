//! `png-info`.

use crate::app::App;
use crate::body;
use crate::pictures::{from_base64, metadata_bytes};
use crate::refusal::Refusal;
use axum::Json;
use axum::extract::{Request, State};
use prima_picture::read_parameters;
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct PngInfo {
    image: String,
}

pub(super) async fn png_info(State(app): State<App>, request: Request) -> Result<Json<Value>, Refusal> {
    let bytes = body::understood(&app.workshop, request, png_of).await?;
    let found = app
        .workshop
        .run(metadata_bytes(&bytes), move || Ok(read_parameters(&bytes)?))
        .await?;
    let Some(parameters) = found else {
        return Ok(Json(json!({"info": "", "items": {}, "parameters": {}})));
    };
    let mut fields: Map<String, Value> = parameters.fields.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    fields.insert("Prompt".into(), json!(parameters.prompt));
    fields.insert("Negative prompt".into(), json!(parameters.negative_prompt));
    let text = parameters.to_text();
    Ok(Json(
        json!({"info": text, "items": {"parameters": text}, "parameters": fields}),
    ))
}

/// The file whose text is asked for.
pub(crate) fn png_of(body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let wanted: PngInfo = body::json(body)?;
    from_base64("image", &wanted.image)
}
