//! What a client is told when it cannot have what it asked for: one sentence, in the shape that
//! the API it speaks uses for errors.

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prima_engine::Failure;
use serde_json::{Value, json};
use std::borrow::Cow;

/// A status and a sentence.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub status: StatusCode,
    pub message: String,
    /// The field at fault, where the API has a place to say so.
    pub param: Option<Cow<'static, str>>,
    /// Seconds.
    pub retry_after: Option<u64>,
}

impl Refusal {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            param: None,
            retry_after: None,
        }
    }

    /// The request is at fault.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// The request is at fault in this field.
    pub fn field(param: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            param: Some(param.into()),
            ..Self::bad(message)
        }
    }

    /// Later, perhaps.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self {
            retry_after: Some(2),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
        }
    }

    pub fn queue_full() -> Self {
        Self::unavailable("too many requests are waiting already; try again in a moment")
    }

    pub fn too_large(limit_bytes: usize) -> Self {
        let message = format!("the request body is larger than the {limit_bytes} bytes allowed");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    pub fn wrong_method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "this route does not take that method")
    }

    pub fn unknown_route(path: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            format!(
                "there is nothing at {}; /openapi.json lists what there is",
                short(path, 200)
            ),
        )
    }

    pub fn defect() -> Self {
        let message = "the request met a defect of prima; the log says more";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
}

/// The beginning of a client's own text, for an error to quote.
pub(crate) fn short(text: &str, chars: usize) -> String {
    if text.chars().count() <= chars {
        return text.to_owned();
    }
    text.chars().take(chars).chain("...".chars()).collect()
}

impl From<prima_pipeline::Error> for Refusal {
    fn from(error: prima_pipeline::Error) -> Self {
        Failure::from(error).into()
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Request {
                field: Some(field),
                message,
            } => Self::field(field, message),
            Failure::Request { field: None, message } => Self::bad(message),
            Failure::Cancelled => Self::unavailable("the request was cancelled before it was painted"),
            Failure::Defect { message } => {
                tracing::error!("caught a panic: {message}");
                Self::defect()
            }
            Failure::Machine { message } => Self::new(StatusCode::INTERNAL_SERVER_ERROR, message),
        }
    }
}

impl From<prima_picture::Error> for Refusal {
    fn from(error: prima_picture::Error) -> Self {
        use prima_picture::Error as E;
        match &error {
            E::NotAPicture { .. } | E::Metadata { .. } | E::Png { .. } => Self::bad(error.to_string()),
            E::Encode { .. } => {
                tracing::error!("{error}");
                Self::defect()
            }
        }
    }
}

impl IntoResponse for Refusal {
    /// The plain shape; [`shape`] turns it into that of the route's API.
    fn into_response(self) -> Response {
        let body = Json(json!({"error": self.message}));
        let mut response = (self.status, body).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Gives a refusal the shape of the API that the path belongs to.
pub(crate) async fn shape(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    let Some(refusal) = response.extensions_mut().remove::<Refusal>() else {
        return response;
    };
    let (status, body) = shaped(&path, &refusal);
    let (mut parts, _) = response.into_parts();
    parts.status = status;
    parts.headers.remove(header::CONTENT_LENGTH);
    let body = Json(body).into_response().into_body();
    Response::from_parts(parts, body)
}

fn shaped(path: &str, refusal: &Refusal) -> (StatusCode, Value) {
    let Refusal {
        status, message, param, ..
    } = refusal;
    if path.ends_with("/predictions") {
        let title = status.canonical_reason().unwrap_or("Error");
        let body = json!({"title": title, "detail": message, "status": status.as_u16()});
        return (*status, body);
    }
    if path.starts_with("/v1/") {
        let kind = match status.as_u16() {
            401 => "authentication_error",
            503 | 429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        let body = json!({"error": {"message": message, "type": kind, "param": param, "code": null}});
        return (*status, body);
    }
    if path.starts_with("/sdapi/") {
        // FastAPI's status for what it cannot use.
        let status = match *status {
            StatusCode::BAD_REQUEST => StatusCode::UNPROCESSABLE_ENTITY,
            other => other,
        };
        let kind = if status.is_server_error() {
            "ServerError"
        } else {
            "HTTPException"
        };
        let body = json!({"error": kind, "detail": message, "body": "", "errors": message});
        return (status, body);
    }
    if ["/prompt", "/api/prompt"].contains(&path) {
        return (*status, of_a_graph(refusal));
    }
    (*status, json!({"error": message}))
}

/// ComfyUI's shape. The field at fault is a node, if one is.
fn of_a_graph(refusal: &Refusal) -> Value {
    let error = json!({"type": "invalid_prompt", "message": refusal.message, "details": "", "extra_info": {}});
    let mut nodes = json!({});
    if let Some(node) = &refusal.param {
        nodes[node.as_ref()] = json!({"errors": [error], "dependent_outputs": [], "class_type": null});
    }
    json!({"error": error, "node_errors": nodes})
}
