//! The PROXY protocol: what a load balancer in front says about the client it speaks for.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, versions 1 and 2. It is spoken
//! by the stated senders and nobody else: they must, for without it their own address would pass
//! for the client's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use tokio::io::{AsyncRead, AsyncReadExt};

/// A range of addresses, such as `10.0.0.0/8` or `fd00::/8`; an address alone is a range of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no [`Network`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no range of addresses; write it as 10.0.0.0/8 or fd00::/8")]
pub struct NoNetwork(String);

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Network, NoNetwork> {
        let bad = || NoNetwork(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| bad())?,
            None => whole,
        };
        if prefix > whole {
            return Err(bad());
        }
        Ok(Network { address, prefix })
    }
}

impl Network {
    /// Whether it holds this address; an IPv4 address may be written as an IPv6 one.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differ = u32::from(own) ^ u32::from(other);
                differ.leading_zeros() >= u32::from(self.prefix)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differ = u128::from(own) ^ u128::from(other);
                differ.leading_zeros() >= u32::from(self.prefix)
            }
            _ => false,
        }
    }
}

/// The longest header of version 1.
const V1_BYTES: usize = 107;
/// What both versions have at least, and by which they are told apart.
const HEAD: usize = 12;
const V2_SIGNATURE: &[u8; HEAD] = b"\r\n\r\n\0\r\nQUIT\n";
/// Addresses and extensions of version 2: those of TLS with a long name fit with room to spare.
const V2_BYTES: usize = 2_048;

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub enum NoSender {
    #[error("the connection ended before its header")]
    Read(#[from] io::Error),
    #[error("the header is malformed: {0}")]
    Malformed(&'static str),
}

/// Read one header and not a byte more. Nothing where the sender speaks for itself.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, NoSender> {
    let mut header = vec![0; HEAD];
    stream.read_exact(&mut header).await?;
    if header == V2_SIGNATURE {
        let mut fixed = [0; 4];
        stream.read_exact(&mut fixed).await?;
        let length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        if length > V2_BYTES {
            return Err(NoSender::Malformed("it is too long"));
        }
        let mut rest = vec![0; length];
        stream.read_exact(&mut rest).await?;
        return v2(fixed[0], fixed[1], &rest).map_err(NoSender::Malformed);
    }
    if !header.starts_with(b"PROXY ") {
        return Err(NoSender::Malformed("there is none"));
    }
    while !header.ends_with(b"\n") {
        if header.len() == V1_BYTES {
            return Err(NoSender::Malformed("it is too long"));
        }
        header.push(stream.read_u8().await?);
    }
    v1(&header).map_err(NoSender::Malformed)
}

/// One line, with its end (section 2.1).
fn v1(line: &[u8]) -> Result<Option<SocketAddr>, &'static str> {
    let line = line
        .strip_suffix(b"\r\n")
        .ok_or("its line does not end in CR and LF")?;
    let line = std::str::from_utf8(line).map_err(|_| "it is not ASCII")?;
    let mut words = line.split(' ');
    if words.next() != Some("PROXY") {
        return Err("it does not begin with PROXY");
    }
    let family = words.next();
    if family == Some("UNKNOWN") {
        // What follows is to be passed over.
        return Ok(None);
    }
    let mut word = || words.next().ok_or("it lacks an address or a port");
    let (from, to) = (word()?, word()?);
    let ports = (word()?, word()?);
    let bad = |_| "it has an address of another family";
    let from = match family {
        Some("TCP4") => {
            to.parse::<Ipv4Addr>().map_err(bad)?;
            IpAddr::V4(from.parse().map_err(bad)?)
        }
        Some("TCP6") => {
            to.parse::<Ipv6Addr>().map_err(bad)?;
            IpAddr::V6(from.parse().map_err(bad)?)
        }
        _ => return Err("its family is unknown"),
    };
    if words.next().is_some() {
        return Err("something follows its ports");
    }
    let port = |text: &str| {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let number: Option<u16> = text.parse().ok().filter(|_| plain);
        number.ok_or("a port is no number")
    };
    port(ports.1)?;
    Ok(Some(SocketAddr::new(from, port(ports.0)?)))
}

