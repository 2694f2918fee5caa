//! HTTP/2 by hand: frames as they are on the wire, right or wrong.

use std::time::Duration;

use tokio::time::error::Elapsed;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::rig::Rig;

/// For anything that must come.
const PATIENCE: Duration = Duration::from_secs(5);

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const WITH_PRIORITY: u8 = 0x20;

/// Error codes (RFC 9113, section 7).
pub mod code {
    pub const PROTOCOL: u32 = 1;
    pub const FLOW_CONTROL: u32 = 3;
    pub const STREAM_CLOSED: u32 = 5;
    pub const FRAME_SIZE: u32 = 6;
    pub const REFUSED: u32 = 7;
    pub const COMPRESSION: u32 = 9;
}

pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

pub fn fields(list: &[(&str, &str)]) -> Fields {
    let bytes = |text: &str| text.as_bytes().to_vec();
    list.iter()
        .map(|(name, value)| (bytes(name), bytes(value)))
        .collect()
}

/// Fields as literals that are not indexed (RFC 7541, section 6.2.2), without Huffman's code.
pub fn block(list: &Fields) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in list {
        block.push(0);
        for text in [name, value] {
            match text.len() {
                short if short < 127 => block.push(short as u8),
                long => {
                    block.push(127);
                    let mut rest = long - 127;
                    while rest >= 128 {
                        block.push((rest % 128) as u8 | 128);
                        rest /= 128;
                    }
                    block.push(rest as u8);
                }
            }
            block.extend_from_slice(text);
        }
    }
    block
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// One frame as it came.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// What became of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Status(u16),
    Reset(u32),
    GoAway(u32),
    Closed,
    /// Nothing came of it.
    Silent,
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A client that says what it is told to.
pub struct Raw {
    stream: Box<dyn Io>,
}

impl Raw {
    /// Over TLS, with the preface and empty settings sent.
    pub async fn tls(rig: &Rig, host: &str) -> Raw {
        let stream = rig.tls(host, &[b"h2"]).await.expect("a connection");
        let mut raw = Raw {
            stream: Box::new(stream),
        };
        raw.greet().await;
        raw
    }

    pub fn from(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Raw {
        Raw {
            stream: Box::new(stream),
        }
    }

    /// By prior knowledge, with the preface and empty settings sent.
    pub async fn plain(rig: &Rig) -> Raw {
        let mut raw = Raw::silent(rig).await;
        raw.greet().await;
        raw
    }

    /// By prior knowledge, with nothing sent.
    pub async fn silent(rig: &Rig) -> Raw {
        Raw {
            stream: Box::new(rig.tcp().await),
        }
    }

    pub async fn over(rig: &Rig, host: &str, h2c: bool) -> Raw {
        match h2c {
            true => Raw::plain(rig).await,
            false => Raw::tls(rig, host).await,
        }
    }

    async fn greet(&mut self) {
        self.send(PREFACE).await;
        self.send(&frame(kind::SETTINGS, 0, 0, &[])).await;
    }

    /// Write bytes; whether they were taken.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok() && self.stream.flush().await.is_ok()
    }

    pub async fn request(&mut self, stream: u32, headers: &Fields, body: &[&[u8]]) {
        let flags = END_HEADERS | if body.is_empty() { END_STREAM } else { 0 };
        self.send(&frame(kind::HEADERS, flags, stream, &block(headers)))
            .await;
        for (at, part) in body.iter().enumerate() {
            let last = at + 1 == body.len();
            self.send(&frame(kind::DATA, u8::from(last), stream, part))
                .await;
        }
    }

    /// The next frame; nothing at the end of the connection.
    pub async fn next(&mut self) -> Result<Option<Frame>, Elapsed> {
        let read = async {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            self.stream.read_exact(&mut payload).await.ok()?;
            Some(Frame {
                kind: head[3],
                flags: head[4],
                stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
                payload,
            })
        };
        tokio::time::timeout(PATIENCE, read).await
    }

    /// Read until it is known what became of a stream.
    pub async fn outcome(&mut self, stream: u32) -> Outcome {
        loop {
            match self.any_outcome().await {
                (0, outcome) => return outcome,
                (one, outcome) if one == stream => return outcome,
                _ => {}
            }
        }
    }

    /// Read until it is known what became of any stream; of stream 0, what of the connection.
    pub async fn any_outcome(&mut self) -> (u32, Outcome) {
        loop {
            let frame = match self.next().await {
                Ok(Some(frame)) => frame,
                Ok(None) => return (0, Outcome::Closed),
                Err(_) => return (0, Outcome::Silent),
            };
            let number = |at: usize| {
                let bytes = frame.payload.get(at..at + 4).expect("four bytes");
                u32::from_be_bytes(bytes.try_into().expect("four"))
            };
            let outcome = match frame.kind {
                kind::HEADERS => Outcome::Status(status(&frame.payload)),
                kind::RST_STREAM => Outcome::Reset(number(0)),
                kind::GOAWAY => return (0, Outcome::GoAway(number(4))),
                _ => continue,
            };
            return (frame.stream, outcome);
        }
    }

    /// Whether the connection still answers pings.
    pub async fn lives(&mut self) -> bool {
        let ping = frame(kind::PING, 0, 0, b"are you?");
        if !self.send(&ping).await {
            return false;
        }
        while let Ok(Some(frame)) = self.next().await {
            match frame.kind {
                kind::PING if frame.flags & ACK != 0 => return true,
                kind::GOAWAY => return false,
                _ => {}
            }
        }
        false
    }
}

/// The status, which comes first: indexed, or a literal whose digits may be in Huffman's code.
fn status(block: &[u8]) -> u16 {
    match block {
        // A table of another size comes first (RFC 7541, section 6.3).
        [0x20, rest @ ..] => status(rest),
        [0x88, ..] => 200,
        [0x89, ..] => 204,
        [0x8a, ..] => 206,
        [0x8b, ..] => 304,
        [0x8c, ..] => 400,
        [0x8d, ..] => 404,
        [0x8e, ..] => 500,
        [0x48 | 0x08 | 0x18, length, rest @ ..] => {
            let text = &rest[..usize::from(length & 0x7f)];
            let digits = match length & 0x80 {
                0 => String::from_utf8(text.to_vec()).expect("digits"),
                _ => huffman(text),
            };
            digits.parse().expect("a status")
        }
        other => panic!("no status in {other:?}"),
    }
}

/// Three digits in Huffman's code (RFC 7541, appendix B).
fn huffman(bytes: &[u8]) -> String {
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let codes = [
        ("00000", '0'),
        ("00001", '1'),
        ("00010", '2'),
        ("011001", '3'),
        ("011010", '4'),
        ("011011", '5'),
        ("011100", '6'),
        ("011101", '7'),
        ("011110", '8'),
        ("011111", '9'),
    ];
    let (mut rest, mut text) = (bits.as_str(), String::new());
    while text.len() < 3 {
        let (code, digit) = codes
            .iter()
            .find(|(code, _)| rest.starts_with(code))
            .expect("a digit");
        text.push(*digit);
        rest = &rest[code.len()..];
    }
    text
}
