//! Parameters that are right once they exist: each kind of text knows its own rule, and a request
//! that breaks it is refused with the place and the rule.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};

use routes::Id;

/// What a kind of text has to be.
pub trait Rule {
    const NAME: &'static str;
    /// Lengths in characters.
    const LEAST: usize;
    const MOST: usize;
    /// The rule as a regular expression, for documents; empty where lengths are all.
    const PATTERN: &'static str;
    /// The same rule, in words and as code.
    const WORDS: &'static str;
    fn fits(text: &str) -> bool;
}

/// Text that keeps the rule `R`.
pub struct Text<R>(String, PhantomData<R>);

impl<R> Text<R> {
    pub fn into_string(self) -> String {
        self.0
    }
}

impl<R> Deref for Text<R> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<R> fmt::Debug for Text<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<R> Clone for Text<R> {
    fn clone(&self) -> Self {
        Text(self.0.clone(), PhantomData)
    }
}

impl<'de, R: Rule> Deserialize<'de> for Text<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let length = text.chars().count();
        if !(R::LEAST..=R::MOST).contains(&length) {
            let (least, most) = (R::LEAST, R::MOST);
            return Err(D::Error::custom(format!(
                "must have {least} to {most} characters, not {length}"
            )));
        }
        if !R::fits(&text) {
            return Err(D::Error::custom(R::WORDS));
        }
        Ok(Text(text, PhantomData))
    }
}

impl<R: Rule> JsonSchema for Text<R> {
    fn schema_name() -> Cow<'static, str> {
        R::NAME.into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema =
            json_schema!({ "type": "string", "minLength": R::LEAST, "maxLength": R::MOST });
        if !R::PATTERN.is_empty() {
            schema.insert("pattern".to_owned(), R::PATTERN.into());
        }
        schema
    }
}

