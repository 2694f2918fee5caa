//! The usual client of Socket.IO hears what happens: `tests/socketio.sh`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use support::{Node, World};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

const PATIENCE: Duration = Duration::from_secs(60);

struct Client {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// The one it said last that it is on.
    transport: String,
}

impl Client {
    fn start(url: &str, token: &str, transports: &str) -> Client {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/socketio/client.mjs");
        let mut child = Command::new("node")
            .args([script, url, token, transports])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Client {
            _child: child,
            lines,
            transport: String::new(),
        }
    }

    async fn hears(&mut self) -> Value {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
        let line = line.unwrap().unwrap().expect("the client says more");
        let said: Value = serde_json::from_str(&line).unwrap();
        if let Some(transport) = said["transport"].as_str() {
            transport.clone_into(&mut self.transport);
        }
        said
    }

    async fn hears_event(&mut self) -> Value {
        loop {
            let said = self.hears().await;
            if said["what"] == "message" {
                return said["message"].clone();
            }
            assert_eq!(said["what"], "upgrade", "{said}");
        }
    }
}

/// The node on a port of its own.
async fn served(node: &Node) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = node.router.clone();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_every_transport() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let url = served(&node).await;
    for transports in ["polling", "websocket", "polling,websocket"] {
        let made = me.post("/api/v1/auth/tokens", json!({})).await.ok();
        let (id, secret) = (
            made["id"].as_str().unwrap(),
            made["token"].as_str().unwrap(),
        );
        let mut client = Client::start(&url, secret, transports);
        let first = client.hears().await;
        assert_eq!(first["what"], "connect", "{transports} {first}");
        let aliases: Vec<String> = (0..200).map(|n| format!("p{n}")).collect();
        let mut ids = Vec::new();
        for alias in &aliases {
            ids.push(me.project(alias).await);
        }
        for alias in &aliases {
            let event = client.hears_event().await;
            assert_eq!(event["type"], "event");
            assert_eq!(event["event"], "project.created");
            assert_eq!(
                event["data"]["project_alias"],
                alias.as_str(),
                "in order, none missing"
            );
        }
        for id in ids {
            me.delete(&format!("/api/v1/projects/{id}")).await.ok();
            assert_eq!(client.hears_event().await["event"], "project.deleted");
        }
        // It may have moved before it said that it is connected.
        let last = transports.split(',').next_back().unwrap();
        assert_eq!(client.transport, last);
        // The token goes, and with it who listened.
        me.delete(&format!("/api/v1/auth/tokens/{id}")).await.ok();
        let last = client.hears_event().await;
        assert_eq!(last["code"], "unauthorized", "{transports} {last}");
        let end = client.hears().await;
        assert_eq!(end["what"], "disconnect", "{transports}");
        assert_eq!(end["reason"], "io server disconnect", "{transports}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_hears_why() {
    let world = World::new().await;
    let node = world.start().await;
    let url = served(&node).await;
    for transports in ["polling", "websocket"] {
        let mut client = Client::start(&url, "hdy_unknown_unknown_unknown_unknown", transports);
        let said = client.hears().await;
        assert_eq!(said["what"], "connect_error");
        assert_eq!(said["data"]["statusCode"], 401);
        assert_eq!(said["data"]["code"], "INVALID_TOKEN");
        assert!(
            said["message"]
                .as_str()
                .unwrap()
                .contains("unknown, expired or revoked")
        );
    }
}
