//! Any rules decide about any visitor, and what a decision promises holds.
#![no_main]

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use routes::access::{Decision, Denial, Evidence, Fingerprint, Offer, Policy, decide, enabled};
use routes::jwt::{Algorithm, Keys};
use routes::link::{Link, LinkKey};

/// What a visitor brings: one text is every header, cookie and parameter that is asked for.
struct Brought<'a> {
    address: IpAddr,
    text: &'a str,
    offered: bool,
    proved: Vec<Fingerprint>,
}

impl Evidence for Brought<'_> {
    fn address(&self) -> IpAddr {
        self.address
    }
    fn now(&self) -> u64 {
        1_800_000_000
    }
    fn header(&self, _: &str) -> Option<&str> {
        (!self.text.is_empty()).then_some(self.text)
    }
    fn cookie(&self, name: &str) -> Option<&str> {
        self.header(name)
    }
    fn param(&self, name: &str) -> Option<Cow<'_, str>> {
        self.header(name).map(Cow::Borrowed)
    }
    fn offer(&self) -> Option<Offer<'_>> {
        self.offered.then(|| match self.text.split_once(':') {
            Some((username, password)) => Offer::Password { username, password },
            None => Offer::Value(self.text),
        })
    }
    fn proved(&self, gate: Fingerprint) -> Option<Option<&str>> {
        self.proved.contains(&gate).then_some(None)
    }
    fn link(&self) -> Option<&str> {
        None
    }
}

/// Two documents, the program, its instance, and the visitor; a line each.
fuzz_target!(|text: &str| {
    let mut lines = text.split('\n');
    let mut policy = || serde_json::from_str::<Policy>(lines.next()?).ok();
    let (container, project) = (policy(), policy());
    let program = lines.next().unwrap_or_default();
    let instance = lines.next().and_then(|it| it.parse().ok()).unwrap_or(1);
    let offered = lines.next() == Some("offer");
    let credential = lines.next().unwrap_or_default();
    for algorithm in Algorithm::ALL {
        let _ = Keys::read(algorithm, credential);
    }
    let _ = Link::verify(credential, &LinkKey::new([7; 32]));
    let mut brought = Brought {
        address: lines
            .next()
            .and_then(|it| it.parse().ok())
            .unwrap_or(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        text: credential,
        offered,
        proved: Vec::new(),
    };
    let (container, project) = (container.as_ref(), project.as_ref());
    let decision = decide(project, container, program, instance, &brought);
    let open = enabled(project, container);
    match &decision {
        Decision::Allow(admission) => {
            assert!(open);
            // What it proved opens the same door again, with nothing else.
            brought.proved = admission.proofs.iter().map(|proof| proof.gate).collect();
            (brought.text, brought.offered) = ("", false);
            let again = decide(project, container, program, instance, &brought);
            assert!(matches!(again, Decision::Allow(_)), "{again:?}");
        }
        Decision::Challenge(challenge) => assert!(open && (challenge.password || challenge.token)),
        Decision::Deny(Denial::Disabled) => assert!(!open),
        Decision::Deny(Denial::Refused) => assert!(open),
    }
    for policy in [project, container].into_iter().flatten() {
        let kept = serde_json::to_string(policy).expect("a policy is JSON");
        assert_eq!(&serde_json::from_str::<Policy>(&kept).expect("a policy"), policy);
    }
});
