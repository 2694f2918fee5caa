//! Hooks: scripts of a container that see requests before they are passed on.

use std::collections::BTreeMap;

use kit::{Call, Fault, Operation, Route, Verb};
use routes::access::Program;
use routes::hook::{self, Hook as Kept, Hooks, Match as Matches, OnError, Script as Runs};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::containers::invalid;
use super::proxy_permissions::{
    Change, OfContainer, Version, change, etag, missing, read, refused,
};
use super::text::{IdText, Number};
use crate::control::Control;
use crate::rules::{Rules, WITHOUT_HOOKS, is_group};
use crate::store::rules::Kept as Document;
use crate::time::Millis;
use crate::words;

/// A hook.
#[derive(Serialize, JsonSchema)]
pub struct Hook {
    /// 26 characters.
    id: String,
    /// From 0; the first hook that a request meets is asked, and no other.
    position: usize,
    r#match: Match,
    script: Script,
    /// The time that the script has, in milliseconds.
    timeout: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    applies_to: Option<AppliesTo>,
    /// What becomes of a request whose script fails or is late: `open` lets it pass, `closed`
    /// refuses it.
    on_error: Failing,
}

/// Which requests a hook sees. What is not named, is met by every request.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// One method or several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    method: Option<Methods>,
    /// A pattern of the path: `*` is any part of a segment, `**` any part of the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// Patterns by the name of a header: `*` is any text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    headers: Option<Map<String, Value>>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Methods {
    One(String),
    Several(Vec<String>),
}

/// A script of the container's exec service.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Script {
    /// The directory that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subdomain: Option<String>,
    /// The instance of exec that runs it; 1 where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exec_id: Option<String>,
    path: String,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AppliesTo {
    /// Only requests that passed the gates as one of these groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<String>>,
}

#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Failing {
    Open,
    Closed,
}

impl Hook {
    fn of(position: usize, hook: &Kept) -> Hook {
        let Matches {
            methods,
            path,
            headers,
        } = &hook.matches;
        Hook {
            id: hook.id.clone(),
            position,
            r#match: Match {
                method: match &methods[..] {
                    [] => None,
                    [one] => Some(Methods::One(one.clone())),
                    several => Some(Methods::Several(several.to_vec())),
                },
                path: path.clone(),
                headers: (!headers.is_empty()).then(|| {
                    let header = |(name, value): (&String, &String)| {
                        (name.clone(), Value::from(value.as_str()))
                    };
                    headers.iter().map(header).collect()
                }),
            },
            script: Script {
                subdomain: hook.script.subdomain.clone(),
                exec_id: Some(hook.script.index.to_string()),
                path: hook.script.path.clone(),
            },
            timeout: hook.timeout,
            applies_to: (!hook.groups.is_empty()).then(|| AppliesTo {
                groups: Some(hook.groups.clone()),
            }),
            on_error: match hook.on_error {
                OnError::Open => Failing::Open,
                OnError::Closed => Failing::Closed,
            },
        }
    }
}

/// The hooks of one service as they are shown.
pub fn shown(hooks: &[Kept]) -> Vec<Hook> {
    let hooks = hooks.iter().enumerate();
    hooks.map(|(at, hook)| Hook::of(at, hook)).collect()
}

/// All hooks as they are shown, by service.
pub fn shown_all(hooks: &Hooks) -> Map<String, Value> {
    let service = |(service, hooks): (&String, &Vec<Kept>)| {
        let hooks = serde_json::to_value(shown(hooks)).expect("hooks are plain JSON");
        (service.clone(), hooks)
    };
    hooks.iter().map(service).collect()
}

/// A hook as it is written.
#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    id: Option<String>,
    r#match: Match,
    script: Script,
    timeout: Option<Number<1, { hook::TIMEOUT_MS }>>,
    applies_to: Option<AppliesTo>,
    on_error: Option<Failing>,
}

