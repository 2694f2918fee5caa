use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::*;

const DOMAIN: &str = "hoody.localhost";
const P: &str = "0123456789abcdef01234567";
const C: &str = "89abcdef0123456789abcdef";

/// A clock that stands until it is moved, at a time when today's checks hold.
#[derive(Clone)]
struct Hands(Arc<AtomicU64>);

impl Hands {
    fn new() -> Hands {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        Hands(Arc::new(AtomicU64::new(since.as_secs())))
    }

    fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_secs(), Ordering::Relaxed);
    }
}

impl Clock for Hands {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

fn open(directory: &Path) -> Result<Local, Error> {
    Local::open_or_create(directory, DOMAIN, "node-1", Arc::new(Hands::new()))
}

/// Shake hands in memory as a client that trusts `ca` and asks for `host`.
fn handshake(ca: &str, resolver: Arc<Resolver>, host: &str) -> Result<Vec<u8>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut unread = wire.as_slice();
        while !unread.is_empty() {
            server.read_tls(&mut unread).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut unread = wire.as_slice();
        while !unread.is_empty() {
            client.read_tls(&mut unread).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(client.peer_certificates().unwrap()[0].to_vec())
}

#[test]
fn clients_that_trust_the_authority_take_the_names_of_the_node() {
    let directory = tempfile::tempdir().unwrap();
    let local = open(directory.path()).unwrap();
    let label = format!("{P}-{C}");
    for (host, taken) in [
        (DOMAIN.to_owned(), true),
        (format!("api.{DOMAIN}"), true),
        (format!("API.{DOMAIN}"), true),
        (format!("{P}.api.{DOMAIN}"), true),
        (format!("localhost.containers.{DOMAIN}"), true),
        (
            format!("{label}-terminal-1.node-1.containers.{DOMAIN}"),
            true,
        ),
        (format!("my-alias.node-1.containers.{DOMAIN}"), true),
        (
            format!("users.{label}-exec-1.node-1.containers.{DOMAIN}"),
            true,
        ),
        (
            format!("v1.users.{label}-exec-12.node-1.containers.{DOMAIN}"),
            true,
        ),
        (format!("x.{P}.api.{DOMAIN}"), false),
        (format!("www.{DOMAIN}"), false),
        (format!("x.node-2.containers.{DOMAIN}"), false),
        (
            format!("users.{label}-files-1.node-1.containers.{DOMAIN}"),
            false,
        ),
        (
            format!("users.{label}-exec-1.node-2.containers.{DOMAIN}"),
            false,
        ),
        (
            format!("users.{label}-exec-123456.node-1.containers.{DOMAIN}"),
            false,
        ),
        (
            format!("users.{label}-exec-1-2.node-1.containers.{DOMAIN}"),
            false,
        ),
        (
            format!("users.{P}-exec-1.node-1.containers.{DOMAIN}"),
            false,
        ),
        ("example.com".to_owned(), false),
        ("127.0.0.1".to_owned(), false),
    ] {
        let outcome = handshake(local.ca_pem(), local.resolver(), &host);
        assert_eq!(outcome.is_ok(), taken, "{host}: {outcome:?}");
    }
}

#[test]
fn the_authority_is_believed_for_its_domain_only() {
    let directory = tempfile::tempdir().unwrap();
    let local = open(directory.path()).unwrap();
    for (name, believed) in [
        ("other.hoody.localhost", true),
        ("example.com", false),
        ("localhost", false),
        ("nothoody.localhost", false),
    ] {
        let leaf = local.authority.mint(name, local.clock.now()).unwrap();
        let mut names = Names::default();
        names.insert(name, leaf.certified);
        let outcome = handshake(local.ca_pem(), Arc::new(Resolver::new(names)), name);
        assert_eq!(outcome.is_ok(), believed, "{name}: {outcome:?}");
    }
}

#[test]
fn keys_are_for_the_owner_and_the_certificate_for_all() {
    let directory = tempfile::tempdir().unwrap();
    let pki = directory.path().join("deep/pki");
    open(&pki).unwrap();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(pki.join(KEY)), 0o600);
    assert_eq!(mode(pki.join(CERTIFICATE)), 0o644);
    assert_eq!(mode(pki.join(LEAVES)), 0o700);
    let leaves: Vec<_> = fs::read_dir(pki.join(LEAVES))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(leaves.len(), 5);
    for leaf in leaves {
        assert_eq!(mode(leaf), 0o600);
    }
    fs::set_permissions(pki.join(KEY), fs::Permissions::from_mode(0o644)).unwrap();
    open(&pki).unwrap();
    assert_eq!(mode(pki.join(KEY)), 0o600);
}

#[test]
fn opening_again_finds_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path()).unwrap();
    let again = open(directory.path()).unwrap();
    assert_eq!(first.ca_pem(), again.ca_pem());
    let host = format!("api.{DOMAIN}");
    assert_eq!(
        first.resolver().find(&host).unwrap().cert,
        again.resolver().find(&host).unwrap().cert
    );
}

#[test]
fn many_at_once_make_one_authority() {
    let directory = tempfile::tempdir().unwrap();
    let opened: Vec<Local> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| open(directory.path()).unwrap()))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let host = format!("x.node-1.containers.{DOMAIN}");
    for local in &opened {
        assert_eq!(local.ca_pem(), opened[0].ca_pem());
        assert_eq!(
            local.resolver().find(&host).unwrap().cert,
            opened[0].resolver().find(&host).unwrap().cert
        );
        handshake(local.ca_pem(), local.resolver(), &host).unwrap();
    }
}

