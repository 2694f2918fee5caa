use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use clap::Command;
use serde_json::{Value, json};

use super::node::{containers_domain, unwrapped};
use super::profile::{self, Profile};
use super::request::{Payload, Request};
use super::verb::{self, Verb};
use super::{containers, tree};

/// A document of an API and one of a kit service, with what makes commands hard.
fn verbs() -> Vec<Verb> {
    let parameter = |place: &str, name: &str, required: bool, schema: Value| json!({ "in": place, "name": name, "required": required, "schema": schema, "description": "About it.\n\nAt length." });
    let api = json!({ "paths": {
        "/api/v1/projects/{id}/containers": { "post": {
            "x-cli": "containers create", "summary": "Create a container.",
            "parameters": [parameter("path", "id", true, json!({ "type": "string" }))],
            "requestBody": { "content": { "application/json": { "schema": {
                "properties": {
                    "server_id": { "type": "string" },
                    "name": { "type": ["string", "null"] },
                    "hoody_kit": { "type": "boolean", "default": true },
                    "environment_vars": { "type": "object", "additionalProperties": { "type": "string" } },
                    "realm_ids": { "type": "array", "items": { "type": "string" } },
                    "limits": { "type": "object" },
                    "max": { "type": ["integer", "null"] },
                    "share": { "type": "number" },
                    "token": { "type": "string" },
                },
                "required": ["server_id"],
            } } } },
        } },
        "/api/v1/containers/{id}/{operation}": { "post": {
            "x-cli": "containers manage", "summary": "Manage.",
            "parameters": [
                parameter("path", "operation", true, json!({ "enum": ["start", "force-stop"], "type": "string" })),
                parameter("path", "id", true, json!({ "type": "string" })),
            ],
        } },
        "/api/v1/containers/": { "get": {
            "x-cli": "containers list", "summary": "List.",
            "parameters": [
                parameter("query", "page", false, json!({ "type": "integer" })),
                parameter("query", "sort_order", false, json!({ "anyOf": [{ "enum": ["asc", "desc"], "type": "string" }, { "type": "null" }] })),
                parameter("query", "include_expired", false, json!({ "type": "boolean" })),
            ],
        } },
        "/api/v1/containers/{id}/snapshots/{name}/alias": { "put": {
            "x-cli": "snapshots update-alias", "summary": "Name.",
            "parameters": [
                parameter("path", "id", true, json!({ "type": "string" })),
                parameter("path", "name", true, json!({ "type": "string" })),
            ],
            "requestBody": { "content": { "application/json": { "schema": {
                "properties": { "alias": { "type": ["string", "null"] } }, "required": ["alias"],
            } } } },
        } },
        "/api/v1/containers/{id}/storage/shares": { "post": {
            "x-cli": "storage create", "summary": "Offer.",
            "parameters": [parameter("path", "id", true, json!({ "type": "string" }))],
            "requestBody": { "content": { "application/json": { "schema": {
                "properties": {
                    "source_path": { "type": "string" },
                    "target_container_id": { "type": ["string", "null"] },
                    "mode": { "enum": ["readonly", "readwrite"], "type": "string" },
                },
                "required": ["source_path", "mode"],
            } } } },
        } },
        "/api/v1/containers/{id}/storage/incoming/{shareId}/mount": { "patch": {
            "x-cli": "storage incoming toggle-mount", "summary": "Mount.",
            "parameters": [
                parameter("path", "id", true, json!({ "type": "string" })),
                parameter("path", "shareId", true, json!({ "type": "string" })),
            ],
            "requestBody": { "content": { "application/json": { "schema": {
                "properties": { "mount": { "type": "boolean" } }, "required": ["mount"],
            } } } },
        } },
        "/api/v1/tokens": { "post": {
            "x-cli": "tokens create", "summary": "Create.",
            "requestBody": { "content": { "application/json": { "schema": {
                "properties": { "alias": { "type": "string" }, "expiresAt": { "type": "string" } },
                "required": ["alias"],
            } } } },
        } },
        "/api/v1/unspoken": { "get": { "summary": "No words." } },
    } });
    let files = json!({ "x-service": "files", "paths": {
        "/api/v1/files/{path}": {
            "get": { "x-cli": "files get", "summary": "Get.", "parameters": [
                parameter("path", "path", true, json!({ "type": "string" })),
                parameter("query", "stat", false, json!({ "type": "string", "const": "" })),
            ] },
            "put": { "x-cli": "files put", "summary": "Put.", "parameters": [parameter("path", "path", true, json!({ "type": "string" }))],
                "requestBody": { "content": { "application/octet-stream": {} } } },
        },
        "/{path}?type=git": { "get": { "x-cli": "files fetch-from-git", "summary": "Fetch.", "parameters": [
            parameter("path", "path", true, json!({ "type": "string" })),
            parameter("query", "url", true, json!({ "type": "string" })),
        ] } },
        "/{path}": { "x-propfind": { "x-cli": "files webdav propfind", "summary": "Find.", "parameters": [
            parameter("path", "path", true, json!({ "type": "string" })),
        ] } },
        "/ws": { "get": { "x-cli": "files watch", "x-websocket": { "subprotocol": "x" }, "summary": "Watch." } },
    } });
    let mut verbs = verb::all(None, &api);
    verbs.extend(verb::all(Some("files"), &files));
    verbs
}

