//! Aliases: short names of the node's own that lead to one service of one container.

use std::borrow::Cow;

use kit::{Call, Fault, Operation, Route};
use routes::access::{ANY, Program};
use routes::address::LAST_INDEX;
use routes::domain::{check_name, check_target};
use routes::{Id, Zone};
use rusqlite::Connection;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::containers::{going, invalid, no_container, sees};
use super::proxy_permissions::settled;
use super::text::{IdText, Number, given};
use super::tokens::Expiry;
use crate::auth::permissions::Permission;
use crate::auth::{Principal, broken};
use crate::container::Wants;
use crate::control::Control;
use crate::edge;
use crate::reconcile::hostname;
use crate::store::aliases::Filter;
use crate::store::containers::Owned;
use crate::store::events::{Kind, News};
use crate::store::{self, aliases, containers};
use crate::time::{self, Millis};
use crate::words;

/// An alias.
#[derive(Serialize, JsonSchema)]
pub struct Alias {
    id: String,
    user_id: String,
    project_id: String,
    container_id: String,
    alias: String,
    /// The service, or `http`, `https` or `ssh`.
    program: String,
    /// Its index; the port of `http` and `https`.
    index: u32,
    /// What the bare name shows.
    target_path: Option<String>,
    /// Whether other paths than the target's are served.
    allow_path_override: bool,
    expires_at: Option<String>,
    enabled: bool,
    created_at: String,
    updated_at: String,
    server_id: Option<String>,
    server_name: Option<String>,
    subserver_name: String,
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<Project>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<Container>,
}

#[derive(Serialize, JsonSchema)]
struct Project {
    id: String,
    alias: String,
}

#[derive(Serialize, JsonSchema)]
struct Container {
    id: String,
    name: String,
}

impl Alias {
    fn of(control: &Control, alias: &store::aliases::Alias, owned: &Owned) -> Alias {
        Alias {
            id: alias.id.to_string(),
            user_id: owned.project.user.to_string(),
            project_id: owned.project.id.to_string(),
            container_id: alias.container.to_string(),
            alias: alias.name.clone(),
            program: alias.program.clone(),
            index: alias.number,
            target_path: alias.target_path.clone(),
            allow_path_override: alias.allow_path_override,
            expires_at: alias.expires_at.map(time::text),
            enabled: alias.enabled,
            created_at: time::text(alias.created_at),
            updated_at: time::text(alias.updated_at),
            server_id: Some(control.identity.id.to_string()),
            server_name: Some(control.config.node.clone()),
            subserver_name: hostname(&owned.container.name),
            url: Some(url(control, &alias.name)),
            project: None,
            container: None,
        }
    }
}

/// The URL of an alias of this node.
pub fn url(control: &Control, name: &str) -> String {
    let config = &control.config;
    config.url(&format!(
        "{name}.{}.containers.{}",
        config.node, config.domain
    ))
}

/// A name for an alias; false or null for one that is made up.
#[derive(Debug, Default)]
struct Named(Option<String>);

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::Null | serde_json::Value::Bool(false) => Ok(Named(None)),
            serde_json::Value::String(name) => Ok(Named(Some(name))),
            _ => Err(D::Error::custom(
                "must be a name, or false or null to have one made up",
            )),
        }
    }
}

impl JsonSchema for Named {
    fn schema_name() -> Cow<'static, str> {
        "Named".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "string", "minLength": 3, "maxLength": 61 },
            { "type": "boolean", "const": false },
            { "type": "null" },
        ] })
    }
}

/// A name made up: 192 random bits, which nobody guesses.
fn made_up() -> String {
    format!("{}{}", words::id(), words::id())
}

fn name(control: &Control, name: &str) -> Result<(), Fault> {
    let config = &control.config;
    let zone = Zone::new(&config.domain, &config.node)
        .map_err(|error| Fault::internal(format!("the node's names are not usable: {error}")))?;
    check_name(name, &zone).map_err(|error| invalid("alias", error.to_string()))
}

