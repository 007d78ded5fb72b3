//! Builds a data set and draws a contact sheet of its samples.
//!
//! `cargo run --release -p prima-train --example build_data -- --packages DIR --out DIR [--profile full]
//! [--photos TAR] [--pixel-art TGZ] [--sheet FILE.png]`

use prima_data::{BuildOptions, Composer, Profile, SIZE_PX, build};
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        arguments
            .iter()
            .position(|a| a == name)
            .and_then(|i| arguments.get(i + 1))
            .map(PathBuf::from)
    };
    let out = value("--out").ok_or("--out DIR is missing")?;
    let full = value("--profile").is_some_and(|p| p.as_os_str() == "full");
    if let Some(packages) = value("--packages") {
        let options = BuildOptions {
            packages,
            photos: value("--photos"),
            pixel_art: value("--pixel-art"),
            out: out.clone(),
            profile: if full { Profile::Full } else { Profile::Core },
            vocab_size: 4096,
            seed: 0,
        };
        let manifest = build(&options, &|done, total| eprint!("\r{done}/{total}"))?;
        eprintln!("\n{}", serde_json::to_string_pretty(&manifest)?);
    }
    if let Some(sheet) = value("--sheet") {
        let composer = Composer::open(&out, 0)?;
        let start = value("--start").and_then(|s| s.to_str()?.parse().ok()).unwrap_or(0);
        contact_sheet(&composer, start, &sheet)?;
    }
    Ok(())
}

/// Ten by eight samples; captions go to standard output. `--start` past 2^40 shows held-back pictures instead.
fn contact_sheet(composer: &Composer, start: u64, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let (columns, rows) = (10u32, 8u32);
    let mut sheet = image::RgbImage::new(columns * SIZE_PX, rows * SIZE_PX);
    let clock = std::time::Instant::now();
    for i in 0..columns * rows {
        let rgb = if start >= 1 << 40 {
            let noun = (start - (1 << 40)) as usize + (i / 2) as usize;
            println!("{}", composer.prompt(noun));
            if i % 2 == 0 {
                composer.held_back(noun, 0)?
            } else {
                composer.reference(noun, 0)?
            }
        } else {
            let sample = composer.sample(start + u64::from(i))?;
            println!("{}", sample.caption);
            sample.rgb
        };
        let tile = image::RgbImage::from_raw(SIZE_PX, SIZE_PX, rgb).ok_or("a sample has the wrong size")?;
        image::imageops::replace(
            &mut sheet,
            &tile,
            i64::from(i % columns * SIZE_PX),
            i64::from(i / columns * SIZE_PX),
        );
    }
    eprintln!(
        "{:.2} ms a sample",
        clock.elapsed().as_secs_f64() * 1e3 / f64::from(columns * rows)
    );
    sheet.save(path)?;
    Ok(())
}
