//! A node's own certificates: from nothing to one, to the next, and through what can go wrong.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use certs::acme::{External, Failure, Parts};
use certs::{Acme, ChallengeError, Class, Clock, DnsChallenge, Holdings};

use crate::pebble::Setup;
use crate::rig::{DOMAIN, Rig, holding, nothing};
use crate::wire::{End, Fate, problem};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How often nonces may be in the way of one order.
const ATTEMPTS: usize = 5;
const NODE: &str = "*.node-1.containers.hoody.example";
const API: &str = "api.hoody.example";

fn of_node() -> String {
    format!("x.node-1.containers.{DOMAIN}")
}

/// Files below a directory that others than their owner may read.
fn open_to_others(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut open = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let facts = std::fs::metadata(&path).unwrap();
        if facts.is_dir() {
            open.extend(open_to_others(&path));
        } else if facts.permissions().mode() & 0o077 != 0 {
            open.push(path);
        }
    }
    open
}

#[tokio::test]
async fn wildcards_are_issued_by_a_directory_that_takes_its_time() {
    // As pebble comes: looks are delayed by up to 15 s, one nonce in twenty is rejected.
    let rig = Rig::with(|setup| setup.delay = None).await;
    let node = rig.node();
    node.tend().await;
    for (host, taken) in [
        (API.to_owned(), true),
        (format!("0123456789abcdef01234567.{API}"), true),
        (of_node(), true),
        (format!("x.node-2.containers.{DOMAIN}"), false),
        (DOMAIN.to_owned(), false),
    ] {
        let found = rig.takes(&node, &host).await;
        assert_eq!(
            found.is_ok(),
            taken,
            "{host}: {found:?}; {}",
            rig.pebble.log()
        );
    }
    assert_eq!(rig.wire.orders(), 2);
    assert_eq!(rig.names.count(), 0, "what was shown was taken back");
    assert_eq!(
        open_to_others(rig.store.path()),
        Vec::<std::path::PathBuf>::new()
    );

    let (requests, again) = (rig.wire.requests(), rig.node());
    assert_eq!(
        again.resolver().find(API).unwrap().cert,
        node.resolver().find(API).unwrap().cert
    );
    assert_eq!(rig.wire.requests(), requests, "a start asks nobody");
}

#[tokio::test]
async fn a_certificate_is_replaced_at_two_thirds_of_its_lifetime() {
    let rig = Rig::start().await;
    let node = rig.node();
    node.tend().await;
    let before = node.resolver().find(API).unwrap();
    let (ends, now) = (holding(&node, API).ends.unwrap(), rig.clock.now());
    let lifetime = ends.duration_since(now).unwrap();
    let left = node.seconds_left(now);
    assert_eq!(
        left.iter().map(|it| it.0).collect::<Vec<_>>(),
        [Class::Api, Class::Node]
    );
    assert!(
        left.iter()
            .all(|it| it.1.unsigned_abs().abs_diff(lifetime.as_secs()) < 3600),
        "{left:?}"
    );

    rig.clock.advance(lifetime * 6 / 10);
    node.tend().await;
    assert_eq!(rig.wire.orders(), 2, "not yet");
    rig.clock.advance(lifetime / 10);
    node.tend().await;
    assert_eq!(rig.wire.orders(), 4);
    let after = node.resolver().find(API).unwrap();
    assert_ne!(before.cert, after.cert);
    rig.takes(&node, API).await.unwrap();
}

#[tokio::test]
async fn a_directory_that_is_away_is_asked_less_and_less_and_found_again() {
    let rig = Rig::start().await;
    let node = rig.node();
    rig.wire.decide(|_, _| Fate::Fail);
    let mut asked = Vec::new();
    for minute in 0..=60 {
        let before = rig.wire.requests();
        node.tend().await;
        if rig.wire.requests() > before {
            asked.push(minute);
        }
        rig.clock.advance(Duration::from_secs(60));
    }
    // A minute, two, four, eight, sixteen, with a quarter more or less left out by the dice.
    assert_eq!(asked, [0, 1, 3, 7, 15, 31], "for both certificates at once");
    let known = holding(&node, API);
    assert!(known.error.unwrap().contains("the line is cut"));
    assert!(
        known.renews.unwrap() > rig.clock.now(),
        "its next time is known"
    );

    // It survives a new start that it is not time yet.
    rig.wire.decide(|_, _| Fate::Pass);
    let (requests, node) = (rig.wire.requests(), rig.node());
    node.tend().await;
    assert_eq!(rig.wire.requests(), requests);
    rig.clock.advance(HOUR / 2);
    node.tend().await;
    rig.takes(&node, API).await.unwrap();
    assert_eq!(holding(&node, API).error, None);
}

