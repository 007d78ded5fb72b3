//! Accounts of a gateway that strangers use: keys, what each may do, what each did.
//!
//! All of it lies in SQLite, a file of the gateway's, or in PostgreSQL, which several gateways share. The statements are those
//! that both understand. Limits are kept by single statements of the database, so they hold to the picture whoever asks where.

mod calendar;
mod keys;
mod ledger;
mod words;

pub use keys::{Key, KeyLimits};
pub use ledger::{Audited, Usage};
pub use words::Words;

pub(crate) use ledger::{Charged, Over};

use crate::error::{Error, Result};
use sqlx::AnyPool;
use sqlx::any::AnyPoolOptions;
use std::time::Duration;

/// What is laid out in an empty database. `free_us`: the time at which a key's bucket is full again, in microseconds since 1970.
const SCHEMA: [&str; 5] = [
    "CREATE TABLE IF NOT EXISTS keys (
        name TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, hint TEXT NOT NULL,
        created_ms BIGINT NOT NULL, revoked_ms BIGINT NOT NULL,
        per_minute BIGINT NOT NULL, burst BIGINT NOT NULL,
        pictures_a_day BIGINT NOT NULL, pictures_a_month BIGINT NOT NULL,
        sessions BIGINT NOT NULL, free_us BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS periods (
        name TEXT NOT NULL, period TEXT NOT NULL,
        jobs BIGINT NOT NULL, pictures BIGINT NOT NULL, live_s BIGINT NOT NULL,
        PRIMARY KEY (name, period))",
    "CREATE TABLE IF NOT EXISTS charges (
        job TEXT PRIMARY KEY, name TEXT NOT NULL, at_ms BIGINT NOT NULL, path TEXT NOT NULL,
        pictures BIGINT NOT NULL, state TEXT NOT NULL, ended_ms BIGINT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS charges_open ON charges (state, at_ms)",
    "CREATE TABLE IF NOT EXISTS audit (
        at_ms BIGINT NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL, name TEXT NOT NULL, detail TEXT NOT NULL)",
];

/// A database of accounts. Clones share it.
#[derive(Clone)]
pub struct Accounts {
    pool: AnyPool,
}

/// Its address has a password.
impl std::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accounts").finish_non_exhaustive()
    }
}

impl Accounts {
    /// Opens, and lays out what is not there yet.
    ///
    /// `url`: `postgres://USER:PASSWORD@HOST/DATABASE`, or a file's path, with or without `sqlite:` before it; the file is made.
    ///
    /// # Errors
    /// [`Error::Accounts`] where the database does not answer, or is of something else.
    pub async fn open(url: &str) -> Result<Self> {
        sqlx::any::install_default_drivers();
        let is_postgres = url.starts_with("postgres://") || url.starts_with("postgresql://");
        let full = if is_postgres {
            url.to_owned()
        } else {
            let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"));
            let path = path.unwrap_or(url).split('?').next().unwrap_or_default();
            format!("sqlite:{}?mode=rwc", path.replace('%', "%25").replace('#', "%23"))
        };
        let options = AnyPoolOptions::new()
            .max_connections(8)
            .acquire_timeout(Duration::from_secs(10));
        let pool = options.connect(&full).await.map_err(|e| Error::Accounts {
            doing: format!("cannot be opened at {}", without_password(url)),
            message: e.to_string(),
        })?;
        if !is_postgres {
            // Readers and the one writer do not wait for each other; what was acknowledged outlives a killed process.
            sqlx::query("PRAGMA journal_mode = WAL")
                .execute(&pool)
                .await
                .map_err(of("the file's journal"))?;
        }
        for statement in SCHEMA {
            sqlx::query(statement).execute(&pool).await.map_err(of("the tables"))?;
        }
        Ok(Self { pool })
    }
}

/// Fit for a log.
fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://...@{host}"),
        _ => url.to_owned(),
    }
}

/// Says what the database refused.
fn of(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Error {
    move |error| Error::Accounts {
        doing: format!("refuse {doing}"),
        message: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_said() {
        assert_eq!(
            without_password("postgres://prima:secret@host/db"),
            "postgres://...@host/db"
        );
        assert_eq!(without_password("accounts.db"), "accounts.db");
    }
}
