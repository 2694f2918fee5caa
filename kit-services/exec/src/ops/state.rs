//! The state that scripts share.

use kit::{Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::Exec;
use crate::place::Deployment;

/// Whose state a caller means by a host name: `…-exec-{id}` names the id, what stands before it the
/// script directory; `default` and `default/2` are deployments by name.
pub fn deployment(hostname: &str, id: Option<&str>, call: &Call) -> Result<Deployment, Fault> {
    let text = hostname.trim().to_ascii_lowercase();
    let text = text.split(':').next().unwrap_or_default();
    let labels: Vec<&str> = text.split('.').collect();
    let at = labels.iter().position(|label| label.contains("-exec-"));
    let (subdomain, named) = match at {
        Some(at) => {
            let its = labels[at].rsplit_once("-exec-").map(|(_, id)| id);
            (labels[..at].join("."), its)
        }
        None => match text.split_once('/') {
            Some((subdomain, id)) => (subdomain.to_owned(), Some(id)),
            None => (text.to_owned(), None),
        },
    };
    let subdomain = match subdomain.is_empty() {
        true => "default".to_owned(),
        false => subdomain,
    };
    let id = id.filter(|id| !id.is_empty()).or(named);
    Deployment::of(call, id, Some(&subdomain))
}

/// The parts of a path into the state: `users.7.name`.
fn path_of(path: Option<&String>) -> Vec<String> {
    const DEPTH: usize = 32;
    path.map(String::as_str)
        .unwrap_or_default()
        .split('.')
        .filter(|part| !part.is_empty())
        .take(DEPTH)
        .map(str::to_owned)
        .collect()
}

fn at<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, part| match value {
        Value::Array(many) => many.get(part.parse::<usize>().ok()?),
        other => other.get(part),
    })
}

/// Read the state that the scripts of a deployment share.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Get {
    /// Whose: a host `{subdomain.}…-exec-{id}…`, or `default`.
    hostname: String,
    /// The id, where the host does not say.
    exec_id: Option<String>,
    /// A part of it: names with dots between.
    path: Option<String>,
}

/// State, or that there is none.
#[derive(Debug, Serialize, JsonSchema)]
pub struct State {
    hostname: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    exists: bool,
    state: Value,
    /// Bytes of it as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<usize>,
}

impl Operation for Get {
    const ROUTE: Route = Route::post("/api/v1/exec/shared-state/get")
        .named("getSharedState")
        .cli("exec state get");
    type Service = Exec;
    type Reply = State;

    async fn run(self, exec: Exec, call: Call) -> Result<State, Fault> {
        let deployment = deployment(&self.hostname, self.exec_id.as_deref(), &call)?;
        let state = exec.shared().get(&deployment).map(Value::Object);
        let found = state
            .as_ref()
            .and_then(|state| at(state, &path_of(self.path.as_ref())));
        Ok(State {
            hostname: self.hostname,
            path: self.path,
            exists: found.is_some(),
            size: found.map(|value| value.to_string().len()),
            state: found.cloned().unwrap_or_default(),
        })
    }
}

/// Change the state that the scripts of a deployment share.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Set {
    /// Whose: a host `{subdomain.}…-exec-{id}…`, or `default`.
    hostname: String,
    /// The id, where the host does not say.
    exec_id: Option<String>,
    /// A part of it: names with dots between. All of it where not given; the value is then an object.
    path: Option<String>,
    /// The value.
    value: Value,
    /// Keep what an object has that the new one does not.
    #[serde(default)]
    merge: bool,
}

/// State that was changed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SetState {
    hostname: String,
    path: Option<String>,
    updated: bool,
    merged: bool,
    /// Bytes of the value as JSON.
    size: usize,
}

impl Operation for Set {
    const ROUTE: Route = Route::post("/api/v1/exec/shared-state/set")
        .named("setSharedState")
        .cli("exec state set");
    type Service = Exec;
    type Reply = SetState;

    async fn run(self, exec: Exec, call: Call) -> Result<SetState, Fault> {
        let deployment = deployment(&self.hostname, self.exec_id.as_deref(), &call)?;
        let before = exec.shared().get(&deployment).unwrap_or_default();
        let path = path_of(self.path.as_ref());
        let mut state = Value::Object(before.clone());
        put(&mut state, &path, self.value, self.merge)?;
        let Value::Object(after) = &state else {
            return Err(Fault::bad_request(
                "the whole state is an object; give `path` for a part of it",
            )
            .code("STATE_NO_OBJECT"));
        };
        let mut size = 0;
        let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for key in keys {
            let value = after.get(key);
            if value == before.get(key) {
                continue;
            }
            let text = value.map(Value::to_string);
            size += text.as_ref().map_or(0, String::len);
            exec.shared()
                .set(&deployment, key, text.as_deref(), None)
                .map_err(|error| Fault::too_large(error.to_string()).code("STATE_TOO_LARGE"))?;
        }
        Ok(SetState {
            hostname: self.hostname,
            path: self.path,
            updated: true,
            merged: self.merge,
            size,
        })
    }
}

