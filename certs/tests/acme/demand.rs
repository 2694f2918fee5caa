//! Domains of others.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use certs::Acme;
use certs::acme::{Challenges, Entitled, Wanted};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::rig::{Rig, holding};
use crate::wire::problem;

/// Longer than pebble takes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

const SOMEBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// A client that is not allowed to make anybody ask.
const GREEDY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 66));

/// Names that are served here, and how often it was asked.
#[derive(Default)]
struct Aliases {
    names: Mutex<HashSet<String>>,
    asked: AtomicUsize,
}

impl Aliases {
    fn of(names: &[&str]) -> Arc<Aliases> {
        Arc::new(Aliases {
            names: Mutex::new(names.iter().map(|&name| name.to_owned()).collect()),
            asked: AtomicUsize::new(0),
        })
    }
}

#[async_trait]
impl Entitled for Aliases {
    fn may_be(&self, _: &str) -> bool {
        true
    }

    async fn entitled(&self, name: &str, client: Option<IpAddr>) -> Result<(), String> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if client == Some(GREEDY) {
            return Err("it asks for too much".to_owned());
        }
        if name.ends_with(".silent.example") {
            std::future::pending::<()>().await; // its name servers do not answer
        }
        match self.names.lock().unwrap().contains(name) {
            true => Ok(()),
            false => Err("no alias has this name".to_owned()),
        }
    }
}

/// Somebody to whom `acme`'s answers are given out, on two ports.
struct Doors {
    http: TcpListener,
    tls: TcpListener,
}

impl Doors {
    async fn open() -> Doors {
        Doors {
            http: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            tls: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        }
    }

    fn ports(&self) -> (u16, u16) {
        let port = |it: &TcpListener| it.local_addr().unwrap().port();
        (port(&self.http), port(&self.tls))
    }

    /// Answer for a node; on the first port or only on the second.
    fn answer(self, challenges: &Challenges, is_http_open: bool) {
        let answers = challenges.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = self.http.accept().await {
                let mut head = vec![0; 4096];
                let read = socket.read(&mut head).await.unwrap_or(0);
                let head = String::from_utf8_lossy(&head[..read]).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default();
                let host = head
                    .lines()
                    .find_map(|line| line.strip_prefix("Host: "))
                    .unwrap_or_default();
                let host = host.split(':').next().unwrap_or_default();
                let token = path.strip_prefix("/.well-known/acme-challenge/");
                let answer = token.and_then(|token| answers.http(host, token));
                let answer = match answer.filter(|_| is_http_open) {
                    Some(text) => format!(
                        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}",
                        text.len()
                    ),
                    None => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
                };
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Answers(challenges.clone())));
        config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((socket, _)) = self.tls.accept().await {
                let _ = acceptor.accept(socket).await;
            }
        });
    }
}

#[derive(Debug)]
struct Answers(Challenges);

impl ResolvesServerCert for Answers {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.alpn(hello.server_name()?)
    }
}

/// A rig whose node has nothing of its own to order, and answers.
async fn rig(is_http_open: bool) -> (Rig, Arc<Acme>) {
    let doors = Doors::open().await;
    let (http, tls) = doors.ports();
    let mut rig = Rig::with(|setup| (setup.http, setup.tls) = (http, tls)).await;
    rig.settings.targets.clear();
    let node = rig.node();
    doors.answer(node.challenges(), is_http_open);
    (rig, node)
}

async fn landed(wanted: Wanted) {
    match wanted {
        Wanted::Coming(flight) => assert!(flight.landed(PATIENCE).await, "it takes too long"),
        other => panic!("not on its way: {other:?}"),
    }
}

