//! Questions to other name servers, one at a time, to exactly the server that is named.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::{DEFAULT_MAX_PAYLOAD_LEN, Edns, Message, Query};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::answer::Transport;

/// The largest datagram there is.
const DATAGRAM_BYTES: usize = 64 << 10;
/// Datagrams that are no answer to the question and are passed over; then the wait is over.
const STRAYS: usize = 64;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("{server} does not answer over {}", word(*.transport))]
    Late {
        server: SocketAddr,
        transport: Transport,
    },
    #[error("{server} cannot be reached over {}", word(*.transport))]
    Reach {
        server: SocketAddr,
        transport: Transport,
        #[source]
        source: io::Error,
    },
    #[error("{server} answers with what is no answer: {what}")]
    Nonsense { server: SocketAddr, what: String },
}

pub fn word(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "UDP",
        Transport::Tcp => "TCP",
    }
}

/// A question that asks for no recursion.
pub fn question(name: &Name, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = false;
    message.add_query(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(DEFAULT_MAX_PAYLOAD_LEN).set_version(0);
    message.set_edns(edns);
    message
}

/// Ask over UDP, and over TCP where the answer does not fit.
pub async fn ask(
    server: SocketAddr,
    question: &Message,
    patience: Duration,
) -> Result<Message, AskError> {
    let answer = ask_over(Transport::Udp, server, question, patience).await?;
    if answer.metadata.truncation {
        return ask_over(Transport::Tcp, server, question, patience).await;
    }
    Ok(answer)
}

/// Ask one way, and no other.
pub async fn ask_over(
    transport: Transport,
    server: SocketAddr,
    question: &Message,
    patience: Duration,
) -> Result<Message, AskError> {
    let nonsense = |what: String| AskError::Nonsense { server, what };
    let bytes = question
        .to_vec()
        .map_err(|error| nonsense(error.to_string()))?;
    let answer = exchange(transport, server, &bytes, patience).await?;
    let answer = Message::from_vec(&answer).map_err(|error| nonsense(error.to_string()))?;
    // A refusal may leave the question out (RFC 1035 does not ask for it there).
    if !answer.queries.is_empty() && answer.queries != question.queries {
        return Err(nonsense("it is of another question".to_owned()));
    }
    Ok(answer)
}

/// Send a message and take the answer with its id.
pub async fn exchange(
    transport: Transport,
    server: SocketAddr,
    message: &[u8],
    patience: Duration,
) -> Result<Vec<u8>, AskError> {
    let exchanged = async {
        match transport {
            Transport::Udp => over_udp(server, message).await,
            Transport::Tcp => over_tcp(server, message).await,
        }
    };
    match timeout(patience, exchanged).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(AskError::Reach {
            server,
            transport,
            source,
        }),
        Err(_) => Err(AskError::Late { server, transport }),
    }
}

/// From a port of its own, connected: the kernel lets nobody else's datagrams through.
async fn over_udp(server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(message).await?;
    let mut buffer = vec![0; DATAGRAM_BYTES];
    for _ in 0..STRAYS {
        let length = socket.recv(&mut buffer).await?;
        if is_answer(message, &buffer[..length]) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
    Err(io::Error::other("only answers to other questions came"))
}

async fn over_tcp(server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let framed = [&length.to_be_bytes(), message].concat();
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    if is_answer(message, &answer) {
        Ok(answer)
    } else {
        Err(io::Error::other("the answer is to another question"))
    }
}

/// Whether the id is ours, and it is an answer at all.
fn is_answer(question: &[u8], answer: &[u8]) -> bool {
    answer.len() >= 12 && answer[..2] == question[..2] && answer[2] & 0x80 != 0
}
