//! How a container reaches the network: directly, not at all, or through a proxy.
//!
//! It is settled on the host, so nothing in the container undoes it, and it holds from the answer
//! on: also for what runs already. URLs of the container lead to it all the same, because they do
//! not go over its network.

use std::net::Ipv4Addr;

use http::StatusCode;
use kit::{Call, Fault, Operation, Route, Verb};
use percent_encoding::percent_decode_str;
use routes::Id;
use rusqlite::Connection;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::containers::{going, invalid, no_container, seen, sees};
use super::text::{Comment, IdText};
use crate::auth::permissions::Permission;
use crate::auth::{Principal, broken};
use crate::container::Wants;
use crate::control::Control;
use crate::policies;
use crate::relay::Credentials;
use crate::relay::upstream::SOCKS_TEXT;
use crate::store::containers;
use crate::store::networks::{self, Network};
use crate::store::status_logs::{self, StatusLog};
use crate::time;
use crate::words;

/// Name servers that one container may name.
const SERVERS: usize = 4;
/// A proxy's address as it is given.
const PROXY: usize = 1024;
/// A place that is noted beside it.
const PLACE: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Socks5,
    Http,
    Https,
    Block,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::Socks5 => "socks5",
            Kind::Http => "http",
            Kind::Https => "https",
            Kind::Block => "block",
        }
    }

    fn parse(text: &str) -> Kind {
        match text {
            "socks5" => Kind::Socks5,
            "http" => Kind::Http,
            "https" => Kind::Https,
            _ => Kind::Block,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum State {
    /// It holds.
    Running,
    /// It is kept and does not hold: the container reaches the network directly.
    Stopped,
    /// It is to hold and could not be brought to the host yet. It is tried again.
    Error,
}

/// How a container reaches the network.
#[derive(Serialize, JsonSchema)]
pub struct Shown {
    container_id: String,
    /// Whether anything was said. The container reaches the network directly where not.
    configured: bool,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Kind>,
    /// The proxy, without its credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<String>,
    credentials_configured: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    country: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    city: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    dns_servers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    configured_at: Option<String>,
    last_status_check: String,
    remote_status: Remote,
}

#[derive(Serialize, JsonSchema)]
struct Remote {
    is_running: bool,
    last_check: String,
}

/// Whether what was said holds.
#[derive(Serialize, JsonSchema)]
pub struct Running {
    container_id: String,
    status: State,
    is_running: bool,
    last_check: String,
}

impl Shown {
    fn of(control: &Control, id: Id, network: Option<&Network>) -> Shown {
        let now = time::text(control.now());
        let status = network.map(|network| state(control, network));
        let proxy = network.and_then(|network| {
            let (host, port) = (network.host.as_ref()?, network.port?);
            Some(format!("{}://{host}:{port}", network.kind))
        });
        let text = |of: fn(&Network) -> &Option<String>| network.and_then(|it| of(it).clone());
        Shown {
            container_id: id.to_string(),
            configured: network.is_some(),
            kind: network.map(|network| Kind::parse(&network.kind)),
            proxy,
            credentials_configured: network.is_some_and(|it| it.credentials.is_some()),
            country: text(|it| &it.country),
            city: text(|it| &it.city),
            region: text(|it| &it.region),
            comment: text(|it| &it.comment),
            dns_servers: network.map_or_else(Vec::new, |network| {
                network
                    .dns_servers
                    .iter()
                    .map(Ipv4Addr::to_string)
                    .collect()
            }),
            status,
            configured_at: network.map(|network| time::text(network.configured_at)),
            last_status_check: now.clone(),
            remote_status: Remote {
                is_running: status == Some(State::Running),
                last_check: now,
            },
        }
    }
}

fn state(control: &Control, network: &Network) -> State {
    match (network.enabled, control.policies.hold()) {
        (false, _) => State::Stopped,
        (true, true) => State::Running,
        (true, false) => State::Error,
    }
}

/// Refused where the runtime cannot do it.
pub fn supported(control: &Control) -> Result<(), Fault> {
    match control.runtime.keeps_policies() {
        true => Ok(()),
        false => Err(Fault::new(
            StatusCode::NOT_IMPLEMENTED,
            format!(
                "the runtime `{}` cannot say what a container may reach over the network; `incus` can",
                control.runtime.name()
            ),
        )
        .code("RUNTIME_UNSUPPORTED")),
    }
}

fn nothing_said(id: Id) -> Fault {
    Fault::not_found(format!(
        "nothing is said about the network of container {id}; say it with `hoody network update`"
    ))
    .code("NETWORK_NOT_CONFIGURED")
}

/// Look a container up that is to be changed.
pub fn changeable(
    db: &Connection,
    principal: &Principal,
    id: Id,
) -> rusqlite::Result<Result<containers::Owned, Fault>> {
    let owned = containers::owned(db, id)?.filter(|owned| sees(principal, owned));
    Ok(match owned {
        None => Err(no_container(id)),
        Some(owned) if owned.container.wants == Wants::Gone => Err(going(id)),
        Some(owned) => Ok(owned),
    })
}

/// Note in a container's log what was changed about it, and by whom; its status stays.
pub fn note(
    db: &Connection,
    owned: &containers::Owned,
    by: &Principal,
    metadata: Value,
    now: time::Millis,
) -> rusqlite::Result<()> {
    let log = StatusLog {
        id: words::id(),
        container: owned.container.id,
        from: Some(owned.container.status),
        to: owned.container.status,
        at: now,
        duration_ms: None,
        triggered_by: by.label(),
        metadata: Some(metadata),
    };
    status_logs::insert(db, &log)
}

/// Change what is said in one transaction, and have it hold.
async fn change(
    control: &Control,
    principal: &Principal,
    id: Id,
    change: impl FnOnce(Option<Network>) -> Result<Option<Network>, Fault> + Send + 'static,
) -> Result<Option<Network>, Fault> {
    supported(control)?;
    let (by, now) = (principal.clone(), control.now());
    let changed = control
        .store
        .write("change the network of a container", move |db| {
            let owned = match changeable(db, &by, id)? {
                Ok(owned) => owned,
                Err(fault) => return Ok(Err(fault)),
            };
            let before = networks::find(db, id)?;
            let after = match change(before.clone()) {
                Ok(after) => after,
                Err(fault) => return Ok(Err(fault)),
            };
            if after == before {
                return Ok(Ok(after));
            }
            match &after {
                Some(network) => networks::put(db, network)?,
                None => {
                    networks::delete(db, id)?;
                }
            }
            let way = match &after {
                Some(network) if network.enabled => network.kind.as_str(),
                _ => "direct",
            };
            note(db, &owned, &by, json!({ "network": way }), now)?;
            Ok(Ok(after))
        })
        .await
        .map_err(broken)??;
    // Where it fails, the answer's status says so, and it is tried again.
    policies::apply(control).await.ok();
    Ok(changed)
}

async fn found(control: &Control, principal: &Principal, id: Id) -> Result<Option<Network>, Fault> {
    seen(control, principal, id).await?;
    control
        .store
        .read("look up the network of a container", move |db| {
            networks::find(db, id)
        })
        .await
        .map_err(broken)
}

/// How a container reaches the network. Credentials of its proxy are never shown.
#[derive(Deserialize, JsonSchema)]
pub struct Get {
    id: IdText,
}

impl Operation for Get {
    const ROUTE: Route = Route::get("/api/v1/containers/{id}/network")
        .named("getContainerNetworkConfig")
        .cli("network get");
    type Service = Control;
    type Reply = Shown;

    async fn run(self, control: Control, call: Call) -> Result<Shown, Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersRead)?;
        let network = found(&control, &principal, self.id.0).await?;
        Ok(Shown::of(&control, self.id.0, network.as_ref()))
    }
}

