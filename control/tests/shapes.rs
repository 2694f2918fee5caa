//! Every operation stands in the contract under its names, and answers in its shape.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use std::collections::BTreeSet;

use jsonschema::Validator;
use kit::Verb;
use serde_json::{Value, json};
use support::{Me, World};

/// Operations of our own, beside those of the contract.
const OURS: [&str; 3] = [
    "/api/v1/containers/{id}/proxy/links",
    "/api/v1/tasks",
    "/api/v1/certificates",
];

fn is_ours(verb: Verb, path: &str) -> bool {
    OURS.iter().any(|ours| path.starts_with(ours))
        || (verb.as_str(), path) == ("POST", "/api/v1/notifications/")
}

struct Contract {
    rows: Vec<Value>,
    schemas: Value,
}

impl Contract {
    fn read() -> Contract {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/contract/api.yaml");
        let text = std::fs::read_to_string(path).unwrap();
        let all: Value = yaml_serde::from_str(&text).unwrap();
        Contract {
            rows: all["endpoints"].as_array().unwrap().clone(),
            schemas: all["schemas"].clone(),
        }
    }

    /// The row of a concrete request; fixed words win over parameters.
    fn row(&self, method: &str, path: &str) -> &Value {
        let path = path.split('?').next().unwrap().trim_end_matches('/');
        let fits = |row: &&Value| {
            let template = row["path"].as_str().unwrap().trim_end_matches('/');
            let method = row["method"] == method || (method == "PATCH" && row["method"] == "PUT");
            method
                && template.split('/').count() == path.split('/').count()
                && template
                    .split('/')
                    .zip(path.split('/'))
                    .all(|(a, b)| a.starts_with('{') || a == b)
        };
        let parameters = |row: &&Value| row["path"].as_str().unwrap().matches('{').count();
        let one = self.rows.iter().filter(fits).min_by_key(parameters);
        one.unwrap_or_else(|| panic!("{method} {path} is not in the contract"))
    }

    fn validator(&self, row: &Value) -> Validator {
        let whole = json!({ "schemas": self.schemas, "allOf": [row["response"]["schema"]] });
        jsonschema::validator_for(&whole).unwrap()
    }
}

#[test]
fn operations_have_the_names_of_the_contract() {
    let contract = Contract::read();
    let api = control::api(&control::Control::detached());
    for route in api
        .routes()
        .filter(|route| !is_ours(route.verb, route.path))
    {
        let row = contract.row(route.verb.as_str(), route.path);
        assert_eq!(row["path"], route.path, "{}", route.id);
        if let Some(id) = row["operationId"].as_str() {
            assert_eq!(route.id, id);
        }
        let cli = row["cli"]
            .as_str()
            .and_then(|words| words.strip_prefix("hoody "))
            .unwrap_or_default();
        assert_eq!(route.cli, cli, "{}", route.id);
        assert_eq!(row["response"]["status"], route.status, "{}", route.id);
        if row["altMethods"].is_array() || row["method"] == "PUT" {
            assert_eq!(route.also, Some(Verb::Patch), "{}", route.id);
        }
    }
}

struct Checked<'a> {
    contract: Contract,
    me: Me<'a>,
    seen: BTreeSet<String>,
    /// The version of the rules that the next change is of.
    version: u64,
}

