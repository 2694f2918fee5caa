//! Making way for a newer kit.
//!
//! The host replaces the kit's program under every container at once. A kit that notices ends as
//! soon as nobody would lose anything by it, and the service manager starts the new one.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Kit;

/// How often the program is looked at.
const LOOK: Duration = Duration::from_secs(10);

/// Which file a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Edition {
    inode: u64,
    changed: (i64, i64),
    size: u64,
}

impl Edition {
    fn of(program: &Path) -> Option<Edition> {
        let facts = std::fs::metadata(program).ok()?;
        Some(Edition {
            inode: facts.ino(),
            changed: (facts.mtime(), facts.mtime_nsec()),
            size: facts.size(),
        })
    }
}

/// Wait until there is another program at the path that this process was started from, and the kit
/// is idle.
pub async fn wanted(kit: &Kit, program: PathBuf) {
    let own = Edition::of(&program);
    loop {
        tokio::time::sleep(LOOK).await;
        // none is there while it is being replaced
        let is_other = Edition::of(&program).is_some_and(|now| own.is_some_and(|own| own != now));
        if is_other && kit.is_idle() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;

    #[tokio::test(start_paused = true)]
    async fn a_replaced_program_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("kitd");
        std::fs::write(&program, "one").unwrap();
        let kit = Kit::new(Settings::process(directory.path().to_owned()));
        let watching = wanted(&kit, program.clone());
        tokio::pin!(watching);
        let early = tokio::time::timeout(LOOK * 5, &mut watching).await;
        assert!(early.is_err(), "nothing changed yet");
        let next = directory.path().join("next");
        std::fs::write(&next, "another").unwrap();
        std::fs::rename(&next, &program).unwrap();
        watching.await;
    }
}
