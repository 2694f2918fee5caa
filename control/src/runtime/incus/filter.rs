//! What machines may send and be sent, as one transaction of the host's packet filter.
//!
//! [`compile`] is pure. Its text makes two tables of the node's, in place of what they were, in one
//! step (nft(8): a file is a transaction). Both are on the host's side, where no root of a machine
//! reaches:
//!
//! - in the bridge: what comes from a machine's port has the machine's addresses, or is lost; no
//!   IPv6, no VLANs;
//! - above it: what has no address of a machine that is known is lost, so that a machine is out of
//!   reach until it is known. Then each machine's own rules, then what its [`Way`] lets through.
//!
//! Machines are known by their address and by the name of their port, both of which stay when they
//! restart; so what was decided holds from their first packet on.

use std::fmt::Write;
use std::net::Ipv4Addr;

use crate::firewall::{Action, Filter, Filters, Kind, Ports};

/// Ports of the relay on the bridge's address. The guard (`hoody/setup/engine.sh`) lets nothing
/// reach them but what was turned over to them here.
pub const RELAY: u16 = 10831;
/// The same, for names.
pub const RELAY_NAMES: u16 = 10853;

/// How what a machine sends leaves the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Way {
    #[default]
    Direct,
    /// Not at all.
    Blocked,
    /// TCP and names by the relay, all else not at all.
    Relayed,
}

/// A machine's place in the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its end on the host.
    pub interface: String,
    pub address: Ipv4Addr,
    pub way: Way,
    pub filters: Filters,
}

/// The MAC address that belongs to an address: whoever has the one next has the other too, so no
/// neighbour table goes stale.
pub fn mac(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}") // locally administered
}

/// What a machine's end on the host is called (up to 15 bytes).
pub fn interface(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("hv{a:02x}{b:02x}{c:02x}{d:02x}")
}

/// What an interface may be called here; any other stands in no rule.
fn is_plain(interface: &str) -> bool {
    (1..=15).contains(&interface.len())
        && interface
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// The tables of a node whose bridge is `{name}0`.
pub fn compile(name: &str, ports: &[Port]) -> String {
    let bridge = format!("{name}0");
    let table = format!("{name}_machines");
    let ports: Vec<&Port> = ports
        .iter()
        .filter(|port| is_plain(&port.interface))
        .collect();
    let with = |way: Way| {
        let those = ports.iter().filter(move |port| port.way == way);
        those.map(|port| port.address.to_string())
    };
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| {
        text.write_fmt(words).expect("memory takes text");
        text.push('\n');
    };

    line(format_args!("table bridge {table}"));
    line(format_args!("delete table bridge {table}"));
    line(format_args!("table bridge {table} {{"));
    let own = ports.iter().map(|port| {
        let (address, mac) = (port.address, mac(port.address));
        format!("\"{}\" . {mac} . {address}", port.interface)
    });
    let named = ports.iter().map(|port| format!("\"{}\"", port.interface));
    set(&mut line, "ports", "ifname", named);
    set(&mut line, "own", "ifname . ether_addr . ipv4_addr", own);
    line(format_args!(
        "chain from {{
type filter hook prerouting priority -300; policy accept;
iifname != @ports return
ether type arp iifname . ether saddr . arp saddr ip @own accept
ether type ip iifname . ether saddr . ip saddr @own accept
drop
}}
}}"
    ));

    line(format_args!("table inet {table}"));
    line(format_args!("delete table inet {table}"));
    line(format_args!("table inet {table} {{"));
    let known = ports.iter().map(|port| port.address.to_string());
    set(&mut line, "known", "ipv4_addr", known);
    set(&mut line, "blocked", "ipv4_addr", with(Way::Blocked));
    set(&mut line, "relayed", "ipv4_addr", with(Way::Relayed));
    for (direction, peer) in [("to", "saddr"), ("from", "daddr")] {
        let mut jumps = Vec::new();
        for port in &ports {
            let filters = match direction {
                "to" => &port.filters.ingress,
                _ => &port.filters.egress,
            };
            if filters.is_empty() {
                continue;
            }
            let chain = format!("{direction}_{:08x}", u32::from(port.address));
            line(format_args!("chain {chain} {{"));
            for filter in filters {
                line(format_args!("{}", rule(filter, peer)));
            }
            line(format_args!("}}"));
            jumps.push(format!("{} : jump {chain}", port.address));
        }
        let (map, kind) = (format!("rules_{direction}"), "ipv4_addr : verdict");
        elements(&mut line, "map", &map, kind, jumps.into_iter());
    }
    // Answers to what reached a machine are no affair of what it may begin. What it sends to the
    // host itself is the guard's affair, but for names, which lead out.
    line(format_args!(
        "chain from {{
type filter hook prerouting priority -150; policy accept;
iifname != \"{bridge}\" return
meta nfproto ipv6 drop
ip saddr != @known drop
ct direction reply ct state established,related accept
fib daddr type local tcp dport != 53 accept
ip saddr @blocked drop
ip saddr vmap @rules_from
ip saddr @relayed meta l4proto tcp accept
ip saddr @relayed udp dport 53 accept
ip saddr @relayed drop
}}
chain relay {{
type nat hook prerouting priority -105; policy accept;
iifname != \"{bridge}\" return
ip saddr != @relayed return
fib daddr type local tcp dport != 53 return
udp dport 53 redirect to :{RELAY_NAMES}
tcp dport 53 redirect to :{RELAY_NAMES}
meta l4proto tcp redirect to :{RELAY}
}}
chain through {{
type filter hook forward priority -20; policy accept;
iifname \"{bridge}\" ip saddr @relayed ct direction original drop
oifname \"{bridge}\" ct direction original ip daddr vmap @rules_to
}}
chain host {{
type filter hook input priority -20; policy accept;
iifname \"{bridge}\" ip saddr @relayed udp dport 53 drop
iifname \"{bridge}\" ip saddr @relayed tcp dport 53 drop
}}
chain out {{
type filter hook output priority -20; policy accept;
oifname \"{bridge}\" ct direction original ip daddr vmap @rules_to
}}
}}"
    ));
    text
}

