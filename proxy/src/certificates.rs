//! What whoever has certificates is asked beside the certificates themselves: answers for a
//! directory that looks whether a name is ours, and certificates that are not there yet.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use certs::acme::Wanted;
use certs::{Acme, Holdings};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::time::timeout;

/// Where a directory looks (RFC 8555, section 8.3).
const WELL_KNOWN: &str = "/.well-known/acme-challenge/";
/// How it says in a handshake that it only looks (RFC 8737).
const ACME_TLS: &[u8] = b"acme-tls/1";
/// How long a handshake waits for a certificate that is being ordered: within its own deadline.
/// Whoever is late is let in with the next try.
const ORDER: Duration = Duration::from_secs(8);
/// What a visitor is told to wait at most: its owner may be mending it right now.
const COME_AGAIN: Duration = Duration::from_secs(60);

/// Who orders certificates, and who knows what there is.
#[derive(Clone, Default)]
pub struct Certificates {
    pub acme: Option<Arc<Acme>>,
    pub holdings: Option<Arc<dyn Holdings>>,
}

impl Certificates {
    /// The answer to a plain request for a path, where a directory asks for it.
    pub(crate) fn answer(&self, host: &str, path: &str) -> Option<String> {
        let token = path.strip_prefix(WELL_KNOWN)?;
        self.acme.as_ref()?.challenges().http(host, token)
    }

    /// Seconds after which it is worth another try, where a certificate for a domain of somebody
    /// else is being ordered or could not be had. The host was found to lead here.
    pub(crate) fn coming(&self, host: &str) -> Option<u32> {
        let wait = match self.acme.as_ref()?.want(host) {
            Wanted::Ready | Wanted::Refused(None) => return None,
            Wanted::Coming(flight) => flight.come_again(),
            Wanted::Refused(Some(wait)) => wait,
        };
        Some(wait.min(COME_AGAIN).as_secs() as u32)
    }

    /// Wait until a certificate that can be ordered has come, or will not. `client` pays for the
    /// question whether the host leads here.
    pub(crate) async fn arrived(&self, host: &str, client: IpAddr) -> bool {
        let Some(acme) = &self.acme else { return false };
        let arrived = async {
            match acme.wish(host, client).await {
                Wanted::Ready => true,
                Wanted::Coming(flight) => flight.landed(ORDER).await,
                Wanted::Refused(_) => false,
            }
        };
        timeout(ORDER, arrived).await.unwrap_or(false)
    }

    /// Whether a host has a certificate of its own ordered, although there is another one to show.
    pub(crate) fn prefers_own(&self, host: &str) -> bool {
        self.acme.as_ref().is_some_and(|acme| acme.is_below(host))
    }

    /// The settings to shake hands with where a directory looks whether a name is ours: it asks
    /// for that protocol and for no other.
    pub(crate) fn challenge(&self, hello: &ClientHello<'_>) -> Option<Challenge> {
        let mut protocols = hello.alpn()?;
        let looks = protocols.next() == Some(ACME_TLS) && protocols.next().is_none();
        looks.then(|| {
            let acme = self.acme.as_ref()?;
            let shown = acme.challenges().alpn(hello.server_name()?)?;
            let mut server =
                ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                    .with_safe_default_protocol_versions()
                    .ok()?
                    .with_no_client_auth()
                    .with_cert_resolver(Arc::new(Shown(shown)));
            server.alpn_protocols = vec![ACME_TLS.to_vec()];
            Some(Arc::new(server))
        })
    }
}

/// What a directory that looks is shown; nothing where there is nothing to see.
pub(crate) type Challenge = Option<Arc<ServerConfig>>;

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates")
            .field("acme", &self.acme)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}
