use std::sync::atomic::{AtomicU64, Ordering};

use hickory_proto::op::Message;
use hickory_proto::rr::RData;

use super::*;
use crate::clock::SystemClock;
use crate::dns::ask::{ask, ask_over, question};

const PATIENCE: Duration = Duration::from_secs(30);

fn settings() -> ZoneSettings {
    ZoneSettings {
        origin: "n.example.com".into(),
        hosts: vec!["n.example.com".into(), "*.n.example.com".into()],
        addresses: vec!["192.0.2.1".parse().unwrap()],
        servers: Vec::new(),
        issuers: Vec::new(),
    }
}

/// A server on the loopback that ends with this.
struct Rig {
    server: Arc<Server>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
}

impl Rig {
    fn start(address: &str, limits: Limits) -> Rig {
        let server = Server::new(vec![settings()], limits, SystemClock).unwrap();
        let server = Arc::new(server);
        // The same port for both: another test may have one of them.
        let (udp, tcp) = (0..100)
            .find_map(|_| {
                let tcp = TcpListener::bind((address, 0)).ok()?;
                let udp = UdpSocket::bind(tcp.local_addr().ok()?).ok()?;
                Some((udp, tcp))
            })
            .expect("some port is free");
        let mut address = tcp.local_addr().unwrap();
        if address.ip().is_unspecified() {
            address.set_ip([127, 0, 0, 1].into());
        }
        let (stop, stopped) = watch::channel(false);
        let sockets = Sockets {
            udp: vec![udp],
            tcp: vec![tcp],
        };
        tokio::spawn(server.clone().serve(sockets, stopped));
        Rig {
            server,
            address,
            stop,
        }
    }

    async fn ask(&self, at: &str, kind: RecordType) -> Message {
        let asked = question(&name(at).unwrap(), kind);
        ask(self.address, &asked, PATIENCE).await.unwrap()
    }

    async fn texts(&self, at: &str) -> Vec<String> {
        let mut texts: Vec<String> = self
            .ask(at, RecordType::TXT)
            .await
            .answers
            .iter()
            .map(|record| match &record.data {
                RData::TXT(text) => String::from_utf8(text.txt_data.concat()).unwrap(),
                other => panic!("{other} is no text"),
            })
            .collect();
        texts.sort();
        texts
    }

    fn counted(&self, name: &str, label: &str) -> f64 {
        let families = self.server.metrics().collect();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.expect("there is such a metric").get_metric().iter();
        metrics
            .filter(|metric| metric.get_label().iter().any(|it| it.value() == label))
            .map(|metric| metric.get_counter().get_value())
            .sum()
    }
}

#[tokio::test]
async fn both_transports_of_both_families_answer() {
    for address in ["127.0.0.1", "::1", "0.0.0.0"] {
        let rig = Rig::start(address, Limits::default());
        for transport in [Transport::Udp, Transport::Tcp] {
            let asked = question(&name("x.n.example.com").unwrap(), RecordType::A);
            let answer = ask_over(transport, rig.address, &asked, PATIENCE)
                .await
                .unwrap();
            assert_eq!(answer.answers.len(), 1, "{address}");
            assert!(answer.metadata.authoritative);
        }
        assert_eq!(rig.counted("dns_queries_total", "A"), 2.0);
    }
}

/// Who asked one address of many takes no answer from another.
#[tokio::test]
async fn the_address_that_was_asked_answers() {
    let rig = Rig::start("0.0.0.0", Limits::default());
    for host in [1, 2, 77] {
        let address = SocketAddr::new([127, 0, 0, host].into(), rig.address.port());
        let asked = question(&name("n.example.com").unwrap(), RecordType::SOA);
        // The socket behind is connected: another address's answer would not come through.
        let answer = ask_over(Transport::Udp, address, &asked, PATIENCE)
            .await
            .unwrap();
        assert_eq!(answer.answers.len(), 1);
    }
}

