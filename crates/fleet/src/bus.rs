//! What gateways and workers share in NATS:
//!
//! | name | what it is |
//! |---|---|
//! | stream `PRIMA_JOBS`, subjects `prima.jobs.CLASS.MODEL.LANE` | the queue; a message goes when it is acknowledged |
//! | stream `PRIMA_DEAD`, subjects `prima.dead.ID` | jobs that were given up, with the reason |
//! | bucket `prima_jobs` | a [`Record`] a job |
//! | bucket `prima_workers` | which workers there are (`registry`) |
//! | bucket `prima_leases` | which worker a live session was at |
//! | objects `prima_answers` | answers, and bodies of requests that no message holds |
//! | `prima.wake`, `prima.cancel.ID` | core messages, lost where nobody listens |
//! | `prima.watch.ID`, `prima.progress.ID` | core messages: that somebody looks at a job, and how it looks |

use crate::error::{Error, Result, refused};
use crate::job::{Record, State};
use crate::lanes::Place;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::kv::{Store, UpdateErrorKind};
use async_nats::jetstream::object_store::ObjectStore;
use async_nats::jetstream::stream::{DiscardPolicy, RetentionPolicy, Stream};
use async_nats::jetstream::{self, Context, kv, object_store, stream};
use async_nats::{Client, ConnectOptions};
use futures_util::StreamExt as _;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

/// A worker that is not heard of for this long has lost its job.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(5);
/// A lane in which nothing was queued for this long is forgotten.
const IDLE_LANE: Duration = Duration::from_hours(1);
/// A worker's entry goes after this.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);
/// Bodies beyond this are stored apart: NATS takes messages up to 1 MB.
pub(crate) const INLINE_BYTES: usize = 512 << 10;
/// Who looks at a job wants pictures of it, too.
pub(crate) const PREVIEWS: &str = "previews";
pub(crate) const WAKE: &str = "prima.wake";

/// Where NATS is, and how it keeps things.
#[derive(Clone, Debug)]
pub struct BusOptions {
    /// `nats://HOST:PORT`, or several with commas between.
    pub url: String,
    /// Copies of queues and buckets: 3 on a cluster of three.
    pub replicas: usize,
    /// How long records and answers are kept.
    pub keep: Duration,
    /// How long it is waited for at the start.
    pub patience: Duration,
}

impl Default for BusOptions {
    fn default() -> Self {
        Self {
            url: "nats://127.0.0.1:4222".into(),
            replicas: 1,
            keep: Duration::from_hours(24),
            patience: Duration::from_secs(30),
        }
    }
}

/// A connection to NATS with everything in place. Clones share it.
#[derive(Clone)]
pub struct Bus {
    pub(crate) client: Client,
    pub(crate) jetstream: Context,
    pub(crate) jobs: Stream,
    pub(crate) records: Store,
    pub(crate) workers: Store,
    pub(crate) leases: Store,
    pub(crate) answers: ObjectStore,
}

