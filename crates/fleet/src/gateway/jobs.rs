//! Jobs: accepted when the queue has them on disk, waited for or asked about, cancelled, listed.

use super::client::{Client, check_words, without_token};
use super::refusal::{Refusal, refusal};
use super::wanted::Wanted;
use super::{App, proxy};
use crate::accounts::Accounts;
use crate::bus::{Bus, INLINE_BYTES, WAKE};
use crate::error::{Error, Result as FleetResult, refused};
use crate::job::{Class, Envelope, Record, State, digest, kept_headers, now_ms, unpacked_answer};
use crate::lanes::Place;
use async_nats::jetstream::kv::CreateErrorKind;
use async_nats::jetstream::message::PublishMessage;
use axum::Json;
use axum::extract::{Path, Request, State as Shared};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// A record is looked at this often even if nothing was heard of it.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A job that was counted so long ago was accepted, or never will be.
const OLD_MS: u64 = 60_000;
/// Jobs in a list.
const MOST_LISTED: usize = 1000;

/// Handlers that wait for a job's end. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Waiters {
    waiting: Arc<Mutex<HashMap<String, Arc<Notify>>>>,
}

impl Waiters {
    /// Wakes whoever waits for a job that changed, and writes its end to its key's account.
    pub async fn follow(self, bus: Bus, accounts: Option<Accounts>) -> FleetResult<()> {
        let mut changes = bus.records.watch_all().await.map_err(refused("the changes of jobs"))?;
        while let Some(change) = changes.next().await {
            let Ok(change) = change else { continue };
            self.wake(&change.key);
            if let Some(accounts) = &accounts
                && let Ok(record) = Record::read(&change.key, &change.value)
                && record.state.is_final()
            {
                settle(accounts, &record).await;
            }
        }
        Ok(())
    }

    fn wake(&self, id: &str) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(notify) = waiting.get(id) {
            notify.notify_waiters();
        }
    }

    pub fn of(&self, id: &str) -> Arc<Notify> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, notify| Arc::strong_count(notify) > 1);
        waiting.entry(id.to_owned()).or_default().clone()
    }
}

async fn settle(accounts: &Accounts, record: &Record) {
    let settled = accounts.settle(&record.id, record.state.name(), record.was_for_nothing());
    if let Err(error) = settled.await {
        // It is looked at again ([`settle_old`]).
        tracing::warn!("{error}");
    }
}

/// Writes ends that no gateway saw, and gives back what was counted for jobs that were never accepted.
pub(super) async fn settle_old(bus: Bus, accounts: Accounts) {
    loop {
        let open = accounts
            .open_jobs(now_ms().saturating_sub(OLD_MS), MOST_LISTED as u32)
            .await;
        for id in open.unwrap_or_default() {
            match bus.record(&id).await {
                Ok(Some((record, _))) if record.state.is_final() => settle(&accounts, &record).await,
                Ok(None) => drop(accounts.settle(&id, "lost", true).await),
                Ok(Some(_)) | Err(_) => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(OLD_MS)).await;
    }
}

/// Ends a job that nobody waits for any more.
struct CancelOnDrop<'a> {
    app: &'a App,
    id: Option<String>,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            let bus = self.app.bus.clone();
            tokio::spawn(async move { end(&bus, &id).await });
        }
    }
}

/// What the client said of its job in headers.
struct Wishes {
    /// Its own name for it: the same again is the same job.
    key: Option<String>,
    is_async: bool,
    deadline_ms: Option<u64>,
}

impl Wishes {
    fn read(headers: &HeaderMap) -> Result<Self, Refusal> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let seconds = text("prima-deadline-s").map(str::parse::<f64>).transpose();
        let seconds = seconds.ok().filter(|s| s.is_none_or(|s| s > 0.0 && s.is_finite()));
        let wrong = || {
            refusal(
                StatusCode::BAD_REQUEST,
                "prima-deadline-s is a number of seconds above 0",
            )
        };
        Ok(Self {
            key: text("idempotency-key").map(str::to_owned),
            is_async: text("prefer").is_some_and(|prefer| prefer.contains("respond-async")),
            deadline_ms: seconds.ok_or_else(wrong)?.map(|s| now_ms() + (s * 1e3) as u64),
        })
    }
}

