//! Ports that something listens on.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use schemars::JsonSchema;
use serde::Serialize;

use super::processes::{Machine, Stat};

/// A port that a program listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Port {
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// The address it is bound to.
    pub ip: String,
    /// The program that listens; null where the kit may not see it.
    pub program: Option<String>,
    pub pid: Option<i32>,
    pub user: String,
}

struct Socket {
    address: IpAddr,
    port: u16,
    uid: u32,
    inode: u64,
}

/// Ports with a listener, by number.
pub fn listening() -> Vec<Port> {
    const LISTEN: &str = "0A"; // TCP_LISTEN
    const UNCONNECTED: &str = "07"; // TCP_CLOSE, which an unconnected UDP socket shows
    let tables = [
        ("tcp", "tcp", LISTEN),
        ("tcp", "tcp6", LISTEN),
        ("udp", "udp", UNCONNECTED),
        ("udp", "udp6", UNCONNECTED),
    ];
    let (machine, owners) = (Machine::look(), owners());
    let mut ports = Vec::new();
    for (protocol, table, state) in tables {
        let text = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        for socket in text.lines().skip(1).filter_map(|line| parse(line, state)) {
            let pid = owners.get(&socket.inode).copied();
            ports.push(Port {
                port: socket.port,
                protocol,
                ip: socket.address.to_string(),
                program: pid.and_then(Stat::of).map(|stat| stat.name),
                pid,
                user: machine.user(socket.uid),
            });
        }
    }
    ports.sort_by(|a, b| (a.port, a.protocol, &a.ip).cmp(&(b.port, b.protocol, &b.ip)));
    ports
}

/// One line of `/proc/net/{tcp,udp}[6]`, if its socket is in this state.
fn parse(line: &str, state: &str) -> Option<Socket> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    if fields.get(3) != Some(&state) {
        return None;
    }
    let (address, port) = fields.get(1)?.split_once(':')?;
    Some(Socket {
        address: parse_address(address)?,
        port: u16::from_str_radix(port, 16).ok()?,
        uid: fields.get(7)?.parse().ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// An address as the kernel writes it: words of 32 bits, each in the machine's byte order.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let text = text.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(text, 16).ok()?.to_ne_bytes())
    };
    match text.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(at)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

/// Who holds which socket.
fn owners() -> HashMap<u64, i32> {
    let mut owners = HashMap::new();
    for process in super::processes::all() {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{}/fd", process.pid)) else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else {
                continue;
            };
            let inode = target.to_str().and_then(|target| {
                target
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')?
                    .parse()
                    .ok()
            });
            if let Some(inode) = inode {
                owners.entry(inode).or_insert(process.pid);
            }
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = listening()
            .into_iter()
            .find(|found| found.port == port && found.protocol == "tcp")
            .unwrap();
        assert_eq!(found.ip, "127.0.0.1");
        assert_eq!(found.pid, Some(std::process::id() as i32));
    }

    #[test]
    fn broken_lines_are_no_ports() {
        for line in [
            "",
            "0: x",
            "0: 0100007F:ZZZZ 0 0A",
            "0: 01:1F90 00000000:0000 0A 0 0 0 0 0 1",
        ] {
            assert!(parse(line, "0A").is_none(), "{line}");
        }
    }
}
