//! `txt2img` and `img2img`: a body is read, painted, and answered.

use super::controlnet;
use super::fields::Fields;
use super::tasks::Registered;
use crate::app::App;
use crate::body;
use crate::jobs::{self, Painted, now};
use crate::masks::{Masking, Transparency, initial};
use crate::pictures::{from_base64, to_base64};
use crate::refusal::Refusal;
use crate::watch::Watch;
use axum::Json;
use axum::extract::{Request as HttpRequest, State};
use prima_picture::{Format, QUALITY, encode};
use prima_pipeline::Request;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::HashSet;

pub(super) async fn txt2img(State(app): State<App>, request: HttpRequest) -> Result<Json<Value>, Refusal> {
    let app = app.of(request.headers());
    let asked = body::understood(&app.workshop, request, |body| read(body, false)).await?;
    paint(&app, asked).await
}

pub(super) async fn img2img(State(app): State<App>, request: HttpRequest) -> Result<Json<Value>, Refusal> {
    let app = app.of(request.headers());
    let asked = body::understood(&app.workshop, request, |body| read(body, true)).await?;
    paint(&app, asked).await
}

/// A request as it came.
struct Asked {
    /// As the answer repeats it, without the pictures.
    given: Map<String, Value>,
    fields: Fields,
    files: Option<Files>,
    controls: Vec<controlnet::Unit>,
}

/// The file to start from, and its mask's.
struct Files {
    image: Vec<u8>,
    mask: Option<Vec<u8>>,
}

/// What a body means. `from_image`: of `img2img`, which starts from one.
fn read(body: &[u8], from_image: bool) -> Result<Asked, Refusal> {
    let mut given: Map<String, Value> = match body::json(body)? {
        Value::Object(given) => given,
        _ => {
            return Err(Refusal::bad(
                "the request body is not what this route takes: an object is expected",
            ));
        }
    };
    let images = given.remove("init_images");
    let mask = given.remove("mask").filter(|mask| !mask.is_null());
    let controls = controlnet::units(&mut given)?;
    let fields = Fields::deserialize(&given).map_err(body::not_taken)?;
    let images: Option<Vec<String>> = images
        .map_or(Ok(None), serde_json::from_value)
        .map_err(body::not_taken)?;
    let images = images.unwrap_or_default();
    if !from_image {
        return Ok(Asked {
            given,
            fields,
            files: None,
            controls,
        });
    }
    let [image] = &images[..] else {
        let message = format!(
            "img2img starts from one image in init_images, and there are {}",
            images.len()
        );
        return Err(Refusal::field("init_images", message));
    };
    let mask: Option<String> = mask.map_or(Ok(None), serde_json::from_value).map_err(body::not_taken)?;
    let mask = mask.filter(|text| !text.trim().is_empty());
    let files = Some(Files {
        image: from_base64("init_images", image)?,
        mask: mask.map(|text| from_base64("mask", &text)).transpose()?,
    });
    if fields.include_init_images.unwrap_or(false) {
        given.insert("init_images".to_owned(), images.into());
    }
    Ok(Asked {
        given,
        fields,
        files,
        controls,
    })
}

/// Reads a body as far as the request that it asks for, without painting.
pub(crate) async fn asked(app: &App, body: &[u8], from_image: bool) -> Result<Request, Refusal> {
    let Asked {
        fields,
        files,
        controls,
        ..
    } = read(body, from_image)?;
    request(app, &fields, files, &controls).await
}

/// The first picture's request.
async fn request(
    app: &App,
    fields: &Fields,
    files: Option<Files>,
    units: &[controlnet::Unit],
) -> Result<Request, Refusal> {
    fields.refuse_unsupported(app)?;
    let size = (fields.width, fields.height);
    let mut controls = Vec::new();
    for unit in units {
        let init = files.as_ref().map(|files| files.image.as_slice());
        controls.push(unit.control(app, size, init).await?);
    }
    let Some(Files { image, mask }) = files else {
        return fields.to_request(app, None, controls);
    };
    let plain = Masking::new(mask, size, Transparency::Stays);
    let start = initial(app, image, fields.inpainting.over(plain)?).await?;
    fields.to_request(app, Some(start), controls)
}

