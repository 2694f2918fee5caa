//! Requests that two readers could read in two ways. Each is refused, or reaches the kit as exactly
//! one request that means what it should; and never does a part of it meet the next request on the
//! kit's connection.

use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::frames::{Fields, Outcome, Raw, fields};
use crate::recorder::{Recorded, Recorder};
use crate::rig::{Container, Rig};

struct Trial {
    rig: Rig,
    web: Container,
    recorder: Recorder,
    failed: Mutex<Vec<String>>,
}

/// All cases are tried before any of them fails the test.
impl Drop for Trial {
    fn drop(&mut self) {
        let failed = std::mem::take(&mut *self.failed.lock().expect("no panic"));
        if !std::thread::panicking() {
            assert!(failed.is_empty(), "{}", failed.join("\n\n"));
        }
    }
}

impl Trial {
    async fn start() -> Trial {
        let mut rig = Rig::with(|config| {
            config.limits.body = Duration::from_millis(400);
            config.limits.headers = Duration::from_millis(400);
            config.limits.keepalive = Duration::from_secs(1);
            config.limits.half_close = Duration::from_millis(100);
        })
        .await;
        let mut web = rig.running().await;
        web.kit = None;
        let recorder = Recorder::serve(&web.socket());
        Trial {
            rig,
            web,
            recorder,
            failed: Mutex::default(),
        }
    }

    fn host(&self) -> String {
        self.web.host("http-8000")
    }

    /// What the kit has seen, once an innocent request has got its own answer.
    async fn seen(&self, what: &str) -> Vec<Recorded> {
        let heard = self.rig.get(&self.host(), "/innocent").await;
        assert_eq!(heard.text(), "ok", "{what}");
        let mut seen = self.recorder.take();
        let last = seen.pop().expect("the innocent one");
        assert_eq!(last.line, "GET /innocent HTTP/1.1", "{what}");
        assert!(last.body.is_empty(), "{what}");
        seen
    }