fn set(
    line: &mut impl FnMut(std::fmt::Arguments<'_>),
    name: &str,
    kind: &str,
    all: impl Iterator<Item = String>,
) {
    elements(line, "set", name, kind, all);
}

fn elements(
    line: &mut impl FnMut(std::fmt::Arguments<'_>),
    what: &str,
    name: &str,
    kind: &str,
    all: impl Iterator<Item = String>,
) {
    let all: Vec<String> = all.collect();
    line(format_args!("{what} {name} {{\ntype {kind};"));
    if !all.is_empty() {
        line(format_args!("elements = {{ {} }}", all.join(", ")));
    }
    line(format_args!("}}"));
}

/// One rule; `peer` says which end is the other one.
fn rule(filter: &Filter, peer: &str) -> String {
    let mut words = match &filter.kind {
        Kind::Tcp { from, to } => format!(
            "meta l4proto tcp{}{}",
            ranges("tcp sport", from),
            ranges("tcp dport", to)
        ),
        Kind::Udp { from, to } => format!(
            "meta l4proto udp{}{}",
            ranges("udp sport", from),
            ranges("udp dport", to)
        ),
        Kind::Icmp { kind, code } => {
            let mut words = "meta l4proto icmp".to_owned();
            if let Some(kind) = kind {
                write!(words, " icmp type {kind}").expect("memory takes text");
            }
            if let Some(code) = code {
                write!(words, " icmp code {code}").expect("memory takes text");
            }
            words
        }
    };
    if !filter.peers.is_empty() {
        let merged = ipnet::Ipv4Net::aggregate(&filter.peers);
        let all: Vec<String> = merged.iter().map(ToString::to_string).collect();
        write!(words, " ip {peer} {{ {} }}", all.join(", ")).expect("memory takes text");
    }
    words.push_str(match (filter.action, &filter.kind) {
        (Action::Allow, _) => " return",
        (Action::Drop, _) => " drop",
        (Action::Reject, Kind::Tcp { .. }) => " reject with tcp reset",
        (Action::Reject, _) => " reject with icmp type admin-prohibited",
    });
    words
}

/// Ranges, merged where they touch: the filter takes none that overlap.
fn ranges(what: &str, ports: &[Ports]) -> String {
    if ports.is_empty() {
        return String::new();
    }
    let mut sorted: Vec<(u16, u16)> = ports
        .iter()
        .map(|ports| (*ports.start(), *ports.end()))
        .collect();
    sorted.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::with_capacity(sorted.len());
    for (first, last) in sorted {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    let all: Vec<String> = merged
        .iter()
        .map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        })
        .collect();
    format!(" {what} {{ {} }}", all.join(", "))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;
    use crate::firewall::{Protocol, Rule, Rules, State};

    fn port(last: u8, way: Way, rules: &Rules) -> Port {
        let address = Ipv4Addr::new(10, 9, 8, last);
        Port {
            interface: interface(address),
            address,
            way,
            filters: rules.filters().unwrap_or_default(),
        }
    }

    #[test]
    fn each_machine_is_where_its_way_says() {
        let none = Rules::default();
        let text = compile(
            "node",
            &[
                port(2, Way::Direct, &none),
                port(3, Way::Blocked, &none),
                port(4, Way::Relayed, &none),
            ],
        );
        for words in [
            "table inet node_machines {",
            "elements = { 10.9.8.2, 10.9.8.3, 10.9.8.4 }",
            "set blocked {\ntype ipv4_addr;\nelements = { 10.9.8.3 }",
            "set relayed {\ntype ipv4_addr;\nelements = { 10.9.8.4 }",
            "\"hv0a090802\" . 02:00:0a:09:08:02 . 10.9.8.2",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn an_interface_of_another_name_is_in_no_rule() {
        let mut odd = port(2, Way::Direct, &Rules::default());
        odd.interface = "x\" accept; #".to_owned();
        let text = compile("node", &[odd]);
        assert!(
            !text.contains("x\"") && !text.contains("10.9.8.2"),
            "{text}"
        );
    }

    /// Whether the packet filter understands it: `nft -c` needs a namespace that it may ask.
    fn is_understood(text: &str) -> Result<(), String> {
        use std::io::Write;
        let mut nft = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "nft", "-c", "-f", "-"])
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut input = nft.stdin.take().ok_or("no stdin")?;
        input
            .write_all(text.as_bytes())
            .map_err(|error| error.to_string())?;
        drop(input);
        let ended = nft.wait_with_output().map_err(|error| error.to_string())?;
        match ended.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&ended.stderr).into_owned()),
        }
    }

    fn can_ask() -> bool {
        is_understood("table inet t {\n}\n").is_ok()
    }

    /// Words of the filter's own language among plain ones.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("80".to_owned()),
            Just("80-90, 85-95".to_owned()),
            Just("10.0.0.0/8".to_owned()),
            Just("10.0.0.0/8,10.1.0.0/16, 192.0.2.1".to_owned()),
            Just("80 accept\n} table inet x {".to_owned()),
            Just("{ 1 } accept; flush ruleset #".to_owned()),
            "[0-9,./ -]{0,12}",
            ".{0,20}",
        ]
    }

    fn rules() -> impl Strategy<Value = Rule> {
        let action = prop_oneof![
            Just(Action::Allow),
            Just(Action::Reject),
            Just(Action::Drop)
        ];
        let protocol = prop_oneof![
            Just(Protocol::Tcp),
            Just(Protocol::Udp),
            Just(Protocol::Icmp4)
        ];
        let some = || proptest::option::of(text());
        (
            action,
            protocol,
            text(),
            some(),
            some(),
            some(),
            some(),
            some(),
        )
            .prop_map(
                |(action, protocol, description, peer, to, from, kind, code)| Rule {
                    action,
                    protocol,
                    description,
                    peer,
                    destination_port: to,
                    source_port: from,
                    icmp_type: kind,
                    icmp_code: code,
                    state: State::Enabled,
                },
            )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        /// A rule is one line of words that are known here, whatever text it was made from.
        #[test]
        fn no_text_of_a_rule_is_a_word_of_the_filter(rule in rules()) {
            const WORDS: &[&str] = &[
                "meta", "l4proto", "tcp", "udp", "icmp", "sport", "dport", "type", "code", "ip",
                "saddr", "daddr", "return", "drop", "reject", "with", "reset", "admin-prohibited",
                "{", "}",
            ];
            if let Ok(filter) = rule.filter() {
                let line = super::rule(&filter, "saddr");
                prop_assert!(!line.contains('\n'));
                for word in line.split(' ') {
                    let number = word.trim_end_matches(',');
                    let plain = !number.is_empty()
                        && number.bytes().all(|b| b.is_ascii_digit() || b"./-".contains(&b));
                    prop_assert!(plain || WORDS.contains(&word), "`{}` of {}", word, line);
                }
                prop_assert_eq!(line.matches('{').count(), line.matches('}').count());
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn the_filter_understands_every_rule(all in proptest::collection::vec(rules(), 1..40)) {
            if !can_ask() {
                eprintln!("no packet filter can be asked here");
                return Ok(());
            }
            let good: Vec<Rule> = all.into_iter().filter(|rule| rule.filter().is_ok()).collect();
            let rules = Rules { ingress: good.clone(), egress: good };
            let text = compile("node", &[
                port(2, Way::Direct, &rules),
                port(3, Way::Blocked, &rules),
                port(4, Way::Relayed, &Rules::default()),
            ]);
            let understood = is_understood(&text);
            prop_assert!(understood.is_ok(), "{:?}: {}", understood, text);
        }
    }
}
