//! Who may reach a container's or a project's URLs: their documents of rules.
//!
//! The operations are the same for both; [`OfContainer`] and [`OfProject`] say where they answer
//! and who may call them. Every change is of the version that the caller has seen, which it names
//! in `If-Match`, and is in effect at the proxy when it is answered.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use kit::{Call, Fault, Operation, Route, Verb};
use routes::Id;
use routes::access::Rule;
use rusqlite::Connection;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::containers::{self, going, no_container};
use super::projects::no_project;
use super::text::IdText;
use crate::auth::permissions::Permission;
use crate::auth::{Principal, broken};
use crate::container::Wants;
use crate::control::Control;
use crate::edge;
use crate::publish::Edge;
use crate::rules::{Missing, Rules, SCHEMA, Wrong, is_group};
use crate::store;
use crate::store::events::{Kind, News};
use crate::store::rules::{Kept, Owner};
use crate::time::Millis;

/// How long an answer may wait for the proxy to know of the change.
const PROXY_PATIENCE: Duration = Duration::from_millis(250);

/// The version that a change is of: `file:v<N>`, with or without the quotes of an entity tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version(u64);

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bare = text.trim().trim_matches('"');
        bare.strip_prefix("file:v")
            .and_then(|number| number.parse().ok())
            .map(Version)
            .ok_or_else(|| {
                D::Error::custom("must be the version that the change is of, such as `file:v3`")
            })
    }
}

impl JsonSchema for Version {
    fn schema_name() -> Cow<'static, str> {
        "Version".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// How versions are written.
pub fn etag(version: u64) -> String {
    format!("file:v{version}")
}

/// Whether a change of this version is one of what is there.
fn check(asked: Option<Version>, kept: &Kept) -> Result<(), Fault> {
    let now = etag(kept.version);
    match asked {
        Some(Version(version)) if version == kept.version => Ok(()),
        Some(Version(version)) => Err(Fault::new(
            StatusCode::PRECONDITION_FAILED,
            format!("the rules are at {now}, and the change is of {}; read them again", etag(version)),
        )
        .code("PRECONDITION_FAILED")),
        None => Err(Fault::new(
            StatusCode::PRECONDITION_REQUIRED,
            "name the version that the change is of in the header `If-Match`, such as `file:v3`; `file_version` of the rules has it",
        )
        .code("PRECONDITION_REQUIRED")),
    }
}

pub fn refused(wrong: Wrong) -> Fault {
    Fault::bad_request(format!("{}: {}", wrong.place, wrong.message))
        .code("VALIDATION_ERROR")
        .field(wrong.place, wrong.message)
}

pub fn missing(missing: Missing) -> Fault {
    Fault::not_found(missing.to_string()).code("NOT_FOUND")
}

/// Whose document it is.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    pub owner: Owner,
    pub project: Id,
}

/// Where the operations on one kind of document answer, and who may call them.
pub trait Scope: Send + 'static {
    const READ: Permission;
    const WRITE: Permission;
    const GET: Route;
    const REPLACE: Route;
    const DELETE: Route;
    const DEFAULT: Route;
    const STATE: Route;
    const REMOVE_GROUP: Route;
    const SET_PASSWORD: Route;
    const SET_TOKEN: Route;
    const SET_JWT: Route;
    const SET_IP: Route;
    const SET_PERMISSION: Route;
    const CLEAR_PERMISSIONS: Route;
    const REMOVE_PERMISSION: Route;

    /// The subject with this id, if the caller sees it and with `change` may change it.
    fn find(
        db: &Connection,
        principal: &Principal,
        id: Id,
        change: bool,
    ) -> rusqlite::Result<Result<Subject, Fault>>;
}

/// The document of a container.
pub enum OfContainer {}

/// The document of a project, which holds for all of its containers.
pub enum OfProject {}

const WRITTEN: &str = "Proxy permissions updated";