#[tokio::test]
async fn a_domain_that_leads_here_has_a_certificate_once_somebody_asks() {
    let (rig, node) = rig(true).await;
    node.plug(Aliases::of(&["shop.example.com"]));
    node.start().unwrap();
    // However many ask at once.
    let wishes: Vec<_> = (0..100).map(|_| node.want("SHOP.example.com.")).collect();
    for wish in wishes {
        landed(wish).await;
    }
    rig.takes(&node, "shop.example.com").await.unwrap();
    assert!(matches!(node.want("shop.example.com"), Wanted::Ready));
    assert_eq!(rig.wire.orders(), 1);
    let again = rig.node();
    assert!(
        again.resolver().find("shop.example.com").is_some(),
        "it is kept"
    );
}

#[tokio::test]
async fn where_one_port_is_closed_the_other_is_tried_next() {
    let (rig, node) = rig(false).await;
    node.plug(Aliases::of(&["shop.example.com"]));
    node.start().unwrap();
    landed(node.want("shop.example.com")).await;
    let error = holding(&node, "shop.example.com").error.unwrap();
    assert!(error.contains("was not found to be ours"), "{error}");
    assert!(matches!(
        node.want("shop.example.com"),
        Wanted::Refused(Some(_))
    ));
    rig.clock.advance(Duration::from_secs(600));
    landed(node.want("shop.example.com")).await;
    rig.takes(&node, "shop.example.com").await.unwrap();
}

#[tokio::test]
async fn an_operator_who_mended_a_domain_has_it_tried_at_once() {
    let (rig, node) = rig(false).await;
    node.plug(Aliases::of(&["shop.example.com"]));
    node.start().unwrap();
    landed(node.want("shop.example.com")).await;
    let wanted = node.want("shop.example.com");
    assert!(matches!(wanted, Wanted::Refused(Some(_))), "{wanted:?}");
    // As `hoody certs renew` does, from a process of its own.
    rig.node().hasten("shop.example.com").unwrap();
    node.tend().await;
    rig.takes(&node, "shop.example.com").await.unwrap();
    assert_eq!(rig.wire.orders(), 2);
}

#[tokio::test]
async fn a_visitor_too_is_let_try_what_the_operator_hastened() {
    let (rig, node) = rig(false).await;
    node.plug(Aliases::of(&["shop.example.com"]));
    node.start().unwrap();
    landed(node.want("shop.example.com")).await;
    node.hasten("shop.example.com").unwrap();
    node.refresh().unwrap();
    landed(node.want("shop.example.com")).await;
    rig.takes(&node, "shop.example.com").await.unwrap();
}

#[tokio::test]
async fn a_hastened_domain_that_fails_again_is_tried_once() {
    let (rig, node) = rig(false).await;
    node.plug(Aliases::of(&["shop.example.com"]));
    rig.wire.decide(|_, request| match request.uri().path() {
        "/order-plz" => problem(403, "rejectedIdentifier", None),
        _ => crate::wire::Fate::Pass,
    });
    node.start().unwrap();
    landed(node.want("shop.example.com")).await;
    node.hasten("shop.example.com").unwrap();
    node.tend().await;
    rig.clock.advance(Duration::from_secs(24 * 3600));
    let before = rig.wire.requests();
    node.tend().await;
    assert_eq!(rig.wire.requests(), before, "nobody asked again");
}

#[tokio::test]
async fn what_failed_and_is_asked_for_no_more_is_forgotten_with_its_key() {
    let (rig, node) = rig(true).await;
    node.plug(Aliases::of(&["shop.example.com"]));
    // The line is cut once the order is made: it could go on, so it is kept.
    rig.wire.decide(
        |_, request| match request.uri().path().starts_with("/chalZ/") {
            true => crate::wire::Fate::Fail,
            false => crate::wire::Fate::Pass,
        },
    );
    node.start().unwrap();
    landed(node.want("shop.example.com")).await;
    let root = std::fs::read_dir(rig.store.path()).unwrap().next().unwrap();
    let root = root.unwrap().path();
    let kept = || {
        let count = |name| std::fs::read_dir(root.join(name)).unwrap().count();
        [count("certificates"), count("orders"), count("leases")]
    };
    assert_eq!(kept(), [1, 1, 0]);
    rig.clock.advance(Duration::from_secs(7 * 24 * 3600));
    node.tend().await;
    assert_eq!(kept(), [1, 1, 0], "its next try is not a week ago");
    rig.clock.advance(Duration::from_secs(3600));
    node.tend().await;
    assert_eq!(kept(), [0, 0, 0]);
    assert!(certs::Holdings::holdings(&*node).is_empty());
}

