//! Connections to a rival, as a browser would make them.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::rivals::Rival;

/// How a request travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Plain,
    TlsH1,
    TlsH2,
}

impl Protocol {
    pub const ALL: [Protocol; 3] = [Protocol::Plain, Protocol::TlsH1, Protocol::TlsH2];

    pub fn name(self) -> &'static str {
        match self {
            Protocol::Plain => "plain_h1",
            Protocol::TlsH1 => "tls_h1",
            Protocol::TlsH2 => "tls_h2",
        }
    }

    pub fn address(self, rival: &Rival) -> SocketAddr {
        match self {
            Protocol::Plain => rival.http,
            Protocol::TlsH1 | Protocol::TlsH2 => rival.https,
        }
    }
}

/// What bytes go through.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub type Body = BoxBody<Bytes, std::convert::Infallible>;

/// A connection that takes requests; over HTTP/2 its copies share it.
pub enum Sender {
    H1(http1::SendRequest<Body>),
    H2(http2::SendRequest<Body>),
}

/// Makes connections.
pub struct Client {
    h1: TlsConnector,
    h2: TlsConnector,
}

impl Client {
    pub fn new() -> anyhow::Result<Client> {
        let connector = |protocol: &[u8]| -> anyhow::Result<TlsConnector> {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let mut config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Trusting))
                .with_no_client_auth();
            config.alpn_protocols = vec![protocol.to_vec()];
            // Every handshake is a full one.
            config.resumption = rustls::client::Resumption::disabled();
            Ok(TlsConnector::from(Arc::new(config)))
        };
        Ok(Client {
            h1: connector(b"http/1.1")?,
            h2: connector(b"h2")?,
        })
    }

    pub async fn stream(
        &self,
        rival: &Rival,
        protocol: Protocol,
        host: &str,
    ) -> anyhow::Result<Box<dyn Stream>> {
        let socket = TcpStream::connect(protocol.address(rival)).await?;
        socket.set_nodelay(true)?;
        let connector = match protocol {
            Protocol::Plain => return Ok(Box::new(socket)),
            Protocol::TlsH1 => &self.h1,
            Protocol::TlsH2 => &self.h2,
        };
        let name = ServerName::try_from(host.to_owned())?;
        Ok(Box::new(connector.connect(name, socket).await?))
    }

    pub async fn sender(
        &self,
        rival: &Rival,
        protocol: Protocol,
        host: &str,
    ) -> anyhow::Result<Sender> {
        let stream = TokioIo::new(self.stream(rival, protocol, host).await?);
        Ok(match protocol {
            Protocol::Plain | Protocol::TlsH1 => {
                let (sender, connection) = http1::handshake(stream).await?;
                tokio::spawn(connection);
                Sender::H1(sender)
            }
            Protocol::TlsH2 => {
                let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                    .initial_stream_window_size(1 << 20)
                    .initial_connection_window_size(16 << 20)
                    .handshake(stream)
                    .await?;
                tokio::spawn(connection);
                Sender::H2(sender)
            }
        })
    }
}

/// The measurement asks its own servers; what a verification costs is not asked here.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
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
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::ED25519,
        ]
    }
}