/// The canonical name of a program, with the port that may stand in it.
fn program(text: &str) -> Result<(String, Option<u32>), Fault> {
    const WORDS: &str = "there are the services, such as terminal, files and exec, and http, https and ssh; scripts are behind exec";
    let unknown = || invalid("program", format!("unknown program name `{text}`: {WORDS}"));
    let lower = text.to_ascii_lowercase();
    let (stem, port) = match lower.split_once('-') {
        Some((stem @ ("http" | "https"), port)) => {
            let port = port.parse::<u16>().ok().filter(|port| *port > 0);
            (stem, Some(u32::from(port.ok_or_else(unknown)?)))
        }
        _ => (&*lower, None),
    };
    if stem == "desktop" {
        return Ok((stem.to_owned(), port));
    }
    match Program::parse(stem) {
        Some(known) if known.as_str() != ANY => Ok((known.as_str().to_owned(), port)),
        _ => Err(unknown()),
    }
}

type Port = Number<1, 65_535>;
type Index = Number<1, LAST_INDEX>;

/// The index of a service, or the port of `http` and `https`: `port` wins over one that stands in
/// the program, and that over `index`.
fn number(
    program: &str,
    embedded: Option<u32>,
    port: Option<Port>,
    index: Option<Index>,
) -> Option<u32> {
    match program {
        "http" | "https" => port
            .map(|port| port.0)
            .or(embedded)
            .or(index.map(|index| index.0)),
        "ssh" => Some(1),
        _ => index.map(|index| index.0),
    }
}

fn usual_number(program: &str) -> u32 {
    match program {
        "http" => 80,
        "https" => 443,
        _ => 1,
    }
}

fn target(text: &str) -> Result<Option<String>, Fault> {
    check_target(text)
        .map(|target| target.map(String::from))
        .map_err(|error| invalid("target_path", error.to_string()))
}

fn taken(name: &str) -> Fault {
    Fault::conflict(format!(
        "the alias `{name}` is in use on this server; choose another name"
    ))
    .code("ALIAS_IN_USE")
}

fn no_alias(id: Id) -> Fault {
    Fault::not_found(format!("no alias {id}; list them with `hoody proxy list`")).code("NOT_FOUND")
}

/// An alias with its container, if the caller sees that.
fn seen(
    db: &Connection,
    principal: &Principal,
    id: Id,
) -> rusqlite::Result<Result<(store::aliases::Alias, Owned), Fault>> {
    let Some(alias) = aliases::find(db, id)? else {
        return Ok(Err(no_alias(id)));
    };
    let owned = containers::owned(db, alias.container)?;
    Ok(match owned.filter(|owned| sees(principal, owned)) {
        Some(owned) => Ok((alias, owned)),
        None => Err(no_alias(id)),
    })
}

#[derive(Serialize, JsonSchema)]
pub struct Aliases {
    aliases: Vec<Alias>,
    count: usize,
}

/// The account's aliases, newest first.
#[derive(Deserialize, JsonSchema)]
pub struct List {
    /// Only those of this project.
    project_id: Option<IdText>,
    /// Only those of this container.
    container_id: Option<IdText>,
    /// Only those of containers in this realm.
    #[expect(dead_code, reason = "the gate reads it")]
    realm_id: Option<String>,
    /// Only those that are on, or off.
    enabled: Option<bool>,
    /// Only those that have expired, or have not.
    expired: Option<bool>,
}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/proxy/aliases")
        .named("listProxyAliases")
        .cli("proxy list");
    type Service = Control;
    type Reply = Aliases;

    async fn run(self, control: Control, call: Call) -> Result<Aliases, Fault> {
        let principal = Principal::who_may(&call, Permission::ProxyAliases)?;
        let filter = Filter {
            user: principal.user.id,
            project: self.project_id.map(|id| id.0),
            container: self.container_id.map(|id| id.0),
            realms: principal.realms(),
            enabled: self.enabled,
            expired: self.expired,
            now: control.now(),
        };
        let all = control
            .store
            .read("list aliases", move |db| {
                let mut all = Vec::new();
                for alias in aliases::list(db, &filter)? {
                    if let Some(owned) = containers::owned(db, alias.container)? {
                        all.push((alias, owned));
                    }
                }
                Ok(all)
            })
            .await
            .map_err(broken)?;
        let aliases: Vec<Alias> = all
            .iter()
            .map(|(alias, owned)| Alias::of(&control, alias, owned))
            .collect();
        Ok(Aliases {
            count: aliases.len(),
            aliases,
        })
    }
}