/// Queues what is asked for; then waits for the answer, or says where it will be.
pub(super) async fn submit(app: &App, client: &Client, request: Request) -> Result<Response, Refusal> {
    let began = Instant::now();
    let wishes = Wishes::read(request.headers())?;
    client.take(app).await?;
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, app.options.body_bytes).await;
    let body = body.map_err(|e| refusal(StatusCode::PAYLOAD_TOO_LARGE, e.to_string()))?;
    let wanted = Wanted::read(&parts, &body).await;
    check_words(app, &wanted.prompts)?;
    let id = match &wishes.key {
        Some(key) => digest(&format!("{}\n{key}", client.account)),
        None => new_id(&client.account),
    };
    client.charge(app, &id, parts.uri.path(), wanted.pictures).await?;
    let place = Place {
        class: if wishes.is_async {
            Class::Batch
        } else {
            Class::Interactive
        },
        model: named_model(app, &wanted),
        lane: client.lane(),
    };
    let now = now_ms();
    let record = Record {
        id: id.clone(),
        account: client.account.clone(),
        class: place.class,
        model: place.model.clone(),
        path: parts.uri.path().to_owned(),
        state: State::Queued,
        tries: 0,
        created_ms: now,
        changed_ms: now,
    };
    let envelope = Envelope {
        id: id.clone(),
        path: without_token(&parts.uri),
        headers: kept_headers(&parts.headers),
        stored_body: (body.len() > INLINE_BYTES).then(|| format!("body.{id}")),
        deadline_ms: wishes.deadline_ms,
    };
    let record = accept(&app.bus, record, &place, &envelope, body).await?;
    app.metrics.accepted.with_label_values(&[place.class.name()]).inc();
    if wishes.is_async {
        let location = format!("/jobs/{id}");
        return Ok((StatusCode::ACCEPTED, [(LOCATION, location)], Json(shown(&record))).into_response());
    }
    let mut leaves = CancelOnDrop {
        app,
        // One that has a name may be asked for again.
        id: wishes.key.is_none().then(|| id.clone()),
    };
    let response = wait(app, &id).await;
    leaves.id = None;
    let seconds = began.elapsed().as_secs_f64();
    app.metrics
        .answer_seconds
        .with_label_values(&[place.class.name()])
        .observe(seconds);
    response
}

static SUBMITTED: AtomicU64 = AtomicU64::new(0);

/// Unlike any other's: the time, this process and a count.
fn new_id(account: &str) -> String {
    let count = SUBMITTED.fetch_add(1, Ordering::Relaxed);
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = nanos.map_or(0, |t| t.as_nanos());
    digest(&format!("{account}\n{nanos}\n{}\n{count}", std::process::id()))
}

/// The model that a request names, if a worker has it; `any`.
fn named_model(app: &App, wanted: &Wanted) -> String {
    let known = wanted.models.iter().find_map(|name| app.registry.model(name));
    known.unwrap_or_else(|| "any".into())
}

/// Writes the record, then queues the job: accepted is what came back from here. The same id again gives the job that is there,
/// which is queued once more if it was not begun: whoever came before may have died between the two.
async fn accept(bus: &Bus, record: Record, place: &Place, envelope: &Envelope, body: Bytes) -> FleetResult<Record> {
    let record = match bus.records.create(&record.id, record.written()).await {
        Ok(_) => record,
        Err(error) if error.kind() == CreateErrorKind::AlreadyExists => match bus.record(&record.id).await? {
            Some((existing, _)) if existing.state != State::Queued => return Ok(existing),
            Some((existing, _)) => existing,
            None => record,
        },
        Err(error) => return Err(refused("a job's record")(error)),
    };
    let payload = match &envelope.stored_body {
        Some(name) => {
            bus.store(name, &body).await?;
            Bytes::new()
        }
        None => body,
    };
    let head = serde_json::to_string(envelope).unwrap_or_default();
    let message = PublishMessage::build()
        .message_id(&record.id)
        .header("Prima-Job", head.as_str())
        .payload(payload);
    let sent = bus
        .jetstream
        .send_publish(place.subject(), message)
        .await
        .map_err(refused("a job"))?;
    sent.await.map_err(refused("a job"))?;
    // Workers look by themselves, if later.
    let _ = bus.client.publish(WAKE, Bytes::new()).await;
    Ok(record)
}

