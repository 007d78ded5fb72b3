//! Elementary functions as plain arithmetic, so that loops over them vectorise.
//!
//! Each takes `const FMA: bool`: `true` only inside functions compiled for AVX2 and FMA or AVX-512
//! (a fused multiply-add outside of them is a slow library call). The polynomials were
//! fitted for this file (reweighted least squares in f64).

/// Defines `fn name(args)` that runs `body::<true>` compiled for AVX-512 or for AVX2 and FMA on processors that have
/// them and `body::<false>` elsewhere. `body` must be `#[inline(always)]`. The wider vectors change no result: a body
/// says in which order it sums.
macro_rules! dispatch {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn wide($($arg: $ty),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
                fn widest($($arg: $ty),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                let level = $crate::cpu::level::level();
                if level >= $crate::cpu::level::Level::Avx512 {
                    // SAFETY: the processor has the features that `widest` is compiled for.
                    return unsafe { widest($($arg),*) };
                }
                if level >= $crate::cpu::level::Level::Avx2 {
                    // SAFETY: the processor has the features that `wide` is compiled for.
                    return unsafe { wide($($arg),*) };
                }
            }
            $body::<false>($($arg),*)
        }
    };
}
pub(crate) use dispatch;

/// `a * b + c`.
#[inline(always)]
pub(crate) fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `c[0] + c[1] x + c[2] x² + ...`
#[inline(always)]
fn polynomial<const FMA: bool, const N: usize>(x: f32, c: [f32; N]) -> f32 {
    let mut sum = c[N - 1];
    let mut i = N - 1;
    while i > 0 {
        i -= 1;
        sum = mul_add::<FMA>(sum, x, c[i]);
    }
    sum
}

/// Adding then subtracting this rounds to the nearest integer and leaves it in the low bits.
const ROUND: f32 = 12_582_912.0;

/// `exp(x)` to 2e-7 relative in -87..88.37; 0 below (also for -inf), 2.4e38 above; NaN stays NaN.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Comparisons written so that NaN passes through.
    let top = if x > 88.37 { 88.37 } else { x };
    let y = if top < -87.0 { -87.0 } else { top };
    let shifted = mul_add::<FMA>(y, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = mul_add::<FMA>(n, -LN2_LOW, mul_add::<FMA>(n, -LN2_HIGH, y));
    let p = polynomial::<FMA, 6>(
        r,
        [
            0.5,
            1.666_666_7e-1,
            4.166_646_5e-2,
            8.333_286e-3,
            1.393_365e-3,
            1.990_758e-4,
        ],
    );
    let p = mul_add::<FMA>(p, r * r, r) + 1.0;
    // The low bits of `shifted` are n: shifted into the exponent they scale p by 2^n.
    let scaled = f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23));
    if x < -87.0 { 0.0 } else { scaled }
}

/// `2^x` to 2e-7 relative for x from -125 to 127; 2.4e-38 below (also for -inf); NaN stays NaN.
#[inline(always)]
pub(crate) fn exp2<const FMA: bool>(x: f32) -> f32 {
    power_of_two::<FMA, 6>(
        x,
        [
            1.0,
            std::f32::consts::LN_2,
            2.402_228_3e-1,
            5.550_558_5e-2,
            9.669_691e-3,
            1.330_060_5e-3,
        ],
    )
}

/// The same to 1e-4, for what is rounded to bf16 afterwards.
#[inline(always)]
pub(crate) fn exp2_rough<const FMA: bool>(x: f32) -> f32 {
    power_of_two::<FMA, 4>(x, [0.999_928_1, 6.932_61e-1, 2.426_111_2e-1, 5.517_166e-2])
}

/// `c` is a polynomial for `2^x` between -1/2 and 1/2.
#[inline(always)]
fn power_of_two<const FMA: bool, const N: usize>(x: f32, c: [f32; N]) -> f32 {
    // Written so that NaN passes through.
    let x = if x < -125.0 { -125.0 } else { x };
    let shifted = x + ROUND;
    let p = polynomial::<FMA, N>(x - (shifted - ROUND), c);
    // As in `exp`.
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// `1 / (1 + exp(-x))`.
#[inline(always)]
pub(crate) fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}

/// `tanh(x)` to 3e-7 relative.
#[inline(always)]
pub(crate) fn tanh<const FMA: bool>(x: f32) -> f32 {
    let z = x * x;
    let p = polynomial::<FMA, 5>(
        z,
        [
            -3.333_332_9e-1,
            1.333_279_5e-1,
            -5.385_407e-2,
            2.101_007_9e-2,
            -6.113_188_3e-3,
        ],
    );
    let near = mul_add::<FMA>(p * z, x, x);
    let far = 1.0 - 2.0 / (1.0 + exp::<FMA>(2.0 * x));
    if x.abs() < 0.625 { near } else { far }
}