/// Give a container's service a short name of this server.
///
/// The name hides the ids of the container, and is behind the same gates.
#[derive(Deserialize, JsonSchema)]
pub struct Create {
    container_id: IdText,
    /// 3 to 61 lower-case letters, digits and hyphens; one of 48 hexadecimal digits is made up for
    /// false or null. A name exists once on a server.
    #[serde(default)]
    alias: Named,
    /// The service, such as terminal, files or exec; http or https for a server of your own inside,
    /// with its port; ssh.
    program: String,
    /// The port of http and https; 80 and 443 where it is not said.
    port: Option<Port>,
    /// The index of the service, 1 where it is not said.
    index: Option<Index>,
    /// What the bare name shows: a path, perhaps with a query.
    target_path: Option<String>,
    /// Whether other paths are served as they are asked for; otherwise the target is all there is.
    #[serde(default = "yes")]
    allow_path_override: bool,
    /// When it ends by itself: an RFC 3339 time; never where null.
    expires_at: Option<Expiry>,
    #[serde(default = "yes")]
    enabled: bool,
}

fn yes() -> bool {
    true
}

impl Operation for Create {
    const ROUTE: Route = Route::post("/api/v1/proxy/aliases")
        .named("createProxyAlias")
        .cli("proxy create")
        .status(201)
        .says("Proxy alias created");
    type Service = Control;
    type Reply = Alias;

    async fn run(self, control: Control, call: Call) -> Result<Alias, Fault> {
        let principal = Principal::who_may(&call, Permission::ProxyAliases)?;
        let now = control.now();
        let chosen = match self.alias.0 {
            Some(chosen) => {
                name(&control, &chosen)?;
                chosen
            }
            None => made_up(),
        };
        let (program, embedded) = program(&self.program)?;
        let number = number(&program, embedded, self.port, self.index)
            .unwrap_or_else(|| usual_number(&program));
        let alias = store::aliases::Alias {
            id: words::id(),
            name: chosen,
            container: self.container_id.0,
            program,
            number,
            target_path: match self.target_path.as_deref() {
                Some(path) => target(path)?,
                None => None,
            },
            allow_path_override: self.allow_path_override,
            expires_at: self.expires_at.map(|at| at.at(now)).transpose()?,
            enabled: self.enabled,
            created_at: now,
            updated_at: now,
        };
        let most = control.config.limits.aliases_per_container;
        let publisher = control.clone();
        let made = control
            .store
            .write_then(
                "make an alias",
                move |db| {
                    let id = alias.container;
                    let owned = containers::owned(db, id)?;
                    let Some(owned) = owned.filter(|owned| sees(&principal, owned)) else {
                        return Ok(Err(no_container(id)));
                    };
                    if owned.container.wants == Wants::Gone {
                        return Ok(Err(going(id)));
                    }
                    if aliases::is_taken(db, &alias.name, alias.id)? {
                        return Ok(Err(taken(&alias.name)));
                    }
                    if aliases::count(db, id)? >= most {
                        return Ok(Err(Fault::conflict(format!(
                            "a container may have {most} aliases, and this one has them; delete some"
                        ))
                        .code("LIMIT_REACHED")));
                    }
                    aliases::insert(db, &alias)?;
                    record(db, Kind::ProxyAliasCreated, &alias, &principal, now)?;
                    Ok(Ok((alias, owned)))
                },
                move |made| {
                    if let Ok((alias, _)) = made {
                        let published = edge::in_force(alias, now);
                        publisher.publisher.set_alias(&alias.name, published);
                    }
                },
            )
            .await
            .map_err(broken)?;
        let (alias, owned) = made?;
        settled(&control).await;
        Ok(Alias::of(&control, &alias, &owned))
    }
}

/// One alias.
#[derive(Deserialize, JsonSchema)]
pub struct Get {
    id: IdText,
}

impl Operation for Get {
    const ROUTE: Route = Route::get("/api/v1/proxy/aliases/{id}")
        .named("getProxyAliasById")
        .cli("proxy get");
    type Service = Control;
    type Reply = Alias;