/// Say how a container reaches the network: `block` for not at all, `socks5` or `http` for all TCP
/// and all names through a proxy and nothing else at all. It holds when this answers, also for what
/// runs in the container; connections that went out another way end.
///
/// Names are asked of the name servers through the proxy, over TCP. What is in the container still
/// reaches the URLs of this node. `https` is not offered.
#[derive(Deserialize, JsonSchema)]
pub struct Update {
    id: IdText,
    #[serde(rename = "type")]
    kind: Kind,
    /// The proxy, such as `socks5://user:password@proxy.example.com:1080`. What is kept stays where
    /// this is left out and the type is the same.
    proxy: Option<String>,
    /// Where the proxy is, for people.
    country: Option<String>,
    city: Option<String>,
    region: Option<String>,
    comment: Option<Comment>,
    /// IPv4 addresses that are asked for names, through the proxy; public ones where none are named.
    dns_servers: Option<Vec<String>>,
}

impl Operation for Update {
    const ROUTE: Route = Route::put("/api/v1/containers/{id}/network")
        .also(Verb::Patch)
        .named("updateContainerNetworkConfig")
        .cli("network update")
        .says("Network updated");
    type Service = Control;
    type Reply = Shown;

    async fn run(self, control: Control, call: Call) -> Result<Shown, Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersUpdate)?;
        principal.may(Permission::Networking)?;
        let (id, now) = (self.id.0, control.now());
        if self.kind == Kind::Https {
            let message = "this node speaks to proxies by `socks5` and `http`, not over TLS";
            return Err(invalid("type", message));
        }
        let proxy = match (&self.proxy, self.kind) {
            (None, _) => None,
            (Some(_), Kind::Block) => {
                return Err(invalid("proxy", "has no meaning where all is blocked"));
            }
            (Some(text), kind) => {
                Some(Proxy::parse(text, kind).map_err(|why| invalid("proxy", why))?)
            }
        };
        for (field, text) in [
            ("country", &self.country),
            ("city", &self.city),
            ("region", &self.region),
        ] {
            if text
                .as_ref()
                .is_some_and(|text| text.chars().count() > PLACE)
            {
                return Err(invalid(
                    field,
                    format!("must have up to {PLACE} characters"),
                ));
            }
        }
        let servers = self.dns_servers.map(servers).transpose()?;
        let credentials = proxy
            .as_ref()
            .and_then(|proxy| proxy.credentials.as_ref())
            .map(|credentials| policies::seal(&control.secrets, id, credentials));
        let kind = self.kind;
        let network = change(&control, &principal, id, move |before| {
            let same = before.filter(|before| before.kind == kind.as_str());
            let mut network = same.unwrap_or_else(|| Network {
                container: id,
                kind: kind.as_str().to_owned(),
                host: None,
                port: None,
                credentials: None,
                dns_servers: Vec::new(),
                country: None,
                city: None,
                region: None,
                comment: None,
                enabled: true,
                configured_at: now,
            });
            if let Some(proxy) = proxy {
                network.host = Some(proxy.host);
                network.port = Some(proxy.port);
                network.credentials = credentials;
            }
            if kind != Kind::Block && network.host.is_none() {
                let message = format!("must name the proxy, such as {}://host:1080", kind.as_str());
                return Err(invalid("proxy", message));
            }
            if let Some(servers) = servers {
                network.dns_servers = servers;
            }
            for (kept, given) in [
                (&mut network.country, self.country),
                (&mut network.city, self.city),
                (&mut network.region, self.region),
                (&mut network.comment, self.comment.map(Comment::into_string)),
            ] {
                if given.is_some() {
                    *kept = given;
                }
            }
            network.enabled = true;
            network.configured_at = now;
            Ok(Some(network))
        })
        .await?;
        Ok(Shown::of(&control, id, network.as_ref()))
    }
}

