//! Finding a certificate by name, among few and among many.

use std::hint::black_box;
use std::sync::Arc;

use certs::{Names, Resolver};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rustls::crypto::ring;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

fn certified() -> Arc<CertifiedKey> {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(["a.example".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = ring::sign::any_supported_type(&key).expect("a key");
    Arc::new(CertifiedKey::new(vec![certificate.der().clone()], key))
}

fn lookup(criterion: &mut Criterion) {
    let shown = certified();
    let mut group = criterion.benchmark_group("resolver");
    for count in [10, 100_000] {
        let mut names = Names::default();
        names.insert("*.node-1.containers.example.org", shown.clone());
        for number in 1..count {
            names.insert(&format!("shop-{number}.example.com"), shown.clone());
        }
        let resolver = Resolver::new(names);
        for (what, host) in [
            ("exact", "shop-7.example.com"),
            (
                "wildcard",
                "0123456789abcdef01234567-89abcdef0123456789abcdef-http-3000.node-1.containers.example.org",
            ),
            ("none", "www.elsewhere.example"),
        ] {
            group.bench_with_input(BenchmarkId::new(what, count), host, |bench, host| {
                bench.iter(|| resolver.find(black_box(host)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, lookup);
criterion_main!(benches);