async fn paint(app: &App, asked: Asked) -> Result<Json<Value>, Refusal> {
    let Asked {
        given,
        fields,
        files,
        controls,
    } = asked;
    let count = fields.count(app)?;
    let from_image = files.is_some();
    fields.refuse_unsupported(app)?;
    let app = &app.about(fields.model()).await?;
    let first = request(app, &fields, files, &controls).await?;
    let second = if from_image {
        None
    } else {
        fields.hires.second_pass(app, &first, fields.denoising_strength)?
    };
    // The web UI's batches count their seeds up, or where there is one the variation's.
    let request_of = |i: u64| {
        let mut request = first.clone();
        match request.blend.as_mut().and_then(|blend| blend.seed.as_mut()) {
            Some(variation) => *variation = variation.wrapping_add(i),
            None => request.seed = request.seed.wrapping_add(i),
        }
        request
    };
    let requests: Vec<Request> = (0..count as u64).map(request_of).collect();
    let seeds: Vec<u64> = requests.iter().map(|request| request.seed).collect();
    let variations: Vec<u64> = requests.iter().map(|request| variation_of(request).0).collect();
    let id = fields.force_task_id.clone().filter(|id| id.len() <= 200);
    let task = Registered::new(
        app,
        Watch::new(
            id.unwrap_or_else(|| format!("task({})", first.seed)),
            if second.is_some() { 2 * count } else { count },
        ),
    );
    let running = jobs::start(app, "a1111", requests, task.watch(), 0)?;
    let mut painted = running.all().await?;
    if let Some(second) = second.filter(|_| !task.watch().is_interrupted()) {
        painted = second.paint(app, &seeds, painted, task.watch()).await?;
    }
    let (interrupted, model) = (task.watch().is_interrupted(), app.pipeline()?.name().to_owned());
    drop(task);
    let send = fields.send_images.unwrap_or(true);
    let pack = move || to_body(given, &first, [&seeds, &variations], painted, send, interrupted, &model);
    let body = app.workshop.behind(pack).await?;
    Ok(Json(body))
}

/// The variation's seed and strength.
fn variation_of(request: &Request) -> (u64, f64) {
    let blend = request.blend.as_ref();
    blend
        .and_then(|blend| Some((blend.seed?, blend.share)))
        .unwrap_or((request.seed, 0.0))
}

fn to_body(
    given: Map<String, Value>,
    request: &Request,
    [seeds, variations]: [&[u64]; 2],
    painted: Vec<Painted>,
    send_images: bool,
    interrupted: bool,
    model: &str,
) -> Result<Value, Refusal> {
    let (mut images, mut infotexts, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    let mut settled = None;
    let mut size = (0, 0);
    for painted in &painted {
        for (picture, parameters) in &painted.pictures {
            size = (picture.width, picture.height);
            infotexts.push(parameters.to_text());
            if send_images {
                images.push(to_base64(&encode(picture, Format::Png, QUALITY, Some(parameters))?));
            }
        }
        settled = settled.or(painted.response.as_ref());
        warnings.extend(painted.response.iter().flat_map(|r| r.warnings.clone()));
    }
    let mut said = HashSet::new();
    warnings.retain(|warning| said.insert(warning.clone()));
    let negative = request.negative_prompt.clone().unwrap_or_default();
    let count = infotexts.len();
    let info = json!({
        "prompt": request.prompt,
        "all_prompts": vec![&request.prompt; count],
        "negative_prompt": negative,
        "all_negative_prompts": vec![&negative; count],
        "seed": request.seed,
        "all_seeds": seeds.get(..count).unwrap_or(seeds),
        "subseed": variation_of(request).0,
        "all_subseeds": variations.get(..count).unwrap_or(variations),
        "subseed_strength": variation_of(request).1,
        "width": size.0,
        "height": size.1,
        "sampler_name": settled.map(|r| r.scheduler.a1111_name()),
        "cfg_scale": settled.map(|r| r.guidance_scale),
        "steps": settled.map(|r| r.num_inference_steps),
        "batch_size": count,
        "restore_faces": false,
        "face_restoration_model": null,
        "sd_model_name": model,
        "sd_model_hash": "",
        "sd_vae_name": null,
        "sd_vae_hash": null,
        "denoising_strength": settled.and_then(|r| r.strength),
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": infotexts,
        "styles": [],
        "job_timestamp": now().to_string(),
        "clip_skip": request.clip_skip + 1,
        "is_using_inpainting_conditioning": request.mask.is_some(),
        "version": format!("prima {}", env!("CARGO_PKG_VERSION")),
        "interrupted": interrupted,
        "comments": warnings,
    });
    Ok(json!({"images": images, "parameters": given, "info": info.to_string()}))
}