impl Checked<'_> {
    async fn ask(&mut self, method: &str, path: &str, body: Value) -> Value {
        let version = format!("file:v{}", self.version);
        let ask = self.me.ask(method, path).header("if-match", &version);
        let ask = if body.is_null() { ask } else { ask.json(body) };
        let answer = ask.send().await;
        let row = self.contract.row(method, path);
        assert_eq!(
            row["response"]["status"],
            answer.status.as_u16(),
            "{method} {path}: {:#}",
            answer.body
        );
        if row["response"]["envelopeExtras"]["truncated"].is_object() {
            assert!(answer.body["truncated"].is_boolean());
        }
        let data = answer.ok();
        if let Some(error) = self.contract.validator(row).iter_errors(&data).next() {
            panic!(
                "{method} {path}: {error} at {}: {data:#}",
                error.instance_path()
            );
        }
        if let Some(version) = data["file_version"].as_u64() {
            self.version = version;
        }
        self.seen.insert(format!(
            "{} {}",
            row["method"].as_str().unwrap(),
            row["path"].as_str().unwrap()
        ));
        data
    }

    async fn get(&mut self, path: &str) -> Value {
        self.ask("GET", path, Value::Null).await
    }
}

impl Checked<'_> {
    /// Directories that one container shares with another.
    async fn shares(&mut self, source: &str, target: &str) {
        let offers = format!("/api/v1/containers/{source}/storage/shares");
        let body = json!({
            "source_path": "/srv", "target_container_id": target, "mode": "readonly",
            "alias": "data", "expires_at": 4_000_000_000_u64,
        });
        let share = id(&self.ask("POST", &offers, body).await);
        self.get(&offers).await;
        self.get(&format!("{offers}/{share}")).await;
        let changed = json!({ "mode": "readwrite", "alias": null });
        self.ask("PATCH", &format!("{offers}/{share}"), changed)
            .await;
        let incoming = format!("/api/v1/containers/{target}/storage/incoming");
        self.get(&incoming).await;
        let mount = format!("{incoming}/{share}/mount");
        self.ask("PATCH", &mount, json!({ "mount": false })).await;
        self.get("/api/v1/storage/shares").await;
        self.get("/api/v1/storage/incoming").await;
        let withdraw = format!("/api/v1/storage/shares/{share}");
        self.ask("DELETE", &withdraw, Value::Null).await;
    }

    /// Every operation on the rules of a container or a project.
    async fn rules(&mut self, of: &str, own: Value) {
        let path = format!("{of}/proxy/permissions");
        self.get(&path).await;
        let password = json!({ "username": "a", "password": "b", "salt": "c" });
        let jwt = json!({ "secret": "s", "algorithm": "HS256", "sources": ["header:A"] });
        for (kind, body) in [
            ("password", password),
            ("token", json!({ "header": "a", "value": "b" })),
            ("jwt", jwt),
            ("ip", json!({ "range": "10.0.0.0/8" })),
        ] {
            let path = format!("{path}/groups/{kind}/{kind}");
            self.ask("PUT", &path, body).await;
        }
        let granted = format!("{path}/permissions/ip");
        for program in ["files", "http"] {
            let body = json!({ "program": program, "access": true });
            self.ask("PUT", &granted, body).await;
        }
        let one = format!("{granted}/files");
        self.ask("DELETE", &one, Value::Null).await;
        self.ask("DELETE", &granted, Value::Null).await;
        let group = format!("{path}/groups/ip");
        self.ask("DELETE", &group, Value::Null).await;
        let (default, state) = (format!("{path}/default"), format!("{path}/state"));
        self.ask("PATCH", &default, json!({ "default": "deny" }))
            .await;
        self.ask("PATCH", &state, json!({ "enable_proxy": false }))
            .await;
        let mut whole = json!({ "groups": {}, "permissions": {} });
        for (name, value) in own.as_object().unwrap() {
            whole[name] = value.clone();
        }
        self.ask("PUT", &path, whole).await;
        self.ask("DELETE", &path, Value::Null).await;
    }

    /// Every operation on snapshots and copies.
    async fn disks(&mut self, container: &str, project: &str) {
        let all = format!("{container}/snapshots");
        let body = json!({ "alias": "a", "expiry": 1 });
        let taken = self.ask("POST", &all, body).await;
        self.get(&all).await;
        let one = format!("{all}/{}", taken["snapshot"]["name"].as_str().unwrap());
        let alias = format!("{one}/alias");
        self.ask("PUT", &alias, json!({ "alias": null })).await;
        self.ask("PUT", &one, Value::Null).await;
        let copy = json!({ "target_project_id": project });
        let copy = id(&self.ask("POST", &format!("{container}/copy"), copy).await);
        self.me.until(&copy, "stopped").await;
        let at = format!("/api/v1/containers/{copy}");
        self.ask("POST", &format!("{at}/sync"), Value::Null).await;
        self.me.until(&copy, "stopped").await;
        self.ask("DELETE", &at, Value::Null).await;
        self.ask("DELETE", &one, Value::Null).await;
    }

    /// Every operation on networks and firewalls.
    async fn network(&mut self, container: &str) {
        let network = format!("{container}/network");
        let proxy = json!({ "type": "socks5", "proxy": "socks5://me:hush@proxy.test:1080" });
        self.get(&network).await;
        self.ask("PUT", &network, proxy).await;
        self.get(&network).await;
        for operation in ["stop", "start"] {
            self.ask("POST", &format!("{network}/{operation}"), Value::Null)
                .await;
        }
        self.ask("DELETE", &network, Value::Null).await;
        let firewall = format!("{container}/firewall");
        for (direction, peer) in [("ingress", "source"), ("egress", "destination")] {
            let path = format!("{firewall}/{direction}");
            let rule = json!({
                "action": "drop", "protocol": "tcp", "description": "no mail", "destination_port": "25",
                peer: "192.0.2.0/24",
            });
            self.ask("POST", &path, rule.clone()).await;
            let off = json!({ "description": "no mail", "state": "disabled" });
            self.ask("PATCH", &path, off).await;
            self.ask("DELETE", &path, json!({ "all": true })).await;
        }
        self.get(&format!("{firewall}/rules")).await;
        self.ask("POST", &format!("{firewall}/reset"), Value::Null)
            .await;
    }

    /// Every operation on hooks, settings and aliases.
    async fn edge(&mut self, container: &str, id: &str) {
        let of = format!("{container}/proxy");
        let hooks = format!("{of}/hooks/files");
        let body = json!({ "match": { "method": "GET" }, "script": { "path": "/a" } });
        for rest in [
            "hooks",
            "hooks/files",
            "groups",
            "services",
            "services/files",
            "settings",
        ] {
            self.get(&format!("{of}/{rest}")).await;
        }
        let added = self.ask("POST", &hooks, body.clone()).await;
        let hook = format!("{hooks}/{}", added["hook"]["id"].as_str().unwrap());
        self.get(&hook).await;
        self.ask("PUT", &hook, body).await;
        let place = format!("{hook}/position");
        self.ask("PATCH", &place, json!({ "position": 0 })).await;
        self.ask("DELETE", &hook, Value::Null).await;
        self.ask("DELETE", &hooks, Value::Null).await;
        let settings = format!("{of}/settings");
        self.ask("PUT", &settings, json!({ "default": "allow" }))
            .await;
        let all = format!("{of}/permissions");
        self.ask("DELETE", &all, Value::Null).await;

        let aliases = "/api/v1/proxy/aliases";
        let body = json!({ "container_id": id, "program": "files" });
        let alias = self.ask("POST", aliases, body).await;
        let alias = format!("{aliases}/{}", alias["id"].as_str().unwrap());
        self.get(aliases).await;
        self.get(&alias).await;
        self.ask("PATCH", &alias, json!({ "index": 2 })).await;
        let state = format!("{alias}/state");
        self.ask("PATCH", &state, json!({ "enabled": false })).await;
        self.ask("DELETE", &alias, Value::Null).await;
    }
}

