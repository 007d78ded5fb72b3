//! Whose turn it is: plain bookkeeping without threads, clocks or models.

use super::{Class, Counts, Occupancy, SHOW_AT_LEAST, Unit};
use prima_pipeline::Progress;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

pub(super) type LaneId = u64;
pub(super) type RunId = u64;

/// Work that was passed over for this long gets a slice before the previews; one lane at a time.
const PROMOTE_AFTER: Duration = Duration::from_millis(100);
/// What it gets then, if its layers are that short: whoever presses a key meanwhile waits for it.
const PROMOTED_SLICE: Duration = Duration::from_millis(15);
/// After a slice comes this much time without one for each moment that it took.
const REST_FOR_SLICE: u32 = 9;
/// What a lane that used less than its share has saved up at most when it comes back, in seconds: someone who types goes
/// before those who never stop, without taking more than they do.
const CREDIT: f64 = 0.1;
/// How far a lane may run ahead of another one before it has to stand still, in seconds: as long as the other one's own
/// pictures take, so that among equals nobody stands still and a short picture does not wait for a long one.
const LEAD: std::ops::RangeInclusive<f64> = 0.01..=0.1;
/// The same for one that was shown nothing yet.
const FIRST_LEAD: f64 = 0.03;

struct Lane {
    live: bool,
    revision: u64,
    /// Of `revision`, not begun.
    units: VecDeque<(Unit, Instant)>,
    /// Whether a unit of `revision` was begun.
    begun: bool,
    running: Option<RunId>,
    /// Seconds of the engine used, counted as in start-time fair queueing: a lane that was idle
    /// comes back beside those that are served now, or a little before them.
    used: f64,
    last_served: Instant,
    last_shown: Option<Instant>,
    /// Seconds of the engine that its last preview took.
    preview_cost: Option<f64>,
    counts: Counts,
}

struct Run {
    lane: LaneId,
    revision: u64,
    class: Class,
    /// The first unit of its revision: the one that shows something.
    first: bool,
    cancelled: bool,
    nearly_done: bool,
    /// Seconds of the engine used, and those since the tick before.
    used: f64,
    layer: f64,
    /// When it got the baton, and as what.
    slice_began: Instant,
    slice_rank: Rank,
    charged_until: Instant,
}

/// In this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Promoted,
    Preview,
    Work,
}

#[derive(Clone, Copy)]
struct Candidate {
    lane: LaneId,
    run: Option<RunId>,
    rank: Rank,
    used: f64,
    /// See [`LEAD`].
    lead: f64,
}

