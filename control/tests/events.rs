//! What happens is recorded, and told to those who may see it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use control::certificates::{Certificates, Told};
use control::runtime::fake::{Act, Moment, Trouble};
use control::store::events::{self, Kind, News};
use futures::{SinkExt, StreamExt};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use routes::Id;
use serde_json::{Value, json};
use support::{Me, Node, World};
use tokio_tungstenite::tungstenite::Message;
use tower::ServiceExt;

const STREAM: &str = "/api/v1/events/?EIO=4";

/// A client that polls.
struct Poller<'a> {
    node: &'a Node,
    sid: String,
    /// The address it comes from.
    from: &'static str,
}

async fn exchange(
    node: &Node,
    from: &str,
    method: &str,
    uri: &str,
    body: &str,
) -> (StatusCode, String) {
    let request = Request::builder()
        .method(method)
        .uri(uri)
        .header("x-hoody-edge-client", from)
        .body(axum::body::Body::from(body.to_owned()))
        .unwrap();
    let response = node.router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

impl<'a> Poller<'a> {
    async fn open(node: &'a Node) -> Poller<'a> {
        Self::open_from(node, "192.0.2.1").await
    }

    async fn open_from(node: &'a Node, from: &'static str) -> Poller<'a> {
        let uri = format!("{STREAM}&transport=polling");
        let (status, text) = exchange(node, from, "GET", &uri, "").await;
        assert_eq!(status, 200, "{text}");
        let open: Value = serde_json::from_str(text.strip_prefix('0').unwrap()).unwrap();
        assert_eq!(open["upgrades"], json!(["websocket"]));
        let sid = open["sid"].as_str().unwrap().to_owned();
        Poller { node, sid, from }
    }

    fn uri(&self) -> String {
        format!("{STREAM}&transport=polling&sid={}", self.sid)
    }

    async fn post(&self, body: &str) -> (StatusCode, String) {
        exchange(self.node, self.from, "POST", &self.uri(), body).await
    }

    async fn poll(&self) -> Vec<String> {
        let uri = self.uri();
        let answer = exchange(self.node, self.from, "GET", &uri, "");
        let (status, text) = tokio::time::timeout(Duration::from_secs(20), answer)
            .await
            .unwrap();
        assert_eq!(status, 200, "{text}");
        text.split('\u{1e}').map(str::to_owned).collect()
    }

    /// Show a token; the answer to it.
    async fn connect(&self, token: &str) -> String {
        let (status, text) = self.post(&format!("40{}", json!({ "token": token }))).await;
        assert_eq!((status, text.as_str()), (StatusCode::OK, "ok"));
        self.poll().await.remove(0)
    }

    /// Poll until the stream says this; everything that it said.
    async fn until(&self, what: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut heard = Vec::new();
        loop {
            for packet in self.poll().await {
                let Some(message) = message(&packet) else {
                    continue;
                };
                heard.push(message);
            }
            if heard.last().is_some_and(&what) {
                return heard;
            }
        }
    }

    /// Poll until the server ends the connection; its last word.
    async fn until_ended(&self) -> Vec<Value> {
        let mut heard = Vec::new();
        loop {
            let packets = self.poll().await;
            heard.extend(packets.iter().filter_map(|packet| message(packet)));
            if packets.iter().any(|packet| packet == "41") {
                return heard;
            }
        }
    }
}

fn message(packet: &str) -> Option<Value> {
    let event: Value = serde_json::from_str(packet.strip_prefix("42")?).unwrap();
    assert_eq!(event[0], "message");
    Some(event[1].clone())
}

async fn token(me: &Me<'_>, with: Value) -> (String, String) {
    let made = me.post("/api/v1/auth/tokens", with).await.ok();
    let text = |key: &str| made[key].as_str().unwrap().to_owned();
    (text("id"), text("token"))
}

async fn kinds(me: &Me<'_>, query: &str) -> Vec<String> {
    let events = me
        .get(&format!("/api/v1/events?limit=500&sort_order=asc&{query}"))
        .await
        .ok();
    let events = events["events"].as_array().unwrap();
    events
        .iter()
        .map(|event| event["event_type"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_life_is_recorded_with_who_and_when() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let project = me.project("demo").await;
    let web = me.container(&project, "web").await;
    me.until(&web, "running").await;
    me.put(
        &format!("/api/v1/containers/{web}"),
        json!({ "name": "shop", "autostart": false, "environment_vars": { "KEY": "s3cret" } }),
    )
    .await
    .ok();
    me.manage(&web, "stop").await.ok();
    me.until(&web, "stopped").await;
    // What is refused leaves nothing behind.
    me.put(&format!("/api/v1/containers/{web}"), json!({ "name": "" }))
        .await
        .refused(400);
    me.delete(&format!("/api/v1/containers/{web}")).await.ok();
    me.until(&web, "gone").await;

    let of_web = kinds(&me, &format!("container_id={web}")).await;
    assert_eq!(
        of_web,
        [
            "container.creating",
            "container.running",
            "container.renamed",
            "container.autostart_disabled",
            "container.resource_updated",
            "container.stopped",
            "container.deleting",
            "container.deleted",
        ]
    );
    let all = me
        .get(&format!(
            "/api/v1/events?resource_id={web}&event_type=container.resource_updated"
        ))
        .await
        .ok();
    let event = &all["events"][0];
    assert_eq!(event["payload"]["triggered_by"], "user:admin");
    assert_eq!(event["payload"]["variables"], json!(["KEY"]));
    assert_eq!(event["payload"]["container_name"], "shop");
    assert!(!all.to_string().contains("s3cret"), "{all:#}");
    assert_eq!(
        all["pagination"],
        json!({ "total": 1, "limit": 100, "offset": 0, "has_more": false })
    );
    let one = me
        .get(&format!("/api/v1/events/{}", event["id"].as_str().unwrap()))
        .await
        .ok();
    assert_eq!(&one, event);

    me.delete(&format!("/api/v1/projects/{project}")).await.ok();
    assert_eq!(
        kinds(&me, "resource_type=project").await,
        ["project.created", "project.deleted"]
    );
    let stats = me.get("/api/v1/events/stats").await.ok();
    assert_eq!(stats["by_resource"]["container"], 8);
    assert_eq!(stats["by_type"]["project.deleted"], 1);
}

#[tokio::test]
async fn the_history_is_paged_filtered_and_removed() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    for alias in ["a", "b", "c"] {
        me.project(alias).await;
    }
    let page = me
        .get("/api/v1/events?limit=2&offset=1&sort_order=asc")
        .await
        .ok();
    assert_eq!(page["events"][0]["payload"]["project_alias"], "b");
    assert_eq!(page["pagination"]["has_more"], false);
    assert_eq!(
        me.get("/api/v1/events?limit=1").await.ok()["pagination"]["has_more"],
        true
    );
    assert_eq!(
        kinds(&me, "start_date=2001-01-01&end_date=2001-01-02T00:00:00Z")
            .await
            .len(),
        0
    );
    for (query, field) in [
        ("limit=501", "/limit"),
        ("event_type=container.exploded", "/event_type"),
        ("start_date=yesterday", "/start_date"),
        ("resource_id=7", "/resource_id"),
    ] {
        assert_eq!(
            me.get(&format!("/api/v1/events?{query}"))
                .await
                .wrong_field(),
            field
        );
    }
    me.get(&format!("/api/v1/events/{}", Id([7; 12])))
        .await
        .refused(404);

    let first = page["events"][0]["id"].as_str().unwrap();
    me.delete(&format!("/api/v1/events/{first}")).await.ok();
    me.delete(&format!("/api/v1/events/{first}"))
        .await
        .refused(404);
    // Nothing named is not everything.
    me.ask("DELETE", "/api/v1/events")
        .json(json!({}))
        .send()
        .await
        .refused(400);
    let gone = me
        .ask("DELETE", "/api/v1/events")
        .json(json!({ "event_type": "project.created", "before_date": "2001-01-01" }))
        .send()
        .await
        .ok();
    assert_eq!(gone["deleted_count"], 0);
    let cleaned = me
        .post("/api/v1/events/cleanup", json!({ "retention_days": 1 }))
        .await
        .ok();
    assert_eq!(cleaned["deleted_count"], 0);
    let gone = me
        .ask("DELETE", "/api/v1/events")
        .json(json!({ "event_type": "project.created" }))
        .send()
        .await
        .ok();
    assert_eq!(gone["deleted_count"], 2);
    assert_eq!(kinds(&me, "").await.len(), 0);

    // Whoever may only look does not remove.
    let (_, looker) = token(&me, json!({ "permission_template": "read_only" })).await;
    let looker = node.with(&looker);
    looker.get("/api/v1/events").await.ok();
    looker
        .post("/api/v1/events/cleanup", json!({ "retention_days": 1 }))
        .await
        .refused(403);
    for without in [
        json!({ "event_access": false }),
        json!({ "permissions": { "containers": { "read": true } } }),
    ] {
        let (_, deaf) = token(&me, without).await;
        node.with(&deaf).get("/api/v1/events").await.refused(403);
    }
}

#[tokio::test]
async fn a_poller_hears_what_happens() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let before = me.project("before").await;
    let poller = Poller::open(&node).await;
    let answer = poller.connect(&me.token).await;
    assert!(answer.starts_with("40{\"sid\":"), "{answer}");
    let project = me.project("demo").await;
    let web = me.container(&project, "web").await;
    let heard = poller
        .until(|said| said["event"] == "container.running")
        .await;
    let kinds: Vec<&str> = heard
        .iter()
        .map(|said| said["event"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        ["project.created", "container.creating", "container.running"]
    );
    assert!(
        !heard
            .iter()
            .any(|said| said["data"]["project_id"] == before),
        "what was before is history"
    );
    let running = &heard[2];
    assert_eq!(running["type"], "event");
    assert_eq!(running["data"]["resource_id"], web);
    assert_eq!(running["data"]["resource_type"], "container");
    assert_eq!(running["data"]["status"], "running");
    let id = running["eventId"].as_str().unwrap();
    let kept = me.get(&format!("/api/v1/events/{id}")).await.ok();
    assert_eq!(kept["created_at"], running["timestamp"]);
    // A container that is gone leaves by the door: Socket.IO's own goodbye.
    let (status, _) = poller.post("41").await;
    assert_eq!(status, 200);
    let (status, _) = exchange(&node, poller.from, "GET", &poller.uri(), "").await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn strangers_hear_why() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let (_, deaf) = token(&me, json!({ "event_access": false })).await;
    let poller = Poller::open(&node).await;
    for (token, code) in [("hdy_0123456789012345678901234", 401), (deaf.as_str(), 403)] {
        let answer = poller.connect(token).await;
        let refusal: Value = serde_json::from_str(answer.strip_prefix("44").unwrap()).unwrap();
        assert!(refusal["message"].is_string());
        assert_eq!(refusal["data"]["statusCode"], code, "{answer}");
    }
    assert_eq!(poller.post("40/admin,").await.0, 200);
    assert!(poller.poll().await[0].starts_with("44/admin,"));
    assert!(poller.connect(&me.token).await.starts_with("40"));
}

#[tokio::test]
async fn what_is_not_the_protocol_is_refused() {
    let world = World::new().await;
    let node = world.start().await;
    let bad = [
        ("GET", "/api/v1/events?EIO=3&transport=polling", 400),
        ("GET", "/api/v1/events?EIO=4&transport=carrier-pigeon", 400),
        ("GET", "/api/v1/events/?EIO=4", 400),
        (
            "GET",
            "/api/v1/events?EIO=4&transport=polling&sid=unknown",
            400,
        ),
        ("POST", "/api/v1/events?EIO=4&transport=polling", 400),
        ("DELETE", "/api/v1/events?EIO=4&transport=polling", 400),
        ("GET", "/api/v1/events?EIO=4&transport=websocket", 400),
    ];
    for (method, uri, want) in bad {
        let (status, text) = exchange(&node, "192.0.2.1", method, uri, "").await;
        assert_eq!(status, want, "{method} {uri} {text}");
        assert!(status != 200 && !text.is_empty());
    }
    for body in ["nonsense", "4", "2probe", "40[", "b64"] {
        let poller = Poller::open(&node).await;
        assert_eq!(poller.post(body).await.0, 400, "{body}");
        assert_eq!(
            exchange(&node, poller.from, "GET", &poller.uri(), "")
                .await
                .0,
            400,
            "{body}"
        );
    }
    let poller = Poller::open(&node).await;
    assert_eq!(poller.post(&"3".repeat(1 << 20)).await.0, 413);
    // A client that says much is let go.
    let poller = Poller::open(&node).await;
    let many = vec!["3"; 200].join("\u{1e}");
    assert_eq!(poller.post(&many).await.0, 400);
}

#[tokio::test]
async fn sessions_of_an_address_are_bounded() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let mut refused = 0;
    for _ in 0..70 {
        let uri = format!("{STREAM}&transport=polling");
        let (status, _) = exchange(&node, "192.0.2.9", "GET", &uri, "").await;
        refused += u32::from(status == 503);
    }
    assert_eq!(refused, 6);
    let other = Poller::open_from(&node, "192.0.2.10").await;
    assert!(other.connect(&me.token).await.starts_with("40"));
}

#[tokio::test]
async fn a_token_hears_of_its_realms_alone() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let (a, b) = (Id([0xa; 12]), Id([0xb; 12]));
    let (_, of_a) = token(
        &me,
        json!({ "realm_ids": [a.to_string()], "allow_no_realm": false }),
    )
    .await;
    let poller = Poller::open(&node).await;
    assert!(poller.connect(&of_a).await.starts_with("40"));
    me.project("outside").await;
    let made = me
        .within(b)
        .post("/api/v1/projects/", json!({ "alias": "b" }))
        .await
        .ok();
    let wanders = made["id"].as_str().unwrap().to_owned();
    me.within(a).project("a").await;
    let heard = poller
        .until(|said| said["data"]["project_alias"] == "a")
        .await;
    assert_eq!(heard.len(), 1, "{heard:#?}");

    // What comes into the realm brings no history of where it was; what leaves takes its own along.
    me.put(
        &format!("/api/v1/projects/{wanders}"),
        json!({ "realm_ids": [a.to_string()] }),
    )
    .await
    .ok();
    let heard = poller
        .until(|said| said["event"] == "project.updated")
        .await;
    assert_eq!(heard.len(), 1);
    let within = node.with(&of_a).within(a);
    assert_eq!(
        kinds(&within, &format!("project_id={wanders}")).await,
        ["project.updated"]
    );
    me.put(
        &format!("/api/v1/projects/{wanders}"),
        json!({ "realm_ids": [b.to_string()] }),
    )
    .await
    .ok();
    assert_eq!(
        kinds(&within, &format!("project_id={wanders}")).await.len(),
        0
    );
}

