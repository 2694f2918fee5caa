//! The life of a node with the real programs, containers as plain processes.

#![allow(
    clippy::unwrap_used,
    reason = "whatever goes wrong here fails the test"
)]

mod rig;

use std::net::TcpListener;
use std::process::Command;

use rig::{Node, kill, stdout, until};

#[test]
fn a_node_comes_up_survives_and_goes_without_a_trace() {
    let node = Node::new();

    let first = stdout(&node.up());
    assert!(first.contains("shown this once"), "{first}");
    let line = first
        .lines()
        .find_map(|line| line.strip_prefix("Try it"))
        .expect("a line to try")
        .trim();
    let tried = stdout(
        &Command::new("sh")
            .args(["-c", &format!("{line} --silent --fail")])
            .output()
            .unwrap(),
    );
    assert!(tried.contains("\"name\":\"first\""), "{tried}");

    let second = stdout(&node.up());
    let (_, rest) = first
        .split_once('\n')
        .expect("the password has a line of its own");
    assert_eq!(second, rest, "all but the password is there again");

    let taken = Node::new();
    let refused = Command::new(env!("CARGO_BIN_EXE_hoody"))
        .args([
            "up",
            "--runtime",
            "local",
            "--http",
            &node.ports[0].to_string(),
            "--kitd",
            node.kitd.to_str().unwrap(),
        ])
        .arg("--state")
        .arg(taken.state())
        .env("HOODY_CONFIG", taken.root.path())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        words.contains(&format!("port {} is taken by hoody", node.ports[0])),
        "{words}"
    );

    for role in ["control", "proxy"] {
        let before = node.process(role);
        kill(&before);
        until("it is started again", || {
            node.is_up() && node.process(role) != before
        });
    }
    assert_eq!(stdout(&node.up()), second);

    kill(&node.process("node"));
    until("the roles end with their supervisor", || {
        let status = node.hoody(&["status"]);
        String::from_utf8_lossy(&status.stdout)
            .matches("down, log")
            .count()
            == 3
    });
    assert_eq!(stdout(&node.up()), second);

    stdout(&node.hoody(&["down"]));
    assert_eq!(node.hoody(&["status"]).status.code(), Some(3));
    assert_eq!(stdout(&node.up()), second, "containers and data stay");

    stdout(&node.hoody(&["purge", "--yes"]));
    assert!(!node.state().exists());
    let profiles = std::fs::read_dir(node.root.path().join("profiles"))
        .unwrap()
        .count();
    assert_eq!(profiles, 0, "the profile is gone");
    let mark = node.state().into_os_string().into_encoded_bytes();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let words = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let is_left = words.windows(mark.len()).any(|part| part == mark);
        assert!(
            !is_left,
            "left running: {}",
            String::from_utf8_lossy(&words)
        );
    }
}

/// A node that answers for its names, asked by the command that tells whether the world finds it.
/// The world is the node alone: it is the root that the command begins with.
#[test]
fn a_node_answers_for_its_names() {
    let node = Node::new();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port().to_string();
    drop(socket);
    let check = || {
        let output = node.hoody(&["dns", "check", "--roots", "127.0.0.1", "--json"]);
        let findings: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code(), findings)
    };
    let none = node.hoody(&["dns", "check"]);
    let words = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(words.contains("this node answers for no zone"), "{words}");

    let settings = [
        "--dns-zones",
        "hoody.localhost",
        "--dns-port",
        &port,
        "--dns-bind",
        "127.0.0.1",
    ];
    let addresses = ["--dns-addresses", "127.0.0.1"];
    stdout(&node.up_with(&[&settings[..], &addresses].concat()));
    let (code, findings) = check();
    assert_eq!(code, Some(0), "{findings:#}");
    let whole = findings.to_string();
    for words in [
        "over UDP",
        "over TCP",
        "*.node-1.containers.hoody.localhost",
    ] {
        assert!(whole.contains(words), "no {words} in {findings:#}");
    }
    let records = stdout(&node.hoody(&["dns", "records"]));
    assert_eq!(
        records,
        "hoody.localhost. 3600 IN NS ns.hoody.localhost.\nns.hoody.localhost. 300 IN A 127.0.0.1\n"
    );

    // A proxy that takes the place of the other answers for them, too.
    let before = node.process("proxy");
    let hangup = Command::new("kill")
        .args(["-HUP", &node.process("node")])
        .status();
    assert!(hangup.unwrap().success());
    until("another proxy serves", || node.process("proxy") != before);
    let (code, findings) = check();
    assert_eq!(code, Some(0), "{findings:#}");

    stdout(&node.hoody(&["down"]));
    let (code, findings) = check();
    assert_eq!(code, Some(1), "{findings:#}");
    assert!(
        findings.to_string().contains("cannot be found out"),
        "{findings:#}"
    );
}
