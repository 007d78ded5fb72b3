//! 8-bit pictures: reading and writing files, what a file says of its making, resizing, contact sheets.

mod error;
mod parameters;
mod read;
mod sheet;
mod write;

pub use error::Error;
pub use parameters::Parameters;
pub use read::read_parameters;
pub use sheet::contact_sheet;
pub use write::{Format, QUALITY, encode, encode_gif, encode_png};

/// An 8-bit RGB picture, row by row from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    pub width: usize,
    pub height: usize,
    /// `height * width * 3` bytes.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// The same picture at another size (Lanczos).
    #[must_use]
    pub fn resized(&self, width: usize, height: usize) -> Self {
        if (width, height) == (self.width, self.height) {
            return self.clone();
        }
        let buffer = image::RgbImage::from_raw(self.width as u32, self.height as u32, self.rgb.clone());
        let buffer = buffer.unwrap_or_default();
        let filter = image::imageops::FilterType::Lanczos3;
        let rgb = image::imageops::resize(&buffer, width as u32, height as u32, filter).into_raw();
        Self { width, height, rgb }
    }
}