#[tokio::test]
async fn a_directory_that_wants_to_be_left_alone_is() {
    let rig = Rig::start().await;
    let node = rig.node();
    let orders = Arc::new(AtomicUsize::new(0));
    let counted = orders.clone();
    rig.wire
        .decide(move |_, request| match request.uri().path() {
            "/order-plz" => {
                counted.fetch_add(1, Ordering::SeqCst);
                problem(429, "rateLimited", Some(3 * 3600))
            }
            _ => Fate::Pass,
        });
    for _ in 0..17 {
        node.tend().await;
        rig.clock.advance(HOUR / 6);
    }
    assert_eq!(
        orders.load(Ordering::SeqCst),
        2,
        "one for each certificate in three hours"
    );
    assert!(holding(&node, API).error.unwrap().contains("rateLimited"));
    rig.wire.decide(|_, _| Fate::Pass);
    rig.clock.advance(HOUR / 6);
    node.tend().await;
    rig.takes(&node, API).await.unwrap();
}

#[tokio::test]
async fn a_wrong_external_account_is_told_and_a_right_one_taken() {
    const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let rig = Rig::with(|setup: &mut Setup| setup.external = vec![("kid-1", KEY)]).await;
    for (id, key, words) in [
        (None, vec![], "externalAccountRequired"),
        (Some("kid-1"), b"not the key at all".to_vec(), ""),
        (Some("kid-9"), b"not the key at all".to_vec(), ""),
    ] {
        let node = rig.node_with(|settings| {
            settings.external = id.map(|id| External { id: id.into(), key });
        });
        node.tend().await;
        let error = holding(&node, API).error.expect("it is refused");
        assert!(
            error.contains("refused make an account") && error.contains(words),
            "{error}"
        );
        rig.clock.advance(HOUR);
    }
    let right = base64_url(KEY);
    let node = rig.node_with(|settings| {
        settings.external = Some(External {
            id: "kid-1".into(),
            key: right,
        });
    });
    rig.clock.advance(HOUR);
    node.tend().await;
    rig.takes(&node, API).await.unwrap();
}

fn base64_url(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::prelude::BASE64_URL_SAFE_NO_PAD
        .decode(text)
        .unwrap()
}

/// Shows something else than it is told to.
struct Liar(Arc<dyn DnsChallenge>);

#[async_trait]
impl DnsChallenge for Liar {
    async fn present(&self, name: &str, _: &str) -> Result<(), ChallengeError> {
        self.0.present(name, "something-else").await
    }

    async fn withdraw(&self, name: &str, _: &str) -> Result<(), ChallengeError> {
        self.0.withdraw(name, "something-else").await
    }
}

#[tokio::test]
async fn a_challenge_that_is_rejected_is_told_and_tried_anew() {
    let rig = Rig::start().await;
    let parts = Parts {
        http: Arc::new(End(rig.wire.clone())),
        dns: Some(Arc::new(Liar(rig.names.clone()))),
        clock: Arc::new(rig.clock.clone()),
        dice: Arc::new(|| 0.5),
        issuers: None,
    };
    let node = Acme::open(rig.settings.clone(), parts, nothing()).unwrap();
    node.tend().await;
    let error = holding(&node, NODE).error.unwrap();
    assert!(error.contains("was not found to be ours"), "{error}");
    assert!(error.contains("(unauthorized)"), "{error}");
    assert_eq!(rig.names.count(), 0);
    assert_eq!(rig.wire.orders(), 2);

    let node = rig.node();
    node.tend().await;
    assert_eq!(rig.wire.orders(), 2, "its time has not come");
    rig.clock.advance(HOUR);
    node.tend().await;
    rig.takes(&node, &of_node()).await.unwrap();
    assert_eq!(rig.wire.orders(), 4, "an order that failed is over");
}

#[tokio::test]
async fn a_refusal_that_says_nothing_of_an_order_does_not_end_it() {
    for kind in ["badNonce", "orderNotReady", "rateLimited", "serverInternal"] {
        let rig = Rig::start().await;
        rig.wire.decide(move |_, request| {
            match request.uri().path().starts_with("/finalize-order/") {
                true => problem(400, kind, None),
                false => Fate::Pass,
            }
        });
        let node = rig.node();
        node.tend().await;
        let error = holding(&node, API).error.unwrap();
        assert!(error.contains("refused finalize"), "{error}");
        assert_eq!(rig.wire.orders(), 2, "{kind}");

        rig.wire.decide(|_, _| Fate::Pass);
        rig.clock.advance(DAY);
        tend_past_nonces(&rig, &node, API).await;
        rig.takes(&node, API).await.unwrap();
        assert_eq!(rig.wire.orders(), 2, "{kind}: the same orders go on");
    }
}

