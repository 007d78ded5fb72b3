//! Progress and interruption. The web UI has one job at a time; here each request is a task of its
//! own, named by its `force_task_id`, and `?task_id=` picks one. Without it the oldest is meant.

use crate::app::App;
use crate::pictures::to_base64;
use crate::refusal::Refusal;
use crate::watch::Watch;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use prima_picture::{Format, QUALITY, encode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::{Arc, PoisonError};

/// A request among those that can be asked about; leaves the list when dropped.
pub(super) struct Registered {
    app: App,
    watch: Arc<Watch>,
}

impl Registered {
    pub fn new(app: &App, watch: Arc<Watch>) -> Self {
        let mut tasks = app.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.push(watch.clone());
        drop(tasks);
        Self {
            app: app.clone(),
            watch,
        }
    }

    pub fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut tasks = self.app.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|task| !Arc::ptr_eq(task, &self.watch));
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    task_id: Option<String>,
    skip_current_image: bool,
}

type Asked = Result<Query<Which>, QueryRejection>;

fn which(asked: Asked) -> Result<Which, Refusal> {
    asked
        .map(|Query(which)| which)
        .map_err(|e| Refusal::bad(format!("the query is not what this route takes: {}", e.body_text())))
}

fn find(app: &App, id: Option<&str>) -> Option<Arc<Watch>> {
    let tasks = app.tasks.lock().unwrap_or_else(PoisonError::into_inner);
    match id {
        Some(id) => tasks
            .iter()
            .find(|task| task.id == id)
            .cloned()
            .or_else(|| app.named.get(id)),
        // What is being painted, else what waits first.
        None => tasks
            .iter()
            .find(|task| task.snapshot().begun)
            .or(tasks.first())
            .cloned(),
    }
}

pub(super) async fn progress(State(app): State<App>, asked: Asked) -> Result<Json<Value>, Refusal> {
    let which = which(asked)?;
    let Some(task) = find(&app, which.task_id.as_deref()) else {
        return Ok(Json(answer(
            0.0,
            0.0,
            &json!({"job": "", "job_count": 0, "job_no": 0}),
            None,
        )));
    };
    let snapshot = task.snapshot();
    if !which.skip_current_image {
        task.want_preview();
    }
    let progress = task.progress();
    let elapsed = task.began.elapsed().as_secs_f64();
    let eta = if progress > 0.0 {
        elapsed / progress - elapsed
    } else {
        0.0
    };
    let state = json!({
        "job": task.id,
        "job_count": task.units,
        "job_no": snapshot.unit,
        "sampling_step": snapshot.step,
        "sampling_steps": snapshot.steps,
        "interrupted": task.is_interrupted(),
        "skipped": task.is_skipped(),
    });
    let picture = snapshot.preview.filter(|_| !which.skip_current_image);
    let image = match picture {
        Some(picture) => {
            let pack = move || Ok(to_base64(&encode(&picture, Format::Png, QUALITY, None)?));
            Some(app.workshop.behind(pack).await?)
        }
        None => None,
    };
    Ok(Json(answer(progress, eta, &state, image)))
}

fn answer(progress: f64, eta: f64, state: &Value, image: Option<String>) -> Value {
    let mut full = json!({
        "skipped": false, "interrupted": false, "stopping_generation": false, "job": "", "job_count": 0, "job_timestamp": "0",
        "job_no": 0, "sampling_step": 0, "sampling_steps": 0,
    });
    if let (Some(full), Some(state)) = (full.as_object_mut(), state.as_object()) {
        full.extend(state.clone());
    }
    json!({"progress": progress, "eta_relative": eta, "state": full, "current_image": image, "textinfo": null})
}

pub(super) async fn interrupt(State(app): State<App>, asked: Asked) -> Result<Json<Value>, Refusal> {
    if let Some(task) = find(&app, which(asked)?.task_id.as_deref()) {
        task.interrupt();
    }
    Ok(Json(json!({})))
}

pub(super) async fn skip(State(app): State<App>, asked: Asked) -> Result<Json<Value>, Refusal> {
    if let Some(task) = find(&app, which(asked)?.task_id.as_deref()) {
        task.skip();
    }
    Ok(Json(json!({})))
}
