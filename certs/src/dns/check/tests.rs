use std::sync::Arc;

use hickory_proto::rr::Record;
use hickory_proto::rr::rdata::CAA;
use tokio::sync::watch;

use super::*;
use crate::clock::SystemClock;
use crate::dns::limit::Limits;
use crate::dns::scripted::{Provider, Scripted, address, alias, ns, whole};
use crate::dns::server::{Server, Sockets};

const ROOT: &str = "127.0.54.1";
const PROVIDER: &str = "127.0.54.2";
const NODE: &str = "127.0.54.3";
/// Nobody listens there.
const NOBODY: &str = "127.0.54.9";
const ZONE: &str = "n.containers.example.org";
const NAMESERVER: &str = "ns.n.containers.example.org";

/// What can be wrong.
struct Story {
    provider: Provider,
    root: Provider,
    settings: ZoneSettings,
    /// What the node really serves, where it differs from the settings.
    served: Option<ZoneSettings>,
    is_tcp_open: bool,
    is_https_open: bool,
    issuer: Option<&'static str>,
}

fn hosts() -> Vec<String> {
    [
        "api.example.org",
        "*.api.example.org",
        ZONE,
        "*.n.containers.example.org",
    ]
    .map(str::to_owned)
    .into()
}

impl Story {
    /// Everything is as it should be.
    fn right() -> Story {
        Story {
            root: Provider {
                zone: ".".into(),
                records: Vec::new(),
                cuts: vec![ns("example.org", "a.provider.net")],
                glue: vec![address("a.provider.net", PROVIDER)],
            },
            provider: Provider {
                zone: "example.org".into(),
                records: vec![
                    address("api.example.org", NODE),
                    address("*.api.example.org", NODE),
                    address("other.example.org", NODE),
                ],
                cuts: vec![ns(ZONE, NAMESERVER)],
                glue: vec![address(NAMESERVER, NODE)],
            },
            settings: ZoneSettings {
                origin: ZONE.into(),
                hosts: hosts(),
                addresses: vec![NODE.parse().unwrap()],
                servers: Vec::new(),
                issuers: Vec::new(),
            },
            served: None,
            is_tcp_open: true,
            is_https_open: true,
            issuer: None,
        }
    }

    /// What is found.
    async fn check(self) -> Vec<Finding> {
        let mut tries = 0;
        let (root, provider, udp, tcp) = loop {
            tries += 1;
            let root = Scripted::start(place(ROOT, 0), self.root.clone().script())
                .await
                .unwrap();
            let port = root.address.port();
            let script = self.provider.clone().script();
            let provider = Scripted::start(place(PROVIDER, port), script).await;
            let udp = std::net::UdpSocket::bind(place(NODE, port));
            let tcp = std::net::TcpListener::bind(place(NODE, port));
            match (provider, udp, tcp) {
                (Ok(provider), Ok(udp), Ok(tcp)) => break (root, provider, udp, tcp),
                _ => assert!(tries < 100, "no port is free at all addresses"),
            }
        };
        let port = root.address.port();
        let served = self.served.unwrap_or_else(|| self.settings.clone());
        let server = Server::new(vec![served], Limits::default(), SystemClock).unwrap();
        let sockets = Sockets {
            udp: vec![udp],
            tcp: if self.is_tcp_open {
                vec![tcp]
            } else {
                drop(tcp);
                Vec::new()
            },
        };
        let (_stop, stopped) = watch::channel(false);
        let served = tokio::spawn(Arc::new(server).serve(sockets, stopped));
        let https = std::net::TcpListener::bind(place(NODE, 0)).unwrap();
        let https_port = https.local_addr().unwrap().port();
        let https = self.is_https_open.then_some(https);
        let plan = Plan {
            hosts: hosts(),
            addresses: self.settings.addresses.clone(),
            zones: vec![self.settings],
            ports: vec![https_port],
            issuer: self.issuer.map(str::to_owned),
            roots: vec![ROOT.parse().unwrap()],
            port,
            patience: Duration::from_secs(2),
        };
        let findings = check(&plan).await.unwrap();
        served.abort();
        drop((provider, https));
        findings
    }
}

