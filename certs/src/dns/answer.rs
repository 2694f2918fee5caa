//! The answer to a message: bytes in, bytes out, and nothing else.
//!
//! A name server meets mostly strangers. So the counts of a message are looked at before anything
//! is read by them, an answer is never larger than what its asker can take, and what is no
//! question at all gets no answer, so that two servers cannot keep one another busy.

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::HINFO;
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::zone::{Found, Zone, Zones, key};

/// What fits into every path without fragments (RFC 9715, section 3.1; DNS flag day 2020).
pub const UDP_BYTES: u16 = 1_232;
/// What a client takes that says nothing (RFC 1035, section 4.2.1).
const PLAIN_UDP_BYTES: u16 = 512;
/// The header (RFC 1035, section 4.1.1).
const HEADER_BYTES: usize = 12;
/// A question has OPT and at most a signature beside it.
const MOST_ADDITIONAL: u16 = 2;
/// Seconds that others may keep that ANY is not answered in full (RFC 8482, section 4.2).
const ANY_TTL: u32 = 3_600;

/// How a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// Why a message gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// It is shorter than a header.
    Short,
    /// It is an answer itself.
    Answer,
}

impl Silence {
    pub fn reason(self) -> &'static str {
        match self {
            Silence::Short => "short",
            Silence::Answer => "answer",
        }
    }
}

/// What an answer is of: what is alike is limited together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Records,
    Nothing,
    Error,
}

/// An answer, and what is counted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub bytes: Vec<u8>,
    pub class: Class,
    /// What was asked for; nothing where it could not be read.
    pub kind: Option<RecordType>,
    pub code: ResponseCode,
    /// Where the question ends in `bytes`.
    question: usize,
}

impl Answer {
    /// The same without its records, so that whoever really asked comes back over TCP (TC, RFC
    /// 2181, section 9). It is no longer than the question was.
    pub fn shortened(mut self) -> Vec<u8> {
        const TRUNCATED: u8 = 0b10;
        self.bytes.truncate(self.question);
        self.bytes[2] |= TRUNCATED;
        self.bytes[6..HEADER_BYTES].fill(0); // no records in any section
        self.bytes
    }
}

/// What is said to `request`.
pub fn answer(zones: &Zones, request: &[u8], transport: Transport) -> Result<Answer, Silence> {
    let Some(header) = request.first_chunk::<HEADER_BYTES>() else {
        return Err(Silence::Short);
    };
    let header = Head::read(header);
    if header.is_answer {
        return Err(Silence::Answer);
    }
    match header.operation {
        OpCode::Query => {}
        OpCode::Notify | OpCode::Update => return Ok(header.refuse(ResponseCode::Refused)),
        _ => return Ok(header.refuse(ResponseCode::NotImp)),
    }
    let Some(asked) = Asked::read(&header, request) else {
        return Ok(header.refuse(ResponseCode::FormErr));
    };
    let mut message = asked.reply(&header);
    let class = decide(zones, &asked, &mut message);
    let kind = Some(asked.query.query_type());
    let limit = match (transport, &asked.edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, Some(edns)) => edns.max_payload().clamp(PLAIN_UDP_BYTES, UDP_BYTES),
        (Transport::Udp, None) => PLAIN_UDP_BYTES,
    };
    let code = message.metadata.response_code;
    let Some(bytes) = write(message, usize::from(limit)) else {
        return Ok(header.refuse(ResponseCode::ServFail));
    };
    Ok(Answer {
        question: asked.end.min(bytes.len()),
        bytes,
        class,
        kind,
        code,
    })
}

/// Write a message so that it fits: addresses of name servers may be left out, records of the
/// answer may not (RFC 2181, section 9).
fn write(mut message: Message, limit: usize) -> Option<Vec<u8>> {
    let bytes = message.to_vec().ok()?;
    if bytes.len() <= limit {
        return Some(bytes);
    }
    message.additionals.clear();
    let bytes = message.to_vec().ok()?;
    if bytes.len() <= limit {
        return Some(bytes);
    }
    message.truncate().to_vec().ok()
}

/// What a header says that matters before anything else is read.
struct Head {
    id: u16,
    is_answer: bool,
    operation: OpCode,
    wants_recursion: bool,
    /// Questions, answers, authorities, additionals.
    counts: [u16; 4],
}

impl Head {
    fn read(bytes: &[u8; HEADER_BYTES]) -> Head {
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        Head {
            id: word(0),
            is_answer: bytes[2] & 0x80 != 0,
            operation: OpCode::from_u8((bytes[2] >> 3) & 0xf),
            wants_recursion: bytes[2] & 1 != 0,
            counts: [word(4), word(6), word(8), word(10)],
        }
    }

    fn metadata(&self) -> Metadata {
        let mut metadata = Metadata::new(self.id, MessageType::Response, self.operation);
        metadata.recursion_desired = self.wants_recursion;
        metadata
    }