#[tokio::test]
async fn a_wildcard_that_cannot_be_proven_is_not_ordered() {
    let rig = Rig::start().await;
    let parts = Parts {
        http: Arc::new(End(rig.wire.clone())),
        dns: None,
        clock: Arc::new(rig.clock.clone()),
        dice: Arc::new(|| 0.5),
        issuers: None,
    };
    let node = Acme::open(rig.settings.clone(), parts, nothing()).unwrap();
    node.tend().await;
    let error = holding(&node, NODE).error.unwrap();
    assert!(error.contains("nothing can show a TXT record"), "{error}");
    assert_eq!(rig.wire.requests(), 0);
}

#[tokio::test]
async fn an_account_that_the_directory_lost_is_made_anew() {
    let mut rig = Rig::start().await;
    rig.node().tend().await;
    rig.pebble = rig.pebble.forget().await;
    let node = rig.node();
    node.hasten(API).unwrap();
    node.refresh().unwrap();
    assert_eq!(holding(&node, API).renews, Some(rig.clock.now()), "now");
    node.tend().await;
    rig.takes(&node, API).await.unwrap();
    assert_eq!(holding(&node, API).error, None);
}

/// Tend until `host` is shown, or something else than nonces is in the way: pebble may reject more
/// good ones in a row than are sent anew, and the next attempt comes after a wait.
async fn tend_past_nonces(rig: &Rig, node: &Acme, host: &str) {
    node.tend().await;
    for _ in 0..ATTEMPTS {
        let errors = node.holdings().into_iter().filter_map(|held| held.error);
        if rig.takes(node, host).await.is_ok()
            || !errors.into_iter().any(|e| e.contains("badNonce"))
        {
            return;
        }
        rig.clock.advance(HOUR);
        node.tend().await;
    }
}

#[tokio::test]
async fn a_process_that_is_killed_anywhere_leaves_an_order_to_go_on_with() {
    let rig = Rig::start().await;
    let mut killed = 0;
    for number in 1.. {
        let domain = format!("kill-{number}.example");
        let (store, orders) = (tempfile::tempdir().unwrap(), rig.wire.orders());
        let start = rig.wire.requests();
        let node = || {
            rig.node_with(|settings| {
                settings.store = store.path().to_owned();
                settings.targets = vec![certs::acme::Target {
                    names: vec![format!("*.{domain}")],
                    class: Class::Node,
                }];
            })
        };
        let (reached, mut held_up) = tokio::sync::mpsc::channel(1);
        rig.wire.decide(move |at, _| {
            if at != start + number {
                return Fate::Pass;
            }
            let _ = reached.try_send(());
            Fate::Hang
        });
        let first = node();
        let dies = tokio::spawn(async move { first.tend().await });
        let is_over = tokio::select! {
            _ = held_up.recv() => false,
            _ = async { while !dies.is_finished() { tokio::time::sleep(Duration::from_millis(5)).await } } => true,
        };
        dies.abort();
        let _ = dies.await;
        rig.wire.decide(|_, _| Fate::Pass);
        let second = node();
        let host = format!("x.{domain}");
        tend_past_nonces(&rig, &second, &host).await;
        rig.takes(&second, &host)
            .await
            .unwrap_or_else(|why| panic!("after a kill at request {number}: {why}"));
        assert_eq!(rig.wire.orders() - orders, 1, "killed at request {number}");
        assert_eq!(rig.names.count(), 0, "killed at request {number}");
        if is_over {
            break;
        }
        killed += 1;
    }
    assert!(killed >= 10, "an order takes more requests than {killed}");
}

#[tokio::test]
async fn nodes_that_share_a_store_order_once() {
    let rig = Rig::with(|setup| setup.delay = Some(2)).await;
    let one = rig.node();
    let two = rig.node_with(|settings| settings.owner = "two".to_owned());
    let both = tokio::join!(one.tend(), two.tend());
    assert!(
        both.0 < Duration::from_secs(60) || both.1 < Duration::from_secs(60),
        "one waits for the other"
    );
    // Whoever came second looks again.
    one.tend().await;
    two.tend().await;
    assert_eq!(rig.wire.orders(), 2);
    assert_eq!(
        one.resolver().find(API).unwrap().cert,
        two.resolver().find(API).unwrap().cert
    );
    rig.takes(&two, API).await.unwrap();
}

