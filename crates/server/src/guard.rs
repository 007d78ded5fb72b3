//! Who may use the server, and what browsers are told to enforce.

use crate::app::App;
use crate::body;
use crate::connections::Peer;
use crate::refusal::Refusal;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use std::time::Instant;
use subtle::ConstantTimeEq;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

/// Scripts and styles come from the page's own files only, nothing is loaded from elsewhere, and
/// nobody may frame the page.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
                   media-src 'self' blob:; font-src 'self'; connect-src 'self'; worker-src 'self' blob:; \
                   manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS: &[(&str, &str)] = &[
    ("content-security-policy", CSP),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    (
        "permissions-policy",
        "camera=(self), display-capture=(self), clipboard-write=(self), fullscreen=(self), microphone=(), geolocation=(), \
         payment=(), usb=()",
    ),
];

/// Adds the headers above to every response.
pub(crate) async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    // A response that other origins may read says so itself.
    let shared = headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN);
    for &(name, value) in HEADERS {
        let value = if shared && name == "cross-origin-resource-policy" {
            "cross-origin"
        } else {
            value
        };
        headers
            .entry(HeaderName::from_static(name))
            .or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Other sites' pages may use the server only from the origins of `--cors`.
pub(crate) fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let origins = origins.iter().filter_map(|o| HeaderValue::from_str(o).ok());
    Some(
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins))
            .allow_methods([Method::GET, Method::POST])
            .allow_headers([header::CONTENT_TYPE, header::AUTHORIZATION])
            .expose_headers(Any),
    )
}

/// Refuses requests that a foreign page sends (also the "simple" ones that browsers do not ask
/// about first), and names that are not this machine's where no token protects the server: a
/// foreign name that resolves to this machine (DNS rebinding) is no way in.
pub(crate) async fn own_origin(State(app): State<App>, request: Request, next: Next) -> Response {
    if let Err(refusal) = check_host(&app, request.headers(), request.uri()) {
        return refusal.into_response();
    }
    // The WebSocket answers for itself, with a close code.
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !reads && let Err(refusal) = check_origin(&app, request.headers()) {
        return refusal.into_response();
    }
    next.run(request).await
}

fn check_host(app: &App, headers: &HeaderMap, uri: &Uri) -> Result<(), Refusal> {
    if app.options.token.is_some() || !app.address.ip().is_loopback() {
        return Ok(());
    }
    let host = uri
        .host()
        .map(str::to_owned)
        .or_else(|| Some(name_of(headers.get(header::HOST)?.to_str().ok()?).to_owned()));
    match host {
        Some(host) if !is_loopback(&host) => Err(Refusal::new(
            StatusCode::MISDIRECTED_REQUEST,
            "this server answers to localhost only; start it with --token to use it under another name",
        )),
        _ => Ok(()),
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    }
}

/// The origin a browser names must be the page's own, or one of `--cors`.
pub(crate) fn check_origin(app: &App, headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(());
    };
    let origin = origin.to_str().unwrap_or("");
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("");
    let own = is_own(origin, host, app.address.ip().is_loopback());
    if own || app.options.cors.iter().any(|allowed| allowed == origin) {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::FORBIDDEN,
        "pages of other sites may not use this server; --cors ORIGIN allows one",
    ))
}

/// Whether a page of `origin` came from the server that is asked as `host`. Of a server that only this machine reaches, the
/// names of this machine are one.
fn is_own(origin: &str, host: &str, on_loopback: bool) -> bool {
    // TLS, where there is any, ends before this server.
    let authority = origin.strip_prefix("http://").map(|a| (a, "80"));
    let Some((authority, port)) = authority.or_else(|| origin.strip_prefix("https://").map(|a| (a, "443"))) else {
        return false;
    };
    if host.is_empty() || authority.eq_ignore_ascii_case(host) {
        return !host.is_empty();
    }
    let port_of = |host: &str| {
        let port = host[name_of(host).len()..].strip_prefix(':').unwrap_or(port);
        port.to_owned()
    };
    let this_machine = |host: &str| ["localhost", "127.0.0.1", "[::1]"].contains(&name_of(host));
    on_loopback && this_machine(authority) && this_machine(host) && port_of(authority) == port_of(host)
}

