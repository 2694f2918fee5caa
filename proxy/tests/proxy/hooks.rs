//! Hooks: what a script is told, and what becomes of a request by what it says.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Request;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use routes::hook::{Hook, Match, OnError, Script};
use serde_json::{Value, json};

use crate::gates::{basic, only, password};
use crate::rig::{Container, Heard, Rig};

/// A hook whose script says this.
fn saying(said: &str) -> Hook {
    let said = utf8_percent_encode(said, NON_ALPHANUMERIC);
    Hook {
        id: "01hzzzzzzzzzzzzzzzzzzzzzzz".into(),
        matches: Match::default(),
        script: Script {
            subdomain: None,
            index: 1,
            path: format!("/hook?{said}"),
        },
        timeout: 30_000,
        groups: Vec::new(),
        on_error: OnError::Closed,
    }
}

/// A container with hooks in front of one of its services.
async fn hooked(rig: &mut Rig, service: &str, hooks: Vec<Hook>) -> Container {
    let mut web = rig.running().await;
    web.place.hooks = Some(Arc::new(BTreeMap::from([(service.to_owned(), hooks)])));
    rig.upsert(&web.place).await;
    web
}

fn told(web: &Container) -> Vec<(String, Value)> {
    web.seen().told.lock().expect("nobody panics").clone()
}

#[tokio::test]
async fn a_script_lets_a_request_pass_or_changes_it() {
    let mut rig = Rig::start().await;
    let change =
        r#"{"action":"rewrite","path":"/else?a=1","headers":{"x-team":"blue","x-old":null}}"#;
    let writes = Hook {
        matches: Match {
            methods: vec!["POST".into()],
            ..Match::default()
        },
        script: Script {
            subdomain: Some("gate".into()),
            index: 3,
            ..saying(change).script
        },
        ..saying("")
    };
    let web = hooked(&mut rig, "terminal", vec![writes, saying("")]).await;
    let host = web.host("terminal-2");

    let heard = rig.get(&host, "/x?y=1").await;
    assert_eq!(heard.json()["target"], "/x?y=1");
    let heard = rig
        .ask(
            Request::post("/x?y=1")
                .header("host", &host)
                .header("x-old", "1")
                .header("x-hoody-edge-user", "root"),
        )
        .await;
    assert_eq!(heard.json()["target"], "/else?a=1");
    assert_eq!(heard.told("x-team"), ["blue"]);
    assert!(heard.told("x-old").is_empty());
    assert_eq!(heard.told("x-hoody-edge-service"), ["terminal"]);

    let told = told(&web);
    assert_eq!(told[0].0, "exec 1 -");
    assert_eq!(told[1].0, "exec 3 gate");
    let said = &told[1].1;
    let asked = json!({
        "hook": "01hzzzzzzzzzzzzzzzzzzzzzzz", "service": "terminal", "instance": 2, "method": "POST",
        "scheme": "http", "host": host, "path": "/x", "query": "y=1", "client": "127.0.0.1",
        "group": null, "user": null, "upgrade": false, "headers": said["headers"],
    });
    assert_eq!(*said, asked);
    let headers = said["headers"].to_string();
    assert!(
        headers.contains("x-old") && !headers.contains("x-hoody-edge"),
        "{headers}"
    );

    // Another service has none.
    rig.get(&web.host("files-1"), "/x").await;
    assert_eq!(web.seen().told.lock().expect("nobody panics").len(), 2);
    let counted = "hoody_proxy_hooks_total{outcome=\"rewrite\"}";
    rig.comes_to(counted, 1.0).await;
}

#[tokio::test]
async fn a_script_answers_itself() {
    let mut rig = Rig::start().await;
    let answer = json!({
        "action": "answer", "status": 403, "body": "not today",
        "headers": { "content-type": "text/plain", "set-cookie": "a=b; Domain=hoody.localhost; Path=/" },
    });
    let web = hooked(&mut rig, "files", vec![saying(&answer.to_string())]).await;
    let heard = rig.get(&web.host("files-1"), "/").await;
    assert_eq!((heard.status.as_u16(), heard.text()), (403, "not today"));
    assert_eq!(heard.header("content-type"), Some("text/plain"));
    assert_eq!(
        heard.header("set-cookie"),
        Some("a=b; Path=/"),
        "no cookie for other hosts"
    );
    assert_eq!(
        web.seen()
            .requests
            .load(std::sync::atomic::Ordering::SeqCst),
        1
    );

    let elsewhere = r#"{"action":"redirect","location":"https://elsewhere.example/","status":307}"#;
    let web = hooked(&mut rig, "files", vec![saying(elsewhere)]).await;
    let head = Request::head("/").header("host", web.host("files-1"));
    let heard = rig.ask(head).await;
    assert_eq!(heard.status, 307);
    assert_eq!(heard.header("location"), Some("https://elsewhere.example/"));
}

