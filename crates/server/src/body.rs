//! Request bodies: bounded in bytes and in time, and JSON with sentences for errors.

use crate::app::App;
use crate::options::Limits;
use crate::refusal::Refusal;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

/// The whole body.
pub(crate) async fn read(limits: &Limits, body: Body) -> Result<Bytes, Refusal> {
    match timeout(limits.body_time, to_bytes(body, limits.body_bytes)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => {
            let too_large = std::error::Error::source(&error).is_some_and(|e| e.to_string().contains("limit"));
            Err(if too_large {
                Refusal::too_large(limits.body_bytes)
            } else {
                Refusal::bad("the request body broke off")
            })
        }
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            format!(
                "the request body did not arrive within {} s",
                limits.body_time.as_secs()
            ),
        )),
    }
}

/// A JSON body.
pub(crate) async fn json<T: DeserializeOwned>(app: &App, request: Request) -> Result<T, Refusal> {
    let bytes = read(app.limits(), request.into_body()).await?;
    parse(&bytes)
}

pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes)
        .map_err(|e| Refusal::bad(format!("the request body is not what this route takes: {e}")))
}

/// One part of a form.
pub(crate) struct Part {
    pub name: String,
    pub bytes: Bytes,
}

impl Part {
    pub fn text(&self) -> Result<String, Refusal> {
        String::from_utf8(self.bytes.to_vec()).map_err(|_| Refusal::bad(format!("{} is not text in UTF-8", self.name)))
    }
}

/// A `multipart/form-data` body, at most `most` parts.
pub(crate) async fn form(app: &App, request: Request, most: usize) -> Result<Vec<Part>, Refusal> {
    let (head, body) = request.into_parts();
    let bytes = read(app.limits(), body).await?;
    let mut request = Request::from_parts(head, Body::from(bytes));
    // The bytes are here and counted.
    axum::extract::DefaultBodyLimit::disable().apply(&mut request);
    let wrong = |reason: String| Refusal::bad(format!("the request body is not a multipart form: {reason}"));
    let mut multipart = Multipart::from_request(request, &())
        .await
        .map_err(|e| wrong(e.body_text()))?;
    let mut parts = Vec::new();
    while let Some(field) = multipart.next_field().await.map_err(|e| wrong(e.body_text()))? {
        if parts.len() == most {
            return Err(Refusal::bad(format!("the form has more than {most} parts")));
        }
        let name = field.name().unwrap_or("").to_owned();
        let bytes = field.bytes().await.map_err(|e| wrong(e.body_text()))?;
        parts.push(Part { name, bytes });
    }
    Ok(parts)
}