/// Forget what was said: the container reaches the network directly.
#[derive(Deserialize, JsonSchema)]
pub struct Delete {
    id: IdText,
}

impl Operation for Delete {
    const ROUTE: Route = Route::delete("/api/v1/containers/{id}/network")
        .named("removeContainerNetworkConfig")
        .cli("network delete")
        .says("Network configuration removed");
    type Service = Control;
    type Reply = ();

    async fn run(self, control: Control, call: Call) -> Result<(), Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersUpdate)?;
        principal.may(Permission::Networking)?;
        let id = self.id.0;
        let forget = move |before: Option<Network>| {
            before.ok_or_else(|| nothing_said(id))?;
            Ok(None)
        };
        change(&control, &principal, id, forget).await?;
        Ok(())
    }
}

/// Have what was said hold again, after `stop`.
#[derive(Deserialize, JsonSchema)]
pub struct Start {
    id: IdText,
}

impl Operation for Start {
    const ROUTE: Route = Route::post("/api/v1/containers/{id}/network/start")
        .named("startContainerNetwork")
        .cli("network start")
        .says("Network started");
    type Service = Control;
    type Reply = Running;

    async fn run(self, control: Control, call: Call) -> Result<Running, Fault> {
        turn(control, call, self.id.0, true).await
    }
}

/// Have what was said not hold for now: the container reaches the network directly.
#[derive(Deserialize, JsonSchema)]
pub struct Stop {
    id: IdText,
}

impl Operation for Stop {
    const ROUTE: Route = Route::post("/api/v1/containers/{id}/network/stop")
        .named("stopContainerNetwork")
        .cli("network stop")
        .says("Network stopped");
    type Service = Control;
    type Reply = Running;

    async fn run(self, control: Control, call: Call) -> Result<Running, Fault> {
        turn(control, call, self.id.0, false).await
    }
}

async fn turn(control: Control, call: Call, id: Id, enabled: bool) -> Result<Running, Fault> {
    let principal = Principal::who_may(&call, Permission::ContainersUpdate)?;
    principal.may(Permission::Networking)?;
    let network = change(&control, &principal, id, move |before| {
        let network = before.ok_or_else(|| nothing_said(id))?;
        Ok(Some(Network { enabled, ..network }))
    })
    .await?
    .ok_or_else(|| nothing_said(id))?;
    let status = state(&control, &network);
    Ok(Running {
        container_id: id.to_string(),
        status,
        is_running: status == State::Running,
        last_check: time::text(control.now()),
    })
}