impl Scope for OfContainer {
    const READ: Permission = Permission::ContainersRead;
    const WRITE: Permission = Permission::ContainersUpdate;
    const GET: Route = Route::get("/api/v1/containers/{id}/proxy/permissions")
        .named("getContainerProxyPermissions")
        .cli("containers proxy permissions get");
    const REPLACE: Route = Route::put("/api/v1/containers/{id}/proxy/permissions")
        .also(Verb::Patch)
        .headers(&["if-match"])
        .named("replaceContainerProxyPermissions")
        .cli("containers proxy permissions replace")
        .says(WRITTEN);
    const DELETE: Route = Route::delete("/api/v1/containers/{id}/proxy/permissions")
        .headers(&["if-match"])
        .named("deleteContainerProxyPermissions")
        .cli("containers proxy permissions delete")
        .says("Proxy permissions deleted");
    const DEFAULT: Route = Route::patch("/api/v1/containers/{id}/proxy/permissions/default")
        .headers(&["if-match"])
        .named("updateContainerProxyDefault")
        .cli("containers proxy default")
        .says(WRITTEN);
    const STATE: Route = Route::patch("/api/v1/containers/{id}/proxy/permissions/state")
        .headers(&["if-match"])
        .named("updateContainerProxyState")
        .cli("containers proxy state")
        .says(WRITTEN);
    const REMOVE_GROUP: Route =
        Route::delete("/api/v1/containers/{id}/proxy/permissions/groups/{groupName}")
            .headers(&["if-match"])
            .named("removeContainerAuthGroup")
            .cli("containers proxy groups delete")
            .says(WRITTEN);
    const SET_PASSWORD: Route =
        Route::put("/api/v1/containers/{id}/proxy/permissions/groups/{groupName}/password")
            .also(Verb::Patch)
            .headers(&["if-match"])
            .named("setContainerPasswordGroup")
            .cli("containers proxy groups password set")
            .says(WRITTEN);
    const SET_TOKEN: Route =
        Route::put("/api/v1/containers/{id}/proxy/permissions/groups/{groupName}/token")
            .also(Verb::Patch)
            .headers(&["if-match"])
            .named("setContainerTokenGroup")
            .cli("containers proxy groups token set")
            .says(WRITTEN);
    const SET_JWT: Route =
        Route::put("/api/v1/containers/{id}/proxy/permissions/groups/{groupName}/jwt")
            .also(Verb::Patch)
            .headers(&["if-match"])
            .named("setContainerJwtGroup")
            .cli("containers proxy groups jwt set")
            .says(WRITTEN);
    const SET_IP: Route =
        Route::put("/api/v1/containers/{id}/proxy/permissions/groups/{groupName}/ip")
            .also(Verb::Patch)
            .headers(&["if-match"])
            .named("setContainerIpGroup")
            .cli("containers proxy groups ip set")
            .says(WRITTEN);
    const SET_PERMISSION: Route =
        Route::put("/api/v1/containers/{id}/proxy/permissions/permissions/{groupName}")
            .also(Verb::Patch)
            .headers(&["if-match"])
            .named("setContainerGroupPermission")
            .cli("containers proxy groups permissions set")
            .says(WRITTEN);
    const CLEAR_PERMISSIONS: Route =
        Route::delete("/api/v1/containers/{id}/proxy/permissions/permissions/{groupName}")
            .headers(&["if-match"])
            .named("removeContainerGroupPermissions")
            .cli("containers proxy groups permissions clear")
            .says(WRITTEN);
    const REMOVE_PERMISSION: Route = Route::delete(
        "/api/v1/containers/{id}/proxy/permissions/permissions/{groupName}/{program}",
    )
    .headers(&["if-match"])
    .named("removeContainerProgramPermission")
    .cli("containers proxy groups permissions delete")
    .says(WRITTEN);

    fn find(
        db: &Connection,
        principal: &Principal,
        id: Id,
        change: bool,
    ) -> rusqlite::Result<Result<Subject, Fault>> {
        let owned = store::containers::owned(db, id)?;
        let Some(owned) = owned.filter(|owned| containers::sees(principal, owned)) else {
            return Ok(Err(no_container(id)));
        };
        if change && owned.container.wants == Wants::Gone {
            return Ok(Err(going(id)));
        }
        Ok(Ok(Subject {
            owner: Owner::Container(id),
            project: owned.project.id,
        }))
    }
}

