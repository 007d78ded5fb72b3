//! A picture to paint, and a model that paints it.

use crate::Error;
use prima_picture::Picture;
use prima_pipeline::{InitImage, Pipeline, Request};
use prima_schedulers::ScheduleOptions;
use std::ops::ControlFlow;

/// Strength with which a sketch is painted over.
const SKETCH_STRENGTH: f64 = 0.5;

/// A picture to paint.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    pub prompt: &'a str,
    pub seed: u64,
    /// A picture to start from, with strength 0.5.
    pub sketch: Option<&'a Picture>,
}

impl<'a> Order<'a> {
    /// Without a sketch.
    pub fn new(prompt: &'a str, seed: u64) -> Self {
        Self {
            prompt,
            seed,
            sketch: None,
        }
    }

    /// Has a model paint it in `steps` steps, at the model's own size.
    pub fn paint(&self, pipeline: &Pipeline, steps: usize) -> Result<Picture, Error> {
        let request = Request {
            prompt: self.prompt.to_owned(),
            seed: self.seed,
            schedule: ScheduleOptions::steps(steps),
            init_image: self.sketch.map(|picture| InitImage {
                picture: picture.clone(),
                strength: Some(SKETCH_STRENGTH),
            }),
            ..Request::default()
        };
        let mut response = pipeline.paint(&request, &mut |_| ControlFlow::Continue(()))?;
        let painted = response.pictures.pop();
        painted.ok_or_else(|| Error::NoPicture(self.prompt.to_owned()))
    }
}

/// Paints what is asked for: a model's pipeline, or the scene generator in its place.
pub type Paint<'a> = &'a mut dyn FnMut(&Order) -> Result<Picture, Error>;
