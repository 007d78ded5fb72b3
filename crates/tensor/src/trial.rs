//! What a weight would lose in 8 or 4 bits, measured where it is used.

use crate::{Param, Tensor, no_grad};
use std::sync::{Mutex, PoisonError};

/// How far products with a weight in fewer bits are from those with its value, over all that it multiplied: see
/// [`Param::try_bits`].
pub struct Trial {
    bits: u8,
    /// Sums of squares: of the differences, and of the products.
    squares: Mutex<[f64; 2]>,
}

impl Trial {
    pub(crate) fn new(bits: u8) -> Self {
        Self {
            bits,
            squares: Mutex::default(),
        }
    }

    /// Root of the mean square of the differences, in parts of that of the products; `None` where nothing was multiplied.
    pub fn error(&self) -> Option<f64> {
        let [apart, whole] = *self.squares.lock().unwrap_or_else(PoisonError::into_inner);
        (whole > 0.0).then(|| (apart / whole).sqrt())
    }

    /// Compares what `run` makes of the weight, and of its copy in fewer bits.
    pub(crate) fn compare(&self, weight: &Param, run: impl Fn(&Param) -> Tensor) {
        let copy = weight.copy();
        copy.quantize(self.bits);
        let [wide, narrow] = no_grad(|| [run(weight), run(&copy)]);
        let squares = wide.data().iter().zip(narrow.data()).map(|(x, y)| {
            let (x, apart) = (f64::from(*x), f64::from(x - y));
            [apart * apart, x * x]
        });
        let mut sums = self.squares.lock().unwrap_or_else(PoisonError::into_inner);
        squares.for_each(|[apart, whole]| {
            sums[0] += apart;
            sums[1] += whole;
        });
    }
}
