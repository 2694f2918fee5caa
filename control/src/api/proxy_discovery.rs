//! What the rules of a container come to: its settings, its groups, and what holds for a service.

use kit::{Call, Fault, Operation, Route, Verb};
use routes::access::Program;
use routes::sleep::IdleAct;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::containers::invalid;
use super::proxy_hooks::{Hook, shown};
use super::proxy_permissions::{
    Change, Fallback, OfContainer, Version, change, etag, read, refused, rule,
};
use super::text::{IdText, given};
use crate::control::Control;
use crate::rules::WITHOUT_HOOKS;

#[derive(Serialize, JsonSchema)]
pub struct Groups {
    groups: Vec<Group>,
    file_version: u64,
    etag: String,
}

#[derive(Serialize, JsonSchema)]
struct Group {
    name: String,
    /// How many gates it has.
    auth_rule_count: usize,
}

/// The groups of a container's rules.
#[derive(Deserialize, JsonSchema)]
pub struct ListGroups {
    id: IdText,
}

impl Operation for ListGroups {
    const ROUTE: Route = Route::get("/api/v1/containers/{id}/proxy/groups")
        .named("listContainerProxyGroups")
        .cli("containers proxy discovery groups list");
    type Service = Control;
    type Reply = Groups;

    async fn run(self, control: Control, call: Call) -> Result<Groups, Fault> {
        let (_, kept) = read::<OfContainer>(&control, &call, self.id.0).await?;
        let rules = kept.rules.unwrap_or_default();
        let group = |(name, count): (&str, usize)| Group {
            name: name.to_owned(),
            auth_rule_count: count,
        };
        Ok(Groups {
            groups: rules.groups().map(group).collect(),
            file_version: kept.version,
            etag: etag(kept.version),
        })
    }
}

#[derive(Serialize, JsonSchema)]
pub struct Services {
    services: Vec<String>,
    file_version: u64,
    etag: String,
}

/// The services that a container's rules say something about. It has others, too.
#[derive(Deserialize, JsonSchema)]
pub struct ListServices {
    id: IdText,
}

impl Operation for ListServices {
    const ROUTE: Route = Route::get("/api/v1/containers/{id}/proxy/services")
        .named("listContainerProxyServices")
        .cli("containers proxy discovery services list");
    type Service = Control;
    type Reply = Services;

    async fn run(self, control: Control, call: Call) -> Result<Services, Fault> {
        let (_, kept) = read::<OfContainer>(&control, &call, self.id.0).await?;
        Ok(Services {
            services: kept.rules.unwrap_or_default().services(),
            file_version: kept.version,
            etag: etag(kept.version),
        })
    }
}

#[derive(Serialize, JsonSchema)]
pub struct Service {
    service: String,
    /// Whether it cannot have hooks.
    is_reject_listed: bool,
    /// What each group may reach of it, as it was written.
    permissions_raw: Map<String, Value>,
    hooks: Vec<Hook>,
    /// What is done to everybody whom no group lets in.
    effective_default: &'static str,
    file_version: u64,
    etag: String,
}

/// What a container's rules say about one service.
#[derive(Deserialize, JsonSchema)]
pub struct GetService {
    id: IdText,
    service: String,
}

impl Operation for GetService {
    const ROUTE: Route = Route::get("/api/v1/containers/{id}/proxy/services/{service}")
        .named("getContainerProxyService")
        .cli("containers proxy discovery services get");
    type Service = Control;
    type Reply = Service;

