//! What there is: samplers, schedules, the model, and many empty lists that clients ask for.

use crate::app::App;
use crate::body;
use crate::metrics::resident_bytes;
use crate::refusal::{Refusal, short};
use axum::Json;
use axum::extract::{Request, State};
use prima_pipeline::{LoraEntry, SchedulerKind, TimestepSpacing, without_ending};
use serde_json::{Map, Value, json};

pub(super) async fn nothing() -> Json<Value> {
    Json(json!([]))
}

pub(super) async fn refreshed() -> Json<Value> {
    Json(Value::Null)
}

pub(super) async fn samplers() -> Json<Value> {
    let samplers: Vec<Value> = SchedulerKind::ALL
        .iter()
        .map(|kind| json!({"name": kind.a1111_name(), "aliases": kind.aliases(), "options": {}}))
        .collect();
    Json(json!(samplers))
}

pub(super) async fn schedulers() -> Json<Value> {
    let entry = |name: &str, label: &str| json!({"name": name, "label": label, "aliases": [], "default_rho": -1.0, "need_inner_model": false});
    let mut all = vec![
        entry("automatic", "Automatic"),
        entry("uniform", "Uniform"),
        entry("polyexponential", "Polyexponential"),
    ];
    all.extend(TimestepSpacing::ALL.map(|spacing| entry(spacing.as_str(), spacing.a1111_label())));
    Json(json!(all))
}

pub(super) async fn upscalers(State(app): State<App>) -> Json<Value> {
    let entry =
        |name: &String| json!({"name": name, "model_name": null, "model_path": null, "model_url": null, "scale": 4});
    Json(app.upscalers.listed().iter().map(entry).collect())
}

pub(super) async fn realesrgan_models(State(app): State<App>) -> Json<Value> {
    let entry = |name: &String| json!({"name": name, "path": null, "scale": 4});
    Json(app.upscalers.networks().iter().map(entry).collect())
}

pub(super) async fn sd_models(State(app): State<App>) -> Result<Json<Value>, Refusal> {
    // Where a file lies is not for clients.
    let entry = |name: String| {
        json!({
            "title": name, "model_name": without_ending(&name), "hash": null, "sha256": null, "filename": name, "config": null,
        })
    };
    let (names, _) = app.models()?;
    Ok(Json(names.into_iter().map(entry).collect()))
}

pub(super) async fn scripts() -> Json<Value> {
    Json(json!({"txt2img": [], "img2img": []}))
}

pub(super) async fn embeddings(State(app): State<App>) -> Result<Json<Value>, Refusal> {
    let pipeline = app.pipeline()?;
    let entry = |width: usize, vectors: usize| json!({"step": null, "sd_checkpoint": null, "sd_checkpoint_name": null, "shape": width, "vectors": vectors});
    let loaded = pipeline.embeddings().iter();
    let loaded = loaded.map(|word| (word.name.clone(), entry(word.width, word.vectors)));
    let skipped = pipeline
        .skipped_embeddings()
        .iter()
        .map(|name| (name.clone(), json!({})));
    Ok(Json(json!({
        "loaded": loaded.collect::<Map<_, _>>(),
        "skipped": skipped.collect::<Map<_, _>>(),
    })))
}

pub(super) async fn loras(State(app): State<App>) -> Result<Json<Value>, Refusal> {
    let entry = |lora: LoraEntry| {
        // Where a file lies is not for clients.
        json!({"name": lora.name, "alias": lora.alias.unwrap_or(lora.name.clone()), "path": lora.name, "metadata": lora.metadata})
    };
    let loras = app.pipeline()?.loras();
    Ok(Json(loras.into_iter().map(entry).collect()))
}

/// Looks anew what is in the folder.
pub(super) async fn refresh_loras(State(app): State<App>) -> Result<Json<Value>, Refusal> {
    let model = app.model()?;
    let look = move || model.refresh_loras();
    // It reads files.
    let _ = tokio::task::spawn_blocking(look).await;
    Ok(Json(Value::Null))
}

pub(super) async fn cmd_flags() -> Json<Value> {
    Json(json!({"api": true}))
}

pub(super) async fn memory() -> Json<Value> {
    let used = resident_bytes();
    Json(json!({"ram": {"free": null, "used": used, "total": null}, "cuda": {"error": "this engine runs on the CPU"}}))
}

pub(super) async fn options(State(app): State<App>) -> Result<Json<Value>, Refusal> {
    let (names, current) = app.models()?;
    Ok(Json(json!({
        "sd_model_checkpoint": current,
        "sd_checkpoint_hash": "",
        "sd_vae": "None",
        "samples_format": "png",
        "CLIP_stop_at_last_layers": 1,
        "eta_noise_seed_delta": 0,
        "enable_pnginfo": true,
        "outdir_samples": "",
        "outdir_txt2img_samples": "",
        "outdir_img2img_samples": "",
        "sd_model_list": names,
    })))
}

/// Where files of pictures would go and what pages would show: of no effect here, and no picture is another for it.
const HARMLESS: [&str; 9] = [
    "samples_",
    "grid_",
    "save_",
    "outdir_",
    "directories_",
    "live_preview",
    "show_progress",
    "notification",
    "ui_",
];

/// The model can be changed, for all who name none; of the rest nothing that paints can, and a value that is there already is
/// taken without a word. As in the web UI, the answer comes when the model is there.
pub(super) async fn set_options(State(app): State<App>, request: Request) -> Result<Json<Value>, Refusal> {
    let wanted: Map<String, Value> = body::understood(&app.workshop, request, body::json).await?;
    let Json(have) = options(State(app.clone())).await?;
    let model = wanted.get(CHECKPOINT).and_then(Value::as_str);
    let model = model.filter(|name| !name.trim().is_empty());
    if let Some(name) = model
        && !app.engine.has_model(name)
    {
        let message = format!("{CHECKPOINT}: {}", app.no_model(name));
        return Err(Refusal::field(CHECKPOINT, message));
    }
    let fits = |(key, value): &(&String, &Value)| match key.as_str() {
        CHECKPOINT => true,
        key => have.get(key) == Some(value) || HARMLESS.iter().any(|start| key.starts_with(start)),
    };
    match wanted.iter().find(|option| !fits(option)) {
        Some((key, _)) => Err(Refusal::bad(format!(
            "the option {:?} cannot be changed here",
            short(key, 60)
        ))),
        None => {
            if let Some(name) = model {
                app.about(Some(name)).await?;
                app.engine.choose_model(name);
            }
            Ok(Json(json!({})))
        }
    }
}

const CHECKPOINT: &str = "sd_model_checkpoint";
