//! The users of the machine, and what a login gives them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kit::Fault;

/// A user as `/etc/passwd` and `/etc/group` have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// All groups, the primary one included.
    pub groups: Vec<u32>,
    pub home: PathBuf,
    pub shell: PathBuf,
}

/// Why a program cannot be run as somebody.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error("no user `{name}` in this machine; `getent passwd` lists them")]
    NoSuchUser { name: String },
    #[error("this kit runs as `{current}` and cannot start programs as `{name}`")]
    CannotBecome { name: String, current: String },
}

impl From<AccountError> for Fault {
    fn from(error: AccountError) -> Fault {
        match error {
            AccountError::NoSuchUser { .. } => {
                Fault::bad_request(error.to_string()).code("UNKNOWN_USER")
            }
            AccountError::CannotBecome { .. } => {
                Fault::forbidden(error.to_string()).code("CANNOT_SWITCH_USER")
            }
        }
    }
}

/// The search path of a login, as Debian's `/etc/profile` has it with the administrator's part.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Files of users and groups are read up to this size; real ones are far below.
const MAX_TABLE_BYTES: u64 = 4 << 20;

impl Account {
    /// The account that `wanted` names; else, where this process may become others, `default`;
    /// else whoever this process is.
    pub fn choose(wanted: Option<&str>, default: &str) -> Result<Account, AccountError> {
        let current = Account::current();
        let may_switch = current.uid == 0;
        match wanted.filter(|name| !name.is_empty()) {
            Some(name) if name == current.name => Ok(current),
            Some(name) => {
                let account = Account::named(name).ok_or_else(|| AccountError::NoSuchUser {
                    name: shorten(name),
                })?;
                if may_switch || account.uid == current.uid {
                    Ok(account)
                } else {
                    Err(AccountError::CannotBecome {
                        name: account.name,
                        current: current.name,
                    })
                }
            }
            None if may_switch => Ok(Account::named(default).unwrap_or(current)),
            None => Ok(current),
        }
    }

    /// The account of this name.
    pub fn named(name: &str) -> Option<Account> {
        passwd(&table("/etc/passwd"), &table("/etc/group"), |account| {
            account.name == name
        })
    }

    /// Whoever this process is, whether the machine has a name for it or not.
    pub fn current() -> Account {
        let uid = rustix::process::geteuid().as_raw();
        passwd(&table("/etc/passwd"), &table("/etc/group"), |account| {
            account.uid == uid
        })
        .unwrap_or_else(|| {
            let gid = rustix::process::getegid().as_raw();
            Account {
                name: uid.to_string(),
                uid,
                gid,
                groups: vec![gid],
                home: PathBuf::from("/"),
                shell: PathBuf::from("/bin/sh"),
            }
        })
    }

    /// Whether programs of this account need this process to become another.
    pub fn is_other(&self) -> bool {
        self.uid != rustix::process::geteuid().as_raw()
    }

    /// Where a login looks for programs, with `extra` over its environment.
    pub fn search_path(&self, extra: &BTreeMap<String, String>) -> String {
        self.environment(extra).remove("PATH").unwrap_or_default()
    }

