//! Wrong tokens: each makes its address wait longer before the next one is looked at.

use crate::connections::Peer;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Wrong tokens that cost nothing: a page with an old token tries a few times.
const FREE: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// After this long without a wrong token an address begins anew.
const FORGIVEN_AFTER: Duration = Duration::from_mins(10);
/// Addresses remembered; of more, the one that was silent longest is forgotten.
const ADDRESSES: usize = 4096;

/// Who sent wrong tokens.
#[derive(Default)]
pub(crate) struct Attempts(Mutex<HashMap<Peer, Record>>);

struct Record {
    wrong: u32,
    last: Instant,
}

impl Record {
    fn wait(&self) -> Duration {
        match self.wrong.checked_sub(FREE) {
            None | Some(0) => Duration::ZERO,
            Some(more) => FIRST_WAIT.saturating_mul(1 << (more - 1).min(16)).min(LONGEST_WAIT),
        }
    }
}

impl Attempts {
    /// How long a token from there is not looked at, right or wrong: else guessing would go on at full speed.
    pub fn wait(&self, peer: Peer, now: Instant) -> Option<Duration> {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let record = records.get(&peer)?;
        let wait = (record.last + record.wait()).saturating_duration_since(now);
        (!wait.is_zero()).then_some(wait)
    }

    pub fn wrong(&self, peer: Peer, now: Instant) {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if records.len() >= ADDRESSES && !records.contains_key(&peer) {
            let oldest = records
                .iter()
                .min_by_key(|(_, record)| record.last)
                .map(|(peer, _)| *peer);
            oldest.map(|oldest| records.remove(&oldest));
        }
        let record = records.entry(peer).or_insert(Record { wrong: 0, last: now });
        if now.saturating_duration_since(record.last) > FORGIVEN_AFTER {
            record.wrong = 0;
        }
        record.wrong = record.wrong.saturating_add(1);
        record.last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn peer(number: u32) -> Peer {
        Peer::of(IpAddr::V4(number.into()))
    }

    #[test]
    fn each_wrong_token_costs_more_than_the_one_before_and_only_its_own_address() {
        let attempts = Attempts::default();
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..20 {
            attempts.wrong(peer(1), now);
            let wait = attempts.wait(peer(1), now).unwrap_or_default();
            waits.push(wait);
            now += wait;
        }
        assert!(waits[..FREE as usize].iter().all(Duration::is_zero), "{waits:?}");
        assert!(waits.is_sorted() && waits[FREE as usize] == FIRST_WAIT && waits[19] == LONGEST_WAIT);
        assert_eq!(attempts.wait(peer(2), now), None);
        now += FORGIVEN_AFTER + LONGEST_WAIT;
        attempts.wrong(peer(1), now);
        assert_eq!(attempts.wait(peer(1), now), None);
    }

    #[test]
    fn a_million_addresses_are_not_remembered() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for number in 0..3 * ADDRESSES as u32 {
            attempts.wrong(peer(number), now + Duration::from_millis(u64::from(number)));
        }
        assert_eq!(attempts.0.lock().unwrap().len(), ADDRESSES);
    }
}
