//! The log of a container: what reaches it, who can read it, and how its answers travel.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use routes::table::{Change, State};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::client_async;

use crate::gates::{basic, only, password, rule, token};
use crate::rig::{Container, Heard, Rig, eventually};

/// The entries of a container's log whose address has this in it, once there are so many; what it
/// has of being read is left out.
pub async fn logged(rig: &Rig, web: &Container, part: &str, count: usize) -> Vec<Value> {
    for _ in 0..25 {
        let found = rig
            .get(
                &web.host("logs-1"),
                &format!("/_logs?last=1000&level=info,warn,error&search={part}"),
            )
            .await;
        assert_eq!(found.status, StatusCode::OK, "{}", found.text());
        let entries = found.json().as_array().expect("a list").clone();
        if entries.len() >= count {
            return entries;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{count} entries with {part} did not come");
}

pub fn log_path(rig: &Rig, web: &Container) -> std::path::PathBuf {
    rig.config
        .container_logs
        .join(web.place.container.to_string())
}

#[tokio::test]
async fn a_request_is_in_the_log_of_its_container() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("terminal-3");
    let ask = Request::post("/some/path?a=1&token=hidden-1")
        .header("host", &host)
        .header("user-agent", "story")
        .header("authorization", "Bearer hidden-2")
        .header("cookie", "session=hidden-3")
        .header("x-gate", "hidden-4")
        .header("referer", "https://app.example/?key=hidden-5")
        .header(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        );
    let ask = ask
        .body(Full::new(Bytes::from("hidden-6")))
        .expect("a request");
    assert_eq!(
        Heard::from(rig.send(ask).await).await.status,
        StatusCode::OK
    );
    let entry = logged(&rig, &web, "/some/path", 1).await.remove(0);
    let expected = json!({
        "kind": "request", "level": "info", "method": "POST", "status": 200, "source": "edge",
        "serviceName": "terminal", "clientIp": "127.0.0.1",
        "projectId": web.place.project.to_string(), "containerId": web.place.container.to_string(),
        "url": format!("http://{host}/some/path?a=1&token=***"),
        "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
    });
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(entry[name], *value, "{name}");
    }
    let data = &entry["data"];
    assert_eq!((&data["index"], &data["bytesIn"]), (&json!(3), &json!(8)));
    assert!(
        data["bytesOut"].as_u64() > Some(0) && data["durationMs"].is_f64(),
        "{data}"
    );
    assert_eq!(data["userAgent"], "story");
    assert_eq!(
        data["headers"],
        json!({
            "host": host, "user-agent": "story", "authorization": "***", "cookie": "***",
            "x-gate": "***", "referer": "https://app.example/?***", "content-length": "8",
            "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        })
    );
    // Neither the answer nor a file has any of it, in this log or in the node's.
    for file in [log_path(&rig, &web), rig.directory.path().join("logs")] {
        for file in std::fs::read_dir(file).expect("a directory") {
            let text = std::fs::read_to_string(file.expect("a file").path()).expect("text");
            assert!(!text.contains("hidden-"), "{text}");
        }
    }
}

#[tokio::test]
async fn no_host_shows_the_log_of_another_container() {
    let mut rig = Rig::start().await;
    let (web, other) = (rig.running().await, rig.running().await);
    rig.get(&web.host("files-1"), "/mine").await;
    rig.get(&other.host("files-1"), "/theirs").await;
    logged(&rig, &web, "/mine", 1).await;
    logged(&rig, &other, "/theirs", 1).await;
    let id = other.place.container;
    for query in [
        "?last=1000".to_owned(),
        format!("?last=1000&containerId={id}"),
        format!("?containerId={id}&projectId={}", other.place.project),
        "?search=theirs&limit=1000".to_owned(),
    ] {
        let ask = Request::get(format!("/_logs{query}"))
            .header("host", web.host("logs-1"))
            .header("x-hoody-edge-container", id.to_string())
            .header("x-hoody-edge-host", other.host("logs-1"))
            .header("x-forwarded-host", other.host("logs-1"));
        let heard = rig.ask(ask).await;
        assert_eq!(heard.status, StatusCode::OK);
        let entries = heard.json();
        let entries = entries
            .get("entries")
            .unwrap_or(&entries)
            .as_array()
            .expect("entries")
            .clone();
        let foreign = entries.iter().any(|entry| {
            entry["containerId"] != web.place.container.to_string()
                || entry["data"]["headers"]["host"] == other.host("files-1")
        });
        assert!(!foreign, "{query}: {entries:?}");
    }
    // The right container in another project is no container.
    let mixed = web
        .host("logs-1")
        .replace(&web.place.project.to_string(), &"ab".repeat(12));
    assert_eq!(rig.get(&mixed, "/_logs").await.code(), "unknown_container");
}

#[tokio::test]
async fn what_is_refused_is_in_the_log_and_a_stopped_container_shows_it() {
    let mut rig = Rig::start().await;
    let stopped = rig.container(State::Stopped).await;
    assert_eq!(
        rig.get(&stopped.host("files-1"), "/asleep").await.code(),
        "container_stopped"
    );
    let entry = logged(&rig, &stopped, "/asleep", 1).await.remove(0);
    assert_eq!(
        (&entry["status"], &entry["level"]),
        (&json!(503), &json!("error"))
    );
    assert_eq!(entry["data"]["refusal"], "container_stopped");
    assert_eq!(stopped.seen().requests.load(Ordering::SeqCst), 0);
    // The access log of the node names no container that was not reached.
    assert!(rig.logged("/asleep").await.get("container").is_none());
}

#[tokio::test]
async fn what_a_client_and_a_container_say_of_themselves_is_cut() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let ask = Request::builder()
        .method("X".repeat(5_000).as_str())
        .uri("/long?type=t")
        .header("host", web.host("files-1"))
        .header("user-agent", "u".repeat(20_000))
        .header("accept", "a".repeat(20_000));
    rig.ask(ask).await;
    let entry = logged(&rig, &web, "/long", 1).await.remove(0);
    let length = |value: &Value| value.as_str().map_or(0, str::len);
    assert_eq!(length(&entry["method"]), 128);
    assert_eq!(length(&entry["data"]["userAgent"]), 512);
    assert_eq!(length(&entry["data"]["headers"]["accept"]), 512);
}

#[tokio::test]
async fn reading_the_log_is_noise_of_its_own_level() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("logs-1");
    rig.get(&host, "/_logs/stats").await;
    for _ in 0..25 {
        let heard = rig
            .get(&host, "/_logs?last=50&level=debug&serviceName=logs")
            .await;
        let entries = heard.json();
        let mut entries = entries.as_array().expect("a list").iter();
        if entries.any(|entry| entry["url"] == format!("http://{host}/_logs/stats")) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it is not there as debug");
}

#[tokio::test]
async fn a_websocket_is_in_the_log_while_it_lasts_and_when_it_ends() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let url = format!("ws://{}/ws", web.host("terminal-1"));
    let (socket, _) = client_async(url, rig.tcp().await)
        .await
        .expect("a WebSocket");
    let begun = logged(&rig, &web, "/ws", 1).await.remove(0);
    assert_eq!(
        (&begun["kind"], &begun["status"]),
        (&json!("request"), &json!(101))
    );
    assert!(begun["data"].get("durationMs").is_none(), "{begun}");
    drop(socket);
    let both = logged(&rig, &web, "/ws", 2).await;
    assert_eq!(both[1]["kind"], "response");
    assert_eq!(both[0]["traceId"], both[1]["traceId"]);
    assert!(both[1]["data"]["durationMs"].is_f64());
    // One line a request in the access log of the node.
    rig.logged("/ws").await;
    assert_eq!(
        rig.log()
            .iter()
            .filter(|line| line["target"] == "/ws")
            .count(),
        1
    );
}

