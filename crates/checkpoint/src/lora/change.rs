//! What a file does to one layer.

use super::keys::{LayerName, Role, Roles};
use super::scales::Scales;
use crate::{Error, TensorFile};
use prima_tensor::Tensor;
use rayon::prelude::*;

/// What becomes of a layer, at weight 1.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Of its weight.
    pub delta: Option<Delta>,
    /// DoRA: what the weight's rows are scaled to once the delta is added, one an output; or its columns, one an input.
    pub magnitude: Option<Tensor>,
    /// Added to its bias, which it need not have.
    pub bias: Option<Tensor>,
}

/// What is added to a weight.
#[derive(Clone, Debug)]
pub enum Delta {
    /// The weights of a chain of layers, the first of which reads what the layer reads: `[rank, inputs]`, `[outputs, rank]`
    /// for a linear layer, `[rank, inputs, kh, kw]`, `[outputs, rank, 1, 1]` for a convolution, and in Tucker's form
    /// `[rank, inputs, 1, 1]`, `[rank, rank, kh, kw]`, `[outputs, rank, 1, 1]`.
    Product { factors: Vec<Tensor>, scale: f32 },
    /// All of it, in the weight's shape.
    Dense(Tensor),
    /// GLoRA: `scale (W right + outer)`, where W is the weight: `right` `[inputs, inputs]`, `outer` `[outputs, inputs]`.
    OfWeight { right: Tensor, outer: Tensor, scale: f32 },
}

/// The keys of one layer in a file.
pub(super) struct LayerKeys<'a> {
    pub file: &'a TensorFile,
    pub scales: &'a Scales,
    /// The family of models that the file is for, as far as it says.
    pub made_for: Option<&'a str>,
    pub layer: &'a LayerName,
    pub roles: &'a Roles,
    /// Of the layer's weight.
    pub shape: &'a [usize],
}