fn place(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

fn caa(at: &str, tag: &str, issuer: &str) -> Record {
    let mut caa = CAA::new_issue(false, None, Vec::new());
    caa.value = issuer.into();
    caa.tag = tag.to_owned();
    Record::from_rdata(whole(at), 300, RData::CAA(caa))
}

/// The findings hold one of this grade with these words and, if there are any, this record.
fn has(findings: &[Finding], grade: Grade, words: &str, record: &str) {
    let found = findings.iter().any(|finding| {
        finding.grade == grade
            && format!("{}: {}", finding.about, finding.what).contains(words)
            && (record.is_empty() || finding.records.iter().any(|it| it == record))
    });
    assert!(
        found,
        "no finding `{words}` with `{record}` in {findings:#?}"
    );
}

fn worst(findings: &[Finding]) -> Vec<&Finding> {
    findings
        .iter()
        .filter(|it| it.grade != Grade::Good)
        .collect()
}

#[tokio::test]
async fn where_all_is_right_nothing_is_wrong() {
    let mut story = Story::right();
    story.issuer = Some("ca.test");
    let findings = story.check().await;
    assert!(worst(&findings).is_empty(), "{findings:#?}");
    for words in [
        "n.containers.example.org.: it is delegated to ns.n.containers.example.org.",
        "over UDP",
        "over TCP",
        "*.n.containers.example.org: it leads to 127.0.54.3",
        "*.api.example.org: it leads to 127.0.54.3",
        "it takes connections",
    ] {
        has(&findings, Grade::Good, words, "");
    }
}

#[tokio::test]
async fn no_delegation() {
    let mut story = Story::right();
    story.provider.cuts.clear();
    let findings = story.check().await;
    has(
        &findings,
        Grade::Wrong,
        "it is not delegated",
        "n.containers.example.org. 3600 IN NS ns.n.containers.example.org.",
    );
    has(
        &findings,
        Grade::Wrong,
        "it is not delegated",
        "ns.n.containers.example.org. 300 IN A 127.0.54.3",
    );
    has(
        &findings,
        Grade::Wrong,
        "n.containers.example.org: it does not exist",
        "",
    );
}

#[tokio::test]
async fn a_delegation_to_somebody_else() {
    let mut story = Story::right();
    story.provider.cuts = vec![ns(ZONE, "ns.elsewhere.net")];
    let findings = story.check().await;
    has(
        &findings,
        Grade::Wrong,
        "it is delegated to ns.elsewhere.net., so that nobody comes here",
        "n.containers.example.org. 3600 IN NS ns.n.containers.example.org.",
    );
    let mut story = Story::right();
    story.provider.cuts.push(ns(ZONE, "ns.elsewhere.net"));
    let findings = story.check().await;
    has(&findings, Grade::Wrong, "so that only some come here", "");
}

#[tokio::test]
async fn glue_that_is_wrong_or_missing() {
    let mut story = Story::right();
    story.provider.glue = vec![address(NAMESERVER, NOBODY)];
    let findings = story.check().await;
    has(
        &findings,
        Grade::Wrong,
        "ns.n.containers.example.org.: it leads to 127.0.54.9, and this node is at 127.0.54.3",
        "ns.n.containers.example.org. 300 IN A 127.0.54.3",
    );
    has(&findings, Grade::Wrong, "cannot be reached over TCP", "");

    let mut story = Story::right();
    story.provider.glue.clear();
    let findings = story.check().await;
    has(
        &findings,
        Grade::Wrong,
        "(glue), without which nobody finds it",
        "ns.n.containers.example.org. 300 IN A 127.0.54.3",
    );
    has(&findings, Grade::Wrong, "have no address", "");

    let mut story = Story::right();
    story.settings.addresses.push("::1".parse().unwrap());
    let findings = story.check().await;
    has(
        &findings,
        Grade::Doubtful,
        "it leads to 127.0.54.3, and not to ::1",
        "ns.n.containers.example.org. 300 IN AAAA ::1",
    );
}

#[tokio::test]
async fn a_name_server_with_a_name_elsewhere_needs_no_glue() {
    let mut story = Story::right();
    story.settings.servers = vec!["other.example.org".into()];
    story.provider.cuts = vec![ns(ZONE, "other.example.org")];
    story.provider.glue.clear();
    let findings = story.check().await;
    assert!(worst(&findings).is_empty(), "{findings:#?}");
    has(
        &findings,
        Grade::Good,
        "other.example.org.: it leads to 127.0.54.3",
        "",
    );
}

#[tokio::test]
async fn tcp_is_closed() {
    let mut story = Story::right();
    story.is_tcp_open = false;
    let findings = story.check().await;
    has(&findings, Grade::Wrong, "cannot be reached over TCP", "");
    has(&findings, Grade::Good, "over UDP", "");
    let wrong = worst(&findings);
    assert!(
        wrong[0].next.as_deref().unwrap().contains("firewall"),
        "{wrong:#?}"
    );
}

#[tokio::test]
async fn another_server_answers() {
    let mut story = Story::right();
    let mut served = story.settings.clone();
    served.origin = "m.containers.example.org".into();
    story.served = Some(served);
    let findings = story.check().await;
    has(
        &findings,
        Grade::Wrong,
        "it answers Query Refused over UDP, and not for n.containers.example.org.",
        "",
    );
    has(
        &findings,
        Grade::Wrong,
        "where it leads cannot be found out",
        "",
    );
}

#[tokio::test]
async fn a_wildcard_that_is_not_there() {
    let mut story = Story::right();
    let mut served = story.settings.clone();
    served.hosts = vec![ZONE.into()];
    story.served = Some(served);
    let findings = story.check().await;
    has(
        &findings,
        Grade::Wrong,
        "*.n.containers.example.org: it does not exist",
        "*.n.containers.example.org. 300 IN A 127.0.54.3",
    );
}

#[tokio::test]
async fn a_wildcard_that_is_an_alias_or_leads_elsewhere() {
    let mut story = Story::right();
    story.provider.records[1] = alias("*.api.example.org", "cdn.example.net");
    let findings = story.check().await;
    has(
        &findings,
        Grade::Wrong,
        "*.api.example.org: it is an alias (CNAME) of cdn.example.net.",
        "*.api.example.org. 300 IN A 127.0.54.3",
    );

    let mut story = Story::right();
    story.provider.records[0] = address("api.example.org", "192.0.2.1");
    let findings = story.check().await;
    has(
        &findings,
        Grade::Wrong,
        "api.example.org: it leads to 192.0.2.1, and this node is at 127.0.54.3",
        "api.example.org. 300 IN A 127.0.54.3",
    );
}

#[tokio::test]
async fn a_challenge_that_is_looked_for_elsewhere() {
    let mut story = Story::right();
    story
        .provider
        .records
        .push(alias("_acme-challenge.api.example.org", "c.example.net"));
    let findings = story.check().await;
    has(
        &findings,
        Grade::Doubtful,
        "challenges are looked for elsewhere",
        "",
    );
}

#[tokio::test]
async fn who_may_certify() {
    for (records, issuer, is_allowed) in [
        (
            vec![caa("example.org", "issue", "ca.test")],
            "ca.test",
            true,
        ),
        (
            vec![caa("example.org", "issue", "other.test")],
            "ca.test",
            false,
        ),
        // The closest records decide alone.
        (
            vec![
                caa("example.org", "issue", "other.test"),
                caa("api.example.org", "issue", "ca.test"),
            ],
            "ca.test",
            true,
        ),
        (
            vec![caa("example.org", "issuewild", "other.test")],
            "ca.test",
            false,
        ),
        (
            vec![caa("example.org", "iodef", "other.test")],
            "ca.test",
            true,
        ),
    ] {
        let mut story = Story::right();
        story.issuer = Some(issuer);
        story.settings.issuers = vec!["ca.test".into()]; // of the delegated zone
        story.provider.records.extend(records.clone());
        let findings = story.check().await;
        if is_allowed {
            assert!(worst(&findings).is_empty(), "{records:?} {findings:#?}");
        } else {
            has(
                &findings,
                Grade::Wrong,
                "*.api.example.org: the CAA records of example.org. forbid ca.test",
                "",
            );
        }
    }
}

#[tokio::test]
async fn a_port_that_is_closed() {
    let mut story = Story::right();
    story.is_https_open = false;
    let findings = story.check().await;
    has(&findings, Grade::Wrong, "it takes no connections", "");
}

#[tokio::test]
async fn a_world_that_does_not_answer_or_leads_in_circles() {
    let mut story = Story::right();
    story.root.glue = vec![address("a.provider.net", NOBODY)];
    let findings = story.check().await;
    has(
        &findings,
        Grade::Wrong,
        "whether it is delegated cannot be found out: of the name servers of example.org. none has an answer",
        "",
    );

    // The provider sends everybody to itself for ever.
    let mut story = Story::right();
    story.provider.cuts = vec![ns("org", "a.provider.net")];
    let findings = story.check().await;
    has(&findings, Grade::Wrong, "it is not delegated", "");
    // Servers whose names lead to one another have no address.
    let mut story = Story::right();
    story.root.cuts = vec![
        ns("example.org", "a.example.net"),
        ns("example.net", "a.example.org"),
    ];
    story.root.glue.clear();
    let findings = story.check().await;
    has(&findings, Grade::Wrong, "have no address", "");
}
