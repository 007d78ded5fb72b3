//! `prima accounts`: who may use a gateway, and how much.

use crate::out::say;
use anyhow::Result;
use prima_fleet::{Accounts, KeyLimits};
use serde_json::json;
use time::OffsetDateTime;

/// Where the accounts are.
#[derive(clap::Args)]
pub struct Database {
    /// A file (SQLite; it is made), or postgres://USER:PASSWORD@HOST/DATABASE
    #[arg(
        long,
        value_name = "URL",
        env = "PRIMA_ACCOUNTS",
        hide_env_values = true,
        default_value = "prima-accounts.db"
    )]
    accounts: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// 0 is without a limit.
#[derive(clap::Args)]
pub struct Limits {
    /// Jobs and live sessions that may be begun in a minute, on average
    #[arg(long, value_name = "N")]
    per_minute: Option<u32>,
    /// So many of them at once, after a pause
    #[arg(long, value_name = "N")]
    burst: Option<u32>,
    /// Pictures a day, of UTC
    #[arg(long, value_name = "N")]
    pictures_a_day: Option<u32>,
    /// Pictures a calendar month
    #[arg(long, value_name = "N")]
    pictures_a_month: Option<u32>,
    /// Live sessions at once
    #[arg(long, value_name = "N")]
    sessions: Option<u32>,
}

/// What a new key may do unless it is said.
const USUAL: KeyLimits = KeyLimits {
    per_minute: 60,
    burst: 20,
    pictures_a_day: 500,
    pictures_a_month: 5000,
    sessions: 2,
};

impl Limits {
    fn over(&self, usual: KeyLimits) -> KeyLimits {
        KeyLimits {
            per_minute: self.per_minute.unwrap_or(usual.per_minute),
            burst: self.burst.unwrap_or(usual.burst),
            pictures_a_day: self.pictures_a_day.unwrap_or(usual.pictures_a_day),
            pictures_a_month: self.pictures_a_month.unwrap_or(usual.pictures_a_month),
            sessions: self.sessions.unwrap_or(usual.sessions),
        }
    }
}

#[derive(clap::Subcommand)]
pub enum Command {
    /// Make a key, and print it: it is kept nowhere, and cannot be asked for again
    #[command(
        after_help = "Unless it is said, a key may begin 60 jobs a minute (20 at once), have 500 pictures a day, 5000 a month,\n\
                            and 2 live sessions at once; 0 is without a limit."
    )]
    Add {
        /// Whose it is: letters, digits, `-`, `_` and `.`
        name: String,
        #[command(flatten)]
        limits: Limits,
        #[command(flatten)]
        database: Database,
    },
    /// List the keys: how each begins, its limits, when it was made or revoked
    List {
        #[command(flatten)]
        database: Database,
    },
    /// From now on the key opens nothing
    Revoke {
        name: String,
        #[command(flatten)]
        database: Database,
    },
    /// Change what a key may do; what is not named stays
    Limit {
        name: String,
        #[command(flatten)]
        limits: Limits,
        #[command(flatten)]
        database: Database,
    },
    /// Say what was used, a line for each key and period
    Usage {
        /// Of one key
        name: Option<String>,
        /// A day (2026-11-28), a month and its days (2026-11), a year
        #[arg(long, value_name = "PERIOD", default_value = "")]
        period: String,
        #[command(flatten)]
        database: Database,
    },
    /// Say what was done with these commands, the newest first
    Audit {
        /// Lines
        #[arg(long, value_name = "N", default_value_t = 100)]
        last: u32,
        #[command(flatten)]
        database: Database,
    },
}

pub fn run(command: Command) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(perform(command))
}

/// Who is at the keyboard, for the audit log.
fn who() -> String {
    let name = ["SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok());
    name.unwrap_or_else(|| "unknown".into())
}

async fn perform(command: Command) -> Result<()> {
    match command {
        Command::Add { name, limits, database } => {
            let accounts = Accounts::open(&database.accounts).await?;
            let limits = limits.over(USUAL);
            let key = accounts.add(&name, limits, &who()).await?;
            if database.json {
                say!("{}", json!({"name": name, "key": key, "limits": limits}));
            } else {
                say!("{key}");
            }
        }
        Command::Revoke { name, database } => {
            Accounts::open(&database.accounts).await?.revoke(&name, &who()).await?;
            if database.json {
                say!("{}", json!({"name": name, "revoked": true}));
            }
        }
        Command::Limit { name, limits, database } => {
            let accounts = Accounts::open(&database.accounts).await?;
            let limits = limits.over(accounts.named(&name).await?.limits);
            accounts.limit(&name, limits, &who()).await?;
            if database.json {
                say!("{}", json!({"name": name, "limits": limits}));
            }
        }
        Command::List { database } => list(&database).await?,
        Command::Usage { name, period, database } => usage(&database, name.as_deref(), &period).await?,
        Command::Audit { last, database } => audit(&database, last).await?,
    }
    Ok(())
}

async fn list(database: &Database) -> Result<()> {
    let keys = Accounts::open(&database.accounts).await?.list().await?;
    if database.json {
        say!("{}", serde_json::to_string_pretty(&keys)?);
        return Ok(());
    }
    let row = |cells: [String; 8]| {
        let [name, key, minute, burst, day, month, sessions, state] = cells;
        format!("{name:20} {key:12} {minute:>8} {burst:>6} {day:>8} {month:>8} {sessions:>8}  {state}")
    };
    let head = [
        "name", "key", "a minute", "burst", "a day", "a month", "sessions", "since",
    ];
    say!("{}", row(head.map(str::to_owned)));
    for key in keys {
        let limits = key.limits;
        let limit = |n: u32| if n == 0 { "-".to_owned() } else { n.to_string() };
        let state = match key.revoked_ms {
            0 => date(key.created_ms),
            at => format!("revoked {}", date(at)),
        };
        let numbers = [
            limits.per_minute,
            limits.burst,
            limits.pictures_a_day,
            limits.pictures_a_month,
            limits.sessions,
        ];
        let [minute, burst, day, month, sessions] = numbers.map(limit);
        let hint = format!("{}...", key.hint);
        say!("{}", row([key.name, hint, minute, burst, day, month, sessions, state]));
    }
    Ok(())
}

async fn usage(database: &Database, name: Option<&str>, period: &str) -> Result<()> {
    let used = Accounts::open(&database.accounts).await?.usage(name, period).await?;
    if database.json {
        say!("{}", serde_json::to_string_pretty(&used)?);
        return Ok(());
    }
    let (jobs, live) = ("jobs", "live s");
    say!("{:20} {:10} {jobs:>8} {:>8} {live:>8}", "name", "period", "pictures");
    for used in used {
        let (name, period) = (used.name, used.period);
        say!(
            "{name:20} {period:10} {:>8} {:>8} {:>8}",
            used.jobs,
            used.pictures,
            used.live_s
        );
    }
    Ok(())
}

async fn audit(database: &Database, last: u32) -> Result<()> {
    let acts = Accounts::open(&database.accounts).await?.audit(last).await?;
    if database.json {
        say!("{}", serde_json::to_string_pretty(&acts)?);
        return Ok(());
    }
    for act in acts {
        say!(
            "{}  {:12} {:8} {:20} {}",
            date(act.at_ms),
            act.who,
            act.what,
            act.name,
            act.detail
        );
    }
    Ok(())
}

/// As `2026-11-28T03:25:16Z`.
fn date(ms: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp((ms / 1000) as i64).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (hour, minute, second) = at.to_hms();
    format!("{}T{hour:02}:{minute:02}:{second:02}Z", at.date())
}
