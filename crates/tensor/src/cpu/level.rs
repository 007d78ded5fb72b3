//! Which instructions of the processor the kernels use.

use std::sync::OnceLock;

/// What kernels are written for, from the least to the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Plain Rust, vectorised for the baseline of the target: SSE2 on x86-64, NEON on aarch64.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// The same with products of bytes.
    AvxVnni,
    /// AVX-512 F, VL, DQ and BW.
    Avx512,
    /// The same with products of bytes.
    Avx512Vnni,
    /// The same with products of bf16 as well.
    Avx512Bf16,
}

impl Level {
    const ALL: [Self; 6] = [
        Self::Portable,
        Self::Avx2,
        Self::AvxVnni,
        Self::Avx512,
        Self::Avx512Vnni,
        Self::Avx512Bf16,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avx-vnni",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Avx512Bf16 => "avx512-bf16",
        }
    }

    /// The best of this processor.
    #[cfg(target_arch = "x86_64")]
    fn detected() -> Self {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw");
        let vnni = is_x86_feature_detected!("avx512vnni");
        match (avx2, avx512) {
            (_, true) if vnni && is_x86_feature_detected!("avx512bf16") => Self::Avx512Bf16,
            (_, true) if vnni => Self::Avx512Vnni,
            (_, true) => Self::Avx512,
            (true, _) if is_x86_feature_detected!("avxvnni") => Self::AvxVnni,
            (true, _) => Self::Avx2,
            _ => Self::Portable,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn detected() -> Self {
        Self::Portable
    }
}

/// The environment variable that holds the name of the best level to use.
const LIMIT: &str = "PRIMA_CPU";

/// The level that [`LIMIT`] allows, or what is wrong with it.
fn limit(value: Option<&str>) -> Result<Level, String> {
    let Some(value) = value else {
        return Ok(Level::Avx512Bf16);
    };
    let named = Level::ALL.into_iter().find(|level| level.name() == value);
    named.ok_or_else(|| {
        let names = Level::ALL.map(Level::name).join(", ");
        format!("{LIMIT}={value} is no kind of processor: leave it out or use one of {names}")
    })
}

/// What is wrong with the environment variable `PRIMA_CPU`, which limits the instructions that the kernels use
/// (`portable`, `avx2`, `avx-vnni`, `avx512`, `avx512-vnni`, `avx512-bf16`): to be asked before the first op, which panics with it.
pub fn check_processor_limit() -> Result<(), String> {
    limit(std::env::var(LIMIT).ok().as_deref()).map(drop)
}

/// The level that every kernel is chosen by: the processor's best, or less if the environment says so.
#[inline]
pub(crate) fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let limit = limit(std::env::var(LIMIT).ok().as_deref()).unwrap_or_else(|error| panic!("{error}"));
        limit.min(Level::detected())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_a_level_by_its_name() {
        assert_eq!(limit(None), Ok(Level::Avx512Bf16));
        for level in Level::ALL {
            assert_eq!(limit(Some(level.name())), Ok(level));
        }
        let error = limit(Some("sse9")).unwrap_err();
        assert!(error.contains("sse9") && error.contains("avx512-bf16"), "{error}");
    }

    /// Also what a run on another machine prints to show which kernels it was.
    #[test]
    fn the_level_is_the_best_that_the_processor_can_run_within_the_limit() {
        let features = crate::cpu_features();
        let has = |name: &str| features.contains(&name);
        let best = match () {
            () if !(has("avx2") && has("fma")) => Level::Portable,
            () if !has("avx512f") && has("avxvnni") => Level::AvxVnni,
            () if !has("avx512f") => Level::Avx2,
            () if !has("avx512vnni") => Level::Avx512,
            () if !has("avx512bf16") => Level::Avx512Vnni,
            () => Level::Avx512Bf16,
        };
        println!("level {} of {features:?}", level().name());
        assert_eq!(level(), best.min(limit(std::env::var(LIMIT).ok().as_deref()).unwrap()));
    }
}
