//! The one file of settings: `goldleaves.toml` in the working directory, or the file that is named instead.

use std::io;
use std::path::Path;

use super::{FILE_NAME, Mistakes};
use crate::files::{Pipes, read_file, read_file_or_pipe};

/// The variable that names another file than `./goldleaves.toml`. It is read from the environment alone.
pub(crate) const CONFIG_FILE: &str = "CONFIG_FILE";

/// The most bytes that a file of settings may have: ten thousand routes with all their keys have less.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A file of settings, read but not yet understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The name that mistakes and `check-config` use.
    pub name: String,
    /// Its TOML.
    pub text: String,
}

impl File {
    /// The file `goldleaves.toml` of a folder, `None` when there is none.
    ///
    /// # Errors
    /// It is there but cannot be read.
    pub(crate) fn in_folder(folder: &Path) -> Result<Option<Self>, Mistakes> {
        match read_file(&folder.join(FILE_NAME), FILE_BYTES_MAX).and_then(text) {
            Ok(text) => Ok(Some(Self { name: FILE_NAME.to_owned(), text })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Mistakes::one(FILE_NAME, format!("cannot be read: {error}"))),
        }
    }

    /// The file that `by` (an argument, a variable) names: it must be there.
    ///
    /// # Errors
    /// It cannot be read, or is no regular file.
    pub(crate) fn named(by: &str, path: &Path, pipes: Pipes) -> Result<Self, Mistakes> {
        let name = path.display().to_string();
        match read_file_or_pipe(path, FILE_BYTES_MAX, pipes).and_then(text) {
            Ok(text) => Ok(Self { name, text }),
            Err(error) => {
                let text =
                    format!("{name:?} cannot be read: {error}; expected the path of a file like goldleaves.toml");
                Err(Mistakes::one(by, text))
            }
        }
    }
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it does not hold UTF-8"))
}
