//! What containers may reach over the network, brought from the database to the runtime.
//!
//! Always all of it and always from the database: whoever asks gets what is wanted now, and asking
//! again repairs what somebody undid. A policy that cannot be read holds everything back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use routes::Id;
use rusqlite::Connection;

use crate::auth::chain;
use crate::control::Control;
use crate::firewall::{Filters, Rules};
use crate::relay::{Credentials, Kind, Upstream};
use crate::runtime::{Egress, Policy, RuntimeError};
use crate::secrets::Secrets;
use crate::store::networks::{self, Network};
use crate::store::{StoreError, firewalls};

/// After a failure it is tried again, waiting twice as long every time, until the next sweep does.
const AGAIN: Duration = Duration::from_millis(500);
const TIMES: u32 = 5;

/// What is remembered: that is, whose turn it is.
#[derive(Default)]
pub struct Policies {
    /// One at a time, each with what the database says by then: the last word is the newest.
    turn: tokio::sync::Mutex<()>,
    trying: AtomicBool,
    /// The last time failed.
    failed: AtomicBool,
}

impl Policies {
    /// Whether what the database says holds, as far as is known.
    pub fn hold(&self) -> bool {
        !self.failed.load(Ordering::Relaxed)
    }
}

/// Why the policies do not hold.
#[derive(Debug, thiserror::Error)]
pub enum PoliciesError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// Have the policies of all containers hold. Where it fails it is tried again by itself.
pub async fn apply(control: &Control) -> Result<(), PoliciesError> {
    let applied = try_apply(control).await;
    if let Err(error) = &applied {
        tracing::warn!(error = %chain(error), "what containers may reach does not hold yet; trying again");
        if !control.policies.trying.swap(true, Ordering::AcqRel) {
            tokio::spawn(try_again(control.clone()));
        }
    }
    applied
}

async fn try_again(control: Control) {
    let mut wait = AGAIN;
    for _ in 0..TIMES {
        tokio::time::sleep(wait).await;
        if try_apply(&control).await.is_ok() {
            break;
        }
        wait *= 2;
    }
    control.policies.trying.store(false, Ordering::Release);
}

async fn try_apply(control: &Control) -> Result<(), PoliciesError> {
    if !control.runtime.keeps_policies() {
        return Ok(());
    }
    let _turn = control.policies.turn.lock().await;
    let applied = async {
        let (networks, rules) = control
            .store
            .read("read what containers may reach", |db| {
                Ok((networks::all(db)?, firewalls::all(db)?))
            })
            .await?;
        let policies = gather(&control.secrets, networks, rules);
        control.runtime.enforce(policies).await?;
        Ok(())
    };
    let applied = applied.await;
    control
        .policies
        .failed
        .store(applied.is_err(), Ordering::Relaxed);
    let end = if applied.is_ok() { "ok" } else { "failed" };
    control.metrics.policies.with_label_values(&[end]).inc();
    applied
}

/// The policy of each container that has one.
fn gather(
    secrets: &Secrets,
    networks: Vec<Network>,
    rules: BTreeMap<Id, Rules>,
) -> BTreeMap<Id, Policy> {
    let mut policies = BTreeMap::new();
    let free = || Policy {
        egress: Egress::Direct,
        filters: Filters::default(),
    };
    for network in networks.iter().filter(|network| network.enabled) {
        policies
            .entry(network.container)
            .or_insert_with(free)
            .egress = egress(secrets, network);
    }
    for (id, rules) in rules {
        let policy = policies.entry(id).or_insert_with(free);
        match rules.filters() {
            Ok(filters) => policy.filters = filters,
            Err(error) => {
                tracing::error!(container.id = %id, %error, "a rule of container {id} cannot be read; it reaches nothing");
                policy.egress = Egress::Blocked;
            }
        }
    }
    policies
}

fn egress(secrets: &Secrets, network: &Network) -> Egress {
    let id = network.container;
    let kind = match network.kind.as_str() {
        "socks5" => Kind::Socks5,
        "http" => Kind::Http,
        _ => return Egress::Blocked,
    };
    let (Some(host), Some(port)) = (network.host.clone(), network.port) else {
        return Egress::Blocked;
    };
    let credentials = match &network.credentials {
        None => None,
        Some(sealed) => match unseal(secrets, id, sealed) {
            Some(credentials) => Some(credentials),
            None => {
                tracing::error!(container.id = %id, "the credentials of container {id}'s proxy cannot be read; it reaches nothing");
                return Egress::Blocked;
            }
        },
    };
    Egress::Proxied(Upstream {
        kind,
        host,
        port,
        credentials,
        dns: network.dns_servers.clone(),
    })
}

/// The credentials of a container's proxy, for the database.
pub fn seal(secrets: &Secrets, id: Id, credentials: &Credentials) -> Vec<u8> {
    let plain = serde_json::to_vec(credentials).expect("text is JSON");
    secrets.seal(&networks::label(id), &plain)
}

/// Say of one container's network what is said of another's. Credentials are sealed for it anew;
/// where they cannot be read, they stay unreadable, and hold everything back.
pub fn copy_network(db: &Connection, secrets: &Secrets, from: Id, to: Id) -> rusqlite::Result<()> {
    let Some(network) = networks::find(db, from)? else {
        return Ok(());
    };
    let credentials = network.credentials.map(|sealed| {
        let readable = unseal(secrets, from, &sealed);
        readable.map_or(sealed, |plain| seal(secrets, to, &plain))
    });
    let network = Network {
        container: to,
        credentials,
        ..network
    };
    networks::put(db, &network)
}

fn unseal(secrets: &Secrets, id: Id, sealed: &[u8]) -> Option<Credentials> {
    let plain = secrets.unseal(&networks::label(id), sealed)?;
    serde_json::from_slice(&plain).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(kind: &str, credentials: Option<Vec<u8>>) -> Network {
        Network {
            container: Id([1; 12]),
            kind: kind.to_owned(),
            host: Some("proxy.test".to_owned()),
            port: Some(1080),
            credentials,
            dns_servers: Vec::new(),
            country: None,
            city: None,
            region: None,
            comment: None,
            enabled: true,
            configured_at: 0,
        }
    }

    #[test]
    fn what_cannot_be_read_holds_everything_back() {
        let secrets = Secrets::passing();
        let id = Id([1; 12]);
        let credentials = Credentials {
            user: "me".to_owned(),
            password: "pw".to_owned(),
        };
        let sealed = seal(&secrets, id, &credentials);
        let of = |secrets: &Secrets, network: Network| {
            gather(secrets, vec![network], BTreeMap::new())
                .remove(&id)
                .map(|policy| policy.egress)
        };
        let Some(Egress::Proxied(upstream)) = of(&secrets, network("socks5", Some(sealed.clone())))
        else {
            panic!("it is readable");
        };
        assert_eq!(upstream.credentials, Some(credentials));
        let other = Secrets::passing();
        for (secrets, network) in [
            (&other, network("socks5", Some(sealed))),
            (&secrets, network("carrier-pigeon", None)),
            (
                &secrets,
                Network {
                    port: None,
                    ..network("http", None)
                },
            ),
        ] {
            assert_eq!(of(secrets, network), Some(Egress::Blocked));
        }
        let off = Network {
            enabled: false,
            ..network("block", None)
        };
        assert_eq!(of(&secrets, off), None);
    }
}