impl LayerKeys<'_> {
    /// What they say.
    pub fn read(&self) -> Result<Change, Error> {
        let bias = self.get(Role::DiffBias)?;
        if let Some(bias) = &bias {
            self.check(Role::DiffBias, bias, &self.shape[..1])?;
        }
        Ok(Change {
            delta: self.delta()?,
            magnitude: self.magnitude()?,
            bias,
        })
    }

    fn has(&self, role: Role) -> bool {
        self.roles.contains_key(&role)
    }

    fn get(&self, role: Role) -> Result<Option<Tensor>, Error> {
        self.roles.get(&role).map(|key| self.file.read(key)).transpose()
    }

    fn need(&self, role: Role) -> Result<Tensor, Error> {
        self.get(role)?.ok_or_else(|| {
            let there: Vec<&str> = self.roles.values().map(String::as_str).collect();
            let message = format!(
                "of the layer {} it has {} and not what belongs to it ({role:?}); the file is incomplete, download it again",
                self.layer.layer,
                there.join(", ")
            );
            self.file_error(message)
        })
    }

    fn error(&self, role: Role, found: &[usize]) -> Error {
        let key = self.roles.get(&role).map_or("", String::as_str);
        let made_for = self.made_for.map(|family| format!(", this one is for {family}"));
        let message = format!(
            "`{key}` has shape {found:?}, which does not fit the weight {:?} of {} in this model's {}: use a LoRA that was made for \
             this family of models{}",
            self.shape,
            self.layer.layer,
            self.layer.network.component(),
            made_for.unwrap_or_default(),
        );
        self.file_error(message)
    }

    fn file_error(&self, message: String) -> Error {
        Error::File {
            file: self.file.name().to_owned(),
            message,
        }
    }

    /// That `tensor` has as many values as `wanted`.
    fn check(&self, role: Role, tensor: &Tensor, wanted: &[usize]) -> Result<(), Error> {
        if tensor.numel() == wanted.iter().product::<usize>() {
            return Ok(());
        }
        Err(self.error(role, tensor.shape()))
    }

    /// `tensor` with its first axis and `rest` as all others.
    fn rows(&self, role: Role, tensor: &Tensor, rest: &[usize]) -> Result<Tensor, Error> {
        let first = tensor.shape().first().copied().unwrap_or(0);
        let wanted = [&[first], rest].concat();
        self.check(role, tensor, &wanted)?;
        Ok(tensor.reshape(&wanted))
    }

    /// A matrix, of a tensor whose further axes are laid side by side.
    fn matrix(&self, role: Role) -> Result<Tensor, Error> {
        let tensor = self.need(role)?;
        match *tensor.shape() {
            [rows, ..] if rows > 0 && tensor.shape().len() > 1 => Ok(tensor.reshape(&[rows, tensor.numel() / rows])),
            _ => Err(self.error(role, tensor.shape())),
        }
    }

    fn inputs(&self) -> usize {
        self.shape[1..].iter().product()
    }

    /// Alpha over `rank`; 1 where there is no alpha.
    fn scale(&self, rank: usize) -> Result<f32, Error> {
        let alpha = self.get(Role::Alpha)?;
        let alpha = alpha.and_then(|alpha| alpha.data().first().copied());
        Ok(alpha.map_or(1.0, |alpha| alpha / rank.max(1) as f32))
    }

    fn delta(&self) -> Result<Option<Delta>, Error> {
        let is_norm = self.shape.len() < 2;
        if let Some((role, key)) = self
            .roles
            .iter()
            .find(|(role, _)| is_norm && !matches!(role, Role::Diff | Role::DiffBias | Role::Alpha))
        {
            let found = self.file.tensors().get(key).map(|entry| entry.shape.clone());
            return Err(self.error(*role, &found.unwrap_or_default()));
        }
        if self.has(Role::Down) || self.has(Role::Up) {
            return self.product().map(Some);
        }
        if self.has(Role::HadaW1A) || self.has(Role::HadaW2A) {
            return self.hadamard().map(Some);
        }
        if [Role::LokrW1, Role::LokrW1A, Role::LokrW2, Role::LokrW2A]
            .iter()
            .any(|role| self.has(*role))
        {
            return self.kronecker().map(Some);
        }
        if self.has(Role::GloraA1) {
            return self.of_weight().map(Some);
        }
        let Some(diff) = self.get(Role::Diff)? else {
            return Ok(None);
        };
        self.check(Role::Diff, &diff, self.shape)?;
        Ok(Some(Delta::Dense(diff.reshape(self.shape))))
    }

    fn product(&self) -> Result<Delta, Error> {
        let (down, up) = (self.need(Role::Down)?, self.need(Role::Up)?);
        let rank = down.shape().first().copied().unwrap_or(0);
        let scale = match self.scales.scale(self.layer, rank).filter(|_| !self.has(Role::Alpha)) {
            Some(scale) => scale,
            None => self.scale(rank)?,
        };
        let mid = self.get(Role::Mid)?;
        let ones = vec![1; self.shape.len() - 2];
        let factors = match mid {
            None => {
                let down = self.rows(Role::Down, &down, &self.shape[1..])?;
                let up = self.rows(Role::Up, &up, &[&[rank], &ones[..]].concat())?;
                vec![down, up]
            }
            Some(mid) => {
                let down = self.rows(Role::Down, &down, &[&self.shape[1..2], &ones[..]].concat())?;
                let mid = self.rows(Role::Mid, &mid, &[&[rank], &self.shape[2..]].concat())?;
                let up = self.rows(Role::Up, &up, &[&[mid.dim(0)], &ones[..]].concat())?;
                vec![down, mid, up]
            }
        };
        if factors.last().map(|up| up.dim(0)) != Some(self.shape[0]) {
            return Err(self.error(Role::Up, up.shape()));
        }
        Ok(Delta::Product { factors, scale })
    }

    /// LoHa: the product, value by value, of two products of matrices.
    fn hadamard(&self) -> Result<Delta, Error> {
        let half = |a: Role, b: Role, t: Role| {
            let (w_a, w_b) = (self.need(a)?, self.need(b)?);
            let rank = w_b.shape().first().copied().unwrap_or(0);
            let dense = match self.get(t)? {
                Some(t) => self.tucker(t, [a, b])?,
                None => self.multiplied(a, &w_a, &w_b)?,
            };
            self.check(a, &dense, self.shape)?;
            Ok::<_, Error>((dense, rank))
        };
        let (first, rank) = half(Role::HadaW1A, Role::HadaW1B, Role::HadaT1)?;
        let (second, _) = half(Role::HadaW2A, Role::HadaW2B, Role::HadaT2)?;
        let scale = self.scale(rank)?;
        let values = first.data().iter().zip(second.data()).map(|(a, b)| scale * a * b);
        Ok(Delta::Dense(Tensor::from_vec(values.collect(), self.shape)))
    }

    /// `a · b` of matrices, further axes of `b` kept.
    fn multiplied(&self, role: Role, a: &Tensor, b: &Tensor) -> Result<Tensor, Error> {
        let (&[rows, inner], [b_rows, rest @ ..]) = (&a.shape()[..2.min(a.shape().len())], b.shape()) else {
            return Err(self.error(role, a.shape()));
        };
        let columns: usize = rest.iter().product();
        if inner != *b_rows || a.numel() != rows * inner {
            return Err(self.error(role, a.shape()));
        }
        let values = product(a.data(), b.data(), [rows, inner, columns]);
        Ok(Tensor::from_vec(values, &[&[rows], rest].concat()))
    }

    /// Tucker's form: `w[o, i, ...] = Σ a[p, o] t[p, q, ...] b[q, i]`.
    fn tucker(&self, t: Tensor, [a, b]: [Role; 2]) -> Result<Tensor, Error> {
        let (w_a, w_b) = (self.matrix(a)?, self.matrix(b)?);
        let &[p, q, ref taps @ ..] = t.shape() else {
            return Err(self.error(a, t.shape()));
        };
        if w_a.dim(0) != p || w_b.dim(0) != q {
            return Err(self.error(a, w_a.shape()));
        }
        let dims = [w_a.dim(1), p, q, w_b.dim(1), taps.iter().product()];
        let values = tucker(&transposed(w_a.data(), p, w_a.dim(1)), t.data(), w_b.data(), dims);
        Ok(Tensor::from_vec(values, &[&[w_a.dim(1), w_b.dim(1)], taps].concat()))
    }

    /// LoKr: the Kronecker product of two weights, each whole or a product.
    fn kronecker(&self) -> Result<Delta, Error> {
        let mut rank = None;
        let first = if let Some(whole) = self.get(Role::LokrW1)? {
            whole
        } else {
            let (a, b) = (self.need(Role::LokrW1A)?, self.need(Role::LokrW1B)?);
            rank = b.shape().first().copied();
            self.multiplied(Role::LokrW1A, &a, &b)?
        };
        let second = match (self.get(Role::LokrW2)?, self.get(Role::LokrT2)?) {
            (Some(whole), _) => whole,
            (None, Some(t)) => {
                rank = self.need(Role::LokrW2B)?.shape().first().copied();
                self.tucker(t, [Role::LokrW2A, Role::LokrW2B])?
            }
            (None, None) => {
                let (a, b) = (self.need(Role::LokrW2A)?, self.need(Role::LokrW2B)?);
                rank = b.shape().first().copied();
                self.multiplied(Role::LokrW2A, &a, &b)?
            }
        };
        // An alpha counts only where something has a rank.
        let scale = rank.map_or(Ok(1.0), |rank| self.scale(rank))?;
        let role = if self.has(Role::LokrW1) {
            Role::LokrW1
        } else {
            Role::LokrW1A
        };
        let (&[m, n], [o, i, taps @ ..]) = (&first.shape()[..2.min(first.shape().len())], second.shape()) else {
            return Err(self.error(role, first.shape()));
        };
        let (o, i, taps) = (*o, *i, taps.iter().product::<usize>());
        if m * o != self.shape[0] || n * i * taps != self.inputs() {
            return Err(self.error(role, first.shape()));
        }
        let mut values = vec![0.0; m * o * n * i * taps];
        values
            .par_chunks_mut((n * i * taps).max(1))
            .enumerate()
            .for_each(|(row, out)| {
                let (outer, inner) = (row / o, row % o);
                let inner = &second.data()[inner * i * taps..][..i * taps];
                for (column, out) in out.chunks_mut((i * taps).max(1)).enumerate() {
                    let weight = scale * first.data()[outer * n + column];
                    for (out, x) in out.iter_mut().zip(inner) {
                        *out = weight * x;
                    }
                }
            });
        Ok(Delta::Dense(Tensor::from_vec(values, self.shape)))
    }

    /// GLoRA in LyCORIS' order (`W a1 a2 + b1 b2`), or in the one before (`W a2 a1 + b2 b1`): which one the shapes say.
    fn of_weight(&self) -> Result<Delta, Error> {
        let [a1, a2, b1, b2] =
            [Role::GloraA1, Role::GloraA2, Role::GloraB1, Role::GloraB2].map(|role| self.matrix(role));
        let [a1, a2, b1, b2] = [a1?, a2?, b1?, b2?];
        let inputs = self.shape[1];
        let is_new = a1.dim(1) == a2.dim(0) && a1.dim(0) == inputs && b1.dim(0) == self.shape[0];
        let (left, right, b_left, b_right) = if is_new { (a1, a2, b1, b2) } else { (a2, a1, b2, b1) };
        let rank = left.dim(1);
        let (right, outer) = (
            self.multiplied(Role::GloraA1, &left, &right)?,
            self.multiplied(Role::GloraB1, &b_left, &b_right)?,
        );
        self.check(Role::GloraA1, &right, &[inputs, inputs])?;
        self.check(Role::GloraB1, &outer, self.shape)?;
        Ok(Delta::OfWeight {
            right,
            outer,
            scale: self.scale(rank)?,
        })
    }

    fn magnitude(&self) -> Result<Option<Tensor>, Error> {
        let Some(magnitude) = self.get(Role::Magnitude)? else {
            return Ok(None);
        };
        let [outputs, inputs] = [self.shape[0], self.shape[1]];
        match magnitude.numel() {
            // peft's convolutions have `[1, outputs, 1, 1]`.
            n if n == outputs && !self.is_by_input(&magnitude) => Ok(Some(magnitude.reshape(&[outputs, 1]))),
            n if n == inputs => Ok(Some(magnitude.reshape(&[1, inputs]))),
            _ => Err(self.error(Role::Magnitude, magnitude.shape())),
        }
    }

    /// LyCORIS' first DoRA: `[1, inputs, ...]`, of the columns' lengths.
    fn is_by_input(&self, magnitude: &Tensor) -> bool {
        let key = self.roles.get(&Role::Magnitude).map_or("", String::as_str);
        let shape = magnitude.shape();
        key.ends_with(".dora_scale") && shape.len() > 1 && shape[0] == 1 && shape[1] == self.shape[1]
    }
}