/// As a directory that knows renewal windows (RFC 9773), which pebble 2.4 does not: its list says
/// so, the question is answered, and what is replaced is read out of the new order.
fn with_windows(rig: &Rig, window: Arc<Mutex<(SystemTime, SystemTime)>>) -> Arc<AtomicUsize> {
    let base = rig
        .pebble
        .directory
        .strip_suffix("/dir")
        .unwrap()
        .to_owned();
    rig.wire.change(move |path, body| match path {
        "/dir" => {
            let mut list: serde_json::Value = serde_json::from_slice(&body).unwrap();
            list["renewalInfo"] = format!("{base}/windows").into();
            Bytes::from(list.to_string())
        }
        _ => body,
    });
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    rig.wire.decide(move |_, request| {
        let Some(id) = request.uri().path().strip_prefix("/windows/") else {
            return Fate::Pass;
        };
        assert_eq!(id.split('.').count(), 2, "key identifier and serial number");
        counted.fetch_add(1, Ordering::SeqCst);
        let (start, end) = *window.lock().unwrap();
        let time = |time: SystemTime| {
            let format = &time::format_description::well_known::Rfc3339;
            time::OffsetDateTime::from(time).format(format).unwrap()
        };
        let text = serde_json::json!({"suggestedWindow": {"start": time(start), "end": time(end)}});
        let answer = http::Response::builder()
            .header("content-type", "application/json")
            .header("retry-after", 6 * 3600);
        Fate::Answer(answer.body(text.to_string()).unwrap())
    });
    asked
}

#[tokio::test]
async fn a_directory_says_when_it_wants_a_certificate_replaced() {
    let rig = Rig::start().await;
    let now = rig.clock.now();
    let window = Arc::new(Mutex::new((now + 100 * DAY, now + 102 * DAY)));
    let asked = with_windows(&rig, window.clone());
    let node = rig.node();
    node.tend().await;
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    let renews = holding(&node, API).renews.unwrap();
    assert!(
        renews.duration_since(now + 101 * DAY).unwrap() < HOUR,
        "the middle: the dice say so"
    );

    // Something happened, and it wants them replaced at once: known six hours later.
    *window.lock().unwrap() = (now - 2 * DAY, now - DAY);
    rig.clock.advance(5 * HOUR);
    node.tend().await;
    assert_eq!((asked.load(Ordering::SeqCst), rig.wire.orders()), (2, 2));
    rig.clock.advance(2 * HOUR);
    node.tend().await;
    assert_eq!(asked.load(Ordering::SeqCst), 4);
    // pebble takes no word about what is replaced; the order is made without it.
    *window.lock().unwrap() = (now + 100 * DAY, now + 102 * DAY);
    let before = node.resolver().find(API).unwrap();
    node.tend().await;
    assert_ne!(before.cert, node.resolver().find(API).unwrap().cert);
    assert_eq!(holding(&node, API).error, None);
}

#[tokio::test]
async fn a_revoked_certificate_is_dropped_and_ordered_anew() {
    let rig = Rig::start().await;
    let node = rig.node();
    node.tend().await;
    let before = node.resolver().find(API).unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&before.cert[0]).unwrap();
    let serial = parsed.raw_serial_as_string().replace(':', "");
    assert_eq!(rig.pebble.status(&serial).await["Status"], "Valid");
    // As another process does it, while the node runs.
    rig.node().revoke(API, true).await.unwrap();
    assert_eq!(rig.pebble.status(&serial).await["Status"], "Revoked");
    node.tend().await;
    assert_ne!(before.cert, node.resolver().find(API).unwrap().cert);
    rig.takes(&node, API).await.unwrap();

    let failure = node.revoke("elsewhere.example", false).await;
    assert!(
        matches!(failure, Err(Failure::NoCertificate { .. })),
        "{failure:?}"
    );
}