macro_rules! rule {
    ($(#[$doc:meta])* $name:ident, $lengths:expr, $pattern:literal, $words:literal, $fits:expr) => {
        $(#[$doc])*
        pub type $name = Text<rules::$name>;
        impl Rule for rules::$name {
            const NAME: &'static str = stringify!($name);
            const LEAST: usize = $lengths.0;
            const MOST: usize = $lengths.1;
            const PATTERN: &'static str = $pattern;
            const WORDS: &'static str = $words;
            fn fits(text: &str) -> bool {
                let fits: fn(&str) -> bool = $fits;
                fits(text)
            }
        }
    };
}

/// The names of the rules, as types.
pub mod rules {
    pub enum Username {}
    pub enum Email {}
    pub enum Password {}
    pub enum NewPassword {}
    pub enum ClientName {}
    pub enum RefreshToken {}
    pub enum UserAlias {}
    pub enum TokenAlias {}
    pub enum ProjectAlias {}
    pub enum ContainerName {}
    pub enum ContainerLabel {}
    pub enum Comment {}
    pub enum Color {}
    pub enum SshKey {}
    pub enum ImageName {}
    pub enum SnapshotAlias {}
    pub enum ShareName {}
    pub enum ShareDescription {}
    pub enum SourcePath {}
    pub enum VariableName {}
    pub enum VariableValue {}
    pub enum AddressRule {}
    pub enum PublicKey {}
}

fn plain(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn printable(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

rule!(
    /// The name of an account.
    Username, (3, 50), "^[a-zA-Z0-9_-]+$", "must be letters, digits, `_` and `-`", plain
);
rule!(
    /// An e-mail address; that it exists shows when it is used.
    Email, (3, 255), "", "must be an e-mail address",
    |text| text.contains('@') && printable(text)
);
rule!(
    /// A password as given at a login.
    Password, (8, 128), "", "must be text", |_| true
);
rule!(
    /// A password to be set.
    NewPassword, (12, 128), "",
    "must have a lower-case letter, an upper-case letter and a digit",
    |text| {
        text.chars().any(char::is_lowercase)
            && text.chars().any(char::is_uppercase)
            && text.chars().any(|c| c.is_ascii_digit())
    }
);
rule!(
    /// The kind of client that logs in.
    ClientName, (0, 64), "", "must be printable", printable
);
rule!(RefreshToken, (1, 1024), "", "must be text", |_| true);
rule!(UserAlias, (1, 100), "", "must be printable", printable);
rule!(
    TokenAlias,
    (1, 254),
    "^[a-zA-Z0-9 _-]*$",
    "must be letters, digits, spaces, `_` and `-`",
    |text| text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b' ' | b'-' | b'_'))
);
rule!(ProjectAlias, (1, 100), "", "must be printable", printable);
rule!(
    /// The name of a new container.
    ContainerName, (3, 100), "^[a-zA-Z0-9-_]+$", "must be letters, digits, `_` and `-`", plain
);
rule!(
    /// A new name of a container.
    ContainerLabel, (1, 100), "", "must be printable", printable
);
rule!(Comment, (0, 16_000), "", "must be text", |_| true);
rule!(
    /// A colour of three or six hexadecimal digits, with or without `#`.
    Color, (3, 7), "^#[0-9A-Fa-f]{3}$|^#[0-9A-Fa-f]{6}$|^[0-9A-Fa-f]{3}$|^[0-9A-Fa-f]{6}$",
    "must be a colour such as #FF8800",
    |text| {
        let digits = text.strip_prefix('#').unwrap_or(text);
        matches!(digits.len(), 3 | 6) && digits.bytes().all(|b| b.is_ascii_hexdigit())
    }
);
rule!(
    /// A public key as in `authorized_keys`.
    SshKey, (20, 16_384), "", "must be one line of an OpenSSH public key, such as `ssh-ed25519 AAAA...`",
    |text| {
        const KINDS: [&str; 4] = ["ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"];
        printable(text)
            && KINDS.iter().any(|kind| text.starts_with(kind))
            && text.split(' ').nth(1).is_some_and(|key| key.starts_with("AAAA"))
    }
);
rule!(
    ImageName,
    (1, 128),
    "",
    "must be the name of an image, such as debian-13",
    |text| text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_./: ".contains(&b))
);
rule!(
    /// Another name of a snapshot; it is part of paths.
    SnapshotAlias, (1, 100), "^[^/]+$", "must be printable and without `/`",
    |text| printable(text) && !text.contains('/')
);
rule!(
    /// The alias or label of a share; an alias is the name of a directory.
    ShareName, (3, 63), "^[a-z0-9][a-z0-9_-]*[a-z0-9]$",
    "must be lower-case letters, digits, `_` and `-`, and begin and end with a letter or digit",
    |text| {
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bytes = text.as_bytes();
        edge(bytes.first())
            && edge(bytes.last())
            && bytes
                .iter()
                .all(|b| edge(Some(b)) || matches!(b, b'_' | b'-'))
    }
);
rule!(ShareDescription, (0, 1000), "", "must be text", |_| true);
rule!(
    /// A directory of a container.
    SourcePath, (1, 4096), "^/.*", "must be an absolute path without control characters",
    |text| text.starts_with('/') && printable(text)
);
rule!(
    /// The name of an environment variable.
    VariableName, (1, 256), "^[a-zA-Z_][a-zA-Z0-9_]*$",
    "must be letters, digits and `_`, and must not begin with a digit",
    |text| {
        text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !text.starts_with(|c: char| c.is_ascii_digit())
    }
);
rule!(
    VariableValue,
    (0, 32_768),
    "",
    // pam_env(8) and the shells read them from files of a line each; a value that would be left out
    // there is refused here.
    "must be one line without a NUL; encode what has several, in base64 for one",
    |text| !text.contains(['\0', '\n', '\r'])
);
rule!(
    /// `*`, an address, or a network such as 192.0.2.0/24.
    AddressRule, (1, 64), "", "must be `*`, an address, or a network such as 192.0.2.0/24",
    crate::auth::token::is_rule
);
rule!(PublicKey, (1, 128), "", "must be printable", printable);

impl Color {
    /// `#RRGGBB`, in capitals.
    pub fn normal(&self) -> String {
        let digits = self.strip_prefix('#').unwrap_or(self).to_ascii_uppercase();
        if digits.len() == 3 {
            return digits.chars().fold("#".to_owned(), |text, digit| {
                format!("{text}{digit}{digit}")
            });
        }
        format!("#{digits}")
    }
}

impl Ord for VariableName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for VariableName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for VariableName {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for VariableName {}

/// An id in a path or a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdText(pub Id);

impl<'de> Deserialize<'de> for IdText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map(IdText)
            .map_err(D::Error::custom)
    }
}

impl JsonSchema for IdText {
    fn schema_name() -> Cow<'static, str> {
        "Id".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9a-f]{24}$" })
    }
}

/// A whole number between two bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Number<const LEAST: u32, const MOST: u32>(pub u32);