/// A unit to paint now.
pub(super) struct Granted {
    pub run: RunId,
    pub unit: Unit,
    pub queued: Duration,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tick {
    GoOn,
    Stop,
    /// Wait for the baton.
    Park,
}

pub(super) struct State {
    lanes: BTreeMap<LaneId, Lane>,
    runs: BTreeMap<RunId, Run>,
    baton: Option<RunId>,
    workers: usize,
    next_id: u64,
    /// `used` of the lane served last.
    floor: f64,
    /// When work may get a slice before the previews again.
    next_promotion: Instant,
    pub stopping: bool,
}

impl State {
    pub fn new(workers: usize, now: Instant) -> Self {
        Self {
            lanes: BTreeMap::new(),
            runs: BTreeMap::new(),
            baton: None,
            workers,
            next_id: 0,
            floor: 0.0,
            next_promotion: now + PROMOTE_AFTER,
            stopping: false,
        }
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub fn add_lane(&mut self, live: bool, now: Instant) -> LaneId {
        let id = self.id();
        let lane = Lane {
            live,
            revision: 0,
            units: VecDeque::new(),
            begun: false,
            running: None,
            used: self.floor,
            last_served: now,
            last_shown: None,
            preview_cost: None,
            counts: Counts::default(),
        };
        self.lanes.insert(id, lane);
        id
    }

    /// What was waiting there, for the caller to drop.
    pub fn remove(&mut self, lane: LaneId) -> Vec<Unit> {
        let removed = self.lanes.remove(&lane);
        removed.map_or_else(Vec::new, |lane| lane.units.into_iter().map(|u| u.0).collect())
    }

    /// Replaces what is older and not begun, and returns it; `None` if `revision` is not newer.
    pub fn replace(&mut self, lane: LaneId, revision: u64, units: Vec<Unit>, now: Instant) -> Option<Vec<Unit>> {
        let floor = self.floor;
        let lane = self.lanes.get_mut(&lane)?;
        if lane.live && revision <= lane.revision {
            return None;
        }
        lane.drop_waiting_count();
        if lane.units.is_empty() && lane.running.is_none() {
            lane.used = lane.used.max(floor - CREDIT);
            lane.last_served = now;
        }
        lane.revision = revision;
        lane.begun = false;
        let old = std::mem::replace(&mut lane.units, units.into_iter().map(|u| (u, now)).collect());
        Some(old.into_iter().map(|u| u.0).collect())
    }

    /// Ends revisions up to `revision`; what had not begun is returned.
    pub fn cancel(&mut self, lane: LaneId, revision: u64) -> Vec<Unit> {
        let Some(lane) = self.lanes.get_mut(&lane) else {
            return Vec::new();
        };
        if let Some(run) = lane.running.and_then(|run| self.runs.get_mut(&run)) {
            run.cancelled |= run.revision <= revision;
        }
        if lane.revision > revision {
            return Vec::new();
        }
        lane.drop_waiting_count();
        std::mem::take(&mut lane.units).into_iter().map(|u| u.0).collect()
    }

    /// All that has not begun, of all lanes, for the caller to drop.
    pub fn drop_waiting(&mut self) -> Vec<Unit> {
        let units = self.lanes.values_mut().flat_map(|lane| std::mem::take(&mut lane.units));
        units.map(|u| u.0).collect()
    }

    pub fn counts(&self, lane: LaneId) -> Counts {
        self.lanes.get(&lane).map_or_else(Counts::default, |lane| lane.counts)
    }

    pub fn occupancy(&self) -> Occupancy {
        let sessions = self.lanes.values().filter(|l| l.live).count();
        Occupancy {
            sessions,
            jobs: self.lanes.len() - sessions,
            waiting: self.lanes.values().map(|l| l.units.len()).sum(),
            begun: self.runs.len(),
        }
    }

    /// Begins the unit whose turn it is, if it is a new one's.
    pub fn grant_fresh(&mut self, now: Instant) -> Option<Granted> {
        if self.baton.is_some() {
            return None;
        }
        let next = self.choose(now, None).filter(|c| c.run.is_none())?;
        let run = self.id();
        let lane = self.lanes.get_mut(&next.lane)?;
        let (unit, submitted) = lane.units.pop_front()?;
        let record = Run {
            lane: next.lane,
            revision: lane.revision,
            class: unit.class,
            first: !lane.begun,
            cancelled: false,
            nearly_done: false,
            used: 0.0,
            layer: 0.0,
            slice_began: now,
            slice_rank: next.rank,
            charged_until: now,
        };
        lane.begun = true;
        lane.running = Some(run);
        self.runs.insert(run, record);
        self.hand_over(run, next, now);
        let due = unit.ready_at.map_or(submitted, |t| t.max(submitted));
        Some(Granted {
            run,
            unit,
            queued: now.saturating_duration_since(due),
        })
    }

    /// Gives the free baton to a unit that stands still, if it is its turn.
    pub fn grant_parked(&mut self, now: Instant) -> bool {
        if self.baton.is_some() {
            return false;
        }
        let Some(next) = self.choose(now, None) else {
            return false;
        };
        let Some(run) = next.run else { return false };
        self.hand_over(run, next, now);
        true
    }

    fn hand_over(&mut self, run: RunId, next: Candidate, now: Instant) {
        self.baton = Some(run);
        // An orphan's is minus infinity, which changes nothing.
        self.floor = self.floor.max(next.used);
        if next.rank == Rank::Promoted {
            self.next_promotion = now + PROMOTE_AFTER;
        }
        if let Some(run) = self.runs.get_mut(&run) {
            run.slice_began = now;
            run.charged_until = now;
            run.slice_rank = next.rank;
        }
    }

    pub fn holds_baton(&self, run: RunId) -> bool {
        self.baton == Some(run)
    }

    /// How long until something that waits for its time is due.
    pub fn next_due(&self, now: Instant) -> Option<Duration> {
        let waits = self.lanes.values().filter(|l| l.running.is_none());
        let due = waits.filter_map(|l| l.units.front()?.0.ready_at.filter(|&t| t > now));
        due.min().map(|t| t.saturating_duration_since(now))
    }

    /// Called between layers by the unit that holds the baton.
    pub fn tick(&mut self, id: RunId, progress: &Progress, now: Instant) -> Tick {
        let Some(run) = self.runs.get_mut(&id) else {
            return Tick::Stop;
        };
        run.nearly_done |= nearly_done(progress);
        self.charge(id, now);
        if self.stopping || self.is_unwanted(id, now) {
            return Tick::Stop;
        }
        let Some(other) = self.choose(now, Some(id)) else {
            return Tick::GoOn;
        };
        if !self.yields(id, other, now) {
            return Tick::GoOn;
        }
        self.release(id, now);
        Tick::Park
    }

    /// The unit has ended; `shown` if it gave a picture.
    pub fn finish(&mut self, id: RunId, shown: bool, now: Instant) {
        self.charge(id, now);
        self.release(id, now);
        let Some(run) = self.runs.remove(&id) else { return };
        let Some(lane) = self.lanes.get_mut(&run.lane) else {
            return;
        };
        lane.running = None;
        if shown {
            lane.last_shown = Some(now);
            if run.class == Class::Preview {
                lane.preview_cost = Some(run.used);
            }
        } else if run.first && (run.cancelled || run.revision < lane.revision) {
            lane.counts.cancelled += 1;
        }
    }

    fn release(&mut self, id: RunId, now: Instant) {
        if self.baton == Some(id) {
            self.baton = None;
            if let Some(run) = self.runs.get(&id).filter(|run| run.slice_rank == Rank::Promoted) {
                // What it had beyond that, nobody waited for.
                let most = PROMOTED_SLICE + Duration::from_secs_f64(run.layer);
                let slice = now.saturating_duration_since(run.slice_began).min(most);
                self.next_promotion = now + PROMOTE_AFTER.max(slice * REST_FOR_SLICE);
            }
        }
        if let Some(lane) = self.runs.get(&id).and_then(|run| self.lanes.get_mut(&run.lane)) {
            lane.last_served = now;
        }
    }

    fn charge(&mut self, id: RunId, now: Instant) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let spent = now.saturating_duration_since(run.charged_until).as_secs_f64();
        run.charged_until = now;
        run.used += spent;
        run.layer = spent;
        if let Some(lane) = self.lanes.get_mut(&run.lane) {
            lane.used += spent;
        }
    }

