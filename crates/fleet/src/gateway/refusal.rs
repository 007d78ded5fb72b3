//! What a client is told when it cannot have what it asked for, in the shape that the API it speaks uses for errors.

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::time::Duration;

/// A status and a sentence.
#[derive(Clone, Debug)]
pub(in crate::gateway) struct Refusal {
    status: StatusCode,
    message: String,
    /// What OpenAI's clients read to tell refusals of one status apart.
    code: Option<&'static str>,
    retry_after: Option<Duration>,
}

pub(in crate::gateway) fn refusal(status: StatusCode, message: impl Into<String>) -> Refusal {
    Refusal {
        status,
        message: message.into(),
        code: None,
        retry_after: None,
    }
}

pub(in crate::gateway) fn unavailable(message: impl Into<String>) -> Refusal {
    Refusal {
        retry_after: Some(Duration::from_secs(2)),
        ..refusal(StatusCode::SERVICE_UNAVAILABLE, message)
    }
}

impl Refusal {
    pub fn with_code(self, code: &'static str) -> Self {
        Self {
            code: Some(code),
            ..self
        }
    }

    /// It may be tried again after so long.
    pub fn again_in(self, wait: Duration) -> Self {
        Self {
            retry_after: Some(wait),
            ..self
        }
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn code(&self) -> &'static str {
        self.code.unwrap_or("other")
    }
}

impl From<crate::Error> for Refusal {
    fn from(error: crate::Error) -> Self {
        tracing::warn!("{error}");
        // What the machines say to each other is not a client's business.
        unavailable("the service cannot take this at the moment; try again")
    }
}

impl IntoResponse for Refusal {
    /// The plain shape; [`shape`] turns it into that of the path's API.
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "error": self.message }))).into_response();
        let headers = response.headers_mut();
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, (wait.as_secs_f64().ceil().max(1.0) as u64).into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Gives a refusal the shape of the API that the path belongs to.
pub(in crate::gateway) async fn shape(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    let Some(refusal) = response.extensions_mut().remove::<Refusal>() else {
        return response;
    };
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    let body = Json(shaped(&path, &refusal)).into_response().into_body();
    Response::from_parts(parts, body)
}

fn shaped(path: &str, refusal: &Refusal) -> Value {
    let Refusal {
        status, message, code, ..
    } = refusal;
    if path.ends_with("/predictions") {
        let title = status.canonical_reason().unwrap_or("Error");
        return json!({"title": title, "detail": message, "status": status.as_u16()});
    }
    if path.starts_with("/v1/") {
        let kind = match (status.as_u16(), *code) {
            (429, Some("insufficient_quota")) => "insufficient_quota",
            (401, _) => "authentication_error",
            (403, _) => "permission_error",
            (429 | 503, _) => "rate_limit_error",
            (500.., _) => "server_error",
            _ => "invalid_request_error",
        };
        return json!({"error": {"message": message, "type": kind, "param": null, "code": code}});
    }
    if path.starts_with("/sdapi/") {
        let kind = if status.is_server_error() {
            "ServerError"
        } else {
            "HTTPException"
        };
        return json!({"error": kind, "detail": message, "body": "", "errors": message});
    }
    if ["/prompt", "/api/prompt"].contains(&path) {
        let error =
            json!({"type": code.unwrap_or("invalid_prompt"), "message": message, "details": "", "extra_info": {}});
        return json!({"error": error, "node_errors": {}});
    }
    json!({ "error": message })
}
