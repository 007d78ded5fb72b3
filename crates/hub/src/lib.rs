//! Models from the hub. [`pull`] gets what is needed of a repository into the hub's own cache, where `prima_checkpoint::hub`
//! and the hub's other tools find it: every file is resumed where it was cut off and checked against the hash that the hub
//! names before it is put in its place.
//!
//! ```no_run
//! # use prima_hub::*;
//! let wanted: Wanted = "stabilityai/sdxl-turbo".parse()?;
//! let pulled = pull(&wanted, &Settings::of_environment()?, &mut |_| {})?;
//! println!("{}", pulled.path.display());
//! # Ok::<(), Error>(())
//! ```

mod cache;
mod choose;
mod client;
mod digest;
mod download;
mod error;
mod event;
mod pull;
mod settings;
mod wanted;

pub use error::Error;
pub use event::Event;
pub use pull::{Pulled, PulledFile, pull};
pub use settings::Settings;
pub use wanted::{Variant, Wanted};
