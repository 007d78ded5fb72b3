//! ComfyUI's API for the workflows that other programs send: a graph of nodes is read as what it asks for (a prompt, a size, a
//! picture to start from), painted, and told of over a WebSocket. A graph of other nodes is refused with their names. Nothing
//! is read from or written to the disk: uploads and pictures are kept in memory, the oldest leave.

mod controlnets;
pub(crate) mod events;
mod graph;
mod krita;
mod masks;
mod nodes;
pub(crate) mod prompts;
mod regions;
mod routes;
mod run;
pub(crate) mod shelf;
mod socket;
mod wanted;

pub(crate) use routes::asked;

use crate::app::App;
use axum::Router;
use axum::routing::{get, post};

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
        .route(&path("/etn/image/{id}"), get(krita::image).put(krita::put_image))
        .route(&path("/ws"), get(socket::connect))
}
