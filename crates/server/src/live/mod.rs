//! The live protocol, docs/live-protocol.md: one WebSocket a session.

mod chosen;
mod layers;
mod messages;
mod outbox;
mod results;
mod tasks;
mod words;

use crate::app::App;
use crate::connections::Peer;
use crate::refusal::Refusal;
use crate::{guard, workshop};
use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use chosen::Chosen;
use futures_util::SinkExt;
use futures_util::stream::{SplitSink, SplitStream, StreamExt};
use layers::Given;
use messages::{ClientMessage, Hello, Refused};
use outbox::{Next, Outbox};
use prima_engine::{Counts, Found, Readiness, Session};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};

/// The end of a session by the server: a close code and its sentence.
pub(crate) struct Goodbye {
    code: u16,
    reason: String,
}

const POLICY: u16 = 1008;
const TOO_BIG: u16 = 1009;
const GOING_AWAY: u16 = 1001;
const FAILED: u16 = 1011;
const TRY_LATER: u16 = 1013;

/// Whoever is not heard of for this long, not even answering pings, is gone.
const SILENCE: Duration = Duration::from_secs(90);
const PING_EVERY: Duration = Duration::from_secs(30);

impl Goodbye {
    fn new(code: u16, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
        }
    }
}

/// `GET /live`. A browser shows close codes to the page, but not the status of a refused upgrade:
/// so everyone is let in, and who may not stay is told why.
pub(crate) async fn connect(
    State(app): State<App>,
    headers: HeaderMap,
    uri: Uri,
    peer: Option<Extension<Peer>>,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let upgrade = upgrade.map_err(|_| Refusal::bad("/live is a WebSocket (docs/live-protocol.md)"))?;
    let admitted = guard::check_origin(&app, &headers)
        .and_then(|()| guard::check_token(&app, peer.map(|Extension(peer)| peer), &headers, &uri))
        .map_err(|refusal| Goodbye::new(POLICY, refusal.message))
        .and_then(|()| {
            let many = || Goodbye::new(TRY_LATER, "there are too many sessions; try again in a moment");
            app.sessions.clone().try_acquire_owned().map_err(|_| many())
        });
    let most = app.limits().image_bytes + app.limits().message_bytes;
    Ok(upgrade
        .max_message_size(most)
        .max_frame_size(most)
        // What a client does not read stays in the outbox, where newer frames replace older ones.
        .write_buffer_size(0)
        .max_write_buffer_size(64 << 20)
        .on_upgrade(move |socket| async move {
            match admitted {
                Ok(permit) => serve(app, socket, permit).await,
                Err(goodbye) => {
                    count_close(&app, goodbye.code);
                    let (mut sink, _) = socket.split();
                    close(&mut sink, goodbye).await;
                }
            }
        }))
}

fn count_close(app: &App, code: u16) {
    app.metrics.closed.with_label_values(&[code.to_string().as_str()]).inc();
}

async fn close(sink: &mut SplitSink<WebSocket, Message>, goodbye: Goodbye) {
    // A reason has at most 123 bytes.
    let mut reason = goodbye.reason;
    while reason.len() > 123 {
        reason.pop();
    }
    let frame = CloseFrame {
        code: goodbye.code,
        reason: reason.into(),
    };
    let _ = timeout(Duration::from_secs(2), sink.send(Message::Close(Some(frame)))).await;
    let _ = timeout(Duration::from_secs(2), sink.close()).await;
}

/// A session from hello to goodbye: one task reads, one writes, whichever ends first ends both.
async fn serve(app: App, socket: WebSocket, permit: OwnedSemaphorePermit) {
    let (mut sink, stream) = socket.split();
    let session = app.engine.session();
    let outbox = Arc::new(Outbox::default());
    let mut seen = Counts::default();
    let counter = session.counter();
    tracing::debug!("session opened");
    let ended = tokio::select! {
        goodbye = read(&app, stream, &session, &outbox) => goodbye,
        goodbye = write(&app, &mut sink, &outbox, &counter, &mut seen) => goodbye,
    };
    let last = counter();
    count_revisions(&app, &mut seen, last);
    drop(session);
    if let Some(goodbye) = ended {
        tracing::info!(code = goodbye.code, reason = goodbye.reason, "session closed");
        count_close(&app, goodbye.code);
        close(&mut sink, goodbye).await;
    } else {
        tracing::debug!("session left");
        // Its own close frame is answered with one.
        let _ = timeout(Duration::from_secs(2), sink.close()).await;
    }
    drop(permit);
}

