//! A worker: takes jobs off the queue, asks its own server, and stores what that answers.
//!
//! A job is acknowledged after its answer is in the record, so a worker that dies at any moment leaves the job to another. Two
//! may then paint the same; whose answer comes first is the one there is.

use crate::bus::{ACK_WAIT, Bus, WAKE};
use crate::error::{Error, Result, refused};
use crate::job::{AnswerHead, Envelope, Record, State, kept_headers, now_ms, packed_answer, token};
use crate::lanes::{Place, Turns};
use crate::metrics::{self, WorkerMetrics};
use crate::progress;
use crate::registry::{HEARTBEAT, Presence};
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::{AckKind, Message};
use bytes::Bytes;
use futures_util::StreamExt;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// Workers that may begin a job before it is given up.
pub(crate) const MAX_TRIES: u64 = 4;
/// A place of the queue says by then whether it has a job.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// Hands on places of the queue that are kept.
const MOST_QUEUES: usize = 1024;
/// A queue is looked at this often even if nobody says that something came.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What a worker holds changes seldom.
const MODELS_EVERY: Duration = Duration::from_secs(3);
/// A server that has no room is asked again after this long.
const BUSY: Duration = Duration::from_secs(1);

/// How a worker is run.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// Unlike every other's.
    pub name: String,
    /// Its own server, as it reaches it itself, and what that wants.
    pub server_url: String,
    pub server_token: String,
    /// The same as gateways reach it.
    pub advertised_url: String,
    /// Jobs at once.
    pub slots: usize,
    /// Where `GET /metrics` says what the worker did; its server's own metrics are at its server.
    pub metrics: Option<SocketAddr>,
}

struct Worker {
    bus: Bus,
    options: WorkerOptions,
    http: reqwest::Client,
    metrics: Arc<WorkerMetrics>,
    jobs: AtomicUsize,
    draining: AtomicBool,
    /// Names of models; empty until the server is ready.
    models: watch::Sender<Vec<String>>,
}

/// Works until `shutdown`, then ends what it has begun.
pub async fn worker(bus: Bus, options: WorkerOptions, shutdown: impl Future<Output = ()>) -> Result<()> {
    let slots = options.slots.max(1);
    let worker = Arc::new(Worker {
        bus,
        options,
        http: reqwest::Client::builder().no_proxy().build().map_err(|e| server(&e))?,
        metrics: Arc::new(WorkerMetrics::new()?),
        jobs: AtomicUsize::new(0),
        draining: AtomicBool::new(false),
        models: watch::channel(Vec::new()).0,
    });
    if let Some(address) = worker.options.metrics {
        let metrics = worker.metrics.clone();
        let text = move || {
            let metrics = metrics.clone();
            async move { metrics.text() }
        };
        tokio::spawn(metrics::serve(TcpListener::bind(address).await?, text));
    }
    let presence = tokio::spawn(worker.clone().stay_present());
    let permits = Arc::new(Semaphore::new(slots));
    tokio::select! {
        ended = worker.clone().take_jobs(permits.clone()) => ended?,
        () = shutdown => {}
    }
    worker.draining.store(true, Ordering::Relaxed);
    worker.say_presence().await;
    // Whoever works gives its permit back at the end.
    let _ = permits.acquire_many(slots as u32).await;
    presence.abort();
    let _ = worker.bus.workers.delete(&worker.options.name).await;
    let _ = worker.bus.client.flush().await;
    Ok(())
}

fn server(error: &reqwest::Error) -> Error {
    Error::Server {
        message: error.to_string(),
    }
}

impl Worker {
    async fn stay_present(self: Arc<Self>) {
        let mut asked: Option<Instant> = None;
        loop {
            if asked.is_none_or(|at| at.elapsed() > MODELS_EVERY) || self.models.borrow().is_empty() {
                let models = self.served_models().await.unwrap_or_default();
                self.models.send_if_modified(|now| {
                    let changed = *now != models;
                    *now = models;
                    changed
                });
                asked = Some(Instant::now());
            }
            self.say_presence().await;
            tokio::time::sleep(HEARTBEAT).await;
        }
    }

    /// NATS may be away: the next heartbeat says it again.
    async fn say_presence(&self) {
        let models = self.models.borrow().clone();
        let presence = Presence {
            name: self.options.name.clone(),
            url: self.options.advertised_url.clone(),
            token: self.options.server_token.clone(),
            ready: !models.is_empty(),
            models,
            draining: self.draining.load(Ordering::Relaxed),
            jobs: self.jobs.load(Ordering::Relaxed),
        };
        let value = serde_json::to_vec(&presence).unwrap_or_default();
        let put = self.bus.workers.put(&presence.name, value.into());
        if let Ok(Err(error)) = tokio::time::timeout(HEARTBEAT * 2, put).await {
            tracing::debug!("presence was not said: {error}");
        }
    }

