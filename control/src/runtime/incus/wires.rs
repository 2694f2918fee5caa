//! What machines reach over the network: the packet filter of the host, and the relay.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use routes::Id;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::Mutex;

use super::filter::{self, Port, Way, compile};
use crate::relay::Table;
use crate::relay::link::Link;
use crate::runtime::{Egress, Policy, RuntimeError};

const ACT: &str = "set up the network";
/// A transaction of thousands of machines takes less than a second.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where the program is, whatever the environment says.
const PATH: &str = "/usr/sbin:/sbin:/usr/bin:/bin";

/// The wires of all machines of a node.
pub struct Wires {
    name: String,
    relay: Link,
    state: Mutex<State>,
}

/// Where a machine is in the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub interface: String,
    pub address: Ipv4Addr,
}

#[derive(Default)]
struct State {
    /// None before they were said: no machine starts until then.
    policies: Option<BTreeMap<Id, Policy>>,
    places: BTreeMap<Id, Place>,
}

impl Wires {
    pub fn new(name: &str, relay: PathBuf) -> Wires {
        Wires {
            name: name.to_owned(),
            relay: Link::new(relay),
            state: Mutex::default(),
        }
    }

    /// Have the policies hold for all machines that `places` finds. No machine is let in while it
    /// looks, so none is forgotten that comes meanwhile.
    pub async fn enforce(
        &self,
        policies: BTreeMap<Id, Policy>,
        places: impl Future<Output = Result<BTreeMap<Id, Place>, RuntimeError>>,
    ) -> Result<(), RuntimeError> {
        let mut state = self.state.lock().await;
        state.policies = Some(policies);
        // Where the engine is away, those that were there are.
        let found = places.await;
        let (places, failed) = match found {
            Ok(places) => (places, None),
            Err(error) => (std::mem::take(&mut state.places), Some(error)),
        };
        state.places = places;
        self.apply(&state).await?;
        failed.map_or(Ok(()), Err)
    }

    /// Let a machine in before it starts.
    pub async fn admit(&self, id: Id, place: Place) -> Result<(), RuntimeError> {
        let mut state = self.state.lock().await;
        if state.policies.is_none() {
            return Err(RuntimeError::Transient {
                act: ACT,
                reason: "what machines may reach is not known yet".to_owned(),
            });
        }
        if state.places.get(&id) == Some(&place) {
            return Ok(());
        }
        // An address that was another's is not any more.
        state.places.retain(|_, other| {
            other.address != place.address && other.interface != place.interface
        });
        state.places.insert(id, place);
        match self.filter(&state).await {
            Ok(()) => {}
            Err(error) => {
                state.places.remove(&id);
                return Err(error);
            }
        }
        self.tell(&state).await
    }

    /// A machine is gone.
    pub async fn forget(&self, id: Id) -> Result<(), RuntimeError> {
        let mut state = self.state.lock().await;
        if let Some(policies) = &mut state.policies {
            policies.remove(&id);
        }
        match state.places.remove(&id) {
            Some(_) => self.apply(&state).await,
            None => Ok(()),
        }
    }

    /// The filter first: what it holds back leaks nowhere while the relay is not told yet.
    async fn apply(&self, state: &State) -> Result<(), RuntimeError> {
        self.filter(state).await?;
        self.tell(state).await
    }

    async fn filter(&self, state: &State) -> Result<(), RuntimeError> {
        let ports: Vec<Port> = state
            .places
            .iter()
            .map(|(id, place)| port(place, state.policies.as_ref().and_then(|all| all.get(id))))
            .collect();
        nft(&compile(&self.name, &ports)).await
    }

    async fn tell(&self, state: &State) -> Result<(), RuntimeError> {
        let mut table = Table::new();
        for (id, policy) in state.policies.iter().flatten() {
            if let (Egress::Proxied(upstream), Some(place)) = (&policy.egress, state.places.get(id))
            {
                table.insert(place.address, upstream.clone());
            }
        }
        // What nobody waits for need not be waited for.
        let waits = !table.is_empty();
        let told = self.relay.tell(table);
        if !waits {
            tokio::select! {
                biased;
                _ = told => {}
                () = std::future::ready(()) => {}
            }
            return Ok(());
        }
        match told.await {
            true => Ok(()),
            false => Err(RuntimeError::Transient {
                act: ACT,
                reason: "the relay is away; what leaves by a proxy is held back".to_owned(),
            }),
        }
    }
}

fn port(place: &Place, policy: Option<&Policy>) -> Port {
    Port {
        interface: place.interface.clone(),
        address: place.address,
        way: match policy.map(|policy| &policy.egress) {
            None | Some(Egress::Direct) => Way::Direct,
            Some(Egress::Blocked) => Way::Blocked,
            Some(Egress::Proxied(_)) => Way::Relayed,
        },
        filters: policy
            .map(|policy| policy.filters.clone())
            .unwrap_or_default(),
    }
}

impl Place {
    /// Where a machine of this address is put.
    pub fn of(address: Ipv4Addr) -> Place {
        Place {
            interface: filter::interface(address),
            address,
        }
    }
}

/// One transaction of the packet filter.
async fn nft(text: &str) -> Result<(), RuntimeError> {
    let failed = |reason: String| RuntimeError::Transient { act: ACT, reason };
    let running = async {
        let mut nft = Command::new("nft")
            .args(["-f", "-"])
            .env("PATH", PATH)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut input) = nft.stdin.take() {
            input.write_all(text.as_bytes()).await?;
        }
        nft.wait_with_output().await
    };
    let ended = tokio::time::timeout(PATIENCE, running)
        .await
        .map_err(|_| failed(format!("nft took longer than {PATIENCE:?}")))?
        .map_err(|error| failed(format!("nft: {error}")))?;
    match ended.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&ended.stderr);
            let first = said.lines().next().unwrap_or_default();
            Err(failed(format!("nft refuses the rules: {first}")))
        }
    }
}
