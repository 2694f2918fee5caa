//! From an address to where its requests go.

use std::sync::Arc;

use routes::Id;
use routes::address::{Address, Door, LAST_INDEX, Label, Rejection};
use routes::domain::Alias;
use routes::table::{Place, Table};

use crate::query;
use crate::refusals::Refusal;

/// Where a request goes.
#[derive(Debug, Clone)]
pub enum Destination {
    /// The API, in a realm where the host named one.
    Control { realm: Option<Id> },
    /// The kit of a container.
    Kit {
        place: Arc<Place>,
        door: KitDoor,
        /// The alias that it was named by, where it was.
        alias: Option<Arc<Alias>>,
    },
}

/// What in a kit is asked for.
#[derive(Debug, Clone, Copy)]
pub struct KitDoor {
    /// The slug of a service, or the protocol of a port.
    pub service: &'static str,
    pub index: Option<u32>,
    pub port: Option<u16>,
    pub subdir: Option<Label>,
    /// Whether it is the terminal that starts a desktop: see [`desktop`].
    pub desktop: bool,
}

/// Where requests for this address go at this millisecond since 1970. Whether they may go there
/// now, [`crate::admit`] says.
pub fn resolve(
    address: &Address,
    table: &Table,
    now: impl FnOnce() -> i64,
) -> Result<Destination, Refusal> {
    let mut alias = None;
    let (project, container, door) = match address {
        Address::Api => return Ok(Destination::Control { realm: None }),
        Address::Realm(realm) => {
            return Ok(Destination::Control {
                realm: Some(*realm),
            });
        }
        Address::Container {
            project,
            container,
            door,
        } => (*project, *container, *door),
        Address::Alias(name) => {
            let found = table.aliases.get(name.as_str());
            let found = found.filter(|alias| alias.stands(now()));
            let found = found.ok_or(Refusal::UnknownHost)?;
            alias = Some(found.clone());
            (None, found.container, found.door)
        }
        // Only who is inside of one is led on: see `inside`.
        Address::Local => return Err(Refusal::UnknownHost),
    };
    let place = table.find(project, container).ok_or(match alias {
        // Nothing tells an alias that leads nowhere from one that never was.
        Some(_) => Refusal::UnknownHost,
        None => Refusal::UnknownContainer,
    })?;
    let blank = KitDoor {
        service: "",
        index: None,
        port: None,
        subdir: None,
        desktop: false,
    };
    let door = match door {
        Door::Kit { service, index } => KitDoor {
            service: service.slug,
            index: Some(index),
            ..blank
        },
        Door::Exec { subdir, index } => KitDoor {
            service: "exec",
            index: Some(index),
            subdir: Some(subdir),
            ..blank
        },
        Door::Port { scheme, port } => KitDoor {
            service: scheme.as_str(),
            port: Some(port),
            ..blank
        },
        Door::Desktop { index } => KitDoor {
            service: "terminal",
            index: Some(desktop_index(index).ok_or(Refusal::UnknownService)?),
            desktop: true,
            ..blank
        },
        Door::Ssh | Door::Proxy => return Err(Refusal::NotHttp),
    };
    Ok(Destination::Kit {
        place: place.clone(),
        door,
        alias,
    })
}

/// Desktops have terminals and displays of their own, after those that people count up.
const DESKTOPS: u32 = 1600;

fn desktop_index(index: u32) -> Option<u32> {
    index
        .checked_add(DESKTOPS)
        .filter(|&index| index <= LAST_INDEX)
}

/// What a desktop's terminal is asked for, whatever the visitor sent: to start the desktop and to
/// lead on to its display. Only which desktop it is may be chosen.
pub fn desktop(index: u32, sent: &str) -> String {
    let (path, query) = sent.split_once('?').unwrap_or((sent, ""));
    let mut target =
        format!("{path}?desktop=true&redirect=display&terminal_id={index}&display={index}");
    if let Some(chosen @ ("xfce" | "mate")) = query::value(query, "desktop_env").as_deref() {
        target.push_str("&desktop_env=");
        target.push_str(chosen);
    }
    target
}

/// What a container means that asks `localhost` for this path: the door that the first segment
/// names, and the rest.
pub fn inside(sent: &str) -> Result<(Door, &str), Refusal> {
    let whole = sent.strip_prefix('/').ok_or(Refusal::UnknownService)?;
    let end = whole.find(['/', '?']).unwrap_or(whole.len());
    let door = whole[..end].parse().map_err(refuse_host)?;
    Ok((door, &whole[end..]))
}