impl Scope for OfProject {
    const READ: Permission = Permission::ProjectsRead;
    const WRITE: Permission = Permission::ProjectsUpdate;
    const GET: Route = Route::get("/api/v1/projects/{id}/proxy/permissions")
        .named("getProjectProxyPermissions")
        .cli("projects proxy permissions get");
    const REPLACE: Route = Route::put("/api/v1/projects/{id}/proxy/permissions")
        .also(Verb::Patch)
        .headers(&["if-match"])
        .named("replaceProjectProxyPermissions")
        .cli("projects proxy permissions replace")
        .says(WRITTEN);
    const DELETE: Route = Route::delete("/api/v1/projects/{id}/proxy/permissions")
        .headers(&["if-match"])
        .named("deleteProjectProxyPermissions")
        .cli("projects proxy permissions delete")
        .says("Proxy permissions deleted");
    const DEFAULT: Route = Route::patch("/api/v1/projects/{id}/proxy/permissions/default")
        .headers(&["if-match"])
        .named("updateProjectProxyDefault")
        .cli("projects proxy default")
        .says(WRITTEN);
    const STATE: Route = Route::patch("/api/v1/projects/{id}/proxy/permissions/state")
        .headers(&["if-match"])
        .named("updateProjectProxyState")
        .cli("projects proxy state")
        .says(WRITTEN);
    const REMOVE_GROUP: Route =
        Route::delete("/api/v1/projects/{id}/proxy/permissions/groups/{groupName}")
            .headers(&["if-match"])
            .named("removeProjectAuthGroup")
            .cli("projects proxy groups delete")
            .says(WRITTEN);
    const SET_PASSWORD: Route =
        Route::put("/api/v1/projects/{id}/proxy/permissions/groups/{groupName}/password")
            .also(Verb::Patch)
            .headers(&["if-match"])
            .named("setProjectPasswordGroup")
            .cli("projects proxy groups password set")
            .says(WRITTEN);
    const SET_TOKEN: Route =
        Route::put("/api/v1/projects/{id}/proxy/permissions/groups/{groupName}/token")
            .also(Verb::Patch)
            .headers(&["if-match"])
            .named("setProjectTokenGroup")
            .cli("projects proxy groups token set")
            .says(WRITTEN);
    const SET_JWT: Route =
        Route::put("/api/v1/projects/{id}/proxy/permissions/groups/{groupName}/jwt")
            .also(Verb::Patch)
            .headers(&["if-match"])
            .named("setProjectJwtGroup")
            .cli("projects proxy groups jwt set")
            .says(WRITTEN);
    const SET_IP: Route =
        Route::put("/api/v1/projects/{id}/proxy/permissions/groups/{groupName}/ip")
            .also(Verb::Patch)
            .headers(&["if-match"])
            .named("setProjectIpGroup")
            .cli("projects proxy groups ip set")
            .says(WRITTEN);
    const SET_PERMISSION: Route =
        Route::put("/api/v1/projects/{id}/proxy/permissions/permissions/{groupName}")
            .also(Verb::Patch)
            .headers(&["if-match"])
            .named("setProjectGroupPermission")
            .cli("projects proxy groups permissions set")
            .says(WRITTEN);
    const CLEAR_PERMISSIONS: Route =
        Route::delete("/api/v1/projects/{id}/proxy/permissions/permissions/{groupName}")
            .headers(&["if-match"])
            .named("removeProjectGroupPermissions")
            .cli("projects proxy groups permissions clear")
            .says(WRITTEN);
    const REMOVE_PERMISSION: Route =
        Route::delete("/api/v1/projects/{id}/proxy/permissions/permissions/{groupName}/{program}")
            .headers(&["if-match"])
            .named("removeProjectProgramPermission")
            .cli("projects proxy groups permissions delete")
            .says(WRITTEN);

    fn find(
        db: &Connection,
        principal: &Principal,
        id: Id,
        _: bool,
    ) -> rusqlite::Result<Result<Subject, Fault>> {
        let project = store::projects::find(db, id)?;
        let seen = project.filter(|project| {
            project.user == principal.user.id && principal.realms().see(&project.realms)
        });
        Ok(seen
            .map(|project| Subject {
                owner: Owner::Project(id),
                project: project.id,
            })
            .ok_or_else(|| no_project(id)))
    }
}

/// Rules as they are shown: secrets are never, `[REDACTED]` stands for each. Where there are none,
/// what holds then.
#[derive(Serialize, JsonSchema)]
pub struct Document {
    project: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<String>,
    /// By name: one gate, or a list of ways of which one is enough; `{"all": [gate, ...]}` is a
    /// way that takes all of its gates.
    groups: Map<String, Value>,
    /// By group, then by program: which of its indexes or ports.
    permissions: Map<String, Value>,
    /// For everybody else: `allow` or `deny`.
    default: &'static str,
    /// False refuses everything.
    enable_proxy: bool,
    /// By service, in their order.
    #[serde(skip_serializing_if = "Option::is_none")]
    hooks: Option<Map<String, Value>>,
    schema_version: u32,
    /// 0 where there are no rules.
    file_version: u64,
    etag: String,
}

pub fn rule(rule: Rule) -> &'static str {
    match rule {
        Rule::Allow => "allow",
        Rule::Deny => "deny",
    }
}