    fn is_stale(&self, run: &Run) -> bool {
        self.lanes
            .get(&run.lane)
            .is_none_or(|lane| lane.live && run.revision < lane.revision)
    }

    /// Cancelled; or stale, unless it is nearly done or the display would starve.
    fn is_unwanted(&self, id: RunId, now: Instant) -> bool {
        let Some(run) = self.runs.get(&id) else { return true };
        let Some(lane) = self.lanes.get(&run.lane) else {
            return true;
        };
        if run.cancelled {
            return true;
        }
        let starved = lane
            .last_shown
            .is_none_or(|t| now.saturating_duration_since(t) >= SHOW_AT_LEAST);
        self.is_stale(run) && !run.nearly_done && !(run.first && starved)
    }

    /// The lane whose turn it is, other than that of `but`.
    fn choose(&self, now: Instant, but: Option<RunId>) -> Option<Candidate> {
        // A unit whose client is gone while it stands still has to be woken once, to end: nothing
        // else gives its worker back.
        let orphan = self
            .runs
            .iter()
            .find(|(id, run)| Some(**id) != but && !self.lanes.contains_key(&run.lane));
        if let Some((&id, run)) = orphan {
            return Some(Candidate {
                lane: run.lane,
                run: Some(id),
                rank: Rank::Preview,
                used: f64::NEG_INFINITY,
                lead: 0.0,
            });
        }
        let work_begun = self.runs.values().filter(|r| r.class == Class::Work).count();
        let free = self.workers.saturating_sub(self.runs.len());
        let promotes = now >= self.next_promotion;
        let candidates = self.lanes.iter().filter_map(|(&id, lane)| {
            let (class, since) = if let Some(run) = lane.running {
                let record = self.runs.get(&run).filter(|_| Some(run) != but)?;
                // What is stale has to notice: newer work of its lane waits for it.
                let class = if record.cancelled || self.is_stale(record) {
                    Class::Preview
                } else {
                    record.class
                };
                (class, lane.last_served)
            } else {
                let (unit, submitted) = lane.units.front()?;
                let due = unit.ready_at.unwrap_or(*submitted);
                // One worker is kept for those who type.
                let room = free > 0 && (unit.class == Class::Preview || work_begun + 1 < self.workers);
                if due > now || !room {
                    return None;
                }
                (unit.class, lane.last_served.max(due))
            };
            let waited = now.saturating_duration_since(since) >= PROMOTE_AFTER;
            let rank = match class {
                Class::Preview => Rank::Preview,
                Class::Work if promotes && waited => Rank::Promoted,
                Class::Work => Rank::Work,
            };
            Some(Candidate {
                lane: id,
                run: lane.running,
                rank,
                used: lane.used,
                lead: lane
                    .preview_cost
                    .map_or(FIRST_LEAD, |cost| cost.clamp(*LEAD.start(), *LEAD.end())),
            })
        });
        candidates.min_by(|a, b| {
            let by_lane = || a.used.total_cmp(&b.used).then(a.lane.cmp(&b.lane));
            a.rank.cmp(&b.rank).then_with(by_lane)
        })
    }