fn put(state: &mut Value, path: &[String], value: Value, merge: bool) -> Result<(), Fault> {
    let Some((first, rest)) = path.split_first() else {
        match (state, value) {
            (Value::Object(there), Value::Object(more)) if merge => there.extend(more),
            (state, value) => *state = value,
        }
        return Ok(());
    };
    if let Value::Array(many) = state {
        let there = first.parse::<usize>().ok().and_then(|at| many.get_mut(at));
        return match there {
            Some(there) => put(there, rest, value, merge),
            None => {
                Err(Fault::bad_request(format!("a list has no `{first}`"))
                    .code("STATE_NO_SUCH_PART"))
            }
        };
    }
    if !state.is_object() {
        *state = json!(Map::new());
    }
    let object = state.as_object_mut().expect("it was just made one");
    put(
        object.entry(first.clone()).or_insert(Value::Null),
        rest,
        value,
        merge,
    )
}

/// Forget the state that the scripts of a deployment share, or a part of it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Clear {
    /// Whose: a host `{subdomain.}…-exec-{id}…`, or `default`.
    hostname: Option<String>,
    /// The id, where the host does not say.
    exec_id: Option<String>,
    /// A part of it: names with dots between.
    path: Option<String>,
    /// Forget the state of all deployments.
    #[serde(default)]
    clear_all: bool,
}

/// What was forgotten.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ClearedState {
    cleared: bool,
    /// Values that were forgotten.
    count: usize,
    /// Deployments that have state still.
    remaining: usize,
}

impl Operation for Clear {
    const ROUTE: Route = Route::post("/api/v1/exec/shared-state/clear")
        .named("clearSharedState")
        .cli("exec state clear");
    type Service = Exec;
    type Reply = ClearedState;

    async fn run(self, exec: Exec, call: Call) -> Result<ClearedState, Fault> {
        let mut count = 0;
        if self.clear_all {
            for (deployment, _) in exec.shared().sizes() {
                count += exec.shared().clear(&deployment);
            }
        } else {
            let hostname = self
                .hostname
                .filter(|name| !name.is_empty())
                .ok_or_else(|| {
                    Fault::bad_request("say whose state: give hostname, or clearAll=true")
                        .code("HOSTNAME_REQUIRED")
                })?;
            let deployment = deployment(&hostname, self.exec_id.as_deref(), &call)?;
            let path = path_of(self.path.as_ref());
            count = match path.split_last() {
                None => exec.shared().clear(&deployment),
                Some((last, above)) => {
                    let mut state =
                        Value::Object(exec.shared().get(&deployment).unwrap_or_default());
                    let removed = parent(&mut state, above).and_then(|it| it.remove(last));
                    if removed.is_some() {
                        let key = &path[0];
                        let text = state.get(key).map(Value::to_string);
                        exec.shared()
                            .set(&deployment, key, text.as_deref(), None)
                            .map_err(|error| Fault::too_large(error.to_string()))?;
                    }
                    usize::from(removed.is_some())
                }
            };
        }
        Ok(ClearedState {
            cleared: count > 0,
            count,
            remaining: exec.shared().sizes().len(),
        })
    }
}

fn parent<'a>(state: &'a mut Value, path: &[String]) -> Option<&'a mut Map<String, Value>> {
    let mut value = state;
    for part in path {
        value = value.get_mut(part)?;
    }
    value.as_object_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_name_deployments() {
        let call = Call::internal();
        for (host, id, want) in [
            ("default", None, "default/1"),
            ("api", Some("2"), "api/2"),
            ("default/3", None, "default/3"),
            ("p-c-exec-4.node.containers.example:8443", None, "default/4"),
            ("api.p-c-exec-4.node.containers.example", None, "api/4"),
        ] {
            assert_eq!(
                deployment(host, id, &call).unwrap().to_string(),
                want,
                "{host}"
            );
        }
        assert!(deployment("../x", None, &call).is_err());
    }

    #[test]
    fn parts_are_put_and_merged() {
        let mut state = json!({ "a": { "b": 1 } });
        let path = |text: &str| path_of(Some(&text.to_owned()));
        put(&mut state, &path("a.c"), json!(2), false).unwrap();
        put(&mut state, &path("a"), json!({ "d": 3 }), true).unwrap();
        put(&mut state, &path("x.y"), json!([1]), false).unwrap();
        put(&mut state, &path("x.y.0"), json!(7), false).unwrap();
        assert_eq!(
            state,
            json!({ "a": { "b": 1, "c": 2, "d": 3 }, "x": { "y": [7] } })
        );
        assert!(put(&mut state, &path("x.y.9"), json!(7), false).is_err());
        assert_eq!(at(&state, &path("x.y.0")), Some(&json!(7)));
    }
}
