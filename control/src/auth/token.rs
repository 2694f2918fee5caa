//! The secrets of auth tokens and the addresses they may be used from.

use std::net::IpAddr;

use sha2::{Digest, Sha256};

/// What every secret begins with.
pub const PREFIX: &str = "hdy_";
/// Random characters after it: 240 bits.
const LENGTH: usize = 40;
/// Characters of a secret that are shown again: too few to help a guesser.
const SHOWN: usize = 12;
/// The shortest that may be one.
const SHORTEST: usize = 20;

/// A new secret.
pub fn secret() -> String {
    format!("{PREFIX}{}", crate::words::url_safe(LENGTH))
}

/// What is shown of a secret after its making.
pub fn shown(secret: &str) -> String {
    secret.chars().take(SHOWN).collect()
}

/// How a secret is kept. It is random and long, so a plain hash is as good as a slow one.
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// Whether the text has the shape of a secret.
pub fn looks_like(text: &str) -> bool {
    text.strip_prefix(PREFIX).is_some_and(|rest| {
        (SHORTEST..=256).contains(&rest.len())
            && rest
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    })
}

/// Whether `rule` is `*`, an address or a network.
pub fn is_rule(rule: &str) -> bool {
    rule == "*" || parse(rule).is_some()
}

/// Whether one of the rules admits the address.
pub fn admits(rules: &[String], address: IpAddr) -> bool {
    let address = address.to_canonical();
    rules.iter().any(|rule| {
        rule == "*" || parse(rule).is_some_and(|(network, bits)| within(address, network, bits))
    })
}

fn parse(rule: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = match rule.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u32>().ok()?)),
        None => (rule, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(most);
    (bits <= most).then_some((address, bits))
}

fn within(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            (u32::from(address) ^ u32::from(network)) & mask == 0
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            (u128::from(address) ^ u128::from(network)) & mask == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_have_their_shape() {
        assert!(looks_like(&secret()));
        assert_eq!(shown(&secret()).len(), SHOWN);
        for bad in [
            "hdy_",
            "hdy_short",
            "hdx_aaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "hdy_aaaaaaaaaaaaaaaaaaaa.aaaaa",
        ] {
            assert!(!looks_like(bad), "{bad}");
        }
    }

    #[test]
    fn rules_admit_addresses_and_networks() {
        let check = |rule: &str, address: &str, want: bool| {
            assert!(is_rule(rule), "{rule}");
            assert_eq!(
                admits(&[rule.to_owned()], address.parse().unwrap()),
                want,
                "{rule} {address}"
            );
        };
        check("*", "192.0.2.1", true);
        check("192.0.2.1", "192.0.2.1", true);
        check("192.0.2.1", "192.0.2.2", false);
        check("192.0.2.0/24", "192.0.2.77", true);
        check("192.0.2.0/24", "192.0.3.77", false);
        check("0.0.0.0/0", "198.51.100.1", true);
        check("0.0.0.0/0", "2001:db8::1", false);
        check("2001:db8::/32", "2001:db8:ffff::1", true);
        check("::/0", "2001:db8::1", true);
        check("192.0.2.1", "::ffff:192.0.2.1", true);
        assert!(!is_rule("192.0.2.0/33") && !is_rule("everyone") && !is_rule(""));
        assert!(!admits(&[], "192.0.2.1".parse().unwrap()));
    }
}
