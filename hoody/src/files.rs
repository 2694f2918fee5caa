//! Files and directories of a state directory.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Put `bytes` at `path` with this mode: whoever reads finds the old or the new, never a part.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    place(path, mode, |file| file.write_all(bytes))
}

/// Copy `from` to `path` in the same manner.
pub fn copy(from: &Path, path: &Path, mode: u32) -> anyhow::Result<()> {
    let mut source =
        fs::File::open(from).with_context(|| format!("could not open {}", from.display()))?;
    place(path, mode, |file| io::copy(&mut source, file).map(drop))
}

fn place(
    path: &Path,
    mode: u32,
    fill: impl FnOnce(&mut fs::File) -> io::Result<()>,
) -> anyhow::Result<()> {
    let draft = draft(path);
    let placed = (|| {
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&draft)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        fill(&mut file)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    })();
    if placed.is_err() {
        let _ = fs::remove_file(&draft); // it may not even be there
    }
    placed.with_context(|| format!("could not write {}", path.display()))
}

fn draft(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.draft", std::process::id()));
    path.with_file_name(name)
}

/// Make a directory where it is missing, and give it this mode in any case.
pub fn directory(path: &Path, mode: u32) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
        .with_context(|| format!("could not make the directory {}", path.display()))
}

/// Remove a file; nothing to do where there is none.
pub fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("could not remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
