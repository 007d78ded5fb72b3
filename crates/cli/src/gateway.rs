//! `prima gateway`: one address for many machines.

use crate::{Usage, serve};
use anyhow::{Context as _, Result};
use prima_fleet::{Accounts, Bus, BusOptions, GatewayOptions, Words};
use prima_server::{ServerOptions, page_url};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the queue is; of gateways and workers alike.
#[derive(clap::Args)]
pub struct Nats {
    /// The NATS server, or several of a cluster with commas between; JetStream has to be on (`nats-server -js`)
    #[arg(
        long = "nats",
        value_name = "URL",
        env = "PRIMA_NATS",
        default_value = "nats://127.0.0.1:4222"
    )]
    url: String,
    /// Copies of what is queued: 3 on a cluster of three servers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: u8,
    /// Hours that jobs and answers are kept
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..))]
    keep: u32,
}

impl Nats {
    pub async fn connect(&self) -> Result<Bus> {
        let options = BusOptions {
            url: self.url.clone(),
            replicas: usize::from(self.replicas),
            keep: Duration::from_hours(u64::from(self.keep)),
            ..BusOptions::default()
        };
        Ok(Bus::connect(&options).await?)
    }
}

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    nats: Nats,
    /// The address to listen on; one that other machines can reach needs --token
    #[arg(long, value_name = "HOST", default_value = serve::HOST)]
    host: String,
    /// The port; 0 takes a free one [default: 7860, or the next that is free]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Wanted from every client, as `Authorization: Bearer TOKEN` or `?token=TOKEN`
    #[arg(long, value_name = "TOKEN", env = "PRIMA_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Let in also those who have a key of these accounts (`prima accounts`): a file, or postgres://USER:PASSWORD@HOST/DATABASE,
    /// which several gateways share
    #[arg(long, value_name = "URL", env = "PRIMA_ACCOUNTS", hide_env_values = true)]
    accounts: Option<String>,
    /// Refuse prompts with a word or phrase of this file, one a line
    #[arg(long, value_name = "FILE")]
    block_words: Option<PathBuf>,
    /// Phrases in which blocked words are allowed
    #[arg(long, value_name = "FILE", requires = "block_words")]
    allow_words: Option<PathBuf>,
    /// Answer GET /metrics on this address, for Prometheus; clients should not reach it
    #[arg(long, value_name = "HOST:PORT")]
    metrics: Option<SocketAddr>,
}

fn list(path: Option<&Path>) -> Result<String> {
    let Some(path) = path else { return Ok(String::new()) };
    std::fs::read_to_string(path).with_context(|| format!("the list of words {} cannot be read", path.display()))
}

pub fn run(args: Args) -> Result<()> {
    serve::log();
    serve::runtime()?.block_on(async {
        let listener = prima_server::bind(&args.host, args.port).await?;
        let address = listener.local_addr()?;
        // The same rules of who may come in as for a server of one machine.
        let rules = ServerOptions {
            token: args.token.clone(),
            ..ServerOptions::default()
        };
        if args.token.is_some() || args.accounts.is_none() {
            rules.check(address).map_err(|e| Usage(e.to_string()))?;
        }
        let accounts = match &args.accounts {
            Some(url) => Some(Accounts::open(url).await?),
            None => None,
        };
        let bus = args.nats.connect().await?;
        serve::announce(&page_url(address, args.token.as_deref()))?;
        let options = GatewayOptions {
            token: args.token,
            accounts,
            words: Words::read(&list(args.block_words.as_deref())?, &list(args.allow_words.as_deref())?),
            metrics: args.metrics,
            ..GatewayOptions::default()
        };
        Ok(Box::pin(prima_fleet::gateway(
            listener,
            bus,
            options,
            prima_server::asked_to_stop(),
        ))
        .await?)
    })
}
