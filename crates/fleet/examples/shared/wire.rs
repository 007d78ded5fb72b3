//! A wire between a program and NATS that can be cut without either end hearing of it.

use crate::processes::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Clones are the same wire.
#[derive(Clone)]
pub struct Wire {
    pub port: u16,
    to: u16,
    /// Connections made before the last cut carry nothing any more, and are not closed.
    cuts: Arc<AtomicUsize>,
}

impl Wire {
    /// From a port of its own to `to`, both on this machine.
    pub async fn lay(to: u16) -> Any<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let wire = Self {
            port: listener.local_addr()?.port(),
            to,
            cuts: Arc::default(),
        };
        let laid = wire.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(laid.clone().carry(near));
            }
        });
        Ok(wire)
    }

    pub fn cut(&self) {
        self.cuts.fetch_add(1, Ordering::Relaxed);
    }

    async fn carry(self, near: TcpStream) {
        let made = self.cuts.load(Ordering::Relaxed);
        let Ok(far) = TcpStream::connect(("127.0.0.1", self.to)).await else {
            return;
        };
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        let one = self.clone().copy(near_in, far_out, made);
        tokio::join!(one, self.copy(far_in, near_out, made));
    }

    async fn copy(self, mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, made: usize) {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(read) = from.read(&mut bytes).await {
            if self.cuts.load(Ordering::Relaxed) != made {
                // Held open: the other end has to find out by itself.
                std::future::pending::<()>().await;
            }
            if read == 0 || to.write_all(&bytes[..read]).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    }
}