#[tokio::test]
async fn an_account_goes_on_with_another_key() {
    let rig = Rig::start().await;
    let node = rig.node();
    assert!(matches!(node.roll_over().await, Err(Failure::NoAccount)));
    node.tend().await;
    let account = || {
        let directory = std::fs::read_dir(rig.store.path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        let text = std::fs::read(directory.path().join("account.json")).unwrap();
        let kept: serde_json::Value = serde_json::from_slice(&text).unwrap();
        kept["credentials"].clone()
    };
    let before = account();
    node.roll_over().await.unwrap();
    let after = account();
    assert_eq!(before["id"], after["id"]);
    assert_ne!(before["key_pkcs8"], after["key_pkcs8"]);
    rig.node().hasten(API).unwrap();
    node.tend().await;
    assert_eq!(rig.wire.orders(), 3);
    assert_eq!(account()["id"], before["id"], "no new account was needed");
}

#[tokio::test]
async fn a_directory_says_who_certifies() {
    let mut rig = Rig::start().await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let hears = told.clone();
    rig.issuers = Some(Arc::new(move |names| {
        *hears.lock().unwrap() = names.to_vec();
    }));
    let says = |names: &'static [&'static str]| {
        rig.wire.change(move |path, body| match path {
            "/dir" => {
                let mut document: serde_json::Value = serde_json::from_slice(&body).unwrap();
                document["meta"]["caaIdentities"] = names.into();
                document.to_string().into()
            }
            _ => body,
        });
    };
    says(&["ca.example"]);
    let node = rig.node();
    assert_eq!(*told.lock().unwrap(), [""; 0], "nobody knows yet");
    node.tend().await;
    assert_eq!(*told.lock().unwrap(), ["ca.example"]);
    rig.takes(&node, API).await.unwrap();

    // Known from the start the next time, also where the directory is away.
    told.lock().unwrap().clear();
    rig.wire.decide(|_, _| Fate::Fail);
    let node = rig.node();
    assert_eq!(*told.lock().unwrap(), ["ca.example"]);
    let kept = certs::acme::issuers(rig.store.path(), &rig.settings.directory);
    assert_eq!(kept.unwrap(), ["ca.example"]);
    rig.clock.advance(2 * DAY);
    node.tend().await;
    assert_eq!(*told.lock().unwrap(), ["ca.example"]);

    // Another name is known within a day.
    rig.wire.decide(|_, _| Fate::Pass);
    says(&["other.example", "ca.example"]);
    node.tend().await;
    assert_eq!(*told.lock().unwrap(), ["ca.example", "other.example"]);
    let before = rig.wire.requests();
    says(&[]);
    node.tend().await;
    assert_eq!(rig.wire.requests(), before, "it was asked today");
    assert_eq!(told.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn what_is_of_another_node_is_left_to_it_until_it_is_over() {
    let rig = Rig::start().await;
    let other = rig.node_with(|settings| {
        settings.owner = "two".to_owned();
        settings.targets = certs::acme::Target::of_node(DOMAIN, "node-2");
    });
    other.tend().await;
    let node = rig.node();
    node.tend().await;
    let host = format!("x.node-2.containers.{DOMAIN}");
    rig.takes(&node, &host).await.unwrap();
    let ends = holding(&node, "*.node-2.containers.hoody.example")
        .ends
        .unwrap();
    assert_eq!(rig.wire.orders(), 3, "they share one");

    // Due, and later over: node-2 is not there any more, and node-1 does not order for it.
    let life = ends.duration_since(rig.clock.now()).unwrap();
    rig.clock.advance(life - DAY);
    node.tend().await;
    assert_eq!(
        rig.wire.orders(),
        5,
        "its own two that are due, and no other"
    );
    assert!(node.resolver().find(&host).is_some());
    rig.clock.advance(9 * DAY);
    node.tend().await;
    assert!(node.resolver().find(&host).is_none(), "it is forgotten");
}

#[tokio::test]
async fn orders_and_leases_of_dead_processes_are_cleared_in_time() {
    let rig = Rig::start().await;
    let node = || {
        rig.node_with(|settings| {
            settings.targets = vec![certs::acme::Target {
                names: vec!["*.old.example".to_owned()],
                class: Class::Node,
            }];
        })
    };
    // Its process dies when the challenge is shown, and its settings change.
    let (reached, mut held_up) = tokio::sync::mpsc::channel(1);
    rig.wire.decide(move |_, request| {
        if !request.uri().path().starts_with("/chalZ/") {
            return Fate::Pass;
        }
        let _ = reached.try_send(());
        Fate::Hang
    });
    let first = node();
    let dies = tokio::spawn(async move { first.tend().await });
    held_up.recv().await.unwrap();
    dies.abort();
    let _ = dies.await;
    rig.wire.decide(|_, _| Fate::Pass);
    let root = std::fs::read_dir(rig.store.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let [order, lease] =
        ["orders/_.old.example.json", "leases/_.old.example"].map(|it| root.join(it));
    let node = rig.node();
    node.tend().await;
    assert_eq!(rig.names.count(), 1, "what the dead one showed");
    assert!(
        order.exists() && lease.exists(),
        "somebody may go on with it"
    );
    rig.clock.advance(2 * HOUR);
    node.tend().await;
    assert!(!lease.exists());
    assert!(order.exists());
    rig.clock.advance(7 * DAY);
    node.tend().await;
    assert!(!order.exists());
    assert_eq!(rig.names.count(), 0);
}
