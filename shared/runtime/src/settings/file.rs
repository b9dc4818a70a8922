//! The one file of settings: `goldleaves.toml` in the working directory, or the file that is named instead.

use std::path::Path;

use super::{FILE_NAME, Mistakes};

/// The variable that names another file than `./goldleaves.toml`. It is read from the environment alone.
pub(crate) const CONFIG_FILE: &str = "CONFIG_FILE";

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
        match std::fs::read_to_string(folder.join(FILE_NAME)) {
            Ok(text) => Ok(Some(Self { name: FILE_NAME.to_owned(), text })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Mistakes::one(FILE_NAME, format!("cannot be read: {error}"))),
        }
    }

    /// The file that `by` (an argument, a variable) names: it must be there.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn named(by: &str, path: &Path) -> Result<Self, Mistakes> {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self { name, text }),
            Err(error) => {
                let text =
                    format!("{name:?} cannot be read: {error}; expected the path of a file like goldleaves.toml");
                Err(Mistakes::one(by, text))
            }
        }
    }
}