fn command(verbs: &[Verb]) -> Command {
    let commands = tree::commands(verbs)
        .into_iter()
        .map(tree::with_common_options);
    Command::new("hoody")
        .subcommand_required(true)
        .subcommands(commands)
}

/// The request that a command line stands for: `METHOD target` and its payload.
fn typed(line: &[&str]) -> Result<(String, Payload), String> {
    let verbs = verbs();
    let arguments = std::iter::once(&"hoody").chain(line);
    let matches = command(&verbs)
        .try_get_matches_from(arguments)
        .map_err(|error| error.to_string())?;
    let (name, below) = matches.subcommand().unwrap();
    let (verb, below) = tree::find(&verbs, name, below);
    let request = Request::new(verb, below).map_err(|error| error.to_string())?;
    Ok((
        format!("{} {}", request.method, request.target()),
        request.payload,
    ))
}

fn body(payload: Payload) -> Value {
    match payload {
        Payload::Json(members) => members.into(),
        other => panic!("no JSON: {other:?}"),
    }
}

#[test]
fn commands_are_well_formed_and_named_by_their_words() {
    let verbs = verbs();
    command(&verbs).debug_assert();
    let names: Vec<String> = verbs.iter().map(|verb| verb.words.join(" ")).collect();
    for name in [
        "containers start",
        "containers force-stop",
        "containers manage",
        "files get",
        "files webdav propfind",
    ] {
        assert!(names.contains(&name.to_owned()), "{name} in {names:?}");
    }
    assert!(
        !names.contains(&"files watch".to_owned()),
        "WebSockets are no requests"
    );
    let outcomes: Vec<_> = verbs.iter().filter_map(containers::outcome).collect();
    assert_eq!(outcomes, ["running", "stopped"]);
}

#[test]
fn the_real_commands_are_well_formed() {
    let mut hoody = Command::new("hoody").subcommands(super::commands());
    hoody.build();
    hoody.debug_assert();
}

