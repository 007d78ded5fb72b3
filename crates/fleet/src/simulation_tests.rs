//! Against what queueing theory says.

use super::*;

fn fleet() -> Fleet {
    Fleet {
        workers: 1,
        processors: f64::INFINITY,
        job_ms: vec![100.0],
        keystroke_ms: vec![10.0],
        accept_ms: 0.0,
        store_ms: 0.0,
        jobs_per_s: 0.0,
        clients: 1,
        backlog: 0,
        sessions: 0,
        keys_per_s: 0.0,
        seconds: 100.0,
        seed: 1,
    }
}

#[test]
fn one_worker_waits_as_pollaczek_and_khinchin_say() {
    // M/D/1 with a load of 0.7: a mean wait of load / (2 (1 - load)) services, 116.7 ms, and the service.
    let seen = run(&Fleet {
        jobs_per_s: 7.0,
        seconds: 20_000.0,
        ..fleet()
    });
    let mean = seen.jobs_ms.iter().sum::<f64>() / seen.jobs_ms.len() as f64;
    assert!((mean / 216.7 - 1.0).abs() < 0.03, "{mean}");
    assert!((seen.jobs_per_s() / 7.0 - 1.0).abs() < 0.02);
}

#[test]
fn what_is_asked_beyond_what_workers_can_stays_in_the_queue() {
    let seen = run(&Fleet {
        workers: 3,
        jobs_per_s: 60.0,
        ..fleet()
    });
    assert!((seen.jobs_per_s() / 30.0 - 1.0).abs() < 0.01, "{}", seen.jobs_per_s());
    assert!(seen.left > 2500, "{}", seen.left);
    // Three workers on two processors do what two would.
    let shared = run(&Fleet {
        workers: 3,
        processors: 2.0,
        jobs_per_s: 60.0,
        ..fleet()
    });
    assert!(
        (shared.jobs_per_s() / 20.0 - 1.0).abs() < 0.02,
        "{}",
        shared.jobs_per_s()
    );
}

#[test]
fn a_client_with_few_jobs_hardly_feels_one_with_a_thousand() {
    let seen = |backlog| {
        let seen = run(&Fleet {
            backlog,
            clients: 2,
            jobs_per_s: 1.0,
            seconds: 80.0,
            ..fleet()
        });
        quantile(&seen.jobs_ms, 0.5)
    };
    // Half of the jobs are the busy client's own, behind its backlog; of the other's each waits for one of its, at most.
    let other = run(&Fleet {
        backlog: 1000,
        clients: 2,
        jobs_per_s: 1.0,
        seconds: 80.0,
        ..fleet()
    });
    let fast = other.jobs_ms.iter().filter(|ms| **ms <= 400.0).count();
    assert!(
        fast * 10 >= other.jobs_ms.len() * 9,
        "{fast} of {}",
        other.jobs_ms.len()
    );
    assert!(seen(0) < 150.0);
}

#[test]
fn keystrokes_wait_for_a_slice_at_most_and_jobs_get_their_tenth() {
    let typed = |backlog| {
        run(&Fleet {
            backlog,
            sessions: 1,
            keys_per_s: 8.0,
            ..fleet()
        })
    };
    let (alone, beside) = (typed(0), typed(5000));
    let p95 = |seen: &Seen| quantile(&seen.keystrokes_ms, 0.95);
    assert!(
        p95(&beside) <= p95(&alone) + SLICE_MS + 10.0,
        "{} {}",
        p95(&alone),
        p95(&beside)
    );
    // Twelve who type take all there is, but for a tenth.
    let full = run(&Fleet {
        backlog: 5000,
        sessions: 12,
        keys_per_s: 20.0,
        ..fleet()
    });
    assert!((0.8..1.6).contains(&full.jobs_per_s()), "{}", full.jobs_per_s());
    assert!(full.replaced > 0);
}

#[test]
fn quantiles_are_values_that_were_seen() {
    let values = [3.0, 1.0, 2.0, 4.0];
    assert_eq!((quantile(&values, 0.5), quantile(&values, 0.99)), (2.0, 4.0));
    assert!(quantile(&[], 0.5).is_nan());
}
