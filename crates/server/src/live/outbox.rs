//! What waits to be sent to one session. Bounded: a frame replaces older ones that were not sent
//! yet, so a client that reads slowly sees fewer frames, never older ones.

use super::messages::{FrameHeader, FrameTimings, WordChange};
use crate::refusal::Refusal;
use prima_engine::Counts;
use prima_picture::{Format, QUALITY, encode};
use prima_pipeline::{Parameters, Picture};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;

/// A picture that was painted and its circumstances.
pub(super) struct Frame {
    pub rev: u64,
    pub index: usize,
    pub count: usize,
    pub tier: usize,
    pub last: bool,
    pub step: usize,
    pub steps: usize,
    pub seed: u64,
    pub format: Format,
    pub picture: Picture,
    pub timings: FrameTimings,
    pub cold: bool,
    pub text_cached: bool,
    /// On the last frame of each picture.
    pub parameters: Option<Parameters>,
    pub warnings: Vec<String>,
}

impl Frame {
    /// Encodes the picture and puts its header before it.
    pub fn to_message(&self, counts: Counts) -> Result<Vec<u8>, Refusal> {
        let began = Instant::now();
        let picture = encode(&self.picture, self.format, QUALITY, self.parameters.as_ref())?;
        let timings = FrameTimings {
            encode_ms: ms(began.elapsed()),
            ..self.timings.clone()
        };
        let text = self.parameters.as_ref().map(Parameters::to_text);
        let header = FrameHeader {
            kind: "frame",
            rev: self.rev,
            index: self.index,
            count: self.count,
            tier: self.tier,
            last: self.last,
            step: self.step,
            steps: self.steps,
            width: self.picture.width,
            height: self.picture.height,
            format: self.format,
            seed: self.seed,
            timings: &timings,
            cold: self.cold,
            text_cached: self.text_cached,
            dropped: counts.dropped,
            cancelled: counts.cancelled,
            parameters: text.as_deref(),
            warnings: &self.warnings,
        };
        let header = serde_json::to_vec(&header).map_err(|_| Refusal::defect())?;
        let mut message = (header.len() as u32).to_le_bytes().to_vec();
        message.extend(header);
        message.extend(picture);
        Ok(message)
    }
}

/// Milliseconds, to the microsecond.
pub(super) fn ms(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Something to send.
pub(super) enum Next {
    Text(String),
    Frame(Box<Frame>),
}

#[derive(Default)]
pub(super) struct Outbox {
    inner: Mutex<Inner>,
    /// Something was put in, for the one who writes.
    filled: Notify,
    /// Something was sent, for the one who reads.
    moved: Notify,
}

#[derive(Default)]
struct Inner {
    texts: VecDeque<String>,
    frames: VecDeque<Box<Frame>>,
    /// Frames of older revisions are not sent any more.
    newest: u64,
    replaced: u64,
}

/// Answers such as pongs and errors that may wait before no more is read.
const TEXTS: usize = 32;

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn text(&self, message: &impl Serialize) {
        if let Ok(text) = serde_json::to_string(message) {
            self.lock().texts.push_back(text);
            self.filled.notify_one();
        }
    }

    pub fn error(&self, rev: Option<u64>, message: &str, hint: &str) {
        self.text(&json!({"type": "error", "rev": rev, "message": message, "hint": hint}));
    }

    pub fn pong(&self, id: &Value) {
        self.text(&json!({"type": "pong", "id": id}));
    }

    pub fn sensitivity(&self, rev: u64, words: &[WordChange]) {
        self.text(&json!({"type": "sensitivity", "rev": rev, "words": words}));
    }

    /// Puts a frame in the place of older ones.
    pub fn frame(&self, frame: Frame) {
        let mut inner = self.lock();
        if frame.rev < inner.newest {
            inner.replaced += 1;
            return;
        }
        inner.newest = frame.rev;
        let before = inner.frames.len();
        // Of one picture only the last tier matters; of older revisions nothing.
        inner.frames.retain(|f| f.rev == frame.rev && f.index != frame.index);
        inner.replaced += (before - inner.frames.len()) as u64;
        inner.frames.push_back(Box::new(frame));
        drop(inner);
        self.filled.notify_one();
    }

    /// Frames of revisions up to `rev` are not wanted any more.
    pub fn forget(&self, rev: u64) {
        self.lock().frames.retain(|f| f.rev > rev);
    }

    /// What is to be sent next; waits until there is something.
    pub async fn next(&self) -> Next {
        loop {
            {
                let mut inner = self.lock();
                if let Some(text) = inner.texts.pop_front() {
                    return Next::Text(text);
                }
                if let Some(frame) = inner.frames.pop_front() {
                    return Next::Frame(frame);
                }
            }
            self.filled.notified().await;
        }
    }

    pub fn sent(&self) {
        self.moved.notify_one();
    }

    pub fn take_replaced(&self) -> u64 {
        std::mem::take(&mut self.lock().replaced)
    }

    /// Returns at once unless answers pile up.
    pub async fn until_it_moves(&self) {
        while self.lock().texts.len() >= TEXTS {
            self.moved.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(rev: u64, index: usize, tier: usize) -> Frame {
        Frame {
            rev,
            index,
            count: 2,
            tier,
            last: false,
            step: 1,
            steps: 1,
            seed: 0,
            format: Format::Png,
            picture: Picture {
                width: 1,
                height: 1,
                rgb: vec![1, 2, 3],
            },
            timings: FrameTimings::default(),
            cold: false,
            text_cached: false,
            parameters: None,
            warnings: Vec::new(),
        }
    }

    fn waiting(outbox: &Outbox) -> Vec<(u64, usize, usize)> {
        outbox.lock().frames.iter().map(|f| (f.rev, f.index, f.tier)).collect()
    }

    #[test]
    fn newer_frames_replace_older_ones_and_never_the_other_way_round() {
        let outbox = Outbox::default();
        for (rev, index, tier) in [(1, 0, 0), (1, 1, 0), (1, 0, 1)] {
            outbox.frame(frame(rev, index, tier));
        }
        assert_eq!(waiting(&outbox), [(1, 1, 0), (1, 0, 1)]);
        outbox.frame(frame(2, 0, 0));
        outbox.frame(frame(1, 1, 1));
        assert_eq!(waiting(&outbox), [(2, 0, 0)]);
        assert_eq!(outbox.take_replaced(), 4);
        outbox.forget(2);
        assert!(waiting(&outbox).is_empty());
    }

    #[test]
    fn a_message_is_length_header_picture() {
        let bytes = frame(7, 0, 0)
            .to_message(Counts {
                dropped: 3,
                cancelled: 1,
            })
            .unwrap();
        let length = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&bytes[4..4 + length]).unwrap();
        assert_eq!(header["type"], "frame");
        assert_eq!((header["rev"].as_u64(), header["dropped"].as_u64()), (Some(7), Some(3)));
        assert_eq!(header["format"], "png");
        let picture = Picture::decode(&bytes[4 + length..], "frame").unwrap();
        assert_eq!(picture.rgb, [1, 2, 3]);
    }
}
