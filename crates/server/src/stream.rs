//! The newest picture of the live sessions as MJPEG over HTTP, which OBS and browsers take in as a moving picture.

use crate::app::App;
use crate::refusal::Refusal;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use prima_picture::{Format, QUALITY, encode};
use prima_pipeline::Picture;
use std::sync::Arc;

/// Between the parts of the stream.
const BOUNDARY: &str = "prima";

/// `GET /studio/stream`: each picture as it is painted, as a JPEG, until the client or the server goes. A client that reads slowly
/// sees fewer pictures, never older ones.
pub(crate) async fn stream(State(app): State<App>) -> Result<Response, Refusal> {
    let Some(newest) = app.screen.watched() else {
        let message = "the stream is off: start the server with `prima serve --stream`";
        return Err(Refusal::new(StatusCode::CONFLICT, message));
    };
    let first = stream::iter([Ok(Bytes::from(format!("--{BOUNDARY}\r\n")))]);
    let closing = app.closing.subscribe();
    let parts = stream::unfold((app, newest, closing), |(app, mut newest, mut closing)| async move {
        loop {
            tokio::select! {
                changed = newest.changed() => changed.ok()?,
                _ = closing.wait_for(|&closing| closing) => return None,
            }
            let picture = newest.borrow_and_update().clone();
            let Some(picture) = picture else { continue };
            let part = part(&app, picture).await;
            return Some((part, (app, newest, closing)));
        }
    });
    let body = Body::from_stream(stream::StreamExt::chain(first, parts));
    let kind = format!("multipart/x-mixed-replace; boundary={BOUNDARY}");
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((headers, body).into_response())
}

/// One picture, and the boundary behind it: a browser shows a part when it has seen its end.
async fn part(app: &App, picture: Arc<Picture>) -> Result<Bytes, std::io::Error> {
    let bytes = 4 * picture.rgb.len();
    let packed = app
        .workshop
        .run(bytes, move || Ok(encode(&picture, Format::Jpeg, QUALITY, None)?))
        .await;
    let jpeg = packed.map_err(|refusal| std::io::Error::other(refusal.message))?;
    let mut part = format!("Content-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", jpeg.len()).into_bytes();
    part.extend(jpeg);
    part.extend(format!("\r\n--{BOUNDARY}\r\n").bytes());
    Ok(part.into())
}