fn count_revisions(app: &App, seen: &mut Counts, now: Counts) {
    app.metrics
        .revisions_dropped
        .inc_by(now.dropped.saturating_sub(seen.dropped));
    app.metrics
        .revisions_cancelled
        .inc_by(now.cancelled.saturating_sub(seen.cancelled));
    *seen = now;
}

/// Reads until the client leaves (`None`) or has to.
async fn read(
    app: &App,
    mut stream: SplitStream<WebSocket>,
    session: &Session,
    outbox: &Arc<Outbox>,
) -> Option<Goodbye> {
    if let Err(goodbye) = greet(app, outbox).await {
        return Some(goodbye);
    }
    let mut chosen = Chosen::default();
    let mut closing = app.closing.subscribe();
    let mut rate = Rate::new(app.limits().messages_per_second, app.limits().message_burst);
    loop {
        // A client that does not take what it asked for may not ask for more.
        outbox.until_it_moves().await;
        let message = tokio::select! {
            message = timeout(SILENCE, stream.next()) => match message {
                Ok(message) => message?,
                Err(_) => return Some(Goodbye::new(POLICY, format!("nothing was heard for {} s", SILENCE.as_secs()))),
            },
            _ = closing.wait_for(|&closing| closing) => return Some(Goodbye::new(GOING_AWAY, "the server is shutting down")),
        };
        let message = match message {
            Ok(message) => message,
            Err(error) => return too_big(app, &error),
        };
        if !rate.allows(Instant::now()) {
            let most = app.limits().messages_per_second;
            return Some(Goodbye::new(POLICY, format!("more than {most} messages a second")));
        }
        let result = match message {
            Message::Text(text) => take(app, session, &mut chosen, outbox, text.as_bytes(), None).await,
            Message::Binary(bytes) => take_binary(app, session, &mut chosen, outbox, bytes).await,
            Message::Close(_) => return None,
            Message::Ping(_) | Message::Pong(_) => Ok(()),
        };
        if let Err((rev, refusal)) = result {
            outbox.error(rev, &refusal.message, "");
        }
    }
}

fn too_big(app: &App, error: &axum::Error) -> Option<Goodbye> {
    let source = std::error::Error::source(error)
        .map(ToString::to_string)
        .unwrap_or_default();
    let capacity = source.contains("too long") || source.contains("too big") || error.to_string().contains("too long");
    let most = app.limits().image_bytes + app.limits().message_bytes;
    capacity.then(|| Goodbye::new(TOO_BIG, format!("a message has more than the {most} bytes allowed")))
}

/// Waits for the model and says hello.
async fn greet(app: &App, outbox: &Outbox) -> Result<(), Goodbye> {
    let mut closing = app.closing.subscribe();
    let model = loop {
        match (app.engine.readiness(), app.engine.model(None)) {
            (Readiness::Failed(reason), _) | (_, Found::Failed(reason)) => {
                return Err(Goodbye::new(FAILED, format!("the model cannot be used: {reason}")));
            }
            (Readiness::Ready, Found::Ready(model)) => break model,
            _ => {}
        }
        tokio::select! {
            () = sleep(Duration::from_millis(30)) => {}
            _ = closing.wait_for(|&closing| closing) => return Err(Goodbye::new(GOING_AWAY, "the server is shutting down")),
        }
    };
    if let Ok(names) = app.models() {
        outbox.text(&Hello::new(&model, names, app.limits()));
    }
    Ok(())
}

/// A message with pictures.
async fn take_binary(
    app: &App,
    session: &Session,
    chosen: &mut Chosen,
    outbox: &Arc<Outbox>,
    bytes: Bytes,
) -> Result<(), Refused> {
    let (header, payload) = messages::unpacked(&bytes, app.limits())?;
    take(app, session, chosen, outbox, &header, Some(payload)).await
}

