//! Turns, played with a made-up clock.

use super::*;
use crate::Reply;
use prima_pipeline::Request;

const MS: Duration = Duration::from_millis(1);

fn unit(prompt: &str, class: Class) -> Unit {
    Unit {
        request: Request {
            prompt: prompt.to_owned(),
            ..Request::default()
        },
        model: None,
        recipe: false,
        class,
        ready_at: None,
        on_event: Box::new(|_| Reply::GoOn),
    }
}

fn preview(prompt: &str) -> Vec<Unit> {
    vec![unit(prompt, Class::Preview)]
}

struct Table {
    state: State,
    now: Instant,
}

impl Table {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            state: State::new(3, now),
            now,
        }
    }

    fn lane(&mut self, live: bool) -> LaneId {
        self.state.add_lane(live, self.now)
    }

    fn replace(&mut self, lane: LaneId, rev: u64, units: Vec<Unit>) {
        self.state.replace(lane, rev, units, self.now);
    }

    fn begin(&mut self) -> (RunId, String) {
        let granted = self.state.grant_fresh(self.now).expect("a unit is due");
        (granted.run, granted.unit.request.prompt)
    }

    fn tick(&mut self, run: RunId, after: u32) -> Tick {
        self.now += MS * after;
        self.state.tick(run, &Progress::Tick, self.now)
    }

    /// Begins the next unit and lets it run for `ms`.
    fn serve(&mut self, ms: u32) -> String {
        let (run, prompt) = self.begin();
        self.now += MS * ms;
        self.state.finish(run, true, self.now);
        prompt
    }
}

#[test]
fn the_newest_revision_takes_the_slot_and_older_ones_are_counted() {
    let mut t = Table::new();
    let lane = t.lane(true);
    for (rev, prompt) in [(1, "a"), (2, "a c"), (3, "a ca")] {
        t.replace(lane, rev, preview(prompt));
    }
    assert!(t.state.replace(lane, 2, preview("late"), t.now).is_none());
    assert_eq!(t.serve(10), "a ca");
    assert!(t.state.grant_fresh(t.now).is_none());
    assert_eq!(
        t.state.counts(lane),
        Counts {
            dropped: 2,
            cancelled: 0
        }
    );
}

#[test]
fn stale_work_ends_at_the_next_layer_when_something_was_shown_lately() {
    let mut t = Table::new();
    let lane = t.lane(true);
    t.replace(lane, 1, preview("1"));
    t.serve(10);
    t.replace(lane, 2, preview("2"));
    let (run, _) = t.begin();
    assert_eq!(t.tick(run, 5), Tick::GoOn);
    t.replace(lane, 3, preview("3"));
    assert_eq!(t.tick(run, 5), Tick::Stop);
    t.state.finish(run, false, t.now);
    assert_eq!(t.state.counts(lane).cancelled, 1);
    assert_eq!(t.serve(10), "3");
}

#[test]
fn a_display_that_starves_gets_the_stale_picture() {
    let mut t = Table::new();
    let lane = t.lane(true);
    t.replace(lane, 1, preview("1"));
    let (run, _) = t.begin();
    t.replace(lane, 2, preview("2"));
    assert_eq!(t.tick(run, 400), Tick::GoOn, "nothing was ever shown");
    t.state.finish(run, true, t.now);
    let (run, prompt) = t.begin();
    assert_eq!(prompt, "2");
    t.replace(lane, 3, preview("3"));
    assert_eq!(t.tick(run, 100), Tick::Stop, "something was shown 100 ms ago");
    t.state.finish(run, false, t.now);
    let (run, _) = t.begin();
    t.replace(lane, 4, preview("4"));
    assert_eq!(t.tick(run, 60), Tick::GoOn, "160 ms without a picture");
}

#[test]
fn what_only_has_to_be_decoded_is_finished() {
    let mut t = Table::new();
    let lane = t.lane(true);
    t.replace(lane, 1, preview("1"));
    t.serve(1);
    t.replace(lane, 2, preview("2"));
    let (run, _) = t.begin();
    let latents = prima_tensor::Tensor::zeros(&[1]);
    let done = Progress::Step {
        done: 1,
        total: 1,
        latents: &latents,
        denoised: &latents,
    };
    assert_eq!(t.state.tick(run, &done, t.now), Tick::GoOn);
    t.replace(lane, 3, preview("3"));
    assert_eq!(t.tick(run, 5), Tick::GoOn);
}

#[test]
fn refinement_waits_for_its_time_and_yields_to_anyone_who_types() {
    let mut t = Table::new();
    let (typist, other) = (t.lane(true), t.lane(true));
    let mut refine = unit("refined", Class::Work);
    refine.ready_at = Some(t.now + 150 * MS);
    t.replace(typist, 1, vec![unit("first", Class::Preview), refine]);
    assert_eq!(t.serve(40), "first");
    assert!(t.state.grant_fresh(t.now).is_none());
    assert_eq!(t.state.next_due(t.now), Some(110 * MS));
    t.now += 110 * MS;
    let (run, prompt) = t.begin();
    assert_eq!(prompt, "refined");
    t.replace(other, 1, preview("other"));
    assert_eq!(t.tick(run, 1), Tick::Park);
    assert_eq!(t.serve(30), "other");
    assert!(t.state.grant_parked(t.now) && t.state.holds_baton(run));
}

