//! `/ws`: what happens to a client's prompts.

use super::run::remaining;
use crate::app::App;
use crate::guard;
use crate::refusal::Refusal;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

#[derive(Deserialize)]
pub(super) struct Who {
    #[serde(rename = "clientId")]
    client: Option<String>,
}

/// Clients say little: what they may send at once.
const MOST_BYTES: usize = 64 << 10;

pub(super) async fn connect(
    State(app): State<App>,
    headers: HeaderMap,
    Query(who): Query<Who>,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let upgrade = upgrade.map_err(|_| Refusal::bad("/ws is a WebSocket"))?;
    guard::check_origin(&app, &headers)?;
    let permit = app.sessions.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Refusal::unavailable("there are too many sessions; try again in a moment"))?;
    let client = who.client.filter(|id| !id.is_empty() && id.len() <= 200);
    Ok(upgrade
        .max_message_size(MOST_BYTES)
        .max_frame_size(MOST_BYTES)
        .on_upgrade(move |socket| async move {
            serve(&app, socket, client).await;
            drop(permit);
        }))
}

/// Until the client leaves, takes nothing for too long, or the server ends.
async fn serve(app: &App, socket: WebSocket, client: Option<String>) {
    let mut events = app.comfy_events.listen();
    let mut closing = app.closing.subscribe();
    let (mut sink, mut stream) = socket.split();
    let mut hello = remaining(app);
    hello["sid"] = json!(client);
    let hello = Message::Text(json!({"type": "status", "data": hello}).to_string().into());
    let stall = app.limits().stall;
    if !matches!(timeout(stall, sink.send(hello)).await, Ok(Ok(()))) {
        return;
    }
    let mut ping = tokio::time::interval(Duration::from_secs(30));
    loop {
        let message = tokio::select! {
            event = events.recv() => match event {
                Ok(event) if event.client.is_none() || event.client == client => event.message,
                Ok(_) | Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => break,
            },
            // What clients say (the features that they know) changes nothing; that they leave does.
            said = stream.next() => match said {
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => continue,
            },
            _ = ping.tick() => Message::Ping(axum::body::Bytes::new()),
            _ = closing.wait_for(|&over| over) => break,
        };
        if !matches!(timeout(stall, sink.send(message)).await, Ok(Ok(()))) {
            return;
        }
    }
    let _ = timeout(Duration::from_secs(2), sink.close()).await;
}