#[tokio::test]
async fn whoever_walks_through_names_makes_no_order() {
    let (rig, node) = rig(true).await;
    let aliases = Aliases::of(&["shop.example.com"]);
    assert!(
        matches!(node.want("shop.example.com"), Wanted::Refused(None)),
        "nobody says whose domains are served"
    );
    node.plug(aliases.clone());
    node.start().unwrap();
    for number in 0..1000 {
        if let Wanted::Coming(flight) = node.want(&format!("www{number}.scanned.example")) {
            flight.landed(PATIENCE).await;
        }
    }
    let asked = aliases.asked.load(Ordering::SeqCst);
    assert_eq!(asked, 1000);
    for number in 0..1000 {
        let wanted = node.want(&format!("www{number}.scanned.example"));
        assert!(
            matches!(wanted, Wanted::Refused(Some(_))),
            "it is remembered"
        );
    }
    // What could never be is not even asked about.
    for name in [
        "",
        ".",
        "a..b",
        "-a.example",
        "a b.example",
        "../../etc",
        "hoody.example",
        "x.api.hoody.example",
        "*.shop.example.com",
        &"a.".repeat(200),
    ] {
        assert!(matches!(node.want(name), Wanted::Refused(None)), "{name}");
    }
    assert_eq!(aliases.asked.load(Ordering::SeqCst), asked);
    assert_eq!(rig.wire.requests(), 0, "the directory heard nothing of it");
    landed(node.want("shop.example.com")).await;
    rig.takes(&node, "shop.example.com").await.unwrap();
}

#[tokio::test]
async fn names_that_nobody_answers_for_hold_up_no_order() {
    let (rig, node) = rig(true).await;
    let aliases = Aliases::of(&["shop.example.com"]);
    node.plug(aliases.clone());
    node.start().unwrap();
    // More handshakes than names can be on their way.
    let mut strangers = tokio::task::JoinSet::new();
    for number in 0..300 {
        let node = node.clone();
        strangers.spawn(async move {
            node.wish(&format!("a{number}.silent.example"), SOMEBODY)
                .await
        });
    }
    // And more flights than orders are made at once: one after the other, their questions would
    // take longer than anybody waits here.
    for number in 0..200 {
        let wanted = node.want(&format!("b{number}.silent.example"));
        assert!(matches!(wanted, Wanted::Coming(_)), "{wanted:?}");
    }
    while aliases.asked.load(Ordering::SeqCst) < 500 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    landed(node.wish("shop.example.com", SOMEBODY).await).await;
    rig.takes(&node, "shop.example.com").await.unwrap();
}

#[tokio::test]
async fn a_client_that_asks_for_too_much_spoils_nothing_for_others() {
    let (_rig, node) = rig(true).await;
    node.plug(Aliases::of(&["shop.example.com"]));
    node.start().unwrap();
    let refused = node.wish("shop.example.com", GREEDY).await;
    assert!(matches!(refused, Wanted::Refused(_)), "{refused:?}");
    landed(node.wish("shop.example.com", SOMEBODY).await).await;
    assert!(node.resolver().find("shop.example.com").is_some());
    let ready = node.wish("shop.example.com", GREEDY).await;
    assert!(matches!(ready, Wanted::Ready), "it costs no question");
}

