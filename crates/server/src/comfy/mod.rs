//! ComfyUI's API for the workflows that other programs send: a graph of nodes is read as what it asks for (a prompt, a size, a
//! picture to start from), painted, and told of over a WebSocket. A graph of other nodes is refused with their names. Nothing
//! is read from or written to the disk: uploads and pictures are kept in memory, the oldest leave.

mod events;
mod graph;
mod nodes;
mod routes;
mod run;
mod shelf;
mod socket;

pub(crate) use events::Events;
pub(crate) use run::Prompts;
pub(crate) use shelf::Shelf;

use crate::app::App;
use crate::refusal::Refusal;
use axum::Router;
use axum::routing::{get, post};
use serde_json::{Value, json};

/// The routes as ComfyUI has them, and below `/api`, where its page asks for them.
pub(crate) fn routes() -> Router<App> {
    Router::new().merge(at("")).merge(at("/api"))
}

fn at(prefix: &str) -> Router<App> {
    let path = |name: &str| format!("{prefix}{name}");
    Router::new()
        .route(&path("/prompt"), get(routes::remaining).post(routes::prompt))
        .route(&path("/queue"), get(routes::queue).post(routes::change_queue))
        .route(&path("/history"), get(routes::history).post(routes::change_history))
        .route(&path("/history/{id}"), get(routes::history_of))
        .route(&path("/view"), get(routes::view))
        .route(&path("/upload/image"), post(routes::upload))
        .route(&path("/interrupt"), post(routes::interrupt))
        .route(&path("/object_info"), get(routes::object_info))
        .route(&path("/object_info/{class}"), get(routes::object_info_of))
        .route(&path("/models"), get(routes::folders))
        .route(&path("/models/{folder}"), get(routes::models))
        .route(&path("/embeddings"), get(routes::embeddings))
        .route(&path("/system_stats"), get(routes::system_stats))
        .route(&path("/ws"), get(socket::connect))
}

/// Whether a refusal at this path takes ComfyUI's shape.
pub(crate) fn is_prompt(path: &str) -> bool {
    ["/prompt", "/api/prompt"].contains(&path)
}

/// `param` of the refusal is the node at fault, if one is.
pub(crate) fn shaped(refusal: &Refusal) -> Value {
    let (kind, message) = ("invalid_prompt", &refusal.message);
    let error = json!({"type": kind, "message": message, "details": "", "extra_info": {}});
    let mut nodes = json!({});
    if let Some(node) = &refusal.param {
        nodes[node.as_ref()] = json!({
            "errors": [{"type": kind, "message": message, "details": "", "extra_info": {}}],
            "dependent_outputs": [],
            "class_type": null,
        });
    }
    json!({"error": error, "node_errors": nodes})
}
