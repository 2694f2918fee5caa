//! What a TLS listener asks for every handshake.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::Names;
use crate::names::canonical;

/// Makes a certificate for a name that no entry covers, at once and without waiting for anybody:
/// a handshake is held meanwhile.
pub trait OnDemand: Send + Sync {
    /// `None` where the name is none of its own. `host` is in lower case, without a final dot.
    fn certificate(&self, host: &str) -> Option<Arc<CertifiedKey>>;
}

/// Another resolver beneath: what has no better certificate has that one.
impl OnDemand for Arc<Resolver> {
    fn certificate(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        self.find(host)
    }
}

/// The certificate for the name a client asks for: exact, wildcard, on demand, none. A client
/// that names nobody gets none.
pub struct Resolver {
    names: ArcSwap<Names<Arc<CertifiedKey>>>,
    on_demand: Option<Box<dyn OnDemand>>,
}

impl Resolver {
    pub fn new(names: Names<Arc<CertifiedKey>>) -> Resolver {
        Resolver {
            names: ArcSwap::from_pointee(names),
            on_demand: None,
        }
    }

    /// Ask `source` where no entry covers a name.
    pub fn on_demand(self, source: impl OnDemand + 'static) -> Resolver {
        Resolver {
            on_demand: Some(Box::new(source)),
            ..self
        }
    }

    /// Use `names` from the next handshake on. Connections that are open stay as they are.
    pub fn swap(&self, names: Names<Arc<CertifiedKey>>) {
        self.names.store(Arc::new(names));
    }

    /// The certificate for `host`.
    pub fn find(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        if let Some(certificate) = self.names.load().find(host) {
            return Some(certificate.clone());
        }
        self.on_demand.as_ref()?.certificate(&canonical(host))
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name()?)
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("names", &self.names.load().len())
            .finish_non_exhaustive()
    }
}