impl Change {
    /// What is added to the layer's weight, in its shape, at this weight of the whole change; `base` gives the weight's values.
    /// With DoRA that is no multiple of `weight` (peft's `dora.py`: lengths are those of the sum at that weight).
    pub fn dense(&self, shape: &[usize], weight: f32, base: &dyn Fn() -> Tensor) -> Option<Tensor> {
        let delta = self.delta.as_ref()?;
        let mut values = delta.dense(shape, base);
        values.par_iter_mut().for_each(|x| *x *= weight);
        if let Some(magnitude) = &self.magnitude {
            decompose(&mut values, base().data(), magnitude, shape);
        }
        Some(Tensor::from_vec(values, shape))
    }
}

impl Delta {
    fn dense(&self, shape: &[usize], base: &dyn Fn() -> Tensor) -> Vec<f32> {
        // Norms have one axis, and no change but a difference.
        let (outputs, inputs) = (shape[0], shape.get(1).copied().unwrap_or(1));
        let taps: usize = shape.iter().skip(2).product();
        match self {
            Self::Dense(tensor) => tensor.data().to_vec(),
            Self::OfWeight { right, outer, scale } => {
                let base = base();
                // By taps: `[outputs, inputs, taps]` times `[inputs, inputs]` over the inputs.
                let mut values = vec![0.0; outputs * inputs * taps];
                values
                    .par_chunks_mut((inputs * taps).max(1))
                    .enumerate()
                    .for_each(|(o, out)| {
                        for i in 0..inputs {
                            let row = &base.data()[(o * inputs + i) * taps..][..taps];
                            for (j, weight) in right.data()[i * inputs..][..inputs].iter().enumerate() {
                                for (out, x) in out[j * taps..][..taps].iter_mut().zip(row) {
                                    *out += weight * x;
                                }
                            }
                        }
                    });
                values.iter().zip(outer.data()).map(|(a, b)| scale * (a + b)).collect()
            }
            Self::Product { factors, scale } => {
                let mut values = match factors.as_slice() {
                    [down, up] => product(up.data(), down.data(), [outputs, down.dim(0), inputs * taps]),
                    [down, mid, up] => {
                        let dims = [outputs, mid.dim(0), mid.dim(1), inputs, taps];
                        tucker(up.data(), mid.data(), down.data(), dims)
                    }
                    _ => vec![0.0; outputs * inputs * taps],
                };
                values.par_iter_mut().for_each(|x| *x *= scale);
                values
            }
        }
    }
}