impl Document {
    fn of(subject: Subject, kept: &Kept) -> Document {
        let none = Rules::default();
        let rules = kept.rules.as_ref().unwrap_or(&none);
        let container = match subject.owner {
            Owner::Container(id) => Some(id.to_string()),
            Owner::Project(_) => None,
        };
        Document {
            project: subject.project.to_string(),
            groups: rules.shown_groups(),
            permissions: rules.shown_permissions(),
            default: rule(rules.default),
            enable_proxy: rules.enabled,
            hooks: container
                .is_some()
                .then(|| super::proxy_hooks::shown_all(&rules.hooks)),
            container,
            schema_version: SCHEMA,
            file_version: kept.version,
            etag: etag(kept.version),
        }
    }
}

/// The rules of what the caller sees.
pub async fn read<S: Scope>(
    control: &Control,
    call: &Call,
    id: Id,
) -> Result<(Subject, Kept), Fault> {
    let principal = Principal::who_may(call, S::READ)?;
    control
        .store
        .read("read proxy permissions", move |db| {
            let subject = match S::find(db, &principal, id, false)? {
                Ok(subject) => subject,
                Err(fault) => return Ok(Err(fault)),
            };
            Ok(Ok((subject, store::rules::find(db, subject.owner)?)))
        })
        .await
        .map_err(broken)?
}

/// Record that rules changed: whose, and to which version. What they say stays where it is read.
fn record(
    db: &Connection,
    owner: Owner,
    version: u64,
    principal: &Principal,
    at: Millis,
) -> rusqlite::Result<()> {
    let by = principal.label();
    let news = News {
        kind: Kind::ProxyPermissionsUpdated,
        by: &by,
        at,
        facts: json!({ "version": version }),
    };
    match owner {
        Owner::Container(id) => store::events::of_container(db, id, None, &news),
        Owner::Project(id) => store::events::of_project(db, id, None, &news),
    }
}

/// What a change leaves behind.
pub enum Change {
    Rules(Rules),
    Nothing,
}

/// Change the rules of one version in one transaction, and have the proxy know before the answer.
pub async fn change<S: Scope, T: Send + 'static>(
    control: &Control,
    call: &Call,
    id: Id,
    version: Option<Version>,
    change: impl FnOnce(Option<Rules>) -> Result<(Change, T), Fault> + Send + 'static,
) -> Result<(Subject, Kept, T), Fault> {
    let principal = Principal::who_may(call, S::WRITE)?;
    let now = control.now();
    let publisher = control.clone();
    let done = control
        .store
        .write_then(
            "change proxy permissions",
            move |db| {
                let subject = match S::find(db, &principal, id, true)? {
                    Ok(subject) => subject,
                    Err(fault) => return Ok(Err(fault)),
                };
                let kept = store::rules::find(db, subject.owner)?;
                if let Err(fault) = check(version, &kept) {
                    return Ok(Err(fault));
                }
                let (after, told) = match change(kept.rules) {
                    Ok(after) => after,
                    Err(fault) => return Ok(Err(fault)),
                };
                let rules = match after {
                    Change::Rules(rules) => match rules.check() {
                        Ok(()) => Some(rules),
                        Err(wrong) => return Ok(Err(refused(wrong))),
                    },
                    Change::Nothing => None,
                };
                let kept = store::rules::put(db, subject.owner, rules.as_ref(), now)?;
                record(db, subject.owner, kept.version, &principal, now)?;
                let edge = match subject.owner {
                    Owner::Container(id) => edge::of_container(db, id, now)?,
                    Owner::Project(_) => Edge::default(),
                };
                Ok(Ok((subject, kept, edge, told)))
            },
            move |done| {
                let Ok((subject, kept, edge, _)) = done else {
                    return;
                };
                match subject.owner {
                    Owner::Container(id) => publisher.publisher.set_edge(id, edge.clone()),
                    Owner::Project(id) => {
                        let policy = kept.rules.as_ref().map(|rules| Arc::new(rules.policy()));
                        publisher.publisher.set_project(id, policy);
                    }
                }
            },
        )
        .await
        .map_err(broken)?;
    let (subject, kept, _, told) = done?;
    control.publisher.settled(PROXY_PATIENCE).await;
    Ok((subject, kept, told))
}

/// A change that keeps the rules, and makes them where there are none.
async fn edit<S: Scope>(
    control: &Control,
    call: &Call,
    id: Id,
    version: Option<Version>,
    edit: impl FnOnce(&mut Rules) -> Result<(), Fault> + Send + 'static,
) -> Result<Document, Fault> {
    let (subject, kept, ()) = change::<S, ()>(control, call, id, version, move |rules| {
        let mut rules = rules.unwrap_or_default();
        edit(&mut rules)?;
        Ok((Change::Rules(rules), ()))
    })
    .await?;
    Ok(Document::of(subject, &kept))
}