#[tokio::test]
async fn nothing_is_sent_after_a_token_has_ended() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    for end in ["delete", "disable", "permissions", "realms"] {
        let realm = Id([0xa; 12]).to_string();
        let (id, secret) = token(&me, json!({ "realm_ids": [realm] })).await;
        let poller = Poller::open(&node).await;
        assert!(poller.connect(&secret).await.starts_with("40"));
        let path = format!("/api/v1/auth/tokens/{id}");
        match end {
            "delete" => me.delete(&path).await.ok(),
            "disable" => me.put(&path, json!({ "is_enabled": false })).await.ok(),
            "permissions" => me
                .put(
                    &path,
                    json!({ "permissions": { "projects": { "read": true } } }),
                )
                .await
                .ok(),
            _ => me
                .put(&path, json!({ "realm_ids": [Id([0xc; 12]).to_string()] }))
                .await
                .ok(),
        };
        me.within(Id([0xa; 12])).project("secret").await;
        if end == "realms" {
            me.within(Id([0xc; 12])).project("open").await;
            let heard = poller
                .until(|said| said["data"]["project_alias"] == "open")
                .await;
            assert!(
                !heard
                    .iter()
                    .any(|said| said["data"]["project_alias"] == "secret"),
                "{heard:#?}"
            );
            continue;
        }
        let heard = poller.until_ended().await;
        assert_eq!(heard.last().unwrap()["type"], "error", "{end}");
        assert_eq!(heard.last().unwrap()["code"], "unauthorized", "{end}");
        assert!(
            !heard.iter().any(|said| said["event"] == "project.created"),
            "{end}: {heard:#?}"
        );
    }
}

