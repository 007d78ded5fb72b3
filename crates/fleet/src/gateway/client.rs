//! Who asks, whether they may, and how they are refused.

use super::App;
use crate::job::digest;
use axum::Json;
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::net::SocketAddr;
use subtle::ConstantTimeEq;

/// A request that is not served, in the shape that most clients read.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    message: String,
}

pub(super) fn refusal(status: StatusCode, message: impl Into<String>) -> Refusal {
    Refusal {
        status,
        message: message.into(),
    }
}

pub(super) fn unavailable(message: impl Into<String>) -> Refusal {
    refusal(StatusCode::SERVICE_UNAVAILABLE, message)
}

impl From<crate::Error> for Refusal {
    fn from(error: crate::Error) -> Self {
        tracing::warn!("{error}");
        unavailable(error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({ "error": { "message": self.message }, "detail": self.message });
        (self.status, Json(body)).into_response()
    }
}

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Client {
    /// Whose jobs these are; from the token, or `anyone`.
    pub account: String,
    /// Whose requests go to the same worker.
    pub place: String,
}

/// What the page itself is made of, which shows nothing of anybody's.
fn is_open(path: &str) -> bool {
    const OPEN: [&str; 6] = ["/", "/index.html", "/icon.svg", "/healthz", "/readyz", "/openapi.json"];
    OPEN.contains(&path) || path.starts_with("/js/") || path.starts_with("/css/")
}

/// Who may not ask is refused before the request's body is read.
impl FromRequestParts<App> for Client {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        admit(app, parts)
    }
}

fn admit(app: &App, parts: &Parts) -> Result<Client, Refusal> {
    let (headers, uri) = (&parts.headers, &parts.uri);
    let address = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(origin) = text(ORIGIN) {
        let host = origin.split_once("://").map_or(origin, |(_, host)| host);
        if Some(host) != text(HOST) {
            return Err(refusal(
                StatusCode::FORBIDDEN,
                format!("pages of {origin} may not use this server"),
            ));
        }
    }
    let place = address.map_or_else(String::new, |address| address.ip().to_string());
    let Some(token) = &app.options.token else {
        return Ok(Client {
            account: "anyone".into(),
            place,
        });
    };
    let given = given_token(headers, uri);
    let is_right = given
        .as_deref()
        .is_some_and(|given| given.as_bytes().ct_eq(token.as_bytes()).into());
    if is_right || is_open(uri.path()) {
        return Ok(Client {
            account: digest(token),
            place,
        });
    }
    let message = "a token is wanted, as `Authorization: Bearer TOKEN` or `?token=TOKEN`";
    Err(refusal(StatusCode::UNAUTHORIZED, message))
}

fn given_token(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| value.strip_prefix("Bearer "));
    bearer.map(str::to_owned).or_else(|| {
        let pairs = uri.query().unwrap_or("").split('&');
        pairs
            .filter_map(|pair| pair.strip_prefix("token="))
            .map(str::to_owned)
            .next()
    })
}

/// A path with its query, less the token, which was the gateway's.
pub(super) fn without_token(uri: &Uri) -> String {
    let pairs = uri.query().unwrap_or("").split('&');
    let kept: Vec<&str> = pairs
        .filter(|pair| !pair.is_empty() && !pair.starts_with("token="))
        .collect();
    if kept.is_empty() {
        uri.path().to_owned()
    } else {
        format!("{}?{}", uri.path(), kept.join("&"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_in_the_query_goes_no_further() {
        let left = |uri: &str| without_token(&uri.parse().unwrap());
        assert_eq!(left("/a?token=secret"), "/a");
        assert_eq!(left("/a?x=1&token=secret&y=2"), "/a?x=1&y=2");
        assert_eq!(left("/a"), "/a");
    }
}
