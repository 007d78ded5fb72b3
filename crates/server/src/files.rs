//! The page's files: embedded at build time, or a folder's while the page is being worked on.

use crate::app::App;
use crate::refusal::Refusal;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};
use std::fmt::Write as _;
use std::path::Path;

#[derive(RustEmbed)]
#[folder = "../../web"]
#[include = "*.html"]
#[include = "*.css"]
#[include = "*.js"]
#[include = "*.svg"]
#[include = "*.png"]
#[include = "*.ico"]
#[include = "*.json"]
#[include = "*.webmanifest"]
#[include = "*.woff2"]
#[exclude = "node_modules/*"]
#[exclude = "package*.json"]
#[exclude = "*sconfig.json"]
struct Embedded;

/// `GET /` and everything that no other route takes.
pub(crate) async fn serve(State(app): State<App>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path();
    if !matches!(method, Method::GET | Method::HEAD) {
        return Refusal::unknown_route(path).into_response();
    }
    let name = match path.trim_start_matches('/') {
        "" => "index.html",
        "favicon.ico" => "icon.svg",
        name => name,
    };
    let known = Embedded::iter().any(|file| file == name);
    // With a folder, new files too, but only plain names below it.
    let plain = name
        .split('/')
        .all(|part| !part.is_empty() && !part.starts_with('.') && !part.contains(['\\', ':', '%']));
    if let Some(folder) = app.options.web_dir.as_ref().filter(|_| plain) {
        return match std::fs::read(folder.join(name)) {
            Ok(bytes) => answer(name, bytes, "no-store"),
            Err(_) => Refusal::unknown_route(path).into_response(),
        };
    }
    match Embedded::get(name).filter(|_| known) {
        Some(file) => cached(name, file, &headers),
        None => Refusal::unknown_route(path).into_response(),
    }
}

/// The page changes with the binary: a browser asks each time, and is told when nothing changed.
fn cached(name: &str, file: EmbeddedFile, headers: &HeaderMap) -> Response {
    let mut tag = String::from("\"");
    for byte in &file.metadata.sha256_hash()[..12] {
        let _ = write!(tag, "{byte:02x}");
    }
    tag.push('"');
    let asked = headers.get(header::IF_NONE_MATCH).and_then(|h| h.to_str().ok());
    if asked == Some(tag.as_str()) {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
    }
    let mut response = answer(name, file.data.into_owned(), "no-cache");
    if let Ok(tag) = tag.parse() {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

fn answer(name: &str, bytes: Vec<u8>, cache: &'static str) -> Response {
    let kind = match Path::new(name).extension().and_then(|e| e.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("json") => "application/json",
        Some("webmanifest") => "application/manifest+json",
        Some("woff2") => "font/woff2",
        _ => "application/octet-stream",
    };
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, cache)], bytes).into_response()
}
