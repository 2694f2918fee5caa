//! What of the terminal service only a machine of its own can show.

use reqwest::Method;
use serde_json::{Value, json};
use tests::Node;
use tests::node::Computer;

async fn post(node: &Node, computer: &Computer, path: &str, body: Value) -> Value {
    let path = format!("/api/v1/{path}");
    node.kit(computer, "terminal", Method::POST, &path, |request| {
        request.json(&body)
    })
    .await
    .expect("the terminal answers")
    .expect(200)
    .json()
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_on_other_machines_share_a_connection_and_keep_streams_apart() {
    let node = Node::running();
    let web = node.create("ssh").await;
    // The machine is its own other machine, and its own proxy.
    node.root(
        &web,
        "echo 'user:pass word' | chpasswd \
         && echo 'PasswordAuthentication yes' > /etc/ssh/sshd_config.d/00-password.conf \
         && systemctl restart ssh \
         && mkdir -p -m 700 ~/.ssh && ssh-keygen -qt ed25519 -N '' -f ~/.ssh/id_ed25519 \
         && cp ~/.ssh/id_ed25519.pub ~/.ssh/authorized_keys \
         && ssh -fN -o StrictHostKeyChecking=accept-new -D 127.0.0.1:1080 root@127.0.0.1",
    )
    .await;
    let key = node.root(&web, "base64 -w0 ~/.ssh/id_ed25519").await;
    let by_password = json!({ "terminal_id": 1, "ssh_host": "127.0.0.1", "ssh_user": "user",
        "ssh_password": "pass word" });
    let by_key_and_proxy = json!({ "terminal_id": 2, "ssh_host": "localhost", "ssh_user": "root",
        "ssh_key": key, "socks5_host": "127.0.0.1", "socks5_port": "1080" });
    for (wish, user) in [(by_password, "user"), (by_key_and_proxy, "root")] {
        let id = wish["terminal_id"].clone();
        let made = post(&node, &web, "terminal/create", wish).await;
        assert_eq!(
            (&made["is_ssh"], &made["shell_ready"]),
            (&json!(true), &json!(true)),
            "{made}"
        );
        let execute = format!("terminal/execute?terminal_id={id}");
        let command = "id -un; echo \"$WORD\" >&2; set -- $SSH_CONNECTION; echo $#; exit 7";
        let ran = json!({ "command": command, "env": { "WORD": "it's" } });
        let ran = post(&node, &web, &execute, ran).await;
        assert_eq!(
            (&ran["stdout"], &ran["stderr"], &ran["exit_code"]),
            (&json!(format!("{user}\n4\n")), &json!("it's\n"), &json!(7)),
            "{ran}"
        );
        let typed = json!({ "input": "echo $((6*7))-$(id -un)" });
        post(
            &node,
            &web,
            &format!("terminal/write?terminal_id={id}"),
            typed,
        )
        .await;
        let wait = json!({ "mode": "regex", "pattern": format!("42-{user}"), "timeout_ms": 20000 });
        let waited = post(
            &node,
            &web,
            &format!("terminal/wait?terminal_id={id}"),
            wait,
        )
        .await;
        assert_eq!(waited["status"], "matched", "{waited}");
    }
    // A wrong password ends the session rather than to ask whoever is not there.
    let wrong = json!({ "terminal_id": 3, "ssh_host": "127.0.0.1", "ssh_user": "user",
        "ssh_password": "wrong" });
    let made = post(&node, &web, "terminal/create", wrong).await;
    assert_eq!(made["shell_ready"], false, "{made}");
    node.remove(&web).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_restarts_itself_and_comes_back() {
    let node = Node::running();
    let web = node.create("restart").await;
    node.root(&web, "touch /run/before /root/kept").await;
    let supervised = node
        .kit(
            &web,
            "terminal",
            Method::GET,
            "/api/v1/system/daemon",
            |request| request,
        )
        .await
        .expect("the terminal answers")
        .expect(200)
        .json();
    let kit = supervised
        .as_array()
        .expect("a list")
        .iter()
        .find(|program| program["name"] == "hoody-kit")
        .unwrap_or_else(|| panic!("the kit is supervised: {supervised}"));
    assert_eq!(kit["enabled"], true);
    let scheduled = post(&node, &web, "system/reboot?delay=1", json!({})).await;
    assert_eq!(scheduled["effective_seconds"], 1);
    node.until("the machine went down and came back", || async {
        let path = "/api/v1/terminal/execute?ephemeral=true&user=root";
        let look = json!({ "command": "test ! -e /run/before && test -e /root/kept && echo anew" });
        node.kit(&web, "terminal", Method::POST, path, |request| {
            request.json(&look)
        })
        .await
        .is_ok_and(|answer| answer.status == 200 && answer.json()["stdout"] == "anew\n")
    })
    .await;
    node.remove(&web).await;
}
