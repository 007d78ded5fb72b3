//! What a picture takes once the model is warm: one request painted again and again.

use crate::{Error, Pipeline, Request};
use prima_picture::encode_png;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Medians over several paintings of one request; PNG encoding included in the total.
#[derive(Clone, Copy, Debug, Default)]
pub struct Medians {
    /// How often it was painted.
    pub paintings: usize,
    pub text: Duration,
    /// All steps of a painting.
    pub steps: Duration,
    pub decode: Duration,
    pub encode: Duration,
    pub total: Duration,
}

impl Pipeline {
    /// Paints `request` so often, with the prompt read anew each time, and measures. The model has painted before: a first
    /// painting would also measure the making of its buffers.
    pub fn measure(&self, request: &Request, paintings: usize) -> Result<Medians, Error> {
        let mut rows: [Vec<Duration>; 5] = Default::default();
        for _ in 0..paintings {
            self.parts().text_encoders.forget_prompts();
            let start = Instant::now();
            let response = self.paint(request, &mut |_| ControlFlow::Continue(()))?;
            let encode = Instant::now();
            for (index, picture) in response.pictures.iter().enumerate() {
                encode_png(picture, &response.parameters(request, self.name(), index))?;
            }
            let t = &response.timings;
            let row = [
                t.text,
                t.steps.iter().sum(),
                t.decode,
                encode.elapsed(),
                start.elapsed(),
            ];
            rows.iter_mut().zip(row).for_each(|(column, time)| column.push(time));
        }
        let [text, steps, decode, encode, total] = rows.map(median);
        Ok(Medians {
            paintings,
            text,
            steps,
            decode,
            encode,
            total,
        })
    }
}

/// Zero of none.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
