//! Someone who types into a live session, and how soon the pictures come.

use crate::processes::Any;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

pub const KEYS_PER_S: f64 = 8.0;

pub enum Until {
    Passed(Duration),
    /// So many pictures, each asked for after the last one came.
    Seen(usize),
}

/// Milliseconds to each first picture of a keystroke that was painted.
pub async fn type_at(url: &str, until: Until) -> Any<Vec<f64>> {
    let (mut socket, _) = tokio_tungstenite::connect_async(format!("{}/live", url.replacen("http", "ws", 1))).await?;
    let text = "a red apple on a wooden table in the morning light, and a cat beside it that looks at the apple ";
    let (began, mut rev, mut open, mut seen) = (Instant::now(), 0u64, HashMap::new(), Vec::new());
    let mut next = Instant::now();
    loop {
        let (is_over, waits) = match until {
            Until::Passed(time) => (began.elapsed() > time, false),
            Until::Seen(pictures) => (seen.len() >= pictures, !open.is_empty()),
        };
        if is_over {
            return Ok(seen);
        }
        if Instant::now() >= next && !waits {
            rev += 1;
            let prompt = &text[..=(rev as usize % text.len())];
            let paint = json!({"type": "paint", "rev": rev, "prompt": prompt, "seed": 7});
            socket.send(Message::Text(paint.to_string().into())).await?;
            open.insert(rev, Instant::now());
            next = Instant::now() + Duration::from_secs_f64(1.0 / KEYS_PER_S);
        }
        let wait = if waits {
            Duration::from_secs(1)
        } else {
            next.saturating_duration_since(Instant::now())
        };
        let Ok(message) = timeout(wait, socket.next()).await else {
            continue;
        };
        let Message::Binary(bytes) = message.ok_or("the session ended")?? else {
            continue;
        };
        let length = u32::from_le_bytes(bytes.get(..4).ok_or("a short message")?.try_into()?) as usize;
        let header: Value = serde_json::from_slice(bytes.get(4..4 + length).ok_or("a short message")?)?;
        let painted = header["rev"].as_u64().unwrap_or(0);
        if let Some(at) = open.remove(&painted) {
            seen.push(at.elapsed().as_secs_f64() * 1e3);
        }
        // Older ones were replaced.
        open.retain(|rev, _| *rev > painted);
    }
}
