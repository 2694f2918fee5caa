use std::net::IpAddr;

use hickory_proto::rr::Name;
use proptest::prelude::*;

use super::*;
use crate::dns::zone::{Challenges, ZoneSettings, name};

fn zones() -> Zones {
    let addresses: Vec<IpAddr> = ["192.0.2.1", "2001:db8::1"]
        .map(|address| address.parse().unwrap())
        .into();
    let settings = ZoneSettings {
        origin: "n.example.com".into(),
        hosts: vec![
            "n.example.com".into(),
            "*.n.example.com".into(),
            "x.deep.n.example.com".into(),
        ],
        addresses,
        servers: Vec::new(),
        issuers: vec!["ca.test".into()],
    };
    let values = (0..40).map(|number| format!("{number:043}")).collect();
    let mut challenges = Challenges::new();
    challenges.insert("_acme-challenge.n.example.com".into(), values);
    Zones::build(&[settings], &challenges, 42).unwrap()
}

fn question(at: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    let name = if at == "." {
        Name::root()
    } else {
        name(at).unwrap()
    };
    message.add_query(Query::query(name, kind));
    message
}

fn edns(message: &mut Message, payload: u16) {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.set_edns(edns);
}

fn ask(message: &Message, transport: Transport) -> Message {
    let answer = answer(&zones(), &message.to_vec().unwrap(), transport).unwrap();
    Message::from_vec(&answer.bytes).unwrap()
}

/// Code, AA, and how many records are in each section.
fn shape(message: &Message) -> (ResponseCode, bool, [usize; 3]) {
    let counts = [
        message.answers.len(),
        message.authorities.len(),
        message.additionals.len(),
    ];
    (
        message.metadata.response_code,
        message.metadata.authoritative,
        counts,
    )
}

#[test]
fn questions_have_their_answers() {
    use RecordType as Type;
    use ResponseCode::{NXDomain, NoError, Refused};
    for (at, kind, expected) in [
        ("n.example.com", Type::SOA, (NoError, true, [1, 0, 0])),
        ("n.example.com", Type::NS, (NoError, true, [1, 0, 2])),
        ("n.example.com", Type::CAA, (NoError, true, [1, 0, 0])),
        ("n.example.com", Type::A, (NoError, true, [1, 0, 0])),
        ("n.example.com", Type::DS, (NoError, true, [0, 1, 0])),
        (
            "p-c-http-1.n.example.com",
            Type::AAAA,
            (NoError, true, [1, 0, 0]),
        ),
        (
            "p-c-http-1.n.example.com",
            Type::MX,
            (NoError, true, [0, 1, 0]),
        ),
        ("deep.n.example.com", Type::A, (NoError, true, [0, 1, 0])),
        ("y.deep.n.example.com", Type::A, (NXDomain, true, [0, 1, 0])),
        (
            "y.deep.n.example.com",
            Type::ANY,
            (NXDomain, true, [0, 1, 0]),
        ),
        ("deep.n.example.com", Type::ANY, (NoError, true, [0, 1, 0])),
        ("n.example.com", Type::ANY, (NoError, true, [1, 0, 0])),
        ("example.com", Type::A, (Refused, false, [0, 0, 0])),
        (".", Type::NS, (Refused, false, [0, 0, 0])),
        ("example.org", Type::A, (Refused, false, [0, 0, 0])),
        ("n.example.com", Type::AXFR, (Refused, false, [0, 0, 0])),
        ("n.example.com", Type::IXFR, (Refused, false, [0, 0, 0])),
    ] {
        for transport in [Transport::Udp, Transport::Tcp] {
            let answer = ask(&question(at, kind), transport);
            assert_eq!(shape(&answer), expected, "{at} {kind}");
            assert!(!answer.metadata.recursion_available);
            assert!(answer.edns.is_none(), "nobody asked for it");
            for record in &answer.authorities {
                assert_eq!(
                    record.record_type(),
                    Type::SOA,
                    "RFC 2308: beside a negative answer"
                );
                assert_eq!(record.ttl, 60);
            }
        }
    }
}

#[test]
fn what_a_question_wanted_is_repeated_and_no_more() {
    let mut asked = question("P-c-HTTP-1.n.eXample.COM", RecordType::A);
    asked.metadata.recursion_desired = true;
    asked.metadata.checking_disabled = true;
    asked.metadata.authentic_data = true;
    let answer = ask(&asked, Transport::Udp);
    assert_eq!(answer.metadata.id, asked.metadata.id);
    assert!(answer.metadata.recursion_desired);
    assert!(!answer.metadata.checking_disabled && !answer.metadata.authentic_data);
    // The letters are as they were asked: some resolvers take nothing else.
    assert!(answer.queries[0].name().eq_case(asked.queries[0].name()));
    assert!(answer.answers[0].name.eq_case(asked.queries[0].name()));
}

