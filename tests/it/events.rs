//! Events: the history, and the stream of it through the proxy.

use control::runtime::fake::{Act, Moment, Trouble};
use futures::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::{Value, json};
use tests::Rig;
use tests::rig::{DOMAIN, PATIENCE};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_kept_and_can_be_removed() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let path = format!("/api/v1/events?container_id={}&sort_order=asc", web.id);
    let list = rig.get(&path).await.expect(200).data();
    let kinds: Vec<&Value> = list["events"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|event| &event["event_type"])
        .collect();
    assert_eq!(kinds, ["container.creating", "container.running"]);
    let id = list["events"][0]["id"].as_str().expect("an id");
    let one = rig.get(&format!("/api/v1/events/{id}")).await.expect(200);
    assert_eq!(one.data()["payload"]["container_id"], web.id.to_string());
    let stats = rig.get("/api/v1/events/stats").await.expect(200).data();
    assert_eq!(stats["by_type"]["container.running"], 1);

    rig.delete(&format!("/api/v1/events/{id}"))
        .await
        .expect(200);
    rig.get(&format!("/api/v1/events/{id}")).await.expect(404);
    let days = json!({ "retention_days": 30 });
    let cleaned = rig.post("/api/v1/events/cleanup", days).await.expect(200);
    assert_eq!(cleaned.data()["deleted_count"], 0);
    let body = json!({ "resource_id": web.id.to_string() });
    let request = rig.api(Method::DELETE, "/api/v1/events").json(&body);
    let removed = rig.send("api", request).await.expect(200).data();
    assert_eq!(removed["deleted_count"], 1);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_passes_the_proxy() {
    let rig = Rig::start().await;
    let host = format!("api.{DOMAIN}");
    let path = "/api/v1/events/?EIO=4&transport=websocket";
    let connected = rig.client.websocket(&host, path, None).await;
    let mut socket = connected.expect("the proxy passes it");
    let token = json!({ "token": rig.token });
    let connect = Message::text(format!("40{token}"));
    socket.send(connect).await.expect("it is sent");
    let mut heard = Vec::new();
    let listening = async {
        while let Some(Ok(message)) = socket.next().await {
            let Message::Text(text) = message else {
                continue;
            };
            let running = text.contains("container.running");
            heard.push(text.as_str().to_owned());
            // The container is asked for once the stream is open.
            if text.starts_with("40") {
                rig.ask("web").await;
            }
            if running {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, listening)
        .await
        .expect("the container's start is heard of");
    assert!(heard[0].starts_with("0{"), "{heard:?}");
    assert!(heard[1].starts_with("40{"), "{heard:?}");
    let (_, event) = heard[heard.len() - 1].split_at(2);
    let event: Value = serde_json::from_str(event).expect("JSON");
    assert_eq!(event[1]["data"]["container_name"], "web");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_administrator_sees_what_is_under_way() {
    let rig = Rig::start().await;
    let login = json!({ "username": rig.username, "password": rig.password });
    let token = rig
        .post("/api/v1/users/auth/login", login)
        .await
        .expect(200)
        .data()["token"]
        .as_str()
        .expect("a token")
        .to_owned();
    let request = rig
        .open_api(Method::GET, "/api/v1/tasks")
        .bearer_auth(token);
    let tasks = rig
        .client
        .execute(request.build().expect("a request"))
        .await;
    let tasks: Value = tasks.expect("an answer").json().await.expect("JSON");
    assert!(tasks["data"]["tasks"].is_array(), "{tasks:#}");
    assert!(tasks["data"]["sweep"]["ended_at"].is_string(), "{tasks:#}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inbox_is_read() {
    let rig = Rig::start().await;
    rig.fake
        .trouble(Act::Create, Moment::Before, Trouble::Permanent, 100);
    let web = rig.ask("web").await;
    rig.reached(&web, "failed").await;
    let all = rig.get("/api/v1/notifications/").await.expect(200).data();
    assert_eq!(all[0]["title"], "Container `web` failed");
    let id = all[0]["id"].as_str().expect("an id");
    let read = format!("/api/v1/notifications/{id}/read");
    let read = rig.put(&read, json!({})).await.expect(200).data();
    assert_eq!(read["is_read"], true);
    let public = rig.get("/api/v1/notifications/public").await.expect(200);
    assert_eq!(public.data(), json!([]), "it is nobody else's");
    let read = rig
        .put("/api/v1/notifications/read-all", json!({}))
        .await
        .expect(200);
    assert_eq!(read.data()["count"], 0);
    let unknown = "/api/v1/notifications/0123456789abcdef01234567/read";
    rig.put(unknown, json!({})).await.expect(404);
    rig.stop().await;
}
