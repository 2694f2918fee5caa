//! The names that containers have at the edge, and who may reach them.

use futures::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};
use tests::Rig;
use tests::rig::{Answer, DOMAIN, NODE};

use crate::wire::{Caller, NOTHING, each, invalid, refused, text};

/// Changes of one document of rules, each of the version that the one before left.
struct Document<'a> {
    rig: &'a Rig,
    path: String,
    version: u64,
}

impl Document<'_> {
    async fn send(&self, method: Method, path: &str, body: Value) -> Answer {
        self.at(method, path, body, Some(&format!("file:v{}", self.version)))
            .await
    }

    async fn at(&self, method: Method, path: &str, body: Value, version: Option<&str>) -> Answer {
        let mut request = self.rig.api(method, &format!("{}{path}", self.path));
        if let Some(version) = version {
            request = request.header("if-match", version);
        }
        if !body.is_null() {
            request = request.json(&body);
        }
        self.rig.send("api", request).await
    }

    /// A change that is taken: the document after it.
    async fn write(&mut self, method: Method, path: &str, body: Value) -> Value {
        let after = self.send(method, path, body).await.expect(200).data();
        self.version += 1;
        assert_eq!(after["file_version"], self.version, "{after}");
        assert_eq!(after["etag"], format!("file:v{}", self.version));
        after
    }

    async fn get(&self, path: &str) -> Value {
        self.rig
            .get(&format!("{}{path}", self.path))
            .await
            .expect(200)
            .data()
    }
}