    /// The environment of a login: `/etc/environment` over the usual names, `extra` over both.
    pub fn environment(&self, extra: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let home = self.home.to_string_lossy();
        let shell = self.shell.to_string_lossy();
        let mut environment: BTreeMap<String, String> = [
            ("PATH", PATH),
            ("HOME", &home),
            ("USER", &self.name),
            ("LOGNAME", &self.name),
            ("SHELL", &shell),
            ("TERM", "xterm-256color"),
            ("COLORTERM", "truecolor"),
            ("LANG", "C.UTF-8"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        let runtime = format!("/run/user/{}", self.uid);
        if Path::new(&runtime).is_dir() {
            environment.insert("XDG_RUNTIME_DIR".to_owned(), runtime);
        }
        environment.extend(machine_variables());
        environment.extend(
            extra
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        environment
    }
}

/// Where a machine has the variables of every login (pam_env(8)).
pub const VARIABLES: &str = "/etc/environment";

/// The variables that every login of the machine has.
pub fn machine_variables() -> BTreeMap<String, String> {
    assignments(&table(VARIABLES)).collect()
}

fn shorten(name: &str) -> String {
    const SHOWN: usize = 64;
    name.chars()
        .take(SHOWN)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

fn table(path: &str) -> String {
    use std::io::Read;
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        // A table that cannot be read is an empty one: the account is then not found.
        let _ = file.take(MAX_TABLE_BYTES).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The first account of a passwd file (passwd(5)) that fits.
fn passwd(passwd: &str, group: &str, fits: impl Fn(&Account) -> bool) -> Option<Account> {
    passwd
        .lines()
        .filter_map(entry)
        .find(fits)
        .map(|mut account| {
            account.groups = groups(group, &account.name, account.gid);
            account
        })
}

fn entry(line: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let name = fields
        .next()
        .filter(|name| !name.is_empty() && !name.starts_with(['+', '-', '#']))?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = fields
        .nth(1)
        .filter(|home| home.starts_with('/'))
        .unwrap_or("/");
    let shell = fields
        .next()
        .filter(|shell| !shell.is_empty())
        .unwrap_or("/bin/sh");
    Some(Account {
        name: name.to_owned(),
        uid,
        gid,
        groups: Vec::new(),
        home: PathBuf::from(home),
        shell: PathBuf::from(shell),
    })
}

/// The groups of a user (group(5)), the primary one first.
fn groups(group: &str, name: &str, primary: u32) -> Vec<u32> {
    let mut groups = vec![primary];
    for line in group.lines() {
        let mut fields = line.split(':');
        let gid = fields.nth(2).and_then(|gid| gid.parse().ok());
        let members = fields.next().unwrap_or_default();
        if let Some(gid) = gid
            && gid != primary
            && members.split(',').any(|member| member.trim() == name)
        {
            groups.push(gid);
        }
    }
    groups
}

/// The `NAME=value` lines of an environment file, as pam_env reads `/etc/environment`.
fn assignments(text: &str) -> impl Iterator<Item = (String, String)> + '_ {
    text.lines().filter_map(|line| {
        let line = line.trim();
        let (name, value) = line
            .strip_prefix("export ")
            .unwrap_or(line)
            .split_once('=')?;
        let value = ['"', '\'']
            .into_iter()
            .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote))
            .unwrap_or(value);
        is_variable(name).then(|| (name.to_owned(), value.to_owned()))
    })
}

/// Whether this can name a variable in every shell.
pub fn is_variable(name: &str) -> bool {
    name.bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n+nis::::::\nbroken\nuser:x:1000:1000:,,,:/home/user:/bin/zsh\nbare:x:5:5:::\n";
    const GROUP: &str = "root:x:0:\nsudo:x:27:other,user\nuser:x:1000:user\naudio:x:29:user\nbad\n";

    #[test]
    fn accounts_are_read_with_all_their_groups() {
        let user = passwd(PASSWD, GROUP, |account| account.name == "user").unwrap();
        assert_eq!((user.uid, user.gid), (1000, 1000));
        assert_eq!(user.groups, [1000, 27, 29]);
        assert_eq!(user.shell, PathBuf::from("/bin/zsh"));
        let bare = passwd(PASSWD, GROUP, |account| account.name == "bare").unwrap();
        assert_eq!(
            (bare.home, bare.shell),
            (PathBuf::from("/"), PathBuf::from("/bin/sh"))
        );
        for wrong in ["nobody-here", "broken", "+nis", ""] {
            assert_eq!(
                passwd(PASSWD, GROUP, |account| account.name == wrong),
                None,
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_user_has_all_its_groups() {
        let users =
            "root:x:0:0:root:/root:/bin/bash\nbroken\nuser:x:1000:1001:,,,:/home/user:/bin/zsh\n";
        let group = "root:x:0:\nsudo:x:27:other,user\nbad\n";
        let named = |name: &str| passwd(users, group, |account| account.name == name);
        let user = named("user").unwrap();
        assert_eq!(
            (user.uid, user.gid, user.groups),
            (1000, 1001, vec![1001, 27])
        );
        assert_eq!(user.home, PathBuf::from("/home/user"));
        assert_eq!(named("broken"), None);
    }

    #[test]
    fn environment_files_are_read_as_at_login() {
        let read: Vec<_> =
            assignments("# comment\nA=1\nexport B=\"two words\"\n C='x' \n1D=no\nno\n").collect();
        let want = [("A", "1"), ("B", "two words"), ("C", "x")];
        assert_eq!(
            read,
            want.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }
}
