//! How the world is shown that a name is ours: the DNS-01 challenge (RFC 8555, section 8.4).

use async_trait::async_trait;

/// Somebody who can put TXT records where the world finds them.
///
/// `name` is the whole name of the record, `_acme-challenge.example.com`, in any case, with or
/// without the dot of the root; `value` is its text (base64url of a SHA-256: 43 bytes). Several
/// values for one name at once are normal: a wildcard and the name below it share theirs.
#[async_trait]
pub trait DnsChallenge: Send + Sync {
    /// Let `name` have this value beside those it has. Returns when the record is visible to the
    /// world as far as can be told; takes no longer than a bound that each way states. A value
    /// that is there already is no error.
    async fn present(&self, name: &str, value: &str) -> Result<(), ChallengeError>;

    /// Take this value back; others of the name stay. A value that is not there is no error.
    async fn withdraw(&self, name: &str, value: &str) -> Result<(), ChallengeError>;
}

/// Why a record could not be shown or taken back.
#[derive(Debug, thiserror::Error)]
#[error("could not {verb} the TXT record of {name}: {why}")]
pub struct ChallengeError {
    /// `present` or `withdraw`.
    pub verb: &'static str,
    pub name: String,
    /// What went wrong and what can be done, in words.
    pub why: String,
    /// Whether the same may succeed later without anybody changing a setting.
    pub is_passing: bool,
}