/// The path and query to ask the container for, where an alias has a say in it; nothing where
/// what was sent stays as it is.
pub fn target(alias: &Alias, sent: &[u8]) -> Result<Option<String>, Refusal> {
    let Ok(sent) = std::str::from_utf8(sent) else {
        return match alias.pinned {
            true => Err(Refusal::NotBehindAlias),
            false => Ok(None),
        };
    };
    match alias.target(sent) {
        Ok(target) if target == sent => Ok(None),
        Ok(target) => Ok(Some(target.into_owned())),
        Err(_) => Err(Refusal::NotBehindAlias),
    }
}

/// What to say about a host that names nothing.
pub fn refuse_host(rejection: Rejection) -> Refusal {
    match rejection {
        malformed if malformed.is_malformed() => Refusal::BadHost(malformed),
        Rejection::NoService | Rejection::UnknownService | Rejection::BadIndex => {
            Refusal::UnknownService
        }
        _ => Refusal::UnknownHost,
    }
}

#[cfg(test)]
mod tests {
    use routes::Zone;
    use routes::table::{Change, Owners, State, Update};

    use super::*;

    const P: &str = "0123456789abcdef01234567";
    const C: &str = "fedcba9876543210fedcba98";

    #[test]
    fn addresses_lead_where_the_table_says() {
        let zone = Zone::new("hoody.localhost", "box1").expect("a zone");
        let mut table = Table::default();
        let place = Place {
            container: C.parse().expect("an id"),
            project: P.parse().expect("an id"),
            name: "web".into(),
            state: State::Running,
            incarnation: 7,
            directory: "/run/c".into(),
            owners: Owners { base: 1, count: 1 },
            access: None,
            links: None,
            hooks: None,
            address: None,
            embedding: Default::default(),
            sleep: Default::default(),
        };
        table.apply(Update {
            generation: 1,
            change: Change::Upsert(place),
        });
        let alias = |name: &str, container: &str, door: &str| {
            Change::Alias(Alias {
                name: name.into(),
                container: container.parse().expect("an id"),
                door: door.parse().expect("a door"),
                target: None,
                pinned: false,
                expires: (name == "gone").then_some(1_000),
            })
        };
        for (generation, change) in [
            (2, alias("shop", C, "http-3000")),
            (3, alias("gone", C, "http-3000")),
            (4, alias("lost", P, "http-3000")),
            (5, alias("shell", C, "ssh")),
        ] {
            table.apply(Update { generation, change });
        }
        let on = |label: &str| format!("{label}.box1.containers.hoody.localhost");
        let cases = [
            ("api.hoody.localhost".to_owned(), "control"),
            (format!("{P}.api.hoody.localhost"), "control"),
            (on(&format!("{P}-{C}-terminal-1")), "terminal Some(1) None"),
            (on(&format!("{C}-notifications-2")), "n Some(2) None"),
            (on(&format!("{C}-http-3000")), "http None Some(3000)"),
            (on(&format!("shop.{C}-exec-1")), "exec Some(1) None"),
            (on(&format!("{C}-{C}-terminal-1")), "unknown_container"),
            (on(&format!("{P}-{P}-terminal-1")), "unknown_container"),
            (on(&format!("{P}-terminal-1")), "unknown_container"),
            (on(&format!("{P}-{P}-nothing-1")), "unknown_service"),
            (on(&format!("{P}-{C}")), "unknown_service"),
            (on(&format!("{P}-{P}-ssh")), "unknown_container"),
            (on(&format!("{P}-{C}-ssh")), "service_not_http"),
            (on("some-alias"), "unknown_host"),
            (on("SHOP"), "http None Some(3000)"),
            (on("gone"), "unknown_host"),
            (on("lost"), "unknown_host"),
            (on("shell"), "service_not_http"),
            (
                "localhost.containers.hoody.localhost".into(),
                "unknown_host",
            ),
            ("elsewhere.example".into(), "unknown_host"),
            ("a_b".into(), "bad_host"),
        ];
        for (host, expected) in cases {
            let found = Address::parse(&host, &zone)
                .map_err(refuse_host)
                .and_then(|address| resolve(&address, &table, || 1_000));
            let found = match found {
                Ok(Destination::Control { .. }) => "control".to_owned(),
                Ok(Destination::Kit { door, .. }) => {
                    format!("{} {:?} {:?}", door.service, door.index, door.port)
                }
                Err(refusal) => refusal.code().to_owned(),
            };
            assert_eq!(found, expected, "{host}");
        }
    }
}