#[test]
fn edns_is_spoken_with_who_speaks_it() {
    let mut asked = question("n.example.com", RecordType::A);
    edns(&mut asked, 4096);
    asked.edns.as_mut().unwrap().set_dnssec_ok(true);
    let answer = ask(&asked, Transport::Udp);
    let ours = answer.edns.expect("it was asked for");
    assert_eq!(
        (ours.max_payload(), ours.version(), ours.flags().dnssec_ok),
        (1232, 0, true)
    );
    asked.edns.as_mut().unwrap().set_version(1);
    let answer = ask(&asked, Transport::Udp);
    // BADSIG has the same number (RFC 6891, section 9).
    let code = u16::from(answer.metadata.response_code);
    assert_eq!(code, u16::from(ResponseCode::BADVERS));
    assert_eq!(answer.edns.expect("the code is in it").version(), 0);
    assert!(answer.answers.is_empty());
}

#[test]
fn what_does_not_fit_is_had_over_tcp() {
    let at = "_acme-challenge.n.example.com";
    for payload in [None, Some(0), Some(512), Some(1232), Some(65535)] {
        let mut asked = question(at, RecordType::TXT);
        if let Some(payload) = payload {
            edns(&mut asked, payload);
        }
        let zones = zones();
        let bytes = asked.to_vec().unwrap();
        let short = answer(&zones, &bytes, Transport::Udp).unwrap().bytes;
        let most = usize::from(payload.unwrap_or(512).clamp(512, 1232));
        assert!(short.len() <= most, "{payload:?}: {} bytes", short.len());
        let short = Message::from_vec(&short).unwrap();
        assert!(short.metadata.truncation && short.answers.is_empty());
        assert_eq!(short.edns.is_some(), payload.is_some());
        let long = answer(&zones, &bytes, Transport::Tcp).unwrap().bytes;
        let long = Message::from_vec(&long).unwrap();
        assert!(!long.metadata.truncation);
        assert_eq!(long.answers.len(), 40);
    }
}

#[test]
fn a_shortened_answer_is_no_larger_than_its_question() {
    for (at, kind) in [
        ("n.example.com", RecordType::NS),
        ("y.deep.n.example.com", RecordType::A),
        ("example.org", RecordType::A),
    ] {
        let bytes = question(at, kind).to_vec().unwrap();
        let short = answer(&zones(), &bytes, Transport::Udp)
            .unwrap()
            .shortened();
        assert!(short.len() <= bytes.len());
        let short = Message::from_vec(&short).unwrap();
        assert!(short.metadata.truncation);
        assert_eq!(short.queries[0].name(), &name(at).unwrap());
    }
}

/// A message of these words: id, flags, counts; then bytes.
fn raw(flags: u16, counts: [u16; 4], rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xab, 0xcd];
    bytes.extend(flags.to_be_bytes());
    bytes.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
    bytes.extend(rest);
    bytes
}

const GOOD: &[u8] = b"\x01n\x07example\x03com\x00\x00\x01\x00\x01";

