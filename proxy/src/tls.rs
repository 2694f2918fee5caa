//! The handshake: HTTP/2 or HTTP/1.1 by ALPN, with the certificate that the resolver has for the
//! name.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::server::{Acceptor, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::certificates::Certificates;
use crate::connection::Socket;

/// Names that one connection remembers to be covered: to read the certificate takes as long as a
/// tenth of a whole request, and pages of one browser share connections.
const COVERED: usize = 32;

/// Makes TLS connections.
pub struct Tls {
    server: Arc<ServerConfig>,
    certs: Arc<dyn ResolvesServerCert>,
    certificates: Certificates,
    handshake: Duration,
}

/// What a handshake settled.
#[derive(Debug)]
pub struct Secured {
    /// The name the client asked for, as it wrote it.
    sni: Option<Box<str>>,
    certificate: Arc<CertifiedKey>,
    /// Other names that the certificate was found to cover, the latest last.
    covered: Mutex<Vec<Box<str>>>,
    /// Whether ALPN chose HTTP/2.
    pub h2: bool,
}

/// Why there was no connection.
#[derive(Debug)]
pub enum NoHandshake {
    /// It took longer than it may.
    Slow,
    /// There is no certificate for the name.
    UnknownName,
    /// A directory looked whether the name is ours, and has seen what there was.
    Challenge,
    /// Not TLS, no common parameters, or the client went away.
    Failed,
    /// It begins like a request of HTTP; the socket, of which nothing is read.
    Plain(Box<Socket>),
}

impl NoHandshake {
    pub fn reason(&self) -> &'static str {
        match self {
            NoHandshake::Slow => "slow",
            NoHandshake::UnknownName => "unknown_name",
            NoHandshake::Challenge => "challenge",
            NoHandshake::Failed => "failed",
            NoHandshake::Plain(_) => "plain",
        }
    }
}

impl Tls {
    pub fn new(
        certs: Arc<dyn ResolvesServerCert>,
        certificates: Certificates,
        handshake: Duration,
    ) -> Result<Tls, rustls::Error> {
        let mut server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(certs.clone());
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        server.ticketer = ring::Ticketer::new()?;
        // Tickets keep a session's state with the client; nothing of it is kept here.
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Tls {
            server: Arc::new(server),
            certs,
            certificates,
            handshake,
        })
    }

    /// Shake hands, all of it within the deadline.
    pub async fn accept(
        &self,
        socket: Socket,
        client: IpAddr,
    ) -> Result<(Box<TlsStream<Socket>>, Secured), NoHandshake> {
        match timeout(self.handshake, Box::pin(self.shake(socket, client))).await {
            Ok(done) => done,
            Err(_) => Err(NoHandshake::Slow),
        }
    }

    async fn shake(
        &self,
        mut socket: Socket,
        client: IpAddr,
    ) -> Result<(Box<TlsStream<Socket>>, Secured), NoHandshake> {
        // A record of TLS begins with a small number (RFC 8446, section 5.1), a method with a letter.
        let first = socket.fill_buf().await.map_err(|_| NoHandshake::Failed)?;
        if first.first().is_some_and(u8::is_ascii_alphabetic) {
            return Err(NoHandshake::Plain(Box::new(socket)));
        }
        let acceptor = LazyConfigAcceptor::new(Acceptor::default(), socket);
        let start = acceptor.await.map_err(|_| NoHandshake::Failed)?;
        let hello = start.client_hello();
        let sni = hello.server_name().map(Box::<str>::from);
        if let Some(challenge) = self.certificates.challenge(&hello) {
            let challenge = challenge.ok_or(NoHandshake::UnknownName)?;
            if let Ok(mut stream) = start.into_stream(challenge).await {
                let _ = stream.shutdown().await; // it may have seen enough
            }
            return Err(NoHandshake::Challenge);
        }
        if let Some(name) = sni.as_deref()
            && self.certificates.prefers_own(name)
        {
            // Where it does not come, what there is otherwise is shown.
            self.certificates.arrived(name, client).await;
        }
        let hello = start.client_hello();
        let certificate = match self.certs.resolve(hello) {
            Some(certificate) => certificate,
            None => {
                let name = sni.as_deref().ok_or(NoHandshake::UnknownName)?;
                if !self.certificates.arrived(name, client).await {
                    return Err(NoHandshake::UnknownName);
                }
                let hello = start.client_hello();
                self.certs.resolve(hello).ok_or(NoHandshake::UnknownName)?
            }
        };
        let stream = start
            .into_stream(self.server.clone())
            .await
            .map_err(|_| NoHandshake::Failed)?;
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((
            Box::new(stream),
            Secured {
                sni,
                certificate,
                covered: Mutex::default(),
                h2,
            },
        ))
    }
}

impl Secured {
    /// Whether the client was shown a certificate for this host, a lower-case name. A client may
    /// send requests for several names over one connection (RFC 9113, section 9.1.1).
    pub fn covers(&self, host: &str) -> bool {
        if self
            .sni
            .as_deref()
            .is_some_and(|sni| sni.eq_ignore_ascii_case(host))
        {
            return true;
        }
        let mut known = self.covered.lock().unwrap_or_else(PoisonError::into_inner);
        if known.iter().any(|known| **known == *host) {
            return true;
        }
        let Ok(name) = ServerName::try_from(host) else {
            return false;
        };
        let leaf = self.certificate.cert.first();
        let covers = leaf
            .and_then(|leaf| ParsedCertificate::try_from(leaf).ok())
            .is_some_and(|leaf| verify_server_name(&leaf, &name).is_ok());
        if covers {
            if known.len() == COVERED {
                known.remove(0);
            }
            known.push(host.into());
        }
        covers
    }
}
