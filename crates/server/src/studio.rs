//! The page's own HTTP routes: settings out of a PNG, frames into an animation.

use crate::app::App;
use crate::body::{form, read};
use crate::pictures::{Packed, metadata_bytes};
use crate::refusal::Refusal;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prima_picture::{Parameters, encode_gif, read_parameters};
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// The settings that a picture's file carries.
pub(crate) async fn read_png(State(app): State<App>, request: Request) -> Result<Json<Value>, Refusal> {
    let bytes = read(request.into_body()).await?;
    let cannot = |message: String| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, message);
    let found = app
        .workshop
        .run(metadata_bytes(&bytes), move || Ok(read_parameters(&bytes)))
        .await?;
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
    let regions = parameters
        .get("Regions")
        .and_then(|json| serde_json::from_str(json).ok());
    out.extend(regions.map(|regions: Value| ("regions".to_owned(), regions)));
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
    let mut frames: Vec<Packed<Bytes>> = Vec::new();
    for part in form(request, FRAMES + 1).await? {
        match part.name.as_str() {
            "delay_ms" => delay_ms = delay(&part.text()?)?,
            "frame" => {
                frames.push(Packed::open(&app, part.bytes).await?);
                let pixels: usize = frames.iter().map(|f| f.header.width * f.header.height).sum();
                if pixels > PIXELS {
                    let message = format!("the frames have more than {PIXELS} pixels in all");
                    return Err(Refusal::field("frame", message));
                }
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
    let gif = animate(&app, frames, Duration::from_millis(delay_ms)).await?;
    Ok(([(header::CONTENT_TYPE, "image/gif")], gif).into_response())
}

fn delay(text: &str) -> Result<u64, Refusal> {
    let delay = text.trim().parse().ok().filter(|d| (20..=10_000).contains(d));
    delay.ok_or_else(|| {
        let text = crate::refusal::short(text, 20);
        let message = format!("delay_ms {text:?} is not possible: use 20 to 10000");
        Refusal::field("delay_ms", message)
    })
}

/// One frame after the other is unpacked, packed and dropped; between two of them others have their turn.
async fn animate(app: &App, frames: Vec<Packed<Bytes>>, delay: Duration) -> Result<Vec<u8>, Refusal> {
    // Of the largest frame: RGB, RGBA, and a palette's numbers; and what the file comes to at most.
    let one = frames
        .iter()
        .map(|f| f.header.decode_bytes + 8 * f.header.width * f.header.height);
    let all: usize = frames.iter().map(|f| f.header.width * f.header.height).sum();
    let memory = app.workshop.memory(one.max().unwrap_or(0) + all).await?;
    let (workshop, runtime) = (app.workshop.clone(), Handle::current());
    let (waiting, asked) = oneshot::channel();
    let (mut size, mut bench) = (None, None);
    let next = move |frame: Packed<Bytes>| {
        // Also for the packing of this frame, which follows.
        drop(bench.take());
        bench = Some(runtime.block_on(workshop.bench())?);
        if waiting.is_closed() {
            return Err(Refusal::bad("the client has gone"));
        }
        let picture = frame.decode()?;
        let found = (picture.width, picture.height);
        if *size.get_or_insert(found) != found {
            return Err(Refusal::field("frame", "the frames of an animation have one size"));
        }
        Ok(picture)
    };
    let gif = app
        .workshop
        .behind(move || {
            let _memory = memory;
            encode_gif(frames.into_iter().map(next), delay)
        })
        .await;
    drop::<oneshot::Receiver<()>>(asked);
    gif
}
