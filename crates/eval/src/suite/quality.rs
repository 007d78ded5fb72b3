//! Class and colour accuracy of a model, and of the drawings that it learnt from: the ceiling.

use crate::order::Order;
use crate::suite::classes::{Accuracy, ClassMeans};
use crate::suite::colours::main_hue;
use crate::suite::write::drawing;
use crate::{Error, FeatureNet, OnProgress, Suite};
use prima_data::{Composer, caption};
use prima_picture::Picture;
use prima_pipeline::Pipeline;
use serde::Serialize;
use std::collections::BTreeMap;

/// A suite and the network that judges by it.
pub struct SuiteJudge<'a> {
    suite: &'a Suite,
    net: &'a FeatureNet,
    means: ClassMeans,
}

/// A model's figures at one number of steps.
#[derive(Clone, Debug, Serialize)]
pub struct SuiteQuality {
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

impl<'a> SuiteJudge<'a> {
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
    ) -> Result<SuiteQuality, Error> {
        let (classes, colours) = (&self.suite.classes, &self.suite.colours);
        let total = classes.len() + colours.len();
        let mut pictures = Vec::new();
        for (i, class) in classes.iter().enumerate() {
            on_progress(i, total);
            for seed in 0..seeds {
                pictures.push((i, Order::new(&class.prompt, seed).paint(pipeline, steps)?));
            }
        }
        let mut obeyed = 0;
        for (i, prompt) in colours.iter().enumerate() {
            on_progress(classes.len() + i, total);
            let picture = Order::new(&prompt.prompt, 0).paint(pipeline, steps)?;
            obeyed += usize::from(main_hue(&picture).is_some_and(|hue| hue.name() == prompt.colour));
        }
        Ok(SuiteQuality {
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
