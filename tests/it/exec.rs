//! Scripts of a container: every row of the contract, over the proxy.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tests::Rig;
use tests::rig::{Answer, Container};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The exec service of a container, for stories.
struct Exec<'a> {
    rig: &'a Rig,
    container: Container,
}

impl<'a> Exec<'a> {
    async fn of(rig: &'a Rig) -> Exec<'a> {
        Exec {
            rig,
            container: rig.create("web").await,
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        shape: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Answer {
        self.rig
            .kit(&self.container, "exec", method, path, shape)
            .await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, |request| request).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, |request| request.json(&body))
            .await
    }

    /// A call of `/api/v1/exec{path}` that succeeds.
    async fn api(&self, method: Method, path: &str, body: Value) -> Value {
        let path = format!("/api/v1/exec{path}");
        let answer = self
            .call(method, &path, |request| match body {
                Value::Null => request,
                body => request.json(&body),
            })
            .await;
        answer.expect(200).json()
    }

    async fn ask(&self, path: &str, body: Value) -> Value {
        self.api(Method::POST, path, body).await
    }

    async fn show(&self, path: &str) -> Value {
        self.api(Method::GET, path, Value::Null).await
    }

    async fn write(&self, path: &str, content: &str) -> Value {
        self.ask(
            "/scripts/write",
            json!({ "path": path, "content": content }),
        )
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_is_written_called_read_moved_and_deleted() {
    let rig = Rig::start().await;
    let exec = Exec::of(&rig).await;
    let written = exec
        .write("hello.ts", "// @description Says hello\nreturn { hello: metadata.query.name ?? 'world', by: req.headers['x-hoody-edge-user'] ?? null }")
        .await;
    assert_eq!(written["resolvedPath"], "default/1/hello.ts");
    assert_eq!(
        exec.get("/hello?name=ann").await.expect(200).json()["hello"],
        "ann"
    );
    exec.write("echo.ts", "return req.body").await;
    let echoed = exec.post("/echo", json!({ "a": [1] })).await.expect(200);
    assert_eq!(echoed.json(), json!({ "a": [1] }));
    let list = exec.show("/scripts/list").await;
    assert_eq!(list["count"], 2);
    let read = exec.show("/scripts/read?path=hello.ts").await;
    assert_eq!(read["magicComments"]["description"], "Says hello");
    let tree = exec
        .ask("/scripts/tree", json!({ "includeMetadata": true }))
        .await;
    assert_eq!(tree["tree"].as_array().map(Vec::len), Some(2));
    let moved = exec
        .ask(
            "/scripts/move",
            json!({ "from": "hello.ts", "to": "greet/[name].ts" }),
        )
        .await;
    assert_eq!(moved["resolvedTo"], "default/1/greet/[name].ts");
    assert_eq!(
        exec.get("/greet/bob").await.expect(200).json()["hello"],
        "bob"
    );
    exec.get("/hello").await.expect(404);
    let ids = exec.show("/list").await;
    assert_eq!(ids["summary"], json!({ "sdk": 0, "custom": 1 }));
    let deleted = exec
        .api(
            Method::DELETE,
            "/scripts/delete?path=echo.ts&confirm=true",
            Value::Null,
        )
        .await;
    assert_eq!(deleted["deleted"], true);
    let refused = exec
        .call(
            Method::DELETE,
            "/api/v1/exec/scripts/delete?path=greet/x.ts",
            |it| it,
        )
        .await;
    assert_eq!(refused.expect(400).json()["code"], "CONFIRMATION_REQUIRED");
    let missing = exec.get("/nothing").await.expect(404).json();
    assert_eq!(missing["code"], "SCRIPT_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_directives_and_documents_of_scripts() {
    let rig = Rig::start().await;
    let exec = Exec::of(&rig).await;
    exec.write("users/[id].ts", "// @tags people\nreturn 1")
        .await;
    exec.write("docs/[...slug].ts", "return 1").await;
    let found = exec
        .ask("/route/discover", json!({ "includeMetadata": true }))
        .await;
    assert_eq!(found["count"], 2);
    let led = exec
        .ask("/route/resolve", json!({ "path": "/users/7" }))
        .await;
    assert_eq!(
        (&led["matched"], &led["params"]),
        (&json!(true), &json!({ "id": "7" }))
    );
    let tested = exec
        .ask(
            "/route/test",
            json!({ "paths": ["/users/1", "/docs/a/b", "/x"] }),
        )
        .await;
    assert_eq!(
        (&tested["matched"], &tested["notMatched"]),
        (&json!(2), &json!(1))
    );

    let schema = exec.show("/magic-comments/schema").await;
    assert_eq!(
        schema["fields"].as_array().map(Vec::len),
        schema["total_fields"].as_u64().map(|many| many as usize)
    );
    let update = |dry: bool| json!({ "path": "users/[id].ts", "comments": "{\"timeout\": 900, \"label\": \"user\"}", "dry_run": dry });
    let would = exec
        .api(Method::PUT, "/magic-comments/update", update(true))
        .await;
    assert_eq!(would["proposed"]["timeout"], 900);
    let did = exec
        .api(Method::PUT, "/magic-comments/update", update(false))
        .await;
    assert_eq!(did["updated"]["label"], "user");
    let read = exec
        .show("/magic-comments/read?path=users%2F%5Bid%5D.ts")
        .await;
    assert_eq!(
        read["comments"],
        json!({ "label": "user", "tags": ["people"], "timeout": 900 })
    );
    for dry in [true, false] {
        let all = json!({ "comments": { "tags": ["all"] }, "dry_run": dry });
        let bulk = exec.ask("/magic-comments/bulk-update", all).await;
        let total = if dry {
            &bulk["would_affect"]["total"]
        } else {
            &bulk["results"]["updated"]
        };
        assert_eq!(total, 2, "{bulk}");
    }
    let tagged = exec.show("/scripts/list?tags=all").await;
    assert_eq!(tagged["count"], 2);

    exec.write(
        "users/[id].openapi.json",
        r#"{"get":{"summary":"A user","responses":{"200":{"description":"It"}}}}"#,
    )
    .await;
    let listed = exec.show("/user-openapi/list").await;
    assert_eq!(listed["data"]["total"], 2);
    let made = exec.ask("/user-openapi/generate", json!({})).await;
    assert_eq!(
        made["data"]["paths"]["/users/{id}"]["get"]["summary"],
        "A user"
    );
    let spec = exec.show("/user-openapi/spec").await;
    assert_eq!(spec["openapi"], "3.0.3");
    let yaml = exec
        .get("/api/v1/exec/user-openapi/spec?format=yaml")
        .await
        .expect(200);
    assert!(yaml.text().contains("/users/{id}"));
    let merged = exec
        .ask(
            "/user-openapi/merge",
            json!({ "directories": ["scripts"], "specs": [{ "paths": { "/extra": {} } }] }),
        )
        .await;
    assert_eq!(
        merged["data"]["paths"].as_object().map(|it| it.len()),
        Some(3)
    );
    let file = "users%2F%5Bid%5D.ts";
    let companion = exec
        .show(&format!("/user-openapi/schema?file={file}"))
        .await;
    assert_eq!(companion["get"]["summary"], "A user");
    let valid = exec
        .ask("/user-openapi/validate", json!({ "file": "users/[id].ts" }))
        .await;
    assert_eq!(valid["success"], true);
    for document in ["openapi.json", "openapi.yaml"] {
        exec.get(&format!("/{document}")).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn code_is_looked_at_without_being_run() {
    let rig = Rig::start().await;
    let exec = Exec::of(&rig).await;
    let code = |code: &str| json!({ "code": code });
    let seen = exec
        .ask(
            "/validate/script",
            code("// @timeout never\nconst x: number = 1; return x"),
        )
        .await;
    assert_eq!(seen["valid"], true, "{seen}");
    assert_eq!(
        seen["results"]["magicCommentWarnings"][0]["directive"],
        "@timeout"
    );
    let seen = exec
        .ask("/validate/script", code("require('left-pad')"))
        .await;
    assert_eq!(
        seen["results"]["dependencies"]["missingModules"],
        json!(["left-pad"])
    );
    let seen = exec.ask("/validate/syntax", code("return {{{")).await;
    assert_eq!(seen["valid"], false);
    let seen = exec
        .ask("/validate/typescript", code("const x: number = 1"))
        .await;
    assert!(
        seen["javascript"]
            .as_str()
            .is_some_and(|it| !it.contains("number"))
    );
    let seen = exec
        .ask(
            "/validate/dependencies",
            code("import x from 'left-pad'; import 'fs'"),
        )
        .await;
    assert_eq!(
        (&seen["totalModules"], &seen["missingCount"]),
        (&json!(1), &json!(1))
    );
    let seen = exec
        .ask(
            "/validate/magic-comments",
            code("// @mode worker\ntype Return = string"),
        )
        .await;
    assert_eq!(seen["returnType"]["definition"], "string");
    let held = |value: Value| json!({ "typeDefinition": "{ id: number; name?: string }[]", "value": value });
    let fits = exec
        .ask("/validate/return-type", held(json!([{ "id": 1 }])))
        .await;
    assert_eq!(fits["valid"], true);
    let wrong = exec
        .ask(
            "/validate/return-type",
            held(json!([{ "id": "1", "name": 2 }])),
        )
        .await;
    assert_eq!(wrong["errors"].as_array().map(Vec::len), Some(2));

    let list = exec.show("/templates/list?category=api").await;
    assert!(
        list["templates"]
            .as_array()
            .is_some_and(|all| all.iter().any(|it| it["name"] == "self-writing"))
    );
    let preview = exec
        .show("/templates/preview?name=hello&variables=%7B%22greeting%22%3A%22Hi%22%7D")
        .await;
    assert_eq!(preview["template"]["substituted"], true);
    let made = exec
        .ask(
            "/templates/generate",
            json!({ "name": "hello", "variables": { "greeting": "Hi" }, "saveFile": true, "outputPath": "hi.ts" }),
        )
        .await;
    assert_eq!(made["path"], "default/1/hi.ts");
    assert_eq!(
        exec.get("/hi").await.expect(200).json()["message"],
        "Hi, world!"
    );
    let created = exec
        .ask(
            "/templates/create-custom",
            json!({ "name": "mine", "code": "return '{{x}}'", "metadata": { "params": ["x"] } }),
        )
        .await;
    assert_eq!(created["metadata"]["category"], "custom");
    let updated = exec
        .api(
            Method::PUT,
            "/templates/update-custom/mine",
            json!({ "metadata": { "category": "utility" } }),
        )
        .await;
    assert_eq!(updated["metadata"]["params"], json!(["x"]));
    // as clients of the usual kind write the name
    let deleted = exec
        .api(
            Method::DELETE,
            "/templates/delete-custom/:name?name=mine",
            Value::Null,
        )
        .await;
    assert_eq!(deleted["name"], "mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn state_logs_numbers_and_schedules() {
    let rig = Rig::start().await;
    let exec = Exec::of(&rig).await;
    exec.write(
        "count.ts",
        "console.log('counted'); shared.n = (shared.n ?? 0) + 1; return shared.n",
    )
    .await;
    for nth in 1..=3 {
        assert_eq!(exec.get("/count").await.expect(200).json(), nth);
    }
    let host = exec.container.host("exec", 1);
    let got = exec
        .ask("/shared-state/get", json!({ "hostname": host }))
        .await;
    assert_eq!(got["state"], json!({ "n": 3 }));
    exec.ask(
        "/shared-state/set",
        json!({ "hostname": host, "path": "n", "value": 10 }),
    )
    .await;
    assert_eq!(exec.get("/count").await.json(), 11);
    let cleared = exec
        .ask("/shared-state/clear", json!({ "hostname": host }))
        .await;
    assert_eq!(cleared["count"], 1);
    let cache = exec.ask("/cache/clear", json!({ "hostname": host })).await;
    assert_eq!(cache["vmCache"]["cleared"], 1);
    assert_eq!(exec.get("/count").await.json(), 1);

    let stats = exec.show("/monitor/stats").await;
    assert_eq!(stats["requests"]["total"], 5);
    exec.show("/monitor/active-requests").await;
    let scripts = exec.show("/monitor/scripts?sort=requests&limit=5").await;
    assert_eq!(scripts["scripts"][0]["http"]["total"], 5);
    let one = exec
        .ask(
            "/monitor/script-performance",
            json!({ "scriptPath": "default/1/count.ts" }),
        )
        .await;
    assert_eq!(one["metrics"]["period"], "lifetime");
    let text = exec
        .get("/api/v1/exec/monitor/metrics")
        .await
        .expect(200)
        .text();
    assert!(
        text.contains(
            "exec_script_requests_total{script=\"default/1/count.ts\",outcome=\"success\"} 5"
        ),
        "{text}"
    );

    let logs = exec.show("/logs/list").await;
    assert!(logs["count"].as_u64() >= Some(2), "{logs}");
    let read = exec
        .ask(
            "/logs/read",
            json!({ "file": "access/access.log", "lines": "2" }),
        )
        .await;
    assert_eq!(read["returnedLines"], 2);
    let found = exec
        .ask("/logs/search", json!({ "query": "COUNTED" }))
        .await;
    assert_eq!(found["matchesFound"], 5, "{found}");
    let stream = exec
        .get("/api/v1/exec/logs/stream?file=exec.log&follow=false")
        .await
        .expect(200);
    let text = stream.text();
    assert_eq!(text.matches("] counted").count(), 5, "{text}");
    let cleared = exec
        .api(
            Method::DELETE,
            "/logs/clear?type=access&confirm=true",
            Value::Null,
        )
        .await;
    assert_eq!(cleared["deleted"], 1);

    exec.write("tick.ts", "// @schedule @hourly\nreturn 'ticked'")
        .await;
    assert_eq!(exec.show("/schedules/list").await["total"], 1);
    let ran = exec
        .ask("/schedules/trigger", json!({ "scriptPath": "tick.ts" }))
        .await;
    assert_eq!(ran["status"], "ok");
    let history = exec.show("/schedules/history?scriptPath=tick.ts").await;
    assert_eq!(history["entries"][0]["returnPreview"], "ticked");
    let reloaded = exec
        .ask("/schedules/reload", json!({ "dry_run": true }))
        .await;
    assert_eq!(reloaded["kept"], json!(["default/1/tick.ts"]));
    let ready = exec.show("/system/restart-status").await;
    assert_eq!(ready["canRestart"], true);
    let restart = exec.ask("/system/restart", json!({})).await;
    assert_eq!(restart["status"], "restarting");
    exec.show("/health").await;
}

/// A server on the loopback that answers by path.
async fn serve(answer: impl Fn(&str) -> (String, Vec<u8>) + Send + Sync + 'static) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    let answer = std::sync::Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut asked = vec![0; 64 << 10];
                let read = stream.read(&mut asked).await.unwrap_or_default();
                let text = String::from_utf8_lossy(&asked[..read]).into_owned();
                let path = text.split(' ').nth(1).unwrap_or("/").to_owned();
                let (kind, body) = answer(&path);
                let status = if kind.is_empty() {
                    "404 Not Found"
                } else {
                    "200 OK"
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(&body).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    format!("http://{address}")
}

/// A registry of npm with one package.
async fn registry(directory: &std::path::Path) -> String {
    let package = directory.join("package");
    std::fs::create_dir_all(&package).expect("a directory");
    let manifest = r#"{"name":"tiny-pad","version":"1.2.3","main":"index.js"}"#;
    std::fs::write(package.join("package.json"), manifest).expect("written");
    std::fs::write(
        package.join("index.js"),
        "module.exports = (text, many) => text.padStart(many)",
    )
    .expect("written");
    let tar = directory.join("tiny-pad.tgz");
    let made = std::process::Command::new("tar")
        .args([
            "-czf",
            &tar.display().to_string(),
            "-C",
            &directory.display().to_string(),
            "package",
        ])
        .status()
        .expect("tar runs");
    assert!(made.success());
    let bytes = std::fs::read(tar).expect("it was made");
    let sum = std::process::Command::new("sh")
        .args([
            "-c",
            "openssl dgst -sha512 -binary < \"$0\" | openssl base64 -A",
        ])
        .arg(directory.join("tiny-pad.tgz"))
        .output()
        .expect("openssl runs");
    let integrity = format!("sha512-{}", String::from_utf8_lossy(&sum.stdout).trim());
    let base = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let its = base.clone();
    let url = serve(move |path| match path {
        "/tiny-pad" => {
            let base = its.get().cloned().unwrap_or_default();
            let document = json!({
                "name": "tiny-pad", "dist-tags": { "latest": "1.2.3" },
                "versions": { "1.2.3": {
                    "name": "tiny-pad", "version": "1.2.3",
                    "dist": { "tarball": format!("{base}/tiny-pad/-/tiny-pad-1.2.3.tgz"), "integrity": integrity },
                } },
            });
            ("application/json".to_owned(), document.to_string().into_bytes())
        }
        path if path.ends_with(".tgz") => ("application/octet-stream".to_owned(), bytes.clone()),
        _ => (String::new(), Vec::new()),
    })
    .await;
    base.set(url.clone()).expect("once");
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_are_there_when_a_script_asks_for_them() {
    let rig = Rig::start().await;
    let exec = Exec::of(&rig).await;
    let place = tempfile::tempdir().expect("a directory");
    let url = registry(place.path()).await;
    let home = rig
        .state
        .path()
        .join("homes")
        .join(exec.container.id.to_string());
    let scripts = home.join("hoody-exec/scripts");
    std::fs::create_dir_all(&scripts).expect("a directory");
    std::fs::write(scripts.join(".npmrc"), format!("registry={url}/\n")).expect("written");
    let made = exec.ask("/package/init", json!({ "name": "own" })).await;
    assert_eq!(made["created"], true);
    exec.write("pad.ts", "import pad from 'tiny-pad'\nreturn pad('a', 3)")
        .await;
    let before = exec
        .ask("/dependencies/check", json!({ "modules": ["tiny-pad"] }))
        .await;
    assert_eq!(before["missing"], json!(["tiny-pad"]));
    let padded = exec.get("/pad").await.expect(200);
    assert_eq!(padded.text(), "  a");
    exec.write(
        "need.js",
        "const pad = require('tiny-pad'); return pad('b', 2)",
    )
    .await;
    assert_eq!(exec.get("/need").await.expect(200).text(), " b");
    let bundled = exec.show("/dependencies/bundled").await;
    assert_eq!(bundled["packages"][0]["version"], "1.2.3");
    let again = exec
        .ask("/dependencies/install", json!({ "modules": "tiny-pad" }))
        .await;
    assert_eq!(again["details"][0]["status"], "already-installed");
    let read = exec.show("/package/read").await;
    assert_eq!(read["dependencyCount"], 1, "{read}");
    let pinned = exec.ask("/package/pin", json!({})).await;
    assert_eq!(pinned["dependencies"]["tiny-pad"], "1.2.3", "{pinned}");
    let updated = exec
        .ask(
            "/package/update",
            json!({ "dependencies": { "other": "^2.0.0" }, "scripts": { "x": "y" }, "metadata": { "license": "MIT" } }),
        )
        .await;
    assert_eq!(updated["changeCount"], 3);
    let compared = exec.ask("/package/compare", json!({})).await;
    assert_eq!(compared["missing"], json!(["other"]));
    let begun = exec
        .ask("/package/install", json!({ "packages": ["tiny-pad"] }))
        .await;
    assert_eq!(begun["status"], "installing");
    // what there is not, is told
    exec.write("gone.ts", "import 'no-such-package'\nreturn 1")
        .await;
    let gone = exec.get("/gone").await;
    assert_eq!(gone.status, 502, "{}", gone.text());
    assert!(gone.text().contains("no-such-package"), "{}", gone.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_of_others_becomes_scripts() {
    let rig = Rig::start().await;
    let exec = Exec::of(&rig).await;
    let url = serve(|path| match path.split('?').next() {
        Some("/openapi.json") => {
            let document = json!({ "openapi": "3.0.0", "paths": { "/pets/{id}": { "get": {} }, "/pets": { "get": {}, "post": {} } } });
            ("application/json".to_owned(), document.to_string().into_bytes())
        }
        Some("/pets/7") => ("text/plain".to_owned(), b"pet seven".to_vec()),
        _ => (String::new(), Vec::new()),
    })
    .await;
    let wish = json!({
        "execId": "pets", "source_url": format!("{url}/openapi.json"),
        "middleware": { "pre": "if (req.method === 'DELETE') { res.status(403); return 'no' }" },
        "magic_comments": { "timeout": 5000 },
    });
    let imported = exec.ask("/sdk/import", wish.clone()).await;
    assert_eq!(imported["summary"]["total"], 2);
    let again = exec.ask("/sdk/import", wish).await;
    assert_eq!(
        (&again["summary"]["new"], &again["summary"]["conflicts"]),
        (&json!(0), &json!(0))
    );
    let list = exec.show("/sdk/list").await;
    assert_eq!(list["sdks"][0]["id"], "pets");
    let shown = exec.show("/sdk/pets").await;
    assert_eq!(
        (
            &shown["files"]["endpoints"],
            &shown["middleware"]["pre"]["exists"]
        ),
        (&json!(2), &json!(true))
    );
    let resolved = exec
        .ask(
            "/route/resolve",
            json!({ "path": "/pets/7", "execId": "pets" }),
        )
        .await;
    assert_eq!(resolved["scriptPath"], "default/pets/pets/[id].ts");
    // a host names ids that are numbers; the same scripts under one of those
    let numbered = json!({ "execId": "2", "source_url": format!("{url}/openapi.json") });
    exec.ask("/sdk/import", numbered).await;
    let request = rig
        .client
        .request(Method::GET, &exec.container.host("exec", 2), "/pets/7?x=1");
    let pet = rig.send("exec", request).await.expect(200);
    assert_eq!(pet.text(), "pet seven");
    let deleted = exec
        .api(Method::DELETE, "/sdk/:id?id=pets", Value::Null)
        .await;
    assert_eq!(deleted["message"], "SDK deleted");
    exec.get("/api/v1/exec/sdk/pets").await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_of_script_directories_and_hooks_lead_to_scripts() {
    let rig = Rig::start().await;
    let exec = Exec::of(&rig).await;
    let write = json!({ "path": "who.ts", "subdomain": "api", "content": "return { sub: metadata.subdomain, id: metadata.execId }" });
    exec.ask("/scripts/write", write).await;
    let listed = exec.show("/scripts/list?subdomain=api").await;
    assert_eq!(listed["count"], 1);
    let host = format!("api.{}", exec.container.host("exec", 1));
    let request = rig.client.request(Method::GET, &host, "/who");
    let who = rig.send("exec", request).await.expect(200).json();
    assert_eq!(who, json!({ "sub": "api", "id": "1" }));
    exec.get("/who").await.expect(404);

    exec.write(
        "gate.ts",
        "const { path, headers } = req.body\n\
         if (path.includes('secret')) return { action: 'answer', status: 403, body: 'not yours' }\n\
         if (path.includes('moved')) return { action: 'redirect', location: '/elsewhere' }\n\
         if (path.includes('alias')) return { action: 'rewrite', path: '/api/v1/files/health' }",
    )
    .await;
    let path = format!("/api/v1/containers/{}/proxy/hooks/files", exec.container.id);
    let hook = json!({ "match": {}, "script": { "path": "/gate" } });
    let request = rig
        .api(Method::POST, &path)
        .header("if-match", "file:v0")
        .json(&hook);
    let added = rig.send("api", request).await;
    assert!(added.status < 300, "{}", added.text());
    let visit = |path: &str| {
        let request = rig
            .client
            .request(Method::GET, &exec.container.host("files", 1), path);
        let rig = &rig;
        async move {
            rig.client
                .execute(request.build().expect("a request"))
                .await
                .expect("an answer")
        }
    };
    rig.until("the hook is in effect", || async {
        visit("/secret").await.status() == 403
    })
    .await;
    assert_eq!(
        visit("/secret").await.text().await.expect("a text"),
        "not yours"
    );
    assert_eq!(visit("/moved").await.headers()["location"], "/elsewhere");
    assert_eq!(visit("/alias").await.status(), 200);
    assert_eq!(
        visit("/api/v1/files/health").await.status(),
        200,
        "it says nothing, and all goes on"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_stands_where_no_script_does_and_agents_have_tools() {
    let rig = Rig::start().await;
    let exec = Exec::of(&rig).await;
    let page = |request: RequestBuilder| request.header("accept", "text/html");
    let shown = exec.call(Method::GET, "/", page).await;
    assert!(matches!(shown.status, 200 | 503), "{}", shown.text());
    exec.write("index.ts", "return '<!doctype html><p>mine'")
        .await;
    assert_eq!(
        exec.call(Method::GET, "/", page).await.expect(200).text(),
        "<!doctype html><p>mine"
    );
    let message = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {
        "name": "writeScript", "arguments": { "path": "tool.ts", "content": "return 'by a tool'" } } });
    let said = exec.post("/mcp", message).await.expect(200).json();
    assert_eq!(
        said["result"]["structuredContent"]["created"], true,
        "{said}"
    );
    assert_eq!(exec.get("/tool").await.expect(200).text(), "by a tool");
}
