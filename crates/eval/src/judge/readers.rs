//! Three small networks that read what the head sees: how two things lie, which colour a thing has, how many there are. They learn
//! once the head has.

use super::colour::PALETTE;
use super::head::{CELLS, Linear, WIDTH};
use super::labels::{COUNTS, SIDES, STYLES};
use crate::features::FINE;
use prima_checkpoint::{Error, Init, ParamSource};
use prima_data::Colour;
use prima_data::world::{Time, Weather};
use prima_tensor::{Activation, Conv2d, Param, Tensor, avg_pool_global, concat_channels, conv2d};

/// What is known of a pair's places: see [`super::relation`].
pub(crate) const GEOMETRY: usize = 26;
const GEOMETRY_HIDDEN: usize = 64;

/// What is known of a thing's colours, and of the light, the weather and the style in which it is seen.
pub(crate) const COLOURS_OF: usize = PALETTE + Time::ALL.len() + Weather::ALL.len() + STYLES.len();
const COLOURS_HIDDEN: usize = 64;

/// Channels to which a cell's values are brought, and of the convolutions over them.
const COUNTED: usize = 24;
const COUNTED_WIDE: usize = 48;
const COUNTS_HIDDEN: usize = 48;

struct Convolution {
    weight: Param,
    bias: Param,
    geometry: Conv2d,
}

impl Convolution {
    fn new(
        source: &mut dyn ParamSource,
        name: &str,
        inputs: usize,
        outputs: usize,
        stride: usize,
    ) -> Result<Self, Error> {
        let shape = [outputs, inputs, 3, 3];
        Ok(Self {
            weight: source.param(&format!("{name}.weight"), &shape, Init::FanIn(9 * inputs))?,
            bias: source.param(&format!("{name}.bias"), &[outputs], Init::Zeros)?,
            geometry: Conv2d::strided(stride, 1),
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        conv2d(x, &self.weight, Some(&self.bias), self.geometry, Activation::Silu, None)
    }
}

/// The readers' parameters.
pub(crate) struct Readers {
    geometry: Linear,
    sides: Linear,
    palette: Linear,
    colours: Linear,
    counted: Linear,
    counted_near: Convolution,
    counted_far: Convolution,
    counts_hidden: Linear,
    counts: Linear,
}

impl Readers {
    /// By how a reader's parameters are called.
    pub const OF_SIDES: [&str; 2] = ["geometry", "sides"];
    pub const OF_COLOURS: [&str; 2] = ["palette", "colours"];
    pub const OF_COUNTS: [&str; 2] = ["counted", "counts"];

    pub fn new(source: &mut dyn ParamSource) -> Result<Self, Error> {
        Ok(Self {
            geometry: Linear::new(source, "geometry", GEOMETRY, GEOMETRY_HIDDEN)?,
            sides: Linear::new(source, "sides", GEOMETRY_HIDDEN, SIDES.len())?,
            palette: Linear::new(source, "palette", COLOURS_OF, COLOURS_HIDDEN)?,
            colours: Linear::new(source, "colours", COLOURS_HIDDEN, Colour::OBJECTS.len())?,
            counted: Linear::new(source, "counted", WIDTH + 1, COUNTED)?,
            counted_near: Convolution::new(source, "counted_near", COUNTED + 1, COUNTED_WIDE, 1)?,
            counted_far: Convolution::new(source, "counted_far", COUNTED_WIDE, COUNTED_WIDE, 2)?,
            counts_hidden: Linear::new(source, "counts_hidden", 2 * COUNTED_WIDE + 1, COUNTS_HIDDEN)?,
            counts: Linear::new(source, "counts", COUNTS_HIDDEN, COUNTS)?,
        })
    }

    /// `[B, GEOMETRY]` to scores of [`SIDES`], `[B, SIDES]`.
    pub fn sides(&self, geometry: &Tensor) -> Tensor {
        self.sides
            .forward(&self.geometry.forward(geometry, Activation::Silu), Activation::None)
    }

    /// `[B, COLOURS_OF]` to scores of `Colour::OBJECTS`.
    pub fn colours(&self, palettes: &Tensor) -> Tensor {
        self.colours
            .forward(&self.palette.forward(palettes, Activation::Silu), Activation::None)
    }

    /// Of each picture, how much each cell shows of any thing, and its tokens: `[B, CELLS, 1 + WIDTH]`. Scores of the counts less
    /// one, `[B, COUNTS]`.
    pub fn counts(&self, cells: &Tensor) -> Tensor {
        let batch = cells.dim(0);
        let things = prima_tensor::narrow_channels(cells, 0, 1);
        let narrow = self.counted.forward(cells, Activation::Silu);
        let map = concat_channels(&[&things, &narrow]).reshape(&[batch, FINE, FINE, COUNTED + 1]);
        let near = self.counted_near.forward(&map);
        let far = self.counted_far.forward(&near);
        let shown = avg_pool_global(&things.reshape(&[batch, FINE, FINE, 1]));
        let pooled = concat_channels(&[&avg_pool_global(&near), &avg_pool_global(&far), &shown]);
        let hidden = self.counts_hidden.forward(&pooled, Activation::Silu);
        self.counts.forward(&hidden, Activation::None)
    }
}

/// What [`Readers::counts`] reads of one picture, `[CELLS, 1 + WIDTH]`; in a mirror where `mirrored`.
pub(crate) fn counted(things: &[f32], tokens: &[f32], mirrored: bool) -> Vec<f32> {
    let mut values = Vec::with_capacity(CELLS * (1 + WIDTH));
    for cell in 0..CELLS {
        let (x, y) = (cell % FINE, cell / FINE);
        let from = if mirrored { y * FINE + FINE - 1 - x } else { cell };
        values.push(things[from]);
        values.extend_from_slice(&tokens[from * WIDTH..][..WIDTH]);
    }
    values
}
