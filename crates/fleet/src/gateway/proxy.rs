//! Requests that a worker answers at once: lists, the page, the state of a client's own things.

use super::App;
use super::client::{Client, without_token};
use super::refusal::{Refusal, refusal, unavailable};
use crate::job::travels;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use futures_util::TryStreamExt;
use std::str::FromStr;

/// Passes `request` on to the client's worker, and the answer back as it comes.
pub(super) async fn pass(app: &App, client: &Client, request: Request) -> Result<Response, Refusal> {
    let worker = app.registry.for_client(&client.place);
    let worker = worker.ok_or_else(|| unavailable("no worker is ready"))?;
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, app.options.body_bytes).await;
    let body = body.map_err(|e| refusal(StatusCode::PAYLOAD_TOO_LARGE, e.to_string()))?;
    let url = format!("{}{}", worker.url, without_token(&parts.uri));
    let mut passed = app
        .http
        .request(parts.method, url)
        .bearer_auth(&worker.token)
        .body(body);
    for (name, value) in parts.headers.iter().filter(|(name, _)| travels(name.as_str())) {
        passed = passed.header(name, value);
    }
    let answer = passed.send().await;
    let answer = answer.map_err(|e| unavailable(format!("worker {} does not answer: {e}", worker.name)))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    for (name, value) in answer.headers().iter().filter(|(name, _)| travels(name.as_str())) {
        response.headers_mut().append(name, value.clone());
    }
    *response.body_mut() = Body::from_stream(answer.bytes_stream().map_err(std::io::Error::other));
    Ok(response)
}

/// Headers that were kept as text.
pub(super) fn put_headers(response: &mut Response, headers: &[(String, String)]) {
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::from_str(name), HeaderValue::from_str(value)) {
            response.headers_mut().append(name, value);
        }
    }
}
