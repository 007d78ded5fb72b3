//! For supervisors and other programs: is it alive, is it ready, how busy is it, what does it speak.

use crate::app::App;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prima_engine::Readiness;
use serde_json::json;

/// Whether a path is one of those that are answered whatever else goes on.
pub(crate) fn is_check(path: &str) -> bool {
    ["/healthz", "/readyz", "/metrics"].contains(&path)
}

/// The process answers, and says what it knows of itself; whether it can paint is [`readyz`]'s matter.
pub(crate) async fn healthz(State(app): State<App>) -> String {
    match app.engine.readiness() {
        failed @ Readiness::Failed(_) => failed.to_string(),
        _ if *app.closing.borrow() => "shutting down".to_owned(),
        _ => "ok".to_owned(),
    }
}

/// 200 while pictures can be painted; else 503 with the stage of loading, the reason why it failed, or the shutdown.
pub(crate) async fn readyz(State(app): State<App>) -> Response {
    let readiness = app.engine.readiness();
    let closing = *app.closing.borrow();
    let ready = readiness == Readiness::Ready && !closing;
    let stage = if closing {
        "shutting down".to_owned()
    } else {
        readiness.to_string()
    };
    let models = app.engine.models();
    let model = models.iter().find(|model| model.current).map(|model| &model.name);
    let body = Json(json!({"ready": ready, "stage": stage, "model": model}));
    if ready {
        body.into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "2")], body).into_response()
    }
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
