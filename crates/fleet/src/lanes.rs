//! Whose job comes next: what someone waits for goes before what nobody waits for; within that, clients take turns.
//!
//! Each client has a lane, a subject of the queue. A worker lists the lanes that have something, and serves the one that it served
//! longest ago. So between two jobs of one client a worker takes at most one of each other client: whoever comes with one job waits
//! for as many jobs as there are other clients at work, not for as many as those have queued.

use crate::job::Class;
use std::collections::HashMap;

/// Lanes that are remembered; of more, those served longest ago are forgotten and count as new.
const REMEMBERED: usize = 4096;

/// Jobs of one client, for one model and of one class, that wait for a worker (or are at one: the queue does not tell).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub class: Class,
    /// A token of the subject; `any`.
    pub model: String,
    /// The client's; empty in what was queued before there were lanes.
    pub lane: String,
}

impl Place {
    /// `prima.jobs.CLASS.MODEL.LANE`.
    pub(crate) fn subject(&self) -> String {
        let Self { class, model, lane } = self;
        let dot = if lane.is_empty() { "" } else { "." };
        format!("prima.jobs.{}.{model}{dot}{lane}", class.name())
    }

    pub(crate) fn of(subject: &str) -> Option<Self> {
        let mut tokens = subject.strip_prefix("prima.jobs.")?.split('.');
        let name = tokens.next()?;
        Some(Self {
            class: Class::ALL.into_iter().find(|class| class.name() == name)?,
            model: tokens.next()?.to_owned(),
            lane: tokens.next().unwrap_or_default().to_owned(),
        })
    }

    /// What its consumer is called.
    pub(crate) fn name(&self) -> String {
        let Self { class, model, lane } = self;
        let dash = if lane.is_empty() { "" } else { "-" };
        format!("{}-{model}{dash}{lane}", class.name())
    }
}

/// Which lane a worker served when.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    served: HashMap<String, u64>,
    turn: u64,
}

impl Turns {
    /// Sorts places: the one to take from first.
    pub fn order(&self, places: &mut [Place]) {
        let turn = |place: &Place| self.served.get(&place.lane).copied().unwrap_or(0);
        places.sort_by(|a, b| {
            let urgent = a.class.cmp(&b.class);
            let fair = turn(a).cmp(&turn(b));
            urgent
                .then(fair)
                .then_with(|| a.lane.cmp(&b.lane))
                .then_with(|| a.model.cmp(&b.model))
        });
    }

    /// A job of this lane was taken.
    pub fn serve(&mut self, lane: &str) {
        self.turn += 1;
        self.served.insert(lane.to_owned(), self.turn);
        if self.served.len() > REMEMBERED {
            let oldest = self.turn.saturating_sub(REMEMBERED as u64 / 2);
            self.served.retain(|_, turn| *turn > oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(class: Class, lane: &str) -> Place {
        Place {
            class,
            model: "any".into(),
            lane: lane.into(),
        }
    }

    #[test]
    fn a_subject_says_whose_place_it_is() {
        let found = Place {
            class: Class::Batch,
            model: "sdxl".into(),
            lane: "ab12".into(),
        };
        assert_eq!(Place::of("prima.jobs.batch.sdxl.ab12"), Some(found.clone()));
        assert_eq!(found.subject(), "prima.jobs.batch.sdxl.ab12");
        // Of a gateway that knows of no lanes.
        let old = Place::of("prima.jobs.interactive.any").unwrap();
        assert_eq!(
            (old.subject().as_str(), old.name().as_str()),
            ("prima.jobs.interactive.any", "interactive-any")
        );
        assert_eq!(Place::of("prima.jobs.other.any.x"), None);
    }

    #[test]
    fn between_two_jobs_of_a_client_each_other_one_is_served_once_at_most() {
        let mut turns = Turns::default();
        let lanes = ["a", "b", "c"].map(|lane| place(Class::Batch, lane));
        let mut order = String::new();
        for _ in 0..9 {
            let mut waiting = lanes.to_vec();
            turns.order(&mut waiting);
            turns.serve(&waiting[0].lane);
            order.push_str(&waiting[0].lane);
        }
        assert_eq!(order, "abcabcabc");
    }

    #[test]
    fn one_job_beside_a_thousand_of_another_is_next_and_what_is_waited_for_is_before_both() {
        let mut turns = Turns::default();
        (0..1000).for_each(|_| turns.serve("busy"));
        let mut waiting = [
            place(Class::Batch, "busy"),
            place(Class::Batch, "one"),
            place(Class::Interactive, "busy"),
        ];
        turns.order(&mut waiting);
        assert_eq!(
            waiting,
            [
                place(Class::Interactive, "busy"),
                place(Class::Batch, "one"),
                place(Class::Batch, "busy"),
            ]
        );
    }
}