#[tokio::test]
async fn challenges_come_and_go() {
    let rig = Rig::start("127.0.0.1", Limits::default());
    let at = "_acme-challenge.n.example.com";
    let serial = |answer: Message| match &answer.answers[0].data {
        RData::SOA(soa) => soa.serial,
        other => panic!("{other} is no SOA"),
    };
    let first = serial(rig.ask("n.example.com", RecordType::SOA).await);
    assert!(rig.texts(at).await.is_empty());
    rig.server
        .present("_ACME-challenge.n.Example.com.", "one")
        .await
        .unwrap();
    rig.server.present(at, "two").await.unwrap();
    rig.server.present(at, "two").await.unwrap();
    assert_eq!(rig.texts(at).await, ["one", "two"]);
    let second = serial(rig.ask("n.example.com", RecordType::SOA).await);
    assert!(
        second.wrapping_sub(first).wrapping_sub(1) < u32::MAX / 2,
        "it grows"
    );
    rig.server.withdraw(at, "one").await.unwrap();
    rig.server.withdraw(at, "never there").await.unwrap();
    assert_eq!(rig.texts(at).await, ["two"]);
    rig.server.withdraw(at, "two").await.unwrap();
    assert!(rig.texts(at).await.is_empty());
    // Deep beneath the wildcard, whose other names stay as they were.
    let deep = "_acme-challenge.sub.p-c-exec-1.n.example.com";
    rig.server.present(deep, "three").await.unwrap();
    assert_eq!(rig.texts(deep).await, ["three"]);
    for at in ["p-c-exec-1.n.example.com", "other.p-c-exec-1.n.example.com"] {
        assert_eq!(rig.ask(at, RecordType::A).await.answers.len(), 1, "{at}");
    }
}

#[tokio::test]
async fn challenges_are_bounded() {
    let limits = Limits {
        values: 3,
        values_per_name: 2,
        ..Limits::default()
    };
    let rig = Rig::start("127.0.0.1", limits);
    let present = async |at: &str, value: &str| {
        let shown = rig.server.present(at, value).await;
        shown.map_err(|error| error.to_string())
    };
    present("a.n.example.com", "1").await.unwrap();
    present("a.n.example.com", "2").await.unwrap();
    for (at, value, words) in [
        (
            "a.n.example.com",
            "3",
            "too many are shown already: 2 there, 2 in all",
        ),
        ("a.example.org", "1", "in no zone of this name server"),
        ("a..b", "1", "is not a name"),
        ("b.n.example.com", "", "1 to 255 bytes"),
        ("b.n.example.com", &"x".repeat(256), "1 to 255 bytes"),
    ] {
        let error = present(at, value).await.expect_err(words);
        assert!(error.contains(words), "{error}");
    }
    present("b.n.example.com", "1").await.unwrap();
    present("c.n.example.com", "1")
        .await
        .expect_err("three are shown");
    present("b.n.example.com", "1")
        .await
        .expect("it is there already");
    rig.server.withdraw("a.n.example.com", "1").await.unwrap();
    present("c.n.example.com", "1").await.unwrap();
}

#[test]
fn serials_grow() {
    let seconds = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    assert_eq!(next_serial(0, seconds(1_000)), 1_000);
    assert_eq!(next_serial(1_000, seconds(1_000)), 1_001);
    assert_eq!(
        next_serial(1_001, seconds(900)),
        1_002,
        "the clock was set back"
    );
    assert_eq!(next_serial(1_001, seconds(2_000)), 2_000);
    assert_eq!(
        next_serial(u32::MAX, seconds(u64::from(u32::MAX) + 3)),
        2,
        "it wraps"
    );
}

/// Each answer to a flood is limited, and a real client still comes through over TCP.
#[tokio::test]
async fn a_flood_in_somebodys_name_is_limited() {
    let limits = Limits {
        answers: 1,
        burst: 5,
        slip: 2,
        loopback: true,
        ..Limits::default()
    };
    let rig = Rig::start("127.0.0.1", limits);
    let asked = question(&name("n.example.com").unwrap(), RecordType::NS);
    let asked = asked.to_vec().unwrap();
    let victim: IpAddr = "203.0.113.9".parse().unwrap();
    let replies: Vec<Vec<u8>> = (0..1_000)
        .filter_map(|_| rig.server.respond(&asked, victim, Transport::Udp))
        .collect();
    let whole = replies
        .iter()
        .filter(|reply| reply.len() > asked.len())
        .count();
    assert!(
        (5..=10).contains(&whole),
        "{whole} of 1000 are answered in full"
    );
    assert!(replies.len() < 510, "{} go out", replies.len());
    let bytes: usize = replies.iter().map(Vec::len).sum();
    assert!(
        bytes < 1_000 * asked.len() * 6 / 10,
        "less goes out than comes in"
    );
    assert!(rig.counted("dns_limited_total", "dropped") > 400.0);
    assert!(rig.counted("dns_limited_total", "shortened") > 400.0);
    // Through the sockets: the loopback's share is used up, and TC leads to TCP.
    for _ in 0..5 {
        rig.ask("n.example.com", RecordType::A).await;
    }
    let asked = question(&name("n.example.com").unwrap(), RecordType::A);
    let mut came = 0;
    for _ in 0..6 {
        if let Ok(answer) = ask(rig.address, &asked, Duration::from_millis(500)).await {
            assert_eq!(answer.answers.len(), 1);
            came += 1;
        }
    }
    assert!(came > 0, "some are told to come back over TCP");
}