/// Wait until the proxy knows what was changed, but not for long.
pub async fn settled(control: &Control) {
    control.publisher.settled(PROXY_PATIENCE).await;
}

/// The name of a group that is to be set.
#[derive(Debug)]
pub struct GroupName(String);

impl<'de> Deserialize<'de> for GroupName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if !is_group(&text) {
            let words = "must have 1 to 50 letters, digits, `_` and `-`";
            return Err(D::Error::custom(words));
        }
        Ok(GroupName(text))
    }
}

impl JsonSchema for GroupName {
    fn schema_name() -> Cow<'static, str> {
        "GroupName".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{1,50}$" })
    }
}

/// What is done to everybody whom no group lets in.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fallback {
    Allow,
    Deny,
}

impl From<Fallback> for Rule {
    fn from(default: Fallback) -> Rule {
        match default {
            Fallback::Allow => Rule::Allow,
            Fallback::Deny => Rule::Deny,
        }
    }
}

/// Who may reach its URLs, and its version. Secrets are never shown.
#[derive(Deserialize, JsonSchema)]
#[serde(bound = "")]
#[schemars(bound = "")]
pub struct Get<S> {
    id: IdText,
    #[serde(skip)]
    scope: PhantomData<fn() -> S>,
}

impl<S: Scope> Operation for Get<S> {
    const ROUTE: Route = S::GET;
    type Service = Control;
    type Reply = Document;

    async fn run(self, control: Control, call: Call) -> Result<Document, Fault> {
        let (subject, kept) = read::<S>(&control, &call, self.id.0).await?;
        Ok(Document::of(subject, &kept))
    }
}

/// Write all rules anew. Where a secret is `[REDACTED]`, the one that was there stays.
#[derive(Deserialize, JsonSchema)]
#[serde(bound = "")]
#[schemars(bound = "")]
pub struct Replace<S> {
    id: IdText,
    /// The version that is replaced: `file:v<N>`.
    #[serde(rename = "if-match")]
    if_match: Option<Version>,
    /// The project that the rules are of, or whose container.
    project: IdText,
    /// The container, where the rules are of one.
    container: Option<IdText>,
    /// By name: one gate, or a list of ways of which one is enough. A gate has a `type`:
    /// `password` (username, password, salt), `token` (header, cookie or param, and value), `jwt`
    /// (secret, algorithm, sources, claims) or `ip` (range). `{"all": [gate, ...]}` is a way that
    /// takes all of its gates.
    groups: Map<String, Value>,
    /// By group, then by program: `true`, `false`, `*`, a number, a list of numbers, or ranges
    /// such as `1-4,8`.
    permissions: Map<String, Value>,
    /// For everybody else; `deny` where it is not said.
    default: Option<Fallback>,
    /// False refuses everything.
    enable_proxy: Option<bool>,
    /// By service; those that are there stay where it is not said. Of containers only.
    hooks: Option<Map<String, Value>>,
    #[serde(skip)]
    scope: PhantomData<fn() -> S>,
}

impl<S: Scope> Operation for Replace<S> {
    const ROUTE: Route = S::REPLACE;
    type Service = Control;
    type Reply = Document;

    async fn run(self, control: Control, call: Call) -> Result<Document, Fault> {
        let Replace {
            id,
            if_match,
            project,
            container,
            groups,
            permissions,
            default,
            enable_proxy,
            hooks,
            ..
        } = self;
        let now = control.now();
        // The names in the document must be those of the path.
        let subject = read::<S>(&control, &call, id.0).await?.0;
        let own = match subject.owner {
            Owner::Container(id) => (subject.project, Some(id)),
            Owner::Project(id) => (id, None),
        };
        if project.0 != own.0 {
            let message = format!("must be {}, as in the path", own.0);
            return Err(containers::invalid("project", message));
        }
        match (container, own.1) {
            (None, Some(_)) => {
                return Err(containers::invalid("container", "is required"));
            }
            (Some(named), Some(own)) if named.0 != own => {
                let message = format!("must be {own}, as in the path");
                return Err(containers::invalid("container", message));
            }
            (Some(_), None) => {
                let message = "is for the rules of a container; these are of a project";
                return Err(containers::invalid("container", message));
            }
            _ => {}
        }
        if hooks.is_some() && own.1.is_none() {
            let message = "are on containers; a project has none";
            return Err(containers::invalid("hooks", message));
        }
        let (subject, kept, ()) = change::<S, ()>(&control, &call, id.0, if_match, move |before| {
            let before = before.unwrap_or_default();
            let mut rules = before
                .replaced(&groups, &permissions, default.map(Rule::from), enable_proxy)
                .map_err(refused)?;
            if let Some(hooks) = hooks {
                super::proxy_hooks::replace_all(&mut rules, &hooks, now)?;
            }
            Ok((Change::Rules(rules), ()))
        })
        .await?;
        Ok(Document::of(subject, &kept))
    }
}