/// Put these hooks in place of all.
pub fn replace_all(
    rules: &mut Rules,
    given: &Map<String, Value>,
    now: Millis,
) -> Result<(), Fault> {
    let before = std::mem::take(&mut rules.hooks);
    for (name, hooks) in given {
        let service = service(name, &format!("hooks/{name}"))?;
        let Value::Array(hooks) = hooks else {
            return Err(invalid(&format!("hooks/{name}"), "must be a list of hooks"));
        };
        for (at, hook) in hooks.iter().enumerate() {
            let place = format!("hooks/{name}/{at}");
            let written: Written = serde_json::from_value(hook.clone())
                .map_err(|error| invalid(&place, format!("is no hook: {error}")))?;
            // A hook that was there keeps its id.
            let known = written.id.as_ref().filter(|id| {
                before
                    .get(&service)
                    .is_some_and(|hooks| hooks.iter().any(|hook| hook.id == **id))
            });
            let id = known.cloned().unwrap_or_else(|| words::ulid(now));
            let hook = hook_of(written, id)
                .map_err(|(field, message)| invalid(&format!("{place}/{field}"), message))?;
            rules.add_hook(&service, hook, None).map_err(|mut wrong| {
                wrong.place = format!("/{place}{}", wrong.place);
                refused(wrong)
            })?;
        }
    }
    Ok(())
}

/// The slug of a service that may have hooks.
fn service(name: &str, field: &str) -> Result<String, Fault> {
    if WITHOUT_HOOKS.contains(&name) {
        return Err(invalid(field, format!("`{name}` cannot have hooks")));
    }
    match Program::parse(name) {
        Some(program) if WITHOUT_HOOKS.contains(&program.as_str()) => {
            Err(invalid(field, format!("`{name}` cannot have hooks")))
        }
        Some(program) if program.as_str() != routes::access::ANY => Ok(program.as_str().to_owned()),
        _ => Err(invalid(
            field,
            format!("no service `{name}`; there are terminal, files, exec, http and others"),
        )),
    }
}

/// A hook that is within its bounds, or which field is not.
fn hook_of(written: Written, id: String) -> Result<Kept, (&'static str, String)> {
    let Match {
        method,
        path,
        headers,
    } = written.r#match;
    let methods = match method {
        None => Vec::new(),
        Some(Methods::One(one)) if one == "*" => Vec::new(),
        Some(Methods::One(one)) => vec![one],
        Some(Methods::Several(several)) => several,
    };
    let word = |text: &String| {
        !text.is_empty() && text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_alphabetic())
    };
    if methods.len() > hook::METHODS || !methods.iter().all(word) {
        let message = format!("must be at most {} methods, such as GET", hook::METHODS);
        return Err(("match/method", message));
    }
    if let Some(path) = &path {
        let begins = path.starts_with('/') || path.starts_with('*');
        let plain = path.bytes().all(|byte| byte.is_ascii_graphic());
        if !begins || !plain || path.len() > hook::PATTERN_BYTES {
            let message = format!(
                "must be a pattern that begins with / or *, of at most {} printable ASCII characters",
                hook::PATTERN_BYTES
            );
            return Err(("match/path", message));
        }
    }
    let mut named = BTreeMap::new();
    for (name, value) in headers.unwrap_or_default() {
        let header = http::HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| ("match/headers", format!("`{name}` is no name of a header")))?;
        let Value::String(value) = value else {
            let message = format!("`{name}` must have a text as its pattern");
            return Err(("match/headers", message));
        };
        if value.len() > hook::PATTERN_BYTES {
            let message = format!("`{name}` has more than {} bytes", hook::PATTERN_BYTES);
            return Err(("match/headers", message));
        }
        named.insert(header.as_str().to_owned(), value);
    }
    if named.len() > hook::HEADERS {
        let message = format!("must be at most {} headers", hook::HEADERS);
        return Err(("match/headers", message));
    }
    let groups = written
        .applies_to
        .and_then(|applies| applies.groups)
        .unwrap_or_default();
    if groups.len() > hook::GROUPS || !groups.iter().all(|name| is_group(name)) {
        let message = format!("must be at most {} names of groups", hook::GROUPS);
        return Err(("applies_to/groups", message));
    }
    Ok(Kept {
        id,
        matches: Matches {
            methods: methods
                .into_iter()
                .map(|method| method.to_ascii_uppercase())
                .collect(),
            path,
            headers: named,
        },
        script: script(written.script)?,
        timeout: written.timeout.map_or(hook::TIMEOUT_MS, |number| number.0),
        groups,
        on_error: match written.on_error {
            Some(Failing::Open) => OnError::Open,
            Some(Failing::Closed) | None => OnError::Closed,
        },
    })
}

