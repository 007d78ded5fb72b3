//! What keys used: rates, quotas, a line for each job, and what administrators did.

use super::calendar::periods;
use super::{Accounts, Key, of};
use crate::error::Result;
use crate::job::now_ms;
use serde::Serialize;
use sqlx::Row as _;
use std::time::Duration;

const OPEN: &str = "open";

/// Whether a job was counted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Charged {
    Now,
    /// It was before: the same job, sent again.
    Before,
    Over(Over),
}

/// A quota that is used up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Over {
    /// `day` or `month`.
    pub period: &'static str,
    pub limit: u32,
    pub again_in: Duration,
}

/// What a key used in a day (`2026-11-28`) or in a month (`2026-11`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Usage {
    pub name: String,
    pub period: String,
    pub jobs: u64,
    /// Those that were asked for in jobs; what was not painted in the end is not among them.
    pub pictures: u64,
    /// Seconds of live sessions.
    pub live_s: u64,
}

/// What an administrator did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Audited {
    pub at_ms: u64,
    pub who: String,
    pub what: String,
    pub name: String,
    pub detail: String,
}

impl Accounts {
    /// Takes one from the key's bucket, which holds `burst` and fills by `per_minute`; how long it is to wait if there is none.
    ///
    /// The bucket is one number, the time at which it is full again (the generic cell rate algorithm, ITU-T I.371), so that one
    /// statement both looks and takes.
    pub(crate) async fn take(&self, key: &Key) -> Result<std::result::Result<(), Duration>> {
        let limits = key.limits;
        if limits.per_minute == 0 {
            return Ok(Ok(()));
        }
        let every_us = 60_000_000 / i64::from(limits.per_minute);
        let room_us = every_us * i64::from(limits.burst.max(1) - 1);
        let now_us = now_ms() as i64 * 1000;
        let taken = sqlx::query(
            "UPDATE keys SET free_us = (CASE WHEN free_us > $2 THEN free_us ELSE $2 END) + $3 \
             WHERE name = $1 AND free_us <= $2 + $4",
        )
        .bind(&key.name)
        .bind(now_us)
        .bind(every_us)
        .bind(room_us)
        .execute(&self.pool)
        .await
        .map_err(of("a key's rate"))?;
        if taken.rows_affected() > 0 {
            return Ok(Ok(()));
        }
        let row = sqlx::query("SELECT free_us FROM keys WHERE name = $1")
            .bind(&key.name)
            .fetch_one(&self.pool)
            .await;
        let free_us: i64 = row.and_then(|row| row.try_get(0)).map_err(of("a key's rate"))?;
        let wait_us = (free_us - room_us - now_us).max(0);
        Ok(Err(Duration::from_micros(wait_us as u64)))
    }

    /// Counts a job and its pictures, if they are within the key's quotas: all of it, or nothing.
    pub(crate) async fn charge(&self, key: &Key, job: &str, path: &str, pictures: u32) -> Result<Charged> {
        let now = now_ms();
        let mut change = self.pool.begin().await.map_err(of("a job's count"))?;
        let added = sqlx::query(
            "INSERT INTO charges (job, name, at_ms, path, pictures, state, ended_ms) VALUES ($1, $2, $3, $4, $5, $6, 0) \
             ON CONFLICT (job) DO NOTHING",
        )
        .bind(job)
        .bind(&key.name)
        .bind(now as i64)
        .bind(path)
        .bind(i64::from(pictures))
        .bind(OPEN)
        .execute(&mut *change)
        .await
        .map_err(of("a job's count"))?;
        if added.rows_affected() == 0 {
            return Ok(Charged::Before);
        }
        let limits = [key.limits.pictures_a_day, key.limits.pictures_a_month];
        for (((period, next_ms), limit), name) in periods(now).into_iter().zip(limits).zip(["day", "month"]) {
            self.open_period(&mut change, &key.name, &period).await?;
            let counted = sqlx::query(
                "UPDATE periods SET jobs = jobs + 1, pictures = pictures + $3 \
                 WHERE name = $1 AND period = $2 AND ($4 = 0 OR pictures + $3 <= $4)",
            )
            .bind(&key.name)
            .bind(&period)
            .bind(i64::from(pictures))
            .bind(i64::from(limit))
            .execute(&mut *change)
            .await
            .map_err(of("a job's count"))?;
            if counted.rows_affected() == 0 {
                change.rollback().await.map_err(of("a job's count"))?;
                let again_in = Duration::from_millis(next_ms.saturating_sub(now));
                return Ok(Charged::Over(Over {
                    period: name,
                    limit,
                    again_in,
                }));
            }
        }
        change.commit().await.map_err(of("a job's count"))?;
        Ok(Charged::Now)
    }

    async fn open_period(&self, change: &mut sqlx::AnyConnection, name: &str, period: &str) -> Result<()> {
        sqlx::query(
            "INSERT INTO periods (name, period, jobs, pictures, live_s) VALUES ($1, $2, 0, 0, 0) ON CONFLICT DO NOTHING",
        )
        .bind(name)
        .bind(period)
        .execute(change)
        .await
        .map(drop)
        .map_err(of("a day's count"))
    }

