//! `txt2img` and `img2img`. Where the web UI has defaults of its own (50 steps, guidance 7), an
//! absent field is the model's choice here: that is what few-step models need.

use super::tasks::Registered;
use crate::app::App;
use crate::body;
use crate::jobs::{self, Painted, now};
use crate::pictures::{from_base64, initial, to_base64};
use crate::refusal::{Refusal, short};
use crate::watch::Watch;
use axum::Json;
use axum::extract::{Request as HttpRequest, State};
use prima_picture::{Format, QUALITY, encode};
use prima_pipeline::{
    Error, Picture, Request, RequestBuilder, ScheduleOptions, SchedulerKind, Spelling, TimestepSpacing,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

const SPELLING: Spelling = &[("guidance_scale", "cfg_scale"), ("strength", "denoising_strength")];

/// What matters of a request; the rest is repeated in the answer and has no effect.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fields {
    prompt: Option<String>,
    negative_prompt: Option<String>,
    styles: Option<Vec<String>>,
    seed: Option<i64>,
    subseed_strength: Option<f64>,
    sampler_name: Option<String>,
    sampler_index: Option<String>,
    scheduler: Option<String>,
    batch_size: Option<usize>,
    n_iter: Option<usize>,
    steps: Option<usize>,
    cfg_scale: Option<f64>,
    width: Option<usize>,
    height: Option<usize>,
    eta: Option<f64>,
    denoising_strength: Option<f64>,
    override_settings: Option<Map<String, Value>>,
    enable_hr: Option<bool>,
    restore_faces: Option<bool>,
    tiling: Option<bool>,
    script_name: Option<String>,
    alwayson_scripts: Option<Map<String, Value>>,
    send_images: Option<bool>,
    force_task_id: Option<String>,
    include_init_images: Option<bool>,
}

pub(super) async fn txt2img(State(app): State<App>, request: HttpRequest) -> Result<Json<Value>, Refusal> {
    let asked = body::understood(&app.workshop, request, |body| read(body, false)).await?;
    paint(&app, asked).await
}

pub(super) async fn img2img(State(app): State<App>, request: HttpRequest) -> Result<Json<Value>, Refusal> {
    let asked = body::understood(&app.workshop, request, |body| read(body, true)).await?;
    paint(&app, asked).await
}

/// A request as it came.
struct Asked {
    /// As the answer repeats it, without the pictures.
    given: Map<String, Value>,
    fields: Fields,
    /// The file to start from.
    image: Option<Vec<u8>>,
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
    let masked = given.remove("mask").is_some_and(|mask| !mask.is_null());
    let fields = Fields::deserialize(&given).map_err(body::not_taken)?;
    let images: Option<Vec<String>> = images
        .map_or(Ok(None), serde_json::from_value)
        .map_err(body::not_taken)?;
    let images = images.unwrap_or_default();
    if !from_image {
        return Ok(Asked {
            given,
            fields,
            image: None,
        });
    }
    let [image] = &images[..] else {
        let message = format!(
            "img2img starts from one image in init_images, and there are {}",
            images.len()
        );
        return Err(Refusal::field("init_images", message));
    };
    if masked {
        return Err(Refusal::field(
            "mask",
            "a mask is not supported: prima repaints the whole picture",
        ));
    }
    let image = Some(from_base64("init_images", image)?);
    if fields.include_init_images.unwrap_or(false) {
        given.insert("init_images".to_owned(), images.into());
    }
    Ok(Asked { given, fields, image })
}

/// What would change the picture and does not exist here is refused by name.
fn refuse_unsupported(app: &App, fields: &Fields) -> Result<(), Refusal> {
    let set = |flag: Option<bool>| flag.unwrap_or(false);
    let wanted = [
        ("enable_hr", set(fields.enable_hr)),
        ("restore_faces", set(fields.restore_faces)),
        ("tiling", set(fields.tiling)),
        ("subseed_strength", fields.subseed_strength.unwrap_or(0.0) != 0.0),
        ("styles", fields.styles.as_ref().is_some_and(|s| !s.is_empty())),
        (
            "script_name",
            fields
                .script_name
                .as_deref()
                .is_some_and(|s| !s.is_empty() && s != "None"),
        ),
        (
            "alwayson_scripts",
            fields.alwayson_scripts.as_ref().is_some_and(|s| !s.is_empty()),
        ),
    ];
    if let Some((name, _)) = wanted.iter().find(|(_, wanted)| *wanted) {
        return Err(Refusal::field(*name, format!("{name} is not supported: leave it out")));
    }
    let model = fields
        .override_settings
        .as_ref()
        .and_then(|s| s.get("sd_model_checkpoint"))
        .and_then(Value::as_str);
    let here = app.pipeline()?.name();
    match model {
        Some(model) if !model.is_empty() && model.split(" [").next() != Some(here) => Err(Refusal::field(
            "override_settings",
            format!("there is no model {:?} here; this server runs {here}", short(model, 60)),
        )),
        _ => Ok(()),
    }
}

/// The web UI's slider: of the text encoder's layers, the one from the end at which to stop.
const STOP_AT: &str = "CLIP_stop_at_last_layers";