#[tokio::test]
async fn a_log_survives_a_restart_and_goes_with_its_container() {
    let mut rig = Rig::start().await;
    let (web, other) = (rig.running().await, rig.running().await);
    rig.get(&web.host("files-1"), "/before").await;
    rig.get(&other.host("files-1"), "/before").await;
    let before = logged(&rig, &web, "/before", 1).await[0]["id"]
        .as_u64()
        .expect("an id");
    rig.restart().await;
    rig.get(&web.host("files-1"), "/after").await;
    let after = logged(&rig, &web, "/after", 1).await[0]["id"]
        .as_u64()
        .expect("an id");
    assert!(after > before);
    logged(&rig, &web, "/before", 1).await;
    assert!(log_path(&rig, &web).exists() && log_path(&rig, &other).exists());
    // Control says which containers there are, then that one is gone.
    let all = vec![web.place.clone(), other.place.clone()];
    rig.push(100, Change::Replace(all)).await;
    rig.push(101, Change::Remove(other.place.container)).await;
    assert!(!log_path(&rig, &other).exists());
    assert_eq!(
        rig.get(&other.host("logs-1"), "/_logs").await.code(),
        "unknown_container"
    );
    // Or it was removed while the proxy was away.
    rig.restart().await;
    rig.push(102, Change::Replace(vec![])).await;
    eventually(|| (!log_path(&rig, &web).exists()).then_some(())).await;
}

