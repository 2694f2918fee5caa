//! HTTP/2 by the book (RFC 9113, sections 3 to 8), over TLS and by prior knowledge: every case is
//! what a client sends after the preface and its settings, and what must come of it.

use std::time::Duration;

use http::StatusCode;

use crate::frames::{
    ACK, END_HEADERS, END_STREAM, Fields, Outcome, PADDED, PREFACE, Raw, WITH_PRIORITY, block,
    code, fields, frame, kind,
};
use crate::rig::Rig;

/// What must come of the bytes.
#[derive(Debug, Clone, Copy)]
enum Must {
    /// Stream 1 is answered with this status.
    Answer(u16),
    /// Nothing: the connection goes on.
    GoOn,
    /// The connection ends; where its reason comes, it is one of these.
    End(&'static [u32]),
    /// Stream 1 is reset, or the connection ends, for one of these reasons.
    Refuse(&'static [u32]),
}
use Must::{Answer, End, GoOn, Refuse};

fn get(host: &str) -> Fields {
    fields(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/"),
        (":authority", host),
    ])
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// Fields that no request may have, each in a request that is right but for it.
fn odd_requests(host: &str) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Fields)> = Vec::new();
    let whole = get(host);
    for (at, (name, value)) in whole.iter().enumerate() {
        let name = String::from_utf8_lossy(name).into_owned();
        let mut twice = whole.clone();
        twice.push((name.clone().into_bytes(), value.clone()));
        all.push((format!("8.3 {name} twice"), twice));
        let mut late = whole.clone();
        let field = late.remove(at);
        late.push((b"x".to_vec(), b"y".to_vec()));
        late.push(field);
        all.push((format!("8.3 {name} after a field"), late));
        // A host may be named by a field, or not at all, which is answered.
        if name != ":authority" {
            let mut without = whole.clone();
            without.remove(at);
            all.push((format!("8.3.1 no {name}"), without));
        }
    }
    let mut empty = whole.clone();
    empty[2].1.clear();
    all.push(("8.3.1 an empty :path".to_owned(), empty));
    for (name, value) in [
        (":status", "200"),
        ("", "y"),
        ("a b", "y"),
        ("a:b", "y"),
        ("a\0b", "y"),
        ("\u{e9}", "y"),
        ("x", "a\0b"),
        ("x", "a\rb"),
        ("x", "a\nb"),
        ("keep-alive", "5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
    ] {
        let mut odd = whole.clone();
        odd.push((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        all.push((format!("8.2 {name:?}: {value:?}"), odd));
    }
    let frame = |fields: &Fields| frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &block(fields));
    all.iter()
        .map(|(what, fields)| (what.clone(), frame(fields)))
        .collect()
}

/// Blocks that HPACK (RFC 7541) has no meaning for.
fn odd_blocks(host: &str) -> Vec<(&'static str, Vec<u8>)> {
    let ask = block(&get(host));
    let after = |more: &[u8]| [&ask, more].concat();
    vec![
        ("2.3.3 an index of none", after(&[0x80])),
        ("2.3.3 an index after all", after(&[0xbe])),
        ("4.2 a table's size after a field", after(&[0x20])),
        ("5.1 a number without end", after(&[0xff; 64])),
        ("5.1 a number that ends early", after(&[0xff, 0x80])),
        ("5.2 a name that ends early", after(&[0, 9, b'x'])),
        ("5.2 a value that ends early", after(&[0, 1, b'x', 9, b'y'])),
        (
            "5.2 a length that ends early",
            after(&[0, 1, b'x', 0x7f, 0x80]),
        ),
        // `a` is 00011; ones come after it, fewer than eight.
        ("5.2 padding of zeros", after(&[0, 1, b'x', 0x81, 0x18])),
        (
            "5.2 an end of text in a text",
            after(&[0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]),
        ),
        (
            "6.3 a table beyond what is allowed",
            [&[0x3f, 0xe2, 0x1f][..], &ask].concat(),
        ),
    ]
}

fn cases(host: &str) -> Vec<(&'static str, Vec<u8>, Must)> {
    let ask = block(&get(host));
    let post = block(&[fields(&[(":method", "POST")]), get(host)[1..].to_vec()].concat());
    let headers = |flags, stream, block: &[u8]| frame(kind::HEADERS, flags, stream, block);
    let whole = END_HEADERS | END_STREAM;
    let join = |frames: &[Vec<u8>]| frames.concat();
    let with = |more: &[(&str, &str)]| block(&[get(host), fields(more)].concat());
    vec![
        // 4.1, 4.2: frames
        (
            "4.1 an unknown kind is passed over",
            join(&[frame(0xbb, 0xff, 0, b"x"), headers(whole, 1, &ask)]),
            Answer(200),
        ),
        (
            "4.1 unknown flags are passed over",
            join(&[frame(kind::PING, 0xfe, 0, &[0; 8]), headers(whole, 1, &ask)]),
            Answer(200),
        ),
        (
            "4.1 the reserved bit is passed over",
            join(&[
                frame(kind::PING, 0, 1 << 31, &[0; 8]),
                headers(whole, 1, &ask),
            ]),
            Answer(200),
        ),
        (
            "4.2 data as large as it may be",
            join(&[
                headers(END_HEADERS, 1, &post),
                frame(kind::DATA, END_STREAM, 1, &[1; 16_384]),
            ]),
            Answer(200),
        ),
        (
            "4.2 data that is too large",
            join(&[
                headers(END_HEADERS, 1, &post),
                frame(kind::DATA, END_STREAM, 1, &[1; 16_385]),
            ]),
            Refuse(&[code::FRAME_SIZE]),
        ),
        (
            "4.2 headers that are too large",
            headers(whole, 1, &[0; 16_385]),
            End(&[code::FRAME_SIZE]),
        ),
        // 4.3: field blocks
        (
            "4.3 a block that is none",
            headers(whole, 1, &[0x80]),
            End(&[code::COMPRESSION]),
        ),
        (
            "4.3 an index beyond the tables",
            headers(whole, 1, &[0xff, 0xff, 0x03]),
            End(&[code::COMPRESSION]),
        ),
        (
            "4.3 a table larger than allowed",
            headers(whole, 1, &[0x3f, 0xe1, 0xff, 0x03, 0x82]),
            End(&[code::COMPRESSION]),
        ),
        (
            "4.3 a PRIORITY between its parts",
            join(&[
                headers(END_STREAM, 1, &ask),
                frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 9]),
                frame(kind::CONTINUATION, END_HEADERS, 1, &[]),
            ]),
            End(&[code::PROTOCOL]),
        ),
        (
            "4.3 headers of another stream between",
            join(&[headers(END_STREAM, 1, &ask), headers(whole, 3, &ask)]),
            End(&[code::PROTOCOL]),
        ),
        // 5.1: streams
        (
            "5.1 DATA on an idle stream",
            frame(kind::DATA, END_STREAM, 1, b"x"),
            End(&[code::PROTOCOL]),
        ),
        (
            "5.1 RST_STREAM on an idle stream",
            frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]),
            End(&[code::PROTOCOL]),
        ),
        (
            "5.1 WINDOW_UPDATE on an idle stream",
            frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 9]),
            End(&[code::PROTOCOL]),
        ),
        (
            "5.1 CONTINUATION on an idle stream",
            frame(kind::CONTINUATION, END_HEADERS, 1, &ask),
            End(&[code::PROTOCOL]),
        ),
        (
            "5.1 DATA after the end",
            join(&[
                headers(whole, 1, &ask),
                frame(kind::DATA, END_STREAM, 1, b"x"),
            ]),
            Refuse(&[code::STREAM_CLOSED, code::PROTOCOL]),
        ),
        (
            "5.1 HEADERS after the end",
            join(&[headers(whole, 1, &ask), headers(whole, 1, &ask)]),
            Refuse(&[code::STREAM_CLOSED, code::PROTOCOL]),
        ),
        (
            "5.1 CONTINUATION after the end",
            join(&[
                headers(whole, 1, &ask),
                frame(kind::CONTINUATION, END_HEADERS, 1, &ask),
            ]),
            End(&[code::STREAM_CLOSED, code::PROTOCOL]),
        ),
        (
            "5.1 DATA after a reset",
            join(&[
                headers(END_HEADERS, 1, &post),
                frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]),
                frame(kind::DATA, END_STREAM, 1, b"x"),
                headers(whole, 3, &ask),
            ]),
            GoOn,
        ),
        (
            "5.1.1 an even stream",
            headers(whole, 2, &ask),
            End(&[code::PROTOCOL]),
        ),
        (
            "5.1.1 a smaller stream",
            join(&[headers(whole, 5, &ask), headers(whole, 3, &ask)]),
            End(&[code::PROTOCOL, code::STREAM_CLOSED]),
        ),
        (
            "5.3.1 a stream that depends on itself",
            frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 1, 9]),
            Refuse(&[code::PROTOCOL]),
        ),
        // 6.1: DATA
        (
            "6.1 DATA on stream 0",
            frame(kind::DATA, END_STREAM, 0, b"x"),
            End(&[code::PROTOCOL]),
        ),
        (
            "6.1 padding",
            join(&[
                headers(END_HEADERS, 1, &post),
                frame(kind::DATA, END_STREAM | PADDED, 1, &[2, b'x', 0, 0]),
            ]),
            Answer(200),
        ),
        (
            "6.1 more padding than frame",
            join(&[
                headers(END_HEADERS, 1, &post),
                frame(kind::DATA, END_STREAM | PADDED, 1, &[9, b'x']),
            ]),
            End(&[code::PROTOCOL]),
        ),
        // 6.2: HEADERS
        (
            "6.2 HEADERS on stream 0",
            headers(whole, 0, &ask),
            End(&[code::PROTOCOL]),
        ),
        (
            "6.2 padding",
            headers(whole | PADDED, 1, &[&[2][..], &ask, &[0, 0]].concat()),
            Answer(200),
        ),
        (
            "6.2 more padding than frame",
            headers(whole | PADDED, 1, &[200, 0x82]),
            End(&[code::PROTOCOL]),
        ),
        (
            "6.2 a priority",
            headers(
                whole | WITH_PRIORITY,
                1,
                &[&[0, 0, 0, 0, 9][..], &ask].concat(),
            ),
            Answer(200),
        ),
        (
            "6.2 trailers",
            join(&[
                headers(END_HEADERS, 1, &post),
                frame(kind::DATA, 0, 1, b"x"),
                headers(whole, 1, &block(&fields(&[("x", "y")]))),
            ]),
            Answer(200),
        ),
        (
            "8.1 trailers that do not end",
            join(&[
                headers(END_HEADERS, 1, &post),
                headers(END_HEADERS, 1, &block(&fields(&[("x", "y")]))),
            ]),
            Refuse(&[code::PROTOCOL]),
        ),
        // 6.3: PRIORITY
        (
            "6.3 PRIORITY on stream 0",
            frame(kind::PRIORITY, 0, 0, &[0, 0, 0, 1, 9]),
            End(&[code::PROTOCOL]),
        ),
        (
            "6.3 PRIORITY of another size",
            frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 3]),
            Refuse(&[code::FRAME_SIZE]),
        ),
        (
            "6.3 PRIORITY on an idle stream",
            join(&[
                frame(kind::PRIORITY, 0, 9, &[0, 0, 0, 0, 9]),
                headers(whole, 1, &ask),
            ]),
            Answer(200),
        ),
        // 6.4: RST_STREAM
        (
            "6.4 RST_STREAM on stream 0",
            frame(kind::RST_STREAM, 0, 0, &[0, 0, 0, 8]),
            End(&[code::PROTOCOL]),
        ),
        (
            "6.4 RST_STREAM of another size",
            join(&[
                headers(END_HEADERS, 1, &post),
                frame(kind::RST_STREAM, 0, 1, &[0, 0, 8]),
            ]),
            End(&[code::FRAME_SIZE]),
        ),
        // 6.5: SETTINGS
        (
            "6.5 SETTINGS on a stream",
            frame(kind::SETTINGS, 0, 1, &[]),
            End(&[code::PROTOCOL]),
        ),
        (
            "6.5 an acknowledgement that says something",
            frame(kind::SETTINGS, ACK, 0, &[0; 6]),
            End(&[code::FRAME_SIZE]),
        ),
        (
            "6.5 SETTINGS of another size",
            frame(kind::SETTINGS, 0, 0, &[0, 3, 0]),
            End(&[code::FRAME_SIZE]),
        ),
        (
            "6.5.2 pushes neither on nor off",
            frame(kind::SETTINGS, 0, 0, &setting(2, 2)),
            End(&[code::PROTOCOL]),
        ),
        (
            "6.5.2 a window that is too large",
            frame(kind::SETTINGS, 0, 0, &setting(4, 1 << 31)),
            End(&[code::FLOW_CONTROL]),
        ),
        (
            "6.5.2 frames that are too small",
            frame(kind::SETTINGS, 0, 0, &setting(5, 16_383)),
            End(&[code::PROTOCOL]),
        ),
        (
            "6.5.2 frames that are too large",
            frame(kind::SETTINGS, 0, 0, &setting(5, 1 << 24)),
            End(&[code::PROTOCOL]),
        ),
        (
            "6.5.2 an unknown setting",
            join(&[
                frame(kind::SETTINGS, 0, 0, &setting(0xaa, 1)),
                headers(whole, 1, &ask),
            ]),
            Answer(200),
        ),
        // 6.6: PUSH_PROMISE
        (
            "6.6 a client that promises",
            frame(
                kind::PUSH_PROMISE,
                END_HEADERS,
                1,
                &[&[0, 0, 0, 2][..], &ask].concat(),
            ),
            End(&[code::PROTOCOL]),
        ),
        // 6.7: PING
        (
            "6.7 PING on a stream",
            frame(kind::PING, 0, 1, &[0; 8]),
            End(&[code::PROTOCOL]),
        ),
        (
            "6.7 PING of another size",
            frame(kind::PING, 0, 0, &[0; 6]),
            End(&[code::FRAME_SIZE]),
        ),
        (
            "6.7 an acknowledgement nobody asked for",
            frame(kind::PING, ACK, 0, &[7; 8]),
            GoOn,
        ),
        // 6.8: GOAWAY
        (
            "6.8 GOAWAY on a stream",
            frame(kind::GOAWAY, 0, 1, &[0; 8]),
            End(&[code::PROTOCOL]),
        ),
        // 6.9: WINDOW_UPDATE
        (
            "6.9 a window that grows by nothing",
            frame(kind::WINDOW_UPDATE, 0, 0, &[0; 4]),
            End(&[code::PROTOCOL]),
        ),
        (
            "6.9 a stream's window that grows by nothing",
            join(&[
                headers(END_HEADERS, 1, &post),
                frame(kind::WINDOW_UPDATE, 0, 1, &[0; 4]),
            ]),
            Refuse(&[code::PROTOCOL]),
        ),
        (
            "6.9 WINDOW_UPDATE of another size",
            frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 1]),
            End(&[code::FRAME_SIZE]),
        ),
        (
            "6.9.1 a window beyond its end",
            frame(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            End(&[code::FLOW_CONTROL]),
        ),
        (
            "6.9.1 a stream's window beyond its end",
            join(&[
                headers(END_HEADERS, 1, &post),
                frame(kind::WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff]),
            ]),
            Refuse(&[code::FLOW_CONTROL]),
        ),
        (
            "6.9.2 settings that push a window beyond its end",
            join(&[
                headers(END_HEADERS, 1, &post),
                frame(kind::WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0, 0]),
                frame(kind::SETTINGS, 0, 0, &setting(4, 0x7fff_ffff)),
            ]),
            End(&[code::FLOW_CONTROL]),
        ),
        // 6.10: CONTINUATION
        (
            "6.10 a block in three parts",
            join(&[
                headers(END_STREAM, 1, &ask[..5]),
                frame(kind::CONTINUATION, 0, 1, &ask[5..9]),
                frame(kind::CONTINUATION, END_HEADERS, 1, &ask[9..]),
            ]),
            Answer(200),
        ),
        (
            "6.10 CONTINUATION on stream 0",
            join(&[
                headers(END_STREAM, 1, &ask),
                frame(kind::CONTINUATION, END_HEADERS, 0, &[]),
            ]),
            End(&[code::PROTOCOL]),
        ),
        (
            "6.10 CONTINUATION of another stream",
            join(&[
                headers(END_STREAM, 1, &ask),
                frame(kind::CONTINUATION, END_HEADERS, 3, &[]),
            ]),
            End(&[code::PROTOCOL]),
        ),
        (
            "6.10 CONTINUATION after the last part",
            join(&[
                headers(END_HEADERS, 1, &post),
                frame(kind::CONTINUATION, END_HEADERS, 1, &[]),
            ]),
            End(&[code::PROTOCOL]),
        ),
        (
            "6.10 CONTINUATION after DATA",
            join(&[
                headers(END_HEADERS, 1, &post),
                frame(kind::DATA, 0, 1, b"x"),
                frame(kind::CONTINUATION, END_HEADERS, 1, &[]),
            ]),
            End(&[code::PROTOCOL]),
        ),
        // 8.2, 8.3: fields
        (
            "8.2.1 capitals",
            headers(whole, 1, &with(&[("X", "y")])),
            Refuse(&[code::PROTOCOL]),
        ),
        (
            "8.2.2 connection",
            headers(whole, 1, &with(&[("connection", "close")])),
            Refuse(&[code::PROTOCOL]),
        ),
        (
            "8.2.2 te: trailers",
            headers(whole, 1, &with(&[("te", "trailers")])),
            Answer(200),
        ),
        (
            "8.2.2 te: gzip",
            headers(whole, 1, &with(&[("te", "gzip")])),
            Refuse(&[code::PROTOCOL]),
        ),
        (
            "8.2.3 cookies in crumbs",
            headers(whole, 1, &with(&[("cookie", "a=1"), ("cookie", "b=2")])),
            Answer(200),
        ),
        (
            "8.3 an unknown pseudo-header",
            headers(whole, 1, &with(&[(":x", "y")])),
            Refuse(&[code::PROTOCOL]),
        ),
        (
            // The h2 crate passes over it; no trailers of a request go on.
            "8.3 a pseudo-header in trailers",
            join(&[
                headers(END_HEADERS, 1, &post),
                headers(whole, 1, &block(&fields(&[(":path", "/")]))),
            ]),
            Answer(200),
        ),
        (
            "8.3.1 no method",
            headers(whole, 1, &block(&get(host)[1..].to_vec())),
            Refuse(&[code::PROTOCOL]),
        ),
        (
            "8.3.1 two paths",
            headers(whole, 1, &with(&[(":path", "/y")])),
            Refuse(&[code::PROTOCOL]),
        ),
        (
            "8.1.1 less than its length",
            join(&[
                headers(END_HEADERS, 1, &with(&[("content-length", "2")])),
                frame(kind::DATA, END_STREAM, 1, b"x"),
            ]),
            Refuse(&[code::PROTOCOL]),
        ),
        (
            "8.1.1 more than its length",
            join(&[
                headers(END_HEADERS, 1, &with(&[("content-length", "1")])),
                frame(kind::DATA, 0, 1, b"x"),
                frame(kind::DATA, END_STREAM, 1, b"y"),
            ]),
            Refuse(&[code::PROTOCOL]),
        ),
        (
            "8.5 CONNECT",
            headers(
                END_HEADERS,
                1,
                &block(&fields(&[(":method", "CONNECT"), (":authority", host)])),
            ),
            Answer(405),
        ),
    ]
}

