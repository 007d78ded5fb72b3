//! `--cache` and `--max-memory`: where packed weights are kept, and how much memory a model may take; `prima models cache`.

use crate::out::{note, say};
use anyhow::Result;
use prima_checkpoint::PackedCache;
use prima_pipeline::{LoadOptions, Pipeline};
use prima_tensor::DType;
use std::io::{IsTerminal, stderr};
use std::path::PathBuf;
use std::time::SystemTime;

#[derive(clap::Args, Default)]
pub struct Args {
    #[command(flatten)]
    cache: CacheArgs,
    /// Most memory that the model and a picture may take, such as 2G; weights that do not fit are read from the cache for each
    /// step [default: what the machine has free]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_memory: Option<usize>,
}

#[derive(clap::Args, Default)]
pub struct CacheArgs {
    /// The folder that keeps the weights of large models as this processor multiplies with them, so that the next start is
    /// fast, or off [default: prima/packed in the user's cache folder]
    #[arg(long, value_name = "DIR|off", env = "PRIMA_CACHE")]
    cache: Option<PathBuf>,
}

impl CacheArgs {
    fn folder(&self) -> Option<PackedCache> {
        match &self.cache {
            None => PackedCache::of_user(),
            Some(folder) if folder.as_os_str() == "off" => None,
            Some(folder) => Some(PackedCache::new(folder)),
        }
    }
}

impl Args {
    pub fn options(&self, dtype: DType) -> LoadOptions {
        LoadOptions {
            cache: self.cache.folder(),
            max_memory: self.max_memory,
            ..LoadOptions::of(dtype)
        }
    }
}

/// Bytes, with K, M or G for powers of 1024.
fn size(text: &str) -> Result<usize, &'static str> {
    let told = "use a size such as 1500M or 2G";
    let (number, unit) = match text.trim_end_matches(['B', 'b', 'i']) {
        "" => return Err(told),
        text => match text.as_bytes()[text.len() - 1].to_ascii_uppercase() {
            b'K' => (&text[..text.len() - 1], 10),
            b'M' => (&text[..text.len() - 1], 20),
            b'G' => (&text[..text.len() - 1], 30),
            _ => (text, 0),
        },
    };
    let number: f64 = number.trim().parse().map_err(|_| told)?;
    let bytes = number * f64::from(1u32 << unit);
    if bytes >= 1.0 && bytes < 2f64.powi(53) {
        Ok(bytes as usize)
    } else {
        Err(told)
    }
}

/// Keeps the packed weights for the next start. That it cannot is no failure of what was asked for.
pub fn store(pipeline: &Pipeline) {
    match pipeline.store_packed() {
        Ok(0) => {}
        Ok(bytes) if stderr().is_terminal() => note!(
            "{} of packed weights are kept for the next start (prima models cache lists them)",
            gigabytes(bytes)
        ),
        Ok(_) => {}
        Err(error) => note!("the packed weights are not kept for the next start (--cache off does not try): {error}"),
    }
}

/// `prima models cache`.
pub fn show(args: &CacheArgs, clear: bool) -> Result<()> {
    let Some(cache) = args.folder() else {
        say!("there is no cache of packed weights");
        return Ok(());
    };
    let folder = cache.folder().display();
    if clear {
        let bytes = cache.clear()?;
        say!("removed {} from {folder}", gigabytes(bytes));
        return Ok(());
    }
    let entries = cache.entries();
    for entry in &entries {
        let mut made_of: Vec<&str> = entry.identity.lines().collect();
        let kernels = made_of.split_off(made_of.len().saturating_sub(2)).join(", ");
        let unused = SystemTime::now().duration_since(entry.used).unwrap_or_default();
        say!(
            "{:>9}  used {:>4} days ago  {}: {kernels}",
            gigabytes(entry.bytes),
            unused.as_secs() / 86400,
            made_of.join(" ")
        );
    }
    let total = entries.iter().map(|entry| entry.bytes).sum();
    say!("{:>9}  in {folder}", gigabytes(total));
    Ok(())
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.2} GB", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let known = [
            ("4096", 4096),
            ("1K", 1024),
            ("1500M", 1500 << 20),
            ("2g", 2 << 30),
            ("1.5GiB", 3 << 29),
        ];
        for (text, bytes) in known {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "G", "two", "-1G", "0", "1e40", "1T2"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