fn id(value: &Value) -> String {
    value["id"].as_str().unwrap().to_owned()
}

#[test]
fn the_contract_refuses_other_shapes() {
    let contract = Contract::read();
    let row = contract.row("GET", "/api/v1/containers/000000000000000000000000");
    let validator = contract.validator(row);
    assert!(validator.is_valid(&json!({ "id": "x" })));
    assert!(!validator.is_valid(&json!({})));
    assert!(
        !validator.is_valid(&json!({ "id": "x", "proxy_domains": [{}] })),
        "references are followed"
    );
}

#[tokio::test]
async fn answers_have_the_shape_of_the_contract() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let realm = "aa".repeat(12);
    let mut all = Checked {
        contract: Contract::read(),
        me: me.clone(),
        seen: BTreeSet::new(),
        version: 0,
    };
    let login = json!({ "username": "admin", "password": world.password });
    let login = all.ask("POST", "/api/v1/users/auth/login", login).await;
    all.me.token = login["token"].as_str().unwrap().to_owned();
    let refresh = json!({ "refreshToken": login["refreshToken"] });
    all.ask("POST", "/api/v1/users/auth/refresh", refresh).await;
    let user = id(&all.get("/api/v1/users/me").await);
    all.get("/api/v1/users/auth/me").await;
    all.get(&format!("/api/v1/users/{user}")).await;
    all.ask(
        "PUT",
        &format!("/api/v1/users/{user}"),
        json!({ "alias": "Boss" }),
    )
    .await;

    let token = all
        .ask(
            "POST",
            "/api/v1/auth/tokens",
            json!({ "alias": "one", "realm_ids": [realm] }),
        )
        .await;
    let one = format!("/api/v1/auth/tokens/{}", id(&token));
    all.get(&one).await;
    all.get("/api/v1/auth/tokens").await;
    all.ask("PATCH", &one, json!({ "alias": "two" })).await;
    let other = json!({ "realm_id": "bb".repeat(12) });
    all.ask("POST", &format!("{one}/add-realm"), other.clone())
        .await;
    all.ask("POST", &format!("{one}/remove-realm"), other).await;
    let secret = token["token"].as_str().unwrap().to_owned();
    let session = std::mem::replace(&mut all.me.token, secret);
    all.get("/api/v1/auth/tokens/me").await;
    all.get("/api/v1/users/me").await;
    all.me.token = session;
    all.get("/api/v1/realms/?include_usage=true").await;
    all.ask("DELETE", &one, Value::Null).await;

    let project = json!({ "alias": "site", "color": "#abc", "realm_ids": [realm] });
    let project = id(&all.ask("POST", "/api/v1/projects/", project).await);
    let path = format!("/api/v1/projects/{project}");
    all.get("/api/v1/projects/").await;
    all.get(&format!("{path}?include_permissions=true")).await;
    all.ask(
        "PUT",
        &path,
        json!({ "alias": "shop", "max_containers": 5 }),
    )
    .await;
    all.get(&format!("{path}/permissions")).await;

    let servers = all.get("/api/v1/servers").await;
    let server = id(&servers[0]);
    all.get(&format!("/api/v1/servers/{server}")).await;
    all.get("/api/v1/servers/available").await;
    all.get("/api/v1/rentals").await;
    all.get(&format!("/api/v1/rentals/{server}")).await;
    let images = all.get("/api/v1/images/public").await;
    all.get(&format!(
        "/api/v1/images/public/{}",
        id(&images["images"][0])
    ))
    .await;
    all.get("/api/v1/images/user").await;
    let image = id(&images["images"][0]);
    all.get(&format!("/api/v1/images/{image}/icon")).await;
    for (act, body) in [
        ("import", json!({})),
        ("purchase", json!({})),
        ("rate", json!({ "rating": 3 })),
    ] {
        all.ask("POST", &format!("/api/v1/images/{act}/{image}"), body)
            .await;
    }

    let make = json!({ "server_id": server, "name": "web", "environment_vars": { "A": "1" }, "comment": "mine" });
    let web = id(&all.ask("POST", &format!("{path}/containers"), make).await);
    let container = format!("/api/v1/containers/{web}");
    all.me.until(&web, "running").await;
    all.get(&format!(
        "{container}?include_proxy_domains=true&runtime=true"
    ))
    .await;
    all.get("/api/v1/containers/?include_proxy_domains=true&include_deleting=true&runtime=false")
        .await;
    all.get(&format!("{path}/containers")).await;
    all.get(&format!("{container}/stats")).await;
    all.ask("POST", &format!("{container}/authorize"), Value::Null)
        .await;
    all.get(&format!("{path}/stats")).await;
    all.ask(
        "PUT",
        &container,
        json!({ "comment": null, "color": "#00ff00" }),
    )
    .await;
    all.get(&format!("{container}/env")).await;
    all.ask("PUT", &format!("{container}/env"), json!({ "B": "2" }))
        .await;
    all.ask(
        "PATCH",
        &format!("{container}/env/C"),
        json!({ "value": "3" }),
    )
    .await;
    all.ask("DELETE", &format!("{container}/env/C"), Value::Null)
        .await;
    all.ask("PUT", &format!("{container}/kvm"), json!({ "kvm": false }))
        .await;
    all.network(&container).await;
    all.edge(&container, &web).await;
    all.disks(&container, &project).await;
    all.me.until(&web, "running").await;
    all.rules(&container, json!({ "project": project, "container": web }))
        .await;
    all.rules(&path, json!({ "project": project })).await;
    for operation in ["pause", "resume", "restart", "stop", "start", "force-stop"] {
        all.ask("POST", &format!("{container}/{operation}"), Value::Null)
            .await;
        let status = match operation {
            "pause" => "paused",
            "stop" | "force-stop" => "stopped",
            _ => "running",
        };
        all.me.until(&web, status).await;
    }
    all.get(&format!("{container}/stats")).await;
    all.get(&format!("{container}/status-logs")).await;
    let other = all.me.container(&project, "other").await;
    all.me.until(&other, "running").await;
    all.shares(&web, &other).await;
    all.ask("DELETE", &container, Value::Null).await;
    all.ask(
        "DELETE",
        &format!("{path}?include_deleted_items=true"),
        Value::Null,
    )
    .await;

    let words = json!({ "title": "Tonight", "message": "The node restarts." });
    let answer = all.me.post("/api/v1/notifications/", words).await;
    let notice = id(&answer.ok());
    all.get("/api/v1/notifications/").await;
    all.get("/api/v1/notifications/public").await;
    let read = format!("/api/v1/notifications/{notice}/read");
    all.ask("PUT", &read, Value::Null).await;
    all.ask("PATCH", "/api/v1/notifications/read-all", Value::Null)
        .await;
    let events = all.get("/api/v1/events?limit=500").await;
    let event = format!("/api/v1/events/{}", id(&events["events"][0]));
    all.get(&event).await;
    all.get("/api/v1/events/stats").await;
    all.ask("DELETE", &event, Value::Null).await;
    let days = json!({ "retention_days": 365 });
    all.ask("POST", "/api/v1/events/cleanup", days).await;
    let which = json!({ "resource_id": web });
    all.ask("DELETE", "/api/v1/events", which).await;

    all.get("/api/v1/ip").await;
    all.get("/api/v1/meta/public-key").await;
    all.get("/api/v1/meta/social-stats").await;
    all.ask("POST", "/api/v1/users/auth/logout", Value::Null)
        .await;

    let implemented: BTreeSet<String> = control::api(&node.control)
        .routes()
        .filter(|route| !is_ours(route.verb, route.path))
        .map(|route| format!("{} {}", route.verb.as_str(), route.path))
        .collect();
    let unseen: Vec<_> = implemented.difference(&all.seen).collect();
    assert!(unseen.is_empty(), "never called: {unseen:?}");
    println!(
        "{} operations answer in the shape of the contract",
        all.seen.len()
    );
}