#[test]
fn lines_become_requests() {
    for (line, want) in [
        (vec!["containers", "list"], "GET /api/v1/containers/"),
        (
            vec![
                "containers",
                "list",
                "--page",
                "2",
                "--sort-order=asc",
                "--include-expired",
            ],
            "GET /api/v1/containers/?include_expired=true&page=2&sort_order=asc",
        ),
        (
            vec!["containers", "list", "--include-expired=false"],
            "GET /api/v1/containers/?include_expired=false",
        ),
        (
            vec!["containers", "start", "a b/c"],
            "POST /api/v1/containers/a%20b%2Fc/start",
        ),
        (
            vec!["containers", "manage", "x", "force-stop"],
            "POST /api/v1/containers/x/force-stop",
        ),
        (
            vec![
                "snapshots",
                "alias",
                "-c",
                "x",
                "--name",
                "snap-1",
                "--alias",
                "a",
            ],
            "PUT /api/v1/containers/x/snapshots/snap-1/alias",
        ),
        (
            vec![
                "snapshots",
                "update-alias",
                "--container",
                "x",
                "--name",
                "b",
                "--alias",
                "a",
            ],
            "PUT /api/v1/containers/x/snapshots/b/alias",
        ),
        (
            vec!["files", "get", "/etc/hosts", "-c", "web"],
            "GET /api/v1/files/%2Fetc%2Fhosts",
        ),
        (
            vec!["files", "get", "..", "-c", "web"],
            "GET /api/v1/files/..%2F",
        ),
        (
            vec!["files", "get", "a?b#c", "-c", "web", "--stat"],
            "GET /api/v1/files/a%3Fb%23c?stat=",
        ),
        (
            vec![
                "files",
                "fetch-from-git",
                "src",
                "-c",
                "web",
                "--url",
                "https://x/?a=b&c",
            ],
            "GET /src?type=git&url=https%3A%2F%2Fx%2F%3Fa%3Db%26c",
        ),
        (
            vec!["files", "webdav", "propfind", "x", "-c", "web"],
            "PROPFIND /x",
        ),
    ] {
        let got = typed(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        let (before, mut query) = match got.0.split_once('?') {
            Some((before, query)) => (before.to_owned(), query.split('&').collect::<Vec<_>>()),
            None => (got.0.clone(), Vec::new()),
        };
        query.sort_unstable();
        let got = if query.is_empty() {
            before
        } else {
            format!("{before}?{}", query.join("&"))
        };
        assert_eq!(got, want, "{line:?}");
    }
}

#[test]
fn flags_become_a_body() {
    let (request, payload) = typed(&[
        "containers",
        "create",
        "--project",
        "demo",
        "--server-id",
        "s",
        "--name",
        "-web-",
        "--hoody-kit",
        "--environment-vars",
        "A=1=2",
        "--environment-vars",
        r#"{"B": "x"}"#,
        "--realm-ids",
        "a,b",
        "--realm-ids",
        r#"["c,d"]"#,
        "--limits",
        r#"{"cpus": 2}"#,
        "--max",
        "-3",
        "--share",
        "0.5",
        "--with-token",
        "t",
    ])
    .unwrap();
    assert_eq!(request, "POST /api/v1/projects/demo/containers");
    assert_eq!(
        body(payload),
        json!({
            "server_id": "s", "name": "-web-", "hoody_kit": true,
            "environment_vars": { "A": "1=2", "B": "x" },
            "realm_ids": ["a", "b", "c,d"], "limits": { "cpus": 2 }, "max": -3, "share": 0.5, "token": "t",
        })
    );
    // a whole body, and a flag that wins over it
    let (_, payload) = typed(&[
        "tokens",
        "create",
        "--body",
        r#"{"alias": "a", "x": 1}"#,
        "--expires-at",
        "never",
    ])
    .unwrap();
    assert_eq!(
        body(payload),
        json!({ "alias": "a", "x": 1, "expiresAt": "never" })
    );
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("body.json");
    std::fs::write(&file, r#"{"alias": "from file"}"#).unwrap();
    let (_, payload) = typed(&[
        "tokens",
        "create",
        "--body",
        &format!("@{}", file.display()),
    ])
    .unwrap();
    assert_eq!(body(payload), json!({ "alias": "from file" }));
}

#[test]
fn files_are_streamed() {
    let content_type = "application/octet-stream".to_owned();
    let (_, payload) = typed(&["files", "put", "x", "-c", "web", "local.bin"]).unwrap();
    assert_eq!(
        payload,
        Payload::File {
            content_type: content_type.clone(),
            path: "local.bin".into()
        }
    );
    for line in [
        &["files", "put", "x", "-c", "web"][..],
        &["files", "put", "x", "-c", "web", "-"],
    ] {
        assert_eq!(
            typed(line).unwrap().1,
            Payload::Stdin {
                content_type: content_type.clone()
            }
        );
    }
}

#[test]
fn wrong_lines_say_what_is_wrong() {
    for (line, want) in [
        (vec!["tokens", "create"], "--alias"),
        (
            vec!["tokens", "create", "--body", "{"],
            "--body is not JSON",
        ),
        (
            vec!["tokens", "create", "--body", "[]"],
            "--body takes a JSON object",
        ),
        (
            vec!["tokens", "create", "--body", "@/nowhere/at/all"],
            "could not open /nowhere/at/all",
        ),
        (
            vec!["containers", "list", "--page", "two"],
            "--page takes a whole number, not `two`",
        ),
        (
            vec!["containers", "list", "--sort-order", "up"],
            "[possible values: asc, desc]",
        ),
        (vec!["containers", "start", ""], "ID must not be empty"),
        (vec!["containers", "start"], "<ID>"),
        (vec!["files", "get", "x"], "--container"),
        (
            vec!["files", "get", "x", "-c", "web", "--index", "x"],
            "--index",
        ),
        (
            vec![
                "containers",
                "create",
                "--project",
                "p",
                "--environment-vars",
                "x",
            ],
            "KEY=VALUE",
        ),
    ] {
        let error = typed(&line).expect_err(&format!("{line:?}"));
        assert!(error.contains(want), "{line:?}: {error}");
    }
}

#[test]
fn kits_live_beside_the_api() {
    for (api, kits) in [
        ("api.hoody.localhost", "containers.hoody.localhost"),
        (
            "0123456789abcdef01234567.api.example.com",
            "containers.example.com",
        ),
        ("eu.api.example.com", "eu.containers.example.com"),
        ("example.com", "containers.example.com"),
    ] {
        assert_eq!(containers_domain(api), kits);
    }
}

#[test]
fn envelopes_are_opened() {
    assert_eq!(
        unwrapped(json!({ "statusCode": 200, "message": "OK", "data": [1] })),
        json!([1])
    );
    let payload = json!({ "data": 1, "message": "no envelope" });
    assert_eq!(unwrapped(payload.clone()), payload);
}

#[test]
fn profiles_are_private_and_keep_what_they_do_not_know() {
    let directory = tempfile::tempdir().unwrap();
    let path = profile::path(&directory.path().join("hoody"), "default").unwrap();
    assert_eq!(Profile::read(&path).unwrap(), None);
    let text =
        r#"{ "api_url": "https://api.hoody.localhost", "ca_cert": "/ca.crt", "later": [1] }"#;
    let mut profile: Profile = serde_json::from_str(text).unwrap();
    profile.token = Some("secret".to_owned());
    profile.write(&path).unwrap();
    assert_eq!(Profile::read(&path).unwrap(), Some(profile));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    for name in ["", "..", "a/b", "a.b"] {
        assert!(profile::path(directory.path(), name).is_err(), "{name}");
    }
    std::fs::write(&path, "{").unwrap();
    assert!(
        Profile::read(&path)
            .unwrap_err()
            .to_string()
            .contains("default.json")
    );
}

/// A node of one container, as much as the client needs of it. It writes down what it is asked.
mod small_node {
    use std::net::SocketAddr;
    use std::process::ExitCode;
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::body::{Bytes, to_bytes};
    use axum::extract::{Request as Asked, State};
    use axum::http::StatusCode;
    use axum::http::header::{ACCEPT_RANGES, AUTHORIZATION, CONTENT_TYPE, HOST};
    use axum::response::{IntoResponse, Response};
    use serde_json::{Value, json};

    use super::super::{account, ask, containers, tree};
    use super::{Profile, command, profile, verb};
    use crate::client::verb::Verb;

    const ID: &str = "0123456789abcdef01234567";

    #[derive(Clone, Default)]
    struct Small {
        asked: Arc<Mutex<Vec<String>>>,
    }

    fn envelope(status: u16, data: Value) -> Response {
        let body = json!({ "statusCode": status, "message": "OK", "data": data }).to_string();
        (
            StatusCode::from_u16(status).unwrap(),
            [(CONTENT_TYPE, "application/json")],
            body,
        )
            .into_response()
    }

    fn plain(status: u16, body: Value) -> Response {
        (
            StatusCode::from_u16(status).unwrap(),
            [(CONTENT_TYPE, "application/json")],
            body.to_string(),
        )
            .into_response()
    }

    async fn answer(State(small): State<Small>, asked: Asked) -> Response {
        let (head, body) = asked.into_parts();
        let text = |name| {
            head.headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or("-")
                .to_owned()
        };
        let body: Bytes = to_bytes(body, 1 << 20).await.unwrap();
        let host = text(HOST);
        let service = host.split('.').next().unwrap().to_owned();
        let line = format!(
            "{service} {} {} {}",
            head.method,
            head.uri,
            String::from_utf8_lossy(&body)
        );
        small.asked.lock().unwrap().push(line.trim_end().to_owned());
        let authority = text(AUTHORIZATION);
        let path = format!("{} {}", head.method, head.uri.path());
        if service != "api" {
            assert_eq!(authority, "-", "the API's token is not for kits");
            assert_eq!(service.split_once('-').unwrap().0, "p");
            return match path.as_str() {
                "POST /api/v1/terminal/execute" => {
                    plain(200, json!({ "command_id": "7", "status": "running" }))
                }
                "GET /api/v1/terminal/result/7" => plain(
                    200,
                    json!({ "command_id": "7", "status": "completed", "stdout": "", "stderr": "", "exit_code": 3 }),
                ),
                "GET /api/v1/files/a.json" => (
                    [(CONTENT_TYPE, "application/json"), (ACCEPT_RANGES, "bytes")],
                    "{ this is a file",
                )
                    .into_response(),
                "PUT /api/v1/files/b" => plain(200, json!({ "success": true })),
                _ => plain(404, json!({ "success": false, "error": "no such file" })),
            };
        }
        match (path.as_str(), authority.as_str()) {
            ("POST /api/v1/users/auth/login", _) => {
                envelope(200, json!({ "token": "old", "refreshToken": "refresh" }))
            }
            ("POST /api/v1/users/auth/refresh", "Bearer refresh") => {
                envelope(200, json!({ "token": "new", "refreshToken": "refresh2" }))
            }
            (_, "Bearer new" | "Bearer hdy_given") => {
                let web = json!({
                    "id": ID, "name": "web", "project_id": "p", "server_name": "n", "status": "running", "hoody_kit": false,
                });
                match path.as_str() {
                    "GET /api/v1/containers/" => envelope(
                        200,
                        json!({ "containers": [web], "pagination": { "totalPages": 1 } }),
                    ),
                    "GET /api/v1/servers" => {
                        envelope(200, json!([{ "id": "rental", "server_id": "s" }]))
                    }
                    _ if path.ends_with("/start") || path.ends_with(ID) => envelope(200, web),
                    "POST /api/v1/projects/0123456789abcdef01234567/containers" => {
                        envelope(200, web)
                    }
                    _ => plain(
                        404,
                        json!({ "statusCode": 404, "error": "Not Found", "message": "no such thing" }),
                    ),
                }
            }
            _ => plain(
                401,
                json!({ "statusCode": 401, "error": "Unauthorized", "message": "who are you?" }),
            ),
        }
    }

    struct Rig {
        small: Small,
        address: SocketAddr,
        home: tempfile::TempDir,
    }

    impl Rig {
        async fn start() -> Rig {
            let small = Small::default();
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let router = Router::new().fallback(answer).with_state(small.clone());
            tokio::spawn(async move { axum::serve(listener, router).await });
            Rig {
                small,
                address,
                home: tempfile::tempdir().unwrap(),
            }
        }

        /// Type a line.
        async fn types(&self, line: &[&str]) -> Result<ExitCode, String> {
            let url = format!("http://api.hoody.localhost:{}", self.address.port());
            let config = self.home.path().to_str().unwrap();
            let options = ["--api-url", &url, "--config", config];
            let line: Vec<&str> = ["hoody"]
                .iter()
                .chain(line)
                .chain(&options)
                .copied()
                .collect();
            let verbs = verbs();
            let more = [account::login(), account::logout(), containers::ps()]
                .map(tree::with_common_options);
            let matches = command(&verbs)
                .subcommands(more)
                .try_get_matches_from(line)
                .unwrap();
            let (name, below) = matches.subcommand().unwrap();
            let done = match name {
                "ps" => containers::list(below).await,
                "logout" => account::log_out(below).await,
                _ => {
                    let (verb, below) = tree::find(&verbs, name, below);
                    ask(verb, below).await
                }
            };
            done.map_err(|error| format!("{error:#}"))
        }

        fn asked(&self) -> Vec<String> {
            std::mem::take(&mut self.small.asked.lock().unwrap())
        }

        fn keeps(&self, change: impl FnOnce(&mut Profile)) {
            let path = profile::path(self.home.path(), "default").unwrap();
            let mut kept = Profile::read(&path).unwrap().unwrap_or_default();
            kept.api_url = format!("http://api.hoody.localhost:{}", self.address.port());
            change(&mut kept);
            kept.write(&path).unwrap();
        }

        fn kept(&self) -> Profile {
            Profile::read(&profile::path(self.home.path(), "default").unwrap())
                .unwrap()
                .unwrap()
        }
    }

    fn verbs() -> Vec<Verb> {
        let mut verbs = super::verbs();
        let terminal = json!({ "paths": { "/api/v1/terminal/execute": { "post": {
            "x-cli": "terminal sessions exec",
            "parameters": [{ "in": "query", "name": "terminal_id", "schema": { "type": "string" } }],
            "requestBody": { "content": { "application/json": { "schema": {
                "properties": { "command": { "type": "string" }, "wait": { "type": "boolean" } }, "required": ["command"],
            } } } },
        } } } });
        verbs.extend(verb::all(Some("terminal"), &terminal));
        verbs
    }

    #[tokio::test]
    async fn a_token_that_is_over_is_renewed_once_and_kept() {
        let rig = Rig::start().await;
        rig.keeps(|kept| {
            kept.token = Some("old".into());
            kept.refresh_token = Some("refresh".into());
        });
        assert_eq!(rig.types(&["ps"]).await, Ok(ExitCode::SUCCESS));
        assert_eq!(
            rig.asked(),
            [
                "api GET /api/v1/containers/?page=1&limit=100",
                r#"api POST /api/v1/users/auth/refresh {"refreshToken":"refresh"}"#,
                "api GET /api/v1/containers/?page=1&limit=100",
            ]
        );
        let kept = rig.kept();
        assert_eq!(
            (kept.token.as_deref(), kept.refresh_token.as_deref()),
            (Some("new"), Some("refresh2"))
        );
        rig.types(&["ps"]).await.unwrap();
        assert_eq!(rig.asked().len(), 1);
        rig.types(&["logout"]).await.unwrap();
        assert_eq!((rig.kept().token, rig.kept().refresh_token), (None, None));
        let error = rig.types(&["ps"]).await.unwrap_err();
        assert_eq!(error, "who are you?; sign in with `hoody login` (401)");
    }

    #[tokio::test]
    async fn names_stand_for_ids() {
        let rig = Rig::start().await;
        let token = ["--token", "hdy_given"];
        rig.types(&["containers", "start", "web", "--wait", token[0], token[1]])
            .await
            .unwrap();
        assert_eq!(
            rig.asked(),
            [
                "api GET /api/v1/containers/?page=1&limit=100".to_owned(),
                format!("api POST /api/v1/containers/{ID}/start"),
                format!("api GET /api/v1/containers/{ID}"),
            ]
        );
        let error = rig
            .types(&["containers", "start", "nobody", token[0], token[1]])
            .await
            .unwrap_err();
        assert_eq!(
            error,
            "no container `nobody`; list them with `hoody containers list`"
        );
        rig.asked();
        rig.types(&[
            "containers",
            "create",
            "--project",
            ID,
            "--name",
            "web",
            "--hoody-kit",
            token[0],
            token[1],
        ])
        .await
        .unwrap();
        assert_eq!(
            rig.asked(),
            [
                "api GET /api/v1/servers".to_owned(),
                format!(
                    r#"api POST /api/v1/projects/{ID}/containers {{"hoody_kit":true,"name":"web","server_id":"s"}}"#
                ),
            ]
        );
    }

    #[tokio::test]
    async fn a_command_ends_as_it_ends_over_there() {
        let rig = Rig::start().await;
        let line = [
            "terminal",
            "sessions",
            "exec",
            "--command",
            "exit 3",
            "-c",
            ID,
            "--token",
            "hdy_given",
        ];
        assert_eq!(rig.types(&line).await, Ok(ExitCode::from(3)));
        assert_eq!(
            rig.asked(),
            [
                format!("api GET /api/v1/containers/{ID}"),
                format!(
                    r#"p-{ID}-terminal-1 POST /api/v1/terminal/execute?ephemeral=true {{"command":"exit 3"}}"#
                ),
                format!("p-{ID}-terminal-1 GET /api/v1/terminal/result/7"),
            ]
        );
    }

    #[tokio::test]
    async fn files_come_and_go_as_they_are() {
        let rig = Rig::start().await;
        let out = rig.home.path().join("out");
        let path = out.to_str().unwrap();
        let more = ["-c", ID, "--token", "hdy_given"];
        let get = |name: &'static str| [&["files", "get", name][..], &more].concat();
        rig.types(&[&get("a.json")[..], &["-O", path]].concat())
            .await
            .unwrap();
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "{ this is a file");
        assert_eq!(
            rig.types(&get("nothing")).await.unwrap_err(),
            "no such file (404)"
        );
        rig.asked();
        rig.types(&[&["files", "put", "b", path][..], &more].concat())
            .await
            .unwrap();
        assert_eq!(
            rig.asked()[1],
            format!("p-{ID}-files-1 PUT /api/v1/files/b {{ this is a file")
        );
        let left: Vec<_> = std::fs::read_dir(rig.home.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "no draft is left: {left:?}");
    }

    #[tokio::test]
    async fn a_node_that_is_away_is_said_to_be() {
        let rig = Rig::start().await;
        let gone = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let url = format!("http://api.hoody.localhost:{}", gone.port());
        let verbs = verbs();
        let line = [
            "hoody",
            "containers",
            "list",
            "--api-url",
            &url,
            "--config",
            rig.home.path().to_str().unwrap(),
        ];
        let matches = command(&verbs).try_get_matches_from(line).unwrap();
        let (name, below) = matches.subcommand().unwrap();
        let (verb, below) = tree::find(&verbs, name, below);
        let error = format!("{:#}", ask(verb, below).await.unwrap_err());
        assert!(
            error.starts_with("could not reach api.hoody.localhost: "),
            "{error}"
        );
    }
}

#[test]
fn a_header_is_an_option_like_others() {
    let verbs = super::verbs();
    let line = "hoody containers proxy default web --if-match file:v2 --default deny";
    let matches = command(&verbs)
        .try_get_matches_from(line.split(' '))
        .unwrap();
    let (name, below) = matches.subcommand().unwrap();
    let (verb, below) = tree::find(&verbs, name, below);
    let request = Request::new(verb, below).unwrap();
    assert_eq!(
        request.target(),
        "/api/v1/containers/web/proxy/permissions/default"
    );
    assert_eq!(
        request.headers,
        [("if-match".to_owned(), "file:v2".to_owned())]
    );
    assert_eq!(body(request.payload), json!({ "default": "deny" }));
}

#[test]
fn what_people_type_is_understood() {
    let hoody = Command::new("hoody").subcommands(super::commands());
    for line in [
        "network get -c web",
        "network update --container web --type socks5 --proxy socks5://user:pass@host:1080",
        "network update -c web --type block",
        "network stop -c web",
        "network start -c web",
        "network delete -c web",
        "firewall list -c web",
        "firewall reset -c web",
        "firewall egress create -c web --action drop --protocol tcp --description mail --destination-port 25",
        "firewall ingress toggle -c web --state disabled --protocol tcp",
        "firewall egress delete -c web --all",
    ] {
        let words = ["hoody"].into_iter().chain(line.split(' '));
        let read = hoody.clone().try_get_matches_from(words);
        assert!(read.is_ok(), "{line}: {}", read.unwrap_err());
    }
}

#[test]
fn shares_are_offered_and_mounted_by_the_names_of_containers() {
    let offer = "storage create --container base --source-path /srv --target-container-id web --mode readonly";
    let offer: Vec<&str> = offer.split(' ').collect();
    let (target, payload) = typed(&offer).unwrap();
    assert_eq!(target, "POST /api/v1/containers/base/storage/shares");
    assert_eq!(
        body(payload),
        json!({ "source_path": "/srv", "target_container_id": "web", "mode": "readonly" })
    );
    for (word, wanted) in [("mount", true), ("unmount", false)] {
        let (target, payload) =
            typed(&["storage", "incoming", word, "--container", "web", "id"]).unwrap();
        assert_eq!(
            target,
            "PATCH /api/v1/containers/web/storage/incoming/id/mount"
        );
        assert_eq!(body(payload), json!({ "mount": wanted }));
    }
}
