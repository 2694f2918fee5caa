//! A node that needs a domain and nothing else: it answers for its names itself, and a directory
//! that knows no other name server gives it certificates.

#![allow(
    clippy::unwrap_used,
    reason = "whatever goes wrong here fails the test"
)]

#[allow(dead_code)]
#[path = "../../certs/tests/acme/pebble.rs"]
mod pebble;
mod rig;

use std::path::PathBuf;
use std::process::Command;

use pebble::{Names, Pebble, Setup, free_ports};
use rig::{Node, stdout, until};

const DOMAIN: &str = "hoody.example";

/// A node and its directory, which asks the node's own name server.
struct World {
    node: Node,
    pebble: Pebble,
    /// The root of what the directory issues.
    root: PathBuf,
    settings: Vec<String>,
}

impl World {
    /// A directory that delays each look by up to so many seconds, and a node that was not started.
    async fn new(delay: u32) -> World {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let node = Node::new();
        let [dns, _] = free_ports();
        let mut setup = Setup::new(&*Names::start().await);
        setup.dns = ([127, 0, 0, 1], dns).into();
        setup.delay = Some(delay);
        let pebble = Pebble::start(setup).await;
        let root = node.root.path().join("issuing.pem");
        let issuing = pebble.issuing_root().await;
        std::fs::write(&root, &issuing).unwrap();
        let roots = node.root.path().join("roots.pem");
        let own = std::fs::read_to_string(pebble.root()).unwrap();
        std::fs::write(&roots, format!("{own}{issuing}")).unwrap();
        let settings = [
            ("--domain", DOMAIN),
            ("--bind", "127.0.0.1"),
            ("--certificates-mode", "acme"),
            ("--certificates-root", roots.to_str().unwrap()),
            ("--acme-directory", &pebble.directory),
            ("--acme-contact", "admin@hoody.example"),
            ("--dns-zones", DOMAIN),
            ("--dns-bind", "127.0.0.1"),
            ("--dns-port", &dns.to_string()),
            ("--dns-addresses", "127.0.0.1"),
            ("--resolvers", "off"),
        ];
        let settings = settings.iter().flat_map(|(key, value)| [*key, *value]);
        World {
            settings: settings.map(str::to_owned).collect(),
            node,
            pebble,
            root,
        }
    }

    fn up(&self) -> String {
        let words: Vec<&str> = self.settings.iter().map(String::as_str).collect();
        stdout(&self.node.up_with(&words))
    }

    /// The list of the administrator.
    fn list(&self) -> serde_json::Value {
        serde_json::from_str(&stdout(&self.node.hoody(&["certs", "list", "--json"]))).unwrap()
    }

    fn has_all(&self) -> bool {
        let list = self.list();
        let rows = list.as_array().unwrap();
        rows.len() == 2 && rows.iter().all(|row| row["not_after"].is_string())
    }

    /// The status of a page for whoever trusts the directory's root and no other; nothing where
    /// that is not to be believed.
    fn get(&self, host: &str) -> Option<String> {
        let port = self.node.ports[1];
        let done = Command::new("curl")
            .args(["--silent", "--show-error", "--output", "/dev/null"])
            .args(["--write-out", "%{http_code}", "--noproxy", "*"])
            .arg("--cacert")
            .arg(&self.root)
            .args(["--resolve", &format!("{host}:{port}:127.0.0.1")])
            .arg(format!("https://{host}:{port}/"))
            .output()
            .unwrap();
        done.status
            .success()
            .then(|| String::from_utf8(done.stdout).unwrap())
    }

    /// Have another proxy take the place of the one that runs.
    fn renew_proxy(&self) {
        let before = self.node.process("proxy");
        let hangup = Command::new("kill")
            .args(["-HUP", &self.node.process("node")])
            .status();
        assert!(hangup.unwrap().success());
        until("another proxy serves", || {
            self.node.process("proxy") != before
        });
    }

    /// Whether the records of the node keep somebody from certifying its names.
    fn forbids(&self, issuer: &str) -> bool {
        let words = ["dns", "check", "--roots", "127.0.0.1", "--issuer", issuer];
        let said = self.node.hoody(&words).stdout;
        let said = String::from_utf8(said).unwrap();
        assert!(said.contains("over UDP"), "{said}");
        said.contains(&format!("forbid {issuer} to certify"))
    }

    fn proxy_log(&self) -> String {
        std::fs::read_to_string(self.node.state().join("logs/proxy.log")).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_needs_a_domain_and_nothing_else() {
    let world = World::new(6).await;
    std::thread::scope(|scope| {
        let up = scope.spawn(|| world.up());
        // A proxy takes the place of the other while the directory looks: nothing fails.
        until("the directory looks", || {
            world
                .pebble
                .log()
                .contains("Pulled a task from the Tasks queue")
        });
        world.renew_proxy();
        up.join().unwrap();
    });
    until("both certificates are there", || world.has_all());
    let list = world.list();
    let errors: Vec<_> = list.as_array().unwrap().iter().collect();
    assert!(
        errors.iter().all(|row| row["last_error"].is_null()),
        "{list:#}"
    );
    let log = world.proxy_log();
    assert!(!log.contains("no new certificate for"), "{log}");

    let realm = format!("0123456789abcdef01234567.api.{DOMAIN}");
    for (host, status) in [
        (format!("api.{DOMAIN}"), "404"),
        (realm, "404"),
        (format!("nobody.node-1.containers.{DOMAIN}"), "404"),
    ] {
        until("the certificate of the directory is shown", || {
            world.get(&host).is_some_and(|shown| shown == status)
        });
    }
    // A container, by the address that was printed.
    let again = world.up();
    let host = again
        .split(|letter: char| letter.is_whitespace() || letter == '/' || letter == ':')
        .find(|word| word.ends_with(&format!(".node-1.containers.{DOMAIN}")))
        .unwrap_or_else(|| panic!("no address of a container in {again}"));
    let status = world.get(host).expect("it has a certificate");
    assert!(["200", "302", "307", "308"].contains(&&*status), "{status}");

    // What a directory says of itself (pebble does not) is in the node's records.
    assert!(!world.forbids("other.example"), "nobody was named");
    let directories = std::fs::read_dir(world.node.state().join("acme")).unwrap();
    let directory = directories
        .map(|entry| entry.unwrap().path())
        .find(|path| path.join("account.json").exists())
        .expect("the node has an account");
    let asked = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let said = serde_json::json!({"names": ["ca.example"], "asked": asked});
    std::fs::write(directory.join("issuers.json"), said.to_string()).unwrap();
    world.renew_proxy();
    until("others are kept away", || world.forbids("other.example"));
    assert!(!world.forbids("ca.example"));

    // The account goes on with another key, and a certificate is revoked.
    let said = stdout(&world.node.hoody(&["certs", "rollover"]));
    assert_eq!(said, "the account has another key\n");
    let api = format!("api.{DOMAIN}");
    let said = stdout(&world.node.hoody(&["certs", "revoke", &api]));
    assert_eq!(said, format!("the certificate for {api} is revoked\n"));
    let again = world.node.hoody(&["certs", "revoke", &api]);
    let words = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success());
    assert!(words.contains("there is no certificate for"), "{words}");
    assert!(!world.has_all());
    let said = stdout(&world.node.hoody(&["certs", "renew", &api]));
    assert!(said.contains("is ordered within a minute"), "{said}");
}
