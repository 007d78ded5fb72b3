//! Live sessions that outlive their worker.

use crate::common::{nats, start_gateway, start_worker, until_ready};
use futures_util::{SinkExt, StreamExt};
use std::time::{Duration, Instant};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn a_session_goes_on_elsewhere_with_its_last_revision_when_its_worker_dies() {
    let Some(nats) = nats().await else { return };
    let gateway = start_gateway(&nats, None).await;
    let mut workers = [start_worker(&nats, "a", 0).await, start_worker(&nats, "b", 0).await];
    until_ready(&gateway).await;
    let url = format!("{}/live", gateway.replacen("http", "ws", 1));
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let heard = async |socket: &mut tokio_tungstenite::WebSocketStream<_>| {
        let message = tokio::time::timeout(Duration::from_secs(2), socket.next()).await;
        message
            .expect("an answer within 2 s")
            .unwrap()
            .unwrap()
            .into_text()
            .unwrap()
            .to_string()
    };
    assert_eq!(heard(&mut socket).await, r#"{"type":"hello"}"#);
    let paint = |rev: u32| Message::Text(format!(r#"{{"type":"paint","rev":{rev}}}"#).into());
    for rev in 1..=2 {
        socket.send(paint(rev)).await.unwrap();
        assert!(heard(&mut socket).await.ends_with(&format!(r#""rev":{rev}}}"#)));
    }
    socket.send(Message::Text(r#"{"type":"ping"}"#.into())).await.unwrap();
    let answer = heard(&mut socket).await;
    let (first, other) = if answer.starts_with('a') {
        ("a", "b")
    } else {
        ("b", "a")
    };
    workers
        .iter_mut()
        .find(|worker| worker.painter.name == first)
        .unwrap()
        .kill();
    let lost = Instant::now();
    // No second hello, and the last revision again.
    assert_eq!(
        heard(&mut socket).await,
        format!(r#"{other} has {{"type":"paint","rev":2}}"#)
    );
    assert!(lost.elapsed() < Duration::from_secs(2));
    socket.send(paint(3)).await.unwrap();
    assert!(heard(&mut socket).await.starts_with(other));
}
