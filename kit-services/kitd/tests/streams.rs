//! What needs more than one request and one answer: WebSockets over HTTP/2, and gRPC.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::ext::Protocol;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kitd::{Kit, Settings};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

type Body = BoxBody<Bytes, Infallible>;

struct Rig {
    directory: tempfile::TempDir,
    kit: SendRequest<Body>,
}

/// A kit, and the proxy's HTTP/2 connection to it.
async fn start() -> Rig {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("kit.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let kit = Kit::new(Settings::process(directory.path().to_owned()));
    tokio::spawn(kit.serve(listener, std::future::pending()));
    let stream = UnixStream::connect(&socket).await.expect("it listens");
    let (kit, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("a connection");
    tokio::spawn(connection);
    Rig { directory, kit }
}

impl Rig {
    async fn websocket(
        &mut self,
        service: &str,
        port: Option<u16>,
        path: &str,
    ) -> Response<Incoming> {
        let mut ask = Request::builder()
            .method(Method::CONNECT)
            .uri(format!("http://kit.example{path}"))
            .extension(Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13")
            .header("x-hoody-edge-service", service)
            .header("x-hoody-edge-index", "1")
            .header("x-hoody-edge-host", "kit.example");
        if let Some(port) = port {
            ask = ask.header("x-hoody-edge-port", port.to_string());
        }
        let ask = ask.body(Empty::new().boxed()).expect("a request");
        self.kit.send_request(ask).await.expect("an answer")
    }
}

async fn opened(
    mut answer: Response<Incoming>,
) -> WebSocketStream<TokioIo<hyper::upgrade::Upgraded>> {
    assert_eq!(answer.status(), StatusCode::OK);
    for name in ["connection", "upgrade", "sec-websocket-accept"] {
        assert!(!answer.headers().contains_key(name), "{name}");
    }
    let upgraded = hyper::upgrade::on(&mut answer).await.expect("a stream");
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await
}

#[tokio::test]
async fn a_service_answers_a_websocket_over_http_2() {
    let mut rig = start().await;
    let answer = rig
        .websocket("terminal", None, "/api/v1/terminal/ws?terminal_id=1")
        .await;
    let mut socket = opened(answer).await;
    let hello = r#"{"command":"{","columns":80,"rows":24}"#;
    socket.send(hello.into()).await.expect("sent");
    let typed = Message::binary(b"0something typed".to_vec());
    socket.send(typed).await.expect("sent");
    let mut shown = Vec::new();
    while !String::from_utf8_lossy(&shown).contains("something typed") {
        let message = socket.next().await.expect("open").expect("a message");
        shown.extend_from_slice(&message.into_data());
    }
    assert!(rig.directory.path().exists());
}

#[tokio::test]
async fn a_server_in_the_container_answers_a_websocket_over_http_2() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("accepts");
        let mut socket = tokio_tungstenite::accept_async(stream)
            .await
            .expect("a WebSocket");
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() || socket.send(message).await.is_err() {
                break;
            }
        }
    });
    let mut rig = start().await;
    let mut socket = opened(rig.websocket("http", Some(port), "/any?x=y").await).await;
    for size in [0usize, 1, 126, 70_000, 1 << 20] {
        let message = Message::binary(vec![7; size]);
        socket.send(message.clone()).await.expect("sent");
        assert_eq!(
            socket.next().await.expect("open").expect("a message"),
            message
        );
    }
    socket.close(None).await.expect("closed");
}

/// A server that does not want a WebSocket must not seem to have taken one.
#[tokio::test]
async fn a_server_without_websockets_refuses_one_over_http_2() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accepts");
            let service = service_fn(|request: Request<Incoming>| async move {
                let mut response = Response::new(Full::new(Bytes::from("a page")));
                if request.uri().path() == "/missing" {
                    *response.status_mut() = StatusCode::NOT_FOUND;
                }
                Ok::<_, Infallible>(response)
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    let mut rig = start().await;
    let answer = rig.websocket("http", Some(port), "/").await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    let answer = rig.websocket("http", Some(port), "/missing").await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    let answer = rig.websocket("nothing", None, "/").await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
}

/// Echoes every message and ends with a status, as a gRPC server does.
async fn grpc(
    request: Request<Incoming>,
) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, Infallible> {
    assert_eq!(request.version(), Version::HTTP_2);
    assert_eq!(request.headers()["te"], "trailers");
    assert!(
        !request
            .headers()
            .keys()
            .any(|name| name.as_str().starts_with("x-hoody-edge"))
    );
    let authority = request.uri().authority().expect("an authority").to_string();
    let echo = futures::stream::unfold(Some(request.into_body()), |body| async {
        let mut body = body?;
        let frame = match body.frame().await {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => return None,
            None => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().expect("a value"));
                return Some((Ok(Frame::trailers(trailers)), None));
            }
        };
        Some((Ok(frame), Some(body)))
    });
    let response = Response::builder()
        .header("content-type", "application/grpc")
        .header("x-authority", authority)
        .body(BodyExt::boxed_unsync(StreamBody::new(echo)));
    Ok(response.expect("a response"))
}

async fn serve_grpc(tls: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let port = listener.local_addr().expect("an address").port();
    let acceptor = tls.then(|| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .expect("a certificate");
        config.alpn_protocols = vec![b"h2".to_vec()];
        tokio_rustls::TlsAcceptor::from(Arc::new(config))
    });
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accepts");
            let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            match &acceptor {
                None => {
                    tokio::spawn(http2.serve_connection(TokioIo::new(stream), service_fn(grpc)));
                }
                Some(acceptor) => {
                    let stream = acceptor.accept(stream).await.expect("a handshake");
                    tokio::spawn(http2.serve_connection(TokioIo::new(stream), service_fn(grpc)));
                }
            }
        }
    });
    port
}

#[tokio::test]
async fn a_grpc_call_passes_with_its_trailers() {
    let mut rig = start().await;
    for (service, tls) in [("http", false), ("https", true)] {
        let port = serve_grpc(tls).await;
        let ask = Request::post("http://kit.example/echo.Echo/Say")
            .header("content-type", "application/grpc+proto")
            .header("te", "trailers")
            .header("x-hoody-edge-service", service)
            .header("x-hoody-edge-port", port.to_string())
            .header("x-hoody-edge-host", "app.example")
            .body(Full::new(Bytes::from_static(b"\0\0\0\0\x05hello")).boxed())
            .expect("a request");
        let answer = rig.kit.send_request(ask).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["x-authority"], "app.example");
        let body = answer.into_body().collect().await.expect("a body");
        assert_eq!(body.trailers().expect("trailers")["grpc-status"], "0");
        assert_eq!(body.to_bytes(), "\0\0\0\0\x05hello");
    }
}