fn password() -> Value {
    json!({ "username": "ann", "password": "correct horse", "salt": "pepper" })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_of_containers_and_projects_are_written_version_by_version() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let (container, project) = (web.id.to_string(), web.project.to_string());
    for (path, own) in [
        (
            format!("/api/v1/containers/{container}/proxy/permissions"),
            json!({ "project": project, "container": container }),
        ),
        (
            format!("/api/v1/projects/{project}/proxy/permissions"),
            json!({ "project": project }),
        ),
    ] {
        let mut rules = Document {
            rig: &rig,
            path,
            version: 0,
        };
        let of_container = own.get("container").is_some();
        let none = rules.get("").await;
        assert_eq!(
            (&none["default"], &none["enable_proxy"], &none["etag"]),
            (&json!("allow"), &json!(true), &json!("file:v0"))
        );
        assert_eq!(none["project"], own["project"]);
        assert_eq!(none.get("container"), own.get("container"));
        assert_eq!(none.get("hooks").is_some(), of_container);

        let (put, patch, delete) = (Method::PUT, Method::PATCH, Method::DELETE);
        let set = rules
            .write(put.clone(), "/groups/staff/password", password())
            .await;
        assert_eq!(set["default"], "allow");
        let shown = &set["groups"]["staff"];
        assert_eq!(
            (&shown["type"], &shown["username"], &shown["salt"]),
            (&json!("password"), &json!("ann"), &json!("pepper"))
        );
        assert_eq!(shown["password"], "[REDACTED]");
        let jwt = json!({ "secret": "a secret of some length", "algorithm": "HS256",
            "sources": ["header:Authorization"], "claims": { "iss": "us" } });
        for (path, body) in [
            (
                "/groups/keys/token",
                json!({ "header": "X-Key", "value": "opensesame" }),
            ),
            (
                "/groups/keys/token",
                json!({ "cookie": "key", "value": "opensesame" }),
            ),
            ("/groups/apps/jwt", jwt.clone()),
            ("/groups/office/ip", json!({ "range": "192.0.2.0/24" })),
            (
                "/groups/office/ip",
                json!({ "range": "2001:db8::/32, 127.0.0.1" }),
            ),
        ] {
            rules.write(put.clone(), path, body.clone()).await;
            let twin = rules.write(patch.clone(), path, body).await;
            assert!(!twin.to_string().contains("opensesame"), "{twin}");
            assert!(!twin.to_string().contains("of some length"), "{twin}");
        }
        let granted = json!({ "program": "terminal", "access": true });
        rules
            .write(put.clone(), "/permissions/staff", granted)
            .await;
        let ports = json!({ "program": "http", "access": [3000, 8080] });
        let after = rules
            .write(patch.clone(), "/permissions/staff", ports)
            .await;
        assert_eq!(
            after["permissions"],
            json!({ "staff": { "terminal": true, "http": [3000, 8080] } })
        );
        let shut = rules
            .write(patch.clone(), "/default", json!({ "default": "deny" }))
            .await;
        assert_eq!(shut["default"], "deny");
        let off = rules
            .write(patch.clone(), "/state", json!({ "enable_proxy": false }))
            .await;
        assert_eq!(off["enable_proxy"], false);

        // Every change needs the version it is of.
        let body = || json!({ "default": "allow" });
        let words = refused(
            rules.at(patch.clone(), "/default", body(), None).await,
            428,
            "PRECONDITION_REQUIRED",
        );
        assert!(words.contains("If-Match"), "{words}");
        for stale in ["file:v0", "file:v1", "file:v999"] {
            let words = refused(
                rules
                    .at(patch.clone(), "/default", body(), Some(stale))
                    .await,
                412,
                "PRECONDITION_FAILED",
            );
            assert!(
                words.contains(&format!("file:v{}", rules.version)),
                "{words}"
            );
        }
        for wrong in ["v3", "*", "file:v", "file:v-1", ""] {
            let answer = rules
                .at(patch.clone(), "/default", body(), Some(wrong))
                .await;
            invalid(answer, "/if-match");
        }
        let quoted = format!("\"file:v{}\"", rules.version);
        rules
            .at(
                patch.clone(),
                "/default",
                json!({ "default": "deny" }),
                Some(&quoted),
            )
            .await
            .expect(200);
        rules.version += 1;

        // The whole document, as it was read and changed a little.
        let mut whole = rules.get("").await;
        whole["groups"]["both"] = json!([
            { "type": "ip", "range": "10.0.0.0/8" },
            { "all": [whole["groups"]["staff"], whole["groups"]["office"]] },
        ]);
        // A secret is kept where it was, not moved.
        invalid(
            rules.send(put.clone(), "", whole.clone()).await,
            "/groups/both/1/all/0",
        );
        whole["groups"]["both"][1]["all"][0]["password"] = json!("another");
        whole["permissions"]["both"] = json!({ "*": "1-4" });
        whole["enable_proxy"] = json!(true);
        if of_container {
            whole["hooks"] = json!({ "files": [{ "match": {}, "script": { "path": "/h" } }] });
        }
        let after = rules.write(put.clone(), "", whole.clone()).await;
        assert_eq!(after["groups"]["apps"]["secret"], "[REDACTED]");
        assert_eq!(
            after["groups"].as_object().map(|groups| groups.len()),
            Some(5)
        );
        let again = rules.write(patch.clone(), "", after.clone()).await;
        for part in ["groups", "permissions", "default", "hooks", "enable_proxy"] {
            assert_eq!(again[part], after[part], "{part}");
        }
        let least = json!({ "groups": {}, "permissions": {} });
        let mut least = least.as_object().cloned().expect("an object");
        least.extend(own.as_object().cloned().expect("an object"));
        let mut other = least.clone();
        other.insert("project".into(), NOTHING.into());
        invalid(rules.send(put.clone(), "", other.into()).await, "/project");
        let mut odd = least.clone();
        odd.insert("groups".into(), json!({ "g": { "type": "password" } }));
        invalid(rules.send(put.clone(), "", odd.into()).await, "/groups/g");

        // Piece by piece it is gone again.
        for (path, gone) in [
            ("/permissions/staff/http", "http"),
            ("/permissions/staff", "terminal"),
            ("/groups/keys", "keys"),
        ] {
            let after = rules.write(delete.clone(), path, Value::Null).await;
            assert!(
                !after["groups"].to_string().contains(&format!("\"{gone}\"")),
                "{after}"
            );
            assert!(
                !after["permissions"]
                    .to_string()
                    .contains(&format!("\"{gone}\"")),
                "{after}"
            );
        }
        for path in [
            "/permissions/staff/http",
            "/permissions/staff",
            "/groups/keys",
        ] {
            refused(
                rules.send(delete.clone(), path, Value::Null).await,
                404,
                "NOT_FOUND",
            );
        }
        refused(
            rules
                .send(
                    put.clone(),
                    "/permissions/keys",
                    json!({ "program": "files", "access": true }),
                )
                .await,
            404,
            "NOT_FOUND",
        );
        let wrong = [
            (
                "/permissions/staff",
                json!({ "program": "web", "access": true }),
                "/program",
            ),
            (
                "/permissions/staff",
                json!({ "program": "files", "access": "x" }),
                "/access",
            ),
            (
                "/groups/staff/ip",
                json!({ "range": "10.0.0.0/40" }),
                "/range",
            ),
            (
                "/groups/st aff/ip",
                json!({ "range": "10.0.0.0/8" }),
                "/groupName",
            ),
            (
                "/groups/g/token",
                json!({ "header": "a", "param": "b", "value": "c" }),
                "",
            ),
            (
                "/groups/g/jwt",
                json!({ "secret": "s", "algorithm": "none", "sources": ["header:A"] }),
                "/algorithm",
            ),
        ];
        for (path, body, pointer) in wrong {
            let answer = rules.send(put.clone(), path, body).await.expect(400).json();
            assert_eq!(answer["code"], "VALIDATION_ERROR", "{answer}");
            if !pointer.is_empty() {
                assert_eq!(answer["data"][0]["instancePath"], pointer, "{answer}");
            }
        }
        let last = rules
            .send(delete.clone(), "", Value::Null)
            .await
            .expect(200)
            .data();
        assert_eq!(
            (&last["file_version"], &last["groups"]),
            (&json!(0), &json!({}))
        );
        let before = rules.version;
        rules.version = 0;
        refused(
            rules.send(delete.clone(), "", Value::Null).await,
            404,
            "NOT_FOUND",
        );
        // A version of before never names what is there later.
        let anew = rules
            .send(put.clone(), "", least.clone().into())
            .await
            .expect(200)
            .data();
        assert_eq!(anew["default"], "deny");
        assert!(anew["file_version"].as_u64() > Some(before), "{anew}");
    }
    let shown = rig
        .get(&format!("/api/v1/containers/{container}"))
        .await
        .data();
    assert_eq!(
        (
            &shown["has_proxy_permissions"],
            &shown["proxy_permissions_scope"]
        ),
        (&json!(true), &json!("container"))
    );
    for path in [
        format!("/api/v1/containers/{NOTHING}/proxy/permissions"),
        format!("/api/v1/projects/{NOTHING}/proxy/permissions"),
    ] {
        refused(rig.get(&path).await, 404, "NOT_FOUND");
        let request = rig.api(Method::DELETE, &path).header("if-match", "file:v1");
        refused(rig.send("api", request).await, 404, "NOT_FOUND");
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_changes_of_the_same_version_one_is_taken() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let path = format!("/api/v1/containers/{}/proxy/permissions/default", web.id);
    for version in 0..5 {
        let all = (0..8).map(|_| {
            let request = rig
                .api(Method::PATCH, &path)
                .header("if-match", format!("file:v{version}"))
                .json(&json!({ "default": "deny" }));
            rig.send("api", request)
        });
        let answers: Vec<Answer> = futures::stream::iter(all)
            .buffer_unordered(8)
            .collect()
            .await;
        let taken = answers.iter().filter(|answer| answer.status == 200).count();
        let stale = answers.iter().filter(|answer| answer.status == 412).count();
        assert_eq!((taken, stale), (1, 7), "{version}");
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_are_added_moved_written_and_removed() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let mut rules = Document {
        rig: &rig,
        path: format!("/api/v1/containers/{}/proxy", web.id),
        version: 0,
    };
    let hook = |path: &str| json!({ "match": { "method": "get", "path": path }, "script": { "path": "check" } });
    let mut ids = Vec::new();
    for path in ["/a", "/b", "/c"] {
        let added = rules.write(Method::POST, "/hooks/files", hook(path)).await;
        let id = text(&added["hook"]["id"]);
        assert!(id.len() == 26 && !id.contains(['i', 'l', 'o', 'u']), "{id}");
        ids.push(id);
    }
    let first = json!({ "match": { "method": ["POST", "put"], "headers": { "X-A": "b*" } },
        "script": { "path": "/first", "subdomain": "hooks", "execId": "2" },
        "timeout": 500, "position": 0, "on_error": "open" });
    let added = rules.write(Method::POST, "/hooks/files", first).await;
    assert_eq!(
        added["hook"]["match"],
        json!({ "method": ["POST", "PUT"], "headers": { "x-a": "b*" } })
    );
    assert_eq!(added["hook"]["script"]["execId"], "2");
    assert_eq!(
        (&added["hook"]["position"], &added["hook"]["on_error"]),
        (&json!(0), &json!("open"))
    );
    ids.insert(0, text(&added["hook"]["id"]));
    let listed = rules.get("/hooks/files").await;
    assert_eq!(each(&listed["hooks"], "id"), ids);
    assert_eq!(each(&listed["hooks"], "position"), [0, 1, 2, 3]);
    assert_eq!(rules.get("/hooks").await["hooks"]["files"], listed["hooks"]);

    let path = format!("/hooks/files/{}", ids[0]);
    let moved = rules
        .write(
            Method::PATCH,
            &format!("{path}/position"),
            json!({ "position": 2 }),
        )
        .await;
    assert_eq!(moved["hook"]["position"], 2);
    ids.swap(0, 1);
    ids.swap(1, 2);
    let kept = rules.write(Method::PUT, &path, hook("/new/**")).await;
    assert_eq!(
        (
            &kept["hook"]["id"],
            &kept["hook"]["position"],
            &kept["hook"]["match"]["path"]
        ),
        (&json!(ids[2]), &json!(2), &json!("/new/**"))
    );
    assert_eq!(
        (&kept["hook"]["timeout"], &kept["hook"]["on_error"]),
        (&json!(30_000), &json!("closed"))
    );
    assert_eq!(rules.get(&path).await["hook"], kept["hook"]);
    assert_eq!(each(&rules.get("/hooks/files").await["hooks"], "id"), ids);

    let gone = rules.write(Method::DELETE, &path, Value::Null).await;
    assert!(gone.get("hook").is_none());
    refused(
        rig.get(&format!("{}{path}", rules.path)).await,
        404,
        "NOT_FOUND",
    );
    refused(
        rules.send(Method::DELETE, &path, Value::Null).await,
        404,
        "NOT_FOUND",
    );
    refused(
        rules.send(Method::PUT, &path, hook("/")).await,
        404,
        "NOT_FOUND",
    );

    for (service, body, pointer) in [
        ("logs", hook("/"), "/service"),
        ("workspaces", hook("/"), "/service"),
        ("nothing", hook("/"), "/service"),
        ("files", json!({ "script": { "path": "/x" } }), "/match"),
        (
            "files",
            json!({ "match": {}, "script": {} }),
            "/script/path",
        ),
        ("files", hook("no-slash"), "/match/path"),
        (
            "files",
            json!({ "match": { "method": "GET /" }, "script": { "path": "/x" } }),
            "/match/method",
        ),
        (
            "files",
            json!({ "match": { "headers": { "a b": "c" } }, "script": { "path": "/x" } }),
            "/match/headers",
        ),
        (
            "files",
            json!({ "match": {}, "script": { "path": "/../x" } }),
            "/script/path",
        ),
        (
            "files",
            json!({ "match": {}, "script": { "path": "/x", "execId": "0" } }),
            "/script/execId",
        ),
        (
            "files",
            json!({ "match": {}, "script": { "path": "/x", "subdomain": "a.b" } }),
            "/script/subdomain",
        ),
        (
            "files",
            json!({ "match": {}, "script": { "path": "/x" }, "timeout": 30_001 }),
            "/timeout",
        ),
        (
            "files",
            json!({ "match": {}, "script": { "path": "/x" }, "applies_to": { "groups": ["g"] } }),
            "/applies_to/groups",
        ),
    ] {
        let path = format!("/hooks/{service}");
        invalid(rules.send(Method::POST, &path, body).await, pointer);
    }
    let absent = rules
        .at(Method::POST, "/hooks/files", hook("/"), None)
        .await;
    refused(absent, 428, "PRECONDITION_REQUIRED");
    for _ in 3..8 {
        rules.write(Method::POST, "/hooks/files", hook("/")).await;
    }
    let words = refused(
        rules.send(Method::POST, "/hooks/files", hook("/")).await,
        409,
        "LIMIT_REACHED",
    );
    assert!(words.contains('8'), "{words}");
    let cleared = rules
        .write(Method::DELETE, "/hooks/files", Value::Null)
        .await;
    assert_eq!(cleared["removed"], 8);
    assert_eq!(rules.get("/hooks").await["hooks"], json!({}));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_rules_come_to_can_be_read() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let mut rules = Document {
        rig: &rig,
        path: format!("/api/v1/containers/{}/proxy", web.id),
        version: 0,
    };
    assert_eq!(rules.get("/services").await["services"], json!([]));
    assert_eq!(rules.get("/groups").await["groups"], json!([]));
    assert_eq!(
        rules.get("/settings").await,
        json!({
            "enable_proxy": true, "default": "allow", "allow_embedding": true,
            "frame_ancestors": null, "wake": "on", "idle_action": "never", "idle_minutes": null,
            "file_version": 0, "etag": "file:v0",
        })
    );
    rules
        .write(
            Method::PUT,
            "/permissions/groups/staff/password",
            password(),
        )
        .await;
    let grant = json!({ "program": "notifications", "access": [1, 2] });
    rules
        .write(Method::PUT, "/permissions/permissions/staff", grant)
        .await;
    let hook = json!({ "match": {}, "script": { "path": "/x" } });
    rules.write(Method::POST, "/hooks/exec", hook).await;
    assert_eq!(
        rules.get("/services").await["services"],
        json!(["exec", "n"])
    );
    assert_eq!(
        rules.get("/groups").await["groups"],
        json!([{ "name": "staff", "auth_rule_count": 1 }])
    );
    let set = rules
        .write(Method::PUT, "/settings", json!({ "default": "deny" }))
        .await;
    assert_eq!(
        (&set["default"], &set["enable_proxy"]),
        (&json!("deny"), &json!(true))
    );
    let stale = rules
        .at(
            Method::PUT,
            "/settings",
            json!({ "enable_proxy": false }),
            Some("file:v1"),
        )
        .await;
    refused(stale, 412, "PRECONDITION_FAILED");

    let n = rules.get("/services/notifications").await;
    assert_eq!(
        (
            &n["service"],
            &n["permissions_raw"],
            &n["effective_default"]
        ),
        (&json!("n"), &json!({ "staff": [1, 2] }), &json!("deny"))
    );
    let exec = rules.get("/services/exec").await;
    assert_eq!(exec["hooks"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&exec["is_reject_listed"], &exec["permissions_raw"]),
        (&json!(false), &json!({}))
    );
    assert_eq!(rules.get("/services/logs").await["is_reject_listed"], true);
    invalid(
        rig.get(&format!("{}/services/nothing", rules.path)).await,
        "/service",
    );
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_leads_into_a_container_until_it_is_off_over_or_gone() {
    const ALIASES: &str = "/api/v1/proxy/aliases";
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let container = web.id.to_string();
    let host = |name: &str| format!("{name}.{NODE}.containers.{DOMAIN}");
    let visit = |name: &str, path: &str| {
        let request = rig.client.request(Method::GET, &host(name), path);
        async {
            rig.client
                .execute(request.build().expect("a request"))
                .await
        }
    };
    let status = |name: &str, path: &str| {
        let answer = visit(name, path);
        async { answer.await.expect("an answer").status().as_u16() }
    };
    const HEALTH: &str = "/api/v1/terminal/health";

    let body = json!({ "container_id": container, "alias": "shop", "program": "terminal" });
    let made = rig.post(ALIASES, body.clone()).await.expect(201).data();
    let id = text(&made["id"]);
    assert_eq!(
        (&made["program"], &made["index"]),
        (&json!("terminal"), &json!(1))
    );
    let port = rig.client.port();
    assert_eq!(made["url"], format!("https://{}:{port}", host("shop")));
    assert_eq!(
        (&made["server_name"], &made["subserver_name"]),
        (&json!(NODE), &json!("web"))
    );
    // It is in effect when it is answered.
    assert_eq!(status("shop", HEALTH).await, 200);
    assert_eq!(status("never", HEALTH).await, 404);

    // A name exists once.
    let words = refused(rig.post(ALIASES, body).await, 409, "ALIAS_IN_USE");
    assert!(words.contains("shop"), "{words}");
    for (name, body) in [
        ("made up", json!({ "alias": null, "program": "terminal" })),
        ("made up", json!({ "alias": false, "program": "tty" })),
        ("made up", json!({ "program": "http-3000" })),
        (
            "a port",
            json!({ "alias": "app", "program": "http-3000", "port": 8080, "index": 9 }),
        ),
        ("a port", json!({ "alias": "app2", "program": "https" })),
    ] {
        let mut body = body;
        body["container_id"] = json!(container);
        let made = rig.post(ALIASES, body).await.expect(201).data();
        let alias = text(&made["alias"]);
        if name == "made up" {
            assert!(
                alias.len() == 48 && alias.bytes().all(|b| b.is_ascii_hexdigit()),
                "{alias}"
            );
        }
        let index = match alias.as_str() {
            "app" => 8080,
            "app2" => 443,
            _ if made["program"] == "http" => 3000,
            _ => 1,
        };
        assert_eq!(made["index"], index, "{made}");
        if made["program"] == "terminal" {
            assert_eq!(status(&alias, HEALTH).await, 200);
        }
    }
    let look_alike = format!("{container}-files-1");
    for (change, pointer) in [
        (json!({ "alias": "ab" }), "/alias"),
        (json!({ "alias": "Shop" }), "/alias"),
        (json!({ "alias": "-shop" }), "/alias"),
        (json!({ "alias": "a.b.c" }), "/alias"),
        (json!({ "alias": "x".repeat(62) }), "/alias"),
        (json!({ "alias": "xn--bcher-kva" }), "/alias"),
        (json!({ "alias": container }), "/alias"),
        (json!({ "alias": look_alike }), "/alias"),
        (json!({ "alias": "files" }), "/alias"),
        (json!({ "alias": "files-1" }), "/alias"),
        (json!({ "alias": "containers" }), "/alias"),
        (json!({ "alias": true }), "/alias"),
        (json!({ "program": "web" }), "/program"),
        (json!({ "program": "*" }), "/program"),
        (json!({ "program": "http-0" }), "/program"),
        (json!({ "port": 65_536 }), "/port"),
        (json!({ "index": 0 }), "/index"),
        (json!({ "target_path": "//evil.example" }), "/target_path"),
        (json!({ "target_path": "/a/../b" }), "/target_path"),
        (json!({ "target_path": "/a\r\nb" }), "/target_path"),
        (
            json!({ "expires_at": "2001-01-01T00:00:00Z" }),
            "/expires_at",
        ),
        (json!({ "expires_at": "soon" }), "/expires_at"),
    ] {
        let mut body = json!({ "container_id": container, "program": "terminal" });
        for (name, value) in change.as_object().expect("an object") {
            body[name] = value.clone();
        }
        invalid(rig.post(ALIASES, body).await, pointer);
    }
    let nowhere = json!({ "container_id": NOTHING, "program": "terminal" });
    refused(rig.post(ALIASES, nowhere).await, 404, "NOT_FOUND");

    // Off, it is like none; on again, it leads where it led.
    let one = format!("{ALIASES}/{id}");
    let off = rig
        .patch(&format!("{one}/state"), json!({ "enabled": false }))
        .await;
    assert_eq!(off.expect(200).data()["enabled"], false);
    let answers = [visit("shop", HEALTH).await, visit("never", HEALTH).await];
    let [off, never] = answers.map(|answer| answer.expect("an answer"));
    assert_eq!(off.status(), never.status());
    assert_eq!(
        off.text().await.expect("text"),
        never.text().await.expect("text")
    );
    let taken = json!({ "container_id": container, "alias": "shop", "program": "files" });
    refused(rig.post(ALIASES, taken).await, 409, "ALIAS_IN_USE");
    rig.patch(&format!("{one}/state"), json!({ "enabled": true }))
        .await
        .expect(200);
    assert_eq!(status("shop", HEALTH).await, 200);

    // A target is what the bare name shows; pinned, it is all.
    let change =
        json!({ "target_path": HEALTH.trim_start_matches('/'), "allow_path_override": false });
    let changed = rig.patch(&one, change).await.expect(200).data();
    assert_eq!(changed["target_path"], HEALTH);
    assert_eq!(status("shop", "/").await, 200);
    assert_eq!(status("shop", HEALTH).await, 200);
    assert_eq!(status("shop", "/api/v1/terminal/openapi.json").await, 404);
    let change = json!({ "alias": "store", "target_path": null, "allow_path_override": true, "program": "files", "index": 3 });
    let changed = rig.patch(&one, change).await.expect(200).data();
    assert_eq!(
        (&changed["alias"], &changed["program"], &changed["index"]),
        (&json!("store"), &json!("files"), &json!(3))
    );
    assert_eq!(status("shop", "/").await, 404);
    assert_eq!(status("store", "/api/v1/files/health").await, 200);
    refused(
        rig.patch(&one, json!({ "alias": "app" })).await,
        409,
        "ALIAS_IN_USE",
    );
    invalid(rig.patch(&one, json!({ "alias": "exec" })).await, "/alias");

    // It ends by itself.
    let soon = std::time::SystemTime::now() + std::time::Duration::from_secs(2);
    let soon = soon
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_millis();
    rig.patch(&one, json!({ "expires_at": soon as u64 }))
        .await
        .expect(200);
    rig.until("the alias has expired", || async {
        status("store", "/api/v1/files/health").await == 404
    })
    .await;
    let on = rig
        .patch(&format!("{one}/state"), json!({ "enabled": true }))
        .await;
    refused(on, 409, "ALIAS_EXPIRED");
    let list = |query: &str| {
        let path = format!("{ALIASES}{query}");
        async { rig.get(&{ path }).await.expect(200).data() }
    };
    assert_eq!(
        each(&list("?expired=true").await["aliases"], "id"),
        [json!(id)]
    );
    assert_eq!(list("?expired=false").await["count"], 5);
    rig.patch(&one, json!({ "expires_at": null }))
        .await
        .expect(200);
    assert_eq!(status("store", "/api/v1/files/health").await, 200);

    assert_eq!(list("").await["count"], 6);
    assert_eq!(list(&format!("?container_id={NOTHING}")).await["count"], 0);
    assert_eq!(
        list(&format!("?project_id={}&enabled=true", web.project)).await["count"],
        6
    );
    assert_eq!(list("?enabled=false").await["count"], 0);
    let got = rig.get(&one).await.expect(200).data();
    assert_eq!(got["container"], json!({ "id": container, "name": "web" }));
    assert_eq!(got["project"]["id"], web.project.to_string());
    let path = format!("/api/v1/containers/{container}?include_proxy_domains=true");
    let shown = rig.get(&path).await.expect(200).data();
    assert_eq!(
        (&shown["has_proxy_domains"], &shown["proxy_domains_count"]),
        (&json!(true), &json!(6))
    );
    assert!(
        each(&shown["proxy_domains"], "alias").contains(&json!("store")),
        "{shown}"
    );

    // Nobody outside of its realm knows it.
    let realm = json!({ "alias": "elsewhere", "realm_ids": ["aaaaaaaaaaaaaaaaaaaaaaaa"] });
    let token = rig
        .post("/api/v1/auth/tokens", realm)
        .await
        .expect(201)
        .data();
    let stranger = Caller::new(&rig, text(&token["token"])).at("aaaaaaaaaaaaaaaaaaaaaaaa");
    refused(stranger.get(&one).await, 404, "NOT_FOUND");
    assert_eq!(stranger.get(ALIASES).await.expect(200).data()["count"], 0);
    refused(
        stranger.call(Method::DELETE, &one, None).await,
        404,
        "NOT_FOUND",
    );

    rig.delete(&one).await.expect(200);
    assert_eq!(status("store", "/api/v1/files/health").await, 404);
    refused(rig.get(&one).await, 404, "NOT_FOUND");
    refused(rig.delete(&one).await, 404, "NOT_FOUND");

    // With its container every alias goes, and its name is free.
    rig.delete(&format!("/api/v1/containers/{container}"))
        .await
        .expect(200);
    assert_eq!(status("app", "/").await, 404);
    assert_eq!(list("").await["count"], 0);
    let other = rig.create("other").await;
    let body =
        json!({ "container_id": other.id.to_string(), "alias": "app", "program": "terminal" });
    rig.post(ALIASES, body).await.expect(201);
    assert_eq!(status("app", HEALTH).await, 200);
    let gone = rig
        .delete(&format!("/api/v1/projects/{}", web.project))
        .await
        .expect(200)
        .data();
    assert_eq!(gone["deleted"]["aliases"], 1, "{gone}");
    assert_eq!(status("app", HEALTH).await, 404);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_links_are_made_listed_and_revoked() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let path = format!("/api/v1/containers/{}/proxy/links", web.id);
    let body = json!({ "service": "files", "read_only": true, "path_prefix": "/api/v1/files", "comment": "for Ann" });
    let made = rig.post(&path, body).await.expect(201).data();
    let url = text(&made["url"]);
    let start = format!(
        "https://{}:{}/api/v1/files?hoody_link=",
        web.host("files", 1),
        rig.client.port()
    );
    assert!(url.starts_with(&start), "{url}");
    assert_eq!(
        (&made["service"], &made["index"], &made["read_only"]),
        (&json!("files"), &json!(1), &json!(true))
    );
    assert_eq!(made["methods"], json!(["GET", "HEAD", "OPTIONS"]));
    let more =
        json!({ "service": "http", "index": 3000, "methods": ["post", "GET"], "expires_in": 60 });
    let more = rig.post(&path, more).await.expect(201).data();
    assert_eq!(
        (&more["methods"], &more["read_only"]),
        (&json!(["GET", "POST"]), &json!(false))
    );

    let listed = rig.get(&path).await.expect(200).data();
    assert_eq!(listed["count"], 2);
    assert!(
        !listed.to_string().contains("hoody_link"),
        "a URL is shown once: {listed}"
    );
    let one = format!("{path}/{}", text(&made["id"]));
    rig.delete(&one).await.expect(200);
    rig.delete(&one).await.expect(200);
    let listed = rig.get(&path).await.expect(200).data();
    let revoked = |id: &Value| {
        let links = listed["links"].as_array().expect("a list");
        links
            .iter()
            .find(|link| link["id"] == *id)
            .map(|link| link["revoked"].clone())
    };
    assert_eq!(
        (revoked(&made["id"]), revoked(&more["id"])),
        (Some(json!(true)), Some(json!(false)))
    );
    refused(
        rig.delete(&format!("{path}/{NOTHING}")).await,
        404,
        "NOT_FOUND",
    );

    for (body, pointer) in [
        (json!({ "service": "ssh" }), "/service"),
        (json!({ "service": "*" }), "/service"),
        (json!({}), "/service"),
        (json!({ "service": "files", "index": 0 }), "/index"),
        (
            json!({ "service": "files", "expires_in": 0 }),
            "/expires_in",
        ),
        (
            json!({ "service": "files", "expires_in": 31_622_401 }),
            "/expires_in",
        ),
        (
            json!({ "service": "files", "expires_at": "2001-01-01T00:00:00Z" }),
            "/expires_at",
        ),
        (
            json!({ "service": "files", "expires_at": "9999-01-01T00:00:00Z" }),
            "/expires_at",
        ),
        (json!({ "service": "files", "methods": [] }), "/methods"),
        (
            json!({ "service": "files", "methods": ["BREW"] }),
            "/methods",
        ),
        (
            json!({ "service": "files", "methods": ["POST"], "read_only": true }),
            "/methods",
        ),
        (
            json!({ "service": "files", "path_prefix": "/a/../b" }),
            "/path_prefix",
        ),
        (
            json!({ "service": "files", "path_prefix": "a" }),
            "/path_prefix",
        ),
    ] {
        invalid(rig.post(&path, body).await, pointer);
    }
    let nowhere = format!("/api/v1/containers/{NOTHING}/proxy/links");
    refused(
        rig.post(&nowhere, json!({ "service": "files" })).await,
        404,
        "NOT_FOUND",
    );
    rig.stop().await;
}

/// A token that may look may not open doors.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_read_changes_nothing_at_the_edge() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let body = json!({ "alias": "reader", "permission_template": "read_only" });
    let token = rig
        .post("/api/v1/auth/tokens", body)
        .await
        .expect(201)
        .data();
    let reader = Caller::new(&rig, text(&token["token"]));
    let of = |rest: &str| format!("/api/v1/containers/{}/proxy/{rest}", web.id);
    for rest in [
        "permissions",
        "hooks",
        "settings",
        "groups",
        "services",
        "links",
    ] {
        reader.get(&of(rest)).await.expect(200);
    }
    let hook = json!({ "match": {}, "script": { "path": "/x" } });
    for (method, path, body) in [
        (Method::DELETE, of("permissions"), None),
        (
            Method::PUT,
            of("permissions/groups/g/password"),
            Some(password()),
        ),
        (
            Method::PATCH,
            of("permissions/state"),
            Some(json!({ "enable_proxy": true })),
        ),
        (
            Method::PUT,
            of("settings"),
            Some(json!({ "default": "allow" })),
        ),
        (Method::POST, of("hooks/files"), Some(hook)),
        (
            Method::POST,
            of("links"),
            Some(json!({ "service": "files" })),
        ),
        (Method::DELETE, of(&format!("links/{NOTHING}")), None),
        (
            Method::PATCH,
            format!("/api/v1/projects/{}/proxy/permissions/default", web.project),
            Some(json!({ "default": "allow" })),
        ),
        (Method::GET, "/api/v1/proxy/aliases".to_owned(), None),
        (
            Method::POST,
            "/api/v1/proxy/aliases".to_owned(),
            Some(json!({ "container_id": web.id.to_string(), "program": "terminal" })),
        ),
    ] {
        let answer = reader.call(method, &path, body).await;
        refused(answer, 403, "PERMISSION_DENIED");
    }
    rig.stop().await;
}

/// Who may embed what a container serves: as the API was told, so the proxy tells browsers.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_embed_a_container_is_a_setting_of_it() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let other = rig.create("other").await;
    let said = async |container: &tests::rig::Container, name: &str| {
        let heard = rig
            .kit(
                container,
                "terminal",
                Method::GET,
                "/api/v1/terminal/health",
                |it| it,
            )
            .await;
        let heard = heard.expect(200);
        let values = heard.headers.get_all(name).into_iter();
        let values: Vec<&str> = values.map(|it| it.to_str().expect("text")).collect();
        values.join(", ")
    };
    const POLICY: &str = "content-security-policy";
    const RESOURCE: &str = "cross-origin-resource-policy";
    let before = said(&web, POLICY).await;
    assert!(!before.contains("frame-ancestors https:"), "{before}");
    assert_eq!(said(&web, RESOURCE).await, "cross-origin");
    let mut settings = Document {
        rig: &rig,
        path: format!("/api/v1/containers/{}/proxy/settings", web.id),
        version: 0,
    };
    let listed = json!([
        "'self'",
        "https://app.example",
        "https://*.example.org:8443"
    ]);
    let after = settings
        .write(Method::PUT, "", json!({ "frame_ancestors": listed }))
        .await;
    assert_eq!(
        (&after["frame_ancestors"], &after["allow_embedding"]),
        (&listed, &json!(true))
    );
    let policy = said(&web, POLICY).await;
    let written = "frame-ancestors 'self' https://app.example https://*.example.org:8443";
    assert!(policy.ends_with(written), "{policy}");
    assert!(!said(&other, POLICY).await.contains("app.example"));
    // Only what is named changes; what is written of it reads as it was written.
    let after = settings
        .write(Method::PATCH, "", json!({ "allow_embedding": false }))
        .await;
    assert_eq!(after["frame_ancestors"], listed);
    assert_eq!(settings.get("").await, after);
    assert!(said(&web, POLICY).await.ends_with("frame-ancestors 'self'"));
    assert_eq!(said(&web, RESOURCE).await, "same-origin");
    settings
        .write(
            Method::PUT,
            "",
            json!({ "allow_embedding": true, "frame_ancestors": [] }),
        )
        .await;
    assert!(said(&web, POLICY).await.ends_with("frame-ancestors 'none'"));

    // Nothing that is no source, and nothing of an older version.
    for bad in [
        json!("https://app.example"),
        json!([""]),
        json!(["https://a b"]),
        json!(["https://a.example; script-src *"]),
        json!(["https://a.example, https://b.example"]),
        json!(["https://a.example\r\nset-cookie: a=1"]),
        json!(["'unsafe-inline'"]),
        json!(["https://a.example/path"]),
        json!(["'none'", "https://a.example"]),
        json!([1]),
        json!(vec!["https://a.example"; 33]),
        json!([format!("https://{}.example", "a".repeat(400))]),
    ] {
        let answer = settings
            .send(Method::PUT, "", json!({ "frame_ancestors": bad }))
            .await;
        assert_eq!(answer.status, 400, "{bad}");
    }
    let stale = settings
        .at(
            Method::PUT,
            "",
            json!({ "frame_ancestors": null }),
            Some("file:v1"),
        )
        .await;
    refused(stale, 412, "PRECONDITION_FAILED");
    let unsaid = settings
        .at(Method::PUT, "", json!({ "frame_ancestors": null }), None)
        .await;
    refused(unsaid, 428, "PRECONDITION_REQUIRED");
    assert_eq!(settings.get("").await["frame_ancestors"], json!([]));

    // Rules that are written anew leave it, and with them it goes.
    let permissions = format!("/api/v1/containers/{}/proxy/permissions", web.id);
    let version = settings.version;
    let mut rules = Document {
        rig: &rig,
        path: permissions,
        version,
    };
    let anew = json!({
        "project": web.project.to_string(), "container": web.id.to_string(),
        "groups": {}, "permissions": {}, "default": "allow",
    });
    rules.write(Method::PUT, "", anew).await;
    assert!(said(&web, POLICY).await.ends_with("frame-ancestors 'none'"));
    rules
        .send(Method::DELETE, "", Value::Null)
        .await
        .expect(200);
    assert_eq!(said(&web, POLICY).await, before);
    rig.stop().await;
}

/// What the API was told is what the proxy does, from the moment of the answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_in_effect_when_it_is_answered() {
    const HEALTH: &str = "/api/v1/terminal/health";
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let visit = |path: &str, user: Option<&'static str>| {
        let request = rig
            .client
            .request(Method::GET, &web.host("terminal", 1), path);
        let request = match user {
            Some(user) => request.basic_auth(user, Some("correct horse")),
            None => request,
        };
        async {
            let answer = rig.client.execute(request.build().expect("a request"));
            answer.await.expect("an answer").status().as_u16()
        }
    };
    let mut rules = Document {
        rig: &rig,
        path: format!("/api/v1/containers/{}/proxy/permissions", web.id),
        version: 0,
    };
    assert_eq!(visit(HEALTH, None).await, 200);
    rules
        .write(Method::PUT, "/groups/staff/password", password())
        .await;
    assert_eq!(
        visit(HEALTH, None).await,
        200,
        "a group alone shuts nothing"
    );
    let granted = json!({ "program": "terminal", "access": 1 });
    rules
        .write(Method::PUT, "/permissions/staff", granted)
        .await;
    let deny = json!({ "default": "deny" });
    rules.write(Method::PATCH, "/default", deny).await;
    assert_eq!(visit(HEALTH, None).await, 401);
    assert_eq!(visit(HEALTH, Some("ann")).await, 200);
    assert_eq!(visit(HEALTH, Some("eve")).await, 401);

    // A link opens it until it is revoked.
    let links = format!("/api/v1/containers/{}/proxy/links", web.id);
    let body = json!({ "service": "terminal", "read_only": true, "expires_in": 600 });
    let link = rig.post(&links, body).await.expect(201).data();
    let url = text(&link["url"]);
    let (_, token) = url.split_once("hoody_link=").expect("a token");
    let signed = format!("{HEALTH}?hoody_link={token}");
    assert_eq!(visit(&signed, None).await, 200);
    let one = format!("{links}/{}", text(&link["id"]));
    rig.delete(&one).await.expect(200);
    assert_eq!(visit(&signed, None).await, 403);

    // The rules of the project hold beside those of the container.
    let mut project = Document {
        rig: &rig,
        path: format!("/api/v1/projects/{}/proxy/permissions", web.project),
        version: 0,
    };
    let deny = json!({ "default": "deny" });
    project.write(Method::PATCH, "/default", deny).await;
    assert_eq!(visit(HEALTH, Some("ann")).await, 403);
    project
        .send(Method::DELETE, "", Value::Null)
        .await
        .expect(200);
    assert_eq!(visit(HEALTH, Some("ann")).await, 200);

    let off = json!({ "enable_proxy": false });
    rules.write(Method::PATCH, "/state", off).await;
    assert_eq!(visit(HEALTH, Some("ann")).await, 403);
    rules
        .send(Method::DELETE, "", Value::Null)
        .await
        .expect(200);
    assert_eq!(visit(HEALTH, None).await, 200);
    rig.stop().await;
}
