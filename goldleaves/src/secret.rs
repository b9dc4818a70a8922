//! The secret of the one process: the setting, else one made at the first start and kept in `DATA_DIR`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use goldleaves_auth::{JwtSettings, TokenOptions};
use goldleaves_runtime::Secret;
use uuid::Uuid;

const FILE_NAME: &str = "jwt-secret";

/// Returns what tokens are signed and verified with, and the file of the secret if it was made just now.
///
/// # Errors
/// The kept secret can't be read or made.
pub(crate) fn token_options(jwt: &JwtSettings, data_dir: &Path) -> Result<(TokenOptions, Option<PathBuf>)> {
    let (mut jwt, mut made) = (jwt.clone(), None);
    if jwt.secret.is_none() {
        let kept = kept(data_dir).with_context(|| format!("the secret in DATA_DIR {}", data_dir.display()))?;
        jwt.secret = Some(kept.secret);
        made = kept.made;
    }
    Ok((jwt.token_options(), made))
}

/// The secret in `DATA_DIR`.
struct KeptSecret {
    secret: Secret,
    /// Its file, if this process made it.
    made: Option<PathBuf>,
}

/// Reads the kept secret, or makes it. Two processes that start at once end up with the same one: it is linked into
/// place whole, and only where none is.
fn kept(data_dir: &Path) -> Result<KeptSecret> {
    fs::create_dir_all(data_dir).context("the directory can't be made")?;
    let path = data_dir.join(FILE_NAME);
    let mut made = None;
    if !path.exists() {
        let draft = data_dir.join(format!(".{FILE_NAME}.{}", Uuid::new_v4()));
        let placed = write_private(&draft).and_then(|()| match fs::hard_link(&draft, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => {
                made = Some(path.clone());
                linked
            }
        });
        // The draft is only a second name by now, or of no use.
        let _ = fs::remove_file(&draft);
        placed.with_context(|| format!("{} can't be made", path.display()))?;
        File::open(data_dir).and_then(|directory| directory.sync_all()).context("the directory can't be synced")?;
    }
    let text = fs::read_to_string(&path).with_context(|| format!("{} can't be read", path.display()))?;
    let secret = text.trim();
    ensure!(secret.len() >= 32, "{} is damaged; remove it, and a new one is made", path.display());
    Ok(KeptSecret { secret: Secret::new(secret.to_owned()), made })
}

fn write_private(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    // Two v4 UUIDs are 244 random bits from the system's generator.
    writeln!(file, "{}{}", Uuid::new_v4().as_simple(), Uuid::new_v4().as_simple())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn is_made_once_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("new");
        let first = kept(&data_dir).unwrap();
        assert_eq!((first.secret.expose().len(), first.made), (64, Some(data_dir.join(FILE_NAME))));
        let second = kept(&data_dir).unwrap();
        assert_eq!((second.secret.expose(), second.made), (first.secret.expose(), None));
        let mode = fs::metadata(data_dir.join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&data_dir).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn many_at_once_agree() {
        let directory = tempfile::tempdir().unwrap();
        let secrets: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| kept(directory.path()).unwrap().secret.expose().to_owned())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(secrets.windows(2).all(|pair| pair[0] == pair[1]), "{secrets:?}");
    }

    #[test]
    fn a_damaged_one_is_named() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE_NAME), "short").unwrap();
        assert!(kept(directory.path()).err().unwrap().to_string().contains(FILE_NAME));
    }
}
