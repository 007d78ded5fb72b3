//! Prompts that wait, are painted, and were.

use super::wanted::Output;
use crate::watch::Watch;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A prompt as it came.
pub(super) struct Asked {
    pub id: String,
    pub number: u64,
    pub client: Option<String>,
    /// The client's graph, which lists and history repeat.
    pub graph: Value,
    pub extra: Value,
    pub outputs: Vec<Output>,
}

impl Asked {
    /// As lists have it.
    pub fn listed(&self) -> Value {
        let nodes: Vec<&str> = self.outputs.iter().map(|output| output.node.as_str()).collect();
        json!([self.number, self.id, self.graph, self.extra, nodes])
    }
}

/// Of prompts that are over.
const MOST_REMEMBERED: usize = 64;
/// The graphs that are remembered, in bytes of JSON.
const MOST_GRAPH_BYTES: usize = 16 << 20;

#[derive(Default)]
struct Lists {
    next_number: u64,
    pending: VecDeque<Arc<Asked>>,
    running: Option<(Arc<Asked>, Arc<Watch>)>,
    /// Id, what is told of it, and its size.
    history: VecDeque<(String, Value, usize)>,
}

/// All prompts of this server.
#[derive(Default)]
pub(crate) struct Prompts {
    lists: Mutex<Lists>,
    /// Held by who paints.
    turn: tokio::sync::Mutex<()>,
}

impl Prompts {
    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn next_number(&self) -> u64 {
        let mut lists = self.lists();
        lists.next_number += 1;
        lists.next_number - 1
    }

    /// Running and waiting.
    pub fn remaining(&self) -> usize {
        let lists = self.lists();
        lists.pending.len() + usize::from(lists.running.is_some())
    }

    pub fn listed(&self) -> Value {
        let lists = self.lists();
        let running: Vec<Value> = lists.running.iter().map(|(asked, _)| asked.listed()).collect();
        let pending: Vec<Value> = lists.pending.iter().map(|asked| asked.listed()).collect();
        json!({"queue_running": running, "queue_pending": pending})
    }

    /// Prompts that wait and are not painted after all: those that `which` names.
    pub fn forget_pending(&self, which: impl Fn(&str) -> bool) {
        self.lists().pending.retain(|asked| !which(&asked.id));
    }

    /// Ends the prompt that is being painted, if it is the one meant.
    pub fn interrupt(&self, id: Option<&str>) {
        if let Some((asked, watch)) = &self.lists().running
            && id.is_none_or(|id| id == asked.id)
        {
            watch.interrupt();
        }
    }

    pub fn history(&self, id: Option<&str>, most: usize) -> Value {
        let lists = self.lists();
        let mut found = json!({});
        let wanted = lists
            .history
            .iter()
            .rev()
            .filter(|(known, ..)| id.is_none_or(|id| id == known));
        for (id, told, _) in wanted.take(most) {
            found[id] = told.clone();
        }
        found
    }

    pub fn forget_history(&self, which: impl Fn(&str) -> bool) {
        self.lists().history.retain(|(id, ..)| !which(id));
    }

    /// Puts a prompt behind those that wait, or before them; `false` if so many wait already.
    pub(super) fn wait(&self, asked: Asked, front: bool, most: usize) -> bool {
        let mut lists = self.lists();
        if lists.pending.len() >= most {
            return false;
        }
        let asked = Arc::new(asked);
        if front {
            lists.pending.push_front(asked);
        } else {
            lists.pending.push_back(asked);
        }
        true
    }

    /// Held while a prompt is painted.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// The next prompt, which runs from now on, and what ends it.
    pub(super) fn begin(&self) -> Option<(Arc<Asked>, Arc<Watch>)> {
        let mut lists = self.lists();
        let next = lists.pending.pop_front();
        let watch = next.as_ref().map(|asked| Watch::new(asked.id.clone(), 1));
        lists.running = next.zip(watch);
        lists.running.clone()
    }

    /// None runs any more.
    pub fn end(&self) {
        self.lists().running = None;
    }

    pub fn remember(&self, id: &str, told: Value) {
        let mut lists = self.lists();
        let size = told.to_string().len();
        lists.history.push_back((id.to_owned(), told, size));
        let too_many = |history: &VecDeque<(String, Value, usize)>| {
            history.len() > MOST_REMEMBERED || history.iter().map(|(.., size)| size).sum::<usize>() > MOST_GRAPH_BYTES
        };
        while lists.history.len() > 1 && too_many(&lists.history) {
            lists.history.pop_front();
        }
    }
}
