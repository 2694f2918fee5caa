//! Any text has one meaning, and what has a meaning has one canonical name.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use routes::address::{Address, Name, Zone};

static ZONES: LazyLock<[Zone; 2]> = LazyLock::new(|| {
    [
        Zone::new("hoody.localhost", "box1").expect("a good zone"),
        Zone::apart("api.a.example", "c.example", "n").expect("a good zone"),
    ]
});

/// What stands in for a zone, so that the fuzzer need not learn long names.
const MARKS: [(&str, &str); 2] = [
    ("!", ".box1.containers.hoody.localhost"),
    ("?", ".api.hoody.localhost"),
];

fuzz_target!(|text: &str| {
    check(text);
    for (mark, suffix) in MARKS {
        if text.contains(mark) {
            check(&text.replacen(mark, suffix, 1));
        }
    }
});

fn check(text: &str) {
    for zone in ZONES.iter() {
        let meaning = Address::parse(text, zone);
        assert_eq!(Address::parse(&text.to_ascii_uppercase(), zone), meaning);
        let Ok(address) = meaning else { continue };
        let canonical = address.host(zone).to_string();
        assert_eq!(Address::parse(&canonical, zone), meaning);
        let name = Name::parse(text).expect("it had a meaning");
        assert_eq!(Address::of(&name, zone), meaning);
        assert_eq!(
            Name::parse(&name.to_string()).expect("a name").as_str(),
            name.as_str()
        );
        if name.port().is_none() {
            assert_eq!(Address::parse(&format!("{canonical}.:8443"), zone), meaning);
        }
    }
}
