//! A fleet in numbers: gateway, queue and workers as a discrete-event model, with service times that were recorded.
//!
//! What decides is the code that runs ([`Turns`]); what takes time is modelled:
//!
//! - Accepting a job takes the gateway and NATS a fixed time, one job after the other.
//! - A worker has one processor. Keystrokes of its sessions go before its job, which is worked on in slices and has a tenth of the
//!   time however much is typed (as the engine does it). A session has one slot: a newer keystroke replaces one that was not begun.
//! - A worker takes its next job when the last one is stored; storing takes a fixed time in which the processor is free.
//! - Jobs and keystrokes come as Poisson processes; clients of jobs are drawn with equal chances.

use crate::job::Class;
use crate::lanes::{Place, Turns};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

/// The longest time in which a job keeps the processor from a keystroke.
const SLICE_MS: f64 = 15.0;
/// Of a worker's time, for jobs beside keystrokes.
const JOBS_SHARE: f64 = 0.1;

/// A fleet and what is asked of it.
#[derive(Clone, Debug)]
pub struct Fleet {
    pub workers: usize,
    /// Processors that all workers share; infinite where each has its own machine.
    pub processors: f64,
    /// Recorded times, drawn from with equal chances.
    pub job_ms: Vec<f64>,
    pub keystroke_ms: Vec<f64>,
    /// Of the gateway and NATS for each job, one after the other.
    pub accept_ms: f64,
    /// From the end of a job's work to the begin of the next one's.
    pub store_ms: f64,
    pub jobs_per_s: f64,
    pub clients: usize,
    /// Jobs that the first client has queued at the beginning.
    pub backlog: usize,
    pub sessions: usize,
    pub keys_per_s: f64,
    /// How long is looked at, after a tenth of it that is not.
    pub seconds: f64,
    pub seed: u64,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// From each job's arrival to its stored answer, of those that arrived while it was looked at.
    pub jobs_ms: Vec<f64>,
    /// From each keystroke that was painted to its picture.
    pub keystrokes_ms: Vec<f64>,
    /// Keystrokes whose place a newer one took.
    pub replaced: usize,
    pub jobs_done: usize,
    /// Jobs in the queue at the end.
    pub left: usize,
    pub seconds: f64,
}

impl Seen {
    pub fn jobs_per_s(&self) -> f64 {
        self.jobs_done as f64 / self.seconds
    }
}

/// The value that a share of `values` is not above; `NaN` of none.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (share * sorted.len() as f64).ceil() as usize;
    sorted
        .get(at.clamp(1, sorted.len().max(1)) - 1)
        .copied()
        .unwrap_or(f64::NAN)
}

/// `SplitMix64`.
struct Dice(u64);

impl Dice {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn below(&mut self, n: usize) -> usize {
        ((self.unit() * n as f64) as usize).min(n - 1)
    }

    /// Until the next event of a Poisson process.
    fn pause_ms(&mut self, per_s: f64) -> f64 {
        -(1.0 - self.unit()).ln() / per_s * 1e3
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    /// Comes to the gateway.
    Job,
    /// Is in the queue.
    Accepted {
        arrived_ms: f64,
        client: usize,
    },
    Key {
        session: usize,
    },
    /// What the processor was at is done.
    Processed {
        worker: usize,
    },
    /// The answer is stored: the slot is free.
    Stored {
        worker: usize,
    },
}

/// In the order of time, then of their making.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Entry(f64, u64, Event);

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0).then(self.1.cmp(&other.1))
    }
}

#[derive(Clone, Copy)]
struct Job {
    arrived_ms: f64,
    left_ms: f64,
}

#[derive(Clone, Copy)]
enum Doing {
    Keystroke {
        pressed_ms: f64,
    },
    /// Of the job, which is over if nothing of it is left.
    Slice {
        ms: f64,
    },
}

#[derive(Default)]
struct Worker {
    turns: Turns,
    job: Option<Job>,
    storing: bool,
    /// Sessions that want a picture, and since when.
    keys: VecDeque<(usize, f64)>,
    doing: Option<Doing>,
    keys_ms: f64,
    slices_ms: f64,
}

