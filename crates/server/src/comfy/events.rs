//! What sockets are told: to one client, or to all.

use axum::body::Bytes;
use axum::extract::ws::Message;
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// Messages that a slow client may be behind; what it missed then is not sent again.
const BEHIND: usize = 256;

/// A message and whom it is for; all, if for nobody.
#[derive(Clone)]
pub(crate) struct Event {
    pub client: Option<String>,
    pub message: Message,
}

/// Where runs speak and sockets listen.
pub(crate) struct Events(broadcast::Sender<Event>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::channel(BEHIND).0)
    }
}

/// The format of a picture in a binary message.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Jpeg = 1,
    Png = 2,
}

impl Events {
    pub fn listen(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }

    pub fn tell(&self, client: Option<&str>, kind: &str, data: Value) {
        let message = Message::Text(json!({"type": kind, "data": data}).to_string().into());
        self.send(client, message);
    }

    /// A picture: two big-endian numbers, 1 for a preview and its format, and the file.
    pub fn show(&self, client: Option<&str>, kind: Kind, file: &[u8]) {
        let mut bytes = Vec::with_capacity(8 + file.len());
        bytes.extend(1_u32.to_be_bytes());
        bytes.extend((kind as u32).to_be_bytes());
        bytes.extend(file);
        self.send(client, Message::Binary(Bytes::from(bytes)));
    }

    fn send(&self, client: Option<&str>, message: Message) {
        // That nobody listens is no fault.
        let _ = self.0.send(Event {
            client: client.map(str::to_owned),
            message,
        });
    }
}