fn servers(given: Vec<String>) -> Result<Vec<Ipv4Addr>, Fault> {
    if given.len() > SERVERS {
        return Err(invalid("dns_servers", format!("holds more than {SERVERS}")));
    }
    given
        .iter()
        .map(|text| {
            text.parse()
                .map_err(|_| invalid("dns_servers", format!("`{text}` must be an IPv4 address")))
        })
        .collect()
}

/// A proxy as it was given.
#[derive(Debug, PartialEq, Eq)]
struct Proxy {
    host: String,
    port: u16,
    credentials: Option<Credentials>,
}

impl Proxy {
    /// `socks5://user:password@host:port`; scheme, credentials and the slash at the end may be
    /// missing. No word of what was given is in the error: it may be a password.
    fn parse(text: &str, kind: Kind) -> Result<Proxy, String> {
        if text.len() > PROXY {
            return Err(format!("must have up to {PROXY} characters"));
        }
        let scheme = kind.as_str();
        let rest = match text.split_once("://") {
            Some((given, rest)) if given == scheme || (given, scheme) == ("socks5h", "socks5") => {
                rest
            }
            Some(_) => return Err(format!("must begin with `{scheme}://`, as the type says")),
            None => text,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (given, place) = match rest.rsplit_once('@') {
            Some((given, place)) => (Some(given), place),
            None => (None, rest),
        };
        let (host, port) = place
            .rsplit_once(':')
            .ok_or("must end with a host and a port, such as proxy.example.com:1080")?;
        let port: u16 = Some(port)
            .filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|port| port.parse().ok())
            .filter(|port| *port > 0)
            .ok_or("must end with a port from 1 to 65535")?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if host.is_empty() || host.len() > 253 || !host.bytes().all(plain) {
            return Err("must name a host, or its IPv4 address".to_owned());
        }
        if let Ok(ip) = host.parse::<Ipv4Addr>()
            && (ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || ip.is_multicast())
        {
            return Err("must be reachable from this node: no loopback, no link-local".to_owned());
        }
        let credentials = match given {
            None => None,
            Some(given) => {
                let decode = |text: &str| {
                    let plain = percent_decode_str(text).decode_utf8();
                    plain
                        .ok()
                        .filter(|text| !text.chars().any(char::is_control))
                        .filter(|text| text.len() <= SOCKS_TEXT)
                        .map(|text| text.into_owned())
                        .ok_or_else(|| {
                            format!("has a user or a password that is no text of up to {SOCKS_TEXT} bytes")
                        })
                };
                let (user, password) = given.split_once(':').unwrap_or((given, ""));
                let credentials = Credentials {
                    user: decode(user)?,
                    password: decode(password)?,
                };
                if credentials.user.is_empty() || credentials.user.contains(':') {
                    return Err("has a user that is empty or has a colon".to_owned());
                }
                Some(credentials)
            }
        };
        Ok(Proxy {
            host: host.to_owned(),
            port,
            credentials,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read() {
        let with = |user: &str, password: &str| {
            Some(Credentials {
                user: user.to_owned(),
                password: password.to_owned(),
            })
        };
        for (text, kind, host, port, credentials) in [
            ("socks5://h:1080", Kind::Socks5, "h", 1080, None),
            ("socks5h://h:1080/", Kind::Socks5, "h", 1080, None),
            ("192.0.2.1:80", Kind::Http, "192.0.2.1", 80, None),
            ("socks5://u:p@h:1", Kind::Socks5, "h", 1, with("u", "p")),
            (
                "http://u:p%40%3A@a.b-c:8080",
                Kind::Http,
                "a.b-c",
                8080,
                with("u", "p@:"),
            ),
            ("http://u@h:1", Kind::Http, "h", 1, with("u", "")),
            ("http://u:a@b@h:1", Kind::Http, "h", 1, with("u", "a@b")),
        ] {
            let proxy = Proxy::parse(text, kind).unwrap();
            assert_eq!(
                (proxy.host.as_str(), proxy.port, proxy.credentials),
                (host, port, credentials),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_its_secret() {
        for text in [
            "",
            "h",
            "h:0",
            "h:65536",
            "h:+1",
            "http://hush@h:1",
            "socks5://u:hush@:1",
            "socks5://u:hush@h",
            "socks5://u:hush@[::1]:1",
            "socks5://:hush@h:1",
            "socks5://u:hush%00@h:1",
            "socks5://u:hush@127.0.0.1:1080",
            "socks5://u:hush@169.254.169.254:80",
            "socks5://u:hush@h/x:1",
            &format!("socks5://u:hush{}@h:1", "x".repeat(256)),
        ] {
            let error = Proxy::parse(text, Kind::Socks5).unwrap_err();
            assert!(!error.contains("hush"), "{text}: {error}");
        }
    }
}
