//! OpenAI's images API: `/v1/images/generations` (also as a stream with partial images),
//! `/v1/images/edits`, `/v1/models`. `model` chooses among this server's; any other name gets the current one, so that
//! programs with a fixed name work. Beyond OpenAI's fields: `seed`, `num_inference_steps`,
//! `guidance_scale`, `negative_prompt`, `strength`, `scheduler`, and those of `controls.rs`.

use crate::app::App;
use crate::body::{self, Part, form};
use crate::controls::Controls;
use crate::jobs::{self, JobEvent, Painted, Running, now};
use crate::loras::{Wanted, choices};
use crate::masks::{Masking, Transparency, initial};
use crate::numbers::{flag, number, whole};
use crate::pictures::{format_named, to_base64};
use crate::refusal::{Refusal, short};
use crate::watch::Watch;
use crate::workshop::Workshop;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Request as HttpRequest, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use prima_picture::{Format, QUALITY, encode};
use prima_pipeline::{
    Mask, Parameters, Picture, PromptSyntax, Request, RequestBuilder, ScheduleOptions, Spelling, parse_size,
    scheduler_named,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::convert::Infallible;
use std::sync::Arc;

const SPELLING: Spelling = &[("num_images", "n"), ("steps", "num_inference_steps")];
/// Of one request, as OpenAI has it.
const MAX_N: usize = 10;
/// Of an edit's form.
const PARTS: usize = 40;

/// A request's fields, from JSON or from a form.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Fields {
    prompt: Option<String>,
    model: Option<String>,
    #[serde(deserialize_with = "whole")]
    n: Option<usize>,
    size: Option<String>,
    quality: Option<String>,
    background: Option<String>,
    output_format: Option<String>,
    #[serde(deserialize_with = "whole")]
    output_compression: Option<u8>,
    response_format: Option<String>,
    #[serde(deserialize_with = "whole")]
    partial_images: Option<usize>,
    #[serde(deserialize_with = "flag")]
    stream: Option<bool>,
    #[serde(deserialize_with = "whole")]
    seed: Option<i128>,
    #[serde(deserialize_with = "whole")]
    num_inference_steps: Option<usize>,
    #[serde(deserialize_with = "number")]
    guidance_scale: Option<f64>,
    negative_prompt: Option<String>,
    #[serde(deserialize_with = "number")]
    strength: Option<f64>,
    scheduler: Option<String>,
    loras: Option<Vec<Wanted>>,
    #[serde(flatten)]
    controls: Controls,
}

/// The request's own choices that its answer repeats.
#[derive(Clone)]
struct Answer {
    format: Format,
    quality: u8,
    base64: bool,
    url: bool,
    created: u64,
    size: String,
    said_quality: String,
    input_tokens: usize,
    /// Event names: `image_generation` or `image_edit`.
    event: &'static str,
}

pub(crate) async fn generations(State(app): State<App>, request: HttpRequest) -> Result<Response, Refusal> {
    let app = app.of(request.headers());
    let fields: Fields = body::understood(&app.workshop, request, body::json).await?;
    let app = app.about(app.known(fields.model.as_deref())).await?;
    let request = to_request(&app, &fields, None)?;
    answer(&app, &fields, request, "image_generation").await
}

pub(crate) async fn edits(State(app): State<App>, request: HttpRequest) -> Result<Response, Refusal> {
    let app = app.of(request.headers());
    let (fields, files) = edit_form(form(request, PARTS).await?)?;
    let app = app.about(app.known(fields.model.as_deref())).await?;
    let request = edit(&app, &fields, files).await?;
    answer(&app, &fields, request, "image_edit").await
}

/// The files of an edit: a picture and its mask.
#[derive(Default)]
struct Files {
    image: Option<Bytes>,
    mask: Option<Bytes>,
}

async fn edit(app: &App, fields: &Fields, files: Files) -> Result<Request, Refusal> {
    let Some(image) = files.image else {
        return Err(Refusal::field(
            "image",
            "image is missing: an edit starts from a picture",
        ));
    };
    let masking = Masking::new(files.mask, size(fields)?, Transparency::Painted);
    let start = initial(app, image, masking).await?;
    to_request(app, fields, Some(start))
}

/// The parts of the form; numbers are written as text there.
fn edit_form(parts: Vec<Part>) -> Result<(Fields, Files), Refusal> {
    let mut fields = Map::new();
    let mut files = Files::default();
    for part in parts {
        match part.name.as_str() {
            "image" | "image[]" if files.image.is_some() => {
                return Err(Refusal::field(
                    "image",
                    "prima starts from one image, and there are several",
                ));
            }
            "image" | "image[]" => files.image = Some(part.bytes),
            "mask" => files.mask = Some(part.bytes),
            name => {
                let text = part.text()?;
                let texts = [
                    "prompt",
                    "negative_prompt",
                    "prompt_2",
                    "negative_prompt_2",
                    "size",
                    "scheduler",
                    "model",
                    "user",
                ];
                let value = if texts.contains(&name) {
                    None
                } else {
                    serde_json::from_str::<Value>(&text).ok()
                };
                fields.insert(name.to_owned(), value.unwrap_or(Value::String(text)));
            }
        }
    }
    let fields = serde_json::from_value(Value::Object(fields))
        .map_err(|e| Refusal::bad(format!("the form is not what this route takes: {e}")))?;
    Ok((fields, files))
}