/// Delete all rules: groups, permissions, default and hooks. Without any, everybody may reach it.
#[derive(Deserialize, JsonSchema)]
#[serde(bound = "")]
#[schemars(bound = "")]
pub struct Delete<S> {
    id: IdText,
    /// The version that is deleted: `file:v<N>`.
    #[serde(rename = "if-match")]
    if_match: Option<Version>,
    #[serde(skip)]
    scope: PhantomData<fn() -> S>,
}

impl<S: Scope> Operation for Delete<S> {
    const ROUTE: Route = S::DELETE;
    type Service = Control;
    type Reply = Document;

    async fn run(self, control: Control, call: Call) -> Result<Document, Fault> {
        let (subject, kept, ()) = change::<S, ()>(
            &control,
            &call,
            self.id.0,
            self.if_match,
            |before| match before {
                Some(_) => Ok((Change::Nothing, ())),
                None => Err(Fault::not_found("there are no rules to delete").code("NOT_FOUND")),
            },
        )
        .await?;
        Ok(Document::of(subject, &kept))
    }
}

/// Say what is done to everybody whom no group lets in.
#[derive(Deserialize, JsonSchema)]
#[serde(bound = "")]
#[schemars(bound = "")]
pub struct SetDefault<S> {
    id: IdText,
    /// The version that is changed: `file:v<N>`, `file:v0` while there are no rules.
    #[serde(rename = "if-match")]
    if_match: Option<Version>,
    default: Fallback,
    #[serde(skip)]
    scope: PhantomData<fn() -> S>,
}

impl<S: Scope> Operation for SetDefault<S> {
    const ROUTE: Route = S::DEFAULT;
    type Service = Control;
    type Reply = Document;

    async fn run(self, control: Control, call: Call) -> Result<Document, Fault> {
        let default = self.default.into();
        edit::<S>(&control, &call, self.id.0, self.if_match, move |rules| {
            rules.default = default;
            Ok(())
        })
        .await
    }
}

/// Cut it off from all visitors, or let them in again. Groups and permissions stay as they are.
/// Rules of a container that has any decide for it, whatever its project's say.
#[derive(Deserialize, JsonSchema)]
#[serde(bound = "")]
#[schemars(bound = "")]
pub struct SetState<S> {
    id: IdText,
    /// The version that is changed: `file:v<N>`, `file:v0` while there are no rules.
    #[serde(rename = "if-match")]
    if_match: Option<Version>,
    enable_proxy: bool,
    #[serde(skip)]
    scope: PhantomData<fn() -> S>,
}

impl<S: Scope> Operation for SetState<S> {
    const ROUTE: Route = S::STATE;
    type Service = Control;
    type Reply = Document;

    async fn run(self, control: Control, call: Call) -> Result<Document, Fault> {
        let enabled = self.enable_proxy;
        edit::<S>(&control, &call, self.id.0, self.if_match, move |rules| {
            rules.enabled = enabled;
            Ok(())
        })
        .await
    }
}

/// Remove a group, with its permissions.
#[derive(Deserialize, JsonSchema)]
#[serde(bound = "")]
#[schemars(bound = "")]
pub struct RemoveGroup<S> {
    id: IdText,
    #[serde(rename = "groupName")]
    group: GroupName,
    /// The version that is changed: `file:v<N>`.
    #[serde(rename = "if-match")]
    if_match: Option<Version>,
    #[serde(skip)]
    scope: PhantomData<fn() -> S>,
}

impl<S: Scope> Operation for RemoveGroup<S> {
    const ROUTE: Route = S::REMOVE_GROUP;
    type Service = Control;
    type Reply = Document;

    async fn run(self, control: Control, call: Call) -> Result<Document, Fault> {
        let GroupName(group) = self.group;
        edit::<S>(&control, &call, self.id.0, self.if_match, move |rules| {
            rules.remove_group(&group).map_err(missing)
        })
        .await
    }
}