#[tokio::test]
async fn a_log_is_behind_the_gates_of_its_container() {
    let mut rig = Rig::start().await;
    let mut web = rig.running().await;
    let host = web.host("logs-1");
    rule(
        &mut rig,
        &mut web,
        Some(only(vec![token("param:door"), password()])),
    )
    .await;
    assert_eq!(
        rig.get(&host, "/_logs").await.code(),
        "authentication_required"
    );
    assert_eq!(
        rig.get(&host, "/_logs/stream").await.code(),
        "authentication_required"
    );
    // What opened a gate is in no entry, whatever its parameter is called.
    let ask = Request::get("/opened?door=t0ken&x=1").header("host", web.host("files-1"));
    assert_eq!(rig.ask(ask).await.status, StatusCode::OK);
    let entry = async |part: &str| {
        for _ in 0..25 {
            let ask = Request::get(format!("/_logs?last=1&search={part}&level=info,warn"))
                .header("host", &host)
                .header("authorization", basic("ann", "secret"));
            let heard = rig.ask(ask).await;
            assert_eq!(heard.status, StatusCode::OK, "{}", heard.text());
            if let Some(entry) = heard.json().get(0) {
                return entry.clone();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{part} is not logged");
    };
    let opened = entry("/opened").await;
    assert!(
        opened["url"]
            .as_str()
            .is_some_and(|url| url.ends_with("/opened?door=***&x=1")),
        "{opened}"
    );
    // What a gate refused is there, too.
    rig.get(&web.host("files-1"), "/shut?door=wr0ng").await;
    let shut = entry("/shut").await;
    assert_eq!(
        (&shut["status"], &shut["data"]["refusal"]),
        (&json!(401), &json!("authentication_required"))
    );
    for file in std::fs::read_dir(log_path(&rig, &web)).expect("a directory") {
        let text = std::fs::read_to_string(file.expect("a file").path()).expect("text");
        assert!(!text.contains("t0ken") && !text.contains("wr0ng"), "{text}");
    }
}

#[tokio::test]
async fn a_changed_rule_ends_who_follows_a_log() {
    let mut rig = Rig::start().await;
    let mut web = rig.running().await;
    let follow = async |rig: &Rig, web: &Container| {
        let ask = Request::get("/_logs/stream")
            .header("host", web.host("logs-1"))
            .header("authorization", basic("ann", "secret"));
        let ask = ask.body(Full::new(Bytes::new())).expect("a request");
        let mut answer = rig.send(ask).await;
        assert_eq!(answer.status(), StatusCode::OK);
        until(&mut answer, ": connected").await;
        answer
    };
    // Open to all, then to some, then to others.
    let before = follow(&rig, &web).await;
    rule(&mut rig, &mut web, Some(only(vec![password()]))).await;
    let ended = async |answer: hyper::Response<Incoming>| {
        let end = tokio::time::timeout(Duration::from_secs(10), answer.into_body().collect()).await;
        assert!(end.expect("it ends").is_err(), "it is cut off");
    };
    ended(before).await;
    let allowed = follow(&rig, &web).await;
    rule(&mut rig, &mut web, Some(only(vec![token("header:x-key")]))).await;
    ended(allowed).await;
}

// ---- how answers travel

/// The frames of a stream until one has this in it.
async fn until(answer: &mut hyper::Response<Incoming>, part: &str) -> String {
    let mut text = String::new();
    let read = async {
        while !text.contains(part) {
            let frame = answer
                .body_mut()
                .frame()
                .await
                .expect("open")
                .expect("a part");
            text.push_str(&String::from_utf8_lossy(&frame.into_data().expect("data")));
        }
    };
    if tokio::time::timeout(Duration::from_secs(10), read)
        .await
        .is_err()
    {
        panic!("{part} did not come: {text}");
    }
    text
}

#[tokio::test]
async fn a_log_is_followed_over_both_protocols() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("logs-1");
    for h2 in [false, true] {
        let path = "/_logs/stream?level=info,warn,error";
        let mut answer = if h2 {
            let ask = Request::get(format!("https://{host}{path}"));
            let ask = ask.body(Full::new(Bytes::new())).expect("a request");
            rig.h2(&host)
                .await
                .send_request(ask)
                .await
                .expect("an answer")
        } else {
            let ask = Request::get(path).header("host", &host);
            rig.send(ask.body(Full::new(Bytes::new())).expect("a request"))
                .await
        };
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        until(&mut answer, ": connected").await;
        let target = format!("/live-{h2}");
        rig.get(&web.host("files-1"), &target).await;
        let text = until(&mut answer, &target).await;
        let id = text
            .lines()
            .find_map(|line| line.strip_prefix("id: "))
            .expect("an id");
        // It goes on where it left off.
        let ask = Request::get(path)
            .header("host", &host)
            .header("last-event-id", id);
        let mut next = rig
            .send(ask.body(Full::new(Bytes::new())).expect("a request"))
            .await;
        rig.get(&web.host("files-1"), "/next").await;
        let text = until(&mut next, "/next").await;
        assert!(!text.contains(&target), "{text}");
    }
}

#[tokio::test]
async fn a_reader_that_leaves_is_noticed_at_once() {
    let mut rig = Rig::with(|config| config.limits.container_logs.streams = 1).await;
    let web = rig.running().await;
    let host = web.host("logs-1");
    let mut socket = rig.tcp().await;
    let ask = format!("GET /_logs/stream HTTP/1.1\r\nHost: {host}\r\n\r\n");
    socket.write_all(ask.as_bytes()).await.expect("written");
    let mut first = vec![0; 1_024];
    assert!(socket.read(&mut first).await.expect("an answer") > 0);
    assert_eq!(
        rig.get(&host, "/_logs/stream").await.status,
        StatusCode::TOO_MANY_REQUESTS
    );
    drop(socket);
    for attempt in 0.. {
        let ask = Request::get("/_logs/stream").header("host", &host);
        let answer = rig
            .send(ask.body(Full::new(Bytes::new())).expect("a request"))
            .await;
        if answer.status() == StatusCode::OK {
            break;
        }
        assert!(
            attempt < 20,
            "the place of a reader that left is not given to another"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // And one that resets its stream of an HTTP/2 connection.
    let mut sender = rig.h2(&host).await;
    for attempt in 0..20 {
        let ask = Request::get(format!("https://{host}/_logs/stream"));
        let ask = ask.body(Full::new(Bytes::new())).expect("a request");
        let answer = sender.send_request(ask).await.expect("an answer");
        match answer.status() {
            StatusCode::OK => return,
            _ if attempt < 19 => tokio::time::sleep(Duration::from_millis(200)).await,
            _ => panic!("the place of a reader that left is not given to another"),
        }
    }
}

#[tokio::test]
async fn a_connection_goes_on_after_an_answer_of_the_proxy_itself() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("logs-1");
    let mut socket = rig.tcp().await;
    let mut asked = String::new();
    for line in [
        "GET /_logs?last=1 HTTP/1.1",
        "HEAD /_logs/stats HTTP/1.1",
        "GET /nothing HTTP/1.1",
        "PUT /_logs HTTP/1.1",
        "GET /api/v1/logs/health HTTP/1.1",
    ] {
        let ask = format!("{line}\r\nHost: {host}\r\n\r\n");
        socket.write_all(ask.as_bytes()).await.expect("written");
        // The head, then as much as it says.
        let mut answer = Vec::new();
        let head = loop {
            let byte = socket.read_u8().await.expect("open");
            answer.push(byte);
            if answer.ends_with(b"\r\n\r\n") {
                break String::from_utf8_lossy(&answer).to_lowercase();
            }
        };
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .unwrap_or_else(|| panic!("no length in {head}"))
            .parse()
            .expect("a number");
        assert!(length > 0, "{head}");
        if !line.starts_with("HEAD") {
            let mut body = vec![0; length];
            socket.read_exact(&mut body).await.expect("a body");
            serde_json::from_slice::<Value>(&body).expect("JSON");
        }
        asked.push_str(head.lines().next().expect("a line"));
        asked.push('\n');
    }
    assert_eq!(
        asked,
        "http/1.1 200 ok\nhttp/1.1 200 ok\nhttp/1.1 404 not found\nhttp/1.1 405 method not allowed\nhttp/1.1 200 ok\n"
    );
}

#[tokio::test]
async fn an_old_client_reads_to_the_end() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let ask = format!(
        "GET /_logs HTTP/1.0\r\nHost: {}\r\n\r\n",
        web.host("logs-1")
    );
    let answer = rig.raw(ask.as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with('}'),
        "{answer}"
    );
}

#[tokio::test]
async fn what_a_client_sends_to_the_proxy_itself_is_bounded() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("logs-1");
    for h2 in [false, true] {
        for (size, status) in [(100, 200), (2 << 20, 413)] {
            let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list",
                "params": { "pad": "x".repeat(size) } });
            let body = Full::new(Bytes::from(call.to_string()));
            let ask = Request::post(if h2 {
                format!("https://{host}/mcp")
            } else {
                "/mcp".into()
            })
            .header("content-type", "application/json");
            let answer = if h2 {
                let ask = ask.body(body).expect("a request");
                rig.h2(&host)
                    .await
                    .send_request(ask)
                    .await
                    .expect("an answer")
            } else {
                let ask = ask.header("host", &host).body(body).expect("a request");
                rig.send(ask).await
            };
            assert_eq!(answer.status(), status, "h2: {h2}, {size}");
        }
    }
}

