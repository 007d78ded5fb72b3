//! The votes, in an SQLite file.

use crate::{Error, Kind, Pair};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{Row as _, query};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS votes (
    id INTEGER PRIMARY KEY,
    unix_ms INTEGER NOT NULL,
    voter TEXT NOT NULL,
    kind TEXT NOT NULL,
    prompt TEXT NOT NULL,
    left_model TEXT NOT NULL,
    right_model TEXT NOT NULL,
    left_picture TEXT NOT NULL,
    right_picture TEXT NOT NULL,
    follows TEXT NOT NULL,
    prettier TEXT NOT NULL,
    took_ms INTEGER NOT NULL
) STRICT";

/// Which side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Left,
    Right,
    Same,
}

impl Answer {
    /// Of the left side: 1, ½ or 0.
    pub fn score(self) -> f64 {
        match self {
            Self::Left => 1.0,
            Self::Same => 0.5,
            Self::Right => 0.0,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
            Self::Same => "same",
        }
    }

    fn of_str(text: &str) -> Option<Self> {
        [Self::Left, Self::Right, Self::Same]
            .into_iter()
            .find(|answer| answer.as_str() == text)
    }
}

/// One pair that somebody answered both questions about. Models and pictures: the left one first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Vote {
    /// Milliseconds since 1970.
    pub unix_ms: i64,
    pub voter: String,
    pub kind: Kind,
    pub prompt: String,
    pub models: [String; 2],
    pub pictures: [String; 2],
    /// Which picture follows the words better.
    pub follows: Answer,
    /// Which picture is prettier.
    pub prettier: Answer,
    pub took_ms: i64,
}

impl Vote {
    /// Cast now.
    pub fn of(pair: &Pair, voter: &str, [follows, prettier]: [Answer; 2], took_ms: i64) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            unix_ms: now.as_millis() as i64,
            voter: voter.to_owned(),
            kind: pair.kind,
            prompt: pair.prompt.clone(),
            models: pair.sides.each_ref().map(|(model, _)| model.clone()),
            pictures: pair.sides.each_ref().map(|(_, path)| path.display().to_string()),
            follows,
            prettier,
            took_ms,
        }
    }
}

/// The file of votes; what was cast is on the disk when [`cast`](Self::cast) returns.
#[derive(Clone)]
pub struct Votes {
    pool: SqlitePool,
    path: PathBuf,
}

impl Votes {
    /// Opens a file, or begins one.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await;
        let pool = pool.map_err(Error::votes(path))?;
        query(SCHEMA).execute(&pool).await.map_err(Error::votes(path))?;
        Ok(Self {
            pool,
            path: path.to_owned(),
        })
    }

    pub async fn cast(&self, vote: &Vote) -> Result<(), Error> {
        let insert = query(
            "INSERT INTO votes (unix_ms, voter, kind, prompt, left_model, right_model, left_picture, right_picture, follows, prettier, \
             took_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        );
        let [left, right] = &vote.models;
        let [left_picture, right_picture] = &vote.pictures;
        insert
            .bind(vote.unix_ms)
            .bind(&vote.voter)
            .bind(vote.kind.as_str())
            .bind(&vote.prompt)
            .bind(left)
            .bind(right)
            .bind(left_picture)
            .bind(right_picture)
            .bind(vote.follows.as_str())
            .bind(vote.prettier.as_str())
            .bind(vote.took_ms)
            .execute(&self.pool)
            .await
            .map_err(Error::votes(&self.path))?;
        Ok(())
    }

    /// How many a voter has cast.
    pub async fn cast_by(&self, voter: &str) -> Result<usize, Error> {
        let count = query("SELECT COUNT(*) FROM votes WHERE voter = ?")
            .bind(voter)
            .fetch_one(&self.pool)
            .await;
        let count = count.and_then(|row| row.try_get::<i64, _>(0));
        count.map(|count| count as usize).map_err(Error::votes(&self.path))
    }

    /// In the order in which they were cast.
    pub async fn all(&self) -> Result<Vec<Vote>, Error> {
        let rows = query("SELECT * FROM votes ORDER BY id").fetch_all(&self.pool).await;
        let votes = rows.and_then(|rows| rows.iter().map(vote_of).collect());
        votes.map_err(Error::votes(&self.path))
    }

    /// Closes the file.
    pub async fn close(self) {
        self.pool.close().await;
    }
}

fn vote_of(row: &SqliteRow) -> Result<Vote, sqlx::Error> {
    let text = |name: &str| row.try_get::<String, _>(name);
    let unknown = |name: &str, found: String| sqlx::Error::ColumnDecode {
        index: name.to_owned(),
        source: format!("{found:?} is no {name}").into(),
    };
    let answer = |name: &str| {
        let found = text(name)?;
        Answer::of_str(&found).ok_or_else(|| unknown(name, found))
    };
    let kind = text("kind")?;
    Ok(Vote {
        unix_ms: row.try_get("unix_ms")?,
        voter: text("voter")?,
        kind: Kind::of_str(&kind).ok_or_else(|| unknown("kind", kind))?,
        prompt: text("prompt")?,
        models: [text("left_model")?, text("right_model")?],
        pictures: [text("left_picture")?, text("right_picture")?],
        follows: answer("follows")?,
        prettier: answer("prettier")?,
        took_ms: row.try_get("took_ms")?,
    })
}

/// One line a vote, under the names of the database's columns.
pub(crate) fn to_csv(votes: &[Vote]) -> Result<Vec<u8>, Error> {
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record([
        "unix_ms",
        "voter",
        "kind",
        "prompt",
        "left_model",
        "right_model",
        "left_picture",
        "right_picture",
        "follows",
        "prettier",
        "took_ms",
    ])?;
    for vote in votes {
        let (cast, took) = (vote.unix_ms.to_string(), vote.took_ms.to_string());
        out.write_record([
            &cast,
            &vote.voter,
            vote.kind.as_str(),
            &vote.prompt,
            &vote.models[0],
            &vote.models[1],
            &vote.pictures[0],
            &vote.pictures[1],
            vote.follows.as_str(),
            vote.prettier.as_str(),
            &took,
        ])?;
    }
    out.into_inner()
        .map_err(|error| Error::Table(error.into_error().into()))
}
