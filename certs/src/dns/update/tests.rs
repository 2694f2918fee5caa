use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::OpCode;

use super::*;
use crate::clock::SystemClock;
use crate::dns::scripted::{Scripted, reply};

const SECRET: &str = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlYw==";
const CHALLENGE: &str = "_acme-challenge.n.example.test";

fn key(algorithm: &str, secret: &str) -> TsigKey {
    let text =
        format!("key \"k.test\" {{\n\talgorithm {algorithm};\n\tsecret \"{secret}\";\n}};\n");
    TsigKey::parse(&text).unwrap()
}

#[test]
fn keys_are_read_as_they_are_written() {
    let secret = "aGVsbG8=";
    for (text, words) in [
        (
            format!("# made today\nkey \"k\" {{ algorithm HMAC-SHA512; secret \"{secret}\"; }};"),
            "",
        ),
        (
            format!("key k.example. {{ algorithm hmac-sha256; secret {secret}; }};"),
            "",
        ),
        (
            format!("algorithm hmac-sha256; secret {secret};"),
            "key is missing",
        ),
        (
            "key k { algorithm hmac-sha256; };".to_owned(),
            "secret is missing",
        ),
        (
            "key k { secret aGVsbG8=; };".to_owned(),
            "algorithm is missing",
        ),
        (
            format!("key k {{ algorithm hmac-md5; secret {secret}; }};"),
            "`hmac-md5` is not supported",
        ),
        (
            "key k { algorithm hmac-sha256; secret \"%%\"; };".to_owned(),
            "not base64",
        ),
        (
            format!("key a..b {{ algorithm hmac-sha256; secret {secret}; }};"),
            "not a name of a key",
        ),
        ("x".repeat(5_000), "longer than"),
        (String::new(), "key is missing"),
    ] {
        match TsigKey::parse(&text) {
            Ok(_) => assert!(words.is_empty(), "{text} is not refused"),
            Err(error) => {
                assert!(
                    !words.is_empty() && error.to_string().contains(words),
                    "{text}: {error}"
                );
            }
        }
    }
}

/// A real name server, where Debian's is installed, with one zone that a key may update.
struct Knot {
    process: Child,
    address: SocketAddr,
    _home: tempfile::TempDir,
}

impl Knot {
    fn start() -> Option<Knot> {
        let program = ["/usr/sbin/knotd", "/usr/bin/knotd"];
        let program = program.into_iter().find(|path| Path::new(path).exists())?;
        let home = tempfile::tempdir().unwrap();
        let at = home.path().display();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let port = address.port();
        std::fs::write(
            home.path().join("zone"),
            "$ORIGIN example.test.\n$TTL 60\n@ SOA ns hostmaster 1 3600 600 604800 60\n@ NS ns\nns A 127.0.0.1\n",
        )
        .unwrap();
        let settings = format!(
            "server:\n  rundir: \"{at}\"\n  listen: 127.0.0.1@{port}\n\
             database:\n  storage: \"{at}\"\n\
             key:\n  - id: k.test\n    algorithm: hmac-sha256\n    secret: {SECRET}\n  \
               - id: long.test\n    algorithm: hmac-sha512\n    secret: {SECRET}\n\
             acl:\n  - id: updates\n    key: [k.test, long.test]\n    action: update\n    \
                 update-type: TXT\n    update-owner: name\n    update-owner-match: sub\n    \
                 update-owner-name: [n]\n\
             zone:\n  - domain: example.test\n    storage: \"{at}\"\n    file: zone\n    acl: updates\n    \
                 zonefile-sync: -1\n"
        );
        let file = home.path().join("knot.conf");
        std::fs::write(&file, settings).unwrap();
        let process = Command::new(program)
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Knot {
            process,
            address,
            _home: home,
        })
    }

    async fn ready(&mut self) {
        let asked = question(&name("example.test").unwrap(), RecordType::SOA);
        for _ in 0..600 {
            if ask(self.address, &asked, Duration::from_secs(1))
                .await
                .is_ok()
            {
                return;
            }
            assert!(self.process.try_wait().unwrap().is_none(), "it ended");
            sleep(Duration::from_millis(50)).await;
        }
        panic!("it does not answer");
    }

    fn update(&self, zone: Option<&str>, key: Option<TsigKey>) -> Update {
        Update::new(vec![self.address], zone, key, SystemClock).unwrap()
    }

    async fn texts(&self) -> usize {
        let asked = question(&name(CHALLENGE).unwrap(), RecordType::TXT);
        let answer = ask(self.address, &asked, PATIENCE).await.unwrap();
        answer.answers.len()
    }
}

