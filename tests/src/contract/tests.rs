use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Contract, Coverage, Reply, namespace};

fn find(namespace: &str, request: &str) -> Option<&'static str> {
    let (method, path) = request.split_once(' ').unwrap();
    Contract::get()
        .find(namespace, method, path)
        .map(|row| row.op.as_str())
}

#[test]
fn all_rows_are_read() {
    let contract = Contract::get();
    assert_eq!(contract.rows().count(), 964);
    let names: BTreeSet<_> = contract.rows().map(|row| &row.op).collect();
    assert_eq!(names.len(), 964, "names are unique");
    assert!(contract.named("api.authentication.login").unwrap().open);
    assert!(!contract.named("api.containers.list").unwrap().open);
}

#[test]
fn every_schema_can_judge() {
    for row in Contract::get().rows() {
        for answer in row.answers.iter().chain([&*row.failure]) {
            answer.validator(row);
        }
    }
}

#[test]
fn requests_find_their_rows() {
    for (namespace, request, op) in [
        ("api", "GET /api/v1/containers", Some("api.containers.list")),
        (
            "api",
            "GET /api/v1/containers/?page=1",
            Some("api.containers.list"),
        ),
        (
            "api",
            "GET /api/v1/containers/0123456789abcdef01234567",
            Some("api.containers.get"),
        ),
        (
            "api",
            "GET /api/v1/containers/{id}",
            Some("api.containers.get"),
        ),
        (
            "api",
            "PUT /api/v1/containers/{id}",
            Some("api.containers.update"),
        ),
        (
            "api",
            "PATCH /api/v1/containers/x/env",
            Some("api.env.bulkSet"),
        ),
        ("api", "PATCH /api/v1/containers/{id}", None),
        (
            "api",
            "POST /api/v1/containers/x/start",
            Some("api.containers.manage"),
        ),
        (
            "api",
            "POST /api/v1/containers/x/copy",
            Some("api.containers.copy"),
        ),
        (
            "api",
            "GET /api/v1/auth/tokens/me",
            Some("api.authTokens.getCurrent"),
        ),
        ("api", "GET /nothing", None),
        ("terminal", "GET /", Some("terminal.web.get")),
        (
            "terminal",
            "POST /api/v1/terminal/execute",
            Some("terminal.execution.execute"),
        ),
        ("terminal", "GET /api/v1/containers", None),
        ("files", "GET /api/v1/files/stat/a/b", Some("files.stat")),
        ("files", "GET /api/v1/files/stat/a%2Fb", Some("files.stat")),
        ("files", "GET /api/v1/files/a/b/c.txt", Some("files.get")),
        (
            "files",
            "GET /a/b?zip=&zip=",
            Some("files.archives.downloadAsZip"),
        ),
        (
            "files",
            "GET /a.zip?extract=&extract=b.txt",
            Some("files.archives.extractFile"),
        ),
        ("files", "GET /a?type=git&url=x", Some("files.git.fetch")),
    ] {
        let found = find(namespace, request);
        match op {
            Some(op) if Contract::get().named(op).is_none() => {
                panic!("{request}: no row {op}; found {found:?}")
            }
            _ => assert_eq!(found, op, "{namespace} {request}"),
        }
    }
}

fn judge(
    namespace: &str,
    request: &str,
    status: u16,
    content_type: &str,
    body: &Value,
) -> Vec<String> {
    let (method, path) = request.split_once(' ').unwrap();
    let body = body.to_string();
    let content_type = Some(content_type).filter(|text| !text.is_empty());
    let reply = Reply {
        method,
        path,
        status,
        content_type,
        body: body.as_bytes(),
    };
    match Contract::get().check(namespace, &reply) {
        Ok(_) => Vec::new(),
        Err(violation) => {
            let sentence = violation.to_string();
            assert!(sentence.contains(path), "{sentence}");
            violation.faults
        }
    }
}

const JSON: &str = "application/json; charset=utf-8";

#[test]
fn replies_are_judged_by_status_type_and_schema() {
    let ok = |data: Value| json!({ "statusCode": 200, "message": "OK", "data": data });
    let regions = "GET /api/v1/auth/available-regions";
    let ports = "GET /api/v1/system/ports";
    for (namespace, request, status, content_type, body, faults) in [
        (
            "api",
            regions,
            200,
            JSON,
            ok(json!({ "regions": [] })),
            vec![],
        ),
        (
            "api",
            regions,
            200,
            JSON,
            ok(json!({ "regions": {} })),
            vec!["/data/regions:"],
        ),
        (
            "api",
            regions,
            200,
            JSON,
            ok(json!({ "regions": [{ "city": 3 }] })),
            vec!["/data/regions/0/city:"],
        ),
        (
            "api",
            regions,
            200,
            JSON,
            json!({ "regions": [] }),
            vec!["statusCode", "message", "data"],
        ),
        (
            "api",
            regions,
            201,
            JSON,
            ok(json!({})),
            vec!["the status is none of 200"],
        ),
        (
            "api",
            regions,
            200,
            "text/html",
            ok(json!({})),
            vec!["the content type text/html"],
        ),
        (
            "api",
            regions,
            404,
            JSON,
            json!({ "statusCode": 404, "error": "Not Found", "message": "no" }),
            vec![],
        ),
        (
            "api",
            regions,
            404,
            JSON,
            json!({ "statusCode": 400, "error": "Not Found", "message": "no" }),
            vec!["statusCode"],
        ),
        (
            "api",
            regions,
            404,
            JSON,
            json!({ "error": "no" }),
            vec!["statusCode", "message"],
        ),
        (
            "api",
            regions,
            404,
            "text/plain",
            json!("no"),
            vec!["the content type text/plain of a failure"],
        ),
        (
            "terminal",
            ports,
            200,
            JSON,
            json!([{ "port": 80, "program": "x", "user": "u" }]),
            vec![],
        ),
        ("terminal", ports, 202, JSON, json!([]), vec![]),
        (
            "terminal",
            ports,
            200,
            JSON,
            json!([{ "program": "x" }]),
            vec!["/0:"],
        ),
        ("terminal", ports, 200, JSON, json!({}), vec!["/:"]),
        (
            "terminal",
            "GET /api/v1/system/resources",
            200,
            JSON,
            json!({ "statusCode": 1, "message": "", "data": 1 }),
            vec!["clients take"],
        ),
        (
            "files",
            "GET /api/v1/files/a",
            200,
            "text/plain",
            json!("any bytes"),
            vec![],
        ),
        (
            "files",
            "GET /api/v1/files/a",
            206,
            "image/png",
            json!("any bytes"),
            vec![],
        ),
        (
            "files",
            "GET /api/v1/files/a",
            404,
            JSON,
            json!({ "success": false, "error": "no" }),
            vec![],
        ),
        (
            "files",
            "GET /api/v1/files/a",
            404,
            JSON,
            json!({ "message": "no" }),
            vec!["success", "error"],
        ),
        ("api", "GET /page", 200, "text/html", json!("<p>"), vec![]),
    ] {
        let got = judge(namespace, request, status, content_type, &body);
        assert_eq!(
            got.len(),
            faults.len(),
            "{request} {status} {body}: {got:?}"
        );
        for (got, want) in got.iter().zip(faults) {
            assert!(got.contains(want), "{request} {status} {body}: {got}");
        }
    }
}