    /// Whether the unit `id` stands still for `other`.
    fn yields(&self, id: RunId, other: Candidate, now: Instant) -> bool {
        let Some(run) = self.runs.get(&id) else { return true };
        let slice = now.saturating_duration_since(run.slice_began);
        if run.slice_rank == Rank::Promoted && slice < PROMOTED_SLICE {
            return false;
        }
        let rank = match run.class {
            Class::Preview => Rank::Preview,
            Class::Work => Rank::Work,
        };
        let used = self.lanes.get(&run.lane).map_or(0.0, |lane| lane.used);
        match other.rank.cmp(&rank) {
            // A preview is short: it is let through unless it turns out not to be.
            std::cmp::Ordering::Less => rank == Rank::Work || slice.as_secs_f64() > *LEAD.end(),
            std::cmp::Ordering::Equal => other.used + other.lead < used,
            std::cmp::Ordering::Greater => false,
        }
    }
}

impl Lane {
    /// Counts the waiting revision as dropped if nothing of it was begun.
    fn drop_waiting_count(&mut self) {
        if !self.units.is_empty() && !self.begun {
            self.counts.dropped += 1;
        }
    }
}

/// From the last step on only decoding is left.
fn nearly_done(progress: &Progress) -> bool {
    match progress {
        Progress::Step { done, total, .. } => done == total,
        Progress::Decode { .. } => true,
        Progress::Tick | Progress::Text => false,
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