/// `(erfc(z), exp(-z²))` for `z >= 0`, both to about 1e-6 relative while `z < 4`.
#[inline(always)]
fn erfc_and_gaussian<const FMA: bool>(z: f32) -> (f32, f32) {
    let t = 1.0 / mul_add::<FMA>(0.4, z, 1.0);
    let p = polynomial::<FMA, 9>(
        t,
        [
            2.255_399_6e-1,
            2.279_255e-1,
            1.920_353_7e-1,
            2.295_723_6e-1,
            -6.429_438e-4,
            1.988_713_7e-1,
            -8.929_564e-3,
            -9.700_955e-2,
            3.263_752_5e-2,
        ],
    );
    let gaussian = exp::<FMA>(-z * z);
    (t * p * gaussian, gaussian)
}

/// `(Φ(x), φ(x))` of the standard normal: `gelu(x) = x Φ(x)`, `gelu'(x) = Φ(x) + x φ(x)`.
#[inline(always)]
pub(crate) fn normal_cdf_pdf<const FMA: bool>(x: f32) -> (f32, f32) {
    const INV_SQRT_2PI: f32 = 0.398_942_3;
    let (erfc, gaussian) = erfc_and_gaussian::<FMA>(x.abs() * std::f32::consts::FRAC_1_SQRT_2);
    let tail = 0.5 * erfc;
    (if x < 0.0 { tail } else { 1.0 - tail }, gaussian * INV_SQRT_2PI)
}

#[inline(always)]
fn exp_slice_body<const FMA: bool>(values: &mut [f32]) {
    for v in values {
        *v = exp::<FMA>(*v);
    }
}

dispatch! {
    /// `v = exp(v)` for each value.
    pub(crate) fn exp_slice(values: &mut [f32]) = exp_slice_body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(from: f32, to: f32, f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64, relative: bool) -> f64 {
        (0..=200_000)
            .map(|i| from + (to - from) * i as f32 / 200_000.0)
            .map(|x| {
                let want = exact(f64::from(x));
                let error = (f64::from(f(x)) - want).abs();
                if relative { error / want.abs().max(1e-30) } else { error }
            })
            .fold(0.0, f64::max)
    }

    /// erf by its series, enough terms for |x| <= 4 in f64.
    fn cdf(x: f64) -> f64 {
        let z = x / std::f64::consts::SQRT_2;
        let (mut term, mut sum) = (z, z);
        for n in 1..200 {
            term *= -z * z / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        0.5 + sum / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn exp_is_accurate_and_keeps_the_special_values() {
        assert!(worst(-86.9, 88.3, exp::<false>, f64::exp, true) < 3e-7);
        assert!(worst(-1.0, 1.0, exp::<false>, f64::exp, true) < 2e-7);
        assert_eq!(exp::<false>(0.0), 1.0);
        assert_eq!(exp::<false>(f32::NEG_INFINITY), 0.0);
        assert!(exp::<false>(f32::NAN).is_nan());
        assert!(exp::<false>(1e9) > 1e38);
        let mut values: Vec<f32> = (0..1001).map(|i| (i as f32 - 500.0) * 0.1).collect();
        let want: Vec<f64> = values.iter().map(|&v| f64::from(v).exp()).collect();
        exp_slice(&mut values);
        assert!(
            values
                .iter()
                .zip(&want)
                .all(|(&a, &b)| (f64::from(a) / b - 1.0).abs() < 3e-7)
        );
    }

    #[test]
    fn powers_of_two_are_accurate() {
        assert!(worst(-125.0, 126.9, exp2::<false>, f64::exp2, true) < 2e-7);
        assert!(worst(-124.0, 126.9, exp2_rough::<false>, f64::exp2, true) < 1e-4);
        assert_eq!(exp2::<false>(0.0), 1.0);
        for f in [exp2::<false>, exp2_rough::<false>] {
            assert!(f(f32::NEG_INFINITY) < 1e-37 && f(f32::NAN).is_nan());
        }
    }

    #[test]
    fn tanh_and_the_normal_distribution_are_accurate() {
        assert!(worst(-9.0, 9.0, tanh::<false>, f64::tanh, true) < 4e-7);
        assert!(worst(-5.0, 5.0, |x| normal_cdf_pdf::<false>(x).0, cdf, false) < 3e-7);
        assert!(worst(-3.0, 3.0, |x| normal_cdf_pdf::<false>(x).0, cdf, true) < 2e-6);
        let pdf = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        assert!(worst(-5.0, 5.0, |x| normal_cdf_pdf::<false>(x).1, pdf, true) < 2e-6);
    }
}