async fn set_group<S: Scope>(
    control: &Control,
    call: &Call,
    id: Id,
    version: Option<Version>,
    GroupName(group): GroupName,
    gate: Value,
) -> Result<Document, Fault> {
    edit::<S>(control, call, id, version, move |rules| {
        rules.set_group(&group, &gate).map_err(refused)
    })
    .await
}

/// Let in who knows a user name and a password (HTTP Basic). The password is kept as a hash.
#[derive(Deserialize, JsonSchema)]
#[serde(bound = "")]
#[schemars(bound = "")]
pub struct SetPassword<S> {
    id: IdText,
    #[serde(rename = "groupName")]
    group: GroupName,
    /// The version that is changed: `file:v<N>`, `file:v0` while there are no rules.
    #[serde(rename = "if-match")]
    if_match: Option<Version>,
    username: String,
    /// In clear, or as 64 hexadecimal digits the SHA-256 of the salt and the password after it.
    password: String,
    /// sha256.
    algorithm: Option<String>,
    /// Put before the password when it is hashed; different for every group.
    salt: String,
    #[serde(skip)]
    scope: PhantomData<fn() -> S>,
}

impl<S: Scope> Operation for SetPassword<S> {
    const ROUTE: Route = S::SET_PASSWORD;
    type Service = Control;
    type Reply = Document;

    async fn run(self, control: Control, call: Call) -> Result<Document, Fault> {
        let gate = json!({
            "type": "password",
            "username": self.username,
            "password": self.password,
            "algorithm": self.algorithm.as_deref().unwrap_or("sha256"),
            "salt": self.salt,
        });
        set_group::<S>(&control, &call, self.id.0, self.if_match, self.group, gate).await
    }
}

/// Let in who sends a value in a header, a cookie or a query parameter. Only a digest of the value
/// is kept. Exactly one place has to be named.
#[derive(Deserialize, JsonSchema)]
#[serde(bound = "")]
#[schemars(bound = "")]
pub struct SetToken<S> {
    id: IdText,
    #[serde(rename = "groupName")]
    group: GroupName,
    /// The version that is changed: `file:v<N>`, `file:v0` while there are no rules.
    #[serde(rename = "if-match")]
    if_match: Option<Version>,
    /// The name of a header. In `Authorization` the value may follow `Bearer`.
    header: Option<String>,
    /// The name of a cookie.
    cookie: Option<String>,
    /// The name of a query parameter.
    param: Option<String>,
    value: String,
    #[serde(skip)]
    scope: PhantomData<fn() -> S>,
}

impl<S: Scope> Operation for SetToken<S> {
    const ROUTE: Route = S::SET_TOKEN;
    type Service = Control;
    type Reply = Document;

    async fn run(self, control: Control, call: Call) -> Result<Document, Fault> {
        let gate = json!({
            "type": "token",
            "header": self.header,
            "cookie": self.cookie,
            "param": self.param,
            "value": self.value,
        });
        set_group::<S>(&control, &call, self.id.0, self.if_match, self.group, gate).await
    }
}

/// Let in who has a signed token (JWT).
#[derive(Deserialize, JsonSchema)]
#[serde(bound = "")]
#[schemars(bound = "")]
pub struct SetJwt<S> {
    id: IdText,
    #[serde(rename = "groupName")]
    group: GroupName,
    /// The version that is changed: `file:v<N>`, `file:v0` while there are no rules.
    #[serde(rename = "if-match")]
    if_match: Option<Version>,
    /// For HS algorithms a secret; for the others a public key as PEM, or a JWKS document.
    secret: String,
    /// HS256, HS384, HS512, RS256, RS384, RS512, ES256, ES384 or EdDSA.
    algorithm: String,
    /// Where the token may be: `header:Authorization`, `cookie:session`.
    sources: Vec<String>,
    /// What the token must say: `iss` and `aud` among them.
    claims: Option<Map<String, Value>>,
    #[serde(skip)]
    scope: PhantomData<fn() -> S>,
}

impl<S: Scope> Operation for SetJwt<S> {
    const ROUTE: Route = S::SET_JWT;
    type Service = Control;
    type Reply = Document;

    async fn run(self, control: Control, call: Call) -> Result<Document, Fault> {
        let gate = json!({
            "type": "jwt",
            "secret": self.secret,
            "algorithm": self.algorithm,
            "sources": self.sources,
            "claims": self.claims.unwrap_or_default(),
        });
        set_group::<S>(&control, &call, self.id.0, self.if_match, self.group, gate).await
    }
}