    async fn run(self, control: Control, call: Call) -> Result<Alias, Fault> {
        let principal = Principal::who_may(&call, Permission::ProxyAliases)?;
        let id = self.id.0;
        let found = control
            .store
            .read("look up an alias", move |db| seen(db, &principal, id))
            .await
            .map_err(broken)?;
        let (alias, owned) = found?;
        Ok(Alias {
            project: Some(Project {
                id: owned.project.id.to_string(),
                alias: owned.project.alias.clone(),
            }),
            container: Some(Container {
                id: owned.container.id.to_string(),
                name: owned.container.name.clone(),
            }),
            ..Alias::of(&control, &alias, &owned)
        })
    }
}

fn record(
    db: &Connection,
    kind: Kind,
    alias: &store::aliases::Alias,
    principal: &Principal,
    at: Millis,
) -> rusqlite::Result<()> {
    let by = principal.label();
    let facts = json!({ "alias": alias.name, "program": alias.program, "enabled": alias.enabled });
    let news = News {
        kind,
        by: &by,
        at,
        facts,
    };
    store::events::of_container(db, alias.container, Some(alias.id), &news)
}

/// Change an alias in one transaction, and have the proxy know before the answer.
async fn change(
    control: &Control,
    call: &Call,
    id: Id,
    change: impl FnOnce(&mut store::aliases::Alias, Millis) -> Result<(), Fault> + Send + 'static,
) -> Result<Alias, Fault> {
    let principal = Principal::who_may(call, Permission::ProxyAliases)?;
    let now = control.now();
    let publisher = control.clone();
    let changed = control
        .store
        .write_then(
            "change an alias",
            move |db| {
                let (before, owned) = match seen(db, &principal, id)? {
                    Ok(found) => found,
                    Err(fault) => return Ok(Err(fault)),
                };
                let mut alias = before.clone();
                if let Err(fault) = change(&mut alias, now) {
                    return Ok(Err(fault));
                }
                if aliases::is_taken(db, &alias.name, id)? {
                    return Ok(Err(taken(&alias.name)));
                }
                alias.updated_at = now;
                aliases::update(db, &alias)?;
                let kind = match (before.enabled, alias.enabled) {
                    (false, true) => Kind::ProxyAliasEnabled,
                    (true, false) => Kind::ProxyAliasDisabled,
                    _ => Kind::ProxyAliasUpdated,
                };
                record(db, kind, &alias, &principal, now)?;
                Ok(Ok((before.name, alias, owned)))
            },
            move |changed| {
                if let Ok((before, alias, _)) = changed {
                    if *before != alias.name {
                        publisher.publisher.set_alias(before, None);
                    }
                    let published = edge::in_force(alias, now);
                    publisher.publisher.set_alias(&alias.name, published);
                }
            },
        )
        .await
        .map_err(broken)?;
    let (_, alias, owned) = changed?;
    settled(control).await;
    Ok(Alias::of(control, &alias, &owned))
}

/// Change an alias; what is not named stays.
#[derive(Deserialize, JsonSchema)]
pub struct Update {
    id: IdText,
    /// 3 to 61 lower-case letters, digits and hyphens.
    alias: Option<String>,
    /// The service, such as terminal, files or exec; http, https or ssh.
    program: Option<String>,
    /// The port of http and https.
    port: Option<Port>,
    /// The index of the service.
    index: Option<Index>,
    /// What the bare name shows; null for whatever the service shows.
    #[serde(default, deserialize_with = "given")]
    target_path: Option<Option<String>>,
    /// Whether other paths than the target's are served.
    allow_path_override: Option<bool>,
    /// When it ends by itself: an RFC 3339 or Unix time; never where null.
    #[serde(default, deserialize_with = "given")]
    expires_at: Option<Option<Expiry>>,
    enabled: Option<bool>,
}

impl Operation for Update {
    const ROUTE: Route = Route::patch("/api/v1/proxy/aliases/{id}")
        .named("updateProxyAlias")
        .cli("proxy update")
        .says("Proxy alias updated");
    type Service = Control;
    type Reply = Alias;

