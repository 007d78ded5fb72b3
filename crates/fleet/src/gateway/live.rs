//! Live sessions: a WebSocket at a worker for each one here, and at another when that one is gone, with the last revision asked
//! for once more. The page notices nothing but the delay.

use super::App;
use super::client::{Client, check_words, without_token};
use super::refusal::{Refusal, refusal};
use super::wanted::Wanted;
use crate::accounts::{Accounts, Key};
use crate::registry::Presence;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message as Ours, WebSocket, WebSocketUpgrade};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as Theirs;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// A worker that does not take a session in this time is taken for gone.
const CONNECT: Duration = Duration::from_millis(800);
/// How long a page waits for any worker.
const PATIENCE: Duration = Duration::from_secs(10);
/// A worker's silence is noticed this often.
const LOOK_EVERY: Duration = Duration::from_millis(300);
const FAILED: u16 = 1013;
/// A key's session is counted, and the key looked up again, this often.
const COUNT_EVERY: Duration = Duration::from_secs(15);
const NOT_ALLOWED: u16 = 1008;

type Upstream = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Live sessions that each key has here. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Seats(Arc<Mutex<HashMap<String, u32>>>);

/// One of them; free again when dropped.
struct Seat {
    seats: Seats,
    name: String,
}

impl Seats {
    fn take(&self, key: &Key) -> Option<Seat> {
        let mut seats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = seats.entry(key.name.clone()).or_default();
        if key.limits.sessions > 0 && *taken >= key.limits.sessions {
            return None;
        }
        *taken += 1;
        Some(Seat {
            seats: self.clone(),
            name: key.name.clone(),
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = seats.get_mut(&self.name) {
            *taken -= 1;
            if *taken == 0 {
                seats.remove(&self.name);
            }
        }
    }
}

pub(super) async fn connect(
    State(app): State<App>,
    client: Client,
    uri: Uri,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Refusal> {
    client.take(&app).await?;
    let seat = client.key.as_ref().map(|key| {
        let none = || {
            let message = format!("this key may have {} live sessions at once", key.limits.sessions);
            refusal(StatusCode::TOO_MANY_REQUESTS, message).with_code("too_many_sessions")
        };
        app.seats.take(key).ok_or_else(none)
    });
    let seat = seat.transpose()?;
    let path = without_token(&uri);
    let place = format!("{}.{}", client.account, crate::job::token(&client.place));
    let accounts = app.options.accounts.clone();
    let upgraded = upgrade.max_message_size(32 << 20).on_upgrade(move |socket| async move {
        let counted = seat.as_ref().zip(accounts).map(|(seat, accounts)| Counted {
            accounts,
            name: seat.name.clone(),
            until: Instant::now(),
        });
        app.metrics.sessions.inc();
        let metrics = app.metrics.clone();
        let session = Session {
            app,
            place,
            path,
            last: None,
            greeted: false,
            counted,
        };
        Box::pin(session.run(socket)).await;
        metrics.sessions.dec();
    });
    Ok(upgraded)
}

/// Time of a key's session.
struct Counted {
    accounts: Accounts,
    name: String,
    /// What is written.
    until: Instant,
}

impl Counted {
    /// Writes the time since the last call; whether the key still opens anything.
    async fn count(&mut self) -> bool {
        let seconds = self.until.elapsed().as_secs();
        self.until += Duration::from_secs(seconds);
        if let Err(error) = self.accounts.count_live(&self.name, seconds).await {
            tracing::warn!("{error}");
        }
        !matches!(self.accounts.named(&self.name).await, Err(crate::Error::Account { .. }))
    }
}

struct Session {
    app: App,
    /// The lease's key: who comes again is put where they were.
    place: String,
    path: String,
    /// The last request to paint.
    last: Option<Ours>,
    /// The page had its hello.
    greeted: bool,
    counted: Option<Counted>,
}

/// Why a worker's part of a session ended.
enum End {
    /// The page left.
    Left,
    /// The worker closed it in order: the page hears why.
    Closed(Option<CloseFrame>),
    /// It is gone.
    Lost,
}

impl Session {
    async fn run(mut self, mut socket: WebSocket) {
        let mut lost: Vec<String> = Vec::new();
        loop {
            let Some((worker, upstream)) = self.find(&mut lost).await else {
                let reason = "no worker is ready; try again in a moment".into();
                let frame = CloseFrame { code: FAILED, reason };
                let _ = socket.send(Ours::Close(Some(frame))).await;
                return;
            };
            self.app.registry.count_session(&worker.name, true);
            let end = self.relay(&mut socket, upstream, &worker).await;
            self.app.registry.count_session(&worker.name, false);
            if let Some(counted) = &mut self.counted {
                counted.count().await;
            }
            match end {
                End::Left => return,
                End::Closed(frame) => {
                    let _ = socket.send(Ours::Close(frame)).await;
                    return;
                }
                End::Lost => {
                    self.app.metrics.sessions_moved.inc();
                    tracing::info!("worker {} is gone, its session goes on elsewhere", worker.name);
                    lost = vec![worker.name];
                }
            }
        }
    }

    /// A session at a worker: where this client was before, or where there are the fewest.
    async fn find(&self, lost: &mut Vec<String>) -> Option<(Presence, Upstream)> {
        let leases = &self.app.bus.leases;
        let lease = leases.get(&self.place).await.ok().flatten();
        let liked = lease.and_then(|name| String::from_utf8(name.to_vec()).ok());
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let Some(worker) = self.app.registry.for_session(liked.as_deref(), lost) else {
                // Perhaps one comes, or comes back.
                lost.clear();
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let connecting = async {
                let url = format!("{}{}", worker.url.replacen("http", "ws", 1), self.path);
                let mut request = url.into_client_request()?;
                if let Ok(token) = HeaderValue::from_str(&format!("Bearer {}", worker.token)) {
                    request.headers_mut().insert(AUTHORIZATION, token);
                }
                tokio_tungstenite::connect_async(request).await
            };
            if let Ok(Ok((upstream, _))) = tokio::time::timeout(CONNECT, connecting).await {
                // Without a lease the next session is only put where there is room.
                let _ = leases.put(&self.place, Bytes::from(worker.name.clone())).await;
                return Some((worker, upstream));
            }
            lost.push(worker.name);
        }
        None
    }

    async fn relay(&mut self, socket: &mut WebSocket, mut upstream: Upstream, worker: &Presence) -> End {
        if let Some(last) = self.last.clone()
            && upstream.send(theirs(last)).await.is_err()
        {
            return End::Lost;
        }
        let mut hello = self.greeted;
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut count = tokio::time::interval(COUNT_EVERY);
        loop {
            tokio::select! {
                message = socket.recv() => {
                    let Some(Ok(message)) = message else { return End::Left };
                    if matches!(message, Ours::Close(_)) {
                        let _ = upstream.close(None).await;
                        return End::Left;
                    }
                    if let Err(refused) = self.check(&message) {
                        if socket.send(refused).await.is_err() {
                            return End::Left;
                        }
                        continue;
                    }
                    self.remember(&message);
                    if upstream.send(theirs(message)).await.is_err() {
                        return End::Lost;
                    }
                }
                message = upstream.next() => match message {
                    Some(Ok(Theirs::Close(frame))) => {
                        let frame = frame.map(|frame| CloseFrame { code: frame.code.into(), reason: frame.reason.as_str().into() });
                        // A worker that leaves is no reason for the page to leave.
                        let is_leaving = frame.as_ref().is_some_and(|frame| frame.code == 1001);
                        return if is_leaving { End::Lost } else { End::Closed(frame) };
                    }
                    Some(Ok(message)) => {
                        // The page knows its server already.
                        if std::mem::take(&mut hello) && is_hello(&message) {
                            continue;
                        }
                        self.greeted = true;
                        let Some(message) = ours(message) else { continue };
                        if socket.send(message).await.is_err() {
                            return End::Left;
                        }
                    }
                    Some(Err(_)) | None => return End::Lost,
                },
                _ = count.tick() => {
                    if let Some(counted) = &mut self.counted && !counted.count().await {
                        let reason = "this key is not known any more".into();
                        return End::Closed(Some(CloseFrame { code: NOT_ALLOWED, reason }));
                    }
                }
                _ = look.tick() => {
                    // A worker that says nothing, on a connection that is not closed: its machine or its network is gone.
                    if !self.app.registry.has(&worker.name) && self.app.registry.for_session(None, &[]).is_some() {
                        return End::Lost;
                    }
                }
            }
        }
    }

    /// A revision with words that are not wanted goes no further: what the page is told instead.
    fn check(&self, message: &Ours) -> Result<(), Ours> {
        let text: &[u8] = match message {
            Ours::Text(text) => text.as_bytes(),
            // The length of a header in JSON, the header, a picture.
            Ours::Binary(bytes) => {
                let length = bytes
                    .get(..4)
                    .and_then(|length| length.try_into().ok())
                    .map(u32::from_le_bytes);
                let end = length.and_then(|length| (length as usize).checked_add(4));
                end.and_then(|end| bytes.get(4..end)).unwrap_or_default()
            }
            _ => return Ok(()),
        };
        let prompts = Wanted::of_a_message(text).prompts;
        check_words(&self.app, &prompts).map_err(|refused| {
            let rev = serde_json::from_slice::<serde_json::Value>(text).unwrap_or_default()["rev"].clone();
            let error = json!({"type": "error", "rev": rev, "message": refused.message(), "hint": ""});
            Ours::Text(error.to_string().into())
        })
    }

    fn remember(&mut self, message: &Ours) {
        let is_paint = |json: &[u8]| {
            let message: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
            message["type"] == "paint"
        };
        match message {
            Ours::Text(text) if is_paint(text.as_bytes()) => self.last = Some(message.clone()),
            // A picture came with it.
            Ours::Binary(_) => self.last = Some(message.clone()),
            _ => {}
        }
    }
}

fn is_hello(message: &Theirs) -> bool {
    let Theirs::Text(text) = message else { return false };
    serde_json::from_str::<serde_json::Value>(text).is_ok_and(|message| message["type"] == "hello")
}

fn theirs(message: Ours) -> Theirs {
    match message {
        Ours::Text(text) => Theirs::Text(text.as_str().into()),
        Ours::Binary(bytes) => Theirs::Binary(bytes),
        Ours::Ping(bytes) => Theirs::Ping(bytes),
        Ours::Pong(bytes) => Theirs::Pong(bytes),
        Ours::Close(_) => Theirs::Close(None),
    }
}

fn ours(message: Theirs) -> Option<Ours> {
    Some(match message {
        Theirs::Text(text) => Ours::Text(text.as_str().into()),
        Theirs::Binary(bytes) => Ours::Binary(bytes),
        Theirs::Ping(bytes) => Ours::Ping(bytes),
        Theirs::Pong(bytes) => Ours::Pong(bytes),
        Theirs::Close(_) | Theirs::Frame(_) => return None,
    })
}