fn script(script: Script) -> Result<Runs, (&'static str, String)> {
    let index = match script.exec_id.as_deref() {
        None => 1,
        Some(text) => match text.parse::<u16>() {
            Ok(index) if index > 0 => u32::from(index),
            _ => return Err(("script/execId", "must be a number from 1 to 65535".into())),
        },
    };
    let label = |text: &String| {
        (1..=63).contains(&text.len())
            && text
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && !text.starts_with('-')
            && !text.ends_with('-')
    };
    if script.subdomain.as_ref().is_some_and(|text| !label(text)) {
        let message = "must have 1 to 63 lower-case letters, digits and hyphens".to_owned();
        return Err(("script/subdomain", message));
    }
    let path = match script.path.starts_with('/') {
        true => script.path,
        false => format!("/{}", script.path),
    };
    let plain = path
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'\\'));
    let climbs = path
        .split(['/', '?'])
        .any(|part| matches!(part, "." | ".."));
    if path.len() < 2 || path.len() > hook::PATTERN_BYTES || !plain || climbs {
        let message = format!(
            "must be the path of a script, of at most {} printable ASCII characters, without . and .. as parts",
            hook::PATTERN_BYTES
        );
        return Err(("script/path", message));
    }
    Ok(Runs {
        subdomain: script.subdomain,
        index,
        path,
    })
}

/// A version, as every answer has it.
#[derive(Serialize, JsonSchema)]
pub struct At {
    file_version: u64,
    etag: String,
}

impl At {
    fn of(kept: &Document) -> At {
        At {
            file_version: kept.version,
            etag: etag(kept.version),
        }
    }
}

#[derive(Serialize, JsonSchema)]
pub struct One {
    hook: Hook,
    #[serde(flatten)]
    at: At,
}

#[derive(Serialize, JsonSchema)]
pub struct All {
    /// By service.
    hooks: Map<String, Value>,
    #[serde(flatten)]
    at: At,
}

#[derive(Serialize, JsonSchema)]
pub struct OfService {
    service: String,
    hooks: Vec<Hook>,
    #[serde(flatten)]
    at: At,
}

#[derive(Serialize, JsonSchema)]
pub struct Cleared {
    removed: usize,
    #[serde(flatten)]
    at: At,
}

/// All hooks of a container.
#[derive(Deserialize, JsonSchema)]
pub struct List {
    id: IdText,
}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/containers/{id}/proxy/hooks")
        .named("listContainerProxyHooks")
        .cli("containers proxy hooks list");
    type Service = Control;
    type Reply = All;

    async fn run(self, control: Control, call: Call) -> Result<All, Fault> {
        let (_, kept) = read::<OfContainer>(&control, &call, self.id.0).await?;
        let none = Hooks::new();
        let hooks = kept.rules.as_ref().map_or(&none, |rules| &rules.hooks);
        Ok(All {
            hooks: shown_all(hooks),
            at: At::of(&kept),
        })
    }
}

/// The hooks of one service, in their order.
#[derive(Deserialize, JsonSchema)]
pub struct ListService {
    id: IdText,
    service: String,
}

impl Operation for ListService {
    const ROUTE: Route = Route::get("/api/v1/containers/{id}/proxy/hooks/{service}")
        .named("listContainerProxyServiceHooks")
        .cli("containers proxy hooks list-service");
    type Service = Control;
    type Reply = OfService;

    async fn run(self, control: Control, call: Call) -> Result<OfService, Fault> {
        let service = service(&self.service, "service")?;
        let (_, kept) = read::<OfContainer>(&control, &call, self.id.0).await?;
        let hooks = kept
            .rules
            .as_ref()
            .and_then(|rules| rules.hooks.get(&service));
        Ok(OfService {
            hooks: shown(hooks.map_or(&[], Vec::as_slice)),
            service,
            at: At::of(&kept),
        })
    }
}

/// One hook.
#[derive(Deserialize, JsonSchema)]
pub struct Get {
    id: IdText,
    service: String,
    #[serde(rename = "hookId")]
    hook: String,
}

impl Operation for Get {
    const ROUTE: Route = Route::get("/api/v1/containers/{id}/proxy/hooks/{service}/{hookId}")
        .named("getContainerProxyHook")
        .cli("containers proxy hooks get");
    type Service = Control;
    type Reply = One;

    async fn run(self, control: Control, call: Call) -> Result<One, Fault> {
        let service = service(&self.service, "service")?;
        let (_, kept) = read::<OfContainer>(&control, &call, self.id.0).await?;
        let rules = kept.rules.clone().unwrap_or_default();
        let (position, hook) = rules.hook(&service, &self.hook).map_err(missing)?;
        Ok(One {
            hook: Hook::of(position, hook),
            at: At::of(&kept),
        })
    }
}

