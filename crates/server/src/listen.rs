//! Sockets, from the first to the last. The accept loop: bounded connections, a bounded wait for a request's head, no delay for small
//! packets (a frame must not wait for an acknowledgement), and an orderly end.

use crate::Error;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// HTTP connections open at once; further ones wait in the system's queue.
const CONNECTIONS: usize = 512;
/// A request's head has to be there by then; also how long an idle connection is kept.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// Open requests may take this long after the server was asked to stop.
const FAREWELL: Duration = Duration::from_secs(10);

/// The port where none is asked for.
const PORT: u16 = 7860;
/// Ports tried after it.
const NEXT_PORTS: u16 = 20;

/// Listens on the port given; without one, on the first that is free from 7860 on.
pub async fn bind(host: &str, port: Option<u16>) -> Result<TcpListener, Error> {
    let mut next = port.unwrap_or(PORT);
    let last = port.unwrap_or(PORT + NEXT_PORTS);
    loop {
        match TcpListener::bind((host, next)).await {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == ErrorKind::AddrInUse && next < last => next += 1,
            Err(source) => {
                let (host, port) = (host.to_owned(), next);
                return Err(Error::Listen { host, port, source });
            }
        }
    }
}

/// Waits for Ctrl-C, or a supervisor's SIGTERM.
pub async fn asked_to_stop() {
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminated) = signal(SignalKind::terminate()) {
            tokio::select! {
                () = interrupted => {}
                _ = terminated.recv() => {}
            }
            return;
        }
    }
    interrupted.await;
}

/// Serves `router` until `shutdown`.
pub(crate) async fn accept(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    let graceful = GracefulShutdown::new();
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut shutdown = pin!(shutdown);
    loop {
        let next = async {
            let permit = permits.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            next = next => next,
            () = &mut shutdown => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Of one connection, or of file descriptors that come back.
                tracing::warn!("a connection was not accepted: {error}");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let connection = graceful.watch(connection.into_owned());
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("a connection broke: {error}");
            }
            drop(permit);
        });
    }
    drop(listener);
    if timeout(FAREWELL, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still open after {} s", FAREWELL.as_secs());
    }
}