#[tokio::test]
async fn whoever_is_far_behind_is_let_go_with_a_reason() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let poller = Poller::open(&node).await;
    assert!(poller.connect(&me.token).await.starts_with("40"));
    let user = me.get("/api/v1/users/auth/me").await.ok();
    let user: Id = user["id"]
        .as_str()
        .or(user["user"]["id"].as_str())
        .unwrap()
        .parse()
        .unwrap();
    node.control
        .store
        .write("make many events", move |db| {
            for at in 0..10_001 {
                let news = News {
                    kind: Kind::ActivityLogged,
                    by: "system",
                    at,
                    facts: Value::Null,
                };
                events::of_account(db, user, user, &[], &news)?;
            }
            Ok(())
        })
        .await
        .unwrap();
    let heard = poller.until_ended().await;
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0]["code"], "behind");
}

#[tokio::test]
async fn a_websocket_hears_directly_or_after_an_upgrade() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = node.router.clone();
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let base = format!("ws://127.0.0.1:{port}{STREAM}&transport=websocket");
    let next = async |socket: &mut tokio_tungstenite::WebSocketStream<_>| loop {
        let incoming = tokio::time::timeout(Duration::from_secs(20), socket.next())
            .await
            .unwrap();
        match incoming {
            Some(Ok(Message::Text(text))) => break text.as_str().to_owned(),
            Some(Ok(Message::Close(frame))) => break format!("close {frame:?}"),
            Some(Ok(_)) => {}
            other => break format!("end {other:?}"),
        }
    };

    let (mut direct, _) = tokio_tungstenite::connect_async(&base).await.unwrap();
    assert!(next(&mut direct).await.starts_with("0{"));
    direct
        .send(Message::text(format!("40{}", json!({ "token": me.token }))))
        .await
        .unwrap();
    assert!(next(&mut direct).await.starts_with("40{"));

    let poller = Poller::open(&node).await;
    assert!(poller.connect(&me.token).await.starts_with("40"));
    let (mut moved, _) = tokio_tungstenite::connect_async(format!("{base}&sid={}", poller.sid))
        .await
        .unwrap();
    let polling = poller.poll();
    let moving = async {
        moved.send(Message::text("2probe")).await.unwrap();
        assert_eq!(next(&mut moved).await, "3probe");
    };
    let (polled, ()) = tokio::join!(polling, moving);
    assert_eq!(polled, ["6"], "the poll under way ends");
    // What happens in between is not lost.
    me.project("between").await;
    moved.send(Message::text("5")).await.unwrap();
    for socket in [&mut direct, &mut moved] {
        let said = message(&next(socket).await).unwrap();
        assert_eq!(said["data"]["project_alias"], "between");
    }
    // Another cannot take the session over.
    assert!(
        tokio_tungstenite::connect_async(format!("{base}&sid={}", poller.sid))
            .await
            .is_err()
    );

    // More than a client has to say ends it: by the frame, and by the number.
    let (mut loud, _) = tokio_tungstenite::connect_async(&base).await.unwrap();
    next(&mut loud).await;
    loud.send(Message::text("3".repeat(20 << 10))).await.ok();
    let end = next(&mut loud).await;
    assert!(end.starts_with("end") || end.starts_with("close"), "{end}");
    for _ in 0..100 {
        moved.send(Message::text("3")).await.ok();
    }
    let said = message(&next(&mut moved).await).unwrap();
    assert_eq!(said["code"], "protocol");
    assert_eq!(next(&mut moved).await, "41");

    // The node stops: they are told.
    node.control.streams.close();
    let said = message(&next(&mut direct).await).unwrap();
    assert_eq!(said["code"], "stopping");
    assert_eq!(next(&mut direct).await, "41");
    assert!(next(&mut direct).await.starts_with("close"));
    serving.abort();
}

