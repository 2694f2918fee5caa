//! A DNS server that says what it is told to say, over UDP and TCP, and counts what it is asked.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

pub struct Dns {
    pub address: SocketAddr,
    script: Arc<Script>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

struct Script {
    /// By the name that is asked for, in lower case and without the last dot.
    answers: Mutex<HashMap<String, Vec<Record>>>,
    asked: Mutex<Vec<(String, RecordType)>>,
    silent: AtomicBool,
    broken: AtomicBool,
    over_tcp: AtomicUsize,
    /// Answers that may be given.
    gate: Semaphore,
    held: AtomicBool,
}

/// What does not fit into one datagram.
const DATAGRAM: usize = 1_232;

fn name(text: &str) -> Name {
    Name::from_ascii(format!("{text}.")).expect("a name")
}

pub fn record(owner: &str, data: RData) -> Record {
    Record::from_rdata(name(owner), 60, data)
}

pub fn to(target: &str) -> RData {
    RData::CNAME(CNAME(name(target)))
}

fn at(address: &str) -> RData {
    match address.parse().expect("an address") {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

impl Dns {
    pub async fn start() -> Dns {
        // One port for both.
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
            let address = tcp.local_addr().expect("bound");
            if let Ok(udp) = UdpSocket::bind(address).await {
                break (tcp, udp);
            }
        };
        let address = tcp.local_addr().expect("bound");
        let script = Arc::new(Script {
            answers: Mutex::default(),
            asked: Mutex::default(),
            silent: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            over_tcp: AtomicUsize::new(0),
            gate: Semaphore::new(0),
            held: AtomicBool::new(false),
        });
        let (datagrams, streams) = (script.clone(), script.clone());
        let udp = Arc::new(udp);
        let tasks = vec![
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                while let Ok((length, from)) = udp.recv_from(&mut bytes).await {
                    let (script, udp) = (datagrams.clone(), udp.clone());
                    let asked = bytes[..length].to_vec();
                    tokio::spawn(async move {
                        if let Some(answer) = script.answer(&asked, DATAGRAM).await {
                            let _ = udp.send_to(&answer, from).await;
                        }
                    });
                }
            }),
            tokio::spawn(async move {
                while let Ok((stream, _)) = tcp.accept().await {
                    streams.over_tcp.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(serve(stream, streams.clone()));
                }
            }),
        ];
        Dns {
            address,
            script,
            tasks,
        }
    }

    /// The records that are sent where this name is asked for, whatever they are of.
    pub fn says(&self, owner: &str, records: Vec<Record>) {
        let mut answers = self.script.answers.lock().expect("nobody panics with it");
        answers.insert(owner.to_owned(), records);
    }

    pub fn leads(&self, owner: &str, target: &str) {
        self.says(owner, vec![record(owner, to(target))]);
    }

    pub fn lies_at(&self, owner: &str, addresses: &[&str]) {
        let records = addresses.iter().map(|it| record(owner, at(it))).collect();
        self.says(owner, records);
    }

    /// Answer nothing at all.
    pub fn be_silent(&self, silent: bool) {
        self.script.silent.store(silent, Ordering::SeqCst);
    }

    /// Answer everything with SERVFAIL.
    pub fn be_broken(&self, broken: bool) {
        self.script.broken.store(broken, Ordering::SeqCst);
    }

    /// Hold answers back until [`Dns::release`].
    pub fn hold(&self) {
        self.script.held.store(true, Ordering::SeqCst);
    }

    pub fn release(&self) {
        self.script.held.store(false, Ordering::SeqCst);
        self.script.gate.add_permits(1_000);
    }

    /// What it was asked, of all names or of one.
    pub fn asked(&self, owner: Option<&str>) -> usize {
        let asked = self.script.asked.lock().expect("nobody panics with it");
        let of = asked
            .iter()
            .filter(|(it, _)| owner.is_none_or(|owner| owner == it));
        of.count()
    }

    pub fn names(&self) -> Vec<String> {
        let asked = self.script.asked.lock().expect("nobody panics with it");
        asked.iter().map(|(owner, _)| owner.clone()).collect()
    }

    pub fn over_tcp(&self) -> usize {
        self.script.over_tcp.load(Ordering::SeqCst)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Script {
    async fn answer(&self, asked: &[u8], most: usize) -> Option<Vec<u8>> {
        let asked = Message::from_vec(asked).ok()?;
        let query = asked.queries.first()?.clone();
        let owner = query.name().to_ascii().to_ascii_lowercase();
        let owner = owner.trim_end_matches('.').to_owned();
        let kind = query.query_type();
        (self.asked.lock().expect("nobody panics with it")).push((owner.clone(), kind));
        if self.held.load(Ordering::SeqCst) {
            self.gate.acquire().await.expect("it stays open").forget();
        }
        if self.silent.load(Ordering::SeqCst) {
            return None;
        }
        let mut answer = Message::response(asked.metadata.id, OpCode::Query);
        answer.metadata.recursion_desired = true;
        answer.metadata.recursion_available = true;
        answer.add_query(query);
        let answers = self.answers.lock().expect("nobody panics with it").clone();
        if self.broken.load(Ordering::SeqCst) {
            answer.metadata.response_code = ResponseCode::ServFail;
        } else if let Some(records) = answers.get(&owner) {
            let fits = |record: &&Record| {
                record.record_type() == kind || record.record_type() == RecordType::CNAME
            };
            answer.add_answers(records.iter().filter(fits).cloned());
        } else {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        let bytes = answer.to_vec().expect("an answer");
        if bytes.len() <= most {
            return Some(bytes);
        }
        answer.answers.clear();
        answer.metadata.truncation = true;
        Some(answer.to_vec().expect("an answer"))
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Script>) {
    while let Ok(length) = stream.read_u16().await {
        let mut asked = vec![0; usize::from(length)];
        if stream.read_exact(&mut asked).await.is_err() {
            return;
        }
        let Some(answer) = script.answer(&asked, usize::from(u16::MAX)).await else {
            continue;
        };
        let framed = [&(answer.len() as u16).to_be_bytes()[..], &answer].concat();
        if stream.write_all(&framed).await.is_err() {
            return;
        }
    }
}