/// Until the job has ended: its answer.
async fn wait(app: &App, id: &str) -> Result<Response, Refusal> {
    let notify = app.waiters.of(id);
    loop {
        let changed = notify.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        match app.bus.record(id).await {
            Ok(Some((record, _))) if record.state.is_final() => return ended(app, &record).await,
            Ok(Some(_)) => {}
            Ok(None) => return Err(refusal(StatusCode::GONE, "the job is kept no longer")),
            // NATS may be away; the job is not.
            Err(error) => tracing::warn!("{error}"),
        }
        let _ = tokio::time::timeout(LOOK_EVERY, changed).await;
    }
}

async fn ended(app: &App, record: &Record) -> Result<Response, Refusal> {
    match &record.state {
        State::Done { answer, .. } => {
            let bytes = app.bus.stored(answer).await?;
            let (head, body) = unpacked_answer(answer, &bytes)?;
            let mut response = Response::new(body.into());
            *response.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::BAD_GATEWAY);
            proxy::put_headers(&mut response, &head.headers);
            Ok(response)
        }
        State::Failed { reason } => Err(refusal(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the job was given up: {reason}"),
        )),
        State::Cancelled => Err(refusal(StatusCode::GONE, "the job was cancelled")),
        State::Expired => Err(refusal(
            StatusCode::GATEWAY_TIMEOUT,
            "the job's deadline passed before its turn came",
        )),
        State::Queued | State::Running { .. } => Err(refusal(StatusCode::CONFLICT, "the job has not ended yet")),
    }
}

/// A record without what is nobody's business.
pub(super) fn shown(record: &Record) -> Record {
    let state = match &record.state {
        State::Done { status, .. } => State::Done {
            status: *status,
            answer: String::new(),
        },
        state => state.clone(),
    };
    Record {
        state,
        ..record.clone()
    }
}

/// Cancels a job that has not ended; what it is then.
async fn end(bus: &Bus, id: &str) -> FleetResult<Option<Record>> {
    loop {
        let Some((record, revision)) = bus.record(id).await? else {
            return Ok(None);
        };
        if record.state.is_final() {
            return Ok(Some(record));
        }
        if bus.turn(&record, revision, State::Cancelled).await?.is_some() {
            let told = bus.client.publish(format!("prima.cancel.{id}"), Bytes::new()).await;
            told.map_err(refused("a cancellation"))?;
            return Ok(Some(record.turned(State::Cancelled)));
        }
    }
}

/// The client's own job of that id.
pub(super) async fn own(app: &App, client: &Client, id: &str) -> Result<Record, Refusal> {
    let missing = || refusal(StatusCode::NOT_FOUND, "there is no such job");
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_id {
        return Err(missing());
    }
    let record = app.bus.record(id).await?.map(|(record, _)| record);
    record
        .filter(|record| record.account == client.account)
        .ok_or_else(missing)
}

pub(super) async fn one(Shared(app): Shared<App>, client: Client, Path(id): Path<String>) -> Result<Response, Refusal> {
    Ok(Json(shown(&own(&app, &client, &id).await?)).into_response())
}

pub(super) async fn answer(
    Shared(app): Shared<App>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    ended(&app, &own(&app, &client, &id).await?).await
}

pub(super) async fn cancel(
    Shared(app): Shared<App>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    own(&app, &client, &id).await?;
    let ended = end(&app.bus, &id).await?;
    Ok(Json(ended.as_ref().map(shown)).into_response())
}

/// The client's jobs, newest first.
pub(super) async fn list(Shared(app): Shared<App>, client: Client) -> Result<Response, Refusal> {
    let keys = app
        .bus
        .records
        .keys()
        .await
        .map_err(refused("the list of jobs"))
        .map_err(Refusal::from)?;
    let mut records = Vec::new();
    let mut keys = keys.take(MOST_LISTED * 10);
    while let Some(Ok(key)) = keys.next().await {
        match app.bus.record(&key).await {
            Ok(Some((record, _))) if record.account == client.account => records.push(shown(&record)),
            Ok(_) | Err(Error::Foreign { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    records.sort_by_key(|record| std::cmp::Reverse(record.created_ms));
    records.truncate(MOST_LISTED);
    Ok(Json(records).into_response())
}
