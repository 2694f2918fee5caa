//! Challenges in a zone of somebody else's name server: dynamic updates (RFC 2136), signed with
//! a key that both know (TSIG, RFC 8945).

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use hickory_proto::op::update_message::{append, delete_by_rdata};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::rdata::tsig::{TsigAlgorithm, TsigError};
use hickory_proto::rr::{Name, RData, Record, RecordSet, RecordType, TSigner};
use tokio::time::{Instant, sleep};

use super::answer::Transport;
use super::ask::{AskError, ask, exchange, question};
use super::zone::name;
use crate::challenge::{ChallengeError, DnsChallenge};
use crate::clock::Clock;

/// Seconds that others may keep a challenge.
const TTL: u32 = 1;
/// Seconds by which the clocks may differ (RFC 8945, section 10, recommends it).
const FUDGE: u16 = 300;
/// For one message and its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks whether a server has the record.
const LOOK: Duration = Duration::from_secs(1);
/// For all servers to have the record. Secondaries are told at once (RFC 1996) or look by themselves.
const VISIBLE: Duration = Duration::from_secs(120);
/// A file of a key; one that `tsig-keygen` writes has some hundred bytes.
const KEY_BYTES: usize = 4 << 10;

/// A name server that takes updates.
pub struct Update {
    /// The first is told; all are asked until they have the record.
    servers: Vec<SocketAddr>,
    /// The zone that is updated; found out where it was not said.
    zone: Option<Name>,
    signer: Option<TSigner>,
    clock: Box<dyn Clock>,
    visible: Duration,
}

/// A key that signs updates.
#[derive(Clone)]
pub struct TsigKey {
    signer: TSigner,
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadKey {
    #[error("it is no key as `tsig-keygen` writes it: {0} is missing")]
    Missing(&'static str),
    #[error(
        "the algorithm `{0}` is not supported; there are hmac-sha256, hmac-sha384 and hmac-sha512"
    )]
    Algorithm(String),
    #[error("the secret is not base64")]
    Secret,
    #[error("`{0}` is not a name of a key")]
    Name(String),
    #[error("it is longer than {KEY_BYTES} bytes")]
    Long,
}

impl TsigKey {
    /// Read a key as `tsig-keygen` and `keymgr -t` write it:
    /// `key "name" { algorithm hmac-sha256; secret "…"; };`
    pub fn parse(text: &str) -> Result<TsigKey, BadKey> {
        if text.len() > KEY_BYTES {
            return Err(BadKey::Long);
        }
        let words: Vec<&str> = text
            .lines()
            .map(|line| line.split(['#']).next().unwrap_or_default())
            .flat_map(|line| line.split(|at: char| at.is_whitespace() || "{};\"".contains(at)))
            .filter(|word| !word.is_empty())
            .collect();
        let after = |word: &'static str| {
            let at = words.iter().position(|it| *it == word);
            let found = at.and_then(|at| words.get(at + 1));
            found.copied().ok_or(BadKey::Missing(word))
        };
        let (key, algorithm, secret) = (after("key")?, after("algorithm")?, after("secret")?);
        let algorithm = match &*algorithm.to_ascii_lowercase() {
            "hmac-sha256" => TsigAlgorithm::HmacSha256,
            "hmac-sha384" => TsigAlgorithm::HmacSha384,
            "hmac-sha512" => TsigAlgorithm::HmacSha512,
            _ => return Err(BadKey::Algorithm(algorithm.to_owned())),
        };
        let secret = base64::engine::general_purpose::STANDARD.decode(secret);
        let secret = secret.ok().filter(|secret| !secret.is_empty());
        let bad_name = |_| BadKey::Name(key.to_owned());
        let signer = TSigner::new(
            secret.ok_or(BadKey::Secret)?,
            algorithm,
            name(key).map_err(bad_name)?,
            FUDGE,
        );
        let signer = signer.map_err(|_| BadKey::Secret)?;
        Ok(TsigKey { signer })
    }
}

