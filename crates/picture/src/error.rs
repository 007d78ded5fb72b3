/// What can go wrong with a picture's file. One sentence each.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{name} is not a picture that prima can read (PNG, JPEG or WebP): {reason}")]
    NotAPicture { name: String, reason: String },
    #[error("what the file says of its making cannot be read: {message}")]
    Metadata { message: String },
    #[error("PNG: {message}")]
    Png { message: String },
    /// A picture that a format cannot hold: WebP and JPEG bound the sides.
    #[error("a picture of {width}x{height} px could not be written: {reason}")]
    Encode {
        width: usize,
        height: usize,
        reason: String,
    },
}