    /// Write these bytes, close this direction, read to the end.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut socket = self.rig.tcp().await;
        // It may be cut off before all is written.
        let _ = socket.write_all(bytes).await;
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        let read = socket.read_to_end(&mut answer);
        let _ = tokio::time::timeout(Duration::from_secs(20), read)
            .await
            .expect("it ends");
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// What must become of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// A 4xx, and no whole request arrives.
    Refused,
    /// Cut off or refused, and no whole request arrives.
    Lost,
    /// One request arrives, with this body.
    One(&'static str),
    /// Either; what arrives has this body.
    Either(&'static str),
}
use Fate::{Either, Lost, One, Refused};

async fn check(trial: &Trial, what: &str, request: &str, fate: Fate) {
    let answer = trial.raw(request.as_bytes()).await;
    let seen = trial.seen(what).await;
    let refused = [
        "HTTP/1.1 400",
        "HTTP/1.1 405",
        "HTTP/1.1 408",
        "HTTP/1.1 413",
        "HTTP/1.1 431",
    ]
    .iter()
    .any(|head| answer.starts_with(head));
    let one = |body: &str| {
        seen.len() == 1 && seen[0].body == body.as_bytes() && answer.starts_with("HTTP/1.1 200")
    };
    let well = match fate {
        Refused => refused && seen.is_empty(),
        Lost => !answer.contains("HTTP/1.1 200") && seen.is_empty(),
        One(body) => one(body),
        Either(body) => one(body) || (refused && seen.is_empty()),
    };
    if !well {
        let failed = format!(
            "{what}: {fate:?}, but
{answer}
and {seen:?}"
        );
        trial.failed.lock().expect("no panic").push(failed);
    }
}

/// A request with these lines after its host, and this body.
fn post(host: &str, lines: &str, body: &str) -> String {
    format!("POST /x HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n\r\n{body}")
}

#[tokio::test]
async fn two_lengths_are_refused() {
    let trial = Trial::start().await;
    let host = trial.host();
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    for (lines, body, fate) in [
        (
            "Content-Length: 6\r\nTransfer-Encoding: chunked",
            smuggled,
            Refused,
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 6",
            smuggled,
            Refused,
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 0",
            smuggled,
            Refused,
        ),
        (
            "transfer-encoding: chunked\r\ncontent-length: 15",
            chunks,
            Refused,
        ),
        ("Content-Length: 5\r\nContent-Length: 5", "hello", Refused),
        ("Content-Length: 5\r\nContent-Length: 6", "hello!", Refused),
        ("Content-Length: 5\r\nContent-Length: 0", "hello", Refused),
        ("Content-Length: 5, 5", "hello", Refused),
        ("Content-Length: 5, 6", "hello!", Refused),
        ("Content-Length: 5\r\ncontent-length: 5", "hello", Refused),
        ("Content-Length: 5", "hello", One("hello")),
        ("Transfer-Encoding: chunked", chunks, One("hello")),
    ] {
        check(&trial, lines, &post(&host, lines, body), fate).await;
    }
}

#[tokio::test]
async fn odd_lengths_are_refused() {
    let trial = Trial::start().await;
    let host = trial.host();
    for (length, fate) in [
        ("+5", Refused),
        ("-5", Refused),
        ("-0", Refused),
        ("0x5", Refused),
        ("5.0", Refused),
        ("5;", Refused),
        ("5 5", Refused),
        ("\"5\"", Refused),
        ("5e0", Refused),
        ("five", Refused),
        ("", Refused),
        (",5", Refused),
        ("99999999999999999999", Refused),
        ("18446744073709551616", Refused),
        ("18446744073709551621", Refused),
        // One reader's length, with room around it as RFC 9110, section 5.5 allows.
        ("  5  ", One("hello")),
        ("\t5", One("hello")),
        ("005", Either("hello")),
    ] {
        let lines = format!("Content-Length:{length}");
        check(&trial, &lines, &post(&host, &lines, "hello"), fate).await;
        if fate == Refused {
            let lines = format!("Content-Length: {length}");
            check(&trial, &lines, &post(&host, &lines, "hello"), fate).await;
        }
    }
    // A length that is no lie but never comes.
    let lines = "Content-Length: 9223372036854775807";
    check(&trial, lines, &post(&host, lines, "hello"), Lost).await;
}

#[tokio::test]
async fn odd_codings_are_refused() {
    let trial = Trial::start().await;
    let host = trial.host();
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    for (lines, fate) in [
        ("Transfer-Encoding: identity", Refused),
        ("Transfer-Encoding: identity, chunked", Refused),
        ("Transfer-Encoding: chunked, identity", Refused),
        ("Transfer-Encoding: chunked, chunked", Refused),
        ("Transfer-Encoding: gzip, chunked", Refused),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            Refused,
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
            Refused,
        ),
        (
            "Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
            Refused,
        ),
        (
            "Transfer-Encoding: chunked\r\ntransfer-encoding: identity",
            Refused,
        ),
        ("Transfer-Encoding: xchunked", Refused),
        ("Transfer-Encoding: chunkedx", Refused),
        ("Transfer-Encoding: chun ked", Refused),
        ("Transfer-Encoding: chunked;q=1", Refused),
        ("Transfer-Encoding: \"chunked\"", Refused),
        ("Transfer-Encoding: 'chunked'", Refused),
        ("Transfer-Encoding: ,chunked", Refused),
        ("Transfer-Encoding: chunked,", Refused),
        ("Transfer-Encoding: chunked\u{b}", Refused),
        ("Transfer-Encoding: \u{b}chunked", Refused),
        ("Transfer-Encoding: \u{c}chunked", Refused),
        ("Transfer-Encoding: chunked\0", Refused),
        ("Transfer-Encoding:", Refused),
        ("Transfer-Encoding : chunked", Refused),
        ("Transfer-Encoding\t: chunked", Refused),
        ("Transfer-Encoding: \r\n chunked", Refused),
        ("Transfer-Encoding:\r\n\tchunked", Refused),
        ("X: y\r\n Transfer-Encoding: chunked", Refused),
        ("X: y\rTransfer-Encoding: chunked", Refused),
        ("X: y\nTransfer-Encoding: chunked", Refused),
        ("X: y\r\n\rTransfer-Encoding: chunked", Refused),
        ("\0Transfer-Encoding: chunked", Refused),
        ("Transfer\u{ad}-Encoding: chunked", Refused),
        ("Transfer-Encoding: chunked", One("hello")),
        ("Transfer-Encoding:chunked", One("hello")),
        ("Transfer-Encoding: \t chunked \t ", Either("hello")),
        ("tRANSFER-eNCODING: cHuNkEd", One("hello")),
    ] {
        check(&trial, lines, &post(&host, lines, chunks), fate).await;
    }
    let old =
        format!("POST /x HTTP/1.0\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
    check(&trial, "a coding in HTTP/1.0", &old, Refused).await;
}

/// A name that a server further on may read as another one is not passed on.
#[tokio::test]
async fn names_that_become_others_are_not_passed_on() {
    let trial = Trial::start().await;
    let host = trial.host();
    let lines = "Transfer_Encoding: chunked\r\nContent_Length: 99\r\nX_Hoody_Edge_Client: 10.0.0.1\r\n\
                 X_Forwarded_For: 10.0.0.1\r\nx-hoody_edge-client: 10.0.0.1\r\nX_Own: kept\r\n\
                 Connection: close";
    let answer = trial.raw(post(&host, lines, "").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let seen = trial.seen("underscores").await;
    let names: Vec<&str> = seen[0]
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    for name in [
        "transfer_encoding",
        "content_length",
        "x_hoody_edge_client",
        "x-hoody_edge-client",
        "x_forwarded_for",
    ] {
        assert!(!names.contains(&name), "{names:?}");
    }
    assert_eq!(seen[0].all("x_own"), ["kept"]);
}

#[tokio::test]
async fn odd_chunks_are_refused() {
    let trial = Trial::start().await;
    let host = trial.host();
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(1 << 20));
    for (what, body, fate) in [
        ("plain", "5\r\nhello\r\n0\r\n\r\n", One("hello")),
        ("two", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", One("hello")),
        ("zeros", "0005\r\nhello\r\n000\r\n\r\n", Either("hello")),
        (
            "an extension",
            "5;a=b\r\nhello\r\n0\r\n\r\n",
            Either("hello"),
        ),
        (
            "an extension with quotes",
            "5;a=\"b\"\r\nhello\r\n0\r\n\r\n",
            Either("hello"),
        ),
        (
            "trailers",
            "5\r\nhello\r\n0\r\nX: y\r\n\r\n",
            Either("hello"),
        ),
        (
            "a length in trailers",
            "5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n",
            Either("hello"),
        ),
        ("empty", "0\r\n\r\n", One("")),
        ("an endless extension", long.as_str(), Lost),
        ("a prefix", "0x5\r\nhello\r\n0\r\n\r\n", Lost),
        ("a plus", "+5\r\nhello\r\n0\r\n\r\n", Lost),
        ("a minus", "-1\r\nhello\r\n0\r\n\r\n", Lost),
        // An empty size is read as the end; what follows is a request of its own, and none.
        ("no size", "\r\nhello\r\n0\r\n\r\n", Either("")),
        ("a space before", " 5\r\nhello\r\n0\r\n\r\n", Lost),
        ("letters", "five\r\nhello\r\n0\r\n\r\n", Lost),
        ("an underscore", "0_5\r\nhello\r\n0\r\n\r\n", Lost),
        (
            "an overflow",
            "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
            Lost,
        ),
        (
            "another overflow",
            "10000000000000005\r\nhello\r\n0\r\n\r\n",
            Lost,
        ),
        (
            "as far as it goes",
            "FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
            Lost,
        ),
        (
            "a signed one",
            "8000000000000000\r\nhello\r\n0\r\n\r\n",
            Lost,
        ),
        ("a bare LF after the size", "5\nhello\r\n0\r\n\r\n", Lost),
        ("a bare LF after the data", "5\r\nhello\n0\r\n\r\n", Lost),
        ("a bare CR after the size", "5\rhello\r\n0\r\n\r\n", Lost),
        ("more than its size", "5\r\nhelloX\r\n0\r\n\r\n", Lost),
        ("less than its size", "9\r\nhello\r\n0\r\n\r\n", Lost),
        ("no end", "5\r\nhello\r\n", Lost),
        ("half an end", "5\r\nhello\r\n0\r\n", Lost),
    ] {
        let request = post(&host, "Transfer-Encoding: chunked", body);
        check(&trial, what, &request, fate).await;
    }
    // What an extension hides is not passed on either.
    let hidden = post(
        &host,
        "Transfer-Encoding: chunked",
        "5;\nGET /smuggled HTTP/1.1\r\nhello\r\n0\r\n\r\n",
    );
    check(&trial, "a line in an extension", &hidden, Either("hello")).await;
}

#[tokio::test]
async fn odd_lines_are_refused() {
    let trial = Trial::start().await;
    let host = trial.host();
    for (what, request, fate) in [
        (
            "bare LFs",
            format!("GET /x HTTP/1.1\nHost: {host}\n\n"),
            Refused,
        ),
        (
            "one bare LF",
            format!("GET /x HTTP/1.1\r\nHost: {host}\nX: y\r\n\r\n"),
            Refused,
        ),
        (
            "a bare LF at the end",
            format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\n"),
            Lost,
        ),
        (
            "a bare CR",
            format!("GET /x HTTP/1.1\r\nHost: {host}\r\nX: a\rb\r\n\r\n"),
            Refused,
        ),
        (
            "a bare CR in the line",
            format!("GET /x\r HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            Either(""),
        ),
        (
            "two CRs",
            format!("GET /x HTTP/1.1\r\r\nHost: {host}\r\n\r\n"),
            Refused,
        ),
        (
            "folding",
            format!("GET /x HTTP/1.1\r\nHost: {host}\r\nX: a\r\n b\r\n\r\n"),
            Refused,
        ),
        (
            "folding of the host",
            format!("GET /x HTTP/1.1\r\nHost:\r\n {host}\r\n\r\n"),
            Refused,
        ),
        (
            "a folded first line",
            format!("GET /x HTTP/1.1\r\n Host: {host}\r\n\r\n"),
            Refused,
        ),
        (
            "a null in a value",
            format!("GET /x HTTP/1.1\r\nHost: {host}\r\nX: a\0b\r\n\r\n"),
            Refused,
        ),
        (
            "a null in a name",
            format!("GET /x HTTP/1.1\r\nHost: {host}\r\nX\0: a\r\n\r\n"),
            Refused,
        ),
        (
            "a DEL",
            format!("GET /x HTTP/1.1\r\nHost: {host}\r\nX: a\u{7f}b\r\n\r\n"),
            Refused,
        ),
        (
            "a bell",
            format!("GET /x HTTP/1.1\r\nHost: {host}\r\nX: a\u{7}b\r\n\r\n"),
            Refused,
        ),
        (
            "no name",
            format!("GET /x HTTP/1.1\r\nHost: {host}\r\n: a\r\n\r\n"),
            Refused,
        ),
        (
            "no colon",
            format!("GET /x HTTP/1.1\r\nHost: {host}\r\nX\r\n\r\n"),
            Refused,
        ),
        (
            "brackets in a name",
            format!("GET /x HTTP/1.1\r\nHost: {host}\r\nX(y): a\r\n\r\n"),
            Refused,
        ),
        (
            "a space in a name",
            format!("GET /x HTTP/1.1\r\nHost: {host}\r\nX y: a\r\n\r\n"),
            Refused,
        ),
        (
            "a space after a name",
            format!("GET /x HTTP/1.1\r\nHost : {host}\r\n\r\n"),
            Refused,
        ),
        (
            "no version",
            format!("GET /x\r\nHost: {host}\r\n\r\n"),
            Refused,
        ),
        (
            "HTTP/2.0",
            format!("GET /x HTTP/2.0\r\nHost: {host}\r\n\r\n"),
            Refused,
        ),
        (
            "HTTP/1.2",
            format!("GET /x HTTP/1.2\r\nHost: {host}\r\n\r\n"),
            Refused,
        ),
        (
            "http/1.1",
            format!("GET /x http/1.1\r\nHost: {host}\r\n\r\n"),
            Refused,
        ),
        (
            "more after the version",
            format!("GET /x HTTP/1.1 x\r\nHost: {host}\r\n\r\n"),
            Either(""),
        ),
        (
            "a space in the target",
            format!("GET /x y HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            Either(""),
        ),
        (
            "a hidden line",
            format!("GET /x HTTP/1.1/../y HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            Either(""),
        ),
        (
            "no method",
            format!(" /x HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            Refused,
        ),
        (
            "a method of marks",
            format!("G@T /x HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            Refused,
        ),
        (
            "an empty line first",
            format!("\r\nGET /x HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            Either(""),
        ),
        (
            "spaces for tabs",
            format!("GET\t/x\tHTTP/1.1\r\nHost: {host}\r\n\r\n"),
            Refused,
        ),
    ] {
        check(&trial, what, &request, fate).await;
    }
}

#[tokio::test]
async fn two_hosts_are_refused() {
    let trial = Trial::start().await;
    let host = trial.host();
    let other = trial.web.host("terminal-1");
    for (what, request, fate) in [
        (
            "two",
            format!("GET /x HTTP/1.1\r\nHost: {host}\r\nHost: {other}\r\n\r\n"),
            Refused,
        ),
        (
            "twice",
            format!("GET /x HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\n\r\n"),
            Refused,
        ),
        (
            "a list",
            format!("GET /x HTTP/1.1\r\nHost: {host}, {other}\r\n\r\n"),
            Refused,
        ),
        (
            "two words",
            format!("GET /x HTTP/1.1\r\nHost: {host} {other}\r\n\r\n"),
            Refused,
        ),
        (
            "a user",
            format!("GET /x HTTP/1.1\r\nHost: {other}@{host}\r\n\r\n"),
            Refused,
        ),
        (
            "a path",
            format!("GET /x HTTP/1.1\r\nHost: {host}/y\r\n\r\n"),
            Refused,
        ),
        (
            "a query",
            format!("GET /x HTTP/1.1\r\nHost: {host}?y\r\n\r\n"),
            Refused,
        ),
        (
            "an odd port",
            format!("GET /x HTTP/1.1\r\nHost: {host}:80x\r\n\r\n"),
            Refused,
        ),
        (
            "two ports",
            format!("GET /x HTTP/1.1\r\nHost: {host}:80:81\r\n\r\n"),
            Refused,
        ),
        (
            "a great port",
            format!("GET /x HTTP/1.1\r\nHost: {host}:99999\r\n\r\n"),
            Refused,
        ),
        (
            "an empty one",
            "GET /x HTTP/1.1\r\nHost:\r\n\r\n".to_owned(),
            Refused,
        ),
        (
            "none",
            "GET /x HTTP/1.1\r\nX: y\r\n\r\n".to_owned(),
            Refused,
        ),
        (
            "another in the target",
            format!("GET http://{other}/x HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            Refused,
        ),
        (
            "a user in the target",
            format!("GET http://u@{host}/x HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            Refused,
        ),
        (
            "another scheme",
            format!("GET ftp://{host}/x HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            Refused,
        ),
        (
            "the target's authority alone",
            format!("GET {host}:80 HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            Refused,
        ),
        (
            "no slash",
            format!("GET x HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            Refused,
        ),
        (
            "the same in the target",
            format!("GET http://{host}/x HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            One(""),
        ),
        (
            "with a dot",
            format!("GET /x HTTP/1.1\r\nHost: {host}.\r\n\r\n"),
            One(""),
        ),
        (
            "a host to be removed",
            format!("GET /x HTTP/1.1\r\nHost: {host}\r\nConnection: host\r\n\r\n"),
            Refused,
        ),
    ] {
        check(&trial, what, &request, fate).await;
    }
    // Two slashes are a path and no authority.
    let request = format!("GET //{other}/x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let answer = trial.raw(request.as_bytes()).await;
    for seen in trial.seen("two slashes").await {
        assert_eq!(seen.all("host"), [host.as_str()], "{answer}");
        assert_eq!(seen.all("x-hoody-edge-service"), ["http"]);
    }
}

/// Nobody can have the length of a request removed on its way.
#[tokio::test]
async fn a_length_stays_with_its_request() {
    let trial = Trial::start().await;
    let host = trial.host();
    for (connection, body) in [
        ("content-length", "hello"),
        ("close, content-length", "hello"),
        ("transfer-encoding", "hello"),
    ] {
        let lines = format!("Connection: {connection}\r\nContent-Length: 5");
        check(
            &trial,
            connection,
            &post(&host, &lines, body),
            Either("hello"),
        )
        .await;
    }
    let lines = "Connection: transfer-encoding\r\nTransfer-Encoding: chunked";
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    check(&trial, lines, &post(&host, lines, chunks), Either("hello")).await;
    // What follows a request without a length is none of its body.
    let two = format!(
        "GET /x HTTP/1.1\r\nHost: {host}\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n"
    );
    let answer = trial.raw(two.as_bytes()).await;
    let seen = trial.seen("two in a row").await;
    assert!(
        seen.len() <= 1 && seen.iter().all(|it| it.line.contains("/x")),
        "{answer} {seen:?}"
    );
}

// ---- HTTP/2, which has none of this, on its way to HTTP/1.1

async fn sent(trial: &Trial, h2c: bool, headers: &Fields, body: &[&[u8]]) -> Outcome {
    let host = trial.host();
    let mut raw = match h2c {
        true => Raw::plain(&trial.rig).await,
        false => Raw::tls(&trial.rig, &host).await,
    };
    raw.request(1, headers, body).await;
    raw.outcome(1).await
}

#[tokio::test]
async fn nothing_odd_becomes_http_1() {
    let trial = Trial::start().await;
    let host = trial.host();
    let plain = |method: &str| {
        fields(&[
            (":method", method),
            (":scheme", "https"),
            (":path", "/x"),
            (":authority", &host),
        ])
    };
    let with = |more: &[(&str, &str)]| [plain("POST"), fields(more)].concat();
    let path = |path: &str| {
        fields(&[
            (":method", "GET"),
            (":scheme", "https"),
            (":path", path),
            (":authority", &host),
        ])
    };
    let cases: Vec<(&str, Fields)> = vec![
        (
            "a value with CR LF",
            with(&[("x", "a\r\ntransfer-encoding: chunked")]),
        ),
        ("a value with LF", with(&[("x", "a\nb: c")])),
        ("a value with CR", with(&[("x", "a\rb")])),
        ("a value with NUL", with(&[("x", "a\0b")])),
        ("a name with CR LF", with(&[("x: y\r\nz", "a")])),
        ("a name with a colon", with(&[("x:", "a")])),
        ("a name with a space", with(&[("x y", "a")])),
        ("a name with capitals", with(&[("X-Y", "a")])),
        ("an empty name", with(&[("", "a")])),
        (
            "transfer-encoding",
            with(&[("transfer-encoding", "chunked")]),
        ),
        ("connection", with(&[("connection", "close")])),
        ("keep-alive", with(&[("keep-alive", "1")])),
        ("proxy-connection", with(&[("proxy-connection", "close")])),
        ("upgrade", with(&[("upgrade", "websocket")])),
        ("te", with(&[("te", "gzip")])),
        (
            "two lengths",
            with(&[("content-length", "5"), ("content-length", "6")]),
        ),
        ("a length with a sign", with(&[("content-length", "+5")])),
        ("a length that is none", with(&[("content-length", "five")])),
        ("two hosts", with(&[("host", "elsewhere.example")])),
        ("a path with a space", path("/x HTTP/1.1")),
        ("a path with CR LF", path("/x HTTP/1.1\r\nx: y\r\n\r\n")),
        ("a path with a tab", path("/x\ty")),
        ("a path with NUL", path("/x\0")),
        ("an empty path", path("")),
        ("a path without a slash", path("x")),
        (
            "a path in absolute form",
            path("http://elsewhere.example/x"),
        ),
        ("a method with a space", plain("GET /y HTTP/1.1\r\nx: y")),
        ("an empty method", plain("")),
        (
            "an authority with a user",
            fields(&[
                (":method", "GET"),
                (":scheme", "https"),
                (":path", "/"),
                (":authority", &format!("u@{host}")),
            ]),
        ),
        (
            "an authority with CR LF",
            fields(&[
                (":method", "GET"),
                (":scheme", "https"),
                (":path", "/"),
                (":authority", &format!("{host}\r\nx: y")),
            ]),
        ),
        (
            "a scheme with a target",
            fields(&[
                (":method", "GET"),
                (":scheme", "https://elsewhere.example/?"),
                (":path", "/x"),
                (":authority", &host),
            ]),
        ),
        ("no method", plain("GET")[1..].to_vec()),
        (
            "no scheme",
            [&plain("GET")[..1], &plain("GET")[2..]].concat(),
        ),
        ("no path", [&plain("GET")[..2], &plain("GET")[3..]].concat()),
        ("no authority", plain("GET")[..3].to_vec()),
        (
            "two paths",
            [plain("GET"), fields(&[(":path", "/y")])].concat(),
        ),
        (
            "two methods",
            [plain("GET"), fields(&[(":method", "PUT")])].concat(),
        ),
        (
            "an unknown pseudo-header",
            [plain("GET"), fields(&[(":x", "y")])].concat(),
        ),
        (
            "a response's pseudo-header",
            [plain("GET"), fields(&[(":status", "200")])].concat(),
        ),
        (
            "a pseudo-header after others",
            [fields(&[("x", "y")]), plain("GET")].concat(),
        ),
        ("CONNECT with a path", plain("CONNECT")),
        (
            "a protocol without CONNECT",
            with(&[(":protocol", "websocket")]),
        ),
    ];
    for h2c in [false, true] {
        for (what, headers) in &cases {
            let outcome = sent(&trial, h2c, headers, &[b"hello"]).await;
            let refused = match outcome {
                Outcome::Status(status) => (400..500).contains(&status),
                Outcome::Reset(_) | Outcome::GoAway(_) => true,
                Outcome::Closed | Outcome::Silent => false,
            };
            assert!(refused, "{what}, h2c {h2c}: {outcome:?}");
            let seen = trial.seen(what).await;
            assert!(seen.is_empty(), "{what}: {seen:?}");
        }
    }
}

/// The body is as long as it was said to be, or the request does not come to its end.
#[tokio::test]
async fn a_length_of_http_2_is_kept() {
    let trial = Trial::start().await;
    let host = trial.host();
    let headers = |length: &str| {
        fields(&[
            (":method", "POST"),
            (":scheme", "https"),
            (":path", "/x"),
            (":authority", &host),
            ("content-length", length),
        ])
    };
    let hello: &[&[u8]] = &[b"hel", b"lo"];
    let smuggled: &[&[u8]] = &[b"hello", b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"];
    let outcome = sent(&trial, false, &headers("5"), hello).await;
    assert_eq!(outcome, Outcome::Status(200));
    assert_eq!(trial.seen("right").await[0].body, b"hello");
    // One without a body is over before its data comes; the kit may have seen it end.
    let outcome = sent(&trial, false, &headers("0"), hello).await;
    assert_ne!(outcome, Outcome::Status(400));
    let heard = trial.rig.get(&host, "/innocent").await;
    assert_eq!(heard.text(), "ok");
    assert!(trial.recorder.take().iter().all(|it| it.body.is_empty()));
    for (length, body) in [
        ("4", hello),
        ("6", hello),
        ("5", smuggled),
        ("99999999999999999999", hello),
    ] {
        let outcome = sent(&trial, false, &headers(length), body).await;
        assert_ne!(outcome, Outcome::Status(200), "{length}");
        let seen = trial.seen(length).await;
        assert!(seen.is_empty(), "{length}: {seen:?}");
    }
}
