//! The rows of a schedule's table, and the state that runs through them.

/// How many rows before it a row may look back on.
pub const HISTORY: usize = 3;

/// The weights of a sum over what the loop has at hand in one row.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Combination {
    /// Weight of the sample that the network was asked about (before `input_scale`).
    pub sample: f64,
    /// Weight of what the network answered, guidance included.
    pub model_output: f64,
    /// Weight of fresh standard normal noise. 0 where the row is deterministic: none need be drawn.
    pub noise: f64,
    /// Weights of what the rows before remembered, the latest first: their denoised images, unless they say otherwise.
    pub history: [f64; HISTORY],
    /// Weight of the sample that an earlier row kept.
    pub kept: f64,
}

/// One network evaluation and the update after it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// What the network is told; fractional for some spacings.
    pub timestep: f64,
    /// The network sees `sample * input_scale`.
    pub input_scale: f64,
    /// The next sample.
    pub next: Combination,
    /// What is kept beside the sample from here on, for later rows' `kept`; `None` leaves it as it is.
    pub keep: Option<Combination>,
    /// `x0 = sample * denoised.0 + model_output * denoised.1`.
    pub denoised: (f64, f64),
    /// What later rows find in their history.
    pub remember: Remember,
    /// A clean image at this row's noise level: `sample = x0 * add_noise.0 + noise * add_noise.1`
    /// (image-to-image start, inpainting).
    pub add_noise: (f64, f64),
    /// Whether a step ends here. False for all evaluations of a step but its last.
    pub ends_step: bool,
}

/// What a row leaves for those after it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Remember {
    Denoised,
    /// `sample * .0 + model_output * .1`.
    Line((f64, f64)),
    Nothing,
}

impl Row {
    /// A row of a first-order scheduler, which needs nothing but the sample, the model's output and
    /// perhaps noise: `next` is `(sample, model_output)`.
    pub(crate) fn first_order(
        timestep: f64,
        next: (f64, f64),
        noise: f64,
        denoised: (f64, f64),
        add_noise: (f64, f64),
    ) -> Self {
        Self {
            timestep,
            input_scale: 1.0,
            next: Combination {
                sample: next.0,
                model_output: next.1,
                noise,
                ..Combination::default()
            },
            keep: None,
            denoised,
            remember: Remember::Denoised,
            add_noise,
            ends_step: true,
        }
    }

    pub fn needs_noise(&self) -> bool {
        self.next.noise != 0.0
    }
}

/// What a run carries from row to row. `T` is a tensor in the pipeline and a number in tests.
#[derive(Debug, Clone)]
pub struct State<T> {
    pub sample: T,
    kept: Option<T>,
    /// What rows remembered, the latest first.
    history: Vec<T>,
}

impl<T: Clone> State<T> {
    /// `sample` is noise times `Schedule::init_noise_sigma`, or a noised picture (`Schedule::add_noise`).
    pub fn new(sample: T) -> Self {
        Self {
            sample,
            kept: None,
            history: Vec::new(),
        }
    }

    /// Takes one row and returns its denoised image, also the preview. `model_output` answers
    /// `sample * input_scale` at the row's timestep; `noise` is only read where the row needs it;
    /// `sum` adds up factors times values.
    pub fn advance(&mut self, row: &Row, model_output: &T, noise: Option<&T>, sum: impl Fn(&[(f64, &T)]) -> T) -> T {
        let next = sum(&self.terms(&row.next, model_output, noise));
        let keep = row.keep.map(|keep| sum(&self.terms(&keep, model_output, noise)));
        let denoised = sum(&[(row.denoised.0, &self.sample), (row.denoised.1, model_output)]);
        let remembered = match row.remember {
            Remember::Denoised => Some(denoised.clone()),
            Remember::Line((sample, output)) => Some(sum(&[(sample, &self.sample), (output, model_output)])),
            Remember::Nothing => None,
        };
        self.sample = next;
        if keep.is_some() {
            self.kept = keep;
        }
        if let Some(remembered) = remembered {
            self.history.truncate(HISTORY - 1);
            self.history.insert(0, remembered);
        }
        denoised
    }

    fn terms<'a>(&'a self, weights: &Combination, model_output: &'a T, noise: Option<&'a T>) -> Vec<(f64, &'a T)> {
        let history = weights.history.into_iter().zip(&self.history);
        let rest = noise
            .map(|noise| (weights.noise, noise))
            .into_iter()
            .chain(history)
            .chain(self.kept.as_ref().map(|kept| (weights.kept, kept)))
            .filter(|(weight, _)| *weight != 0.0);
        [(weights.sample, &self.sample), (weights.model_output, model_output)]
            .into_iter()
            .chain(rest)
            .collect()
    }
}
