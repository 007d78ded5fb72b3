//! The page's own HTTP routes: settings out of a PNG, frames into an animation.

use crate::app::App;
use crate::body::{form, read};
use crate::pictures::{decode, off_the_loop};
use crate::refusal::Refusal;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prima_picture::{Parameters, Picture, encode_gif, read_parameters};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The settings that a picture's file carries.
pub(crate) async fn read_png(State(app): State<App>, request: Request) -> Result<Json<Value>, Refusal> {
    let bytes = read(app.limits(), request.into_body()).await?;
    let cannot = |message: String| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, message);
    let found = off_the_loop(move || Ok(read_parameters(&bytes))).await?;
    let found = found.map_err(|e| cannot(e.to_string()))?;
    let parameters = found.ok_or_else(|| cannot("this file does not say how it was painted".to_owned()))?;
    Ok(Json(settings(&parameters)))
}

/// Fields with the names that requests have; numbers as numbers.
pub(crate) fn settings(parameters: &Parameters) -> Value {
    let mut out = Map::new();
    out.insert("prompt".into(), json!(parameters.prompt));
    out.insert("negative_prompt".into(), json!(parameters.negative_prompt));
    let number = |key: &str| {
        parameters
            .get(key)
            .and_then(|v| v.parse::<f64>().ok())
            .filter(|v| v.is_finite())
    };
    let whole = |key: &str| parameters.get(key).and_then(|v| v.parse::<u64>().ok());
    for (name, key) in [("seed", "Seed"), ("steps", "Steps")] {
        if let Some(value) = whole(key) {
            out.insert(name.into(), json!(value));
        }
    }
    for (name, key) in [("guidance_scale", "CFG scale"), ("strength", "Denoising strength")] {
        if let Some(value) = number(key) {
            out.insert(name.into(), json!(value));
        }
    }
    let size = parameters.get("Size").and_then(|size| size.split_once('x'));
    if let Some((Ok(width), Ok(height))) = size.map(|(w, h)| (w.trim().parse::<u64>(), h.trim().parse::<u64>())) {
        out.insert("width".into(), json!(width));
        out.insert("height".into(), json!(height));
    }
    for (name, key) in [
        ("sampler", "Sampler"),
        ("schedule_type", "Schedule type"),
        ("model", "Model"),
    ] {
        if let Some(value) = parameters.get(key) {
            out.insert(name.into(), json!(value));
        }
    }
    Value::Object(out)
}

/// Most frames of an animation: 20 s at 12 frames a second.
const FRAMES: usize = 240;
/// Most pixels of all frames together.
const PIXELS: usize = 64 << 20;

/// `frame` files and `delay_ms` to an animated GIF.
pub(crate) async fn animation(State(app): State<App>, request: Request) -> Result<Response, Refusal> {
    let mut delay_ms = 100;
    let mut frames: Vec<Picture> = Vec::new();
    let mut pixels = 0;
    for part in form(&app, request, FRAMES + 1).await? {
        match part.name.as_str() {
            "delay_ms" => {
                let text = part.text()?;
                let wrong = || {
                    Refusal::field(
                        "delay_ms",
                        format!(
                            "delay_ms {:?} is not possible: use 20 to 10000",
                            crate::refusal::short(&text, 20)
                        ),
                    )
                };
                delay_ms = text
                    .trim()
                    .parse()
                    .ok()
                    .filter(|d| (20..=10_000).contains(d))
                    .ok_or_else(wrong)?;
            }
            "frame" => {
                let picture = decode(&app, part.bytes).await?;
                pixels += picture.width * picture.height;
                if pixels > PIXELS {
                    return Err(Refusal::field(
                        "frame",
                        format!("the frames have more than {PIXELS} pixels in all"),
                    ));
                }
                if frames
                    .first()
                    .is_some_and(|f| (f.width, f.height) != (picture.width, picture.height))
                {
                    return Err(Refusal::field("frame", "the frames of an animation have one size"));
                }
                frames.push(picture);
            }
            other => {
                return Err(Refusal::bad(format!(
                    "the form has an unknown part {:?}",
                    crate::refusal::short(other, 40)
                )));
            }
        }
    }
    if frames.is_empty() {
        return Err(Refusal::field("frame", "an animation needs at least one frame"));
    }
    let gif = off_the_loop(move || Ok(encode_gif(frames, Duration::from_millis(delay_ms))?)).await?;
    Ok(([(header::CONTENT_TYPE, "image/gif")], gif).into_response())
}
