//! The one place where a model's files are opened: only regular files are, and what is read whole is bounded.

use crate::Error;
use std::fs::{File, FileType, OpenOptions};
use std::io::Read;
use std::path::Path;

/// Largest file that is read whole: configs, tokenizers, shard indexes. The largest of the hub are a tenth of it.
pub(crate) const MAX_SMALL_BYTES: u64 = 64 << 20;

/// Opens a regular file, or a link to one, and tells its length in bytes. A FIFO, a device, a socket or a directory is
/// refused by its kind; none of them is waited for.
pub(crate) fn open_regular(path: &Path) -> Result<(File, u64), Error> {
    let mut options = OpenOptions::new();
    options.read(true);
    // Without it, opening a FIFO waits for a writer. It changes nothing for regular files.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    // A device may act when it is opened: it is refused before.
    let refused = std::fs::metadata(path).map_err(Error::io("open", path))?.file_type();
    let kind = |file_type: FileType| Error::Kind {
        path: path.to_path_buf(),
        kind: kind_of(file_type),
    };
    if !refused.is_file() {
        return Err(kind(refused));
    }
    let file = options.open(path).map_err(Error::io("open", path))?;
    let metadata = file.metadata().map_err(Error::io("open", path))?;
    if !metadata.is_file() {
        return Err(kind(metadata.file_type()));
    }
    Ok((file, metadata.len()))
}

/// A whole file of at most 64 MiB.
pub(crate) fn read_small(path: &Path) -> Result<Vec<u8>, Error> {
    let (file, length) = open_regular(path)?;
    let too_large = || Error::File {
        file: path.display().to_string(),
        message: format!(
            "is larger than the {} MiB that such a file may have",
            MAX_SMALL_BYTES >> 20
        ),
    };
    if length > MAX_SMALL_BYTES {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(MAX_SMALL_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::io("read", path))?;
    // It may have grown since.
    if bytes.len() as u64 > MAX_SMALL_BYTES {
        return Err(too_large());
    }
    Ok(bytes)
}

/// What is not a regular file, in a word.
pub(crate) fn kind_of(file_type: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if file_type.is_fifo() {
            return "a FIFO";
        }
        if file_type.is_socket() {
            return "a socket";
        }
        if file_type.is_char_device() || file_type.is_block_device() {
            return "a device";
        }
    }
    if file_type.is_dir() {
        "a directory"
    } else {
        "no regular file"
    }
}