#[tokio::test]
async fn http_2_is_spoken_by_the_book() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let mut failed = Vec::new();
    for h2c in [false, true] {
        for (what, bytes, must) in cases(&host) {
            let mut raw = Raw::over(&rig, &host, h2c).await;
            raw.send(&bytes).await;
            let (well, came) = match must {
                GoOn => (raw.lives().await, None),
                Answer(status) => {
                    let came = raw.outcome(1).await;
                    (came == Outcome::Status(status), Some(came))
                }
                End(reasons) => {
                    let came = ended(&mut raw).await;
                    (is_one(came, reasons), Some(came))
                }
                Refuse(reasons) => {
                    let mut came = raw.outcome(1).await;
                    if matches!(came, Outcome::Status(_)) {
                        // It was answered before the rest was read.
                        came = raw.outcome(1).await;
                    }
                    let reset = matches!(came, Outcome::Reset(reason) if reasons.contains(&reason));
                    (reset || is_one(came, reasons), Some(came))
                }
            };
            if !well {
                failed.push(format!("{what} (h2c: {h2c}): {must:?}, but {came:?}"));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert_eq!(rig.get(&host, "/").await.status, StatusCode::OK);
}

/// Sections 8.2 and 8.3: what is no request reaches no kit, and the connection goes on or ends.
#[tokio::test]
async fn what_is_no_request_over_http_2_reaches_nobody() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let mut failed = Vec::new();
    for h2c in [false, true] {
        for (what, bytes) in odd_requests(&host) {
            let mut raw = Raw::over(&rig, &host, h2c).await;
            raw.send(&bytes).await;
            let came = raw.outcome(1).await;
            let well = matches!(came, Outcome::Reset(code::PROTOCOL) | Outcome::Status(400))
                || is_one(came, &[code::PROTOCOL]);
            if !well {
                failed.push(format!("{what} (h2c: {h2c}): {came:?}"));
            }
        }
        for (what, block) in odd_blocks(&host) {
            let mut raw = Raw::over(&rig, &host, h2c).await;
            let whole = END_HEADERS | END_STREAM;
            raw.send(&frame(kind::HEADERS, whole, 1, &block)).await;
            let came = ended(&mut raw).await;
            if !is_one(came, &[code::COMPRESSION]) {
                failed.push(format!("HPACK {what} (h2c: {h2c}): {came:?}"));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    let asked = web
        .seen()
        .requests
        .load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(asked, 0);
    assert_eq!(rig.get(&host, "/").await.status, StatusCode::OK);
}

/// HPACK, sections 2.3.2, 4.3 and 6.3: a table is filled, pointed into, emptied and filled again.
#[tokio::test]
async fn a_table_of_fields_is_kept() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let mut raw = Raw::tls(&rig, &host).await;
    let whole = END_HEADERS | END_STREAM;
    // GET, https and / are in the static table; the authority goes into the other.
    let begin = [0x82, 0x87, 0x84];
    let length = u8::try_from(host.len()).expect("short");
    let named = [&begin[..], &[0x41, length], host.as_bytes()].concat();
    let known = [&begin[..], &[0xbe]].concat();
    for (stream, block) in [
        (1, named.clone()),
        (3, known.clone()),
        // Emptied, and of its old size again, before it is filled.
        (5, [&[0x20, 0x3f, 0xe1, 0x1f], &named[..]].concat()),
        (7, known.clone()),
    ] {
        raw.send(&frame(kind::HEADERS, whole, stream, &block)).await;
        assert_eq!(raw.outcome(stream).await, Outcome::Status(200), "{stream}");
    }
    // What was emptied is gone.
    let block = [&[0x20], &known[..]].concat();
    raw.send(&frame(kind::HEADERS, whole, 9, &block)).await;
    assert!(is_one(ended(&mut raw).await, &[code::COMPRESSION]));
}

/// Section 6.9: no more is sent than there is room for, of a stream and of the connection.
#[tokio::test]
async fn windows_are_kept() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let mut raw = Raw::tls(&rig, &host).await;
    raw.send(&frame(kind::SETTINGS, 0, 0, &setting(4, 3))).await;
    let mut ask = get(&host);
    ask[2].1 = b"/download?4".to_vec();
    raw.request(1, &ask, &[]).await;
    let (mut room, mut came) = (3, 0);
    for more in [1u32, 2, 5, 100, 70_000, 200_000] {
        // A ping is answered after what may be sent, so nothing is waited for in vain.
        while came < room {
            let frame = raw.next().await.expect("it comes").expect("open");
            if frame.kind == kind::DATA {
                assert_eq!(frame.stream, 1);
                came += frame.payload.len();
            }
        }
        assert_eq!(came, room);
        assert!(
            raw.lives().await,
            "and nothing else comes before its answer"
        );
        let grow = more.to_be_bytes();
        raw.send(&frame(kind::WINDOW_UPDATE, 0, 1, &grow)).await;
        raw.send(&frame(kind::WINDOW_UPDATE, 0, 0, &grow)).await;
        room = (room + more as usize).min(4 * 65_536);
    }
}

fn is_one(came: Outcome, reasons: &[u32]) -> bool {
    match came {
        // The h2 crate says so of whatever it cannot decode.
        Outcome::GoAway(code::PROTOCOL) => true,
        Outcome::GoAway(reason) => reasons.contains(&reason),
        Outcome::Closed => true,
        Outcome::Status(_) | Outcome::Reset(_) | Outcome::Silent => false,
    }
}

/// How a connection ends, whatever its streams are told before.
async fn ended(raw: &mut Raw) -> Outcome {
    loop {
        match raw.outcome(u32::MAX).await {
            // Notice of an end, not the end.
            Outcome::GoAway(0) => {}
            end => return end,
        }
    }
}

/// Section 3.4: what is no preface is no HTTP/2, and a listener does not wait for it either.
#[tokio::test]
async fn a_connection_begins_with_the_preface() {
    let mut rig = Rig::with(|config| {
        config.limits.headers = Duration::from_millis(300);
    })
    .await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    let stream = rig.tls(&host, &[b"h2"]).await.expect("a connection");
    let mut raw = Raw::from(stream);
    raw.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n          ")
        .await;
    assert!(matches!(
        ended(&mut raw).await,
        Outcome::GoAway(1) | Outcome::Closed
    ));
    // A preface that does not go on.
    let mut raw = Raw::silent(&rig).await;
    raw.send(&PREFACE[..20]).await;
    assert_eq!(ended(&mut raw).await, Outcome::Closed);
    let expired = "hoody_proxy_connections_expired_total{phase=\"headers\"}";
    rig.comes_to(expired, 1.0).await;
}

/// Trap: a listener for HTTP/2 without TLS waits for 24 bytes that an old client never sends.
#[tokio::test]
async fn http_2_by_prior_knowledge_leaves_short_requests_alone() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let host = web.host("terminal-1");
    // The shortest there is names no host, and gets its answer.
    let answer = rig.raw(b"P / HTTP/1.0\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.0 400") || answer.starts_with("HTTP/1.1 400"),
        "{answer}"
    );
    let mut raw = Raw::plain(&rig).await;
    raw.request(1, &get(&host), &[]).await;
    assert_eq!(raw.outcome(1).await, Outcome::Status(200));
    // A preface in pieces.
    let mut raw = Raw::silent(&rig).await;
    for byte in PREFACE {
        raw.send(&[*byte]).await;
    }
    raw.send(&frame(kind::SETTINGS, 0, 0, &[])).await;
    raw.request(1, &get(&host), &[]).await;
    assert_eq!(raw.outcome(1).await, Outcome::Status(200));
    // A method that begins as the preface does.
    let ask = format!("PRINT / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let answer = rig.raw(ask.as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("PRINT"),
        "{answer}"
    );
}
