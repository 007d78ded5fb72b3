//! Which workers there are: each writes what it holds and how busy it is into a bucket, again and again.

use crate::bus::Bus;
use crate::error::{Result, refused};
use crate::job::digest;
use async_nats::jetstream::kv::Operation;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

pub(crate) const HEARTBEAT: Duration = Duration::from_millis(500);
/// Silent for this long, a worker gets no more sessions.
pub(crate) const SILENT_AFTER: Duration = Duration::from_millis(1600);

/// What a worker says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Presence {
    pub name: String,
    /// `http://HOST:PORT` of its own server, as gateways reach it, and what that wants.
    pub url: String,
    pub token: String,
    /// Model names, the one that is painted with first.
    pub models: Vec<String>,
    pub ready: bool,
    /// Takes no more work, and leaves when what it has is done.
    pub draining: bool,
    /// Jobs that it is at.
    pub jobs: usize,
}

/// Workers as a gateway sees them. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Registry {
    workers: Arc<RwLock<HashMap<String, Seen>>>,
}

struct Seen {
    presence: Presence,
    at: Instant,
    /// Live sessions that this gateway has there.
    sessions: usize,
}

impl Registry {
    /// Follows the bucket until NATS is gone for good.
    pub async fn follow(self, bus: Bus) -> Result<()> {
        let mut entries = bus.workers.watch_all().await.map_err(refused("the list of workers"))?;
        while let Some(entry) = entries.next().await {
            let Ok(entry) = entry else { continue };
            let presence: Option<Presence> = serde_json::from_slice(&entry.value).ok();
            match presence.filter(|_| entry.operation == Operation::Put) {
                Some(presence) => self.see(presence),
                None => self.lose(&entry.key),
            }
        }
        Ok(())
    }

    pub fn see(&self, presence: Presence) {
        let mut workers = self.workers.write().unwrap_or_else(PoisonError::into_inner);
        let sessions = workers.get(&presence.name).map_or(0, |seen| seen.sessions);
        let seen = Seen {
            at: Instant::now(),
            sessions,
            presence: presence.clone(),
        };
        workers.insert(presence.name, seen);
    }

    pub fn lose(&self, name: &str) {
        self.workers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
    }

    /// All that were heard of lately.
    pub fn present(&self) -> Vec<Presence> {
        let workers = self.workers.read().unwrap_or_else(PoisonError::into_inner);
        let present = workers.values().filter(|seen| seen.at.elapsed() < SILENT_AFTER);
        let mut present: Vec<Presence> = present.map(|seen| seen.presence.clone()).collect();
        present.sort_by(|a, b| a.name.cmp(&b.name));
        present
    }

    /// Whether it was heard of lately.
    pub fn has(&self, name: &str) -> bool {
        let workers = self.workers.read().unwrap_or_else(PoisonError::into_inner);
        workers.get(name).is_some_and(|seen| seen.at.elapsed() < SILENT_AFTER)
    }

    /// The model of this name at any worker, as a subject's token.
    pub fn model(&self, name: &str) -> Option<String> {
        let has = |worker: &Presence| worker.models.iter().any(|model| model == name);
        self.present().iter().any(has).then(|| crate::job::token(name))
    }

    /// For a live session: that one if it may have more, else the one with the fewest sessions, then jobs; none of `but`.
    pub fn for_session(&self, liked: Option<&str>, but: &[String]) -> Option<Presence> {
        let workers = self.workers.read().unwrap_or_else(PoisonError::into_inner);
        let takes = |seen: &&Seen| {
            let p = &seen.presence;
            seen.at.elapsed() < SILENT_AFTER && p.ready && !p.draining && !but.contains(&p.name)
        };
        let free: Vec<&Seen> = workers.values().filter(takes).collect();
        let known = free.iter().find(|seen| Some(seen.presence.name.as_str()) == liked);
        let key = |seen: &&&Seen| (seen.sessions, seen.presence.jobs, seen.presence.name.clone());
        known
            .or_else(|| free.iter().min_by_key(key))
            .map(|seen| seen.presence.clone())
    }

    /// For a request that is not a job, so that one client's come to one worker: the highest of the hashes of both names.
    pub fn for_client(&self, client: &str) -> Option<Presence> {
        let ready = self
            .present()
            .into_iter()
            .filter(|worker| worker.ready && !worker.draining);
        ready.max_by_key(|worker| digest(&format!("{client}\n{}", worker.name)))
    }

    /// A session more (or fewer) at `name`.
    pub fn count_session(&self, name: &str, more: bool) {
        let mut workers = self.workers.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = workers.get_mut(name) {
            seen.sessions = if more {
                seen.sessions + 1
            } else {
                seen.sessions.saturating_sub(1)
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(name: &str) -> Presence {
        Presence {
            name: name.into(),
            url: String::new(),
            token: String::new(),
            models: vec!["prima-mini".into()],
            ready: true,
            draining: false,
            jobs: 0,
        }
    }

    fn three() -> Registry {
        let registry = Registry::default();
        ["a", "b", "c"]
            .map(worker)
            .into_iter()
            .for_each(|worker| registry.see(worker));
        registry
    }

    #[test]
    fn sessions_go_to_the_worker_with_the_fewest_and_back_to_the_one_they_were_at() {
        let registry = three();
        registry.count_session("a", true);
        let at = |liked: Option<&str>, but: &[String]| registry.for_session(liked, but).map(|w| w.name);
        assert_eq!(at(None, &[]).as_deref(), Some("b"));
        assert_eq!(at(Some("a"), &[]).as_deref(), Some("a"));
        assert_eq!(at(Some("b"), &["b".into()]).as_deref(), Some("c"));
    }

    #[test]
    fn a_draining_worker_gets_nothing_new() {
        let registry = three();
        for name in ["a", "b"] {
            registry.see(Presence {
                draining: true,
                ..worker(name)
            });
        }
        assert_eq!(
            registry.for_session(Some("a"), &[]).map(|w| w.name).as_deref(),
            Some("c")
        );
        assert_eq!(registry.for_client("x").map(|w| w.name).as_deref(), Some("c"));
    }

    #[test]
    fn a_client_stays_at_its_worker_when_another_goes() {
        let registry = three();
        let at = |client: &str| registry.for_client(client).map(|w| w.name);
        let before: Vec<_> = (0..20).map(|i| at(&i.to_string())).collect();
        registry.lose("c");
        for (i, before) in before.into_iter().enumerate() {
            if before.as_deref() != Some("c") {
                assert_eq!(at(&i.to_string()), before);
            }
        }
    }
}
