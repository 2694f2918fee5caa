//! What containers show one another, and what they are told, through a whole node.

use reqwest::Method;
use serde_json::json;
use tests::Node;
use tests::node::Computer;

/// A command that ends well says so last.
async fn says(node: &Node, computer: &Computer, user: &str, command: &str) -> String {
    let said = node.run_as(computer, user, command).await;
    format!("{} {}", said.code, said.stdout.trim())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_shown_changed_and_withdrawn_while_both_run() {
    let node = Node::running();
    let (source, target) = (node.create("shows").await, node.create("sees").await);
    let make = "mkdir -p ~/data && echo one > ~/data/file && ln -s /etc/shadow ~/data/link";
    assert_eq!(says(&node, &source, "user", make).await, "0 ");
    let offer = json!({
        "source_path": "/home/user/data", "target_container_id": target.id, "mode": "readonly",
        "alias": "data",
    });
    let offers = format!("/api/v1/containers/{}/storage/shares", source.id);
    let made = node.post(&offers, offer).await.expect(201).data();
    assert_eq!(made["status"], "active", "{made}");
    let see = "cat /hoody/shares/data/file";
    assert_eq!(says(&node, &target, "user", see).await, "0 one");
    // As it changes; a link leads nowhere but in the machine that follows it.
    says(&node, &source, "user", "echo two > ~/data/file").await;
    assert_eq!(says(&node, &target, "user", see).await, "0 two");
    let hashes = "sha256sum < /hoody/shares/data/link; sha256sum < /etc/shadow";
    let both = node.root(&target, hashes).await;
    let (there, own) = both.split_once('\n').unwrap();
    assert_eq!(there, own);
    // For reading it is, whatever the root of the target tries.
    for attempt in [
        "echo mine > /hoody/shares/data/file",
        "mount -o remount,rw /hoody/shares/data && echo mine > /hoody/shares/data/file",
        "mount -o remount,rw,bind /hoody/shares/data && echo mine > /hoody/shares/data/file",
        "unshare --mount sh -c 'mount -o remount,rw /hoody/shares/data && echo mine > /hoody/shares/data/file'",
    ] {
        let said = says(&node, &target, "root", attempt).await;
        assert!(!said.starts_with("0 "), "{attempt}: {said}");
    }
    assert_eq!(
        says(&node, &source, "user", "cat ~/data/file").await,
        "0 two"
    );

    // For writing from now on, without a restart of either.
    let share = format!("{offers}/{}", made["id"].as_str().unwrap());
    let body = json!({ "mode": "readwrite" });
    let changed = node.api(Method::PATCH, &share, Some(body)).await.unwrap();
    assert_eq!(changed.expect(200).data()["mode"], "readwrite");
    let write = "echo three > /hoody/shares/data/file";
    assert_eq!(says(&node, &target, "user", write).await, "0 ");
    let read = says(
        &node,
        &source,
        "user",
        "cat ~/data/file; stat -c %U ~/data/file",
    )
    .await;
    assert_eq!(read, "0 three\nuser");

    // It is there after a restart of either, and gone when it is withdrawn.
    for computer in [&target, &source] {
        node.operate(computer, "stop").await;
        node.reached(computer, "stopped").await;
        node.operate(computer, "start").await;
        node.answers(computer).await;
    }
    node.until("the share is back", || async {
        says(&node, &target, "user", see).await == "0 three"
    })
    .await;
    let withdraw = format!("/api/v1/storage/shares/{}", made["id"].as_str().unwrap());
    node.delete(&withdraw).await.expect(200);
    let gone = says(&node, &target, "root", "ls -A /hoody/shares").await;
    assert_eq!(gone, "0 ");
    let kept = says(&node, &source, "user", "cat ~/data/file").await;
    assert_eq!(kept, "0 three");
    for computer in [&source, &target] {
        node.remove(computer).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_are_seen_by_terminals_scripts_and_services() {
    let node = Node::running();
    let web = node.create("told").await;
    let script = json!({ "path": "stage.ts", "content": "return process.env.STAGE ?? 'none'" });
    node.kit(
        &web,
        "exec",
        Method::POST,
        "/api/v1/exec/scripts/write",
        |request| request.json(&script),
    )
    .await
    .unwrap()
    .expect(200);
    // A unit of the user's own, as any service in it.
    let unit = "printf '[Service]\\nType=oneshot\\nEnvironmentFile=-/etc/environment\\nExecStart=/usr/bin/printenv STAGE\\nStandardOutput=truncate:/tmp/stage\\n' > /etc/systemd/system/stage.service; systemctl daemon-reload";
    node.root(&web, unit).await;
    let path = format!("/api/v1/containers/{}/env/STAGE", web.id);
    for value in ["first 'stage' \"quoted\"", "second stage"] {
        let body = json!({ "value": value });
        node.api(Method::PUT, &path, Some(body))
            .await
            .unwrap()
            .expect(200);
        node.until("a terminal sees it", || async {
            let said = node.run_as(&web, "user", "printf %s \"$STAGE\"").await;
            said.stdout == value
        })
        .await;
        let root = node.run_as(&web, "root", "printf %s \"$STAGE\"").await;
        assert_eq!(root.stdout, value);
        let login = node.root(&web, "su - user -c 'printf %s \"$STAGE\"'").await;
        assert_eq!(login, value);
        node.until("a script sees it", || async {
            let said = node
                .kit(&web, "exec", Method::GET, "/stage", |request| request)
                .await
                .unwrap();
            said.text().contains(value) || said.json() == json!(value)
        })
        .await;
    }
    node.root(&web, "systemctl start stage").await;
    assert_eq!(node.root(&web, "cat /tmp/stage").await, "second stage");
    node.delete(&path).await.expect(200);
    node.until("it is gone", || async {
        let said = node
            .run_as(&web, "user", "printf %s \"${STAGE-none}\"")
            .await;
        said.stdout == "none"
    })
    .await;
    node.remove(&web).await;
}