    /// What the server lists, once it is ready.
    async fn served_models(&self) -> Result<Vec<String>> {
        let get = async |path: &str| {
            let request = self.http.get(format!("{}{path}", self.options.server_url));
            let request = request
                .bearer_auth(&self.options.server_token)
                .timeout(Duration::from_secs(5));
            let answer = request.send().await.and_then(reqwest::Response::error_for_status);
            answer.map_err(|e| server(&e))
        };
        get("/readyz").await?;
        let list: serde_json::Value = get("/v1/models").await?.json().await.map_err(|e| server(&e))?;
        let names = list["data"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|model| model["id"].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    /// Takes jobs as it has slots for them.
    async fn take_jobs(self: Arc<Self>, permits: Arc<Semaphore>) -> Result<()> {
        let mut wake = self.bus.client.subscribe(WAKE).await.map_err(refused("to be woken"))?;
        let mut models = self.models.subscribe();
        let mut queues: HashMap<String, PullConsumer> = HashMap::new();
        let mut turns = Turns::default();
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else {
                return Ok(());
            };
            if models.wait_for(|models| !models.is_empty()).await.is_err() {
                return Ok(());
            }
            let wanted = models.borrow_and_update().clone();
            match self.next_job(&mut queues, &mut turns, &wanted).await {
                Ok(Some(message)) => {
                    let worker = self.clone();
                    tokio::spawn(async move {
                        worker.work_on(&message).await;
                        drop(permit);
                    });
                    continue;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!("{error}");
                    queues.clear();
                }
            }
            let _ = tokio::time::timeout(LOOK_EVERY, wake.next()).await;
        }
    }

    /// The oldest of the client whose turn it is ([`lanes`](crate::lanes)).
    async fn next_job(
        &self,
        queues: &mut HashMap<String, PullConsumer>,
        turns: &mut Turns,
        models: &[String],
    ) -> Result<Option<Message>> {
        let models: Vec<String> = models.iter().map(|model| token(model)).collect();
        let places = self.bus.places().await?.into_iter().map(|(place, _)| place);
        let mut places: Vec<Place> = places
            .filter(|place| place.model == "any" || models.contains(&place.model))
            .collect();
        turns.order(&mut places);
        for place in places {
            let name = place.name();
            if !queues.contains_key(&name) {
                if queues.len() >= MOST_QUEUES {
                    queues.clear();
                }
                queues.insert(name.clone(), self.bus.consumer(&place).await?);
            }
            let batch = queues[&name].fetch().max_messages(1).messages().await;
            let mut batch = batch.map_err(refused("a job"))?;
            let taken = tokio::time::timeout(ANSWERS_WITHIN, batch.next()).await;
            if let Ok(Some(message)) = taken {
                turns.serve(&place.lane);
                return message.map(Some).map_err(refused("a job"));
            }
            // All are at other workers, or the queue forgot the client while it was away: then nobody answers here any more.
            queues.remove(&name);
        }
        Ok(None)
    }

    async fn work_on(&self, message: &Message) {
        self.jobs.fetch_add(1, Ordering::Relaxed);
        self.metrics.at_work.inc();
        if message.info().is_ok_and(|info| info.delivered > 1) {
            self.metrics.redelivered.inc();
        }
        if let Err(error) = self.work(message).await {
            tracing::warn!("a job is left to be taken again: {error}");
            self.metrics.given_back.inc();
            let _ = message.ack_with(AckKind::Nak(Some(BUSY))).await;
        }
        self.metrics.at_work.dec();
        self.jobs.fetch_sub(1, Ordering::Relaxed);
    }

    async fn work(&self, message: &Message) -> Result<()> {
        let head = message.headers.as_ref().and_then(|headers| headers.get("Prima-Job"));
        let envelope = head.and_then(|head| serde_json::from_str::<Envelope>(head.as_str()).ok());
        let Some(envelope) = envelope else {
            tracing::warn!("a message that is no job was thrown away");
            return acknowledge(message, AckKind::Term).await;
        };
        let Some((record, revision)) = self.bus.record(&envelope.id).await? else {
            // Its record went by age: nobody can ask for it any more.
            return acknowledge(message, AckKind::Term).await;
        };
        if record.state.is_final() {
            return acknowledge(message, AckKind::Ack).await;
        }
        if envelope.deadline_ms.is_some_and(|deadline| deadline < now_ms()) {
            self.end(&envelope, State::Expired).await?;
            return acknowledge(message, AckKind::Ack).await;
        }
        if record.tries >= MAX_TRIES {
            return self.give_up(message, &envelope, record.tries).await;
        }
        let running = State::Running {
            worker: self.options.name.clone(),
        };
        let begun = Record {
            tries: record.tries + 1,
            ..record.clone()
        };
        // If someone else changed it meanwhile, what they did is seen at the next try.
        if self.bus.turn(&begun, revision, running).await?.is_none() {
            return acknowledge(message, AckKind::Nak(Some(Duration::from_millis(100)))).await;
        }
        let (began, class) = (Instant::now(), record.class.name());
        let waited = now_ms().saturating_sub(record.created_ms) as f64 / 1e3;
        self.metrics.wait_seconds.with_label_values(&[class]).observe(waited);
        self.paint(message, &envelope, &record).await?;
        let seconds = began.elapsed().as_secs_f64();
        self.metrics.work_seconds.with_label_values(&[class]).observe(seconds);
        Ok(())
    }

    async fn give_up(&self, message: &Message, envelope: &Envelope, tries: u64) -> Result<()> {
        let reason = format!("{tries} workers began it and none came to its end");
        let headers = message.headers.clone().unwrap_or_default();
        let subject = format!("prima.dead.{}", envelope.id);
        let kept = self
            .bus
            .jetstream
            .publish_with_headers(subject, headers, message.payload.clone())
            .await;
        let kept = kept.map_err(refused("a job that is given up"))?;
        kept.await.map_err(refused("a job that is given up"))?;
        self.metrics.dead.inc();
        self.end(envelope, State::Failed { reason }).await?;
        acknowledge(message, AckKind::Ack).await
    }

    /// Asks the server, keeping the job while that works.
    async fn paint(&self, message: &Message, envelope: &Envelope, before: &Record) -> Result<()> {
        let cancelled = self.bus.client.subscribe(format!("prima.cancel.{}", envelope.id)).await;
        let mut cancelled = cancelled.map_err(refused("to hear of a cancellation"))?;
        let watched = self.bus.client.subscribe(format!("prima.watch.{}", envelope.id)).await;
        let watched = watched.map_err(refused("to hear of who looks"))?;
        let watcher = progress::Watcher {
            client: &self.bus.client,
            http: &self.http,
            server_url: &self.options.server_url,
            server_token: &self.options.server_token,
            id: &envelope.id,
        };
        let body = match &envelope.stored_body {
            Some(name) => Bytes::from(self.bus.stored(name).await?),
            None => message.payload.clone(),
        };
        let keep = async {
            loop {
                tokio::time::sleep(ACK_WAIT / 3).await;
                // NATS may be away for a moment.
                let _ = message.ack_with(AckKind::Progress).await;
            }
        };
        let answered = tokio::select! {
            answered = self.ask(envelope, body) => answered,
            _ = cancelled.next() => return acknowledge(message, AckKind::Ack).await,
            () = keep => return Ok(()),
            () = watcher.tell(watched) => return Ok(()),
        };
        let (head, body) = answered?;
        if head.status == 503 {
            // No room, or still loading: that was no try.
            if let Some((record, revision)) = self.bus.record(&envelope.id).await? {
                let back = Record {
                    tries: before.tries,
                    ..record
                };
                if !back.state.is_final() {
                    self.bus.turn(&back, revision, State::Queued).await?;
                }
            }
            return acknowledge(message, AckKind::Nak(Some(BUSY))).await;
        }
        let name = format!("{}.{}.{}", envelope.id, token(&self.options.name), before.tries + 1);
        self.bus.store(&name, &packed_answer(&head, &body)).await?;
        let done = State::Done {
            status: head.status,
            answer: name.clone(),
        };
        if !self.end(envelope, done).await? {
            self.bus.forget(&name).await;
        }
        acknowledge(message, AckKind::Ack).await?;
        if let Some(name) = &envelope.stored_body {
            self.bus.forget(name).await;
        }
        Ok(())
    }

    async fn ask(&self, envelope: &Envelope, body: Bytes) -> Result<(AnswerHead, Bytes)> {
        let mut request = self.http.post(format!("{}{}", self.options.server_url, envelope.path));
        for (name, value) in &envelope.headers {
            request = request.header(name, value);
        }
        let request = request
            .header("prima-task", &envelope.id)
            .bearer_auth(&self.options.server_token)
            .body(body);
        let answer = request.send().await.map_err(|e| server(&e))?;
        let head = AnswerHead {
            status: answer.status().as_u16(),
            headers: kept_headers(answer.headers()),
        };
        let body = answer.bytes().await.map_err(|e| server(&e))?;
        Ok((head, body))
    }

    /// Turns the record to its last state unless it has one: false.
    async fn end(&self, envelope: &Envelope, state: State) -> Result<bool> {
        loop {
            let Some((record, revision)) = self.bus.record(&envelope.id).await? else {
                return Ok(false);
            };
            if record.state.is_final() {
                return Ok(false);
            }
            if self.bus.turn(&record, revision, state.clone()).await?.is_some() {
                let labels = [record.class.name(), state.name()];
                self.metrics.ended.with_label_values(&labels).inc();
                return Ok(true);
            }
        }
    }
}

async fn acknowledge(message: &Message, kind: AckKind) -> Result<()> {
    message
        .double_ack_with(kind)
        .await
        .map_err(refused("an acknowledgement"))
}
