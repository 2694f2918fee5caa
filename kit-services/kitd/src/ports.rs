//! Servers of the container's own, reached at `http-{port}` and `https-{port}` hosts.
//!
//! The proxy cannot reach a server that listens on the container's loopback; the kit can. It
//! speaks HTTP/1.1 to the server, with TLS for `https`, whose certificate is not checked: it is
//! the container talking to itself. A gRPC call comes over HTTP/2 and goes on over HTTP/2, by
//! prior knowledge or, with TLS, by ALPN: its status is in trailers.

use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use http::uri::{self, Authority};
use http::{HeaderValue, StatusCode, Uri, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kit::call::edge;
use kit::{Fault, Wire};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// How long a server in the container may take to accept a connection.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// Which protocol a server in the container speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// The scheme that a host's service label names.
    pub fn of(label: &str) -> Option<Scheme> {
        match label {
            "http" => Some(Scheme::Http),
            "https" => Some(Scheme::Https),
            _ => None,
        }
    }
}

/// The forwarder. The TLS client is made when first needed.
#[derive(Default)]
pub struct Ports {
    tls: OnceLock<Arc<ClientConfig>>,
}

impl Ports {
    pub fn new() -> Self {
        Self::default()
    }

    /// Pass a request on to the port it names, and the answer back.
    pub async fn forward(&self, scheme: Scheme, request: Request) -> Response {
        match self.try_forward(scheme, request).await {
            Ok(response) => response,
            Err(fault) => kit::http::refuse(Wire::KIT, &fault),
        }
    }

    async fn try_forward(&self, scheme: Scheme, request: Request) -> Result<Response, Fault> {
        let port = request
            .headers()
            .get(edge::PORT)
            .and_then(|value| value.to_str().ok()?.parse::<u16>().ok())
            .filter(|port| *port != 0)
            .ok_or_else(|| Fault::bad_request("the request names no port"))?;
        let stream = tokio::time::timeout(CONNECT_TIME, connect(port))
            .await
            .map_err(|_| {
                Fault::new(
                    StatusCode::GATEWAY_TIMEOUT,
                    format!("port {port} does not accept connections"),
                )
            })?;
        let stream = stream.map_err(|_| {
            Fault::new(
                StatusCode::BAD_GATEWAY,
                format!("nothing listens on port {port} of this container; start a server on it"),
            )
            .code("PORT_CLOSED")
        })?;
        let grpc = is_grpc(&request);
        match scheme {
            Scheme::Http if grpc => call(stream, port, scheme, request).await,
            Scheme::Http => exchange(stream, port, request).await,
            Scheme::Https => {
                let name = ServerName::try_from("localhost").expect("a valid name");
                let mut config = self.tls();
                if grpc {
                    Arc::make_mut(&mut config).alpn_protocols = vec![b"h2".to_vec()];
                }
                let connector = tokio_rustls::TlsConnector::from(config);
                let stream = connector.connect(name, stream).await.map_err(|error| {
                    Fault::new(
                        StatusCode::BAD_GATEWAY,
                        format!("port {port} does not speak TLS: {error}"),
                    )
                })?;
                if grpc {
                    return call(stream, port, scheme, request).await;
                }
                exchange(stream, port, request).await
            }
        }
    }

    fn tls(&self) -> Arc<ClientConfig> {
        let make = || {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let schemes = provider
                .signature_verification_algorithms
                .supported_schemes();
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .expect("ring supports the default versions")
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Unchecked { schemes }))
                .with_no_client_auth();
            Arc::new(config)
        };
        self.tls.get_or_init(make).clone()
    }
}

/// Connect to a server on either loopback or on all addresses.
async fn connect(port: u16) -> std::io::Result<TcpStream> {
    match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Ok(stream) => Ok(stream),
        Err(error) => TcpStream::connect((std::net::Ipv6Addr::LOCALHOST, port))
            .await
            .map_err(|_| error),
    }
}