/// Layers beyond the last that are left out; the web UI counts the last one too.
fn clip_skip(fields: &Fields) -> Result<Option<usize>, Refusal> {
    let Some(value) = fields.override_settings.as_ref().and_then(|s| s.get(STOP_AT)) else {
        return Ok(None);
    };
    let layer = value.as_u64().filter(|layer| (1..=12).contains(layer));
    let layer = layer.ok_or_else(|| {
        let value = short(&value.to_string(), 40);
        let message = format!("{STOP_AT} {value} is not possible: use 1 to 12");
        Refusal::field("override_settings", message)
    })?;
    Ok(Some(layer as usize - 1))
}

/// `few_steps`: of a model whose own timesteps no schedule of the web UI stands for.
fn schedule(fields: &Fields, few_steps: bool) -> Result<ScheduleOptions, Error> {
    let named = |name: &Option<String>| name.clone().filter(|n| !n.is_empty());
    let (mut scheduler, mut spacing) = (None, None);
    if let Some(name) = named(&fields.sampler_name).or_else(|| named(&fields.sampler_index)) {
        let (kind, karras) = SchedulerKind::from_a1111(&name).map_err(Error::Schedule)?;
        (scheduler, spacing) = (Some(kind), karras);
    }
    if let Some(name) = named(&fields.scheduler) {
        spacing = TimestepSpacing::from_a1111(&name).map_err(Error::Schedule)?.or(spacing);
        if spacing.is_none() && !few_steps {
            spacing = scheduler.and_then(SchedulerKind::automatic_spacing);
        }
    }
    let takes_eta = matches!(
        scheduler,
        Some(SchedulerKind::Ddim | SchedulerKind::Tcd | SchedulerKind::EulerAncestral)
    );
    Ok(ScheduleOptions {
        num_inference_steps: fields.steps,
        scheduler,
        spacing,
        eta: fields.eta.filter(|_| takes_eta),
        ..ScheduleOptions::default()
    })
}

fn to_request(app: &App, fields: &Fields, picture: Option<Picture>) -> Result<Request, Refusal> {
    let asked = RequestBuilder {
        prompt: Some(fields.prompt.clone().unwrap_or_default()),
        negative_prompt: fields.negative_prompt.clone(),
        guidance_scale: fields.cfg_scale,
        // -1 is a random one.
        seed: fields.seed.and_then(|seed| u64::try_from(seed).ok()),
        width: fields.width,
        height: fields.height,
        schedule: schedule(fields, app.pipeline()?.defaults().few_steps)?,
        clip_skip: clip_skip(fields)?,
        image: picture,
        strength: fields.denoising_strength,
        ..app.request(SPELLING)
    };
    Ok(asked.build_for(app.pipeline()?)?)
}

/// Reads a body as far as the request that it asks for, without painting.
pub(crate) async fn asked(app: &App, body: &[u8], from_image: bool) -> Result<Request, Refusal> {
    let Asked { fields, image, .. } = read(body, from_image)?;
    request(app, &fields, image).await
}

/// The first picture's request.
async fn request(app: &App, fields: &Fields, image: Option<Vec<u8>>) -> Result<Request, Refusal> {
    refuse_unsupported(app, fields)?;
    let picture = match image {
        Some(image) => Some(initial(app, image, fields.width, fields.height).await?),
        None => None,
    };
    to_request(app, fields, picture)
}

async fn paint(app: &App, asked: Asked) -> Result<Json<Value>, Refusal> {
    let Asked { given, fields, image } = asked;
    let count = fields
        .batch_size
        .unwrap_or(1)
        .saturating_mul(fields.n_iter.unwrap_or(1));
    let most = app.limits().variants;
    if !(1..=most).contains(&count) {
        let message = format!("batch_size times n_iter is {count}: use 1 to {most}");
        return Err(Refusal::field("batch_size", message));
    }
    let first = request(app, &fields, image).await?;
    // The web UI's batches count their seeds up.
    let seeds: Vec<u64> = (0..count as u64).map(|i| first.seed.wrapping_add(i)).collect();
    let requests = seeds.iter().map(|&seed| Request { seed, ..first.clone() }).collect();
    let id = fields.force_task_id.clone().filter(|id| id.len() <= 200);
    let task = Registered::new(
        app,
        Watch::new(id.unwrap_or_else(|| format!("task({})", first.seed)), count),
    );
    let running = jobs::start(app, "a1111", requests, task.watch(), 0)?;
    let painted = running.all().await?;
    let (interrupted, model) = (task.watch().is_interrupted(), app.pipeline()?.name().to_owned());
    drop(task);
    let send = fields.send_images.unwrap_or(true);
    let pack = move || to_body(given, &first, &seeds, painted, send, interrupted, &model);
    let body = app.workshop.behind(pack).await?;
    Ok(Json(body))
}

fn to_body(
    given: Map<String, Value>,
    request: &Request,
    seeds: &[u64],
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
    warnings.dedup();
    let negative = request.negative_prompt.clone().unwrap_or_default();
    let count = infotexts.len();
    let info = json!({
        "prompt": request.prompt,
        "all_prompts": vec![&request.prompt; count],
        "negative_prompt": negative,
        "all_negative_prompts": vec![&negative; count],
        "seed": request.seed,
        "all_seeds": seeds.get(..count).unwrap_or(seeds),
        "subseed": request.seed,
        "all_subseeds": seeds.get(..count).unwrap_or(seeds),
        "subseed_strength": 0,
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
        "is_using_inpainting_conditioning": false,
        "version": format!("prima {}", env!("CARGO_PKG_VERSION")),
        "interrupted": interrupted,
        "comments": warnings,
    });
    Ok(json!({"images": images, "parameters": given, "info": info.to_string()}))
}
