//! The hosted models' request, flat as in the Lightning posts
//! (`{"prompt", "steps", "guidance_scale", "scheduler": "K_EULER", "resolution": "1024x1024"}`) or in
//! the prediction form (`{"input": {...}}`). Answered when the pictures are there.

use crate::app::App;
use crate::body::{self, not_taken};
use crate::controls::Controls;
use crate::jobs::{self, now};
use crate::loras::{Wanted, choices};
use crate::masks::{Masking, Transparency, initial};
use crate::numbers::{number, whole};
use crate::pictures::{format_named, from_base64, to_base64};
use crate::refusal::Refusal;
use crate::watch::Watch;
use axum::Json;
use axum::extract::{Request as HttpRequest, State};
use axum::http::StatusCode;
use prima_picture::{Format, QUALITY, encode};
use prima_pipeline::{PromptSyntax, Request, RequestBuilder, ScheduleOptions, Spelling, parse_size, scheduler_named};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Instant;

const SPELLING: Spelling = &[
    ("num_images", "num_outputs"),
    ("steps", "num_inference_steps"),
    ("strength", "prompt_strength"),
];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Input {
    prompt: Option<String>,
    model: Option<String>,
    negative_prompt: Option<String>,
    #[serde(deserialize_with = "whole")]
    width: Option<usize>,
    #[serde(deserialize_with = "whole")]
    height: Option<usize>,
    resolution: Option<String>,
    #[serde(deserialize_with = "whole")]
    num_outputs: Option<usize>,
    #[serde(alias = "steps", deserialize_with = "whole")]
    num_inference_steps: Option<usize>,
    #[serde(deserialize_with = "number")]
    guidance_scale: Option<f64>,
    scheduler: Option<String>,
    #[serde(deserialize_with = "whole")]
    seed: Option<i128>,
    #[serde(alias = "strength", deserialize_with = "number")]
    prompt_strength: Option<f64>,
    output_format: Option<String>,
    loras: Option<Vec<Wanted>>,
    #[serde(flatten)]
    controls: Controls,
}

pub(crate) async fn predict(
    State(app): State<App>,
    request: HttpRequest,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let app = app.of(request.headers());
    let (given, input, files) = body::understood(&app.workshop, request, read).await?;
    let format = input.output_format.as_deref().map_or(Ok(Format::Png), format_named)?;
    let app = app.about(app.known(input.model.as_deref())).await?;
    let request = to_request(&app, input, files).await?;
    let (seed, created, began) = (request.seed, now(), Instant::now());
    let running = jobs::start(&app, "predictions", vec![request], &Watch::new(String::new(), 1), 0)?;
    let painted = running.all().await?;
    let seconds = began.elapsed().as_secs_f64();
    let pack = move || {
        let (mut output, mut warnings) = (Vec::new(), Vec::new());
        for painted in painted {
            for (picture, parameters) in &painted.pictures {
                let bytes = encode(picture, format, QUALITY, Some(parameters))?;
                output.push(format!("data:{};base64,{}", format.mime(), to_base64(&bytes)));
            }
            warnings.extend(painted.response.map(|r| r.warnings).unwrap_or_default());
        }
        Ok((output, warnings))
    };
    let (output, warnings) = app.workshop.behind(pack).await?;
    let mut logs = vec![format!("Using seed: {seed}")];
    logs.extend(warnings);
    Ok((
        StatusCode::CREATED,
        Json(json!({
            "id": format!("prima-{seed}-{created}"),
            "model": app.pipeline()?.name(),
            "status": "succeeded",
            "input": given,
            "output": output,
            "error": null,
            "logs": logs.join("\n"),
            "metrics": {"predict_time": seconds},
            "created_at": created,
            "completed_at": now(),
        })),
    ))
}

/// Of the picture to start from, and of its mask.
type Files = [Option<Vec<u8>>; 2];

/// The input as the answer repeats it, without whole pictures; what it means; and the pictures' bytes.
fn read(body: &[u8]) -> Result<(Value, Input, Files), Refusal> {
    let mut given: Value = body::json(body)?;
    let model = given.get("model").cloned();
    if let Some(input) = given.get_mut("input") {
        given = input.take();
        // The prediction form names it beside the input.
        if let (Some(model), Some(input)) = (model, given.as_object_mut()) {
            input.entry("model").or_insert(model);
        }
    }
    let mut file = |name: &'static str| -> Result<Option<Vec<u8>>, Refusal> {
        let text = given.as_object_mut().and_then(|map| map.remove(name));
        let text: Option<String> = text.map_or(Ok(None), serde_json::from_value).map_err(not_taken)?;
        text.map(|text| from_base64(name, &text)).transpose()
    };
    let files = [file("image")?, file("mask")?];
    let input = Input::deserialize(&given).map_err(not_taken)?;
    Ok((given, input, files))
}

/// Reads a body as far as the request that it asks for, without painting.
pub(crate) async fn asked(app: &App, body: &[u8]) -> Result<Request, Refusal> {
    let (_, input, files) = read(body)?;
    to_request(app, input, files).await
}

async fn to_request(app: &App, input: Input, [image, mask]: Files) -> Result<Request, Refusal> {
    let (mut width, mut height) = (input.width, input.height);
    if let Some(resolution) = &input.resolution {
        let size = parse_size("resolution", resolution)?;
        (width, height) = (Some(size.0), Some(size.1));
    }
    let (image, mask) = match image {
        Some(bytes) => {
            let masking = Masking {
                is_stretched: true,
                ..Masking::new(mask, (width, height), Transparency::Stays)
            };
            let (picture, mask) = initial(app, bytes, masking).await?;
            (Some(picture), mask)
        }
        None if mask.is_some() => {
            let message = "mask is of an image, and there is none: send the image too";
            return Err(Refusal::field("mask", message));
        }
        None => (None, None),
    };
    let asked = RequestBuilder {
        prompt: input.prompt,
        negative_prompt: input.negative_prompt,
        guidance_scale: input.guidance_scale,
        seed: input.seed,
        width,
        height,
        num_images: input.num_outputs,
        schedule: ScheduleOptions {
            num_inference_steps: input.num_inference_steps,
            scheduler: scheduler_named(input.scheduler.as_deref())?,
            ..ScheduleOptions::default()
        },
        loras: choices(input.loras)?,
        image,
        mask,
        strength: input.prompt_strength,
        ..app.request(SPELLING)
    };
    let asked = input.controls.over(asked, PromptSyntax::default())?;
    Ok(asked.build_for(app.pipeline()?)?)
}
