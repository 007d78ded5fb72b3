//! The hosted models' request, flat as in the Lightning posts
//! (`{"prompt", "steps", "guidance_scale", "scheduler": "K_EULER", "resolution": "1024x1024"}`) or in
//! the prediction form (`{"input": {...}}`). Answered when the pictures are there.

use crate::app::App;
use crate::body;
use crate::jobs::{self, Watch, parse_size, random_seed};
use crate::openai::now;
use crate::pictures::{format_named, from_base64, initial, off_the_loop, to_base64};
use crate::refusal::Refusal;
use axum::Json;
use axum::extract::{Request as HttpRequest, State};
use axum::http::StatusCode;
use prima_picture::{Format, QUALITY, encode};
use prima_pipeline::{Error, InitImage, Request, ScheduleOptions};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Instant;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Input {
    prompt: Option<String>,
    negative_prompt: Option<String>,
    width: Option<usize>,
    height: Option<usize>,
    resolution: Option<String>,
    num_outputs: Option<usize>,
    #[serde(alias = "steps")]
    num_inference_steps: Option<usize>,
    guidance_scale: Option<f64>,
    scheduler: Option<String>,
    seed: Option<u64>,
    image: Option<String>,
    #[serde(alias = "strength")]
    prompt_strength: Option<f64>,
    output_format: Option<String>,
}

pub(crate) async fn predict(
    State(app): State<App>,
    request: HttpRequest,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let body: Value = body::json(&app, request).await?;
    let given = body.get("input").cloned().unwrap_or_else(|| body.clone());
    let input: Input = serde_json::from_value(given.clone())
        .map_err(|e| Refusal::bad(format!("the request body is not what this route takes: {e}")))?;
    let format = input.output_format.as_deref().map_or(Ok(Format::Png), format_named)?;
    let request = to_request(&app, input).await?;
    let (seed, created, began) = (request.seed, now(), Instant::now());
    let running = jobs::start(&app, "predictions", vec![request], &Watch::new(String::new(), 1), 0)?;
    let painted = running.all().await?;
    let seconds = began.elapsed().as_secs_f64();
    let (output, warnings) = off_the_loop(move || {
        let (mut output, mut warnings) = (Vec::new(), Vec::new());
        for painted in painted {
            for (picture, parameters) in &painted.pictures {
                let bytes = encode(picture, format, QUALITY, Some(parameters))?;
                output.push(format!("data:{};base64,{}", format.mime(), to_base64(&bytes)));
            }
            warnings.extend(painted.response.map(|r| r.warnings).unwrap_or_default());
        }
        Ok((output, warnings))
    })
    .await?;
    let mut logs = vec![format!("Using seed: {seed}")];
    logs.extend(warnings);
    Ok((
        StatusCode::CREATED,
        Json(json!({
            "id": format!("prima-{seed}-{created}"),
            "model": app.pipeline()?.name(),
            "status": "succeeded",
            "input": without_image(given),
            "output": output,
            "error": null,
            "logs": logs.join("\n"),
            "metrics": {"predict_time": seconds},
            "created_at": created,
            "completed_at": now(),
        })),
    ))
}

/// The input is repeated in the answer, but not a whole picture.
fn without_image(mut input: Value) -> Value {
    if let Some(map) = input.as_object_mut() {
        map.remove("image");
    }
    input
}

async fn to_request(app: &App, input: Input) -> Result<Request, Refusal> {
    let prompt = input
        .prompt
        .ok_or_else(|| Refusal::field("prompt", "prompt is missing"))?;
    let (mut width, mut height) = (input.width, input.height);
    if let Some(resolution) = &input.resolution {
        let size = parse_size("resolution", resolution)?;
        (width, height) = (Some(size.0), Some(size.1));
    }
    let n = input.num_outputs.unwrap_or(1);
    if n == 0 {
        return Err(Refusal::field(
            "num_outputs",
            "num_outputs 0 is not possible: use 1 or more",
        ));
    }
    let init_image = match &input.image {
        Some(text) => Some(InitImage {
            picture: initial(app, from_base64("image", text)?, width, height).await?,
            strength: input.prompt_strength,
        }),
        None => None,
    };
    Ok(Request {
        prompt,
        negative_prompt: input.negative_prompt.filter(|text| !text.trim().is_empty()),
        guidance_scale: input.guidance_scale,
        seed: input.seed.unwrap_or_else(random_seed),
        width,
        height,
        num_images: n,
        schedule: ScheduleOptions {
            num_inference_steps: input.num_inference_steps,
            scheduler: input
                .scheduler
                .as_deref()
                .map(str::parse)
                .transpose()
                .map_err(Error::Schedule)?,
            ..ScheduleOptions::default()
        },
        init_image,
        ..Request::default()
    })
}
