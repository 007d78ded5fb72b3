//! Sockets, from the first to the last. The accept loop: bounded connections, all together and of one address, a bounded wait
//! for a request's first byte and head, no delay for small packets (a frame must not wait for an acknowledgement), and an
//! orderly end.

use crate::Error;
use crate::app::App;
use crate::connections::{Answering, Bounds, Connection, Connections, Peer};
use crate::refusal::Refusal;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Request, Response, header};
use axum::response::IntoResponse;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use std::convert::Infallible;
use std::future::Future;
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

/// Connections beyond all others, for health checks.
const SPARE: usize = 16;
/// Answers of the last moment are written within this time.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Connections that wait to be accepted, or as many as the system allows. When the queue is full, Linux drops what a client sends
/// to connect, and the client tries again after a second.
const QUEUE: i32 = 4096;

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

/// Serves `router` until `shutdown`. What is being answered then may take until the farewell is over; what comes anew is told to
/// come back later.
pub(crate) async fn accept(
    listener: TcpListener,
    router: Router,
    app: &App,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    SockRef::from(&listener).listen(QUEUE)?;
    let limits = app.limits();
    let table = Connections::new(Bounds {
        all: limits.connections,
        of_one_peer: limits.connections_per_address,
        spare: SPARE,
    });
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time);
    let door = Door {
        builder,
        router,
        first_byte: limits.first_byte_time,
        graceful: GracefulShutdown::new(),
        table,
    };
    let ended = async {
        shutdown.await;
        tracing::info!("shutting down");
        app.closing.send_replace(true);
        let until = Instant::now() + limits.farewell;
        // Whoever has just connected is heard, too.
        sleep(limits.farewell.min(Duration::from_millis(100))).await;
        while door.table.requests() > 0 && Instant::now() < until {
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = door.keep_open(&listener) => {}
        () = ended => {}
    }
    drop(listener);
    // What is not done by now is answered with a refusal.
    app.cut_off.send_replace(true);
    app.engine.stop();
    if timeout(LAST_WORDS, door.graceful.shutdown()).await.is_err() {
        tracing::warn!("some connections did not take their answers");
    }
    Ok(())
}

/// What every connection gets.
struct Door {
    builder: Builder<TokioExecutor>,
    router: Router,
    first_byte: Duration,
    graceful: GracefulShutdown,
    table: Arc<Connections>,
}

impl Door {
    async fn keep_open(&self, listener: &TcpListener) {
        loop {
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                // A client that went away again while it waited.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    // File descriptors come back.
                    tracing::warn!("a connection was not accepted: {error}");
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Some((connection, closed)) = self.table.admit(Peer::of(address.ip())) else {
                continue;
            };
            let _ = stream.set_nodelay(true);
            let connection = Arc::new(connection);
            let answers = Answers {
                router: TowerToHyperService::new(self.router.clone()),
                connection,
            };
            let serving = serve_one(
                stream,
                answers,
                self.builder.clone(),
                self.first_byte,
                self.graceful.watcher(),
            );
            tokio::spawn(async move {
                tokio::select! {
                    () = serving => {}
                    _ = closed => tracing::debug!("an idle connection gave way"),
                }
            });
        }
    }
}

async fn serve_one(
    stream: TcpStream,
    answers: Answers,
    builder: Builder<TokioExecutor>,
    first_byte: Duration,
    watcher: Watcher,
) {
    match timeout(first_byte, stream.peek(&mut [0])).await {
        Ok(Ok(1..)) => {}
        _ => return tracing::debug!("a connection said nothing"),
    }
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), answers);
    if let Err(error) = watcher.watch(connection.into_owned()).await {
        tracing::debug!("a connection broke: {error}");
    }
}

/// The router, told whose connection it answers on.
struct Answers {
    router: TowerToHyperService<Router>,
    connection: Arc<Connection>,
}

impl Service<Request<Incoming>> for Answers {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let answering = self.connection.answering();
        let spare = self.connection.spare;
        if spare && !crate::health::is_check(request.uri().path()) {
            let refusal = Refusal::unavailable("too many connections are open; try again in a moment");
            let response = last(refusal.into_response());
            return async move { Ok(response.map(|body| Answer { body, answering })) }.boxed();
        }
        request.extensions_mut().insert(self.connection.peer);
        let response = self.router.call(request);
        async move {
            let response = response.await?;
            let response = if spare { last(response) } else { response };
            Ok(response.map(|body| Answer { body, answering }))
        }
        .boxed()
    }
}

/// After this response the connection closes.
fn last(mut response: Response<Body>) -> Response<Body> {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

/// A response's body; while it is sent, its connection does not give way.
struct Answer {
    body: Body,
    #[expect(dead_code, reason = "held for its Drop")]
    answering: Answering,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