#[test]
fn a_skipped_refinement_is_not_a_cancelled_revision() {
    let mut t = Table::new();
    let lane = t.lane(true);
    t.replace(lane, 1, vec![unit("1", Class::Preview), unit("1 refined", Class::Work)]);
    t.serve(10);
    t.replace(lane, 2, preview("2"));
    assert_eq!(t.serve(10), "2");
    assert_eq!(t.state.counts(lane), Counts::default());
}

#[test]
fn sessions_that_always_want_something_take_turns() {
    let mut t = Table::new();
    let lanes: Vec<LaneId> = (0..5).map(|_| t.lane(true)).collect();
    let mut served = vec![0; 5];
    for rev in 1..=100 {
        for (i, &lane) in lanes.iter().enumerate() {
            t.replace(lane, rev, preview(&i.to_string()));
        }
        served[t.serve(40).parse::<usize>().unwrap()] += 1;
    }
    assert_eq!(served, [20; 5]);
}

#[test]
fn a_heavy_unit_stands_still_for_others_and_still_gets_its_share() {
    let mut t = Table::new();
    let (heavy, light) = (t.lane(true), t.lane(true));
    t.replace(heavy, 1, preview("heavy"));
    let (run, _) = t.begin();
    let (mut spent, mut served) = (0, 0);
    for rev in 1..400 {
        t.replace(light, rev, preview("light"));
        match t.tick(run, 10) {
            Tick::GoOn => spent += 10,
            Tick::Park => {
                spent += 10;
                while !t.state.grant_parked(t.now) {
                    assert_eq!(t.serve(40), "light");
                    served += 40;
                    t.replace(light, rev + 1000 * served, preview("light"));
                }
            }
            Tick::Stop => panic!("wanted work ended"),
        }
        if spent + served > 3000 {
            break;
        }
    }
    assert!(spent > 1200 && served > 1200, "heavy {spent} ms, light {served} ms");
}

#[test]
fn programs_are_not_starved_by_typists() {
    let mut t = Table::new();
    let (typist, job) = (t.lane(true), t.lane(false));
    t.replace(job, 0, vec![unit("job", Class::Work)]);
    for rev in 1..20 {
        t.replace(typist, rev, preview("typist"));
        if t.serve(40) == "job" {
            return;
        }
    }
    panic!("the job never had a turn");
}

#[test]
fn a_lane_that_is_gone_ends_its_work() {
    let mut t = Table::new();
    let lane = t.lane(false);
    t.replace(lane, 0, vec![unit("1", Class::Work), unit("2", Class::Work)]);
    let (run, _) = t.begin();
    assert_eq!(t.state.remove(lane).len(), 1);
    assert_eq!(t.tick(run, 1), Tick::Stop);
    t.state.finish(run, false, t.now);
    assert_eq!(t.state.occupancy(), Occupancy::default());
}

#[test]
fn a_unit_that_stands_still_when_its_client_vanishes_gives_its_worker_back() {
    let mut t = Table::new();
    let jobs: Vec<LaneId> = (0..2).map(|_| t.lane(false)).collect();
    let mut parked = Vec::new();
    for &job in &jobs {
        t.replace(job, 0, vec![unit("job", Class::Work)]);
        let typist = t.lane(true);
        let (run, _) = t.begin();
        t.replace(typist, 1, preview("typist"));
        assert_eq!(t.tick(run, 1), Tick::Park);
        assert_eq!(t.serve(10), "typist");
        t.state.remove(typist);
        parked.push(run);
    }
    for &job in &jobs {
        t.state.remove(job);
    }
    for _ in 0..2 {
        assert!(t.state.grant_parked(t.now), "nobody wakes what is left behind");
        let run = t.state.baton.unwrap();
        assert!(parked.contains(&run));
        assert_eq!(t.tick(run, 0), Tick::Stop);
        t.state.finish(run, false, t.now);
    }
    assert_eq!(t.state.occupancy(), Occupancy::default());
}

#[test]
fn cancel_ends_what_is_old_enough_only() {
    let mut t = Table::new();
    let lane = t.lane(true);
    t.replace(lane, 5, preview("5"));
    assert!(t.state.cancel(lane, 4).is_empty());
    let (run, _) = t.begin();
    assert_eq!(t.tick(run, 1), Tick::GoOn);
    t.state.cancel(lane, 5);
    assert_eq!(t.tick(run, 1), Tick::Stop);
}

#[test]
fn one_worker_is_kept_for_typists() {
    let mut t = Table::new();
    let jobs: Vec<LaneId> = (0..4).map(|_| t.lane(false)).collect();
    for &job in &jobs {
        t.replace(job, 0, vec![unit("job", Class::Work)]);
    }
    let typist = t.lane(true);
    let (first, _) = t.begin();
    assert_eq!(t.tick(first, 300), Tick::Park);
    let (second, _) = t.begin();
    t.tick(second, 300);
    assert_eq!(t.state.runs.len(), 2);
    t.state.baton = None;
    t.state.next_promotion = t.now + PROMOTE_AFTER;
    t.replace(typist, 1, preview("typist"));
    assert_eq!(t.serve(10), "typist");
}

