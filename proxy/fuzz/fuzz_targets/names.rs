//! Any bytes get one well-formed answer of bounded size, or none.
#![no_main]

use std::sync::LazyLock;

use certs::dns::ZoneSettings;
use certs::dns::answer::{Transport, UDP_BYTES, answer};
use certs::dns::hickory_proto::op::Message;
use certs::dns::zone::{Challenges, Zones};
use libfuzzer_sys::fuzz_target;

static ZONES: LazyLock<Zones> = LazyLock::new(|| {
    let zone = ZoneSettings {
        origin: "n.test".into(),
        hosts: vec!["*.n.test".into(), "a.b.n.test".into()],
        addresses: vec![[192, 0, 2, 1].into(), [0_u16; 8].into()],
        servers: Vec::new(),
        issuers: vec!["ca.test".into()],
    };
    let values = (0..16).map(|number| format!("{number:043}")).collect();
    let challenges = Challenges::from([("_acme-challenge.n.test".to_owned(), values)]);
    Zones::build(&[zone], &challenges, 1).expect("a good zone")
});

/// A question for one of our names, behind which the fuzzer may go on.
const QUESTION: &[u8] = b"\0\0\0\0\0\x01\0\0\0\0\0\0\x01n\x04test\0\0\x10\0\x01";

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    // The same as what comes behind a question that is read: OPT, signatures, all else.
    if let Some((counts, rest)) = bytes.split_first() {
        let mut whole = QUESTION.to_vec();
        whole[11] = counts % 4;
        whole.extend(rest);
        check(&whole);
    }
});

fn check(bytes: &[u8]) {
    for (transport, most) in [(Transport::Udp, UDP_BYTES), (Transport::Tcp, u16::MAX)] {
        let Ok(said) = answer(&ZONES, bytes, transport) else {
            continue;
        };
        assert_eq!(said.bytes[..2], bytes[..2], "it is to this message");
        assert!(said.bytes.len() <= usize::from(most));
        let read = Message::from_vec(&said.bytes).expect("what we say can be read");
        assert!(!read.metadata.recursion_available);
        assert!(said.shortened().len() <= bytes.len(), "no amplification");
    }
}
