//! Whether the addresses of a node are free, and who has those that are not.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

/// An address that cannot be listened on.
#[derive(Debug)]
pub struct Refused {
    address: SocketAddr,
    error: io::Error,
    holder: Option<Holder>,
    /// What else can be done, in words.
    remedy: &'static str,
}

/// Addresses to listen on, and what to do where that cannot be.
pub struct Wanted {
    pub addresses: Vec<SocketAddr>,
    /// `choose other ports with --http PORT and --https PORT`
    pub remedy: &'static str,
}

/// Who listens there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    pid: u32,
    program: String,
}

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refused {
            address,
            error,
            holder,
            remedy,
        } = self;
        let port = address.port();
        match (error.kind(), holder) {
            (io::ErrorKind::AddrInUse, Some(Holder { pid, program })) => {
                write!(
                    f,
                    "port {port} is taken by {program} (process {pid}), which listens on {address}; stop it"
                )?;
            }
            (io::ErrorKind::AddrInUse, None) => {
                write!(
                    f,
                    "port {port} on {} is taken by a program that could not be found out; stop it",
                    address.ip()
                )?;
            }
            (io::ErrorKind::PermissionDenied, _) => {
                write!(f, "port {port} is for root alone; run as root")?;
            }
            (io::ErrorKind::AddrNotAvailable, _) => {
                return write!(
                    f,
                    "{} is not an address of this machine; name another with --bind",
                    address.ip()
                );
            }
            _ => return write!(f, "could not listen on {address}: {error}"),
        }
        write!(f, ", or {remedy}")
    }
}

/// The addresses of `wanted` that this machine has: many have no IPv6.
pub fn present(wanted: &[IpAddr]) -> Vec<IpAddr> {
    let is_there = |ip: &&IpAddr| ip.is_ipv4() || TcpListener::bind((**ip, 0)).is_ok();
    wanted.iter().filter(is_there).copied().collect()
}

/// Fails with the first address that cannot be listened on. What the processes `ours` hold counts as
/// free.
pub fn check(wanted: &Wanted, ours: &[u32]) -> Result<(), Refused> {
    let remedy = wanted.remedy;
    for &address in &wanted.addresses {
        if let Err(error) = TcpListener::bind(address) {
            let holder = if error.kind() == io::ErrorKind::AddrInUse {
                holder(address)
            } else {
                None
            };
            if holder
                .as_ref()
                .is_some_and(|holder| ours.contains(&holder.pid))
            {
                continue;
            }
            return Err(Refused {
                address,
                error,
                holder,
                remedy,
            });
        }
    }
    Ok(())
}

/// The process that listens on an address, as far as we may see it.
fn holder(address: SocketAddr) -> Option<Holder> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let sockets: Vec<u64> = tables
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| table.lines().filter_map(listener).collect::<Vec<_>>())
        .filter(|(listening, _)| collide(*listening, address))
        .map(|(_, inode)| inode)
        .collect();
    processes()
        .find(|pid| sockets.iter().any(|inode| has_socket(*pid, *inode)))
        .map(|pid| Holder {
            pid,
            program: fs::read_to_string(format!("/proc/{pid}/comm"))
                .unwrap_or_default()
                .trim()
                .to_owned(),
        })
}

/// Whether one socket keeps another from listening.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let all = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && (all || one.ip() == other.ip())
}

/// The address and inode of a listening socket in a line of `/proc/net/tcp` (proc_net(5)).
fn listener(line: &str) -> Option<(SocketAddr, u64)> {
    const LISTENING: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    if *fields.get(3)? != LISTENING {
        return None;
    }
    let (ip, port) = fields[1].split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((
        SocketAddr::new(address(ip)?, port),
        fields.get(9)?.parse().ok()?,
    ))
}

/// An address as the kernel prints it: words of 32 bits, each in the byte order of the machine.
fn address(hex: &str) -> Option<IpAddr> {
    if !hex.is_ascii() {
        return None;
    }
    let word = |at: usize| {
        let word = u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for at in 0..4 {
                bytes[at * 4..at * 4 + 4].copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn has_socket(pid: u32, inode: u64) -> bool {
    let wanted = format!("socket:[{inode}]");
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    entries
        .flatten()
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == &*wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(address: SocketAddr) -> Wanted {
        Wanted {
            addresses: vec![address],
            remedy: "go elsewhere",
        }
    }

    #[test]
    fn whoever_holds_a_port_is_named() {
        for host in ["127.0.0.1", "0.0.0.0"] {
            let socket = TcpListener::bind((host, 0)).unwrap();
            let port = socket.local_addr().unwrap().port();
            let refused =
                check(&wanted(([127, 0, 0, 1], port).into()), &[1]).expect_err("it is taken");
            let holder = refused.holder.clone().expect("it is this process");
            assert_eq!(holder.pid, std::process::id());
            let text = refused.to_string();
            assert!(
                text.contains(&format!("port {port} is taken by {}", holder.program)),
                "{text}"
            );
            assert!(text.contains("stop it, or go elsewhere"), "{text}");
            check(
                &wanted(([127, 0, 0, 1], port).into()),
                &[std::process::id()],
            )
            .expect("it is ours");
        }
    }

    #[test]
    fn a_free_port_is_free() {
        let socket = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = socket.local_addr().unwrap();
        drop(socket);
        check(&wanted(address), &[]).unwrap();
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        let refused = check(&wanted("192.0.2.77:0".parse().unwrap()), &[]).expect_err("not ours");
        assert!(
            refused
                .to_string()
                .contains("not an address of this machine"),
            "{refused}"
        );
    }

    #[test]
    fn lines_of_the_kernel_are_read() {
        let line = |address: &str, state: &str| {
            format!(
                "   0: {address}:01BB 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0"
            )
        };
        let little = cfg!(target_endian = "little");
        let loopback = if little { "0100007F" } else { "7F000001" };
        let six = if little {
            "00000000000000000000000001000000"
        } else {
            "00000000000000000000000000000001"
        };
        for (line, expected) in [
            (line(loopback, "0A"), Some("127.0.0.1:443")),
            (line(six, "0A"), Some("[::1]:443")),
            (
                line("00000000000000000000000000000000", "0A"),
                Some("[::]:443"),
            ),
            (line(loopback, "01"), None),
            (line("xyz", "0A"), None),
            ("  sl  local_address rem_address   st".to_owned(), None),
            (String::new(), None),
        ] {
            let found = listener(&line).map(|(address, inode)| (address.to_string(), inode));
            assert_eq!(
                found,
                expected.map(|address| (address.to_owned(), 4711)),
                "{line}"
            );
        }
    }
}
