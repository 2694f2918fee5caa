//! A node with the real programs, containers as plain processes.

#![allow(dead_code, reason = "not every test uses all of it")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// A node in a directory of its own, removed at the end whatever happens.
pub struct Node {
    pub root: tempfile::TempDir,
    pub kitd: PathBuf,
    pub ports: [u16; 2],
}

impl Node {
    pub fn new() -> Node {
        // Two sockets at once, so that the ports differ.
        let sockets = [(); 2].map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap());
        let ports = sockets.map(|socket| socket.local_addr().unwrap().port());
        // Short: sockets are below it.
        let root = tempfile::Builder::new()
            .prefix("hn")
            .tempdir_in("/tmp")
            .unwrap();
        Node {
            root,
            kitd: kitd(),
            ports,
        }
    }

    pub fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    pub fn hoody(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_hoody"))
            .args(words)
            .arg("--state")
            .arg(self.state())
            .env("HOODY_CONFIG", self.root.path().join("profiles"))
            .output()
            .unwrap()
    }

    pub fn up(&self) -> Output {
        self.up_with(&[])
    }

    pub fn up_with(&self, more: &[&str]) -> Output {
        let [http, https] = self.ports.map(|port| port.to_string());
        let kitd = self.kitd.to_str().unwrap();
        let words = [
            "up",
            "--runtime",
            "local",
            "--http",
            &http,
            "--https",
            &https,
            "--kitd",
            kitd,
            "--metrics-proxy",
            "off",
            "--metrics-control",
            "off",
        ];
        self.hoody(&[&words, more].concat())
    }

    pub fn is_up(&self) -> bool {
        self.hoody(&["status"]).status.success()
    }

    /// The process that a file in `run` names.
    pub fn process(&self, role: &str) -> String {
        let text = std::fs::read_to_string(self.state().join(format!("run/{role}.pid"))).unwrap();
        text.split(' ').next().unwrap().to_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.hoody(&["purge", "--yes"]);
    }
}

/// The kit's program of this build; made where it is missing.
fn kitd() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_hoody")).with_file_name("kitd");
    if !path.exists() {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "-p", "kitd"])
            .status()
            .unwrap();
        assert!(built.success(), "kitd does not build");
    }
    path
}

pub fn stdout(output: &Output) -> String {
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{stdout}{stderr}");
    stdout.into_owned()
}

pub fn until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "waited in vain: {what}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn kill(process: &str) {
    assert!(
        Command::new("kill")
            .args(["-KILL", process])
            .status()
            .unwrap()
            .success()
    );
}
