//! A typist for the live protocol: sends keystrokes at human speed and notes when each is answered.

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use prima_pipeline::Picture;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Each line is typed after the one before it: what they share at both ends stays, the rest is
/// deleted and typed, key by key. `{animal}` differs between typists, `!pause MS` waits.
pub const SCRIPT: &str = "a {animal} wearing sunglasses
!pause 600
a {animal} wearing a red hat
!pause 600
two {animal}s on a blue background";

const ANIMALS: &[&str] = &[
    "cat", "dog", "horse", "rabbit", "owl", "fox", "bear", "tiger", "frog", "duck", "mouse", "lion", "sheep", "whale",
    "snail", "panda",
];

/// One key: the wait before it, and the prompt after it.
pub type Key = (Duration, String);

/// The keys of `script` for typist number `typist`, `per_second` on average, evenly but for a
/// human's jitter.
pub fn keys(script: &str, typist: usize, per_second: f64) -> Vec<Key> {
    let animal = ANIMALS[typist % ANIMALS.len()];
    let mut text: Vec<char> = Vec::new();
    let mut keys = Vec::new();
    let mut pause = Duration::ZERO;
    let mut random = 0x9e37_79b9_u32.wrapping_mul(typist as u32 + 1) | 1;
    for line in script.lines().filter(|line| !line.trim().is_empty()) {
        if let Some(ms) = line.strip_prefix("!pause ").and_then(|ms| ms.trim().parse().ok()) {
            pause += Duration::from_millis(ms);
            continue;
        }
        let wanted: Vec<char> = line.replace("{animal}", animal).chars().collect();
        let same = |a: &char, b: &char| a == b;
        let head = text.iter().zip(&wanted).take_while(|(a, b)| same(a, b)).count();
        let most = text.len().min(wanted.len()) - head;
        let tail = text
            .iter()
            .rev()
            .zip(wanted.iter().rev())
            .take(most)
            .take_while(|(a, b)| same(a, b))
            .count();
        let mut states = Vec::new();
        for _ in head..text.len() - tail {
            text.remove(text.len() - tail - 1);
            states.push(text.iter().collect::<String>());
        }
        for (i, &c) in wanted[head..wanted.len() - tail].iter().enumerate() {
            text.insert(head + i, c);
            states.push(text.iter().collect());
        }
        for state in states {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            let jitter = 0.7 + 0.6 * f64::from(random) / f64::from(u32::MAX);
            keys.push((pause + Duration::from_secs_f64(jitter / per_second), state));
            pause = Duration::ZERO;
        }
    }
    keys
}

/// What a typist saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub keys: usize,
    /// Key to picture, in milliseconds, in the order of the answers.
    pub latencies_ms: Vec<f64>,
    pub frames: usize,
    pub dropped: u64,
    pub cancelled: u64,
    pub last_painted: bool,
    pub went_backwards: bool,
}

pub async fn connect(url: &str) -> Result<Socket> {
    let (mut socket, _) = connect_async(url)
        .await
        .with_context(|| format!("cannot connect to {url}"))?;
    match socket.next().await {
        Some(Ok(Message::Text(text))) if text.contains("hello") => Ok(socket),
        other => bail!("no hello but {other:?}"),
    }
}

/// Types `keys` and waits for the last of them to be painted as asked.
pub async fn typist(url: &str, keys: &[Key], seed: u64) -> Result<Seen> {
    let mut socket = connect(url).await?;
    let mut seen = Seen {
        keys: keys.len(),
        ..Seen::default()
    };
    let mut pressed: Vec<Instant> = Vec::new();
    let mut newest = 0_usize;
    let mut next_key = Instant::now();
    let mut remaining = keys.iter();
    let mut coming = remaining.next();
    if let Some((wait, _)) = coming {
        next_key += *wait;
    }
    let mut give_up = None;
    loop {
        let deadline = match coming {
            Some(_) => next_key,
            None => *give_up.get_or_insert_with(|| Instant::now() + Duration::from_mins(1)),
        };
        tokio::select! {
            () = tokio::time::sleep_until(deadline.into()) => {
                let Some((_, prompt)) = coming else { return Ok(seen) };
                // A key counts from when it was due, also if this client was late.
                pressed.push(deadline);
                let message = json!({"type": "paint", "rev": pressed.len(), "prompt": prompt, "seed": seed});
                socket.send(Message::text(message.to_string())).await?;
                coming = remaining.next();
                if let Some((wait, _)) = coming {
                    next_key += *wait;
                }
            }
            message = socket.next() => {
                match message {
                    Some(Ok(Message::Binary(bytes))) => {
                        let (header, picture) = unpack(&bytes)?;
                        Picture::decode(picture, "frame")?;
                        let now = Instant::now();
                        let rev = header["rev"].as_u64().unwrap_or(0) as usize;
                        seen.frames += 1;
                        seen.went_backwards |= rev < newest;
                        for key in pressed.iter().take(rev).skip(newest) {
                            seen.latencies_ms.push(now.saturating_duration_since(*key).as_secs_f64() * 1e3);
                        }
                        newest = newest.max(rev);
                        seen.dropped = header["dropped"].as_u64().unwrap_or(0);
                        seen.cancelled = header["cancelled"].as_u64().unwrap_or(0);
                        if coming.is_none() && rev == keys.len() && header["final"] == true {
                            seen.last_painted = true;
                            let _ = socket.close(None).await;
                            return Ok(seen);
                        }
                    }
                    Some(Ok(Message::Text(text))) => bail!("the server said {text}"),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error.into()),
                    None => bail!("the server hung up"),
                }
            }
        }
    }
}

fn unpack(bytes: &[u8]) -> Result<(Value, &[u8])> {
    let length = bytes.get(..4).context("a short frame")?;
    let length = u32::from_le_bytes(length.try_into()?) as usize;
    let header = bytes.get(4..4 + length).context("a short frame")?;
    Ok((serde_json::from_slice(header)?, &bytes[4 + length..]))
}

/// The value below which `share` of the sorted values lie.
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
