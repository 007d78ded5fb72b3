//! `prima serve`, and bare `prima`: the studio and the APIs.

use crate::models::FolderArg;
use crate::out::note;
use crate::{Usage, controlnets, device, loras, memory, source};
use anyhow::{Context, Result};
use prima_engine::{Engine, Readiness};
use prima_pipeline::{LoadOptions, Request};
use prima_server::{Limits, ServerOptions, page_url};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::TcpListener;

#[derive(clap::Args)]
pub struct Args {
    /// The address to listen on; one that other machines can reach needs --token
    #[arg(long, value_name = "HOST", default_value = HOST)]
    host: String,
    /// The port; 0 takes a free one [default: 7860, or the next that is free]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// `embedded`, a diffusers folder, a checkpoint in one file, a model of the hub's cache, or a name among the models; clients
    /// may choose any other of them [default: embedded]
    #[arg(long, value_name = "embedded|DIR|FILE|NAME")]
    model: Option<String>,
    #[command(flatten)]
    models: FolderArg,
    #[command(flatten)]
    loras: loras::Args,
    #[command(flatten)]
    parts: source::Parts,
    /// A model that takes the last steps of requests that ask for it (`refiner_switch_at`), such as SDXL's refiner
    #[arg(long, value_name = "DIR|FILE")]
    refiner: Option<String>,
    #[command(flatten)]
    controlnets: controlnets::Folder,
    #[command(flatten)]
    device: device::Args,
    #[command(flatten)]
    memory: memory::Args,
    /// Live sessions at once
    #[arg(long, value_name = "N", default_value_t = ServerOptions::default().max_sessions)]
    max_sessions: usize,
    /// API requests that may wait or be painted at once
    #[arg(long, value_name = "N", default_value_t = ServerOptions::default().max_jobs)]
    max_jobs: usize,
    /// Longest side of a picture in pixels
    #[arg(long, value_name = "PX", default_value_t = Limits::default().max_side_px)]
    max_side: usize,
    /// Wanted from every client, as `Authorization: Bearer TOKEN` or `?token=TOKEN`
    #[arg(long, value_name = "TOKEN", env = "PRIMA_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Another site whose pages may use the server, such as http://localhost:3000 (repeatable)
    #[arg(long, value_name = "ORIGIN")]
    cors: Vec<String>,
    /// Open the studio in the browser
    #[arg(long)]
    open: bool,
    /// A network that enlarges pictures, for the APIs (as `prima upscale --model` takes it); may be repeated
    #[arg(long = "upscaler", value_name = "FILE")]
    upscalers: Vec<PathBuf>,
    /// Show the newest picture of the live sessions as MJPEG at /studio/stream, for OBS and browsers
    #[arg(long)]
    stream: bool,
    /// Serve the page from this folder, to work on it
    #[arg(long, value_name = "DIR", hide = true)]
    web_dir: Option<PathBuf>,
}

impl Args {
    /// What bare `prima` does.
    pub fn bare() -> Self {
        let defaults = ServerOptions::default();
        Self {
            host: HOST.to_owned(),
            port: None,
            model: None,
            models: FolderArg::default(),
            loras: loras::Args::default(),
            parts: source::Parts::default(),
            refiner: None,
            controlnets: controlnets::Folder::default(),
            device: device::Args::default(),
            memory: memory::Args::default(),
            max_sessions: defaults.max_sessions,
            max_jobs: defaults.max_jobs,
            max_side: defaults.limits.max_side_px,
            token: None,
            cors: Vec::new(),
            open: true,
            upscalers: Vec::new(),
            stream: false,
            web_dir: None,
        }
    }
}

pub const HOST: &str = "127.0.0.1";

pub fn run(args: Args) -> Result<()> {
    log();
    runtime()?.block_on(async {
        let server = prepare(&args).await?;
        let url = page_url(server.address, args.token.as_deref());
        announce(&url)?;
        note!("the studio is at {url} (Ctrl-C ends it)");
        if args.open && webbrowser::open(&url).is_err() {
            note!("no browser could be opened; open the address above");
        }
        server.serve(prima_server::asked_to_stop()).await
    })
}

pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // Work on pictures waits for its turn before it takes a thread.
        .max_blocking_threads(64)
        .enable_all()
        .build()
        .context("the server's threads cannot be started")
}

/// The address on stdout. That nobody reads it is no reason not to serve.
pub fn announce(url: &str) -> Result<()> {
    match crate::out::line(format_args!("{url}")) {
        Err(error) if !error.is::<crate::out::Unread>() => Err(error),
        _ => Ok(()),
    }
}

/// A server whose address is taken and whose model is on its way.
pub struct Prepared {
    pub address: SocketAddr,
    pub options: ServerOptions,
    listener: TcpListener,
    engine: Engine,
}

impl Prepared {
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        tokio::spawn(watch(self.engine.clone()));
        Ok(prima_server::serve(self.listener, self.engine, self.options, shutdown).await?)
    }
}

pub async fn prepare(args: &Args) -> Result<Prepared> {
    if args.token.as_deref().is_some_and(|t| t.trim().is_empty()) {
        return Err(Usage("--token is empty".to_owned()).into());
    }
    if args.max_sessions == 0 || args.max_jobs == 0 {
        return Err(Usage("--max-sessions and --max-jobs are at least 1".to_owned()).into());
    }
    args.device.choose()?;
    let library = args.models.library();
    let model = source::open_with(args.model.as_deref(), &args.parts, &library)?;
    let listener = prima_server::bind(&args.host, args.port).await?;
    let address = listener.local_addr()?;
    let options = ServerOptions {
        token: args.token.clone(),
        cors: args.cors.clone(),
        max_sessions: args.max_sessions,
        max_jobs: args.max_jobs,
        limits: Limits {
            max_side_px: args.max_side,
            ..Limits::default()
        },
        upscalers: args.upscalers.clone(),
        web_dir: args.web_dir.clone(),
        stream: args.stream,
    };
    options.check(address).map_err(|e| Usage(e.to_string()))?;
    let load = args.loras.with(args.parts.told(args.memory.options(args.device.dtype)));
    let refiner = args.refiner.as_deref().map(|refiner| source::open(Some(refiner)));
    let load = LoadOptions {
        refiner: refiner.transpose()?,
        ..args.controlnets.with(load, Vec::new())
    };
    let load = prima_pipeline::check_room(&model, &load, &Request::default())?;
    let engine = Engine::start_with(model, load, args.max_jobs, library);
    Ok(Prepared {
        address,
        options,
        listener,
        engine,
    })
}

/// Says when the model is ready, or why it never will be.
async fn watch(engine: Engine) {
    loop {
        match engine.readiness() {
            Readiness::Ready => return tracing::info!("ready"),
            Readiness::Failed(reason) => return tracing::error!("the model cannot be used: {reason}"),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Structured logs on stderr; `RUST_LOG` or `PRIMA_LOG` chooses how much (`debug` shows each request).
pub fn log() {
    let level = ["PRIMA_LOG", "RUST_LOG"]
        .iter()
        .find_map(|name| std::env::var(name).ok()?.parse().ok());
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_max_level(level.unwrap_or(tracing::Level::INFO))
        .init();
}