/// `delta` to what brings `base + delta` to the lengths `magnitude`: of rows where that is `[outputs, 1]`, else of columns.
fn decompose(delta: &mut [f32], base: &[f32], magnitude: &Tensor, shape: &[usize]) {
    let (inputs, taps) = (shape[1], shape[2..].iter().product::<usize>());
    let row = inputs * taps;
    let by_output = magnitude.dim(1) == 1;
    let squares = |i: usize| f64::from(base[i] + delta[i]).powi(2);
    let lengths: Vec<f64> = if by_output {
        (0..shape[0])
            .into_par_iter()
            .map(|o| (o * row..(o + 1) * row).map(squares).sum())
            .collect()
    } else {
        let of_input = |i: usize| {
            let places = (0..shape[0]).flat_map(|o| (0..taps).map(move |tap| o * row + i * taps + tap));
            places.map(squares).sum()
        };
        (0..inputs).into_par_iter().map(of_input).collect()
    };
    let factors: Vec<f32> = lengths
        .iter()
        .zip(magnitude.data())
        .map(|(length, magnitude)| (f64::from(*magnitude) / length.sqrt().max(f64::from(f32::EPSILON))) as f32)
        .collect();
    delta.par_chunks_mut(row.max(1)).enumerate().for_each(|(o, delta)| {
        for (i, delta) in delta.iter_mut().enumerate() {
            let own = base[o * row + i];
            let factor = if by_output { factors[o] } else { factors[i / taps] };
            *delta = factor * (own + *delta) - own;
        }
    });
}

