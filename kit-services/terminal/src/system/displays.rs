//! The X servers of the machine, by their sockets.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use super::processes::Machine;

/// Displays that are told of; more than a machine has.
const MAX_DISPLAYS: usize = 1024;

/// An X server that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Display {
    /// Its number: 1 for `:1`.
    pub display: u32,
    /// Whose it is.
    pub user: String,
    /// Programs that are connected to it.
    pub connected_clients: usize,
}

/// The displays whose sockets are in this directory, by number. A socket that a server left behind
/// is none.
pub fn list(directory: &Path) -> Vec<Display> {
    let machine = Machine::look();
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let mut displays: Vec<Display> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let number = number(entry.file_name().to_str()?)?;
            let meta = entry
                .metadata()
                .ok()
                .filter(|meta| meta.file_type().is_socket())?;
            let clients = clients(&table, entry.path().to_str()?)?;
            Some(Display {
                display: number,
                user: machine.user(meta.uid()),
                connected_clients: clients,
            })
        })
        .take(MAX_DISPLAYS)
        .collect();
    displays.sort_by_key(|display| display.display);
    displays
}

/// Whether an X server answers for this display: `:1` or `:1.0`.
pub fn is_up(directory: &Path, display: &str) -> bool {
    let number = display.trim_start_matches(':').split('.').next();
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    number.is_some_and(|number| {
        let path = directory.join(format!("X{number}"));
        path.to_str()
            .is_some_and(|path| clients(&table, path).is_some())
    })
}

/// The number of a display whose socket is called `X1`.
fn number(name: &str) -> Option<u32> {
    let digits = name.strip_prefix('X')?;
    digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| digits.parse().ok())
        .flatten()
}

/// How many are connected to the socket of this path, by the table of `/proc/net/unix`: none where
/// nobody listens there. X servers listen at the abstract name of the same path too.
fn clients(table: &str, path: &str) -> Option<usize> {
    const LISTENS: &str = "00010000";
    const CONNECTED: &str = "03";
    let (mut listens, mut connected) = (false, 0);
    for line in table.lines() {
        // Num RefCount Protocol Flags Type St Inode Path
        let mut fields = line.split_ascii_whitespace();
        let (Some(flags), Some(state)) = (fields.nth(3), fields.nth(1)) else {
            continue;
        };
        let name = fields.nth(1).unwrap_or_default();
        if name.strip_prefix('@').unwrap_or(name) != path {
            continue;
        }
        listens |= flags == LISTENS;
        connected += usize::from(state == CONNECTED);
    }
    listens.then_some(connected)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn servers_that_answer_are_told_with_their_clients() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let listener = UnixListener::bind(path("X7")).unwrap();
        let _clients = [(); 2].map(|()| {
            let client = UnixStream::connect(path("X7")).unwrap();
            (client, listener.accept().unwrap())
        });
        drop(UnixListener::bind(path("X8")).unwrap());
        fs::write(path("X9"), "").unwrap();
        let _other = UnixListener::bind(path("Y1")).unwrap();
        let found = list(directory.path());
        assert_eq!(
            found
                .iter()
                .map(|found| (found.display, found.connected_clients))
                .collect::<Vec<_>>(),
            [(7, 2)]
        );
        assert_eq!(found[0].user, accounts::Account::current().name);
        assert_eq!(list(Path::new("/no/such/directory")), []);
        let up = |display| is_up(directory.path(), display);
        assert!(up(":7") && up(":7.0") && !up(":8") && !up(":9") && !up(":"));
    }

    #[test]
    fn names_are_numbers() {
        assert_eq!(number("X0"), Some(0));
        assert_eq!(number("X1600"), Some(1600));
        for wrong in ["X", "X-1", "X1.0", "X99999999999", "1", "XX1"] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
    }
}
