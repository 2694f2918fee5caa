//! A name server that says what a test tells it to.

use std::net::SocketAddr;
use std::sync::Arc;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS};
use hickory_proto::rr::{Name, RData, Record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::answer::Transport;
use super::zone::name;

/// What is said to the bytes of a message over a transport.
pub type Script = Arc<dyn Fn(&[u8], Transport) -> Option<Vec<u8>> + Send + Sync>;

/// Ends with this.
pub struct Scripted {
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Scripted {
    pub async fn start(at: SocketAddr, script: Script) -> std::io::Result<Scripted> {
        let tcp = TcpListener::bind(at).await?;
        let address = tcp.local_addr()?;
        let udp = UdpSocket::bind(address).await?;
        let mut tasks = JoinSet::new();
        let over_udp = script.clone();
        tasks.spawn(async move {
            let mut buffer = vec![0; 64 << 10];
            while let Ok((length, client)) = udp.recv_from(&mut buffer).await {
                if let Some(answer) = over_udp(&buffer[..length], Transport::Udp) {
                    let _ = udp.send_to(&answer, client).await;
                }
            }
        });
        tasks.spawn(async move {
            while let Ok((stream, _)) = tcp.accept().await {
                tokio::spawn(over_tcp(stream, script.clone()));
            }
        });
        Ok(Scripted {
            address,
            _tasks: tasks,
        })
    }
}

async fn over_tcp(mut stream: TcpStream, script: Script) -> std::io::Result<()> {
    loop {
        let mut question = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut question).await?;
        let Some(answer) = script(&question, Transport::Tcp) else {
            return Ok(());
        };
        stream.write_u16(answer.len() as u16).await?;
        stream.write_all(&answer).await?;
    }
}

/// An answer to a message, with nothing in it.
pub fn reply(question: &Message) -> Message {
    let mut reply = Message::response(question.metadata.id, question.metadata.op_code);
    reply.add_queries(question.queries.iter().cloned());
    reply
}

pub fn whole(text: &str) -> Name {
    name(text).expect("a name")
}

pub fn ns(zone: &str, server: &str) -> Record {
    Record::from_rdata(whole(zone), 300, RData::NS(NS(whole(server))))
}

pub fn address(host: &str, ip: &str) -> Record {
    let data = match ip.parse().expect("an address") {
        std::net::IpAddr::V4(ip) => RData::A(A(ip)),
        std::net::IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    };
    Record::from_rdata(whole(host), 300, data)
}

pub fn alias(host: &str, of: &str) -> Record {
    Record::from_rdata(whole(host), 300, RData::CNAME(CNAME(whole(of))))
}

/// A zone with cuts in it, as a provider keeps it. `*.` in front of an owner stands for one label.
#[derive(Clone, Default)]
pub struct Provider {
    pub zone: String,
    pub records: Vec<Record>,
    /// NS records of zones below, and the addresses of their servers.
    pub cuts: Vec<Record>,
    pub glue: Vec<Record>,
}

impl Provider {
    pub fn script(self) -> Script {
        Arc::new(move |bytes, _| {
            let question = Message::from_vec(bytes).ok()?;
            self.answer(&question).to_vec().ok()
        })
    }

    fn answer(&self, question: &Message) -> Message {
        let mut reply = reply(question);
        let query = &question.queries[0];
        let asked = query.name();
        let cut = self.cuts.iter().find(|cut| cut.name.zone_of(asked));
        if let Some(cut) = cut {
            let servers = self.cuts.iter().filter(|it| it.name == cut.name);
            reply.add_authorities(servers.cloned());
            reply.add_additionals(self.glue.iter().cloned());
            return reply;
        }
        if self.zone != "." && !whole(&self.zone).zone_of(asked) {
            reply.metadata.response_code = ResponseCode::Refused;
            return reply;
        }
        reply.metadata.authoritative = true;
        let stands = |record: &&Record| {
            record.name == *asked
                || (record.name.is_wildcard() && record.name.base_name() == asked.base_name())
        };
        let mut exists = self.zone != "." && *asked == whole(&self.zone);
        for record in self.records.iter().filter(stands) {
            exists = true;
            if record.record_type() == query.query_type() || record.record_type().is_cname() {
                let mut record = record.clone();
                record.name = asked.clone();
                reply.add_answer(record);
            }
        }
        let is_above = |record: &Record| asked.zone_of(&record.name);
        if !exists && !self.records.iter().any(is_above) {
            reply.metadata.response_code = ResponseCode::NXDomain;
        }
        reply
    }
}
