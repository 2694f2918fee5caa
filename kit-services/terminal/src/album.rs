//! Pictures that are kept.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::id::TerminalId;
use accounts::Account;

/// Pictures that are kept, all terminals together; the oldest make way.
const KEPT: usize = 100;

/// Keep a picture as a file of `account`; where it is. The directory is this service's own.
pub fn keep(
    directory: &Path,
    account: &Account,
    terminal: TerminalId,
    ending: &str,
    bytes: &[u8],
) -> io::Result<PathBuf> {
    const LIST: u32 = 0o755;
    if !directory.is_dir() {
        fs::create_dir_all(directory)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(LIST))?;
    }
    let now = Timestamp::now().strftime("%Y%m%dT%H%M%S.%6f");
    let path = directory.join(format!("{now}-terminal-{terminal}.{ending}"));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    if let Err(error) = file.write_all(bytes) {
        // Half a picture is none.
        let _ = fs::remove_file(&path);
        return Err(error);
    }
    if account.is_other() {
        std::os::unix::fs::fchown(&file, Some(account.uid), Some(account.gid))?;
    }
    forget_old(directory);
    Ok(path)
}

/// Remove all but the newest; their names begin with when they were made.
fn forget_old(directory: &Path) {
    let mut pictures: Vec<PathBuf> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    pictures.sort();
    let surplus = pictures.len().saturating_sub(KEPT);
    for path in &pictures[..surplus] {
        // Somebody else removed it, or will at the next picture.
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let album = directory.path().join("album");
        let account = Account::current();
        let terminal = TerminalId::new(3).unwrap();
        let mut last = PathBuf::new();
        for number in 0..KEPT + 5 {
            last = keep(&album, &account, terminal, "png", &[number as u8]).unwrap();
        }
        assert_eq!(fs::read_dir(&album).unwrap().count(), KEPT);
        assert_eq!(fs::read(last).unwrap(), [(KEPT + 4) as u8]);
    }
}
