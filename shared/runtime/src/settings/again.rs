//! Settings that are read more than once: how, and what has changed since.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::file::File;
use super::mistakes::{Mistake, Mistakes};
use super::table::{self, Setting};
use super::values::Values;

/// A file that is being written is looked at so often, with so long in between, until it is the same twice.
const LOOKS_MAX: usize = 40;
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Settings in which two programs differ that serve the same.
const OWN: [Setting; 5] =
    [table::GATEWAY_ADDR, table::BILLING_ADDR, table::OPS_ADDR, table::DATA_DIR, table::SPOOL_STAGE_DIR];

type Open = Arc<dyn Fn() -> Result<Option<File>, Mistakes> + Send + Sync>;
type Load = Arc<dyn Fn(Option<File>) -> Values + Send + Sync>;

/// Reads the settings of a process again: the environment of its start, over a file.
#[derive(Clone)]
pub struct Again {
    open: Open,
    load: Load,
    path: PathBuf,
}

/// Hashes of what settings were, to see which have changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fingerprints(BTreeMap<&'static str, [u8; 32]>);

impl Again {
    /// With what reads the file at this path, if there is one, and what makes settings of it.
    pub(crate) fn new(
        path: PathBuf,
        open: impl Fn() -> Result<Option<File>, Mistakes> + Send + Sync + 'static,
        load: impl Fn(Option<File>) -> Values + Send + Sync + 'static,
    ) -> Self {
        Self { open: Arc::new(open), load: Arc::new(load), path }
    }

    /// The file as it is now, once it is the same twice: half of what somebody is writing may be valid, too. It takes a
    /// moment, and wants a thread that may wait.
    ///
    /// # Errors
    /// The file can't be read, or changes all the time.
    pub(crate) fn settled_file(&self) -> Result<Option<File>, Mistakes> {
        let mut last = (self.open)()?;
        for _ in 0..LOOKS_MAX {
            std::thread::sleep(LOOK_PAUSE);
            let now = (self.open)()?;
            if now == last {
                return Ok(now);
            }
            last = now;
        }
        let text = "is being written all the time; expected the same content twice".to_owned();
        Err(Mistakes::one(self.path.display().to_string(), text))
    }

    /// The settings over this file.
    pub fn values(&self, file: Option<File>) -> Values {
        (self.load)(file).after_pipes()
    }

    /// Where the file is, or would be.
    pub fn path(&self) -> &PathBuf {
        &self.path
    }
}

impl fmt::Debug for Again {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Again").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Values {
    /// Returns the fingerprints of what was read so far.
    pub fn fingerprints(&self) -> Fingerprints {
        Fingerprints(self.digests().clone())
    }

    /// A hash of everything that was read so far, secrets and what each program has for itself left out: programs that
    /// serve by the same settings have the same.
    pub(crate) fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        let is_shared = |setting: &Setting| setting.file().is_none() && !OWN.contains(setting);
        for reading in self.readings().filter(|reading| is_shared(&reading.setting)) {
            hash.update(reading.setting.name.as_bytes());
            hash.update(self.digests().get(reading.setting.name).copied().unwrap_or_default());
        }
        hash.finalize().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    }

    /// Notes each setting that is another than before and that a running program cannot take.
    pub fn refuse_changes(&mut self, before: &Fingerprints, is_fixed: impl Fn(&Setting) -> bool) {
        let now = self.fingerprints();
        let fixed = table::ALL.iter().filter(|setting| is_fixed(setting));
        for setting in fixed.filter(|setting| before.0.get(setting.name) != now.0.get(setting.name)) {
            let text = "has changed, which takes a restart; expected what it was at the start".to_owned();
            self.note(Mistake { subject: setting.name.to_owned(), text });
        }
    }
}
