//! Hosts of script directories, `{subdir}.{P}-{C}-exec-{N}…`. No wildcard covers them, so that each
//! has a certificate of its own where those come from a directory: for script directories that
//! exist, which the container's `exec` service is asked about.
//!
//! A container may say that all exist. That costs it orders below the node's own domain, of which
//! there are as many as below any other ([`certs::acme::Limits`]).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use certs::acme::Entitled;
use http::{Request, header};
use http_body_util::Full;
use routes::Zone;
use routes::address::{Address, Door, Name};
use routes::table::{State, Table};
use serde::Deserialize;
use tokio::time::timeout;

use crate::domains::Domains;
use crate::hooks::{self, Asking};
use crate::resolve::{Destination, resolve};

/// For a container to say whether a directory exists.
const QUESTION: Duration = Duration::from_secs(3);
/// Its answer lists scripts, of which only the number matters.
const REPLY_BYTES: usize = 256 << 10;

/// Who knows which script directories there are.
pub struct Scripts {
    zone: Zone,
    table: Arc<ArcSwap<Table>>,
    asking: Arc<Asking>,
}

/// What is read of an answer.
#[derive(Deserialize)]
struct Listed {
    count: f64,
}

impl Scripts {
    pub fn new(zone: Zone, table: Arc<ArcSwap<Table>>, asking: Arc<Asking>) -> Scripts {
        Scripts {
            zone,
            table,
            asking,
        }
    }

    /// Whether a host is of this form.
    fn is_of(&self, name: &str) -> bool {
        self.address(name).is_some()
    }

    fn address(&self, name: &str) -> Option<Address> {
        let name = Name::parse(name).ok()?;
        let address = Address::of(&name, &self.zone).ok()?;
        let door = match &address {
            Address::Container { door, .. } => door,
            _ => return None,
        };
        matches!(door, Door::Exec { .. }).then_some(address)
    }

    /// Whether there is such a directory; otherwise why it is taken that there is none.
    async fn exists(&self, name: &str) -> Result<(), String> {
        let address = self.address(name).ok_or("it is no host of a script")?;
        let led = resolve(&address, &self.table.load(), || 0);
        let Ok(Destination::Kit { place, door, .. }) = led else {
            return Err("there is no such container".to_owned());
        };
        let (Some(subdir), Some(index)) = (door.subdir, door.index) else {
            return Err("it is no host of a script".to_owned());
        };
        if place.state != State::Running {
            return Err("its container does not run, so that nobody can be asked".to_owned());
        }
        let _turn = self.asking.enter(place.container).map_err(said)?;
        // Letters, digits and hyphens: nothing in it is to be escaped.
        let subdir = subdir.as_str();
        let request = Request::get(format!("/api/v1/exec/scripts/list?subdomain={subdir}"))
            .header(header::HOST, name)
            .header("x-hoody-edge-service", "exec")
            .header("x-hoody-edge-index", index)
            .header("x-hoody-edge-subdomain", subdir)
            .body(Full::new(Bytes::new()))
            .map_err(|error| error.to_string())?;
        let answer = timeout(QUESTION, hooks::send(&place, request, REPLY_BYTES)).await;
        let answer = answer.map_err(|_| "its container does not say in time".to_owned())?;
        let answer = answer.map_err(said)?;
        let listed: Listed = serde_json::from_slice(&answer)
            .map_err(|error| format!("its container says what is no list of scripts: {error}"))?;
        match listed.count >= 1.0 {
            true => Ok(()),
            false => Err(format!("there is no script in the directory {subdir}")),
        }
    }
}

fn said(fault: hooks::HookFault) -> String {
    format!("its container cannot be asked: {}", certs::chain(&fault))
}

/// For whom certificates are ordered: names that lead to an alias that is in force, and hosts of
/// script directories that exist.
pub struct Entitlements {
    pub domains: Domains,
    pub scripts: Scripts,
}

#[async_trait]
impl Entitled for Entitlements {
    fn may_be(&self, name: &str) -> bool {
        let may_lead = || Name::parse(name).is_ok_and(|name| self.domains.may_lead(&name));
        self.scripts.is_of(name) || may_lead()
    }

    fn is_below(&self, name: &str) -> bool {
        self.scripts.is_of(name)
    }

    async fn entitled(&self, name: &str, client: Option<IpAddr>) -> Result<(), String> {
        if self.scripts.is_of(name) {
            return self.scripts.exists(name).await;
        }
        let led = self.domains.entitled(name, client).await;
        led.map(drop).map_err(|why| why.to_string())
    }
}
