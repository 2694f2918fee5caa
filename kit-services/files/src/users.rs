//! Names of users and groups, as the computer under the root knows them.

use std::io::Read;

use kit::Fault;
use rustix::fs::OFlags;

use crate::jail::{Links, Owner, Root, privileged};
use crate::path::FilePath;

/// Largest file of users or groups that is read.
const TABLE_BYTES: u64 = 1 << 20;

/// Which of the two files.
#[derive(Clone, Copy)]
enum Table {
    Users,
    Groups,
}

impl Table {
    const fn path(self) -> &'static str {
        match self {
            Table::Users => "etc/passwd",
            Table::Groups => "etc/group",
        }
    }
    const fn noun(self) -> &'static str {
        match self {
            Table::Users => "user",
            Table::Groups => "group",
        }
    }
}

/// Whom an `owner` or `chown` parameter names; none keeps what is.
#[derive(Debug, PartialEq, Eq)]
pub struct Named {
    pub user: Option<u32>,
    pub group: Option<u32>,
}

/// The name of a user, or its number where it has none.
pub fn user_name(root: &Root, id: u32) -> String {
    name(root, Table::Users, id)
}

/// The name of a group, or its number where it has none.
pub fn group_name(root: &Root, id: u32) -> String {
    name(root, Table::Groups, id)
}

fn name(root: &Root, table: Table, id: u32) -> String {
    let number = id.to_string();
    read(root, table)
        .lines()
        .map(fields)
        .find(|line| line.get(2) == Some(&number.as_str()))
        .and_then(|line| line.first().map(|name| (*name).to_owned()))
        .unwrap_or(number)
}

/// `user`, `user:group`, `user:` (the user's own group) or `:group`, each a name or a number.
/// Root is refused: who can reach this service should not be able to make a file run as root.
pub fn parse(root: &Root, text: &str) -> Result<Named, Fault> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    if user.is_empty() && group.is_none_or(str::is_empty) {
        return Err(Fault::bad_request(
            "name an owner: user, user:group, :group, or their numbers",
        ));
    }
    let found = if user.is_empty() {
        None
    } else {
        Some(look_up(root, Table::Users, user)?)
    };
    let group = match (group, found) {
        (Some(""), Some((_, own))) => Some(own.ok_or_else(|| {
            Fault::bad_request(format!("user {user} has no group of its own; name one"))
        })?),
        (Some(group), _) => Some(look_up(root, Table::Groups, group)?.0),
        (None, _) => None,
    };
    let named = Named {
        user: found.map(|(id, _)| id),
        group,
    };
    if named.user == Some(0) {
        return Err(Fault::bad_request(
            "the owner cannot be changed to root (uid 0)",
        ));
    }
    if named.group == Some(0) {
        return Err(Fault::bad_request(
            "the group cannot be changed to root (gid 0)",
        ));
    }
    Ok(named)
}

/// The `owner` parameter of an operation that makes something.
pub fn owner(root: &Root, text: Option<&str>) -> Result<Owner, Fault> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(Owner::Directory);
    };
    let named = parse(root, text)?;
    let user = named
        .user
        .ok_or_else(|| Fault::bad_request("`owner` must name a user"))?;
    let group = match named.group {
        Some(group) => group,
        None => look_up(root, Table::Users, &user.to_string())?
            .1
            .unwrap_or(user),
    };
    if !privileged() && user != rustix::process::geteuid().as_raw() {
        return Err(Fault::forbidden(
            "this service does not run as root and cannot give files away",
        ));
    }
    Ok(Owner::Ids { user, group })
}

/// The number behind a name, and for a user that of its group. A number need not be known.
fn look_up(root: &Root, table: Table, name: &str) -> Result<(u32, Option<u32>), Fault> {
    let number: Option<u32> = name.parse().ok().filter(|number| *number != u32::MAX); // -1 means "keep"
    let text = read(root, table);
    let line = text
        .lines()
        .map(fields)
        .find(|line| line.first() == Some(&name) || number.is_some() && line.get(2) == Some(&name));
    match (line, number) {
        (Some(line), _) => {
            let id = line.get(2).and_then(|id| id.parse().ok());
            let group = line.get(3).and_then(|id| id.parse().ok());
            id.map(|id| (id, group)).ok_or_else(|| unknown(table, name))
        }
        (None, Some(id)) => Ok((id, None)),
        (None, None) => Err(unknown(table, name)),
    }
}

fn unknown(table: Table, name: &str) -> Fault {
    Fault::bad_request(format!(
        "no {} `{name}`; see /{}",
        table.noun(),
        table.path()
    ))
}

fn fields(line: &str) -> Vec<&str> {
    line.split(':').collect()
}

/// The text of a table; empty where there is none.
fn read(root: &Root, table: Table) -> String {
    let path = FilePath::from_bytes(table.path().as_bytes()).expect("both paths are valid");
    let Ok(file) = root
        .find(&path, Links::Follow)
        .and_then(|found| found.open(OFlags::RDONLY))
    else {
        return String::new();
    };
    let mut bytes = Vec::new();
    if file.take(TABLE_BYTES).read_to_end(&mut bytes).is_err() {
        bytes.clear();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
