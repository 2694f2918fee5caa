//! The `hoody` command on a real node, as a user types it.

use std::process::{Command, Output};

use tests::Node;

/// Run the command; it finds its profile by `HOODY_CONFIG`.
fn hoody(words: &[&str]) -> Output {
    let program = std::env::var_os("HOODY_COMMAND").expect("HOODY_COMMAND names the command");
    Command::new(program).args(words).output().expect("it runs")
}

#[track_caller]
fn says(words: &[&str]) -> String {
    let output = hoody(words);
    let (out, error) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{words:?}: {out}{error}");
    out.into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_made_used_and_removed_by_its_name() {
    let node = Node::running();
    let server = node.server().await;
    let project = node.project().await;
    let create = [
        "containers",
        "create",
        "--project",
        project,
        "--server-id",
        &server,
        "--name",
        "typed-name",
        "--hoody-kit",
        "--wait",
    ];
    says(&create);
    assert!(says(&["ps"]).contains("typed-name"));

    let exec = |command| {
        hoody(&[
            "terminal",
            "sessions",
            "exec",
            "--command",
            command,
            "-c",
            "typed-name",
        ])
    };
    let said = exec("echo out; echo err >&2; exit 7");
    assert_eq!(said.status.code(), Some(7));
    assert_eq!(
        (&*said.stdout, &*said.stderr),
        (&b"out\n"[..], &b"err\n"[..])
    );
    assert!(says(&["files", "get", "/etc/os-release", "-c", "typed-name"]).contains("trixie"));

    says(&["containers", "stop", "typed-name", "--wait"]);
    says(&["containers", "start", "typed-name", "--wait"]);
    let json: serde_json::Value =
        serde_json::from_str(&says(&["containers", "get", "typed-name", "-o", "json"]))
            .expect("JSON");
    assert_eq!(json["name"], "typed-name");
    says(&["containers", "delete", "typed-name"]);
    node.gone(&node.computer(&json)).await;

    let unknown = hoody(&["files", "get", "/", "-c", "no-such-name"]);
    assert!(!unknown.status.success());
    let words = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(
        words.contains("no-such-name") && words.contains("hoody containers list"),
        "{words}"
    );
}
