//! Request bodies: bounded in bytes and in time, and JSON with sentences for errors.

use crate::connections::Peer;
use crate::options::Limits;
use crate::refusal::Refusal;
use crate::workshop::Workshop;
use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::StatusCode;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Bodies in memory: so many bytes of all clients together, and half as many of one.
pub(crate) struct Bodies {
    most: usize,
    held: Mutex<(usize, HashMap<Option<Peer>, usize>)>,
}

/// What one request holds of it; given back when dropped.
pub(crate) struct Share {
    bodies: Arc<Bodies>,
    peer: Option<Peer>,
    bytes: usize,
}

impl Bodies {
    pub fn new(most: usize) -> Arc<Self> {
        let held = Mutex::default();
        Arc::new(Self { most, held })
    }

    pub fn share(self: &Arc<Self>, peer: Option<Peer>) -> Share {
        Share {
            bodies: self.clone(),
            peer,
            bytes: 0,
        }
    }

    fn held(&self) -> MutexGuard<'_, (usize, HashMap<Option<Peer>, usize>)> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Bytes that have arrived; `false` if there is no room for them.
    fn grow(&mut self, bytes: usize) -> bool {
        let mut held = self.bodies.held();
        let (all, by_peer) = &mut *held;
        let own = by_peer.get(&self.peer).copied().unwrap_or(0);
        if *all + bytes > self.bodies.most || own + bytes > self.bodies.most / 2 {
            return false;
        }
        *all += bytes;
        by_peer.insert(self.peer, own + bytes);
        self.bytes += bytes;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.bodies.held();
        let (all, by_peer) = &mut *held;
        *all -= self.bytes;
        if let Some(own) = by_peer.get_mut(&self.peer) {
            *own -= self.bytes;
            if *own == 0 {
                by_peer.remove(&self.peer);
            }
        }
    }
}

/// The whole body, as fast as it has to come.
pub(crate) async fn receive(limits: &Limits, share: &mut Share, body: Body) -> Result<Bytes, Refusal> {
    if body.size_hint().lower() > limits.body_bytes as u64 {
        return Err(Refusal::too_large(limits.body_bytes));
    }
    let began = Instant::now();
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    loop {
        // By when more has to be there, at the pace that is asked for.
        let paced = Duration::from_secs_f64(bytes.len() as f64 / limits.body_bytes_per_second as f64);
        let until = began + limits.body_time.min(limits.body_grace + paced);
        let chunk = match timeout_at(until, chunks.next()).await {
            Ok(Some(Ok(chunk))) => chunk,
            Ok(Some(Err(_))) => return Err(Refusal::bad("the request body broke off")),
            Ok(None) => return Ok(bytes.into()),
            Err(_) => return Err(too_slow(limits)),
        };
        if bytes.len() + chunk.len() > limits.body_bytes {
            return Err(Refusal::too_large(limits.body_bytes));
        }
        if !share.grow(chunk.len()) {
            return Err(Refusal::queue_full());
        }
        bytes.extend_from_slice(&chunk);
    }
}

fn too_slow(limits: &Limits) -> Refusal {
    let (seconds, pace) = (limits.body_time.as_secs(), limits.body_bytes_per_second);
    let message =
        format!("the request body did not arrive within {seconds} s, or came at less than {pace} bytes a second");
    Refusal::new(StatusCode::REQUEST_TIMEOUT, message)
}

/// The body of a request that was let in ([`receive`]).
pub(crate) async fn read(body: Body) -> Result<Bytes, Refusal> {
    to_bytes(body, usize::MAX)
        .await
        .map_err(|_| Refusal::bad("the request body broke off"))
}

/// A body as `meaning` has it, which is not sought on the event loop if it is long.
pub(crate) async fn understood<T: Send + 'static>(
    workshop: &Workshop,
    request: Request,
    meaning: impl FnOnce(&[u8]) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let bytes = read(request.into_body()).await?;
    workshop.understand(bytes, meaning).await
}

/// A JSON body.
pub(crate) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(not_taken)
}

/// JSON whose values are not those of the route.
pub(crate) fn not_taken(error: serde_json::Error) -> Refusal {
    Refusal::bad(format!("the request body is not what this route takes: {error}"))
}

/// One part of a form.
pub(crate) struct Part {
    pub name: String,
    /// A file's, if it is one.
    pub file_name: Option<String>,
    pub bytes: Bytes,
}

impl Part {
    pub fn text(&self) -> Result<String, Refusal> {
        String::from_utf8(self.bytes.to_vec()).map_err(|_| Refusal::bad(format!("{} is not text in UTF-8", self.name)))
    }
}

/// A `multipart/form-data` body, at most `most` parts.
pub(crate) async fn form(request: Request, most: usize) -> Result<Vec<Part>, Refusal> {
    let (head, body) = request.into_parts();
    let bytes = read(body).await?;
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
        let file_name = field.file_name().map(str::to_owned);
        let bytes = field.bytes().await.map_err(|e| wrong(e.body_text()))?;
        parts.push(Part { name, file_name, bytes });
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn one_address_does_not_take_the_room_of_all() {
        let bodies = Bodies::new(100);
        let peer = |last| Some(Peer::of(IpAddr::from([192, 0, 2, last])));
        let (mut first, mut second, mut other) = (bodies.share(peer(1)), bodies.share(peer(1)), bodies.share(peer(2)));
        assert!(first.grow(30) && first.grow(10));
        assert!(!second.grow(11) && second.grow(10), "50 of 100 are one address's");
        assert!(other.grow(50));
        assert!(!bodies.share(peer(3)).grow(1));
        drop((first, second, other));
        let held = bodies.held();
        assert!(held.0 == 0 && held.1.is_empty());
    }
}