    async fn run(self, control: Control, call: Call) -> Result<Alias, Fault> {
        if let Some(chosen) = &self.alias {
            name(&control, chosen)?;
        }
        let program = self.program.as_deref().map(program).transpose()?;
        let target = match self.target_path {
            Some(Some(path)) => Some(target(&path)?),
            Some(None) => Some(None),
            None => None,
        };
        change(&control, &call, self.id.0, move |alias, now| {
            if let Some(chosen) = self.alias {
                alias.name = chosen;
            }
            let embedded = match program {
                Some((program, embedded)) => {
                    if program != alias.program {
                        alias.number = usual_number(&program);
                        alias.program = program;
                    }
                    embedded
                }
                None => None,
            };
            if let Some(number) = number(&alias.program, embedded, self.port, self.index) {
                alias.number = number;
            }
            if let Some(target) = target {
                alias.target_path = target;
            }
            if let Some(allowed) = self.allow_path_override {
                alias.allow_path_override = allowed;
            }
            if let Some(expires) = self.expires_at {
                alias.expires_at = expires.map(|at| at.at(now)).transpose()?;
            }
            if let Some(enabled) = self.enabled {
                alias.enabled = enabled;
            }
            Ok(())
        })
        .await
    }
}

/// Switch an alias on or off. While it is off its name answers like one that was never made, and
/// nobody else can have it.
#[derive(Deserialize, JsonSchema)]
pub struct SetState {
    id: IdText,
    enabled: bool,
}

impl Operation for SetState {
    const ROUTE: Route = Route::patch("/api/v1/proxy/aliases/{id}/state")
        .named("setProxyAliasState")
        .cli("proxy set-state")
        .says("Proxy alias updated");
    type Service = Control;
    type Reply = Alias;

    async fn run(self, control: Control, call: Call) -> Result<Alias, Fault> {
        let enabled = self.enabled;
        change(&control, &call, self.id.0, move |alias, now| {
            if enabled && alias.expires_at.is_some_and(|expires| expires <= now) {
                return Err(Fault::conflict(format!(
                    "the alias `{}` has expired; give it another `expires_at` first",
                    alias.name
                ))
                .code("ALIAS_EXPIRED"));
            }
            alias.enabled = enabled;
            Ok(())
        })
        .await
    }
}

/// Delete an alias. Its name is free at once.
#[derive(Deserialize, JsonSchema)]
pub struct Delete {
    id: IdText,
}

impl Operation for Delete {
    const ROUTE: Route = Route::delete("/api/v1/proxy/aliases/{id}")
        .named("deleteProxyAlias")
        .cli("proxy delete")
        .says("Proxy alias deleted");
    type Service = Control;
    type Reply = ();

    async fn run(self, control: Control, call: Call) -> Result<(), Fault> {
        let principal = Principal::who_may(&call, Permission::ProxyAliases)?;
        let (id, now) = (self.id.0, control.now());
        let publisher = control.clone();
        let gone = control
            .store
            .write_then(
                "delete an alias",
                move |db| {
                    let (alias, _) = match seen(db, &principal, id)? {
                        Ok(found) => found,
                        Err(fault) => return Ok(Err(fault)),
                    };
                    aliases::delete(db, id)?;
                    record(db, Kind::ProxyAliasDeleted, &alias, &principal, now)?;
                    Ok(Ok(alias.name))
                },
                move |gone| {
                    if let Ok(name) = gone {
                        publisher.publisher.set_alias(name, None);
                    }
                },
            )
            .await
            .map_err(broken)?;
        gone?;
        settled(&control).await;
        Ok(())
    }
}

/// An alias as a container names it.
#[derive(Serialize, JsonSchema)]
pub struct ProxyDomain {
    id: String,
    alias: String,
    program: String,
    index: u32,
    target_path: Option<String>,
    allow_path_override: bool,
    expires_at: Option<String>,
    enabled: bool,
    created_at: String,
    updated_at: String,
    url: Option<String>,
}

impl ProxyDomain {
    pub fn of(control: &Control, alias: &store::aliases::Alias) -> ProxyDomain {
        ProxyDomain {
            id: alias.id.to_string(),
            alias: alias.name.clone(),
            program: alias.program.clone(),
            index: alias.number,
            target_path: alias.target_path.clone(),
            allow_path_override: alias.allow_path_override,
            expires_at: alias.expires_at.map(time::text),
            enabled: alias.enabled,
            created_at: time::text(alias.created_at),
            updated_at: time::text(alias.updated_at),
            url: Some(url(control, &alias.name)),
        }
    }
}