#[tokio::test]
async fn the_administrator_sees_failures_and_the_next_try() {
    let world = World::new().await;
    let mut config = world.config();
    config.pace.backoff_least = Duration::from_secs(3600);
    config.pace.backoff_most = Duration::from_secs(3600);
    let node = world.start_with(config).await;
    let me = node.admin().await;
    let project = me.project("demo").await;
    node.fake
        .trouble(Act::Create, Moment::Before, Trouble::Transient, 1);
    let web = me.container(&project, "web").await;
    let mut task = Value::Null;
    for _ in 0..1000 {
        let tasks = me.get("/api/v1/tasks").await.ok();
        task = tasks["tasks"][0].clone();
        if task["next_try"].is_string() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(task["container_id"], web, "{task:#}");
    assert_eq!(task["container_name"], "web");
    assert_eq!(task["state"], "waiting");
    assert_eq!(task["last_failure"]["step"], "create");
    assert!(task["next_try"].as_str() > task["last_failure"]["at"].as_str());
    // No token of an account sees it unless it says so.
    let (_, plain) = token(&me, json!({})).await;
    node.with(&plain).get("/api/v1/tasks").await.refused(403);
}

#[tokio::test]
async fn the_inbox_tells_of_failures_and_announcements() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let realm = Id([0xa; 12]);
    let (_, elsewhere) = token(&me, json!({ "realm_ids": [Id([0xb; 12]).to_string()] })).await;
    let mine = me.within(realm);
    let project = mine.project("demo").await;
    node.fake
        .trouble(Act::Create, Moment::Before, Trouble::Permanent, 100);
    let web = mine.container(&project, "web").await;
    me.until(&web, "failed").await;
    let inbox = me.get("/api/v1/notifications/").await.ok();
    let notice = &inbox[0];
    assert_eq!(notice["title"], "Container `web` failed", "{inbox:#}");
    assert_eq!(
        (&notice["severity"], &notice["type"]),
        (&json!("ERROR"), &json!("STATUS_UPDATE"))
    );
    assert_eq!(notice["is_read"], false);
    assert_eq!(kinds(&me, "event_type=notification.created").await.len(), 1);
    // Outside of its realm there is no such notice.
    let other = node.with(&elsewhere);
    assert_eq!(other.get("/api/v1/notifications/").await.ok(), json!([]));
    let read = format!(
        "/api/v1/notifications/{}/read",
        notice["id"].as_str().unwrap()
    );
    other.put(&read, json!({})).await.refused(404);

    let words = json!({ "title": "Tonight", "message": "The node restarts.", "type": "MAINTENANCE", "severity": "WARNING" });
    other
        .post("/api/v1/notifications/", words.clone())
        .await
        .refused(403);
    let announced = me.post("/api/v1/notifications/", words).await.ok();
    assert_eq!(announced["is_public"], true);
    for (bad, field) in [
        (json!({ "title": " ", "message": "x" }), "/title"),
        (
            json!({ "title": "x", "message": "x".repeat(4001) }),
            "/message",
        ),
        (
            json!({ "title": "x", "message": "x", "severity": "LOUD" }),
            "/severity",
        ),
    ] {
        assert_eq!(
            me.post("/api/v1/notifications/", bad).await.wrong_field(),
            field
        );
    }
    let public = other.get("/api/v1/notifications/public").await.ok();
    assert_eq!(public.as_array().unwrap().len(), 1);
    assert_eq!(public[0]["title"], "Tonight");

    let marked = me.put(&read, json!({})).await.ok();
    assert_eq!(marked["is_read"], true);
    // Read twice is read once: the time stays.
    assert_eq!(
        me.put(&read, json!({})).await.ok()["read_at"],
        marked["read_at"]
    );
    assert_eq!(
        me.put("/api/v1/notifications/read-all", json!({}))
            .await
            .ok()["count"],
        1
    );
    assert_eq!(
        me.put("/api/v1/notifications/read-all", json!({}))
            .await
            .ok()["count"],
        0
    );
    me.put(
        &format!("/api/v1/notifications/{}/read", Id([7; 12])),
        json!({}),
    )
    .await
    .refused(404);
}