struct Simulation<'a> {
    fleet: &'a Fleet,
    dice: Dice,
    events: BinaryHeap<Reverse<Entry>>,
    made: u64,
    now_ms: f64,
    gateway_free_ms: f64,
    workers: Vec<Worker>,
    /// Workers without a job, the one that is free longest first: the wake-up reaches all, and one takes it.
    idle: VecDeque<usize>,
    queue: HashMap<usize, VecDeque<f64>>,
    busy: usize,
    from_ms: f64,
    seen: Seen,
}

/// Runs the fleet.
pub fn run(fleet: &Fleet) -> Seen {
    let warm_up_ms = fleet.seconds * 100.0;
    let mut simulation = Simulation {
        fleet,
        dice: Dice(fleet.seed),
        events: BinaryHeap::new(),
        made: 0,
        now_ms: 0.0,
        gateway_free_ms: 0.0,
        workers: (0..fleet.workers).map(|_| Worker::default()).collect(),
        idle: (0..fleet.workers).collect(),
        queue: HashMap::new(),
        busy: 0,
        from_ms: warm_up_ms,
        seen: Seen {
            seconds: fleet.seconds,
            ..Seen::default()
        },
    };
    simulation.begin();
    simulation.go_on(warm_up_ms + fleet.seconds * 1e3);
    simulation.seen.left = simulation.queue.values().map(VecDeque::len).sum();
    simulation.seen
}