impl Drop for Knot {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it may have ended
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn a_real_server_takes_challenges_and_gives_them_back() {
    let Some(mut knot) = Knot::start() else {
        eprintln!("knot is not installed: not tested");
        return;
    };
    knot.ready().await;
    let way = knot.update(None, Some(key("hmac-sha256", SECRET)));
    way.present(CHALLENGE, "one").await.unwrap();
    way.present("_ACME-CHALLENGE.n.example.test.", "two")
        .await
        .unwrap();
    way.present(CHALLENGE, "two").await.unwrap();
    assert_eq!(knot.texts().await, 2);
    way.withdraw(CHALLENGE, "one").await.unwrap();
    way.withdraw(CHALLENGE, "never there").await.unwrap();
    assert_eq!(knot.texts().await, 1);
    // With the zone said, and a longer hash.
    let text = format!("key long.test {{ algorithm hmac-sha512; secret {SECRET}; }};");
    let long = TsigKey::parse(&text).unwrap();
    let way = knot.update(Some("example.test"), Some(long));
    way.withdraw(CHALLENGE, "two").await.unwrap();
    assert_eq!(knot.texts().await, 0);

    for (zone, key, at, words) in [
        (
            None,
            Some(key("hmac-sha256", "b3RoZXI=")),
            CHALLENGE,
            ": it does not know the key",
        ),
        (
            None,
            Some(key("hmac-sha256", SECRET)),
            "www.example.test",
            "or it may not update this name",
        ),
        (
            None,
            None,
            CHALLENGE,
            ": somebody without a key may not update",
        ),
        (
            None,
            Some(key("hmac-sha256", SECRET)),
            "a.example.org",
            "has no zone for it",
        ),
        (
            Some("example.org"),
            None,
            CHALLENGE,
            "not in the zone example.org",
        ),
        (
            Some("n.example.test"),
            Some(key("hmac-sha256", SECRET)),
            CHALLENGE,
            "answers Not authorized",
        ),
    ] {
        let error = knot
            .update(zone, key)
            .present(at, "v")
            .await
            .expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
        assert!(!error.is_passing, "{error}");
    }
    // A clock that is an hour off.
    let clock = || std::time::SystemTime::now() + Duration::from_secs(3_600);
    let signer = Some(key("hmac-sha256", SECRET));
    let way = Update::new(vec![knot.address], None, signer, clock).unwrap();
    let error = way.present(CHALLENGE, "v").await.expect_err("out of time");
    assert!(
        error.to_string().contains("its clock and this one differ"),
        "{error}"
    );
    assert_eq!(knot.texts().await, 0, "nothing of it came in");
}

/// A server that says yes to every update, as this tells it to, and shows the record from the
/// `shown`-th look on.
async fn yes(shown: usize, transport: Option<Transport>) -> Scripted {
    let looks = AtomicUsize::new(0);
    let script = move |bytes: &[u8], over: Transport| {
        if transport.is_some_and(|only| only != over) {
            return None;
        }
        let asked = Message::from_vec(bytes).ok()?;
        let mut reply = reply(&asked);
        if asked.metadata.op_code == OpCode::Query {
            reply.metadata.authoritative = true;
            let text = TXT::from_bytes(vec![b"split ", b"value"]);
            let at = asked.queries[0].name().clone();
            if looks.fetch_add(1, Ordering::SeqCst) >= shown {
                reply.add_answer(Record::from_rdata(at, 1, RData::TXT(text)));
            }
        }
        reply.to_vec().ok()
    };
    Scripted::start(([127, 0, 0, 1], 0).into(), Arc::new(script))
        .await
        .unwrap()
}

fn way(servers: &[&Scripted], key: Option<TsigKey>) -> Update {
    let servers = servers.iter().map(|server| server.address).collect();
    Update::new(servers, Some("example.test"), key, SystemClock).unwrap()
}

#[tokio::test]
async fn every_server_is_waited_for() {
    let (first, slow) = (yes(0, None).await, yes(1, None).await);
    way(&[&first, &slow], None)
        .present(CHALLENGE, "split value")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_server_without_tcp_is_asked_over_udp() {
    let server = yes(0, Some(Transport::Udp)).await;
    way(&[&server], None)
        .present(CHALLENGE, "split value")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_record_that_never_shows_is_not_waited_for_for_ever() {
    let server = yes(usize::MAX, None).await;
    let way = way(&[&server], None).with_patience(Duration::from_secs(1));
    let error = way
        .present(CHALLENGE, "split value")
        .await
        .expect_err("never");
    assert!(
        error
            .to_string()
            .contains("does not show the record after 1 s"),
        "{error}"
    );
    assert!(error.is_passing);
}

/// Somebody in between can say yes, but not sign it.
#[tokio::test]
async fn a_yes_without_a_signature_is_none() {
    let server = yes(0, None).await;
    let way = way(&[&server], Some(key("hmac-sha256", SECRET)));
    let error = way
        .present(CHALLENGE, "split value")
        .await
        .expect_err("not signed");
    assert!(
        error.to_string().contains("is not signed with the key"),
        "{error}"
    );
}

#[tokio::test]
async fn values_and_names_are_looked_at_first() {
    let server = yes(0, None).await;
    for (at, value, words) in [
        ("a..b", "v", "is not a name"),
        (CHALLENGE, "", "1 to 255 bytes"),
        ("a.example.org", "v", "not in the zone"),
    ] {
        let error = way(&[&server], None)
            .present(at, value)
            .await
            .expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
    }
    let nobody = Update::new(Vec::new(), Some("example.test"), None, SystemClock).unwrap();
    let error = nobody.present(CHALLENGE, "v").await.expect_err("nobody");
    assert!(error.to_string().contains("no server is named"), "{error}");
}
