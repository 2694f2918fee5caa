//! A name server beside the proxy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use certs::DnsChallenge;
use certs::dns::answer::Transport;
use certs::dns::ask::{ask_over, question};
use certs::dns::hickory_proto::rr::RecordType;
use certs::dns::zone::name;
use certs::dns::{Limits, Server, ZoneSettings};

use crate::rig::{Rig, eventually};

const PATIENCE: Duration = Duration::from_secs(30);
const CHALLENGE: &str = "_acme-challenge.node.test";

fn server() -> Arc<Server> {
    let zone = ZoneSettings {
        origin: "node.test".into(),
        hosts: vec!["*.node.test".into()],
        addresses: vec![[192, 0, 2, 1].into()],
        servers: Vec::new(),
        issuers: Vec::new(),
    };
    let server = Server::new(vec![zone], Limits::default(), certs::SystemClock);
    Arc::new(server.expect("a good zone"))
}

/// Answers of one transport without a pause, none of which may be missing.
async fn load(at: SocketAddr, transport: Transport, stop: &AtomicBool, answered: &AtomicUsize) {
    let asked = question(&name(CHALLENGE).expect("a name"), RecordType::TXT);
    while !stop.load(Ordering::SeqCst) {
        let answer = ask_over(transport, at, &asked, PATIENCE).await;
        let answer = answer.expect("no question is lost");
        assert_eq!(answer.answers.len(), 1);
        answered.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn names_are_answered_while_a_successor_takes_over() {
    let server = server();
    let shown = server.present(CHALLENGE, "value").await;
    shown.expect("it is in the zone");
    let rig = Rig::with(|config| {
        config.dns = Some(proxy::Dns {
            listen: vec![([127, 0, 0, 1], 0).into()],
            server: server.clone(),
        });
    })
    .await;
    let at = rig.bound().dns[0];
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let story = async {
        let enough = || {
            let from = answered.load(Ordering::SeqCst);
            let answered = &answered;
            eventually(move || (answered.load(Ordering::SeqCst) >= from + 100).then_some(()))
        };
        enough().await;
        for _ in 0..3 {
            rig.succeed(async || enough().await).await;
        }
        stop.store(true, Ordering::SeqCst);
    };
    tokio::join!(
        load(at, Transport::Udp, &stop, &answered),
        load(at, Transport::Tcp, &stop, &answered),
        story,
    );
    assert_eq!(rig.bound().dns[0], at, "the address is the same");
}

#[tokio::test]
async fn questions_are_counted_among_the_metrics() {
    let rig = Rig::with(|config| {
        config.dns = Some(proxy::Dns {
            listen: vec![([127, 0, 0, 1], 0).into()],
            server: server(),
        });
    })
    .await;
    let asked = question(&name("x.node.test").expect("a name"), RecordType::A);
    let answer = ask_over(Transport::Udp, rig.bound().dns[0], &asked, PATIENCE).await;
    assert_eq!(answer.expect("an answer").answers.len(), 1);
    let counted = r#"hoody_proxy_dns_queries_total{code="NOERROR",type="A"}"#;
    rig.comes_to(counted, 1.0).await;
}