impl Simulation<'_> {
    fn at(&mut self, time_ms: f64, event: Event) {
        self.made += 1;
        self.events.push(Reverse(Entry(time_ms, self.made, event)));
    }

    fn begin(&mut self) {
        if self.fleet.backlog > 0 {
            self.queue
                .insert(0, std::iter::repeat_n(0.0, self.fleet.backlog).collect());
        }
        while let Some(worker) = self.idle.pop_front() {
            if !self.take_job(worker) {
                self.idle.push_front(worker);
                break;
            }
        }
        if self.fleet.jobs_per_s > 0.0 {
            let first = self.dice.pause_ms(self.fleet.jobs_per_s);
            self.at(first, Event::Job);
        }
        for session in 0..self.fleet.sessions {
            let first = self.dice.pause_ms(self.fleet.keys_per_s);
            self.at(first, Event::Key { session });
        }
    }

    fn go_on(&mut self, until_ms: f64) {
        while let Some(Reverse(Entry(time_ms, _, event))) = self.events.pop() {
            if time_ms > until_ms {
                return;
            }
            self.now_ms = time_ms;
            match event {
                Event::Job => self.accept(),
                Event::Accepted { arrived_ms, client } => {
                    self.queue.entry(client).or_default().push_back(arrived_ms);
                    if let Some(worker) = self.idle.pop_front()
                        && !self.take_job(worker)
                    {
                        self.idle.push_front(worker);
                    }
                }
                Event::Key { session } => self.press(session),
                Event::Processed { worker } => self.processed(worker),
                Event::Stored { worker } => {
                    self.workers[worker].storing = false;
                    if !self.take_job(worker) {
                        self.idle.push_back(worker);
                    }
                }
            }
        }
    }

    fn accept(&mut self) {
        let client = self.dice.below(self.fleet.clients.max(1));
        self.gateway_free_ms = self.gateway_free_ms.max(self.now_ms) + self.fleet.accept_ms;
        let arrived_ms = self.now_ms;
        self.at(self.gateway_free_ms, Event::Accepted { arrived_ms, client });
        let next = self.now_ms + self.dice.pause_ms(self.fleet.jobs_per_s);
        self.at(next, Event::Job);
    }

    /// Sessions are spread evenly, as the gateway does it.
    fn press(&mut self, session: usize) {
        let worker = session % self.fleet.workers;
        let keys = &mut self.workers[worker].keys;
        if let Some(waiting) = keys.iter_mut().find(|(waiting, _)| *waiting == session) {
            waiting.1 = self.now_ms;
            self.seen.replaced += 1;
        } else {
            keys.push_back((session, self.now_ms));
        }
        self.work(worker);
        let next = self.now_ms + self.dice.pause_ms(self.fleet.keys_per_s);
        self.at(next, Event::Key { session });
    }

    /// As a worker does it (`next_job`); whether there was one.
    fn take_job(&mut self, worker: usize) -> bool {
        let mut places: Vec<Place> = self.queue.keys().map(|client| place(*client)).collect();
        self.workers[worker].turns.order(&mut places);
        let Some(first) = places.first() else { return false };
        let client: usize = first.lane.parse().unwrap_or_default();
        let jobs = self.queue.entry(client).or_default();
        let arrived_ms = jobs.pop_front().unwrap_or(self.now_ms);
        if jobs.is_empty() {
            self.queue.remove(&client);
        }
        self.workers[worker].turns.serve(&first.lane);
        let left_ms = self.fleet.job_ms[self.dice.below(self.fleet.job_ms.len())];
        self.workers[worker].job = Some(Job { arrived_ms, left_ms });
        self.work(worker);
        true
    }

    /// Gives the processor something to do, if it has nothing.
    fn work(&mut self, index: usize) {
        if self.workers[index].doing.is_some() {
            return;
        }
        let stroke_ms = self.fleet.keystroke_ms[self.dice.below(self.fleet.keystroke_ms.len())];
        let worker = &mut self.workers[index];
        let jobs_had_little = worker.slices_ms < JOBS_SHARE * (worker.keys_ms + worker.slices_ms);
        let (doing, ms) = match (&mut worker.job, worker.keys.is_empty()) {
            (Some(job), is_quiet) if is_quiet || jobs_had_little => {
                let ms = job.left_ms.min(SLICE_MS);
                worker.slices_ms += ms;
                (Doing::Slice { ms }, ms)
            }
            (_, false) => {
                let pressed_ms = worker.keys.pop_front().map_or(self.now_ms, |(_, at)| at);
                worker.keys_ms += stroke_ms;
                (Doing::Keystroke { pressed_ms }, stroke_ms)
            }
            _ => return,
        };
        worker.doing = Some(doing);
        self.busy += 1;
        // Those who share processors slow each other down.
        let slower = (self.busy as f64 / self.fleet.processors).max(1.0);
        self.at(self.now_ms + ms * slower, Event::Processed { worker: index });
    }

    fn processed(&mut self, index: usize) {
        self.busy -= 1;
        let worker = &mut self.workers[index];
        match worker.doing.take() {
            Some(Doing::Keystroke { pressed_ms }) if pressed_ms >= self.from_ms => {
                self.seen.keystrokes_ms.push(self.now_ms - pressed_ms);
            }
            Some(Doing::Slice { ms }) => {
                if let Some(job) = &mut worker.job {
                    job.left_ms -= ms;
                }
                if let Some(job) = worker.job.filter(|job| job.left_ms <= 1e-9) {
                    worker.job = None;
                    worker.storing = true;
                    // Shares count anew: they are about jobs that wait.
                    (worker.keys_ms, worker.slices_ms) = (0.0, 0.0);
                    let stored_ms = self.now_ms + self.fleet.store_ms;
                    if job.arrived_ms >= self.from_ms {
                        self.seen.jobs_ms.push(stored_ms - job.arrived_ms);
                    }
                    self.seen.jobs_done += usize::from(self.now_ms >= self.from_ms);
                    self.at(stored_ms, Event::Stored { worker: index });
                }
            }
            Some(Doing::Keystroke { .. }) | None => {}
        }
        self.work(index);
    }
}

fn place(client: usize) -> Place {
    Place {
        class: Class::Batch,
        model: "any".into(),
        lane: client.to_string(),
    }
}

#[cfg(test)]
#[path = "simulation_tests.rs"]
mod tests;
