//! For supervisors and other programs: is it alive, is it ready, how busy is it, what does it speak.

use crate::app::App;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prima_engine::Readiness;
use serde_json::json;

/// The process answers.
pub(crate) async fn healthz() -> &'static str {
    "ok"
}

/// 200 once pictures can be painted; before that 503 with the stage of loading.
pub(crate) async fn readyz(State(app): State<App>) -> Response {
    let stage = app.engine.readiness();
    let status = match stage {
        Readiness::Ready => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let model = app.engine.pipeline().map(prima_pipeline::Pipeline::name);
    (
        status,
        Json(json!({"ready": stage == Readiness::Ready, "stage": stage.to_string(), "model": model})),
    )
        .into_response()
}

/// `GET /metrics`.
pub(crate) async fn metrics(State(app): State<App>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, app.metrics.text(app.engine.occupancy())).into_response()
}

/// The OpenAPI description.
pub(crate) async fn openapi() -> Response {
    let text = include_str!("openapi.json").replace("$VERSION", env!("CARGO_PKG_VERSION"));
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
