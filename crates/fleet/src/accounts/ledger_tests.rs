//! Against a real SQLite file, and a PostgreSQL server where one is named in PRIMA_TEST_POSTGRES.

use super::*;
use crate::accounts::KeyLimits;

const LIMITS: KeyLimits = KeyLimits {
    per_minute: 60,
    burst: 3,
    pictures_a_day: 10,
    pictures_a_month: 0,
    sessions: 1,
};

/// Of the one database of PostgreSQL.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A database of each kind that is at hand, empty, and what is to be held on to.
async fn databases() -> (
    Vec<(Accounts, String)>,
    (tempfile::TempDir, tokio::sync::MutexGuard<'static, ()>),
) {
    let turn = TURN.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("accounts 1%.db").display().to_string();
    let mut found = vec![(Accounts::open(&file).await.unwrap(), file)];
    match std::env::var("PRIMA_TEST_POSTGRES") {
        Ok(url) => {
            let accounts = Accounts::open(&url).await.unwrap();
            for table in [
                "DELETE FROM keys",
                "DELETE FROM periods",
                "DELETE FROM charges",
                "DELETE FROM audit",
            ] {
                sqlx::query(table).execute(&accounts.pool).await.unwrap();
            }
            found.push((accounts, url));
        }
        Err(_) => {
            eprintln!("not run on PostgreSQL: name a database that may be emptied in PRIMA_TEST_POSTGRES");
        }
    }
    (found, (folder, turn))
}

#[tokio::test]
async fn a_key_opens_until_it_is_revoked_and_only_its_hash_is_kept() {
    let (databases, _folder) = databases().await;
    for (accounts, url) in databases {
        let key = accounts.add("ada", LIMITS, "root").await.unwrap();
        assert_eq!(key.len(), "prima_".len() + 43);
        let found = accounts.whose(&key).await.unwrap().unwrap();
        assert_eq!((found.name.as_str(), found.limits), ("ada", LIMITS));
        assert!(key.starts_with(&found.hint) && found.hint.len() == 10);
        for wrong in [&key[..key.len() - 1], "", "prima_", &key["prima_".len()..]] {
            assert_eq!(accounts.whose(wrong).await.unwrap(), None);
        }
        let twice = accounts.add("ada", LIMITS, "root").await.unwrap_err().to_string();
        assert!(twice.contains("take another name"), "{twice}");
        assert!(accounts.add("a b", LIMITS, "root").await.is_err());
        // Another process sees the same.
        let other = Accounts::open(&url).await.unwrap();
        other.revoke("ada", "root").await.unwrap();
        assert_eq!(accounts.whose(&key).await.unwrap(), None);
        assert!(other.revoke("ada", "root").await.is_err());
        assert!(other.limit("ada", LIMITS, "root").await.is_err());
        let acts: Vec<_> = accounts.audit(10).await.unwrap();
        let acts: Vec<_> = acts.iter().map(|act| (act.who.as_str(), act.what.as_str())).collect();
        assert_eq!(acts.len(), 2);
        assert!(acts.contains(&("root", "add")) && acts.contains(&("root", "revoke")));
        if !url.starts_with("postgres") {
            let secret = &key.as_bytes()["prima_abcd".len()..];
            let folder = std::path::Path::new(&url).parent().unwrap();
            for file in std::fs::read_dir(folder).unwrap() {
                let file = std::fs::read(file.unwrap().path()).unwrap();
                assert!(!file.windows(secret.len()).any(|bytes| bytes == secret));
            }
        }
    }
}

#[tokio::test]
async fn a_bucket_holds_its_burst_and_fills_at_its_rate() {
    let (databases, _folder) = databases().await;
    for (accounts, _) in databases {
        let limits = KeyLimits {
            per_minute: 120,
            ..LIMITS
        };
        let key = accounts.add("ada", limits, "root").await.unwrap();
        let key = accounts.whose(&key).await.unwrap().unwrap();
        let takes = (0..20).map(|_| accounts.take(&key));
        let taken = futures_util::future::join_all(takes).await;
        let taken = taken
            .into_iter()
            .filter(|taken| taken.as_ref().unwrap().is_ok())
            .count();
        // A token comes every half second.
        assert!((3..=4).contains(&taken), "{taken} of 20 were let in");
        let wait = accounts.take(&key).await.unwrap().unwrap_err();
        assert!(wait <= Duration::from_millis(500));
        tokio::time::sleep(wait + Duration::from_millis(20)).await;
        assert!(accounts.take(&key).await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn a_quota_is_kept_to_the_picture_by_many_who_ask_at_once() {
    let (databases, _folder) = databases().await;
    for (accounts, _) in databases {
        let key = accounts.add("ada", LIMITS, "root").await.unwrap();
        let key = accounts.whose(&key).await.unwrap().unwrap();
        let ids: Vec<String> = (0..16).map(|i| format!("job-{i}")).collect();
        let charges = ids
            .iter()
            .map(|id| accounts.charge(&key, id, "/v1/images/generations", 3));
        let charges = futures_util::future::join_all(charges).await;
        let charged: Vec<&String> = charges
            .iter()
            .zip(&ids)
            .filter_map(|(charge, id)| (*charge.as_ref().unwrap() == Charged::Now).then_some(id))
            .collect();
        // Three times three of ten.
        assert_eq!(charged.len(), 3);
        let over = charges.iter().find_map(|charge| match charge.as_ref().unwrap() {
            Charged::Over(over) => Some(over),
            _ => None,
        });
        let over = over.unwrap();
        assert_eq!((over.period, over.limit), ("day", 10));
        assert!(over.again_in <= Duration::from_hours(24));
        let again = accounts.charge(&key, charged[0], "/v1/images/generations", 3).await;
        assert_eq!(again.unwrap(), Charged::Before);
        assert_eq!(
            accounts.charge(&key, "small", "/x", 1).await.unwrap(),
            Charged::Now,
            "what fits is let in"
        );
        // An end is written once, and what was for nothing is given back once.
        for _ in 0..2 {
            accounts.settle(charged[0], "failed", true).await.unwrap();
            accounts.settle(charged[1], "done", false).await.unwrap();
        }
        let used = accounts.usage(Some("ada"), "").await.unwrap();
        let used: Vec<_> = used
            .iter()
            .map(|used| (used.period.len(), used.jobs, used.pictures))
            .collect();
        assert_eq!(used, [(7, 4, 7), (10, 4, 7)]);
        let mut open = accounts.open_jobs(now_ms() + 1000, 100).await.unwrap();
        open.sort();
        assert_eq!(open, [charged[2].clone(), "small".into()]);
    }
}
