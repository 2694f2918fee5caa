//! A far end for machines: a network namespace behind a wire of the test's own, with servers in it
//! that tell who came.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Tells each caller the address that it came from.
pub const WHO: u16 = 7000;
/// Says something twenty times a second.
pub const TICKS: u16 = 7001;
/// Counts what it gets.
pub const DATAGRAMS: u16 = 7002;
pub const SOCKS: u16 = 1080;
pub const CONNECT: u16 = 3128;
/// What the name server at the far end says of any name.
pub const NAMED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
/// Who may use the proxies.
pub const USER: &str = "me";
pub const PASSWORD: &str = "p@ss";

/// The far end; gone when dropped, with all that listens there.
pub struct Far {
    namespace: String,
    /// The host's end of the wire.
    pub near: Ipv4Addr,
    pub address: Ipv4Addr,
    pub datagrams: Arc<AtomicUsize>,
    /// Connections that a proxy made for somebody who had the password.
    pub proxied: Arc<AtomicUsize>,
}

fn ip(words: &str) {
    let ran = Command::new("ip")
        .args(words.split(' '))
        .output()
        .expect("there is ip(8)");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "ip {words}: {said}");
}

impl Far {
    pub fn start() -> Far {
        let [a, b]: [u8; 2] = rand::random();
        let namespace = format!("hoodyfar{a:02x}{b:02x}");
        let b = b & !3;
        let (near, address) = (
            Ipv4Addr::new(100, 96, a, b + 1),
            Ipv4Addr::new(100, 96, a, b + 2),
        );
        let far = Far {
            near,
            address,
            datagrams: Arc::default(),
            proxied: Arc::default(),
            namespace,
        };
        let name = &far.namespace;
        let wire = name.replace("hoody", "h");
        ip(&format!("netns add {name}"));
        ip(&format!(
            "link add {wire}a type veth peer name {wire}b netns {name}"
        ));
        ip(&format!("addr add {near}/30 dev {wire}a"));
        ip(&format!("link set {wire}a up"));
        ip(&format!("-n {name} addr add {address}/30 dev {wire}b"));
        ip(&format!("-n {name} link set {wire}b up"));
        ip(&format!("-n {name} link set lo up"));
        far.serve();
        far
    }

    /// Threads begun by one that is in the namespace are in it, too.
    fn serve(&self) {
        let at = format!("/run/netns/{}", self.namespace);
        let (address, datagrams, proxied) =
            (self.address, self.datagrams.clone(), self.proxied.clone());
        let (up, ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let namespace = std::fs::File::open(at).expect("it was made");
            move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&namespace),
                Some(LinkNameSpaceType::Network),
            )
            .expect("root may enter it");
            let udp = UdpSocket::bind((address, DATAGRAMS)).expect("it is free");
            listen(address, WHO, |mut caller| {
                let from = caller.peer_addr()?.ip();
                caller.write_all(format!("{from}\n").as_bytes())
            });
            listen(address, TICKS, |mut caller| {
                loop {
                    caller.write_all(b"tick\n")?;
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
            listen(address, 53, name);
            let count = proxied.clone();
            listen(address, SOCKS, move |caller| socks(caller, &count));
            listen(address, CONNECT, move |caller| connect(caller, &proxied));
            up.send(()).expect("somebody waits");
            let mut bytes = [0; 2048];
            while udp.recv(&mut bytes).is_ok() {
                datagrams.fetch_add(1, Ordering::SeqCst);
            }
        });
        ready.recv().expect("the servers are up");
    }

    pub fn got(&self) -> usize {
        self.datagrams.load(Ordering::SeqCst)
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let wire = self.namespace.replace("hoody", "h");
        for words in [
            format!("link delete {wire}a"),
            format!("netns delete {}", self.namespace),
        ] {
            Command::new("ip").args(words.split(' ')).status().ok();
        }
    }
}

fn listen(
    address: Ipv4Addr,
    port: u16,
    serve: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) {
    let listener = TcpListener::bind((address, port)).expect("it is free");
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for caller in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(caller));
        }
    });
}

/// RFC 7766: one question, whatever it is, has [`NAMED`] for an answer.
fn name(mut caller: TcpStream) -> std::io::Result<()> {
    let mut length = [0; 2];
    caller.read_exact(&mut length)?;
    let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
    caller.read_exact(&mut question)?;
    let mut end = 12;
    while question[end] != 0 {
        end += 1 + usize::from(question[end]);
    }
    let is_address = question[end + 1..end + 3] == [0, 1];
    let mut answer = question[..end + 5].to_vec();
    answer[2] = 0x81;
    answer[3] = 0x80;
    answer[4..12].copy_from_slice(&[0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    if is_address {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(NAMED.octets());
    }
    let length = u16::try_from(answer.len())
        .expect("it is short")
        .to_be_bytes();
    caller.write_all(&[&length[..], &answer].concat())
}

fn carry(
    caller: TcpStream,
    to: SocketAddr,
    proxied: &AtomicUsize,
    yes: &[u8],
) -> std::io::Result<()> {
    let there = TcpStream::connect(to)?;
    proxied.fetch_add(1, Ordering::SeqCst);
    (&caller).write_all(yes)?;
    let (mut from, mut into) = (caller.try_clone()?, there.try_clone()?);
    std::thread::spawn(move || {
        std::io::copy(&mut from, &mut into).ok();
        into.shutdown(std::net::Shutdown::Write).ok();
    });
    std::io::copy(&mut &there, &mut &caller)?;
    caller.shutdown(std::net::Shutdown::Both)
}

fn socks(mut caller: TcpStream, proxied: &AtomicUsize) -> std::io::Result<()> {
    let mut head = [0; 2];
    caller.read_exact(&mut head)?;
    let mut methods = vec![0; usize::from(head[1])];
    caller.read_exact(&mut methods)?;
    if !methods.contains(&2) {
        return caller.write_all(&[5, 255]);
    }
    caller.write_all(&[5, 2])?;
    let mut said = Vec::new();
    caller.read_exact(&mut head)?;
    for _ in 0..2 {
        let mut text = vec![0; usize::from(head[1])];
        caller.read_exact(&mut text)?;
        said.push(text);
        if said.len() == 1 {
            caller.read_exact(&mut head[1..])?;
        }
    }
    if said != [USER.as_bytes(), PASSWORD.as_bytes()] {
        return caller.write_all(&[1, 1]);
    }
    caller.write_all(&[1, 0])?;
    let mut request = [0; 10];
    caller.read_exact(&mut request)?;
    let [_, _, _, _, a, b, c, d, high, low] = request;
    let to = SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low])));
    carry(caller, to, proxied, &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
}

fn connect(caller: TcpStream, proxied: &AtomicUsize) -> std::io::Result<()> {
    let mut lines = BufReader::new(caller.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut may = false;
    for line in lines {
        let line = line?;
        may |= line == "Proxy-Authorization: Basic bWU6cEBzcw==";
        if line.is_empty() {
            break;
        }
    }
    let to = first.split(' ').nth(1).and_then(|to| to.parse().ok());
    match to {
        Some(to) if may => carry(caller, to, proxied, b"HTTP/1.1 200 OK\r\n\r\n"),
        _ => (&caller).write_all(b"HTTP/1.1 407 Who?\r\n\r\n"),
    }
}