    async fn run(self, control: Control, call: Call) -> Result<Service, Fault> {
        let name = self.service;
        let program = Program::parse(&name);
        let slug = program.as_ref().map_or(&*name, Program::as_str);
        let rejected = WITHOUT_HOOKS.contains(&&*name) || WITHOUT_HOOKS.contains(&slug);
        if program.is_none() && !rejected {
            return Err(invalid("service", format!("there is no service `{name}`")));
        }
        let (_, kept) = read::<OfContainer>(&control, &call, self.id.0).await?;
        let rules = kept.rules.unwrap_or_default();
        Ok(Service {
            is_reject_listed: rejected,
            permissions_raw: program
                .as_ref()
                .map(|program| rules.permissions_of(program))
                .unwrap_or_default(),
            hooks: shown(rules.hooks.get(slug).map_or(&[], Vec::as_slice)),
            effective_default: rule(rules.default),
            service: slug.to_owned(),
            file_version: kept.version,
            etag: etag(kept.version),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Switch {
    On,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum IdleAction {
    Never,
    Pause,
    Stop,
}

impl IdleAction {
    fn act(self) -> Option<IdleAct> {
        match self {
            IdleAction::Never => None,
            IdleAction::Pause => Some(IdleAct::Pause),
            IdleAction::Stop => Some(IdleAct::Stop),
        }
    }
}

#[derive(Serialize, JsonSchema)]
pub struct Settings {
    /// False refuses everything.
    enable_proxy: bool,
    /// What is done to everybody whom no group lets in.
    default: &'static str,
    /// Whether pages of other hosts may embed what it serves.
    allow_embedding: bool,
    /// The sources that may frame its pages; nobody where the list is empty, and what the service
    /// says by itself where it is null.
    frame_ancestors: Option<Vec<String>>,
    /// Whether a request to one of its URLs wakes it.
    wake: Switch,
    /// What becomes of it when nobody needs it.
    idle_action: IdleAction,
    /// After how many minutes; null where that is `never`.
    idle_minutes: Option<u32>,
    file_version: u64,
    etag: String,
}

impl Settings {
    fn of(kept: crate::store::rules::Kept) -> Settings {
        let rules = kept.rules.unwrap_or_default();
        Settings {
            enable_proxy: rules.enabled,
            default: rule(rules.default),
            allow_embedding: rules.embedding().allowed,
            frame_ancestors: rules.embedding().frame_ancestors.clone(),
            wake: match rules.sleep.wakes {
                true => Switch::On,
                false => Switch::Off,
            },
            idle_action: match rules.sleep.idle.map(|idle| idle.act) {
                None => IdleAction::Never,
                Some(IdleAct::Pause) => IdleAction::Pause,
                Some(IdleAct::Stop) => IdleAction::Stop,
            },
            idle_minutes: rules.sleep.idle.map(|idle| idle.minutes),
            file_version: kept.version,
            etag: etag(kept.version),
        }
    }
}

/// What holds for all of a container's services.
#[derive(Deserialize, JsonSchema)]
pub struct GetSettings {
    id: IdText,
}

impl Operation for GetSettings {
    const ROUTE: Route = Route::get("/api/v1/containers/{id}/proxy/settings")
        .named("getContainerProxySettings")
        .cli("containers proxy settings get");
    type Service = Control;
    type Reply = Settings;

    async fn run(self, control: Control, call: Call) -> Result<Settings, Fault> {
        let (_, kept) = read::<OfContainer>(&control, &call, self.id.0).await?;
        Ok(Settings::of(kept))
    }
}

/// Change what holds for all of a container's services; what is not named stays.
#[derive(Deserialize, JsonSchema)]
pub struct UpdateSettings {
    id: IdText,
    /// The version of the rules that is changed: `file:v<N>`, `file:v0` while there are none.
    #[serde(rename = "if-match")]
    if_match: Option<Version>,
    enable_proxy: Option<bool>,
    default: Option<Fallback>,
    /// Whether pages of other hosts may embed what it serves. Where not, browsers are told so with
    /// every answer, whatever the service says.
    allow_embedding: Option<bool>,
    /// The sources that may frame its pages, in the form of the Content Security Policy: `'self'`,
    /// `https://app.example`, `https://*.example:8443`, `https:`. At most 32; nobody where the list
    /// is empty; null leaves it to what the service says. It replaces what the service says.
    #[serde(default, deserialize_with = "given")]
    frame_ancestors: Option<Option<Vec<String>>>,
    /// Whether a request to one of its URLs wakes it when it is paused or stopped, `on` where nobody
    /// has said. One that was stopped with `force-stop` stays off until it is started.
    wake: Option<Switch>,
    /// What becomes of it when nobody has needed it for a while: `pause` freezes it in memory, `stop`
    /// shuts it down; `never` where nobody has said.
    idle_action: Option<IdleAction>,
    /// Minutes without requests after which that is done: 1 to 43200, 30 where nobody has said.
    idle_minutes: Option<u32>,
}

impl Operation for UpdateSettings {
    const ROUTE: Route = Route::put("/api/v1/containers/{id}/proxy/settings")
        .also(Verb::Patch)
        .headers(&["if-match"])
        .named("updateContainerProxySettingsPatch")
        .cli("containers proxy settings update")
        .says("Proxy settings updated");
    type Service = Control;
    type Reply = Settings;

    async fn run(self, control: Control, call: Call) -> Result<Settings, Fault> {
        let (enabled, default) = (self.enable_proxy, self.default);
        let (embedding, ancestors) = (self.allow_embedding, self.frame_ancestors);
        let (wake, idle, minutes) = (self.wake, self.idle_action, self.idle_minutes);
        let (_, kept, ()) =
            change::<OfContainer, ()>(&control, &call, self.id.0, self.if_match, move |rules| {
                let mut rules = rules.unwrap_or_default();
                if let Some(enabled) = enabled {
                    rules.enabled = enabled;
                }
                if let Some(default) = default {
                    rules.default = default.into();
                }
                if let Some(allowed) = embedding {
                    rules.allow_embedding(allowed);
                }
                if let Some(sources) = ancestors {
                    rules.set_frame_ancestors(sources).map_err(refused)?;
                }
                if let Some(wake) = wake {
                    rules.sleep.wakes = wake == Switch::On;
                }
                if idle.is_some() || minutes.is_some() {
                    let act = idle.map(IdleAction::act);
                    rules.set_idle(act, minutes).map_err(refused)?;
                }
                Ok((Change::Rules(rules), ()))
            })
            .await?;
        Ok(Settings::of(kept))
    }
}
