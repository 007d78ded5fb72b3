//! `prima worker`: a server that paints what a gateway queues.

use crate::{gateway, serve};
use anyhow::Result;
use prima_fleet::WorkerOptions;
use std::net::SocketAddr;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    nats: gateway::Nats,
    /// What it is called, unlike every other worker [default: the process' number and port]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Its own server as gateways reach it [default: http://HOST:PORT]
    #[arg(long, value_name = "URL")]
    advertise: Option<String>,
    /// Jobs at once: they share the machine
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    slots: u8,
    /// Answer GET /metrics on this address with what the worker did, for Prometheus; its server's own are at its server
    #[arg(long, value_name = "HOST:PORT")]
    metrics: Option<SocketAddr>,
    #[command(flatten)]
    server: serve::Args,
}

pub fn run(args: Args) -> Result<()> {
    serve::log();
    serve::runtime()?.block_on(async {
        let bus = args.nats.connect().await?;
        let server = serve::prepare(&args.server).await?;
        let url = format!("http://{}", server.address);
        serve::announce(&url)?;
        let options = WorkerOptions {
            name: args
                .name
                .unwrap_or_else(|| format!("{}-{}", std::process::id(), server.address.port())),
            server_url: url.clone(),
            server_token: server.options.token.clone().unwrap_or_default(),
            advertised_url: args.advertise.unwrap_or(url),
            slots: usize::from(args.slots),
            metrics: args.metrics,
        };
        // The server goes last: what the worker has begun is painted there.
        let (done, is_done) = tokio::sync::oneshot::channel();
        let work = async {
            let worked = prima_fleet::worker(bus, options, prima_server::asked_to_stop()).await;
            let _ = done.send(());
            worked
        };
        let serve = server.serve(async {
            let _ = is_done.await;
        });
        let (served, worked) = tokio::join!(serve, work);
        served?;
        Ok(worked?)
    })
}
