//! A node before a real directory, with a clock that is moved by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use certs::acme::{Https, Limits, Parts, Settings, Target};
use certs::{Acme, Clock, Holding, Holdings, Resolver};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::pebble::{Names, Pebble, Setup};
use super::wire::{End, Wire};

pub const DOMAIN: &str = "hoody.example";

/// A clock that stands until it is moved.
#[derive(Clone)]
pub struct Hands(Arc<AtomicU64>);

impl Hands {
    pub fn new() -> Hands {
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        Hands(Arc::new(AtomicU64::new(since.as_secs())))
    }

    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_secs(), Ordering::Relaxed);
    }
}

impl Clock for Hands {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

pub struct Rig {
    pub names: Arc<Names>,
    pub pebble: Pebble,
    pub wire: Arc<Wire>,
    pub clock: Hands,
    pub settings: Settings,
    /// Who is told who certifies; nobody, where a test counts requests.
    pub issuers: Option<Arc<certs::acme::TellIssuers>>,
    pub store: tempfile::TempDir,
}

impl Rig {
    pub async fn start() -> Rig {
        Rig::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Setup)) -> Rig {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let names = Names::start().await;
        let mut setup = Setup::new(&names);
        change(&mut setup);
        let pebble = Pebble::start(setup).await;
        let store = tempfile::tempdir().unwrap();
        let https = Https::new(Some(&pebble.root())).unwrap();
        Rig {
            settings: Settings {
                directory: pebble.directory.clone(),
                store: store.path().to_owned(),
                contacts: vec![format!("mailto:admin@{DOMAIN}")],
                external: None,
                targets: Target::of_node(DOMAIN, "node-1"),
                own: DOMAIN.to_owned(),
                owner: "one".to_owned(),
                limits: Limits::default(),
            },
            names,
            pebble,
            wire: Wire::new(https),
            clock: Hands::new(),
            issuers: None,
            store,
        }
    }

    /// A node with the rig's settings, as its process starts.
    pub fn node(&self) -> Arc<Acme> {
        self.node_with(|_| {})
    }

    pub fn node_with(&self, change: impl FnOnce(&mut Settings)) -> Arc<Acme> {
        let mut settings = self.settings.clone();
        change(&mut settings);
        let parts = Parts {
            http: Arc::new(End(self.wire.clone())),
            dns: Some(self.names.clone()),
            clock: Arc::new(self.clock.clone()),
            dice: Arc::new(|| 0.5),
            issuers: self.issuers.clone(),
        };
        Acme::open(settings, parts, nothing()).unwrap()
    }

    /// Whether a client that trusts the directory takes what is shown for `host`.
    pub async fn takes(&self, acme: &Acme, host: &str) -> Result<(), String> {
        let shown = acme.resolver().find(host).ok_or("nothing is shown")?;
        let root = self.pebble.issuing_root().await;
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let chain = &shown.cert;
        verifier
            .verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now())
            .map(|_| ())
            .map_err(|error| error.to_string())
    }
}

pub fn nothing() -> Arc<Resolver> {
    Arc::new(Resolver::new(certs::Names::default()))
}

/// What is known of the certificate for a name.
pub fn holding(acme: &Acme, name: &str) -> Holding {
    let all = acme.holdings();
    let found = all
        .into_iter()
        .find(|it| it.names.iter().any(|it| it == name));
    found.unwrap_or_else(|| panic!("nothing is known of {name}"))
}
