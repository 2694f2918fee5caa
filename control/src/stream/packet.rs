//! The packets of Engine.IO 4 and Socket.IO 5, as far as a client that only listens needs them.
//!
//! <https://socket.io/docs/v4/engine-io-protocol/>,
//! <https://socket.io/docs/v4/socket-io-protocol/>

use serde::Deserialize;
use serde_json::{Value, json};

/// Between the packets of one body.
pub const SEPARATOR: char = '\u{1e}';

pub const PING: &str = "2";
pub const PROBED: &str = "3probe";
pub const NOOP: &str = "6";
/// The server ends the connection to the namespace.
pub const DISCONNECT: &str = "41";

/// What a client sends.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet {
    Close,
    Pong,
    /// Whether a WebSocket passes both ways, before the session moves to it.
    Probe,
    Upgrade,
    Nothing,
    Connect(Option<String>),
    /// To a namespace that there is not.
    Elsewhere(String),
    Disconnect,
    /// An event of the client's, for which nobody listens.
    Event,
}

/// The payload of a CONNECT.
#[derive(Deserialize)]
struct Auth {
    token: Option<String>,
}

/// Read a packet; nothing where it is none that a client may send.
pub fn read(text: &str) -> Option<Packet> {
    let mut rest = text.chars();
    let kind = rest.next()?;
    let rest = rest.as_str();
    match (kind, rest) {
        ('1', "") => Some(Packet::Close),
        ('2', "probe") => Some(Packet::Probe),
        ('3', _) => Some(Packet::Pong),
        ('4', message) => read_message(message),
        ('5', "") => Some(Packet::Upgrade),
        ('6', "") => Some(Packet::Nothing),
        _ => None,
    }
}

fn read_message(text: &str) -> Option<Packet> {
    let mut rest = text.chars();
    let kind = rest.next()?;
    let mut rest = rest.as_str();
    let mut namespace = "/";
    if rest.starts_with('/') {
        (namespace, rest) = rest.split_once(',').unwrap_or((rest, ""));
    }
    let plain = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"/-_.".contains(&b))
    };
    match kind {
        '0' if namespace != "/" => {
            plain(namespace).then(|| Packet::Elsewhere(namespace.to_owned()))
        }
        '0' if rest.is_empty() => Some(Packet::Connect(None)),
        '0' => {
            let auth: Auth = serde_json::from_str(rest).ok()?;
            Some(Packet::Connect(auth.token))
        }
        '1' => Some(Packet::Disconnect),
        '2' | '3' => Some(Packet::Event),
        _ => None,
    }
}

/// The first packet of a session.
pub fn open(sid: &str, may_upgrade: bool, ping: u128, patience: u128, most: usize) -> String {
    let upgrades: &[&str] = if may_upgrade { &["websocket"] } else { &[] };
    let open = json!({
        "sid": sid,
        "upgrades": upgrades,
        "pingInterval": u64::try_from(ping).unwrap_or(u64::MAX),
        "pingTimeout": u64::try_from(patience).unwrap_or(u64::MAX),
        "maxPayload": most,
    });
    format!("0{open}")
}

pub fn connected(sid: &str) -> String {
    format!("40{}", json!({ "sid": sid }))
}

/// A CONNECT is refused; `data` is what clients find beside the message.
pub fn refused(namespace: &str, message: &str, data: &Value) -> String {
    let place = if namespace == "/" {
        String::new()
    } else {
        format!("{namespace},")
    };
    format!("44{place}{}", json!({ "message": message, "data": data }))
}

/// The event `message` with this payload.
pub fn message(payload: &Value) -> String {
    format!("42{}", json!(["message", payload]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_clients() {
        let connect = |token: &str| Some(Packet::Connect(Some(token.to_owned())));
        for (text, want) in [
            ("1", Some(Packet::Close)),
            ("2probe", Some(Packet::Probe)),
            ("3", Some(Packet::Pong)),
            ("5", Some(Packet::Upgrade)),
            ("40", Some(Packet::Connect(None))),
            ("40{}", Some(Packet::Connect(None))),
            ("40{\"token\":null}", Some(Packet::Connect(None))),
            ("40{\"token\":\"t\"}", connect("t")),
            ("40/,{\"token\":\"t\"}", connect("t")),
            (
                "40/admin,{\"token\":\"t\"}",
                Some(Packet::Elsewhere("/admin".into())),
            ),
            ("40/admin", Some(Packet::Elsewhere("/admin".into()))),
            ("40/\"x", None),
            ("40{\"token\":7}", None),
            ("40[", None),
            ("41", Some(Packet::Disconnect)),
            ("42[\"hello\"]", Some(Packet::Event)),
            ("451-[\"b\"]", None),
            ("2", None),
            ("", None),
            ("4", None),
            ("bAAAA", None),
            ("ä", None),
        ] {
            assert_eq!(read(text), want, "{text}");
        }
    }
}