/// What follows the signature, and what follows the length (section 2.2).
fn v2(version: u8, family: u8, rest: &[u8]) -> Result<Option<SocketAddr>, &'static str> {
    match version {
        // Health checks of the sender itself.
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err("its version or command is unknown"),
    }
    let port = |at: usize| -> Option<u16> {
        let bytes = rest.get(at..at + 2)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    };
    let client = match family {
        // UNSPEC, and sockets of the sender's own machine.
        0x00 | 0x31 => return Ok(None),
        0x11 => {
            let from: Option<[u8; 4]> = rest.get(..4).and_then(|it| it.try_into().ok());
            from.map(IpAddr::from)
                .zip(port(8))
                .filter(|_| rest.len() >= 12)
        }
        0x21 => {
            let from: Option<[u8; 16]> = rest.get(..16).and_then(|it| it.try_into().ok());
            from.map(IpAddr::from)
                .zip(port(32))
                .filter(|_| rest.len() >= 36)
        }
        _ => return Err("its family is unknown"),
    };
    let (address, port) = client.ok_or("it is shorter than its addresses")?;
    Ok(Some(SocketAddr::new(address, port)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Read from these bytes; what was left of them comes back too.
    fn from(bytes: &[u8]) -> (Result<Option<SocketAddr>, String>, usize) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let mut rest = bytes;
        let read = runtime.block_on(read(&mut rest));
        (read.map_err(|error| error.to_string()), rest.len())
    }

    fn binary(version: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [&V2_SIGNATURE[..], &[version, family], &length, rest].concat()
    }

    #[test]
    fn a_line_names_the_client() {
        let line = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\nGET / HTTP/1.1";
        let client = "192.0.2.7:4711".parse().expect("an address");
        assert_eq!(from(line), (Ok(Some(client)), 14));
        let line = b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n";
        let client = "[2001:db8::7]:4711".parse().expect("an address");
        assert_eq!(from(line), (Ok(Some(client)), 0));
        assert_eq!(from(b"PROXY UNKNOWN\r\nx"), (Ok(None), 1));
        assert_eq!(from(b"PROXY UNKNOWN a b 1 2\r\n"), (Ok(None), 0));
    }

    #[test]
    fn other_lines_are_refused() {
        for line in [
            "",
            "PROXY",
            "GET / HTTP/1.1\r\n\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443 1\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 4711 +443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 99999 443\r\n",
            "PROXY TCP4  192.0.2.7 198.51.100.1 4711 443\r\n",
            "PROXY TCP4 2001:db8::7 198.51.100.1 4711 443\r\n",
            "PROXY TCP4 192.0.2.7 2001:db8::7 4711 443\r\n",
            "PROXY TCP6 192.0.2.7 192.0.2.8 4711 443\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 4711 443\r\n",
            "proxy TCP4 192.0.2.7 198.51.100.1 4711 443\r\n",
        ] {
            assert!(from(line.as_bytes()).0.is_err(), "{line:?}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(200));
        let (read, rest) = from(long.as_bytes());
        assert!(read.is_err() && rest == long.len() - V1_BYTES);
    }

    #[test]
    fn a_binary_header_names_the_client() {
        let four = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 1, 187];
        let client = "192.0.2.7:4711".parse().expect("an address");
        let mut header = binary(0x21, 0x11, &four);
        header.push(b'x');
        assert_eq!(from(&header), (Ok(Some(client)), 1));
        // Extensions are passed over.
        let more = [&four[..], &[3, 0, 1, 9]].concat();
        assert_eq!(from(&binary(0x21, 0x11, &more)), (Ok(Some(client)), 0));
        let six: Vec<u8> = [[0x20; 32].as_slice(), &[0, 80, 0, 81]].concat();
        let (read, rest) = from(&binary(0x21, 0x21, &six));
        assert_eq!(
            (read.expect("a client").expect("one").port(), rest),
            (80, 0)
        );
        for (version, family) in [(0x20, 0x11), (0x20, 0), (0x21, 0), (0x21, 0x31)] {
            assert_eq!(from(&binary(version, family, &four)), (Ok(None), 0));
        }
    }

    #[test]
    fn other_binary_headers_are_refused() {
        let four = [0; 12];
        for (version, family) in [
            (0x22, 0x11),
            (0x11, 0x11),
            (0x31, 0x11),
            (0x21, 0x12),
            (0x21, 0x41),
        ] {
            assert!(from(&binary(version, family, &four)).0.is_err());
        }
        assert!(from(&binary(0x21, 0x11, &four[..11])).0.is_err());
        assert!(from(&binary(0x21, 0x21, &[0; 35])).0.is_err());
        assert!(from(&binary(0x21, 0x11, &[0; V2_BYTES])).0.is_ok());
        assert!(from(&binary(0x21, 0x11, &[0; V2_BYTES + 1])).0.is_err());
        assert!(from(&binary(0x21, 0x11, &four)[..20]).0.is_err());
    }

    #[test]
    fn networks_hold_their_addresses() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::/0", "2001:db8::1", "192.0.2.1"),
            ("192.0.2.0/24", "::ffff:192.0.2.9", "::ffff:192.0.3.9"),
        ] {
            let network: Network = network.parse().expect("a network");
            assert!(
                network.contains(inside.parse().expect("an address")),
                "{network:?}"
            );
            assert!(
                !network.contains(outside.parse().expect("an address")),
                "{network:?}"
            );
        }
        for text in ["", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "x", "::/129"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read_in_bounds(
            version in 0u8..3,
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = match version {
                0 => bytes,
                1 => [b"PROXY ".as_slice(), &bytes].concat(),
                _ => [V2_SIGNATURE.as_slice(), &bytes].concat(),
            };
            let (read, rest) = from(&bytes);
            let taken = bytes.len() - rest;
            prop_assert!(taken <= HEAD + 4 + V2_BYTES);
            if read.is_ok() && version == 1 {
                prop_assert!(bytes[..taken].ends_with(b"\r\n") && taken <= V1_BYTES);
            }
        }

        #[test]
        fn what_a_sender_says_is_heard(address: IpAddr, port: u16, rest: Vec<u8>) {
            let client = SocketAddr::new(address, port);
            let (name, family) = match address {
                IpAddr::V4(_) => ("TCP4", 0x11),
                IpAddr::V6(_) => ("TCP6", 0x21),
            };
            let line = format!("PROXY {name} {address} {address} {port} 443\r\n");
            let whole = [line.as_bytes(), &rest].concat();
            prop_assert_eq!(from(&whole), (Ok(Some(client)), rest.len()));
            let octets = match address {
                IpAddr::V4(four) => four.octets().to_vec(),
                IpAddr::V6(six) => six.octets().to_vec(),
            };
            let ports = [port.to_be_bytes(), [1, 187]].concat();
            let header = binary(0x21, family, &[octets.clone(), octets, ports].concat());
            let whole = [header, rest.clone()].concat();
            prop_assert_eq!(from(&whole), (Ok(Some(client)), rest.len()));
        }
    }
}
