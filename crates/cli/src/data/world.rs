//! What the scene generator draws, says, and the words of that.

use crate::out::say;
use anyhow::{Context, Result};
use prima_checkpoint::export::write_bytes;
use prima_data::tokenizer_of;
use prima_data::world::{Kind, Sources, World, sheet};
use prima_picture::{Format, QUALITY, encode};
use std::path::PathBuf;

/// What the scene generator draws from.
#[derive(clap::Args)]
pub struct WorldArgs {
    /// Folder with the model pack
    #[arg(long, value_name = "DIR", default_value = "assets/models3d")]
    models: PathBuf,
    /// Folder with the .tgz files of `npm pack`, for icons
    #[arg(long, value_name = "DIR")]
    packages: Option<PathBuf>,
    /// Archive (.tar) of photographs with a labels.jsonl
    #[arg(long, value_name = "FILE")]
    photos: Option<PathBuf>,
    /// Archive (.tar.gz) of pixel-art tiles
    #[arg(long, value_name = "FILE")]
    pixel_art: Option<PathBuf>,
    /// Only these nouns, separated by commas
    #[arg(long, value_name = "NOUNS", value_delimiter = ',')]
    only: Vec<String>,
    /// Share, 0 to 1, of the nouns with a glossy icon in the packages that are shown as it
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    glossy_share: f32,
}

impl WorldArgs {
    pub fn open(&self) -> Result<World> {
        let sources = Sources {
            packages: self.packages.clone(),
            photos: self.photos.clone(),
            pixel_art: self.pixel_art.clone(),
            glossy_share: self.glossy_share,
            nouns: self.only.clone(),
            ..Sources::new(self.models.clone())
        };
        Ok(sources.open()?)
    }
}

#[derive(clap::Args)]
pub struct CaptionsArgs {
    #[command(flatten)]
    world: WorldArgs,
    /// How many pictures to caption; the list is shorter, as captions come again
    #[arg(long, value_name = "N", default_value_t = 60_000)]
    count: u64,
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Text file to write, a caption a line
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(clap::Args)]
pub struct WordsArgs {
    /// Text file, a text a line: captions, and words that they do not have
    #[arg(long, value_name = "FILE")]
    texts: PathBuf,
    /// Folder to write, the `data_dir` of a run; made if it is not there
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Entries of the tokenizer
    #[arg(long, value_name = "N", default_value_t = 12_288)]
    vocab_size: usize,
}

#[derive(clap::Args)]
pub struct SheetArgs {
    #[command(flatten)]
    world: WorldArgs,
    /// What to draw; the training mix if not given
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// How many pictures
    #[arg(long, value_name = "N", default_value_t = 32)]
    count: usize,
    /// Pictures in a row
    #[arg(long, value_name = "N", default_value_t = 8)]
    columns: usize,
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// PNG file to write
    #[arg(long, value_name = "FILE", default_value = "sheet.png")]
    out: PathBuf,
    /// Write the captions to a text file beside the sheet
    #[arg(long)]
    captions: bool,
    /// List the kinds and stop
    #[arg(long)]
    list: bool,
    /// List the nouns, each with its number of models, and stop
    #[arg(long)]
    nouns: bool,
}

pub fn run_sheet(args: &SheetArgs) -> Result<()> {
    if args.list {
        for kind in Kind::all() {
            say!("{}", kind.name());
        }
        return Ok(());
    }
    let world = args.world.open()?;
    if args.nouns {
        for (noun, models) in world.nouns() {
            say!("{noun}\t{models}");
        }
        return Ok(());
    }
    let kind = args.kind.as_deref().map(Kind::from_name).transpose()?;
    let drawn = sheet(&world, kind, args.seed, args.count, args.columns);
    let png = encode(&drawn.picture, Format::Png, QUALITY, None)?;
    write_bytes(&args.out, &png)?;
    if args.captions {
        let path = args.out.with_extension("txt");
        write_bytes(&path, (drawn.captions.join("\n") + "\n").as_bytes())?;
    }
    say!(
        "{}: {} pictures, {:.1} ms each on one core",
        args.out.display(),
        args.count,
        drawn.sample_ms
    );
    Ok(())
}

pub fn run_captions(args: &CaptionsArgs) -> Result<()> {
    let captions = args.world.open()?.captions(args.seed, args.count);
    write_bytes(&args.out, (captions.join("\n") + "\n").as_bytes())?;
    say!("{}: {} different captions", args.out.display(), captions.len());
    Ok(())
}

pub fn run_words(args: &WordsArgs) -> Result<()> {
    let texts =
        std::fs::read_to_string(&args.texts).with_context(|| format!("cannot read {}", args.texts.display()))?;
    let bpe = tokenizer_of(texts.lines(), args.vocab_size)?;
    bpe.write(&args.out.join("tokenizer"))?;
    say!("{}: {} entries", args.out.join("tokenizer").display(), bpe.vocab.len());
    Ok(())
}