#[test]
fn a_short_preview_does_not_wait_for_a_long_one_and_equals_let_each_other_finish() {
    for (other_ms, stands_still_after) in [(16, 40), (88, 180)] {
        let mut t = Table::new();
        let (long, other) = (t.lane(true), t.lane(true));
        t.replace(other, 1, preview("other"));
        t.serve(other_ms);
        t.replace(long, 1, preview("long"));
        let (run, _) = t.begin();
        t.replace(other, 2, preview("other"));
        // What the other one had already, and once more as much.
        let mut ran = 10;
        while t.tick(run, 10) == Tick::GoOn {
            ran += 10;
        }
        assert_eq!(ran, stands_still_after);
    }
}

#[test]
fn programs_get_their_share_beside_typists_in_slices_that_are_hardly_felt() {
    for layer_ms in [5, 30] {
        let mut t = Table::new();
        let (typist, job) = (t.lane(true), t.lane(false));
        t.replace(job, 0, vec![unit("job", Class::Work)]);
        let (run, _) = t.begin();
        let end = t.now + 5000 * MS;
        let (mut rev, mut worked) = (0, Duration::ZERO);
        while t.now < end {
            rev += 1;
            t.replace(typist, rev, preview("typist"));
            if t.state.holds_baton(run) || t.state.grant_parked(t.now) {
                let began = t.now;
                while t.tick(run, layer_ms) == Tick::GoOn {}
                let slice = t.now - began;
                assert!(slice <= PROMOTED_SLICE + layer_ms * MS, "a slice of {slice:?}");
                worked += slice;
            } else {
                t.serve(15);
            }
        }
        let share = worked.as_secs_f64() / 5.0;
        assert!((0.07..0.13).contains(&share), "{share} with layers of {layer_ms} ms");
    }
}

/// A typist of a made-up day: a key every so often, pictures that take so long.
struct Typist {
    lane: LaneId,
    every_ms: u32,
    picture_ms: u32,
    rev: u64,
    next_key: Instant,
    pressed: VecDeque<(u64, Instant)>,
    waits: Vec<Duration>,
}

/// Plays `typists` with layers of `layer_ms` for five seconds; what each of them waited from key to picture.
fn play(t: &mut Table, typists: &mut [Typist], layer_ms: u32) {
    let end = t.now + 5000 * MS;
    // Of each run: whose it is, its revision, what is left of it.
    let mut runs: BTreeMap<RunId, (usize, u64, u32)> = BTreeMap::new();
    while t.now < end {
        for typist in typists.iter_mut() {
            while typist.next_key <= t.now {
                typist.rev += 1;
                typist.pressed.push_back((typist.rev, typist.next_key));
                typist.next_key += typist.every_ms * MS;
                t.state
                    .replace(typist.lane, typist.rev, preview(&typist.rev.to_string()), t.now);
            }
        }
        if t.state.baton.is_none() && !t.state.grant_parked(t.now) {
            let Some(granted) = t.state.grant_fresh(t.now) else {
                t.now += MS;
                continue;
            };
            let lane = t.state.runs[&granted.run].lane;
            let whose = typists.iter().position(|typist| typist.lane == lane).unwrap();
            let rev = granted.unit.request.prompt.parse().unwrap();
            runs.insert(granted.run, (whose, rev, typists[whose].picture_ms));
        }
        let Some(run) = t.state.baton else { continue };
        let (whose, rev, left) = runs[&run];
        let tick = t.tick(run, layer_ms);
        let left = left.saturating_sub(layer_ms);
        runs.insert(run, (whose, rev, left));
        if tick == Tick::GoOn && left == 0 {
            t.state.finish(run, true, t.now);
            while let Some((_, pressed)) = typists[whose].pressed.pop_front_if(|(of, _)| *of <= rev) {
                typists[whose].waits.push(t.now - pressed);
            }
        } else if tick == Tick::Stop {
            t.state.finish(run, false, t.now);
        }
    }
}

#[test]
fn someone_who_types_does_not_feel_someone_who_asks_for_much_without_end() {
    let mut t = Table::new();
    let mut typist = |every_ms, picture_ms| Typist {
        lane: t.state.add_lane(true, t.now),
        every_ms,
        picture_ms,
        rev: 0,
        next_key: t.now,
        pressed: VecDeque::new(),
        waits: Vec::new(),
    };
    let mut typists = [typist(125, 14), typist(120, 14), typist(50, 70), typist(16, 14)];
    play(&mut t, &mut typists, 2);
    let p95: Vec<Duration> = typists
        .iter_mut()
        .map(|typist| {
            typist.waits.sort();
            typist.waits[typist.waits.len() * 95 / 100]
        })
        .collect();
    assert!(p95[..2].iter().all(|wait| *wait <= 28 * MS), "{p95:?}");
    assert!(typists[2].waits.len() > 10, "{p95:?}");
}