/// Change the rules, and show one hook of them as it is then.
async fn touch(
    control: &Control,
    call: &Call,
    id: IdText,
    version: Option<Version>,
    service: String,
    edit: impl FnOnce(&mut Rules) -> Result<String, Fault> + Send + 'static,
) -> Result<One, Fault> {
    let (_, kept, hook) = change::<OfContainer, Hook>(control, call, id.0, version, move |rules| {
        let mut rules = rules.unwrap_or_default();
        let id = edit(&mut rules)?;
        let (position, hook) = rules.hook(&service, &id).map_err(missing)?;
        let shown = Hook::of(position, hook);
        Ok((Change::Rules(rules), shown))
    })
    .await?;
    Ok(One {
        hook,
        at: At::of(&kept),
    })
}

/// Have a script see requests for a service before they are passed on.
///
/// The script is one of the container's exec service. Of the hooks of a service the first that a
/// request meets is asked; there may be 8 for a service and 32 in all.
#[derive(Deserialize, JsonSchema)]
pub struct Add {
    id: IdText,
    /// The service: terminal, files, http and others.
    service: String,
    /// The version of the rules that is changed: `file:v<N>`, `file:v0` while there are none.
    #[serde(rename = "if-match")]
    if_match: Option<Version>,
    /// Which requests it sees.
    r#match: Match,
    script: Script,
    /// The time that the script has, in milliseconds; 30 s where it is not said.
    timeout: Option<Number<1, { hook::TIMEOUT_MS }>>,
    applies_to: Option<AppliesTo>,
    /// Where among the hooks of the service, from 0; at the end where it is not said.
    position: Option<Number<0, 1000>>,
    /// What becomes of a request whose script fails or is late: `closed`, which is what happens
    /// where it is not said, refuses it, `open` lets it pass.
    on_error: Option<Failing>,
}

impl Operation for Add {
    const ROUTE: Route = Route::post("/api/v1/containers/{id}/proxy/hooks/{service}")
        .headers(&["if-match"])
        .named("addContainerProxyHook")
        .cli("containers proxy hooks create")
        .says("Hook added");
    type Service = Control;
    type Reply = One;

    async fn run(self, control: Control, call: Call) -> Result<One, Fault> {
        let service = service(&self.service, "service")?;
        let written = Written {
            id: None,
            r#match: self.r#match,
            script: self.script,
            timeout: self.timeout,
            applies_to: self.applies_to,
            on_error: self.on_error,
        };
        let hook = hook_of(written, words::ulid(control.now()))
            .map_err(|(field, message)| invalid(field, message))?;
        let position = self.position.map(|at| at.0 as usize);
        let on = service.clone();
        touch(
            &control,
            &call,
            self.id,
            self.if_match,
            service,
            move |rules| {
                let id = hook.id.clone();
                rules.add_hook(&on, hook, position).map_err(|wrong| {
                    // Of a bound that is reached nothing in the request is wrong.
                    match wrong.place.is_empty() {
                        true => Fault::conflict(wrong.message).code("LIMIT_REACHED"),
                        false => refused(wrong),
                    }
                })?;
                Ok(id)
            },
        )
        .await
    }
}

/// Write a hook anew. It keeps its id, and its place where no position is named.
#[derive(Deserialize, JsonSchema)]
pub struct Update {
    id: IdText,
    service: String,
    #[serde(rename = "hookId")]
    hook: String,
    /// The version of the rules that is changed: `file:v<N>`.
    #[serde(rename = "if-match")]
    if_match: Option<Version>,
    /// Which requests it sees.
    r#match: Match,
    script: Script,
    /// The time that the script has, in milliseconds; 30 s where it is not said.
    timeout: Option<Number<1, { hook::TIMEOUT_MS }>>,
    applies_to: Option<AppliesTo>,
    position: Option<Number<0, 1000>>,
    /// What becomes of a request whose script fails or is late: `closed` or `open`.
    on_error: Option<Failing>,
}

impl Operation for Update {
    const ROUTE: Route = Route::put("/api/v1/containers/{id}/proxy/hooks/{service}/{hookId}")
        .also(Verb::Patch)
        .headers(&["if-match"])
        .named("updateContainerProxyHookPatch")
        .cli("containers proxy hooks update")
        .says("Hook updated");
    type Service = Control;
    type Reply = One;