impl Update {
    /// Updates go to the first of `servers`; the others are only watched. Without a `zone` the
    /// server is asked which one a name is in.
    pub fn new(
        servers: Vec<SocketAddr>,
        zone: Option<&str>,
        key: Option<TsigKey>,
        clock: impl Clock + 'static,
    ) -> Result<Update, super::zone::BadZone> {
        Ok(Update {
            servers,
            zone: zone.map(name).transpose()?,
            signer: key.map(|key| key.signer),
            clock: Box::new(clock),
            visible: VISIBLE,
        })
    }

    /// Wait no longer than this for the servers to have a record.
    pub fn with_patience(mut self, visible: Duration) -> Update {
        self.visible = visible;
        self
    }

    fn first(&self) -> Result<SocketAddr, Failed> {
        self.servers
            .first()
            .copied()
            .ok_or_else(|| Failed::lasting("no server is named"))
    }

    /// The zone that a name is in, from the SOA that the server answers with.
    async fn zone_of(&self, at: &Name) -> Result<Name, Failed> {
        if let Some(zone) = &self.zone {
            return if zone.zone_of(at) {
                Ok(zone.clone())
            } else {
                Err(Failed::lasting(format!("it is not in the zone {zone}")))
            };
        }
        let server = self.first()?;
        let answer = ask(server, &question(at, RecordType::SOA), PATIENCE).await?;
        let found = answer.answers.iter().chain(&answer.authorities);
        let soa = found
            .filter(|record| record.record_type() == RecordType::SOA)
            .find(|record| record.name.zone_of(at));
        let code = answer.metadata.response_code;
        soa.map(|soa| soa.name.clone()).ok_or_else(|| {
            Failed::lasting(format!(
                "{server} has no zone for it (it answers {code}); name the zone in the settings"
            ))
        })
    }

    /// Send an update and understand what is said to it.
    async fn update(&self, mut message: Message) -> Result<(), Failed> {
        let server = self.first()?;
        let now = self.clock.now().duration_since(std::time::UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs();
        let mut verifier = None;
        if let Some(signer) = &self.signer {
            let signed = message.finalize(signer, now);
            verifier = signed.map_err(|error| Failed::lasting(error.to_string()))?;
        }
        let bytes = message
            .to_vec()
            .map_err(|error| Failed::lasting(error.to_string()))?;
        let answer = match exchange(Transport::Tcp, server, &bytes, PATIENCE).await {
            Ok(answer) => answer,
            // Some serve updates over UDP alone. The same message again changes nothing more.
            Err(_) => exchange(Transport::Udp, server, &bytes, PATIENCE).await?,
        };
        let read = Message::from_vec(&answer)
            .map_err(|error| Failed::passing(format!("{server} answers nonsense: {error}")))?;
        let code = read.metadata.response_code;
        let trusted = match &mut verifier {
            Some(verifier) => verifier.verify(&answer).is_ok(),
            None => true,
        };
        match code {
            ResponseCode::NoError if trusted => Ok(()),
            ResponseCode::NoError => Err(Failed::passing(format!(
                "the answer of {server} is not signed with the key; somebody else may have sent it"
            ))),
            // For a name that may not be updated, some answer the one, some the other.
            ResponseCode::NotAuth | ResponseCode::Refused => {
                let fault = read
                    .signature()
                    .and_then(|signature| signature.data.error.as_ref());
                let who = if verifier.is_some() {
                    "the key"
                } else {
                    "somebody without a key"
                };
                Err(Failed::lasting(match fault {
                    Some(TsigError::BadTime) => format!(
                        "{server} answers {code}: its clock and this one differ by more than {FUDGE} s"
                    ),
                    // Knot says BADKEY also where its rules let the key do something else.
                    Some(_) => format!(
                        "{server} answers {code}: it does not know the key, its secret or algorithm \
                         is another, or it may not update this name"
                    ),
                    None => format!(
                        "{server} answers {code}: {who} may not update this name, or its zone is \
                         not the server's own; see the server's settings"
                    ),
                }))
            }
            ResponseCode::NotZone | ResponseCode::NXRRSet | ResponseCode::YXRRSet => {
                Err(Failed::lasting(format!("{server} answers {code}")))
            }
            code => Err(Failed::passing(format!("{server} answers {code}"))),
        }
    }

    /// Ask one server until it has the value.
    async fn wait_for(&self, server: SocketAddr, at: &Name, value: &str) -> Result<(), Failed> {
        let end = Instant::now() + self.visible;
        let asked = question(at, RecordType::TXT);
        loop {
            let answer = ask(server, &asked, PATIENCE).await;
            let said = match answer {
                Ok(answer) if shows(&answer, value) => return Ok(()),
                Ok(answer) => format!("it answers {} without it", answer.metadata.response_code),
                Err(error) => error.to_string(),
            };
            if Instant::now() + LOOK > end {
                return Err(Failed::passing(format!(
                    "{server} does not show the record after {} s: {said}",
                    self.visible.as_secs()
                )));
            }
            sleep(LOOK).await;
        }
    }
}

fn shows(answer: &Message, value: &str) -> bool {
    answer.answers.iter().any(|record| match &record.data {
        RData::TXT(text) => text.txt_data.concat() == value.as_bytes(),
        _ => false,
    })
}

/// What went wrong, before it is told of which name.
struct Failed {
    why: String,
    is_passing: bool,
}

impl Failed {
    fn lasting(why: impl Into<String>) -> Failed {
        Failed {
            why: why.into(),
            is_passing: false,
        }
    }