    /// Writes a job's end to its line, once, whoever says it; gives its pictures back if it `was_for_nothing`.
    pub(crate) async fn settle(&self, job: &str, state: &str, was_for_nothing: bool) -> Result<()> {
        let mut change = self.pool.begin().await.map_err(of("a job's end"))?;
        let row = sqlx::query(
            "UPDATE charges SET state = $2, ended_ms = $3 WHERE job = $1 AND state = $4 RETURNING name, at_ms, pictures",
        )
        .bind(job)
        .bind(state)
        .bind(now_ms() as i64)
        .bind(OPEN)
        .fetch_optional(&mut *change)
        .await
        .map_err(of("a job's end"))?;
        if let Some(row) = row.filter(|_| was_for_nothing) {
            let read = || {
                Ok((
                    row.try_get::<String, _>(0)?,
                    row.try_get::<i64, _>(1)?,
                    row.try_get::<i64, _>(2)?,
                ))
            };
            let (name, at_ms, pictures) = read().map_err(of("a job's end"))?;
            for (period, _) in periods(at_ms as u64) {
                sqlx::query("UPDATE periods SET pictures = pictures - $3 WHERE name = $1 AND period = $2")
                    .bind(&name)
                    .bind(period)
                    .bind(pictures)
                    .execute(&mut *change)
                    .await
                    .map_err(of("a job's end"))?;
            }
        }
        change.commit().await.map_err(of("a job's end"))
    }

    /// Jobs counted before `before_ms` whose end was not written, the oldest first.
    pub(crate) async fn open_jobs(&self, before_ms: u64, most: u32) -> Result<Vec<String>> {
        let rows = sqlx::query("SELECT job FROM charges WHERE state = $1 AND at_ms < $2 ORDER BY at_ms LIMIT $3")
            .bind(OPEN)
            .bind(before_ms as i64)
            .bind(i64::from(most))
            .fetch_all(&self.pool)
            .await;
        let jobs = rows.and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect());
        jobs.map_err(of("the jobs that are not ended"))
    }

    /// Counts time of a live session.
    pub(crate) async fn count_live(&self, name: &str, seconds: u64) -> Result<()> {
        let mut connection = self.pool.acquire().await.map_err(of("a session's count"))?;
        for (period, _) in periods(now_ms()) {
            self.open_period(&mut connection, name, &period).await?;
            sqlx::query("UPDATE periods SET live_s = live_s + $3 WHERE name = $1 AND period = $2")
                .bind(name)
                .bind(period)
                .bind(seconds as i64)
                .execute(&mut *connection)
                .await
                .map_err(of("a session's count"))?;
        }
        Ok(())
    }

    /// What was used in periods that begin with `period` (`2026-11-28`, `2026-11` and its days), of one key or of all.
    pub async fn usage(&self, name: Option<&str>, period: &str) -> Result<Vec<Usage>> {
        let rows =
            sqlx::query("SELECT * FROM periods WHERE period LIKE $1 AND ($2 = '' OR name = $2) ORDER BY name, period")
                .bind(format!("{}%", period.replace(['%', '_'], "")))
                .bind(name.unwrap_or_default())
                .fetch_all(&self.pool)
                .await;
        let read = |row: &sqlx::any::AnyRow| {
            let number = |column: &str| row.try_get::<i64, _>(column).map(|n| n.max(0) as u64);
            Ok(Usage {
                name: row.try_get("name")?,
                period: row.try_get("period")?,
                jobs: number("jobs")?,
                pictures: number("pictures")?,
                live_s: number("live_s")?,
            })
        };
        rows.and_then(|rows| rows.iter().map(read).collect())
            .map_err(of("what was used"))
    }

    /// The last things that administrators did, the newest first.
    pub async fn audit(&self, most: u32) -> Result<Vec<Audited>> {
        let rows = sqlx::query("SELECT * FROM audit ORDER BY at_ms DESC LIMIT $1")
            .bind(i64::from(most))
            .fetch_all(&self.pool)
            .await;
        let read = |row: &sqlx::any::AnyRow| {
            Ok(Audited {
                at_ms: row.try_get::<i64, _>("at_ms")? as u64,
                who: row.try_get("who")?,
                what: row.try_get("what")?,
                name: row.try_get("name")?,
                detail: row.try_get("detail")?,
            })
        };
        rows.and_then(|rows| rows.iter().map(read).collect())
            .map_err(of("the audit log"))
    }

    pub(super) async fn note(&self, who: &str, what: &str, name: &str, detail: &str) -> Result<()> {
        sqlx::query("INSERT INTO audit (at_ms, who, what, name, detail) VALUES ($1, $2, $3, $4, $5)")
            .bind(now_ms() as i64)
            .bind(who)
            .bind(what)
            .bind(name)
            .bind(detail)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(of("a line of the audit log"))
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
