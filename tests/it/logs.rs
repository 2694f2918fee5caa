//! The log of a container: the one service that the proxy serves itself.

use reqwest::Method;
use serde_json::{Value, json};
use tests::Rig;
use tests::rig::{Answer, Container};

async fn ask(rig: &Rig, web: &Container, method: Method, path: &str) -> Answer {
    rig.kit(web, "logs", method, path, |request| request).await
}

/// Wait until the log has an entry with this in its address.
async fn logged(rig: &Rig, web: &Container, part: &str) -> Value {
    let path = format!("/_logs?last=1&level=info,warn,error&search={part}");
    let mut found = Value::Null;
    for _ in 0..20 {
        found = ask(rig, web, Method::GET, &path).await.expect(200).json();
        if found[0].is_object() {
            return found[0].take();
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("{part} is not logged: {found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_shows_its_own_requests() {
    let rig = Rig::start().await;
    let (web, other) = (rig.create("web").await, rig.create("other").await);
    let missing = "/api/v1/files/stat/nothing-here";
    for container in [&web, &other] {
        rig.kit(container, "files", Method::GET, missing, |request| request)
            .await
            .expect(404);
    }
    let entry = logged(&rig, &web, "nothing-here").await;
    assert_eq!(
        (&entry["serviceName"], &entry["status"], &entry["level"]),
        (&json!("files"), &json!(404), &json!("warn"))
    );
    assert_eq!(entry["containerId"], web.id.to_string());
    logged(&rig, &other, "nothing-here").await;

    // A page, and the whole of it once more by its cursor.
    let page = ask(&rig, &web, Method::GET, "/_logs?limit=1")
        .await
        .expect(200)
        .json();
    assert!(page["total"].as_u64() > Some(1), "{page}");
    let cursor = page["cursor"].as_str().expect("there is more");
    let next = ask(&rig, &web, Method::GET, &format!("/_logs?cursor={cursor}"))
        .await
        .expect(200)
        .json();
    assert!(next["entries"][0]["id"].as_u64() > page["entries"][0]["id"].as_u64());

    let stats = ask(&rig, &web, Method::GET, "/_logs/stats")
        .await
        .expect(200)
        .json();
    assert!(stats["byService"]["files"].as_u64() > Some(0), "{stats}");
    assert!(stats["byContainer"].get(other.id.to_string()).is_none());

    let theirs = format!("/_logs?containerId={}", other.id);
    let none = ask(&rig, &web, Method::GET, &theirs)
        .await
        .expect(200)
        .json();
    assert_eq!(none["total"], 0, "{none}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_followed_cleared_and_goes_with_its_container() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let stream = rig.client.request(
        Method::GET,
        &web.host("logs", 1),
        "/_logs/stream?level=info,warn,error",
    );
    let mut stream = rig
        .client
        .execute(stream.build().expect("valid"))
        .await
        .expect("it answers");
    let judged = tests::contract::Reply {
        method: "GET",
        path: "/_logs/stream",
        status: stream.status().as_u16(),
        content_type: stream.headers()["content-type"].to_str().ok(),
        body: b"",
    };
    rig.judge("proxyLogs", &judged);
    let mut text = String::new();
    let mut until = async |part: &str| {
        let read = async {
            while !text.contains(part) {
                let more = stream.chunk().await.expect("open").expect("more comes");
                text.push_str(&String::from_utf8_lossy(&more));
            }
        };
        tokio::time::timeout(tests::rig::PATIENCE, read)
            .await
            .unwrap_or_else(|_| panic!("{part} does not come"));
    };
    let path = "/api/v1/terminal/health?live=1";
    rig.kit(&web, "terminal", Method::GET, path, |request| request)
        .await
        .expect(200);
    until("health?live=1").await;

    ask(&rig, &web, Method::DELETE, "/_logs").await.expect(200);
    until("event: reset").await;
    let left = ask(&rig, &web, Method::GET, "/_logs?level=info,warn,error")
        .await
        .expect(200)
        .json();
    assert_eq!(left["entries"][0]["kind"], "event", "{left}");

    // It is read while the machine is stopped.
    let container = format!("/api/v1/containers/{}", web.id);
    rig.post(&format!("{container}/stop"), json!({}))
        .await
        .expect(200);
    rig.reached(&web, "stopped").await;
    ask(&rig, &web, Method::GET, "/_logs?last=1")
        .await
        .expect(200);
    rig.delete(&container).await.expect(200);
    until("event: scope-destroyed").await;
    let files = rig.state.path().join(format!("proxy/logs/{}", web.id));
    rig.until("its log is gone", || async { !files.exists() })
        .await;
    rig.stop().await;
}