#[tokio::test]
async fn a_reader_that_reads_nothing_holds_nothing() {
    let mut rig = Rig::with(|config| config.limits.container_logs.ring_entries = 50).await;
    let web = rig.running().await;
    let mut socket = rig.tcp().await;
    let ask = format!(
        "GET /_logs/stream HTTP/1.1\r\nHost: {}\r\n\r\n",
        web.host("logs-1")
    );
    socket.write_all(ask.as_bytes()).await.expect("written");
    // More than all buffers on the way hold: 300 entries of some 64 KiB are never kept at once.
    let pad = "p".repeat(2_000);
    let asks = futures::stream::iter(0..600).map(|number| {
        let (rig, host) = (&rig, web.host("files-1"));
        let target = format!("/{pad}?{number}");
        async move { rig.get(&host, &target).await.status }
    });
    let statuses: Vec<_> = asks.buffer_unordered(16).collect().await;
    assert!(statuses.iter().all(|status| *status == StatusCode::OK));
    // It can still be read by others.
    rig.get(&web.host("files-1"), "/last").await;
    logged(&rig, &web, "/last", 1).await;
    // And by itself, from where it is.
    let mut text = String::new();
    let mut part = vec![0; 64 << 10];
    let read = async {
        while !text.contains("/last") {
            let bytes = socket.read(&mut part).await.expect("open");
            assert!(bytes > 0, "it was cut off");
            text.push_str(&String::from_utf8_lossy(&part[..bytes]));
        }
    };
    tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .expect("it catches up");
}