/// `a [rows, inner] · b [inner, columns]`.
fn product(a: &[f32], b: &[f32], [rows, inner, columns]: [usize; 3]) -> Vec<f32> {
    let mut out = vec![0.0; rows * columns];
    out.par_chunks_mut(columns.max(1)).enumerate().for_each(|(row, out)| {
        for (weight, b) in a[row * inner..][..inner].iter().zip(b.chunks_exact(columns.max(1))) {
            for (out, b) in out.iter_mut().zip(b) {
                *out += weight * b;
            }
        }
    });
    out
}

/// `w[o, i, tap] = Σ left[o, p] t[p, q, tap] right[q, i]`.
fn tucker(left: &[f32], t: &[f32], right: &[f32], [outputs, p, q, inputs, taps]: [usize; 5]) -> Vec<f32> {
    // [outputs, q, taps], then the inputs.
    let half = product(left, t, [outputs, p, q * taps]);
    let mut out = vec![0.0; outputs * inputs * taps];
    out.par_chunks_mut((inputs * taps).max(1))
        .enumerate()
        .for_each(|(o, out)| {
            for (i, out) in out.chunks_exact_mut(taps.max(1)).enumerate() {
                for k in 0..q {
                    let weight = right[k * inputs + i];
                    for (out, x) in out.iter_mut().zip(&half[(o * q + k) * taps..][..taps]) {
                        *out += weight * x;
                    }
                }
            }
        });
    out
}

fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns)
        .map(|i| values[i % rows * columns + i / rows])
        .collect()
}
