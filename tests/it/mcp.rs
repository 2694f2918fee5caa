//! The services as tools, over the hosts of a container.

use reqwest::Method;
use serde_json::{Value, json};
use tests::Rig;
use tests::rig::Container;

async fn ask(
    rig: &Rig,
    container: &Container,
    service: &str,
    method: &str,
    params: Value,
) -> Value {
    let message = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
    let answer = rig
        .kit(container, service, Method::POST, "/mcp", |request| {
            request.json(&message)
        })
        .await;
    let mut answer = answer.expect(200).json();
    assert_eq!(answer["id"], 7, "{answer}");
    answer["result"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_finds_tools_and_uses_them() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let hello = json!({ "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": { "name": "story", "version": "1" } });
    for (service, tool) in [
        ("terminal", "executeCommand"),
        ("files", "statFile"),
        ("sqlite", "executeSqlTransaction"),
        ("sqlite", "setKvValue"),
    ] {
        let server = ask(&rig, &web, service, "initialize", hello.clone()).await;
        assert_eq!(server["serverInfo"]["name"], service);
        let listed = ask(&rig, &web, service, "tools/list", json!({})).await;
        let tools = listed["tools"].as_array().expect("a list of tools");
        let found = tools
            .iter()
            .find(|offered| offered["name"] == tool)
            .expect("it is offered");
        assert!(
            found["description"]
                .as_str()
                .is_some_and(|words| words.len() > 20),
            "{found}"
        );
        assert_eq!(found["inputSchema"]["type"], "object");
    }

    let run = json!({ "name": "executeCommand", "arguments": { "command": "echo hi > note.txt; echo done", "ephemeral": true } });
    let ran = ask(&rig, &web, "terminal", "tools/call", run).await;
    assert_eq!(
        (
            &ran["structuredContent"]["stdout"],
            &ran["structuredContent"]["exit_code"]
        ),
        (&json!("done\n"), &json!(0))
    );
    let stat = |path: &str| json!({ "name": "statFile", "arguments": { "path": path } });
    rig.kit(
        &web,
        "files",
        Method::PUT,
        "/api/v1/files/made.txt",
        |request| request.body("four"),
    )
    .await
    .expect(200);
    let found = ask(&rig, &web, "files", "tools/call", stat("/made.txt")).await;
    assert_eq!(found["structuredContent"]["size"], 4, "{found}");
    let missing = ask(&rig, &web, "files", "tools/call", stat("/nothing")).await;
    assert_eq!(
        (
            &missing["isError"],
            &missing["structuredContent"]["success"]
        ),
        (&json!(true), &json!(false))
    );

    let query = json!({ "name": "executeSqlTransaction", "arguments": {
        "db": "app", "create_db_if_missing": true, "transaction": [{ "query": "SELECT 1 AS one" }] } });
    let ran = ask(&rig, &web, "sqlite", "tools/call", query).await;
    let result = &ran["structuredContent"]["results"][0];
    assert_eq!(result["resultSet"], json!([{ "one": 1 }]), "{ran}");
    // what is bytes over HTTP is JSON here
    let set = json!({ "name": "setKvValue", "arguments": { "db": "app", "key": "a/b", "value": { "n": [1] } } });
    ask(&rig, &web, "sqlite", "tools/call", set).await;
    let get = json!({ "name": "getKvValue", "arguments": { "db": "app", "key": "a/b" } });
    let got = ask(&rig, &web, "sqlite", "tools/call", get).await;
    assert_eq!(
        got["structuredContent"]["value"],
        json!({ "n": [1] }),
        "{got}"
    );

    // a page of another site must not drive an agent's tools
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {} });
    let shape = |request: reqwest::RequestBuilder| {
        request
            .header("origin", "https://evil.example")
            .json(&message)
    };
    rig.kit(&web, "terminal", Method::POST, "/mcp", shape)
        .await
        .expect(403);
    rig.stop().await;
}
