//! The edge: what it refuses by itself, and that everything else goes through as it is.

use std::time::Duration;

use control::runtime::fake::{Act, Moment, Trouble};
use futures::StreamExt;
use reqwest::{Body, Method, Version};
use routes::table::KIT_SOCKET;
use serde_json::json;
use tests::Rig;
use tests::rig::{Answer, DOMAIN, NODE, PATIENCE};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

const HEALTH: &str = "/api/v1/terminal/health";

/// Send a request to a host and take the answer as it is.
async fn visit(rig: &Rig, host: &str, path: &str, accept: &str) -> Answer {
    let request = rig
        .client
        .request(Method::GET, host, path)
        .header("accept", accept);
    let response = rig
        .client
        .execute(request.build().expect("valid"))
        .await
        .expect("the proxy answers");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer {
        status,
        headers,
        bytes: response.bytes().await.expect("whole").to_vec(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_json_for_programs_and_pages_for_people() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let (project, id) = (web.project, web.id);
    let containers = format!("{NODE}.containers.{DOMAIN}");
    let mut cases = vec![
        (DOMAIN.to_owned(), 404, "unknown_host"),
        (format!("nothing.{containers}"), 404, "unknown_host"),
        (
            format!("{project}-{project}-terminal-1.{containers}"),
            404,
            "unknown_container",
        ),
        (
            format!("{id}-{id}-terminal-1.{containers}"),
            404,
            "unknown_container",
        ),
        (
            format!("{project}-{id}-teleport-1.{containers}"),
            404,
            "unknown_service",
        ),
        (
            format!("{project}-{id}-ssh.{containers}"),
            404,
            "service_not_http",
        ),
    ];
    rig.never_wake(&web).await;
    let manage = async |act: &str| {
        rig.post(&format!("/api/v1/containers/{id}/{act}"), json!({}))
            .await
    };
    for (act, status, code) in [
        ("pause", "paused", "container_paused"),
        ("stop", "stopped", "container_stopped"),
    ] {
        manage(act).await.expect(200);
        rig.reached(&web, status).await;
        rig.until("the proxy knows", || async {
            visit(&rig, &web.host("files", 1), "/", "*/*").await.json()["code"] == code
        })
        .await;
        cases.push((web.host("terminal", 1), 503, code));
        for (host, status, code) in cases.drain(..) {
            let said = visit(&rig, &host, "/some/path", "application/json")
                .await
                .expect(status);
            assert_eq!(said.json()["code"], code, "{host}");
            assert!(said.header("content-type").starts_with("application/json"));
            assert!(said.json()["message"].is_string() && said.json()["error"].is_string());
            let page = visit(&rig, &host, "/some/path", "text/html,application/xhtml+xml")
                .await
                .expect(status);
            assert!(
                page.header("content-type").starts_with("text/html"),
                "{host}"
            );
            assert!(
                page.text().contains("<html") && !page.header("content-security-policy").is_empty()
            );
            assert!(
                !page.text().contains(&id.to_string()),
                "an error page names no ids"
            );
        }
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_starts_says_when_to_come_back() {
    let rig = Rig::start().await;
    rig.fake
        .trouble(Act::Start, Moment::Before, Trouble::Hang, 1);
    let web = rig.ask("web").await;
    rig.fake.hung(1).await;
    let host = web.host("terminal", 1);
    rig.never_wake(&web).await;
    rig.until("the proxy knows", || async {
        visit(&rig, &host, "/", "*/*").await.status == 503
    })
    .await;
    let said = visit(&rig, &host, "/", "*/*").await;
    assert_eq!(said.json()["code"], "container_starting");
    assert_eq!(said.header("retry-after"), "2");
    let page = visit(&rig, &host, "/", "text/html").await;
    assert!(
        page.text().contains("http-equiv=\"refresh\""),
        "the page looks again by itself"
    );
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kit_that_is_not_there_is_a_failure_of_its_container_alone() {
    let rig = Rig::start().await;
    let web = rig.ask("web").await;
    let other = rig.create("other").await;
    rig.reached(&web, "running").await;
    let socket = rig
        .state
        .path()
        .join(format!("containers/{}/{KIT_SOCKET}", web.id));
    std::fs::remove_file(socket).expect("the kit has a socket");
    let said = visit(&rig, &web.host("terminal", 1), HEALTH, "*/*")
        .await
        .expect(502);
    assert_eq!(said.json()["code"], "service_failed");
    visit(&rig, &other.host("terminal", 1), HEALTH, "*/*")
        .await
        .expect(200);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_service_of_the_kit_and_a_closed_port_are_told_apart() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let unknown = visit(&rig, &web.host("display", 1), "/", "*/*")
        .await
        .expect(404)
        .json();
    assert_eq!(unknown["code"], "SERVICE_UNKNOWN", "{unknown}");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = u32::from(listener.local_addr().expect("bound").port());
    drop(listener);
    let closed = visit(&rig, &web.host("http", port), "/", "*/*")
        .await
        .expect(502)
        .json();
    assert_eq!(closed["code"], "PORT_CLOSED", "{closed}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_edge_may_say_is_not_believed_from_outside() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let lies = [
        ("x-hoody-edge-client", "203.0.113.9"),
        ("x-hoody-edge-service", "files"),
        ("X-Hoody-Edge-Service", "files"),
        ("x-hoody-edge-index", "9"),
        ("x-hoody-edge-scheme", "gopher"),
        ("x-hoody-edge-host", "evil.example"),
        ("x-hoody-edge-realm", "aaaaaaaaaaaaaaaaaaaaaaaa"),
        ("x-hoody-edge-invented", "yes"),
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-host", "evil.example"),
        ("x-real-ip", "203.0.113.9"),
        ("forwarded", "for=203.0.113.9"),
    ];
    let lie = |mut request: reqwest::RequestBuilder| {
        for (name, value) in lies {
            request = request.header(name, value);
        }
        request
    };
    let ip = rig
        .send("api", lie(rig.api(Method::GET, "/api/v1/ip")))
        .await
        .expect(200)
        .data();
    assert_eq!(
        (&ip["ip"], &ip["protocol"]),
        (&json!("127.0.0.1"), &json!("https"))
    );
    assert!(
        !ip.to_string().contains("203.0.113.9") && !ip.to_string().contains("evil.example"),
        "{ip}"
    );

    let health = rig
        .kit(&web, "terminal", Method::GET, HEALTH, lie)
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&health["service"], &health["ip"]),
        (&json!("terminal"), &json!("127.0.0.1"))
    );
    let body = json!({ "command": "true" });
    let made = rig
        .kit(
            &web,
            "terminal",
            Method::POST,
            "/api/v1/terminal/create",
            |request| lie(request).json(&json!({})),
        )
        .await;
    assert_eq!(
        made.expect(200).json()["terminal_id"],
        "1",
        "the index is the host's"
    );
    rig.kit(
        &web,
        "terminal",
        Method::POST,
        "/api/v1/terminal/execute",
        |request| lie(request).json(&body),
    )
    .await
    .expect(200);

    // a realm is a host, not a header
    let made = json!({ "alias": "ours", "realm_ids": ["aaaaaaaaaaaaaaaaaaaaaaaa"], "allow_no_realm": false });
    let token = rig
        .post("/api/v1/auth/tokens", made)
        .await
        .expect(201)
        .data();
    let token = token["token"].as_str().expect("a secret");
    let request = lie(rig
        .open_api(Method::GET, "/api/v1/projects/")
        .bearer_auth(token));
    rig.send("api", request).await.expect(403);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_of_http_are_spoken() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    for host in [web.host("terminal", 1), format!("api.{DOMAIN}")] {
        let request = rig
            .client
            .request(Method::GET, &host, "/")
            .build()
            .expect("valid");
        assert_eq!(
            rig.client
                .execute(request)
                .await
                .expect("an answer")
                .version(),
            Version::HTTP_2
        );
    }
    // many at once over the one connection
    let asked = futures::future::join_all(
        (0..40).map(|_| rig.kit(&web, "terminal", Method::GET, HEALTH, |request| request)),
    );
    assert!(asked.await.iter().all(|answer| answer.status == 200));

    let host = web.host("terminal", 1);
    let mut stream = rig.client.connect(&host).await.expect("a handshake");
    let request = format!("GET {HEALTH} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    // a peer may close without a farewell
    let _ = stream.read_to_string(&mut answer).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"service\":\"terminal\""),
        "{answer}"
    );
    rig.stop().await;
}

/// A server in the container: takes one request, tells of each piece of its body as it comes, and
/// says what it is told to say.
struct Server {
    port: u32,
    came: mpsc::Receiver<Vec<u8>>,
    say: mpsc::Sender<Vec<u8>>,
}

impl Server {
    async fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = u32::from(listener.local_addr().expect("bound").port());
        let (tell, came) = mpsc::channel(16);
        let (say, mut said) = mpsc::channel::<Vec<u8>>(16);
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            let (reading, mut writing) = stream.into_split();
            let mut reading = BufReader::new(reading);
            let mut line = String::new();
            while reading
                .read_line(&mut line)
                .await
                .is_ok_and(|read| read > 2)
            {
                line.clear();
            }
            tokio::spawn(async move {
                let mut piece = vec![0; 64 << 10];
                while let Ok(read @ 1..) = reading.read(&mut piece).await {
                    if tell.send(piece[..read].to_vec()).await.is_err() {
                        return;
                    }
                }
            });
            while let Some(bytes) = said.recv().await {
                if writing.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        });
        Server { port, came, say }
    }

    async fn hears(&mut self, text: &str) {
        let mut heard = Vec::new();
        while !String::from_utf8_lossy(&heard).contains(text) {
            let piece = tokio::time::timeout(PATIENCE, self.came.recv()).await;
            heard.extend(
                piece
                    .expect("it comes without waiting for the rest")
                    .expect("the body goes on"),
            );
        }
    }

    async fn says(&self, text: &str) {
        self.say
            .send(text.as_bytes().to_vec())
            .await
            .expect("it runs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stream_both_ways_piece_by_piece() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let mut server = Server::start().await;
    let (send, mut sent) = mpsc::channel::<std::io::Result<Vec<u8>>>(1);
    let body = futures::stream::poll_fn(move |context| sent.poll_recv(context));
    let request = rig
        .client
        .request(Method::POST, &web.host("http", server.port), "/upload")
        .body(Body::wrap_stream(body));
    let answer = tokio::spawn({
        let client = rig.client.clone();
        async move {
            client
                .execute(request.build().expect("valid"))
                .await
                .expect("an answer")
        }
    });
    // each piece of the request is there before the next one is sent
    for piece in ["first", "second", "third"] {
        send.send(Ok(piece.as_bytes().to_vec()))
            .await
            .expect("the request goes on");
        server.hears(piece).await;
    }
    drop(send);
    // and each event of the answer before the next one is said
    server
        .says("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        .await;
    let answer = tokio::time::timeout(PATIENCE, answer)
        .await
        .expect("the head comes at once")
        .expect("no panic");
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut events = answer.bytes_stream();
    for event in ["data: one\n\n", "data: two\n\n", "data: three\n\n"] {
        server.says(event).await;
        let heard = tokio::time::timeout(PATIENCE, events.next())
            .await
            .expect("it comes at once");
        assert_eq!(
            heard.expect("the stream goes on").expect("a piece"),
            event.as_bytes()
        );
    }
    // it ends when the server hangs up
    drop(server);
    let mut rest = events
        .filter(|piece| std::future::ready(piece.as_ref().map_or(true, |bytes| !bytes.is_empty())));
    let end = tokio::time::timeout(PATIENCE, rest.next())
        .await
        .expect("the end comes");
    assert!(end.is_none(), "{end:?}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_goes_up_and_comes_down_unchanged() {
    const PIECE: usize = 1 << 20;
    const PIECES: usize = 24;
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let piece = |at: usize| vec![u8::try_from(at % 251).expect("below 251"); PIECE];
    let body = futures::stream::iter((0..PIECES).map(move |at| Ok::<_, std::io::Error>(piece(at))));
    let path = "/api/v1/files/large.bin";
    let up = rig
        .kit(&web, "files", Method::PUT, path, |request| {
            request.body(Body::wrap_stream(body))
        })
        .await;
    assert_eq!(up.expect(200).json()["new_size"], PIECE * PIECES);

    let request = rig
        .client
        .request(Method::GET, &web.host("files", 1), path)
        .build()
        .expect("valid");
    let answer = rig.client.execute(request).await.expect("an answer");
    let (mut down, mut at) = (answer.bytes_stream(), 0);
    while let Some(bytes) = down.next().await {
        let bytes = bytes.expect("it goes on");
        assert!(
            bytes
                .iter()
                .enumerate()
                .all(|(i, byte)| usize::from(*byte) == (at + i) / PIECE % 251),
            "at {at}"
        );
        at += bytes.len();
    }
    assert_eq!(at, PIECE * PIECES);

    // an upload that breaks off leaves what was there
    let broken = futures::stream::iter([Ok(vec![0; PIECE]), Err(std::io::Error::other("gone"))]);
    let request = rig
        .client
        .request(Method::PUT, &web.host("files", 1), path)
        .body(Body::wrap_stream(broken));
    assert!(
        rig.client
            .execute(request.build().expect("valid"))
            .await
            .is_err()
    );
    tokio::time::sleep(Duration::from_millis(50)).await;
    let stat = rig
        .kit(
            &web,
            "files",
            Method::GET,
            "/api/v1/files/stat/large.bin",
            |request| request,
        )
        .await;
    assert_eq!(stat.expect(200).json()["size"], PIECE * PIECES);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_good_for_its_own_name_only() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let mut stream = rig
        .client
        .connect(&web.host("terminal", 1))
        .await
        .expect("a handshake");
    for (host, status) in [
        (format!("api.{DOMAIN}"), " 421 "),
        ("evil.example".to_owned(), " 4"),
    ] {
        let request = format!("GET /api/v1/ip HTTP/1.1\r\nhost: {host}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut head = vec![0; 16 << 10];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut head))
            .await
            .expect("it answers")
            .expect("whole");
        let head = String::from_utf8_lossy(&head[..read]).into_owned();
        assert!(
            head.lines()
                .next()
                .is_some_and(|line| line.contains(status)),
            "{host}: {head}"
        );
        stream = rig
            .client
            .connect(&web.host("terminal", 1))
            .await
            .expect("a handshake");
    }
    drop(stream);
    let plain = TcpStream::connect(("127.0.0.1", rig.client.port())).await;
    let mut plain = plain.expect("it listens");
    plain
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("sent");
    let mut said = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, plain.read_to_end(&mut said))
        .await
        .expect("it hangs up");
    assert!(!said.starts_with(b"HTTP/1.1 200"), "plain text is no HTTPS");
    rig.stop().await;
}
