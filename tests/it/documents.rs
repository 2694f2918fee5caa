//! The OpenAPI documents: what is committed is what is served, and its names are the contract's.
//!
//! `HOODY_OPENAPI_WRITE=1` writes `openapi/*.json` anew.

use std::path::{Path, PathBuf};

use reqwest::Method;
use serde_json::Value;
use tests::Rig;
use tests::contract::{Contract, namespace};
use tests::rig::DOMAIN;

/// Every document by the slug of its service.
fn documents() -> Vec<(String, Value)> {
    let all = std::iter::once(control::document())
        .chain(kitd::services::documents())
        .chain([proxy_logs::document()]);
    all.map(|document| {
        (
            document["x-service"]
                .as_str()
                .expect("documents name their service")
                .to_owned(),
            document,
        )
    })
    .collect()
}

fn committed(slug: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("openapi/{slug}.json"))
}

#[test]
fn what_is_committed_is_what_is_served() {
    let write = std::env::var_os("HOODY_OPENAPI_WRITE").is_some_and(|value| value == "1");
    let mut stale = Vec::new();
    for (slug, document) in documents() {
        let path = committed(&slug);
        let mut text = serde_json::to_string_pretty(&document).expect("documents are JSON");
        text.push('\n');
        if write {
            std::fs::write(&path, text).expect("the document can be written");
        } else if std::fs::read_to_string(&path).unwrap_or_default() != text {
            stale.push(path);
        }
    }
    assert!(
        stale.is_empty(),
        "not what is served: {stale:?}; HOODY_OPENAPI_WRITE=1 writes them anew"
    );
}

#[test]
fn operations_of_the_contract_bear_its_names() {
    let mut wrong = Vec::new();
    for (slug, document) in documents() {
        for (path, item) in document["paths"].as_object().expect("a document has paths") {
            for (method, operation) in item.as_object().expect("a path has methods") {
                let method = method
                    .strip_prefix("x-")
                    .unwrap_or(method)
                    .to_ascii_uppercase();
                let Some(row) = Contract::get().documented(namespace(&slug), &method, path) else {
                    continue;
                };
                // the second verb of an operation is the same one under another name
                let twin = row.method != method;
                let words = row
                    .cli
                    .as_deref()
                    .map(|words| words.trim_start_matches("hoody "));
                let id = operation["operationId"].as_str();
                if !twin && row.operation_id.is_some() && id != row.operation_id.as_deref() {
                    wrong.push(format!(
                        "{method} {path} is {id:?}, not {:?}",
                        row.operation_id
                    ));
                }
                if !twin && words.is_some() && operation["x-cli"].as_str() != words {
                    wrong.push(format!(
                        "{method} {path} is called {}, not {words:?}",
                        operation["x-cli"]
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_serves_its_document_in_both_forms() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    for (slug, document) in documents() {
        let (host, base) = match slug.as_str() {
            "api" => (format!("api.{DOMAIN}"), "/api/v1".to_owned()),
            slug => (web.host(slug, 1), format!("/api/v1/{slug}")),
        };
        let get = |name: &str| {
            let request = rig
                .client
                .request(Method::GET, &host, &format!("{base}/{name}"));
            rig.send(namespace(&slug), request)
        };
        let mut json = get("openapi.json").await;
        if json.status == 302 {
            // the contract has some of them lead to the root
            assert_eq!(json.header("location"), "../../../openapi.json", "{slug}");
            let request = rig.client.request(Method::GET, &host, "/openapi.json");
            json = rig.send(namespace(&slug), request).await;
        }
        let json = json.expect(200).json();
        assert_eq!(json["paths"], document["paths"], "{slug}");
        let yaml: Value =
            yaml_serde::from_str(&get("openapi.yaml").await.expect(200).text()).expect("YAML");
        assert_eq!(yaml, json, "{slug}");
        assert_eq!(
            get("health").await.expect(200).json()["service"],
            slug.as_str()
        );
    }
    rig.stop().await;
}