/// Everything but the page's files and the health checks wants the token, where there is one.
pub(crate) async fn authorize(State(app): State<App>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    match check_token(&app, peer, request.headers(), request.uri()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// `peer`: who asks, to whom wrong tokens are counted.
pub(crate) fn check_token(app: &App, peer: Option<Peer>, headers: &HeaderMap, uri: &Uri) -> Result<(), Refusal> {
    let Some(token) = &app.options.token else { return Ok(()) };
    let given = given_tokens(headers, uri);
    let now = Instant::now();
    if let Some(wait) = peer
        .and_then(|peer| app.attempts.wait(peer, now))
        .filter(|_| !given.is_empty())
    {
        let seconds = wait.as_secs() + 1;
        let message = format!("too many wrong tokens came from this address; try again in {seconds} s");
        return Err(Refusal {
            retry_after: Some(seconds),
            ..Refusal::new(StatusCode::TOO_MANY_REQUESTS, message)
        });
    }
    let right = given
        .iter()
        .any(|given| bool::from(given.as_bytes().ct_eq(token.as_bytes())));
    if right {
        return Ok(());
    }
    if let Some(peer) = peer.filter(|_| !given.is_empty()) {
        app.attempts.wrong(peer, now);
    }
    let message = "this server wants its token, as the header `Authorization: Bearer TOKEN` or as `?token=TOKEN`";
    Err(Refusal::new(StatusCode::UNAUTHORIZED, message))
}

/// A bearer header, a `token` in the query, or the password of the basic scheme that A1111's
/// clients speak.
fn given_tokens(headers: &HeaderMap, uri: &Uri) -> Vec<String> {
    let mut found = Vec::new();
    let authorization = headers.get(header::AUTHORIZATION).and_then(|h| h.to_str().ok());
    if let Some((scheme, value)) = authorization.and_then(|a| a.split_once(' ')) {
        if scheme.eq_ignore_ascii_case("bearer") {
            found.push(value.trim().to_owned());
        } else if scheme.eq_ignore_ascii_case("basic") {
            let decoded = base64::engine::general_purpose::STANDARD
                .decode(value.trim())
                .unwrap_or_default();
            let decoded = String::from_utf8(decoded).unwrap_or_default();
            found.extend(decoded.split_once(':').map(|(_, password)| password.to_owned()));
        }
    }
    if let Ok(axum::extract::Query(query)) =
        axum::extract::Query::<std::collections::HashMap<String, String>>::try_from_uri(uri)
    {
        found.extend(query.get("token").cloned());
    }
    found
}

/// Takes in a request's body, bounded in bytes and in time, before its route is asked: one that does not arrive holds nothing
/// but its own connection.
pub(crate) async fn admit(State(app): State<App>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let peer = parts.extensions.get::<Peer>().copied();
    let mut share = app.bodies.share(peer);
    match body::receive(app.limits(), &mut share, body).await {
        Ok(bytes) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// At shutdown: what comes anew is refused, what is being answered is refused when the farewell is over, and connections end.
/// Health checks are answered to the last.
pub(crate) async fn leave_in_time(State(app): State<App>, request: Request, next: Next) -> Response {
    if crate::health::is_check(request.uri().path()) {
        return next.run(request).await;
    }
    let leaving = || {
        let mut response = Refusal::unavailable("the server is shutting down").into_response();
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
        response
    };
    if *app.closing.borrow() {
        return leaving();
    }
    let mut cut_off = app.cut_off.subscribe();
    tokio::select! {
        response = next.run(request) => response,
        _ = cut_off.wait_for(|&over| over) => leaving(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_names() {
        for host in [
            "localhost:7860",
            "127.0.0.1:1",
            "[::1]:7860",
            "a.localhost",
            "LOCALHOST",
        ] {
            assert!(is_loopback(name_of(host)), "{host}");
        }
        for host in ["evil.example:7860", "127.0.0.1.evil.example", "192.168.1.2"] {
            assert!(!is_loopback(name_of(host)), "{host}");
        }
    }

    #[test]
    fn a_page_of_this_server_is_its_own_and_others_are_not() {
        for (origin, host, on_loopback) in [
            ("http://localhost:7860", "localhost:7860", true),
            ("http://localhost:7860", "127.0.0.1:7860", true),
            ("http://[::1]:7860", "localhost:7860", true),
            ("http://127.0.0.1:7860", "[::1]:7860", true),
            ("http://localhost", "127.0.0.1:80", true),
            ("http://paint.example:7860", "paint.example:7860", false),
            ("https://paint.example", "paint.example", false),
        ] {
            assert!(is_own(origin, host, on_loopback), "{origin} {host}");
        }
        for (origin, host, on_loopback) in [
            ("evil://localhost:7860", "localhost:7860", true),
            ("file://localhost:7860", "localhost:7860", true),
            ("null", "localhost:7860", true),
            ("http://", "", true),
            ("http://localhost:7861", "127.0.0.1:7860", true),
            ("https://localhost", "127.0.0.1:80", true),
            ("http://localhost:7860", "127.0.0.1:7860", false),
            ("http://localhost.evil.example:7860", "127.0.0.1:7860", true),
            ("http://a.localhost:7860", "127.0.0.1:7860", true),
            ("http://evil.example:7860", "localhost:7860", true),
        ] {
            assert!(!is_own(origin, host, on_loopback), "{origin} {host}");
        }
    }
}
