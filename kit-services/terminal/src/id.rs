//! Names of terminals and commands.

use std::fmt;

use kit::{Call, Fault};
use rand::RngCore;
use schemars::JsonSchema;
use serde::Deserialize;

/// A terminal's number, 1 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TerminalId(u16);

/// Terminals that no caller named are numbered from here up.
pub const FIRST_EPHEMERAL: u16 = 40_000;

impl TerminalId {
    /// The terminal of this number; none for 0.
    pub fn new(number: u16) -> Option<TerminalId> {
        (number != 0).then_some(TerminalId(number))
    }

    pub fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for TerminalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A terminal's number as callers write it: a number or its digits.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Named {
    Number(i64),
    Text(String),
}

impl Named {
    /// The terminal; none for 0 and the empty text, which stand for "not named".
    pub fn read(&self) -> Result<Option<TerminalId>, Fault> {
        let number = match self {
            Named::Number(number) => u16::try_from(*number).ok(),
            Named::Text(text) if text.is_empty() => Some(0),
            Named::Text(text) => digits(text),
        };
        number.map(TerminalId::new).ok_or_else(|| {
            Fault::bad_request("Invalid terminal_id (must be numeric 1-65535)")
                .code("INVALID_TERMINAL_ID")
                .field("/terminal_id", "a number from 1 to 65535")
        })
    }
}

fn digits(text: &str) -> Option<u16> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// The terminal that a call is about: the one it names, else the one of the host's index.
pub fn wanted(named: Option<&Named>, call: &Call) -> Result<Option<TerminalId>, Fault> {
    let named = named.map(Named::read).transpose()?.flatten();
    Ok(named.or_else(|| u16::try_from(call.index()).ok().and_then(TerminalId::new)))
}

/// As [`wanted`], where a terminal must be meant.
pub fn required(named: Option<&Named>, call: &Call) -> Result<TerminalId, Fault> {
    wanted(named, call)?.ok_or_else(|| {
        Fault::bad_request("terminal_id parameter required: a number from 1 to 65535")
            .code("INVALID_TERMINAL_ID")
    })
}

/// A name that was never given before, also not before a restart of the kit.
pub fn fresh() -> String {
    format!("{:016x}", rand::rng().next_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_digits_name_terminals_and_nothing_else_does() {
        let text = |text: &str| Named::Text(text.to_owned()).read();
        assert_eq!(text("7").unwrap(), TerminalId::new(7));
        assert_eq!(text("0").unwrap(), None);
        assert_eq!(text("").unwrap(), None);
        assert_eq!(text("65535").unwrap(), TerminalId::new(65535));
        for wrong in [
            "65536",
            "-1",
            "+1",
            "1.0",
            "one",
            "999999999999999999999999",
            "1\0",
            " 1",
            "٣",
        ] {
            assert!(text(wrong).is_err(), "{wrong:?}");
        }
        assert!(Named::Number(-1).read().is_err());
        assert!(Named::Number(i64::MAX).read().is_err());
        assert_eq!(Named::Number(3).read().unwrap(), TerminalId::new(3));
    }
}
