//! What the engine says about a unit, and what it may be told in return. Everything here is owned, without a model or a tensor
//! in it, so that the unit may be painted in another process.

use prima_pipeline::{Error, Parameters, Picture, Response};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What happens to a unit, in this order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "made once a unit")]
pub enum Event {
    /// Begun, after waiting for `queued`.
    Begun { queued: Duration },
    /// The prompt has been read.
    Text,
    /// `step` of `of` steps have been taken.
    Step { step: usize, of: usize },
    /// What the pictures look like after that step; only where a [`Reply`] asked for it.
    Preview {
        step: usize,
        of: usize,
        pictures: Vec<Picture>,
    },
    /// `picture` of `of` pictures have left the autoencoder.
    Decode { picture: usize, of: usize },
    /// Finished, failed or cancelled ([`Failure::Cancelled`]).
    Done(Outcome),
}

/// What is to be done after an event; nothing after [`Event::Done`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    GoOn,
    /// Decode what the last step came to ([`Event::Preview`]), then go on.
    Preview,
    /// End the unit.
    Stop,
    /// The same, after an [`Event::Preview`] of what it had come to, if it had taken a step.
    StopWithPreview,
}

/// The end of a unit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub result: Result<Painted, Failure>,
    pub queued: Duration,
    /// The first picture of its size since the start: buffers were not there yet.
    pub cold: bool,
}

/// The pictures of a unit and how they came about.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Painted {
    pub response: Response,
    /// What each picture's file says about its making; nothing where [`Unit::recipe`](crate::Unit::recipe) does not ask for it.
    pub recipes: Vec<Parameters>,
}

/// Why there are no pictures: an [`Error`] as far as a client is told of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Failure {
    #[error("cancelled")]
    Cancelled,
    /// The request is at fault, in this field if it is one.
    #[error("{message}")]
    Request { field: Option<String>, message: String },
    /// A defect of prima, caught so that it ends one unit only.
    #[error("this request met a defect of prima: {message}")]
    Defect { message: String },
    /// The model's files or the machine.
    #[error("{message}")]
    Machine { message: String },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Cancelled => Self::Cancelled,
            Error::Defect { message } => Self::Defect { message },
            error if error.is_usage() || matches!(error, Error::Picture(_)) => Self::Request {
                field: error.field().map(str::to_owned),
                message: error.to_string(),
            },
            error => Self::Machine {
                message: error.to_string(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prima_pipeline::SchedulerKind;

    fn response() -> Response {
        Response {
            pictures: vec![Picture {
                width: 1,
                height: 1,
                rgb: vec![1, 2, 3],
            }],
            seed: 7,
            num_inference_steps: 1,
            guidance_scale: 0.0,
            scheduler: SchedulerKind::EulerAncestral,
            timestep_spacing: "trailing".to_owned(),
            strength: None,
            refiner: None,
            timesteps: vec![999.0],
            sigmas: vec![14.6],
            timings: prima_pipeline::Timings::default(),
            loras: Vec::new(),
            warnings: Vec::new(),
        }
    }

    #[test]
    fn an_outcome_survives_the_way_to_another_process() {
        let outcome = |result| {
            Event::Done(Outcome {
                result,
                queued: Duration::from_millis(3),
                cold: true,
            })
        };
        let painted = Painted {
            response: response(),
            recipes: vec![Parameters::default()],
        };
        let text = serde_json::to_string(&outcome(Ok(painted))).unwrap();
        let Event::Done(back) = serde_json::from_str(&text).unwrap() else {
            panic!("another event came back: {text}");
        };
        let painted = back.result.unwrap();
        assert_eq!(painted.response.pictures, response().pictures);
        assert_eq!(painted.response.scheduler, SchedulerKind::EulerAncestral);
        assert_eq!(
            (painted.response.sigmas, back.queued),
            (vec![14.6], Duration::from_millis(3))
        );
        let failure = Failure::from(Error::Missing { field: "prompt" });
        let text = serde_json::to_string(&outcome(Err(failure.clone()))).unwrap();
        let Event::Done(back) = serde_json::from_str(&text).unwrap() else {
            panic!("another event came back: {text}");
        };
        assert_eq!(back.result.unwrap_err(), failure);
    }

    #[test]
    fn a_failure_keeps_whose_fault_it_was_and_the_sentence() {
        let of = |error: Error| Failure::from(error);
        assert_eq!(of(Error::Cancelled), Failure::Cancelled);
        let Failure::Request { field, message } = of(Error::Missing { field: "prompt" }) else {
            panic!("a request's fault");
        };
        assert_eq!(
            (field.as_deref(), message.as_str()),
            (Some("prompt"), "prompt is missing")
        );
        let machine = of(Error::Model {
            model: "m".to_owned(),
            message: "broken".to_owned(),
        });
        assert!(matches!(machine, Failure::Machine { message } if message == "m: broken"));
    }
}