/// Let in who comes from a network.
#[derive(Deserialize, JsonSchema)]
#[serde(bound = "")]
#[schemars(bound = "")]
pub struct SetIp<S> {
    id: IdText,
    #[serde(rename = "groupName")]
    group: GroupName,
    /// The version that is changed: `file:v<N>`, `file:v0` while there are no rules.
    #[serde(rename = "if-match")]
    if_match: Option<Version>,
    /// An IPv4 or IPv6 network, such as 192.0.2.0/24; or several with commas between.
    range: String,
    #[serde(skip)]
    scope: PhantomData<fn() -> S>,
}

impl<S: Scope> Operation for SetIp<S> {
    const ROUTE: Route = S::SET_IP;
    type Service = Control;
    type Reply = Document;

    async fn run(self, control: Control, call: Call) -> Result<Document, Fault> {
        let gate = json!({ "type": "ip", "range": self.range });
        set_group::<S>(&control, &call, self.id.0, self.if_match, self.group, gate).await
    }
}

/// Which indexes or ports, as callers write it.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct Access(Value);

impl JsonSchema for Access {
    fn schema_name() -> Cow<'static, str> {
        "Access".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "boolean" },
            { "type": "integer", "minimum": 0, "maximum": 65535 },
            { "type": "array", "items": { "type": "integer", "minimum": 0, "maximum": 65535 } },
            { "type": "string" },
        ] })
    }
}

/// Say what of a program a group may reach.
#[derive(Deserialize, JsonSchema)]
#[serde(bound = "")]
#[schemars(bound = "")]
pub struct SetPermission<S> {
    id: IdText,
    #[serde(rename = "groupName")]
    group: GroupName,
    /// The version that is changed: `file:v<N>`.
    #[serde(rename = "if-match")]
    if_match: Option<Version>,
    /// A service, such as terminal or files; http, https or ssh; `*` for all.
    program: String,
    /// Which of its indexes or ports: true or `*` for all, false for none, a number, a list of
    /// numbers, or ranges such as `1-4,8`.
    access: Access,
    #[serde(skip)]
    scope: PhantomData<fn() -> S>,
}

impl<S: Scope> Operation for SetPermission<S> {
    const ROUTE: Route = S::SET_PERMISSION;
    type Service = Control;
    type Reply = Document;

    async fn run(self, control: Control, call: Call) -> Result<Document, Fault> {
        let GroupName(group) = self.group;
        let (program, Access(access)) = (self.program, self.access);
        edit::<S>(&control, &call, self.id.0, self.if_match, move |rules| {
            if !rules.has_group(&group) {
                return Err(missing(Missing::Group(group)));
            }
            rules
                .set_permission(&group, &program, &access)
                .map_err(refused)
        })
        .await
    }
}

/// Remove all permissions of a group. The group stays, and may reach nothing by itself.
#[derive(Deserialize, JsonSchema)]
#[serde(bound = "")]
#[schemars(bound = "")]
pub struct ClearPermissions<S> {
    id: IdText,
    #[serde(rename = "groupName")]
    group: GroupName,
    /// The version that is changed: `file:v<N>`.
    #[serde(rename = "if-match")]
    if_match: Option<Version>,
    #[serde(skip)]
    scope: PhantomData<fn() -> S>,
}

impl<S: Scope> Operation for ClearPermissions<S> {
    const ROUTE: Route = S::CLEAR_PERMISSIONS;
    type Service = Control;
    type Reply = Document;

    async fn run(self, control: Control, call: Call) -> Result<Document, Fault> {
        let GroupName(group) = self.group;
        edit::<S>(&control, &call, self.id.0, self.if_match, move |rules| {
            rules.remove_permissions(&group).map_err(missing)
        })
        .await
    }
}

/// Remove what a group may reach of one program.
#[derive(Deserialize, JsonSchema)]
#[serde(bound = "")]
#[schemars(bound = "")]
pub struct RemovePermission<S> {
    id: IdText,
    #[serde(rename = "groupName")]
    group: GroupName,
    /// The program, by any of its names.
    program: String,
    /// The version that is changed: `file:v<N>`.
    #[serde(rename = "if-match")]
    if_match: Option<Version>,
    #[serde(skip)]
    scope: PhantomData<fn() -> S>,
}

impl<S: Scope> Operation for RemovePermission<S> {
    const ROUTE: Route = S::REMOVE_PERMISSION;
    type Service = Control;
    type Reply = Document;

    async fn run(self, control: Control, call: Call) -> Result<Document, Fault> {
        let GroupName(group) = self.group;
        let program = self.program;
        edit::<S>(&control, &call, self.id.0, self.if_match, move |rules| {
            rules.remove_permission(&group, &program).map_err(missing)
        })
        .await
    }
}