#[tokio::test]
async fn orders_are_bounded_by_the_hour_and_by_registered_domain() {
    let doors = Doors::open().await;
    let (http, tls) = doors.ports();
    let mut rig = Rig::with(|setup| (setup.http, setup.tls) = (http, tls)).await;
    rig.settings.targets.clear();
    rig.settings.limits.orders_per_hour = 3;
    rig.settings.limits.orders_per_domain = 2;
    let node = rig.node();
    doors.answer(node.challenges(), true);
    node.plug(Aliases::of(&[
        "a.one.com",
        "b.one.com",
        "c.one.com",
        "two.com",
        "three.com",
    ]));
    node.start().unwrap();
    for (name, has) in [
        ("a.one.com", true),
        ("b.one.com", true),
        ("c.one.com", false),
        ("two.com", true),
        ("three.com", false),
    ] {
        landed(node.want(name)).await;
        assert_eq!(node.resolver().find(name).is_some(), has, "{name}");
        let root = std::fs::read_dir(rig.store.path()).unwrap().next().unwrap();
        for kept in ["leases", "orders"] {
            let left = root.as_ref().unwrap().path().join(kept);
            let left = std::fs::read_dir(left).unwrap().count();
            assert_eq!(left, 0, "{kept} after {name}");
        }
    }
    rig.clock.advance(Duration::from_secs(3600));
    landed(node.want("three.com")).await;
    assert!(node.resolver().find("three.com").is_some(), "another hour");
    assert!(
        matches!(node.want("c.one.com"), Wanted::Refused(Some(_))),
        "not another week"
    );
}

#[tokio::test]
async fn a_domain_that_leads_elsewhere_by_now_is_not_renewed() {
    let (rig, node) = rig(true).await;
    let aliases = Aliases::of(&["shop.example.com", "gone.example.com"]);
    node.plug(aliases.clone());
    node.start().unwrap();
    for name in ["shop.example.com", "gone.example.com"] {
        landed(node.want(name)).await;
        rig.takes(&node, name).await.unwrap();
    }
    aliases.names.lock().unwrap().remove("gone.example.com");
    let before = rig.wire.orders();
    for name in ["shop.example.com", "gone.example.com"] {
        node.hasten(name).unwrap();
    }
    node.tend().await;
    assert_eq!(rig.wire.orders(), before + 1);
    let gone = holding(&node, "gone.example.com");
    assert!(gone.error.unwrap().contains("no alias"), "it says why");
    assert!(
        node.resolver().find("gone.example.com").is_some(),
        "what there is stays for now"
    );
}

#[tokio::test]
async fn an_answer_is_given_for_its_name_and_token_alone() {
    let (rig, node) = rig(true).await;
    // Where nothing is under way, nothing is answered; and no name is a path.
    for token in ["", "..", "../account.json", "x", "%2e%2e", &"a".repeat(300)] {
        assert_eq!(
            node.challenges().http("shop.example.com", token),
            None,
            "{token}"
        );
        assert!(node.challenges().alpn(token).is_none(), "{token}");
    }
    // A name that is in the middle of its order.
    let laid = Arc::new(Mutex::new(None));
    let (seen, challenges, store) = (
        laid.clone(),
        node.challenges().clone(),
        rig.store.path().to_owned(),
    );
    rig.wire.decide(move |_, request| {
        if !request.uri().path().starts_with("/chalZ/") {
            return crate::wire::Fate::Pass;
        }
        let directory = std::fs::read_dir(&store).unwrap().next().unwrap().unwrap();
        let mut files = std::fs::read_dir(directory.path().join("challenges")).unwrap();
        let file = files
            .next()
            .unwrap()
            .unwrap()
            .file_name()
            .into_string()
            .unwrap();
        let token = file.strip_prefix("http-").unwrap();
        *seen.lock().unwrap() = Some([
            challenges.http("shop.example.com", token).is_some(),
            challenges.http("other.example.com", token).is_some(),
            challenges.http("shop.example.com", &token[1..]).is_some(),
        ]);
        problem(403, "unauthorized", None)
    });
    node.plug(Aliases::of(&["shop.example.com"]));
    node.start().unwrap();
    landed(node.want("shop.example.com")).await;
    assert_eq!(*laid.lock().unwrap(), Some([true, false, false]));
}
