//! Identifiers: 96 bits, written as 24 lower-case hexadecimal digits.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The id of a project, container, user or any other thing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(pub [u8; 12]);

/// Digits of an id.
pub const LENGTH: usize = 24;

/// Not 24 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is 24 lower-case hexadecimal digits")]
pub struct NotAnId;

/// What each byte is worth as a digit; 16 and more where it is none.
const VALUES: [u8; 256] = {
    let mut values = [u8::MAX; 256];
    let mut value = 0;
    while value < 16 {
        values[b"0123456789abcdef"[value] as usize] = value as u8;
        value += 1;
    }
    values
};

impl Id {
    /// Read an id from bytes of text, without allocating.
    pub const fn parse(text: &[u8]) -> Option<Id> {
        if text.len() != LENGTH {
            return None;
        }
        let mut id = [0u8; LENGTH / 2];
        let mut all = 0;
        let mut at = 0;
        while at < id.len() {
            let (high, low) = (
                VALUES[text[2 * at] as usize],
                VALUES[text[2 * at + 1] as usize],
            );
            id[at] = high << 4 | low;
            all |= high | low;
            at += 1;
        }
        if all < 16 { Some(Id(id)) } else { None }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Id {
    type Err = NotAnId;
    fn from_str(text: &str) -> Result<Id, NotAnId> {
        Id::parse(text.as_bytes()).ok_or(NotAnId)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_a_digit_or_none() {
        for at in 0..LENGTH {
            for byte in 0..=u8::MAX {
                let mut text = *b"0123456789abcdeffedcba98";
                text[at] = byte;
                let digit = byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
                let id = Id::parse(&text);
                assert_eq!(id.is_some(), digit, "{byte} at {at}");
                if let Some(id) = id {
                    assert_eq!(id.to_string().as_bytes(), text);
                }
            }
        }
    }
}