fn broke_off(port: u16, error: &hyper::Error) -> Fault {
    Fault::new(
        StatusCode::BAD_GATEWAY,
        format!("the server on port {port} broke off: {error}"),
    )
    .code("PORT_FAILED")
}

/// Whether it is a call of gRPC. Its variant for browsers has trailers of its own, in the body.
fn is_grpc(request: &Request) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let kind = request.headers().get(CONTENT_TYPE);
    request.version() == Version::HTTP_2
        && kind
            .and_then(|kind| kind.as_bytes().strip_prefix(GRPC))
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Pass a call of gRPC on, body and trailers as they come.
async fn call(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    port: u16,
    scheme: Scheme,
    mut request: Request,
) -> Result<Response, Fault> {
    let failed = |error| broke_off(port, &error);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(failed)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, port, "the server on port {port} broke off");
        }
    });
    address(&mut request);
    *request.version_mut() = Version::HTTP_2;
    let host = request.headers_mut().remove(HOST);
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    uri.scheme = Some(match scheme {
        Scheme::Http => uri::Scheme::HTTP,
        Scheme::Https => uri::Scheme::HTTPS,
    });
    uri.authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    *request.uri_mut() =
        Uri::from_parts(uri).map_err(|_| Fault::bad_request("the request names no host"))?;
    let response = sender.send_request(request).await.map_err(failed)?;
    Ok(response.map(Body::new).into_response())
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    port: u16,
    mut request: Request,
) -> Result<Response, Fault> {
    let failed = |error| broke_off(port, &error);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, port, "the server on port {port} broke off");
        }
    });
    let upgrade = kit::http::upgrade_of(request.headers());
    let client = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    address(&mut request);
    if let Some(protocol) = upgrade {
        request
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        request.headers_mut().insert(UPGRADE, protocol);
    }
    let mut response = sender.send_request(request).await.map_err(failed)?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(client) = client
    {
        let server = hyper::upgrade::on(&mut response);
        tokio::spawn(async move {
            let (Ok(client), Ok(server)) = tokio::join!(client, server) else {
                return;
            };
            let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
            // whichever side ends first ends both
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        });
    }
    Ok(response.map(Body::new).into_response())
}

/// Give the request the form that an origin server expects: of the proxy's words to the kit, it
/// hears who came in.
fn address(request: &mut Request) {
    let host = request.headers().get(edge::HOST).cloned();
    let names: Vec<_> = request
        .headers()
        .keys()
        .filter(|name| {
            let name = name.as_str();
            name.starts_with(edge::PREFIX) && !edge::IDENTITY.contains(&name)
        })
        .cloned()
        .collect();
    for name in names {
        request.headers_mut().remove(name);
    }
    if let Some(host) = host {
        request.headers_mut().insert(HOST, host);
    }
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    *request.uri_mut() = path
        .parse::<Uri>()
        .unwrap_or_else(|_| Uri::from_static("/"));
    for name in ["keep-alive", "proxy-connection", "connection"] {
        request.headers_mut().remove(name);
    }
    *request.version_mut() = http::Version::HTTP_11;
}

/// Accepts any certificate: the server is in the same container.
#[derive(Debug)]
struct Unchecked {
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_is_told_who_came_in_and_nothing_else_of_the_edge() {
        let mut request = Request::get("http://kit/path?x=1")
            .header("host", "kit")
            .header(edge::HOST, "web.example:8443")
            .header(edge::PORT, "3000")
            .header(edge::CLIENT, "192.0.2.1")
            .header(edge::AUTH, "jwt")
            .header(edge::GROUP, "people")
            .header(edge::USER, "ann")
            .header("x-hoody-edge-invented", "yes")
            .header("x-forwarded-for", "192.0.2.1")
            .body(Body::empty())
            .expect("a request");
        address(&mut request);
        let mut names: Vec<&str> = request.headers().keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        let told = [edge::AUTH, edge::GROUP, edge::USER];
        assert_eq!(names, [&["host", "x-forwarded-for"][..], &told].concat());
        assert_eq!(request.headers()["host"], "web.example:8443");
        assert_eq!(request.uri(), "/path?x=1");
    }
}
