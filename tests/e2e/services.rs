//! The kit of a real container, through its hostnames.

use futures::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::json;
use tests::Node;
use tests::node::Computer;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_typed_into_and_survives_its_client() {
    let node = Node::running();
    let web = node.create("typed").await;
    let path = "/api/v1/terminal/ws?terminal_id=1";
    let hello = json!({ "command": "{", "columns": 80, "rows": 24 }).to_string();
    for (typed, want) in [
        ("echo $((6*7))-first\n", "42-first"),
        ("echo again-$((6*7))\n", "again-42"),
    ] {
        let mut socket = node
            .client
            .websocket(&web.host("terminal"), path, Some("tty"))
            .await
            .unwrap();
        socket.send(Message::text(hello.clone())).await.unwrap();
        socket
            .send(Message::binary([b"0", typed.as_bytes()].concat()))
            .await
            .unwrap();
        let mut seen = String::new();
        let read = async {
            while let Some(Ok(message)) = socket.next().await {
                if let Message::Binary(bytes) = message
                    && bytes.first() == Some(&b'0')
                {
                    seen.push_str(&String::from_utf8_lossy(&bytes[1..]));
                    if seen.contains(want) {
                        return true;
                    }
                }
            }
            false
        };
        let found = tokio::time::timeout(std::time::Duration::from_secs(20), read).await;
        assert_eq!(found, Ok(true), "no {want} in {seen:?}");
        if want == "again-42" {
            assert!(
                seen.contains("42-first"),
                "the first client's output was not replayed: {seen:?}"
            );
        }
    }
    node.remove(&web).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_any_size_go_up_and_come_back() {
    let node = Node::running();
    let web = node.create("files").await;
    let bytes: Vec<u8> = (0..48u32 << 20)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let path = "/api/v1/files/home/user/big%20file.bin";
    let sent = node
        .kit(&web, "files", Method::PUT, path, |request| {
            request.body(bytes.clone())
        })
        .await
        .unwrap();
    assert!(sent.status < 300, "{}", sent.text());
    let back = node
        .kit(&web, "files", Method::GET, path, |request| request)
        .await
        .unwrap();
    assert!(
        back.bytes == bytes,
        "{} bytes came back of {}",
        back.bytes.len(),
        bytes.len()
    );
    let part = node
        .kit(&web, "files", Method::GET, path, |request| {
            request.header("range", "bytes=1000000-1000999")
        })
        .await
        .unwrap()
        .expect(206);
    assert_eq!(part.bytes, bytes[1_000_000..1_001_000]);
    let size = node
        .root(&web, "stat -c '%s %U' '/home/user/big file.bin'")
        .await;
    assert_eq!(size, format!("{} user", bytes.len()));
    node.kit(&web, "files", Method::DELETE, path, |request| request)
        .await
        .unwrap()
        .expect(200);
    node.remove(&web).await;
}

/// Have systemd end the kit, after it has answered: whoever asks is asked by the kit itself.
async fn end_kit(node: &Node, computer: &Computer, how: &str) {
    let later = format!(
        "systemd-run --quiet --on-active=300ms --timer-property=AccuracySec=1ms \
         systemctl {how} hoody-kit"
    );
    node.root(computer, &later).await;
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_are_files_of_the_user_and_outlive_a_killed_kit() {
    let node = Node::running();
    let web = node.create("data").await;
    let run = async |items: serde_json::Value| {
        let path = "/api/v1/sqlite/db?db=app&create_db_if_missing=true";
        let body = json!({ "resultFormat": "list", "transaction": items });
        node.kit(&web, "sqlite", Method::POST, path, |request| {
            request.json(&body)
        })
        .await
    };
    let made = json!([{ "statement": "CREATE TABLE t (x)" }, { "statement": "INSERT INTO t VALUES (9007199254740993)" }]);
    run(made).await.unwrap().expect(200);
    let owners = "stat -c %U /hoody/databases /hoody/databases/app.db /hoody/databases/app.db-wal";
    assert_eq!(node.root(&web, owners).await, "user\nuser\nuser");
    // in the middle of whatever it does
    end_kit(&node, &web, "kill -s KILL").await;
    let began = std::time::Instant::now();
    let rows = loop {
        let asked = run(json!([{ "query": "SELECT x FROM t" }])).await;
        if let Ok(answer) = asked
            && answer.status == 200
        {
            break answer.json()["results"][0]["resultSetList"].clone();
        }
        assert!(began.elapsed().as_secs() < 30, "the kit does not come back");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    };
    assert_eq!(rows, json!([[9_007_199_254_740_993_i64]]));
    node.remove(&web).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_served_at_the_root() {
    let node = Node::running();
    let web = node.create("pages").await;
    for service in ["terminal", "files", "sqlite"] {
        let page = node
            .client
            .request(Method::GET, &web.host(service), "/")
            .header("accept", "text/html");
        let page = node.client.execute(page.build().unwrap()).await.unwrap();
        assert_eq!(page.status(), 200, "{service}");
        let text = page.text().await.unwrap();
        assert!(text.contains("/_hoody/ui/"), "{service}: {text}");
    }
    node.remove(&web).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_replaces_its_socket_reaches_nothing_of_the_host() {
    let node = Node::running();
    let web = node.create("hostile").await;
    let health = "/api/v1/terminal/health";
    for attack in [
        "ln -s /var/lib/incus/unix.socket /hoody/run/kit.sock",
        "ln -s /proc/1/root/var/lib/incus/unix.socket /hoody/run/kit.sock",
        "mkfifo /hoody/run/kit.sock",
        "echo text > /hoody/run/kit.sock",
        "mkdir /hoody/run/kit.sock",
    ] {
        let script = format!(
            "systemd-run -q --on-active=1 --timer-property=AccuracySec=100ms --unit=attack bash -c 'systemctl stop hoody-kit; rm -rf /hoody/run/kit.sock; {attack}; sleep 5; rm -rf /hoody/run/kit.sock; systemctl start hoody-kit'"
        );
        node.root(&web, &script).await;
        node.until("the socket is replaced", || async {
            node.kit(&web, "terminal", Method::GET, health, |request| request)
                .await
                .is_ok_and(|answer| matches!(answer.status, 502 | 503))
        })
        .await;
        node.answers(&web).await;
        node.run_as(
            &web,
            "root",
            "systemctl reset-failed attack.service attack.timer; systemctl stop attack.timer",
        )
        .await;
    }
    node.remove(&web).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_run_as_the_user_and_end_alone() {
    let node = Node::running();
    let web = node.create("scripts").await;
    let write = async |path: &str, content: &str| {
        let body = json!({ "path": path, "content": content });
        let written = node
            .kit(
                &web,
                "exec",
                Method::POST,
                "/api/v1/exec/scripts/write",
                |request| request.json(&body),
            )
            .await
            .unwrap();
        assert_eq!(written.status, 200, "{}", written.text());
    };
    let get = async |path: &str| {
        node.kit(&web, "exec", Method::GET, path, |request| request)
            .await
            .unwrap()
    };
    write(
        "who.ts",
        "return { uid: Deno.uid(), home: process.env.HOME, dir: metadata.directory }",
    )
    .await;
    let who = get("/who").await;
    assert_eq!(who.status, 200, "{}", who.text());
    assert_eq!(
        who.json(),
        json!({ "uid": 1000, "home": "/home/user", "dir": "/hoody/storage/hoody-exec/scripts/default/1" })
    );
    for (name, code, status) in [
        ("loop", "// @timeout 500\nwhile (true) {}", 504),
        (
            "heap",
            "const a = []; while (true) a.push(new Array(1e5).fill(a.length))",
            502,
        ),
        ("exit", "Deno.exit(1)", 502),
        (
            "fork",
            "// @timeout 3000\nfor (;;) { try { new Deno.Command('sleep', { args: ['60'] }).spawn() } catch {} }",
            504,
        ),
    ] {
        write(&format!("{name}.ts"), code).await;
        let ended = get(&format!("/{name}")).await;
        assert_eq!(ended.status, status, "{name}: {}", ended.text());
        assert_eq!(get("/who").await.status, 200, "after {name}");
    }
    node.until("what the bomb started is gone", || async {
        node.root(&web, "pgrep -c sleep || true").await.trim() == "0"
    })
    .await;
    write(
        "eval.ts",
        "return await isolate.eval('a * b', { a: 6, b: 7 })",
    )
    .await;
    let seven = get("/eval").await;
    assert_eq!(seven.text(), "42");
    // what is scheduled, and what was written, is there after a restart of the kit
    write(
        "tick.ts",
        "// @schedule * * * * *\nawait fs.writeFile('ticked.txt', 'yes')",
    )
    .await;
    end_kit(&node, &web, "restart").await;
    node.answers(&web).await;
    assert_eq!(get("/who").await.status, 200);
    let began = std::time::Instant::now();
    while node
        .root(
            &web,
            "cat /hoody/storage/hoody-exec/scripts/default/1/ticked.txt 2>/dev/null || true",
        )
        .await
        .trim()
        != "yes"
    {
        assert!(began.elapsed().as_secs() < 90, "it did not run by itself");
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    }
    node.remove(&web).await;
}
