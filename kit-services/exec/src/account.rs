//! Whom scripts run as.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

/// The search path of a login, as Debian's `/etc/profile` has it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Files of users and variables are read up to this size; real ones are far below.
const TABLE_BYTES: u64 = 4 << 20;

/// A user that the kit becomes to run a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: PathBuf,
}

impl Account {
    /// The account of this name (passwd(5), group(5)).
    pub fn named(name: &str) -> Option<Account> {
        read(&table("/etc/passwd"), &table("/etc/group"), name)
    }
}

fn read(passwd: &str, group: &str, name: &str) -> Option<Account> {
    let fields: Vec<&str> = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.len() >= 6 && fields[0] == name)?;
    let (uid, gid) = (fields[2].parse().ok()?, fields[3].parse().ok()?);
    let mut groups = vec![gid];
    for line in group.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, id, members, ..] = fields[..] else {
            continue;
        };
        if members.split(',').any(|member| member.trim() == name) {
            groups.extend(id.parse::<u32>());
        }
    }
    Some(Account {
        name: name.to_owned(),
        uid,
        gid,
        groups,
        home: fields[5].into(),
    })
}

/// The variables that every script has: those of a login, with `/etc/environment` over them where
/// the kit has a machine to itself.
pub fn environment(
    account: Option<&Account>,
    home: &std::path::Path,
    machine: bool,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::from([
        ("PATH".to_owned(), PATH.to_owned()),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
        (
            "HOME".to_owned(),
            account
                .map_or(home, |account| &account.home)
                .display()
                .to_string(),
        ),
    ]);
    if let Some(account) = account {
        variables.insert("USER".to_owned(), account.name.clone());
        variables.insert("LOGNAME".to_owned(), account.name.clone());
    }
    if machine {
        variables.extend(assignments(&table("/etc/environment")));
    }
    variables
}

/// The `NAME=value` lines of an environment file, as pam_env reads it.
fn assignments(text: &str) -> impl Iterator<Item = (String, String)> {
    text.lines().filter_map(|line| {
        let line = line.trim();
        let (name, value) = line
            .strip_prefix("export ")
            .unwrap_or(line)
            .split_once('=')?;
        let fine = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && name
                .bytes()
                .next()
                .is_some_and(|byte| !byte.is_ascii_digit());
        let value = ['"', '\'']
            .into_iter()
            .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote))
            .unwrap_or(value);
        fine.then(|| (name.to_owned(), value.to_owned()))
    })
}

fn table(path: &str) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        // a table that cannot be read is an empty one
        let _ = file.take(TABLE_BYTES).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_all_its_groups() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\nbroken\nuser:x:1000:1001:,,,:/home/user:/bin/zsh\n";
        let group = "root:x:0:\nsudo:x:27:other,user\nbad\n";
        let user = read(passwd, group, "user").unwrap();
        assert_eq!(
            (user.uid, user.gid, user.groups),
            (1000, 1001, vec![1001, 27])
        );
        assert_eq!(user.home, PathBuf::from("/home/user"));
        assert_eq!(read(passwd, group, "broken"), None);
    }
}