#[test]
fn what_is_no_question_is_refused_or_ignored() {
    let operation = |number: u16| number << 11;
    let opt = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00";
    let two_opts = [GOOD, opt, opt].concat();
    let loops = b"\xc0\x0c\x00\x01\x00\x01";
    let forward = b"\xc0\x20\x00\x01\x00\x01";
    let ping_pong = b"\xc0\x0e\xc0\x0c\x00\x01\x00\x01";
    let long = [&[63][..], &[b'a'; 63]].concat().repeat(4);
    let long = [&long[..], b"\x00\x00\x01\x00\x01"].concat();
    let chaos = b"\x07version\x04bind\x00\x00\x10\x00\x03";
    let any_class = b"\x01n\x07example\x03com\x00\x00\x01\x00\xff";
    let opt_asked = b"\x01n\x07example\x03com\x00\x00\x29\x00\x01";
    use ResponseCode::{FormErr, NotImp, Refused};
    for (what, bytes, expected) in [
        ("nothing", vec![], None),
        ("half a header", vec![0; 11], None),
        ("an answer", raw(0x8000, [1, 0, 0, 0], GOOD), None),
        ("no question", raw(0, [0, 0, 0, 0], b""), Some(FormErr)),
        (
            "two questions",
            raw(0, [2, 0, 0, 0], &[GOOD, GOOD].concat()),
            Some(FormErr),
        ),
        (
            "65,535 questions",
            raw(0, [0xffff, 0, 0, 0], GOOD),
            Some(FormErr),
        ),
        (
            "an answer beside it",
            raw(0, [1, 1, 0, 0], GOOD),
            Some(FormErr),
        ),
        (
            "an authority beside it",
            raw(0, [1, 0, 1, 0], GOOD),
            Some(FormErr),
        ),
        (
            "many additionals",
            raw(0, [1, 0, 0, 0xffff], GOOD),
            Some(FormErr),
        ),
        (
            "an additional that is not there",
            raw(0, [1, 0, 0, 1], GOOD),
            Some(FormErr),
        ),
        ("two OPT", raw(0, [1, 0, 0, 2], &two_opts), Some(FormErr)),
        (
            "something behind",
            raw(0, [1, 0, 0, 0], &[GOOD, b"x"].concat()),
            Some(FormErr),
        ),
        (
            "half a question",
            raw(0, [1, 0, 0, 0], &GOOD[..9]),
            Some(FormErr),
        ),
        (
            "a name that points to itself",
            raw(0, [1, 0, 0, 0], loops),
            Some(FormErr),
        ),
        (
            "a name that points ahead",
            raw(0, [1, 0, 0, 0], forward),
            Some(FormErr),
        ),
        (
            "names that point to one another",
            raw(0, [1, 0, 0, 0], ping_pong),
            Some(FormErr),
        ),
        (
            "a name of 257 bytes",
            raw(0, [1, 0, 0, 0], &long),
            Some(FormErr),
        ),
        (
            "a label of a reserved kind",
            raw(0, [1, 0, 0, 0], b"\x80a\x00\x00\x01\x00\x01"),
            Some(FormErr),
        ),
        (
            "OPT as a question",
            raw(0, [1, 0, 0, 0], opt_asked),
            Some(FormErr),
        ),
        ("who are you", raw(0, [1, 0, 0, 0], chaos), Some(Refused)),
        ("any class", raw(0, [1, 0, 0, 0], any_class), Some(Refused)),
        (
            "IQUERY",
            raw(operation(1), [1, 0, 0, 0], GOOD),
            Some(NotImp),
        ),
        (
            "STATUS",
            raw(operation(2), [1, 0, 0, 0], GOOD),
            Some(NotImp),
        ),
        (
            "operation 15",
            raw(operation(15), [1, 0, 0, 0], GOOD),
            Some(NotImp),
        ),
        (
            "NOTIFY",
            raw(operation(4), [1, 0, 0, 0], GOOD),
            Some(Refused),
        ),
        (
            "UPDATE",
            raw(operation(5), [1, 0, 0, 0], GOOD),
            Some(Refused),
        ),
    ] {
        let found = answer(&zones(), &bytes, Transport::Udp);
        assert_eq!(
            found.as_ref().ok().map(|answer| answer.code),
            expected,
            "{what}"
        );
        if let Ok(found) = found {
            assert_eq!(found.bytes[..2], [0xab, 0xcd], "{what}");
            assert_eq!(
                found.bytes[2] >> 3 & 0xf,
                bytes[2] >> 3 & 0xf,
                "{what}: the operation"
            );
            assert!(found.bytes.len() <= bytes.len().max(512), "{what}");
            Message::from_vec(&found.bytes).expect(what);
        }
    }
}

#[test]
fn labels_of_any_bytes_are_only_names() {
    // A dot, a zero and a star within labels are no separators and no wildcards.
    for (label, expected) in [
        (&b"\x03a.b"[..], ResponseCode::NoError),
        (b"\x03\x00\xff\x2a", ResponseCode::NoError),
        (b"\x01*", ResponseCode::NoError),
        (b"\x06n.exam", ResponseCode::NoError),
    ] {
        let rest = [label, GOOD].concat();
        let found = answer(&zones(), &raw(0, [1, 0, 0, 0], &rest), Transport::Udp).unwrap();
        assert_eq!(found.code, expected, "{label:?}");
        assert!(found.bytes[12..].starts_with(label));
    }
    // `n.example.com` as one label is no name of ours.
    let one = b"\x0dn.example.com\x00\x00\x01\x00\x01";
    let found = answer(&zones(), &raw(0, [1, 0, 0, 0], one), Transport::Udp).unwrap();
    assert_eq!(found.code, ResponseCode::Refused);
}

proptest! {
    #[test]
    fn any_bytes_get_a_bounded_answer_or_none(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        udp in any::<bool>(),
    ) {
        check(&bytes, udp);
    }

    /// The same with a good start, so that more of it is read.
    #[test]
    fn any_bytes_beside_a_question_too(
        at in "[a-z*.]{0,20}",
        flags in any::<u8>(),
        counts in any::<[u8; 4]>(),
        behind in proptest::collection::vec(any::<u8>(), 0..100),
        udp in any::<bool>(),
    ) {
        let labels = at.split('.').filter(|label| !label.is_empty());
        let mut rest: Vec<u8> = labels
            .flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat())
            .collect();
        rest.extend(GOOD);
        rest.extend(behind);
        let counts = counts.map(|count| u16::from(count % 3));
        check(&raw(u16::from(flags) << 8, counts, &rest), udp);
    }
}

fn check(bytes: &[u8], udp: bool) {
    let transport = if udp { Transport::Udp } else { Transport::Tcp };
    if let Ok(found) = answer(&zones(), bytes, transport) {
        assert_eq!(found.bytes[..2], bytes[..2]);
        assert!(found.bytes[2] & 0x80 != 0, "it says that it is an answer");
        assert!(!udp || found.bytes.len() <= usize::from(UDP_BYTES));
        let read = Message::from_vec(&found.bytes).expect("what we say can be read");
        assert!(!read.metadata.recursion_available);
        assert!(found.shortened().len() <= bytes.len());
    }
}