#[test]
fn streams_and_empty_replies_are_replies() {
    let check = |namespace: &str, method: &str, path: &str, status, content_type, body: &[u8]| {
        let reply = Reply {
            method,
            path,
            status,
            content_type,
            body,
        };
        Contract::get()
            .check(namespace, &reply)
            .map(|row| row.is_some())
    };
    assert!(check("terminal", "GET", "/api/v1/terminal/ws", 101, None, b"").unwrap());
    assert!(check("files", "HEAD", "/a", 200, Some("text/plain"), b"").unwrap());
    assert!(check("files", "HEAD", "/a", 200, Some("text/plain"), b"x").is_err());
    assert!(check("files", "HEAD", "/a", 404, Some("application/json"), b"").unwrap());
    assert!(
        check(
            "api",
            "GET",
            "/api/v1/ip",
            200,
            Some("application/json"),
            b"{"
        )
        .is_err()
    );
}

#[test]
fn calls_add_up_across_recorders() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (
        Coverage::in_directory(directory.path()),
        Coverage::in_directory(directory.path()),
    );
    let contract = Contract::get();
    let reply = |path, status| Reply {
        method: "GET",
        path,
        status,
        content_type: Some("text/html"),
        body: b"",
    };
    contract
        .observe(&one, "terminal", &reply("/", 200))
        .unwrap();
    let refused = Reply {
        content_type: Some(JSON),
        body: b"{}",
        ..reply("/api/v1/terminal/sessions", 404)
    };
    contract.observe(&two, "terminal", &refused).unwrap();
    assert_eq!(
        two.all(),
        BTreeSet::from(["terminal.web.get".to_owned()]),
        "a refusal is no call"
    );
    two.forget();
    assert!(one.all().is_empty());
}

#[test]
fn documents_find_the_rows_they_implement() {
    let terminal = json!({ "paths": {
        "/": { "get": {} },
        "/api/v1/terminal/{id}": { "delete": {}, "patch": {} },
        "/api/v1/terminal/health": { "get": {} },
        "/not/in/the/contract": { "get": {} },
    } });
    let rows: Vec<_> = Contract::get()
        .implemented("terminal", &terminal)
        .into_iter()
        .collect();
    let want = [
        "terminal.docs.getJson",
        "terminal.docs.getYaml",
        "terminal.health.check",
        "terminal.sessions.delete",
        "terminal.web.get",
    ];
    assert_eq!(rows, want);
    let files = json!({ "paths": { "/{path}?zip": { "get": {}, "head": {} }, "/{path}": { "x-propfind": {} } } });
    let rows: Vec<_> = Contract::get()
        .implemented("files", &files)
        .into_iter()
        .collect();
    assert_eq!(
        rows,
        [
            "files.archives.downloadAsZip",
            "files.webdav.propfindResource"
        ]
    );

    let directory = tempfile::tempdir().unwrap();
    let census = Contract::get().census(
        [("terminal", &terminal)],
        &Coverage::in_directory(directory.path()),
    );
    assert!(
        census
            .to_string()
            .starts_with("contract: 5 of 964 rows implemented\n"),
        "{census}"
    );
    assert_eq!(census.uncalled, census.implemented);
}

#[test]
fn slugs_have_namespaces() {
    let known: BTreeSet<_> = Contract::get()
        .rows()
        .map(|row| row.namespace.as_str())
        .collect();
    for service in routes::services::SERVICES {
        assert!(known.contains(namespace(service.slug)), "{}", service.slug);
    }
    assert_eq!(namespace("control"), "api");
}

#[test]
fn the_health_of_a_kit_is_what_clients_read() {
    for service in ["terminal", "files"] {
        let health = kit::health::Health::of(service, &kit::Call::internal());
        let body = serde_json::to_value(health).unwrap();
        let request = format!("GET /api/v1/{service}/health");
        assert!(find(service, &request).is_some());
        assert_eq!(
            judge(service, &request, 200, JSON, &body),
            Vec::<String>::new()
        );
    }
}