#[test]
fn leaves_are_renewed_before_they_end_and_swapped() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    let open = || {
        Local::open_or_create(directory.path(), DOMAIN, "node-1", Arc::new(clock.clone())).unwrap()
    };
    let (local, other) = (open(), open());
    let host = format!("api.{DOMAIN}");
    let below = format!("a.{P}-{C}-exec-1.node-1.containers.{DOMAIN}");
    let resolver = local.resolver();
    let (before, below_before) = (
        resolver.find(&host).unwrap(),
        resolver.find(&below).unwrap(),
    );
    assert_eq!(local.renew().unwrap(), 0);
    assert!(Arc::ptr_eq(&below_before, &resolver.find(&below).unwrap()));

    clock.advance(Duration::from_secs(61 * 24 * 3600));
    assert_eq!(local.renew().unwrap(), 5);
    let after = resolver.find(&host).unwrap();
    assert_ne!(before.cert, after.cert);
    assert_ne!(below_before.cert, resolver.find(&below).unwrap().cert);
    // The one that comes later takes what is there.
    assert_eq!(other.renew().unwrap(), 5);
    assert_eq!(other.resolver().find(&host).unwrap().cert, after.cert);
    assert_eq!(open().resolver().find(&host).unwrap().cert, after.cert);
    assert_eq!(local.ca_pem(), open().ca_pem());
}

#[test]
fn a_leaf_never_outlives_its_authority() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Hands::new();
    let open =
        || Local::open_or_create(directory.path(), DOMAIN, "node-1", Arc::new(clock.clone()));
    open().unwrap();
    clock.advance(crate::authority::AUTHORITY_LIFETIME - Duration::from_secs(3600));
    let local = open().unwrap();
    let leaves = local.leaves.lock().unwrap();
    assert!(
        leaves
            .iter()
            .all(|leaf| leaf.ends() <= local.authority.ends())
    );
    drop(leaves);
    clock.advance(Duration::from_secs(7200));
    let error = open().err().expect("an ended authority is not used");
    assert!(matches!(error, Error::Ended { .. }), "{error}");
}

#[test]
fn damaged_files_are_named_and_left_alone() {
    for (file, contents) in [
        (KEY, Some("garbage")),
        (KEY, Some("")),
        (KEY, None),
        (
            CERTIFICATE,
            Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ),
        (CERTIFICATE, Some("")),
    ] {
        let directory = tempfile::tempdir().unwrap();
        open(directory.path()).unwrap();
        let path = directory.path().join(file);
        match contents {
            Some(contents) => fs::write(&path, contents).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let error = open(directory.path())
            .err()
            .expect("a damaged authority is not used")
            .to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        assert!(error.contains("restore it from a backup"), "{error}");
        assert_eq!(fs::read_to_string(&path).ok().as_deref(), contents);
    }
}

#[test]
fn another_key_beside_the_certificate_is_noticed() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    open(one.path()).unwrap();
    open(two.path()).unwrap();
    fs::copy(one.path().join(KEY), two.path().join(KEY)).unwrap();
    let error = open(two.path())
        .err()
        .expect("the pair does not match")
        .to_string();
    assert!(error.contains("another key"), "{error}");
}

#[test]
fn another_domain_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).unwrap();
    let opened = Local::open_or_create(
        directory.path(),
        "example.org",
        "node-1",
        Arc::new(Hands::new()),
    );
    let error = opened
        .err()
        .expect("the authority is for another domain")
        .to_string();
    assert!(
        error.contains("for hoody.localhost, not for example.org"),
        "{error}"
    );
}

#[test]
fn a_crash_between_key_and_certificate_is_mended() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).unwrap();
    let key = fs::read_to_string(directory.path().join(KEY)).unwrap();
    fs::remove_file(directory.path().join(CERTIFICATE)).unwrap();
    fs::write(directory.path().join("ca.crt.1.1.unfinished"), "half").unwrap();
    let local = open(directory.path()).unwrap();
    assert_eq!(fs::read_to_string(directory.path().join(KEY)).unwrap(), key);
    assert!(!directory.path().join("ca.crt.1.1.unfinished").exists());
    handshake(local.ca_pem(), local.resolver(), &format!("api.{DOMAIN}")).unwrap();
}

#[test]
fn a_bad_leaf_is_made_anew() {
    let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    open(directory.path()).unwrap();
    open(other.path()).unwrap();
    let leaf = |directory: &Path| directory.join(LEAVES).join(format!("api.{DOMAIN}.pem"));
    let foreign = fs::read(leaf(other.path())).unwrap();
    for contents in [b"garbage".as_slice(), b"", &foreign, &[0xff; 64]] {
        fs::write(leaf(directory.path()), contents).unwrap();
        let local = open(directory.path()).unwrap();
        handshake(local.ca_pem(), local.resolver(), &format!("api.{DOMAIN}")).unwrap();
    }
}

#[test]
fn names_on_demand_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let local = open(directory.path()).unwrap();
    let below = BelowExec {
        suffix: format!(".node-1.containers.{DOMAIN}"),
        authority: local.authority,
        clock: Arc::new(Hands::new()),
        made: Mutex::new(LruCache::new(NonZeroUsize::new(3).unwrap())),
    };
    for number in 0..10 {
        let host = format!("a.{number:024x}-{C}-exec-1.node-1.containers.{DOMAIN}");
        assert!(below.certificate(&host).is_some());
    }
    assert_eq!(below.made.lock().unwrap().len(), 3);
}
