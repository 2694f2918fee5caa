//! The addresses of this machine on the interfaces that lead out.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv6Addr};

use nix::ifaddrs::getifaddrs;

/// Of an IPv6 address that is not to be told to anybody: a temporary one (RFC 8981), one on its
/// way out, one that another machine has or may have (`if_addr.h`).
const PASSING: u32 = 0x01 | 0x08 | 0x20 | 0x40;

/// Those of both families, the IPv4 ones first. Empty on a machine without a way out.
pub fn of_default_interfaces() -> Vec<IpAddr> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let names = default_interfaces_4(&read("/proc/net/route"));
    let mut found: BTreeSet<IpAddr> = getifaddrs()
        .into_iter()
        .flatten()
        .filter(|interface| names.contains(&interface.interface_name))
        .filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip().into()))
        .collect();
    let names = default_interfaces_6(&read("/proc/net/ipv6_route"));
    found.extend(lasting_6(&read("/proc/net/if_inet6"), &names));
    found.into_iter().collect()
}

/// Whether the whole world can reach an address, as far as it says itself.
pub fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && (64..128).contains(&b); // RFC 6598
            let special = ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_documentation()
                || ip.is_unspecified()
                || ip.is_multicast()
                || a == 0
                || a >= 240
                || (a == 198 && (18..20).contains(&b)); // RFC 2544
            !shared && !special
        }
        IpAddr::V6(ip) => {
            let [a, b, ..] = ip.segments();
            let global = a & 0xe000 == 0x2000; // 2000::/3
            global && !(a == 0x2001 && b == 0xdb8)
        }
    }
}

/// The interfaces with a default route, of `/proc/net/route`.
fn default_interfaces_4(table: &str) -> BTreeSet<String> {
    const UP: u32 = 1;
    let interface = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (name, to, mask) = (*fields.first()?, *fields.get(1)?, *fields.get(7)?);
        let flags = u32::from_str_radix(fields.get(3)?, 16).ok()?;
        (to == "00000000" && mask == "00000000" && flags & UP != 0).then(|| name.to_owned())
    };
    table.lines().filter_map(interface).collect()
}

/// The same of `/proc/net/ipv6_route`. The kernel's own default, which refuses, is on `lo`.
fn default_interfaces_6(table: &str) -> BTreeSet<String> {
    let interface = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (to, prefix, name) = (*fields.first()?, *fields.get(1)?, *fields.get(9)?);
        let is_default = prefix == "00" && to.bytes().all(|digit| digit == b'0');
        (is_default && name != "lo").then(|| name.to_owned())
    };
    table.lines().filter_map(interface).collect()
}

/// The global addresses that stay, of `/proc/net/if_inet6`.
fn lasting_6(table: &str, interfaces: &BTreeSet<String>) -> Vec<IpAddr> {
    const GLOBAL: &str = "00";
    let address = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (ip, scope, name) = (*fields.first()?, *fields.get(3)?, *fields.get(5)?);
        let flags = u32::from_str_radix(fields.get(4)?, 16).ok()?;
        let ip = u128::from_str_radix(ip, 16).ok()?;
        let fits = scope == GLOBAL && flags & PASSING == 0 && interfaces.contains(name);
        fits.then(|| IpAddr::V6(Ipv6Addr::from(ip)))
    };
    table.lines().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_with_a_way_out_are_found() {
        let four = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                    eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                    eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n\
                    tun0\t00000000\t00000000\t0000\t0\t0\t0\t00000000\t0\t0\t0\n\
                    half0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n";
        assert_eq!(
            default_interfaces_4(four),
            BTreeSet::from(["eth0".to_owned()])
        );
        let zero = "00000000000000000000000000000000";
        let six = format!(
            "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth1\n\
             20010db8000000000000000000000000 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001 eth2\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n"
        );
        assert_eq!(
            default_interfaces_6(&six),
            BTreeSet::from(["eth1".to_owned()])
        );
        assert!(default_interfaces_6("nonsense\n\n").is_empty());
    }

    #[test]
    fn addresses_that_pass_are_not_told() {
        let table = "2a0000000000000000000000000000aa 02 40 00 80 eth0\n\
                     2a0000000000000000000000000000bb 02 40 00 01 eth0\n\
                     2a0000000000000000000000000000cc 02 40 00 20 eth0\n\
                     2a0000000000000000000000000000dd 02 40 00 40 eth0\n\
                     2a0000000000000000000000000000ee 03 40 00 80 eth1\n\
                     fe8000000000000000000000000000aa 02 40 20 80 eth0\n\
                     00000000000000000000000000000001 01 80 10 80 lo\n\
                     nonsense\n";
        let found = lasting_6(table, &BTreeSet::from(["eth0".to_owned()]));
        assert_eq!(found, ["2a00::aa".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn public_is_what_the_world_can_reach() {
        for (ip, expected) in [
            ("8.8.8.8", true),
            ("100.63.0.1", true),
            ("10.0.0.1", false),
            ("172.16.0.1", false),
            ("192.168.1.1", false),
            ("100.64.0.1", false),
            ("169.254.1.1", false),
            ("127.0.0.1", false),
            ("0.1.2.3", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("198.18.0.1", false),
            ("192.0.2.1", false),
            ("2a00::1", true),
            ("2001:db8::1", false),
            ("fd00::1", false),
            ("fe80::1", false),
            ("::1", false),
            ("::ffff:10.0.0.1", false),
        ] {
            assert_eq!(is_public(ip.parse().unwrap()), expected, "{ip}");
        }
    }
}
