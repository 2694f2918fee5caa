//! What clients keep beside a file (RFC 4918, section 4.3: dead properties), in one extended
//! attribute of the file itself. So it moves with the file, stays when the content is replaced, and
//! goes when the file does, whoever does it.

use std::os::fd::AsFd;

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr, getxattr, removexattr, setxattr};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::xml::{self, Name};
use crate::jail::Jailed;

/// The attribute.
const ATTRIBUTE: &str = "user.hoody.dav";
/// Most bytes of all properties of one file. Some file systems take less.
const BYTES: usize = 32 << 10;
/// Most properties of one file.
const MOST: usize = 256;

/// A property and its value, as XML that stands for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Property {
    pub name: Name,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lang: Option<String>,
    pub value: String,
}

/// One change: a new value, or none.
#[derive(Debug)]
pub struct Change {
    pub name: Name,
    pub property: Option<Property>,
}

/// The properties of a file. One that cannot say has none.
pub fn read(held: &Jailed) -> Vec<Property> {
    let mut bytes = vec![0; BYTES];
    match getxattr(held.proc_path(), ATTRIBUTE, &mut bytes[..]) {
        Ok(length) => {
            let mut all: Vec<Property> =
                serde_json::from_slice(&bytes[..length]).unwrap_or_default();
            // What a program of the computer put there itself may be anything.
            all.retain(|property| xml::stands(&property.name, &property.value));
            all
        }
        Err(_) => Vec::new(),
    }
}

/// Make all of these changes or none.
pub fn change(held: &Jailed, changes: Vec<Change>) -> Result<(), Errno> {
    let mut properties = read(held);
    for change in changes {
        properties.retain(|property| property.name != change.name);
        properties.extend(change.property);
    }
    if properties.is_empty() {
        return match removexattr(held.proc_path(), ATTRIBUTE) {
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
            other => other,
        };
    }
    let bytes = serde_json::to_vec(&properties).expect("names and texts are plain JSON");
    if bytes.len() > BYTES || properties.len() > MOST {
        return Err(Errno::NOSPC);
    }
    setxattr(held.proc_path(), ATTRIBUTE, &bytes, XattrFlags::empty())
}

/// Give a copy the properties of what it was copied from, as far as its file system takes them.
pub fn copy(from: impl AsFd, to: impl AsFd) {
    let mut bytes = vec![0; BYTES];
    if let Ok(length) = fgetxattr(from, ATTRIBUTE, &mut bytes[..]) {
        let _ = fsetxattr(to, ATTRIBUTE, &bytes[..length], XattrFlags::empty());
    }
}