    fn passing(why: impl Into<String>) -> Failed {
        Failed {
            why: why.into(),
            is_passing: true,
        }
    }

    fn of(self, verb: &'static str, name: &str) -> ChallengeError {
        ChallengeError {
            verb,
            name: name.to_owned(),
            why: self.why,
            is_passing: self.is_passing,
        }
    }
}

impl From<AskError> for Failed {
    fn from(error: AskError) -> Failed {
        let cause = std::error::Error::source(&error);
        let cause = cause.map_or(String::new(), |cause| format!(": {cause}"));
        Failed::passing(format!("{error}{cause}"))
    }
}

/// The record set of one value.
fn records(at: &Name, value: &str) -> RecordSet {
    let text = TXT::from_bytes(vec![value.as_bytes()]);
    Record::from_rdata(at.clone(), TTL, RData::TXT(text)).into()
}

fn parse(at: &str, value: &str) -> Result<Name, Failed> {
    if value.is_empty() || value.len() > usize::from(u8::MAX) {
        let length = value.len();
        return Err(Failed::lasting(format!(
            "a value has 1 to 255 bytes, this one {length}"
        )));
    }
    name(at).map_err(|bad| Failed::lasting(bad.to_string()))
}

#[async_trait]
impl DnsChallenge for Update {
    /// Takes at most some 20 s, and [`VISIBLE`].
    async fn present(&self, name: &str, value: &str) -> Result<(), ChallengeError> {
        let present = async {
            let at = parse(name, value)?;
            let zone = self.zone_of(&at).await?;
            self.update(append(records(&at, value), zone, false, false))
                .await?;
            let looks = self
                .servers
                .iter()
                .map(|server| self.wait_for(*server, &at, value));
            futures::future::try_join_all(looks).await?;
            Ok(())
        };
        present
            .await
            .map_err(|failed: Failed| failed.of("present", name))
    }

    async fn withdraw(&self, name: &str, value: &str) -> Result<(), ChallengeError> {
        let withdraw = async {
            let at = parse(name, value)?;
            let zone = self.zone_of(&at).await?;
            self.update(delete_by_rdata(records(&at, value), zone, false))
                .await
        };
        withdraw
            .await
            .map_err(|failed: Failed| failed.of("withdraw", name))
    }
}

#[cfg(test)]
mod tests;