impl Bus {
    /// Connects, and makes what is not there yet. A server that is not up, or a cluster that has no leader yet, is waited for.
    pub async fn connect(options: &BusOptions) -> Result<Self> {
        let began = Instant::now();
        loop {
            match Box::pin(Self::connected(options)).await {
                Err(error) if began.elapsed() < options.patience => {
                    tracing::warn!("{error}; trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                result => return result,
            }
        }
    }

    async fn connected(options: &BusOptions) -> Result<Self> {
        let servers: Vec<&str> = options.url.split(',').map(str::trim).collect();
        let connected = ConnectOptions::new()
            .name("prima")
            .connection_timeout(Duration::from_secs(5))
            .ping_interval(Duration::from_secs(2))
            .max_reconnects(None)
            .reconnect_delay_callback(|attempt| Duration::from_millis(50 * attempt.min(20) as u64))
            .connect(servers)
            .await;
        let client = connected.map_err(|e| Error::Connect {
            url: options.url.clone(),
            message: e.to_string(),
        })?;
        let jetstream = jetstream::new(client.clone());
        let jobs = jetstream.get_or_create_stream(stream::Config {
            name: "PRIMA_JOBS".into(),
            subjects: vec!["prima.jobs.>".into()],
            retention: RetentionPolicy::WorkQueue,
            max_age: options.keep,
            duplicate_window: Duration::from_mins(10),
            num_replicas: options.replicas,
            ..Default::default()
        });
        let jobs = jobs
            .await
            .map_err(refused("the queue (is JetStream on? `nats-server -js`)"))?;
        let dead = jetstream.get_or_create_stream(stream::Config {
            name: "PRIMA_DEAD".into(),
            subjects: vec!["prima.dead.>".into()],
            max_age: options.keep,
            num_replicas: options.replicas,
            ..Default::default()
        });
        dead.await.map_err(refused("the queue of what was given up"))?;
        let bucket = async |name: &str, max_age: Duration| {
            // The stream that a bucket is, by hand: the client asks first what the account may do, and does not understand what
            // servers before 2.10 answer.
            let config = stream::Config {
                name: format!("KV_{name}"),
                subjects: vec![format!("$KV.{name}.>")],
                max_messages_per_subject: 1,
                max_age,
                discard: DiscardPolicy::New,
                allow_rollup: true,
                deny_delete: true,
                allow_direct: true,
                num_replicas: options.replicas,
                ..Default::default()
            };
            jetstream
                .get_or_create_stream(config)
                .await
                .map_err(refused("a bucket"))?;
            jetstream.get_key_value(name).await.map_err(refused("a bucket"))
        };
        let answers = jetstream.create_object_store(object_store::Config {
            bucket: "prima_answers".into(),
            max_age: options.keep,
            num_replicas: options.replicas,
            ..Default::default()
        });
        Ok(Self {
            records: bucket("prima_jobs", options.keep).await?,
            workers: bucket("prima_workers", FORGOTTEN_AFTER).await?,
            leases: bucket("prima_leases", Duration::from_hours(1)).await?,
            answers: answers.await.map_err(refused("the store of answers"))?,
            client,
            jobs,
            jetstream,
        })
    }

    /// Where in the queue something waits, or is worked on, with how many jobs.
    pub(crate) async fn places(&self) -> Result<Vec<(Place, usize)>> {
        let subjects = self.jobs.info_with_subjects("prima.jobs.>").await;
        let mut subjects = subjects.map_err(refused("what is queued"))?;
        let mut places = Vec::new();
        while let Some(subject) = subjects.next().await {
            let (subject, jobs) = subject.map_err(refused("what is queued"))?;
            places.extend(Place::of(&subject).map(|place| (place, jobs)));
        }
        Ok(places)
    }

    /// A worker's hand on one place of the queue.
    pub(crate) async fn consumer(&self, place: &Place) -> Result<PullConsumer> {
        let name = place.name();
        let config = pull::Config {
            durable_name: Some(name.clone()),
            filter_subject: place.subject(),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            // A worker counts the tries, so that it can say why the last one failed.
            max_deliver: -1,
            // A client that is seen no more leaves nothing behind.
            inactive_threshold: IDLE_LANE,
            ..Default::default()
        };
        let consumer = self.jobs.get_or_create_consumer(&name, config);
        consumer.await.map_err(refused("a worker's place at the queue"))
    }

    /// Jobs that were given up and are still kept.
    pub(crate) async fn dead(&self) -> Result<u64> {
        let dead = self.jetstream.get_stream("PRIMA_DEAD").await;
        let dead = dead.map_err(refused("the count of what was given up"))?;
        let info = dead
            .get_info()
            .await
            .map_err(refused("the count of what was given up"))?;
        Ok(info.state.messages)
    }

    /// A job as it stands, with the revision that [`turn`](Self::turn) wants.
    pub(crate) async fn record(&self, id: &str) -> Result<Option<(Record, u64)>> {
        let entry = self.records.entry(id).await.map_err(refused("a job's record"))?;
        let entry = entry.filter(|entry| entry.operation == kv::Operation::Put);
        let read = |entry: kv::Entry| Ok((Record::read(id, &entry.value)?, entry.revision));
        entry.map(read).transpose()
    }

    /// Turns a job's state, if it is still what `record` at `revision` says: of two who try one wins. The new revision.
    pub(crate) async fn turn(&self, record: &Record, revision: u64, state: State) -> Result<Option<u64>> {
        let next = record.turned(state);
        match self.records.update(&record.id, next.written(), revision).await {
            Ok(revision) => Ok(Some(revision)),
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(None),
            Err(error) => Err(refused("the change of a job's record")(error)),
        }
    }

    pub(crate) async fn store(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut reader = bytes;
        let stored = self.answers.put(name, &mut reader).await;
        stored.map(drop).map_err(refused("an answer to store"))
    }

    pub(crate) async fn stored(&self, name: &str) -> Result<Vec<u8>> {
        let mut object = self.answers.get(name).await.map_err(refused("a stored answer"))?;
        let mut bytes = Vec::with_capacity(object.info().size);
        let read = object.read_to_end(&mut bytes).await;
        read.map(|_| bytes).map_err(refused("a stored answer"))
    }

    /// Of a body that a worker has read, or of an answer that lost the race. What stays goes by its age.
    pub(crate) async fn forget(&self, name: &str) {
        let _ = self.answers.delete(name).await;
    }
}
