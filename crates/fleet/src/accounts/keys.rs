//! Keys: made, listed, revoked, and looked up for each request.

use super::{Accounts, of};
use crate::error::{Error, Result};
use crate::job::now_ms;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;
use sqlx::any::{Any, AnyArguments, AnyRow};
use sqlx::query::Query;

/// What finds keys in logs and in files that were published by mistake.
const PREFIX: &str = "prima_";
/// Characters that are kept as they are, to know a key by.
const HINT_CHARS: usize = PREFIX.len() + 4;

/// What a key may do; 0 is without a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KeyLimits {
    /// Jobs and sessions begun in a minute, on average.
    pub per_minute: u32,
    /// So many of them at once, after a pause.
    pub burst: u32,
    pub pictures_a_day: u32,
    pub pictures_a_month: u32,
    /// Live sessions at once, at each gateway.
    pub sessions: u32,
}

type Asked<'q> = Query<'q, Any, AnyArguments>;

impl KeyLimits {
    /// As a query's next five values, in the order of the fields.
    fn bound_to(self, query: Asked) -> Asked {
        query
            .bind(i64::from(self.per_minute))
            .bind(i64::from(self.burst))
            .bind(i64::from(self.pictures_a_day))
            .bind(i64::from(self.pictures_a_month))
            .bind(i64::from(self.sessions))
    }
}

/// A key, without what would let anybody in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Key {
    pub name: String,
    /// How it begins.
    pub hint: String,
    pub created_ms: u64,
    /// 0 if it was not.
    pub revoked_ms: u64,
    #[serde(flatten)]
    pub limits: KeyLimits,
}

impl Key {
    fn read(row: &AnyRow) -> std::result::Result<Self, sqlx::Error> {
        let number = |column: &str| row.try_get::<i64, _>(column).map(|n| n.max(0) as u64);
        let limit = |column: &str| number(column).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        Ok(Self {
            name: row.try_get("name")?,
            hint: row.try_get("hint")?,
            created_ms: number("created_ms")?,
            revoked_ms: number("revoked_ms")?,
            limits: KeyLimits {
                per_minute: limit("per_minute")?,
                burst: limit("burst")?,
                pictures_a_day: limit("pictures_a_day")?,
                pictures_a_month: limit("pictures_a_month")?,
                sessions: limit("sessions")?,
            },
        })
    }
}

/// What is kept of a key. A fast hash is right: a key is 256 random bits, not a word that somebody chose, so there is nothing to
/// try but all 2^256; a slow one would only make each request slow. And because the hash is looked up, not the key, the time that
/// takes says nothing of keys that are there.
fn hash(key: &str) -> String {
    format!("{:x}", Sha256::digest(key))
}

impl Accounts {
    /// Makes a key of that name, which is never given out again; returns what is shown once and kept nowhere.
    ///
    /// # Errors
    /// [`Error::Account`] where the name is taken, or cannot be one: letters, digits, `-`, `_` and `.`, 64 at most.
    pub async fn add(&self, name: &str, limits: KeyLimits, who: &str) -> Result<String> {
        let is_fit = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(is_fit) {
            let message = "a name is letters, digits, `-`, `_` and `.`, 64 at most".into();
            return Err(Error::Account {
                name: name.into(),
                message,
            });
        }
        let mut bytes = [0u8; 32];
        getrandom::fill(&mut bytes).map_err(|e| Error::Accounts {
            doing: "cannot make a key".into(),
            message: e.to_string(),
        })?;
        let key = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes));
        let added = sqlx::query(
            "INSERT INTO keys (name, hash, hint, created_ms, revoked_ms, per_minute, burst, pictures_a_day, pictures_a_month, \
             sessions, free_us) VALUES ($1, $2, $3, $4, 0, $5, $6, $7, $8, $9, 0) ON CONFLICT (name) DO NOTHING",
        )
        .bind(name)
        .bind(hash(&key))
        .bind(&key[..HINT_CHARS])
        .bind(now_ms() as i64);
        let added = limits
            .bound_to(added)
            .execute(&self.pool)
            .await
            .map_err(of("a new key"))?;
        if added.rows_affected() == 0 {
            let message = "there is one, or was: take another name".into();
            return Err(Error::Account {
                name: name.into(),
                message,
            });
        }
        self.note(who, "add", name, &described(limits)).await?;
        Ok(key)
    }

    /// All keys, by name.
    pub async fn list(&self) -> Result<Vec<Key>> {
        let rows = sqlx::query("SELECT * FROM keys ORDER BY name")
            .fetch_all(&self.pool)
            .await;
        let keys = rows.and_then(|rows| rows.iter().map(Key::read).collect());
        keys.map_err(of("the list of keys"))
    }

    /// From now on the key opens nothing. What it had queued is painted.
    pub async fn revoke(&self, name: &str, who: &str) -> Result<()> {
        let revoked = sqlx::query("UPDATE keys SET revoked_ms = $2 WHERE name = $1 AND revoked_ms = 0")
            .bind(name)
            .bind(now_ms() as i64)
            .execute(&self.pool)
            .await
            .map_err(of("to revoke a key"))?;
        if revoked.rows_affected() == 0 {
            return Err(missing(name));
        }
        self.note(who, "revoke", name, "").await
    }

    /// Changes what a key may do, from now on.
    pub async fn limit(&self, name: &str, limits: KeyLimits, who: &str) -> Result<()> {
        let changed = sqlx::query(
            "UPDATE keys SET per_minute = $2, burst = $3, pictures_a_day = $4, pictures_a_month = $5, sessions = $6, free_us = 0 \
             WHERE name = $1 AND revoked_ms = 0",
        )
        .bind(name);
        let changed = limits
            .bound_to(changed)
            .execute(&self.pool)
            .await
            .map_err(of("new limits"))?;
        if changed.rows_affected() == 0 {
            return Err(missing(name));
        }
        self.note(who, "limit", name, &described(limits)).await
    }

    /// The key of that name, if it was not revoked.
    pub async fn named(&self, name: &str) -> Result<Key> {
        let found = self
            .find("SELECT * FROM keys WHERE name = $1 AND revoked_ms = 0", name)
            .await?;
        found.ok_or_else(|| missing(name))
    }

    /// Whose key this is; `None` where it is nobody's, or nobody's any more.
    pub(crate) async fn whose(&self, key: &str) -> Result<Option<Key>> {
        if !key.starts_with(PREFIX) {
            return Ok(None);
        }
        self.find("SELECT * FROM keys WHERE hash = $1 AND revoked_ms = 0", &hash(key))
            .await
    }

    /// The key that a query for one value finds.
    async fn find(&self, query: &'static str, value: &str) -> Result<Option<Key>> {
        let row = sqlx::query(query).bind(value).fetch_optional(&self.pool).await;
        let found = row.and_then(|row| row.as_ref().map(Key::read).transpose());
        found.map_err(of("a key to be looked up"))
    }
}

fn missing(name: &str) -> Error {
    let message = "there is no such key, or it was revoked; `prima accounts list` says which there are".into();
    Error::Account {
        name: name.into(),
        message,
    }
}

fn described(limits: KeyLimits) -> String {
    serde_json::to_string(&limits).unwrap_or_default()
}