#[tokio::test]
async fn a_script_that_fails_closes_or_opens() {
    let mut rig = Rig::start().await;
    let at = |path: &str| Hook {
        timeout: if path == "/never" { 200 } else { 30_000 },
        script: Script {
            path: path.into(),
            ..saying("").script
        },
        ..saying("")
    };
    for (hook, reason) in [
        (saying("what?"), "nonsense"),
        (saying(r#"{"action":"answer","status":101}"#), "nonsense"),
        (at("/status"), "status"),
        (at("/never"), "timeout"),
        (at("/download?64"), "read"),
    ] {
        let open = Hook {
            on_error: OnError::Open,
            ..hook.clone()
        };
        let web = hooked(&mut rig, "files", vec![hook]).await;
        let heard = rig.get(&web.host("files-1"), "/x").await;
        assert_eq!(
            (heard.status.as_u16(), heard.code()),
            (502, "hook_failed".to_owned()),
            "{reason}"
        );
        let web = hooked(&mut rig, "files", vec![open]).await;
        let heard = rig.get(&web.host("files-1"), "/x").await;
        assert_eq!(heard.json()["target"], "/x", "{reason}");
        let counted = format!("hoody_proxy_hooks_total{{outcome=\"{reason}\"}}");
        assert!(rig.metric(&counted).await >= 2.0, "{reason}");
    }
    // Without a kit there is nobody to ask.
    let mut web = hooked(&mut rig, "files", vec![saying("")]).await;
    web.kit = None;
    std::fs::remove_file(web.socket()).expect("it was there");
    let heard = rig.get(&web.host("files-1"), "/x").await;
    assert_eq!(heard.code(), "hook_failed");
}

#[tokio::test]
async fn a_script_sees_who_passed_and_not_what_with() {
    let mut rig = Rig::start().await;
    let mut web = hooked(&mut rig, "files", vec![saying("")]).await;
    web.place.access = Some(Arc::new(only(vec![password()])));
    rig.upsert(&web.place).await;
    let host = web.host("files-1");
    let refused: Heard = rig.get(&host, "/x").await;
    assert_eq!(refused.status, 401);
    assert!(told(&web).is_empty(), "gates come first");
    let ask = Request::get("/x")
        .header("host", &host)
        .header("cookie", "hoody_s=ours; app=theirs")
        .header("authorization", basic("ann", "secret"));
    assert_eq!(rig.ask(ask).await.status, 200);
    let told = told(&web);
    let said = &told[0].1;
    assert_eq!(
        (&said["group"], &said["user"]),
        (&json!("friends"), &json!("ann"))
    );
    let headers = said["headers"].to_string();
    assert!(
        !headers.contains("authorization") && !headers.contains("ours"),
        "{headers}"
    );
    assert!(headers.contains("app=theirs"), "{headers}");
}

#[tokio::test]
async fn only_requests_of_its_groups_meet_a_hook() {
    let mut rig = Rig::start().await;
    let theirs = Hook {
        groups: vec!["strangers".into()],
        ..saying(r#"{"action":"answer","status":403}"#)
    };
    let ours = Hook {
        groups: vec!["friends".into()],
        ..saying(r#"{"action":"answer","status":202}"#)
    };
    let mut web = hooked(&mut rig, "files", vec![theirs, ours]).await;
    web.place.access = Some(Arc::new(only(vec![password()])));
    rig.upsert(&web.place).await;
    let ask = Request::get("/x")
        .header("host", web.host("files-1"))
        .header("authorization", basic("ann", "secret"));
    assert_eq!(rig.ask(ask).await.status, 202);
}