#[tokio::test]
async fn a_slow_connection_is_closed() {
    let limits = Limits {
        idle: Duration::from_millis(300),
        ..Limits::default()
    };
    let rig = Rig::start("127.0.0.1", limits);
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    let asked = question(&name("n.example.com").unwrap(), RecordType::A);
    let asked = asked.to_vec().unwrap();
    stream
        .write_all(&(asked.len() as u16).to_be_bytes())
        .await
        .unwrap();
    // A byte now and then does not keep it open: the deadline is for the whole message.
    let mut closed = false;
    for byte in asked.iter().cycle().take(1_000) {
        let mut nothing = [0];
        tokio::select! {
            read = stream.read(&mut nothing) => {
                closed = matches!(read, Ok(0) | Err(_));
                break;
            }
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
        if stream.write_all(&[*byte]).await.is_err() {
            closed = true;
            break;
        }
    }
    assert!(closed, "it was served a byte at a time");
    assert_eq!(rig.counted("dns_dropped_total", "slow"), 1.0);
}

#[tokio::test]
async fn connections_are_bounded() {
    let limits = Limits {
        connections: 3,
        connections_per_client: 2,
        loopback: true,
        ..Limits::default()
    };
    let rig = Rig::start("127.0.0.1", limits);
    let asked = question(&name("n.example.com").unwrap(), RecordType::A);
    let asked = asked.to_vec().unwrap();
    let framed = [&(asked.len() as u16).to_be_bytes(), &asked[..]].concat();
    let answered = async |stream: &mut TcpStream| {
        let _ = stream.write_all(&framed).await;
        match stream.read_u16().await {
            Ok(length) => {
                let mut answer = vec![0; length.into()];
                stream.read_exact(&mut answer).await.is_ok()
            }
            Err(_) => false,
        }
    };
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        assert!(answered(&mut stream).await);
        assert!(
            answered(&mut stream).await,
            "a connection has more than one question"
        );
        open.push(stream);
    }
    let mut third = TcpStream::connect(rig.address).await.unwrap();
    assert!(!answered(&mut third).await, "a network has two");
    open.pop();
    let mut came = false;
    for _ in 0..1_000 {
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        if answered(&mut stream).await {
            came = true;
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(came, "a place that was left is another's");
}

#[tokio::test]
async fn a_connection_ends_with_its_last_question_or_with_nonsense() {
    let limits = Limits {
        questions: 2,
        ..Limits::default()
    };
    let rig = Rig::start("127.0.0.1", limits);
    let asked = question(&name("n.example.com").unwrap(), RecordType::A);
    let asked = asked.to_vec().unwrap();
    let framed = [&(asked.len() as u16).to_be_bytes(), &asked[..]].concat();
    for (what, sent, answers) in [
        ("three questions", framed.repeat(3), 2),
        ("a long message", vec![0xff; 4], 0),
        ("no message", vec![0, 0], 0),
        ("an answer", [&[0, 12, 0, 0, 0x80][..], &[0; 9]].concat(), 0),
        ("a page", b"GET / HTTP/1.1\r\n\r\n".to_vec(), 0),
    ] {
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        stream.write_all(&sent).await.unwrap();
        let mut all = Vec::new();
        // Reset where something that was sent was not read.
        let _ = stream.read_to_end(&mut all).await;
        let mut rest = &all[..];
        let mut count = 0;
        while let Some((length, behind)) = rest.split_first_chunk::<2>() {
            rest = &behind[usize::from(u16::from_be_bytes(*length))..];
            count += 1;
        }
        assert!(count <= answers, "{what}: {count} answers");
    }
}

#[tokio::test]
async fn it_ends_when_it_is_told() {
    let server = Server::new(vec![settings()], Limits::default(), SystemClock).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (stop, stopped) = watch::channel(false);
    let sockets = Sockets {
        udp: vec![udp],
        tcp: Vec::new(),
    };
    let served = tokio::spawn(Arc::new(server).serve(sockets, stopped));
    stop.send(true).unwrap();
    served.await.unwrap().unwrap();
    // And with whoever would tell it.
    let rig = Rig::start("127.0.0.1", Limits::default());
    drop(rig.stop);
}

/// Answers stay answers while challenges change under them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_disturb_nobody() {
    let rig = Rig::start("127.0.0.1", Limits::default());
    let asked = question(&name("x.n.example.com").unwrap(), RecordType::A);
    let asked = asked.to_vec().unwrap();
    let answered = Arc::new(AtomicU64::new(0));
    let (server, count) = (rig.server.clone(), answered.clone());
    let asking = std::thread::spawn(move || {
        for _ in 0..5_000 {
            let client = "127.0.0.1".parse().unwrap();
            let reply = server.respond(&asked, client, Transport::Udp).unwrap();
            let reply = Message::from_vec(&reply).unwrap();
            assert_eq!(reply.answers.len(), 1);
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    for number in 0..200 {
        let value = number.to_string();
        rig.server
            .present("_acme-challenge.x.n.example.com", &value)
            .await
            .unwrap();
        rig.server
            .withdraw("_acme-challenge.x.n.example.com", &value)
            .await
            .unwrap();
    }
    asking.join().unwrap();
    assert_eq!(answered.load(Ordering::Relaxed), 5_000);
}

/// One proxy takes the place of another in the middle of an order: whichever is asked, shows it.
#[tokio::test]
async fn a_challenge_is_shown_by_every_process_that_shares_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let server = || {
        let server = Server::new(vec![settings()], Limits::default(), SystemClock).unwrap();
        server.shown_in(directory.path()).unwrap()
    };
    let (old, new) = (server(), server());
    let at = "_acme-challenge.n.example.com";
    let asked = question(
        &name("_ACME-challenge.n.example.com").unwrap(),
        RecordType::TXT,
    );
    let asked = asked.to_vec().unwrap();
    let shown = |server: &Server| {
        let client = "127.0.0.1".parse().unwrap();
        let reply = server.respond(&asked, client, Transport::Udp).unwrap();
        Message::from_vec(&reply).unwrap().answers.len()
    };
    assert_eq!((shown(&old), shown(&new)), (0, 0));
    for round in 0..50 {
        let (mine, other) = (format!("mine-{round}"), format!("other-{round}"));
        old.present(at, &mine).await.unwrap();
        assert_eq!((shown(&old), shown(&new)), (1, 1), "round {round}");
        new.present(at, &other).await.unwrap();
        assert_eq!((shown(&old), shown(&new)), (2, 2), "round {round}");
        // It may end before it takes back what it showed.
        new.withdraw(at, &mine).await.unwrap();
        assert_eq!((shown(&old), shown(&new)), (1, 1), "round {round}");
        old.withdraw(at, &other).await.unwrap();
        assert_eq!((shown(&old), shown(&new)), (0, 0), "round {round}");
    }
    old.present(at, "left").await.unwrap();
    drop((old, new));
    let later = server();
    assert_eq!(shown(&later), 1, "a new process shows it at once");
    let tomorrow = || SystemTime::now() + Duration::from_secs(25 * 3600);
    let server = Server::new(vec![settings()], Limits::default(), tomorrow).unwrap();
    let much_later = server.shown_in(directory.path()).unwrap();
    assert_eq!(shown(&much_later), 0, "it was left by somebody who died");

    std::fs::write(directory.path().join("shown.json"), "{\"half").unwrap();
    assert_eq!(shown(&later), 0, "what cannot be read shows nothing");
    later.present(at, "again").await.unwrap();
    assert_eq!(shown(&later), 1);
}

#[tokio::test]
async fn who_certifies_is_said_where_the_settings_do_not_say_so() {
    let own = ZoneSettings {
        origin: "own.example.com".into(),
        hosts: vec!["own.example.com".into()],
        issuers: vec!["own.test".into()],
        ..settings()
    };
    let server = Server::new(vec![settings(), own], Limits::default(), SystemClock).unwrap();
    let issuers = |zone: &str| {
        let asked = question(&name(zone).unwrap(), RecordType::CAA);
        let client = "127.0.0.1".parse().unwrap();
        let reply = server.respond(&asked.to_vec().unwrap(), client, Transport::Udp);
        let reply = Message::from_vec(&reply.unwrap()).unwrap();
        let said: Vec<String> = reply.answers.iter().map(|it| it.data.to_string()).collect();
        said.join(" ")
    };
    assert_eq!(issuers("n.example.com"), "");
    let names = ["ca.test", "not..a name", "other.test"].map(str::to_owned);
    server.certified_by(&names);
    let said = issuers("n.example.com");
    assert!(
        said.contains("ca.test") && said.contains("other.test"),
        "{said}"
    );
    assert!(!said.contains("not"), "{said}");
    let said = issuers("own.example.com");
    assert!(
        said.contains("own.test") && !said.contains("ca.test"),
        "{said}"
    );
    // Challenges change nothing about it.
    server
        .present("_acme-challenge.n.example.com", "value")
        .await
        .unwrap();
    assert!(issuers("n.example.com").contains("ca.test"));
    server.certified_by(&[]);
    assert_eq!(issuers("n.example.com"), "");
}
