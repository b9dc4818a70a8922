//! Settings that are read more than once: how, and what has changed since.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::mistakes::{Mistake, Mistakes};
use super::table::Setting;
use super::values::Values;

/// Reads the settings of a process again: the environment of its start, over the file as it is then.
#[derive(Clone)]
pub struct Again {
    read: Arc<dyn Fn() -> Result<Values, Mistakes> + Send + Sync>,
    file: Option<PathBuf>,
}

/// What settings were, to see which have changed. Holds no value.
#[derive(Debug, Clone, Default)]
pub struct Fingerprints(BTreeMap<&'static str, [u8; 32]>);

impl Again {
    /// With what reads them, and the file that is read if there is one.
    pub fn new(read: impl Fn() -> Result<Values, Mistakes> + Send + Sync + 'static, file: Option<PathBuf>) -> Self {
        Self { read: Arc::new(read), file }
    }

    /// The settings as they are now.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn values(&self) -> Result<Values, Mistakes> {
        (self.read)()
    }

    /// The file.
    pub fn file(&self) -> Option<&PathBuf> {
        self.file.as_ref()
    }
}

impl fmt::Debug for Again {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Again").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Values {
    /// What settings were read so far.
    pub fn fingerprints(&self) -> Fingerprints {
        let of = |setting: Setting| {
            let file = setting.file().and_then(|(_, key)| self.raw(key));
            Sha256::digest(format!("{:?} {file:?}", self.raw(setting.key)).as_bytes()).into()
        };
        Fingerprints(self.readings().map(|reading| (reading.setting.name, of(reading.setting))).collect())
    }

    /// A hash of everything that was read so far, secrets left out: programs that are told the same have the same.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        for reading in self.readings() {
            let value = reading.setting.file().map_or_else(|| self.raw(reading.setting.key), |_| reading.shown.clone());
            hash.update(format!("{}={value:?}\n", reading.setting.name).as_bytes());
        }
        hash.finalize().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    }

    /// Notes each of these settings that was read before and is another now: a running program cannot take it.
    pub fn refuse_changes(&mut self, before: &Fingerprints, fixed: &[Setting]) {
        let now = self.fingerprints();
        for setting in fixed {
            if before.0.get(setting.name) != now.0.get(setting.name) {
                let text = "has changed, which takes a restart; expected what it was at the start".to_owned();
                self.note(Mistake { subject: setting.name.to_owned(), text });
            }
        }
    }
}
