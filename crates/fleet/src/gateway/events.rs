//! `GET /jobs/ID/events`: a job's states and how far it is, as they come, as server-sent events; `?previews=true` with pictures.
//!
//! | event | data |
//! |---|---|
//! | `state` | the job as `GET /jobs/ID` says it; the stream ends with the last one |
//! | `progress` | what `GET /sdapi/v1/progress` says of it at its worker; `current_image` is a PNG in base64, or null |

use super::client::Client;
use super::jobs::{LOOK_EVERY, own};
use super::refusal::Refusal;
use super::{App, jobs};
use crate::bus::{Bus, PREVIEWS};
use crate::error::refused;
use crate::job::{Record, State};
use async_nats::Subscriber;
use axum::extract::{Path, Query, State as Shared};
use axum::response::IntoResponse as _;
use axum::response::Response;
use axum::response::sse::{Event, KeepAlive, Sse};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use serde::Deserialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// More often than a worker forgets that somebody looks.
const SAY_EVERY: Duration = Duration::from_secs(1);

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Wishes {
    previews: bool,
}

pub(super) async fn stream(
    Shared(app): Shared<App>,
    client: Client,
    Path(id): Path<String>,
    Query(wishes): Query<Wishes>,
) -> Result<Response, Refusal> {
    own(&app, &client, &id).await?;
    let progress = app.bus.client.subscribe(format!("prima.progress.{id}")).await;
    let looks = Looks {
        progress: progress.map_err(refused("to hear of a job's progress"))?,
        notify: app.waiters.of(&id),
        says: tokio::time::interval(SAY_EVERY),
        previews: wishes.previews,
        told: None,
        bus: app.bus.clone(),
        id,
    };
    Ok(Sse::new(events(looks)).keep_alive(KeepAlive::default()).into_response())
}

struct Looks {
    bus: Bus,
    id: String,
    notify: Arc<Notify>,
    progress: Subscriber,
    says: tokio::time::Interval,
    previews: bool,
    /// The state that was told last.
    told: Option<State>,
}

fn events(looks: Looks) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(looks, |mut looks| async move {
        let event = looks.next().await?;
        Some((Ok(event), looks))
    })
}

impl Looks {
    /// The next thing that is new; `None` after the job's last state, or where it is kept no longer.
    async fn next(&mut self) -> Option<Event> {
        if self.told.as_ref().is_some_and(State::is_final) {
            return None;
        }
        let notify = self.notify.clone();
        loop {
            let changed = notify.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            // Where NATS is away, it is asked again.
            if let Ok(record) = self.bus.record(&self.id).await {
                let (record, _) = record?;
                if self.told.as_ref() != Some(&record.state) {
                    return Some(self.tell(&record));
                }
            }
            let waits = tokio::time::sleep(LOOK_EVERY);
            tokio::pin!(waits);
            loop {
                tokio::select! {
                    () = &mut changed => break,
                    () = &mut waits => break,
                    _ = self.says.tick() => {
                        let wish = if self.previews { PREVIEWS } else { "" };
                        let _ = self.bus.client.publish(format!("prima.watch.{}", self.id), Bytes::from(wish)).await;
                    }
                    message = self.progress.next() => {
                        let message = message?;
                        let text = String::from_utf8_lossy(&message.payload).into_owned();
                        return Some(Event::default().event("progress").data(text));
                    }
                }
            }
        }
    }

    fn tell(&mut self, record: &Record) -> Event {
        self.told = Some(record.state.clone());
        let text = serde_json::to_string(&jobs::shown(record)).unwrap_or_default();
        Event::default().event("state").data(text)
    }
}