impl<'de, const LEAST: u32, const MOST: u32> Deserialize<'de> for Number<LEAST, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = || D::Error::custom(format!("must be a whole number from {LEAST} to {MOST}"));
        let number = serde_json::Number::deserialize(deserializer).map_err(|_| wrong())?;
        // JSON knows no integers: 2 and 2.0 are the same number.
        let whole = number.as_u64().or_else(|| {
            number
                .as_f64()
                .filter(|n| n.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(n))
                .map(|n| n as u64)
        });
        match whole.and_then(|n| u32::try_from(n).ok()) {
            Some(n) if (LEAST..=MOST).contains(&n) => Ok(Number(n)),
            _ => Err(wrong()),
        }
    }
}

impl<const LEAST: u32, const MOST: u32> JsonSchema for Number<LEAST, MOST> {
    fn schema_name() -> Cow<'static, str> {
        format!("Number{LEAST}to{MOST}").into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = json_schema!({ "type": "integer", "minimum": LEAST });
        if MOST < u32::MAX {
            schema.insert("maximum".to_owned(), MOST.into());
        }
        schema
    }
}

/// For a field that may be absent, null, or something: null becomes `Some(None)`.
pub fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fits<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> bool {
        serde_json::from_value::<T>(value).is_ok()
    }

    #[test]
    fn each_kind_keeps_its_rule() {
        assert!(fits::<ContainerName>(json!("web-1_a")));
        for bad in ["ab", "a b c", "ünf", &"x".repeat(101), "a/b", ""] {
            assert!(!fits::<ContainerName>(json!(bad)), "{bad}");
        }
        for good in ["#fff", "#A1B2C3", "fff", "a1b2c3"] {
            assert!(fits::<Color>(json!(good)), "{good}");
        }
        for bad in ["#ff", "#ffff", "red", "#gggggg", "##fff", "fffffff"] {
            assert!(!fits::<Color>(json!(bad)), "{bad}");
        }
        assert!(fits::<VariableName>(json!("_PATH2")) && !fits::<VariableName>(json!("2PATH")));
        assert!(!fits::<VariableName>(json!("A=B")) && !fits::<VariableValue>(json!("a\0b")));
        assert!(!fits::<VariableValue>(json!("a\nb")) && !fits::<VariableValue>(json!("a\r\nb")));
        for good in ["abc", "a-b_c", "0x0"] {
            assert!(fits::<ShareName>(json!(good)), "{good}");
        }
        for bad in [
            "ab", "a/b", "..a", "-ab", "ab-", "aBc", "a b", "\u{e4}bc", "a\u{0}b", "a.b",
        ] {
            assert!(!fits::<ShareName>(json!(bad)), "{bad}");
        }
        assert!(fits::<SourcePath>(json!("/srv/a b")));
        assert!(!fits::<SourcePath>(json!("srv")) && !fits::<SourcePath>(json!("/a\nb")));
        assert!(fits::<SshKey>(json!(
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me@here"
        )));
        assert!(!fits::<SshKey>(json!(
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5\nssh-rsa AAAA"
        )));
        assert!(!fits::<SshKey>(json!("command=\"rm\" ssh-ed25519 AAAA")));
        assert!(
            fits::<NewPassword>(json!("Correct horse 1"))
                && !fits::<NewPassword>(json!("correct horse 1"))
        );
        assert!(
            !fits::<IdText>(json!("0123")) && fits::<IdText>(json!("0123456789abcdef01234567"))
        );
        assert!(!fits::<ContainerName>(json!(7)), "no number is a name");
    }

    #[test]
    fn colours_have_one_form() {
        for (given, normal) in [
            ("#abc", "#AABBCC"),
            ("a1b2c3", "#A1B2C3"),
            ("#A1B2C3", "#A1B2C3"),
        ] {
            let color: Color = serde_json::from_value(json!(given)).unwrap();
            assert_eq!(color.normal(), normal);
        }
    }

    #[test]
    fn numbers_have_bounds() {
        type Few = Number<1, 100>;
        for good in [json!(1), json!(100), json!(2.0)] {
            assert!(fits::<Few>(good.clone()), "{good}");
        }
        for bad in [
            json!(0),
            json!(101),
            json!(1.5),
            json!("1"),
            json!(-1),
            json!(1e300),
            json!(null),
        ] {
            assert!(!fits::<Few>(bad.clone()), "{bad}");
        }
    }
}
