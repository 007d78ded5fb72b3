//! Which strangers attack, on which threads; and those that come over the live protocol or with nonsense.

use super::{Deeds, attacks};
use anyhow::Result;
use futures_util::{SinkExt, StreamExt};
use prima_bench::typist::connect;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Attack {
    Flood,
    Stall,
    Vanish,
    Garbage,
    Silent,
    Slow,
    Bombs,
    Heavy,
}

/// Threads of the lowest priority, for all clients but the honest one.
pub fn machine() -> Result<tokio::runtime::Runtime> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all();
    #[cfg(target_os = "linux")]
    runtime.on_thread_start(|| {
        let _ = rustix::process::nice(19);
    });
    Ok(runtime.build()?)
}

/// Begins these attacks, or all.
pub fn attack(machine: &tokio::runtime::Runtime, only: &[Attack], host: &str, deeds: &Arc<Deeds>) {
    let live = format!("ws://{host}/live");
    let (host, deeds) = (host.to_owned(), deeds.clone());
    let chosen = |attack| only.is_empty() || only.contains(&attack);
    let _guard = machine.enter();
    if chosen(Attack::Flood) {
        tokio::spawn(flood(live.clone(), deeds.clone()));
    }
    if chosen(Attack::Stall) {
        tokio::spawn(stall(live.clone(), deeds.clone()));
    }
    if chosen(Attack::Vanish) {
        tokio::spawn(vanish(live.clone(), deeds.clone()));
        tokio::spawn(vanish_over_http(host.clone(), deeds.clone()));
    }
    if chosen(Attack::Garbage) {
        tokio::spawn(garbage(live, host.clone(), deeds.clone()));
    }
    if chosen(Attack::Silent) {
        tokio::spawn(attacks::silent(host.clone(), deeds.clone()));
    }
    if chosen(Attack::Slow) {
        tokio::spawn(attacks::slow_bodies(host.clone(), deeds.clone()));
    }
    if chosen(Attack::Bombs) {
        attacks::bombers(&host, &deeds);
    }
    if chosen(Attack::Heavy) {
        tokio::spawn(attacks::heavy(host, deeds));
    }
}

/// Sends as fast as it can until it is thrown out.
async fn flood(url: String, deeds: Arc<Deeds>) {
    loop {
        if let Ok(mut socket) = connect(&url).await {
            deeds.floods.fetch_add(1, Ordering::Relaxed);
            for rev in 1..100_000 {
                let message = json!({"type": "paint", "rev": rev, "prompt": format!("flood {rev}")});
                if socket.send(Message::text(message.to_string())).await.is_err() {
                    break;
                }
            }
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Asks for large pictures and never reads one.
async fn stall(url: String, deeds: Arc<Deeds>) {
    loop {
        if let Ok(mut socket) = connect(&url).await {
            deeds.stalls.fetch_add(1, Ordering::Relaxed);
            for rev in 1..100_000 {
                let message =
                    json!({"type": "paint", "rev": rev, "prompt": format!("stall {rev}"), "width": 256, "height": 256});
                if socket.send(Message::text(message.to_string())).await.is_err() {
                    break;
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Begins something and is gone.
async fn vanish(url: String, deeds: Arc<Deeds>) {
    for round in 0_u64.. {
        if let Ok(mut socket) = connect(&url).await {
            let message = json!({"type": "variants", "rev": 1, "prompt": "gone", "seeds": (0..16).collect::<Vec<u32>>(), "steps": 8});
            let _ = socket.send(Message::text(message.to_string())).await;
            sleep(Duration::from_millis(round * 37 % 200)).await;
            deeds.vanished.fetch_add(1, Ordering::Relaxed);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// The same over HTTP: the request is sent and the connection dropped.
async fn vanish_over_http(host: String, deeds: Arc<Deeds>) {
    let body = json!({"prompt": "gone", "steps": 20, "width": 256, "height": 256}).to_string();
    let head = format!(
        "POST /sdapi/v1/txt2img HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    for round in 0_u64.. {
        if let Ok(mut stream) = TcpStream::connect(&host).await {
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
            sleep(Duration::from_millis(round * 53 % 300)).await;
            deeds.vanished.fetch_add(1, Ordering::Relaxed);
        }
        sleep(Duration::from_millis(150)).await;
    }
}

/// Messages that mean nothing, pictures that are bombs, bodies that are too large.
async fn garbage(url: String, host: String, deeds: Arc<Deeds>) {
    let mut bomb = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\x01\x86\xa0\0\x01\x86\xa0\x08\x02\0\0\0".to_vec();
    bomb.extend(0x2730_9c9f_u32.to_be_bytes());
    let header = json!({"type": "paint", "rev": 1, "prompt": "x"}).to_string();
    let mut picture = (header.len() as u32).to_le_bytes().to_vec();
    picture.extend(header.bytes());
    picture.extend(&bomb);
    loop {
        if let Ok(mut socket) = connect(&url).await {
            for message in [
                Message::text("{"),
                Message::text("[[[[[[[["),
                Message::binary(vec![0xff; 64]),
                Message::binary(picture.clone()),
                Message::binary(vec![0; 1 << 20]),
            ] {
                deeds.garbage.fetch_add(1, Ordering::Relaxed);
                if socket.send(message).await.is_err() {
                    break;
                }
                if let Ok(Some(Ok(Message::Text(_)))) =
                    tokio::time::timeout(Duration::from_secs(5), socket.next()).await
                {
                    deeds.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        if let Ok(mut stream) = TcpStream::connect(&host).await {
            let head =
                format!("POST /v1/images/generations HTTP/1.1\r\nhost: {host}\r\ncontent-length: 100000000\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&vec![b'{'; 1 << 20]).await;
            deeds.garbage.fetch_add(1, Ordering::Relaxed);
        }
        sleep(Duration::from_millis(300)).await;
    }
}