/// Reads a body as far as the request that it asks for, without painting.
pub(crate) fn asked(app: &App, body: &[u8]) -> Result<Request, Refusal> {
    let fields: Fields = body::json(body)?;
    let request = to_request(app, &fields, None)?;
    to_answer(app, &fields, &request, "image_generation")?;
    Ok(request)
}

/// The same of an edit's form.
pub(crate) async fn asked_edit(app: &App, request: HttpRequest) -> Result<Request, Refusal> {
    let (fields, files) = edit_form(form(request, PARTS).await?)?;
    edit(app, &fields, files).await
}

async fn answer(app: &App, fields: &Fields, request: Request, event: &'static str) -> Result<Response, Refusal> {
    let answer = to_answer(app, fields, &request, event)?;
    let streams = fields.stream.unwrap_or(false);
    let partial = fields.partial_images.unwrap_or(0);
    if partial > 3 {
        return Err(Refusal::field(
            "partial_images",
            format!("partial_images {partial} is not possible: use 0 to 3"),
        ));
    }
    let watch = Watch::new(String::new(), 1);
    let running = jobs::start(app, "openai", vec![request], &watch, if streams { partial } else { 0 })?;
    if streams {
        return Ok(stream_events(app.workshop.clone(), running, answer));
    }
    let painted = running.all().await?;
    let body = app.workshop.behind(move || to_body(painted, &answer)).await?;
    Ok(Json(body).into_response())
}

/// Width and height, unless the model chooses.
fn size(fields: &Fields) -> Result<(Option<usize>, Option<usize>), Refusal> {
    match fields.size.as_deref() {
        None | Some("auto" | "") => Ok((None, None)),
        Some(size) => {
            let (width, height) = parse_size("size", size)?;
            Ok((Some(width), Some(height)))
        }
    }
}

fn to_request(app: &App, fields: &Fields, start: Option<(Picture, Option<Mask>)>) -> Result<Request, Refusal> {
    if fields.background.as_deref() == Some("transparent") {
        return Err(Refusal::field(
            "background",
            "a transparent background is not possible: use auto or opaque",
        ));
    }
    let (width, height) = size(fields)?;
    let (image, mask) = start.map_or((None, None), |(picture, mask)| (Some(picture), mask));
    let mut asked = RequestBuilder {
        prompt: fields.prompt.clone(),
        negative_prompt: fields.negative_prompt.clone(),
        guidance_scale: fields.guidance_scale,
        seed: fields.seed,
        width,
        height,
        num_images: fields.n,
        schedule: ScheduleOptions {
            num_inference_steps: fields.num_inference_steps,
            scheduler: scheduler_named(fields.scheduler.as_deref())?,
            ..ScheduleOptions::default()
        },
        loras: choices(fields.loras.clone())?,
        image,
        mask,
        strength: fields.strength,
        ..app.request(SPELLING)
    };
    asked.limits.max_images = asked.limits.max_images.min(MAX_N);
    let asked = fields.controls.over(asked, PromptSyntax::default())?;
    Ok(asked.build_for(app.pipeline()?)?)
}

fn to_answer(app: &App, fields: &Fields, request: &Request, event: &'static str) -> Result<Answer, Refusal> {
    let pipeline = app.pipeline()?;
    let format = fields.output_format.as_deref().map_or(Ok(Format::Png), format_named)?;
    let quality = fields.output_compression.unwrap_or(QUALITY);
    if quality > 100 {
        return Err(Refusal::field(
            "output_compression",
            format!("output_compression {quality} is not possible: use 0 to 100"),
        ));
    }
    // OpenAI's own default for these models is an address, and programs that name them read one; others the picture.
    let reads_either = fields.model.as_deref().is_some_and(|model| model.starts_with("dall-e"));
    let (base64, url) = match fields.response_format.as_deref() {
        None | Some("") => (true, reads_either),
        Some("b64_json") => (true, false),
        Some("url") => (false, true),
        Some(other) => {
            let message = format!(
                "response_format {:?} is not known: use b64_json or url",
                short(other, 40)
            );
            return Err(Refusal::field("response_format", message));
        }
    };
    let defaults = pipeline.defaults();
    let (width, height) = (
        request.width.unwrap_or(defaults.width),
        request.height.unwrap_or(defaults.height),
    );
    Ok(Answer {
        format,
        quality: quality.max(1),
        base64,
        url,
        created: now(),
        size: format!("{width}x{height}"),
        said_quality: fields
            .quality
            .clone()
            .filter(|q| q != "auto" && q.len() < 20)
            .unwrap_or_else(|| "high".to_owned()),
        input_tokens: pipeline
            .parts()
            .text_encoders
            .count_tokens(&request.prompt, request.prompt_syntax),
        event,
    })
}