    async fn run(self, control: Control, call: Call) -> Result<One, Fault> {
        let service = service(&self.service, "service")?;
        let written = Written {
            id: None,
            r#match: self.r#match,
            script: self.script,
            timeout: self.timeout,
            applies_to: self.applies_to,
            on_error: self.on_error,
        };
        let id = self.hook;
        let hook =
            hook_of(written, id.clone()).map_err(|(field, message)| invalid(field, message))?;
        let position = self.position.map(|at| at.0 as usize);
        let on = service.clone();
        touch(
            &control,
            &call,
            self.id,
            self.if_match,
            service,
            move |rules| {
                rules.hook(&on, &id).map_err(missing)?;
                rules.put_hook(&on, hook, &id).map_err(refused)?;
                if let Some(position) = position {
                    rules.move_hook(&on, &id, position).map_err(missing)?;
                }
                Ok(id)
            },
        )
        .await
    }
}

/// Move a hook to another place in the order of its service.
#[derive(Deserialize, JsonSchema)]
pub struct Move {
    id: IdText,
    service: String,
    #[serde(rename = "hookId")]
    hook: String,
    /// The version of the rules that is changed: `file:v<N>`.
    #[serde(rename = "if-match")]
    if_match: Option<Version>,
    /// From 0; beyond the end is the end.
    position: Number<0, 1000>,
}

impl Operation for Move {
    const ROUTE: Route =
        Route::patch("/api/v1/containers/{id}/proxy/hooks/{service}/{hookId}/position")
            .headers(&["if-match"])
            .named("moveContainerProxyHook")
            .cli("containers proxy hooks move")
            .says("Hook moved");
    type Service = Control;
    type Reply = One;

    async fn run(self, control: Control, call: Call) -> Result<One, Fault> {
        let service = service(&self.service, "service")?;
        let (id, position) = (self.hook, self.position.0 as usize);
        let on = service.clone();
        touch(
            &control,
            &call,
            self.id,
            self.if_match,
            service,
            move |rules| {
                rules.move_hook(&on, &id, position).map_err(missing)?;
                Ok(id)
            },
        )
        .await
    }
}

/// Remove a hook.
#[derive(Deserialize, JsonSchema)]
pub struct Remove {
    id: IdText,
    service: String,
    #[serde(rename = "hookId")]
    hook: String,
    /// The version of the rules that is changed: `file:v<N>`.
    #[serde(rename = "if-match")]
    if_match: Option<Version>,
}

impl Operation for Remove {
    const ROUTE: Route = Route::delete("/api/v1/containers/{id}/proxy/hooks/{service}/{hookId}")
        .headers(&["if-match"])
        .named("removeContainerProxyHook")
        .cli("containers proxy hooks delete")
        .says("Hook removed");
    type Service = Control;
    type Reply = At;

    async fn run(self, control: Control, call: Call) -> Result<At, Fault> {
        let service = service(&self.service, "service")?;
        let hook = self.hook;
        let (_, kept, ()) =
            change::<OfContainer, ()>(&control, &call, self.id.0, self.if_match, move |rules| {
                let mut rules = rules.unwrap_or_default();
                rules.remove_hook(&service, &hook).map_err(missing)?;
                Ok((Change::Rules(rules), ()))
            })
            .await?;
        Ok(At::of(&kept))
    }
}

/// Remove all hooks of a service.
#[derive(Deserialize, JsonSchema)]
pub struct Clear {
    id: IdText,
    service: String,
    /// The version of the rules that is changed: `file:v<N>`.
    #[serde(rename = "if-match")]
    if_match: Option<Version>,
}

impl Operation for Clear {
    const ROUTE: Route = Route::delete("/api/v1/containers/{id}/proxy/hooks/{service}")
        .headers(&["if-match"])
        .named("clearContainerProxyServiceHooks")
        .cli("containers proxy hooks clear-service")
        .says("Hooks removed");
    type Service = Control;
    type Reply = Cleared;

    async fn run(self, control: Control, call: Call) -> Result<Cleared, Fault> {
        let service = service(&self.service, "service")?;
        let (_, kept, removed) =
            change::<OfContainer, usize>(&control, &call, self.id.0, self.if_match, move |rules| {
                let Some(mut rules) = rules else {
                    return Ok((Change::Nothing, 0));
                };
                let removed = rules.clear_hooks(&service);
                Ok((Change::Rules(rules), removed))
            })
            .await?;
        Ok(Cleared {
            removed,
            at: At::of(&kept),
        })
    }
}