#[tokio::test]
async fn the_administrator_is_told_once_of_each_certificate_that_ends_soon() {
    let day = 24 * 3600 * 1000;
    let world = World::new().await;
    let mut config = world.config();
    let ends = Arc::new(Mutex::new(vec![("a.test", 90), ("b.test", 5)]));
    let known = ends.clone();
    config.certificates = Some(Certificates::new(move || {
        let now = jiff::Timestamp::now().as_millisecond() / day * day;
        let told = known.lock().unwrap().clone().into_iter();
        let told = told.map(|(name, days)| Told {
            names: vec![name.to_owned()],
            class: "custom".to_owned(),
            mode: "acme".to_owned(),
            ends: Some(now + days * day),
            renews: Some(now - day),
            error: Some("the directory is away".to_owned()),
        });
        Ok(told.collect())
    }));
    let node = world.start_with(config).await;
    let me = node.admin().await;
    let inbox = async || {
        control::certificates::look(&node.control).await.unwrap();
        let inbox = me.get("/api/v1/notifications/").await.ok();
        let told = inbox.as_array().unwrap().iter();
        let told = told.map(|notice| notice["message"].as_str().unwrap().to_owned());
        told.collect::<Vec<_>>()
    };
    let told = inbox().await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("b.test") && told[0].contains("directory is away"),
        "{told:?}"
    );
    assert_eq!(inbox().await.len(), 1, "told again");
    *ends.lock().unwrap() = vec![("a.test", 3), ("b.test", 5)];
    assert_eq!(inbox().await.len(), 2);
    let events = me
        .get("/api/v1/events?event_type=notification.created")
        .await
        .ok();
    let events = events["events"].as_array().unwrap();
    let of = |name: &str| {
        events
            .iter()
            .any(|event| event["payload"]["certificate"]["names"] == json!([name]))
    };
    assert!(of("a.test") && of("b.test"), "{events:#?}");
}