    /// An answer that repeats nothing of the message but its id.
    fn refuse(&self, code: ResponseCode) -> Answer {
        let mut message = Message::response(self.id, self.operation);
        message.metadata = self.metadata();
        message.metadata.response_code = code;
        Answer {
            bytes: message.to_vec().expect("a header can be written"),
            class: Class::Error,
            kind: None,
            code,
            question: HEADER_BYTES,
        }
    }
}

/// One question.
struct Asked {
    query: Query,
    edns: Option<Edns>,
    is_signed: bool,
    /// Where the question ends in the message.
    end: usize,
}

impl Asked {
    /// The question of a message; nothing where it is not exactly one, and well-formed.
    fn read(header: &Head, request: &[u8]) -> Option<Asked> {
        let [questions, answers, authorities, additionals] = header.counts;
        if questions != 1 || answers != 0 || authorities != 0 || additionals > MOST_ADDITIONAL {
            return None;
        }
        let mut decoder = BinDecoder::new(request);
        decoder.read_slice(HEADER_BYTES).ok()?;
        let query = Query::read(&mut decoder).ok()?;
        let end = decoder.index();
        let (others, edns, signature) =
            Message::read_records(&mut decoder, additionals.into(), true, OpCode::Query).ok()?;
        // Nothing but OPT and a signature belongs beside a question, and nothing behind it.
        if !others.is_empty() || !decoder.is_empty() {
            return None;
        }
        Some(Asked {
            query,
            edns,
            is_signed: signature.is_some(),
            end,
        })
    }

    /// An answer that says nothing yet. The question is repeated as it was written: its letters'
    /// case is how some resolvers know an answer for theirs.
    fn reply(&self, header: &Head) -> Message {
        let mut message = Message::response(header.id, header.operation);
        message.metadata = header.metadata();
        message.add_query(self.query.clone());
        if let Some(edns) = &self.edns {
            let mut ours = Edns::new();
            ours.set_max_payload(UDP_BYTES).set_version(0);
            ours.set_dnssec_ok(edns.flags().dnssec_ok);
            message.set_edns(ours);
        }
        message
    }
}

/// Fill in what is said.
fn decide(zones: &Zones, asked: &Asked, message: &mut Message) -> Class {
    let mut refuse = |code| {
        message.metadata.response_code = code;
        Class::Error
    };
    if asked.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return refuse(ResponseCode::BADVERS);
    }
    if asked.is_signed {
        // No key is known here (RFC 8945, section 5.2.1).
        return refuse(ResponseCode::NotAuth);
    }
    let kind = asked.query.query_type();
    match kind {
        RecordType::OPT | RecordType::TSIG => return refuse(ResponseCode::FormErr),
        RecordType::AXFR | RecordType::IXFR => return refuse(ResponseCode::Refused),
        _ => {}
    }
    if asked.query.query_class() != DNSClass::IN {
        return refuse(ResponseCode::Refused);
    }
    let at = key(asked.query.name());
    let Some(zone) = zones.of(&at) else {
        return refuse(ResponseCode::Refused);
    };
    message.metadata.authoritative = true;
    let owner = asked.query.name();
    if kind == RecordType::ANY {
        return match zone.find_any(&at) {
            // As little as can be said truthfully (RFC 8482, section 4.2).
            Found::Set(_) => {
                let any = HINFO::new("RFC8482".to_owned(), String::new());
                let any = Record::from_rdata(owner.clone(), ANY_TTL, RData::HINFO(any));
                message.add_answer(any);
                Class::Records
            }
            none => negative(zone, none, message),
        };
    }
    match zone.find(&at, kind) {
        Found::Set(set) => {
            for data in &set.data {
                message.add_answer(Record::from_rdata(owner.clone(), set.ttl, data.clone()));
            }
            if kind == RecordType::NS {
                add_addresses(zone, &set.data, message);
            }
            Class::Records
        }
        none => negative(zone, none, message),
    }
}

fn negative(zone: &Zone, found: Found<'_>, message: &mut Message) -> Class {
    if found == Found::NoName {
        message.metadata.response_code = ResponseCode::NXDomain;
    }
    message.add_authority(zone.negative().clone());
    Class::Nothing
}

/// The addresses of name servers that are in the zone.
fn add_addresses(zone: &Zone, servers: &[RData], message: &mut Message) {
    for server in servers {
        let RData::NS(server) = server else { continue };
        let at = key(server);
        if !zone.holds(&at) {
            continue;
        }
        for kind in [RecordType::A, RecordType::AAAA] {
            if let Found::Set(set) = zone.find(&at, kind) {
                for data in &set.data {
                    let name = server.0.clone();
                    message.add_additional(Record::from_rdata(name, set.ttl, data.clone()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
