//! The name server as `dig` sees it, where Debian's `bind9-dnsutils` is installed.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::sync::Arc;

use certs::dns::{Limits, Server, Sockets, ZoneSettings};
use certs::{DnsChallenge, SystemClock};
use tokio::sync::watch;

const CHALLENGE: &str = "_acme-challenge.n.example.org";

fn bind() -> (SocketAddr, Sockets) {
    let bound = (0..100).find_map(|_| {
        let tcp = TcpListener::bind("127.0.0.1:0").ok()?;
        let address = tcp.local_addr().ok()?;
        let udp = vec![UdpSocket::bind(address).ok()?];
        let tcp = vec![tcp];
        Some((address, Sockets { udp, tcp }))
    });
    bound.expect("a port is free")
}

async fn dig(at: SocketAddr, words: &str) -> Option<String> {
    let port = at.port().to_string();
    let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
    let run = move || {
        Command::new("dig")
            .args(["@127.0.0.1", "-p", &port, "+norec", "+time=10", "+tries=1"])
            .args(words)
            .output()
    };
    let output = tokio::task::spawn_blocking(run)
        .await
        .expect("no panic")
        .ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn every_kind_of_answer_is_understood() {
    let zone = ZoneSettings {
        origin: "n.example.org".into(),
        hosts: vec![
            "n.example.org".into(),
            "*.n.example.org".into(),
            "x.deep.n.example.org".into(),
        ],
        addresses: vec![
            [192, 0, 2, 1].into(),
            "2001:db8::1".parse().expect("an address"),
        ],
        servers: Vec::new(),
        issuers: vec!["letsencrypt.org".into()],
    };
    let server = Server::new(vec![zone], Limits::default(), SystemClock).expect("a good zone");
    let server = Arc::new(server);
    for number in 0..16 {
        let value = format!("value-{number:037}");
        server
            .present(CHALLENGE, &value)
            .await
            .expect("it is in the zone");
    }
    let (at, sockets) = bind();
    let (_stop, stopped) = watch::channel(false);
    let served = tokio::spawn(server.serve(sockets, stopped));

    let (ok, none) = ("status: NOERROR", "ANSWER: 0, AUTHORITY: 1");
    let soa = "\tSOA\tns.n.example.org. hostmaster.n.example.org.";
    for (words, expected) in [
        ("n.example.org SOA", &[ok, "flags: qr aa;", soa][..]),
        (
            "n.example.org NS +noedns",
            &[
                ok,
                "\tNS\tns.n.example.org.",
                "ns.n.example.org.\t300\tIN\tA\t192.0.2.1",
                "ADDITIONAL: 2",
            ],
        ),
        ("n.example.org CAA", &[ok, "0 issue \"letsencrypt.org\""]),
        (
            "p-c-http-1.n.example.org A",
            &[
                ok,
                "flags: qr aa;",
                "p-c-http-1.n.example.org. 300 IN\tA\t192.0.2.1",
            ],
        ),
        (
            "p-c-http-1.n.example.org AAAA",
            &[ok, "\tAAAA\t2001:db8::1"],
        ),
        (
            "P-c-HTTP-1.n.Example.org A",
            &["P-c-HTTP-1.n.Example.org. 300 IN\tA"],
        ),
        ("p-c-http-1.n.example.org MX", &[ok, none, soa]),
        ("deep.n.example.org A", &[ok, none, soa]),
        (
            "y.deep.n.example.org A",
            &["status: NXDOMAIN", "flags: qr aa;", none, soa],
        ),
        (
            "y.deep.n.example.org A +tcp",
            &["status: NXDOMAIN", none, "(TCP)"],
        ),
        (
            "n.example.org ANY +notcp",
            &[ok, "\tHINFO\t\"RFC8482\" \"\"", "ANSWER: 1,"],
        ),
        ("example.org A", &["status: REFUSED", "flags: qr;"]),
        (
            "www.example.com A +rec",
            &[
                "status: REFUSED",
                "flags: qr rd;",
                "recursion requested but not available",
            ],
        ),
        ("n.example.org AXFR", &["Transfer failed."]),
        ("version.bind TXT CH", &["status: REFUSED"]),
        (
            "n.example.org SOA +opcode=notify",
            &["status: REFUSED", "opcode: NOTIFY"],
        ),
        (
            "n.example.org SOA +opcode=update",
            &["status: REFUSED", "opcode: UPDATE"],
        ),
        (
            "n.example.org SOA +opcode=status",
            &["status: NOTIMP", "opcode: STATUS"],
        ),
        ("n.example.org SOA +header-only", &["status: FORMERR"]),
        (
            "n.example.org A +edns=1 +noednsnegotiation",
            &["status: BADVERS", "EDNS: version: 0"],
        ),
        (
            "n.example.org A +bufsize=4096 +dnssec",
            &[ok, "EDNS: version: 0, flags: do; udp: 1232"],
        ),
        (
            "n.example.org A +ednsopt=100:abcd +nsid +cookie",
            &[ok, "ANSWER: 1,"],
        ),
        ("n.example.org A +noedns", &[ok, "ADDITIONAL: 0"]),
        // 16 values fit into 1,232 bytes, and not into 512.
        (
            "_acme-challenge.n.example.org TXT +bufsize=1232 +ignore",
            &[ok, "ANSWER: 16,", "(UDP)"],
        ),
        (
            "_acme-challenge.n.example.org TXT +noedns +ignore",
            &[ok, "flags: qr aa tc;", "ANSWER: 0,"],
        ),
        (
            "_acme-challenge.n.example.org TXT +noedns",
            &["Truncated, retrying in TCP mode", "ANSWER: 16,", "(TCP)"],
        ),
    ] {
        let Some(said) = dig(at, words).await else {
            eprintln!("dig is not installed: not tested");
            return;
        };
        for words_of in expected {
            // dig pads names with tabs or spaces as they are long.
            let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(
                flat(&said).contains(&flat(words_of)),
                "{words}: no `{words_of}` in {said}"
            );
        }
        assert!(
            !said.contains("WARNING: Message parser reports"),
            "{words}: {said}"
        );
        assert!(!said.contains("extra bytes"), "{words}: {said}");
    }
    served.abort();
}