impl Answer {
    fn encode(&self, picture: &Picture, parameters: Option<&Parameters>) -> Result<String, Refusal> {
        Ok(to_base64(&encode(picture, self.format, self.quality, parameters)?))
    }

    fn usage(&self) -> Value {
        json!({
            "input_tokens": self.input_tokens,
            "input_tokens_details": {"image_tokens": 0, "text_tokens": self.input_tokens},
            "output_tokens": 0,
            "total_tokens": self.input_tokens,
        })
    }

    /// What every event of a stream and the plain answer say.
    fn common(&self) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("background".into(), "opaque".into());
        map.insert("output_format".into(), self.format.as_str().into());
        map.insert("quality".into(), self.said_quality.as_str().into());
        map.insert("size".into(), self.size.as_str().into());
        map
    }
}

fn to_body(painted: Vec<Painted>, answer: &Answer) -> Result<Value, Refusal> {
    let mut data = Vec::new();
    let (mut seed, mut warnings) = (None, Vec::new());
    for painted in painted {
        for (picture, parameters) in &painted.pictures {
            let encoded = answer.encode(picture, Some(parameters))?;
            let mut entry = json!({"revised_prompt": null});
            if answer.url {
                entry["url"] = format!("data:{};base64,{encoded}", answer.format.mime()).into();
            }
            if answer.base64 {
                entry["b64_json"] = encoded.into();
            }
            data.push(entry);
        }
        if let Some(response) = painted.response {
            seed = Some(response.seed);
            warnings.extend(response.warnings);
        }
    }
    let mut body = answer.common();
    body.insert("created".into(), answer.created.into());
    body.insert("data".into(), data.into());
    body.insert("usage".into(), answer.usage());
    body.insert("seed".into(), json!(seed));
    body.insert("warnings".into(), json!(warnings));
    Ok(Value::Object(body))
}

/// Server-sent events: partial images, then each finished one.
fn stream_events(workshop: Arc<Workshop>, running: Running, answer: Answer) -> Response {
    struct Streaming {
        workshop: Arc<Workshop>,
        running: Running,
        answer: Answer,
        partial: usize,
        waiting: Vec<Event>,
    }
    let state = Streaming {
        workshop,
        running,
        answer,
        partial: 0,
        waiting: Vec::new(),
    };
    let events = stream::unfold(state, |mut state| async move {
        loop {
            if let Some(event) = state.waiting.pop() {
                return Some((Ok::<_, Infallible>(event), state));
            }
            let (pictures, done) = match state.running.next().await? {
                JobEvent::Step { .. } => continue,
                JobEvent::Preview(pictures) => (pictures.into_iter().map(|p| (p, None)).collect(), false),
                JobEvent::Painted(painted) => (
                    painted
                        .pictures
                        .into_iter()
                        .map(|(p, recipe)| (p, Some(recipe)))
                        .collect(),
                    true,
                ),
                JobEvent::Failed(refusal) => {
                    state.waiting = vec![failure(&refusal)];
                    continue;
                }
            };
            let (answer, first) = (state.answer.clone(), state.partial);
            if !done {
                state.partial += 1;
            }
            let pack = move || stream_pictures(&answer, pictures, done, first);
            let encoded = state.workshop.behind(pack).await;
            // Popped from the end.
            state.waiting = encoded.unwrap_or_else(|refusal| vec![failure(&refusal)]);
            state.waiting.reverse();
        }
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

fn stream_pictures(
    answer: &Answer,
    pictures: Vec<(Picture, Option<Parameters>)>,
    done: bool,
    partial: usize,
) -> Result<Vec<Event>, Refusal> {
    pictures
        .iter()
        .map(|(picture, parameters)| {
            let mut body = answer.common();
            let kind = if done { "completed" } else { "partial_image" };
            let kind = format!("{}.{kind}", answer.event);
            body.insert("type".into(), kind.as_str().into());
            body.insert("created_at".into(), answer.created.into());
            body.insert("b64_json".into(), answer.encode(picture, parameters.as_ref())?.into());
            if done {
                body.insert("usage".into(), answer.usage());
            } else {
                body.insert("partial_image_index".into(), partial.into());
            }
            Ok(Event::default().event(kind).data(Value::Object(body).to_string()))
        })
        .collect()
}

fn failure(refusal: &Refusal) -> Event {
    let body = json!({"type": "error", "error": {"message": refusal.message, "type": "server_error", "param": null, "code": null}});
    Event::default().event("error").data(body.to_string())
}

fn model_entry(name: &str) -> Value {
    json!({"id": name, "object": "model", "created": 0, "owned_by": "prima"})
}

pub(crate) async fn models(State(app): State<App>) -> Result<Json<Value>, Refusal> {
    let (names, _) = app.models()?;
    let data: Vec<Value> = names.iter().map(|name| model_entry(name)).collect();
    Ok(Json(json!({"object": "list", "data": data})))
}

pub(crate) async fn model(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    app.check_ready()?;
    if !app.engine.has_model(&id) {
        return Err(Refusal::new(StatusCode::NOT_FOUND, app.no_model(&id)));
    }
    Ok(Json(model_entry(&id)))
}