/// One message in JSON, and what came with it.
async fn take(
    app: &App,
    session: &Session,
    chosen: &mut Chosen,
    outbox: &Arc<Outbox>,
    json: &[u8],
    payload: Option<Bytes>,
) -> Result<(), Refused> {
    let (rev, task) = match messages::understood(json, app.limits())? {
        ClientMessage::Ping { id } => {
            outbox.pong(&id);
            return Ok(());
        }
        ClientMessage::Cancel { rev } => {
            session.cancel(rev.saturating_add(1));
            outbox.forget(rev);
            return Ok(());
        }
        ClientMessage::Model { name } => {
            let changed = chosen.change(app, session, outbox, name).await;
            return changed.map_err(|refusal| (None, refusal));
        }
        ClientMessage::Paint(paint) => (paint.rev, tasks::Task::paint(paint)),
        ClientMessage::Variants(variants) => (variants.paint.rev, tasks::Task::variants(variants)),
        ClientMessage::Sensitivity(paint) => (paint.rev, tasks::Task::sensitivity(paint)),
    };
    let failed = |refusal| (Some(rev), refusal);
    let app = chosen.app(app, outbox).await.map_err(failed)?;
    let given = Given::read(&app, task.asked(), payload).await.map_err(failed)?;
    let units = task.units(&app, given, outbox).map_err(failed)?;
    // The engine's revisions begin after 0.
    if !session.replace(rev.saturating_add(1), units) {
        return Err(failed(Refusal::bad(format!(
            "revision {rev} is not newer than the one before it"
        ))));
    }
    Ok(())
}

/// Reads a message as far as the units that it asks for and the session's slot, in which nothing is painted.
pub(crate) async fn asked(app: &App, session: &Session, message: &Bytes, binary: bool) -> Result<(), Refusal> {
    let (outbox, mut chosen) = (Arc::default(), Chosen::default());
    let taken = if binary {
        take_binary(app, session, &mut chosen, &outbox, message.clone()).await
    } else {
        take(app, session, &mut chosen, &outbox, message, None).await
    };
    taken.map_err(|(_, refusal)| refusal)
}

/// Sends what is in the outbox until the socket breaks (`None`) or the client has not taken a byte
/// for too long.
async fn write(
    app: &App,
    sink: &mut SplitSink<WebSocket, Message>,
    outbox: &Arc<Outbox>,
    counter: &(dyn Fn() -> Counts + Send + Sync),
    seen: &mut Counts,
) -> Option<Goodbye> {
    loop {
        let Ok(next) = timeout(PING_EVERY, outbox.next()).await else {
            // A client that is there answers, and is heard.
            if !matches!(
                timeout(app.limits().stall, sink.send(Message::Ping("?".into()))).await,
                Ok(Ok(()))
            ) {
                return None;
            }
            continue;
        };
        let message = match next {
            Next::Text(text) => Message::Text(text.into()),
            Next::Frame(frame) => {
                let counts = counter();
                count_revisions(app, seen, counts);
                match workshop::off_the_loop(move || frame.to_message(counts)).await {
                    Ok(bytes) => {
                        app.metrics.frames_sent.inc();
                        Message::Binary(bytes.into())
                    }
                    Err(_) => continue,
                }
            }
        };
        let sent = timeout(app.limits().stall, sink.send(message)).await;
        outbox.sent();
        app.metrics.frames_replaced.inc_by(outbox.take_replaced());
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return None,
            Err(_) => {
                let seconds = app.limits().stall.as_secs();
                return Some(Goodbye::new(POLICY, format!("nothing was read for {seconds} s")));
            }
        }
    }
}

/// A token bucket.
struct Rate {
    per_second: f64,
    burst: f64,
    tokens: f64,
    filled: Instant,
}

impl Rate {
    fn new(per_second: f64, burst: f64) -> Self {
        Self {
            per_second,
            burst,
            tokens: burst,
            filled: Instant::now(),
        }
    }

    fn allows(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        self.tokens = (self.tokens + elapsed * self.per_second).min(self.burst);
        self.tokens -= 1.0;
        self.tokens >= 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_a_flood_is_not() {
        let mut rate = Rate::new(60.0, 240.0);
        let mut now = Instant::now();
        let at_once = (0..1000).take_while(|_| rate.allows(now)).count();
        assert!((239..=241).contains(&at_once), "{at_once}");
        now += Duration::from_secs(10);
        for _ in 0..600 {
            now += Duration::from_millis(20);
            assert!(rate.allows(now), "50 messages a second are fine");
        }
    }
}