#[tokio::test]
async fn draining_ends_what_would_go_on_for_ever() {
    let mut rig = Rig::with(|config| config.limits.drain = Duration::from_secs(60)).await;
    let web = rig.running().await;
    let ask = Request::get("/_logs/stream").header("host", web.host("logs-1"));
    let mut answer = rig
        .send(ask.body(Full::new(Bytes::new())).expect("a request"))
        .await;
    until(&mut answer, ": connected").await;
    let proxy = rig.take();
    let stopped = tokio::time::timeout(Duration::from_secs(20), proxy.stop());
    let (rest, stopped) = tokio::join!(answer.into_body().collect(), stopped);
    stopped.expect("it does not wait for the drain limit");
    rest.expect("the stream ends as it should");
}

#[tokio::test]
async fn the_page_of_the_log_is_served_by_the_proxy() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let page = rig.get(&web.host("logs-1"), "/").await;
    // Without the pages in the build it says so.
    match page.status {
        StatusCode::OK => {
            assert!(
                page.header("content-type")
                    .is_some_and(|it| it.starts_with("text/html"))
            );
            assert!(page.header("content-security-policy").is_some());
        }
        other => assert_eq!(other, StatusCode::SERVICE_UNAVAILABLE),
    }
    assert_eq!(web.seen().requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn any_index_and_the_long_name_show_the_same_log() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    rig.get(&web.host("files-1"), "/seen").await;
    logged(&rig, &web, "/seen", 1).await;
    for door in ["logs-1", "logs-7", "proxylogs-1"] {
        let heard = rig.get(&web.host(door), "/_logs?search=/seen&last=9").await;
        assert!(heard.text().contains("/seen"), "{door}");
    }
}
