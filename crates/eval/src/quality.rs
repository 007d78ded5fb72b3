//! Class and colour accuracy of a model, and of the drawings that it learnt from: the ceiling.

use crate::classes::{Accuracy, ClassMeans};
use crate::colours::main_hue;
use crate::write_suite::drawing;
use crate::{Error, FeatureNet, OnProgress, Suite};
use prima_data::{Composer, caption};
use prima_picture::Picture;
use prima_pipeline::{Pipeline, Request};
use prima_schedulers::ScheduleOptions;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// A suite and the network that judges by it.
pub struct Judge<'a> {
    suite: &'a Suite,
    net: &'a FeatureNet,
    means: ClassMeans,
}

/// A model's figures at one number of steps.
#[derive(Clone, Debug, Serialize)]
pub struct Quality {
    pub steps: usize,
    pub classes: Accuracy,
    /// Share of colour prompts whose object has the colour, 0 to 1.
    pub colours: f64,
    /// Each class's pictures, seed by seed.
    #[serde(skip)]
    pub pictures: Vec<(usize, Picture)>,
}

/// What one drawing style of the data set reaches.
#[derive(Clone, Debug, Serialize)]
pub struct Ceiling {
    pub style: String,
    /// Of the drawings themselves.
    pub drawings: Accuracy,
    /// Of what the model's autoencoder makes of them.
    pub autoencoder: Accuracy,
}

impl<'a> Judge<'a> {
    pub fn new(suite: &'a Suite, net: &'a FeatureNet) -> Result<Self, Error> {
        Ok(Self {
            suite,
            net,
            means: ClassMeans::of_suite(suite, net)?,
        })
    }

    /// Paints every prompt of the suite in `steps` steps, the class prompts with each of `seeds` seeds.
    pub fn quality(
        &self,
        pipeline: &Pipeline,
        steps: usize,
        seeds: u64,
        on_progress: OnProgress,
    ) -> Result<Quality, Error> {
        let (classes, colours) = (&self.suite.classes, &self.suite.colours);
        let total = classes.len() + colours.len();
        let mut pictures = Vec::new();
        for (i, class) in classes.iter().enumerate() {
            on_progress(i, total);
            for seed in 0..seeds {
                pictures.push((i, paint(pipeline, &class.prompt, steps, seed)?));
            }
        }
        let mut obeyed = 0;
        for (i, prompt) in colours.iter().enumerate() {
            on_progress(classes.len() + i, total);
            let picture = paint(pipeline, &prompt.prompt, steps, 0)?;
            obeyed += usize::from(main_hue(&picture).is_some_and(|hue| hue.name() == prompt.colour));
        }
        Ok(Quality {
            steps,
            classes: self.means.accuracy(self.net, &pictures),
            colours: obeyed as f64 / colours.len().max(1) as f64,
            pictures,
        })
    }

    /// By drawing style: the drawings of the suite's nouns, and what the model's autoencoder makes of them.
    pub fn ceiling(
        &self,
        pipeline: &Pipeline,
        composer: &Composer,
        on_progress: OnProgress,
    ) -> Result<Vec<Ceiling>, Error> {
        let mut styles: BTreeMap<String, [Vec<(usize, Picture)>; 2]> = BTreeMap::new();
        let nouns = composer.evaluation_nouns();
        for (done, &noun) in nouns.iter().enumerate() {
            on_progress(done, nouns.len());
            let prompt = composer.prompt(noun);
            let name = caption::without_article(prompt);
            let class = self.suite.classes.iter().position(|c| c.name == name);
            let class = class.ok_or_else(|| Error::UnknownClass(name.to_owned()))?;
            for (style, rgb) in composer.drawings(noun)? {
                let drawing = drawing(rgb);
                let reconstruction = pipeline.reconstruct(&drawing)?;
                let [drawings, reconstructions] = styles.entry(style.to_owned()).or_default();
                drawings.push((class, drawing));
                reconstructions.push((class, reconstruction));
            }
        }
        let row = |(style, [drawings, reconstructions]): (String, [Vec<_>; 2])| Ceiling {
            style,
            drawings: self.means.accuracy(self.net, &drawings),
            autoencoder: self.means.accuracy(self.net, &reconstructions),
        };
        Ok(styles.into_iter().map(row).collect())
    }
}

fn paint(pipeline: &Pipeline, prompt: &str, steps: usize, seed: u64) -> Result<Picture, Error> {
    let request = Request {
        prompt: prompt.to_owned(),
        seed,
        schedule: ScheduleOptions::steps(steps),
        ..Request::default()
    };
    let mut response = pipeline.paint(&request, &mut |_| ControlFlow::Continue(()))?;
    response
        .pictures
        .pop()
        .ok_or_else(|| Error::NoPicture(prompt.to_owned()))
}
