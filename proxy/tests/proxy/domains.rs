//! Names of other people's that DNS leads to an alias: who is let through, what is asked of DNS,
//! and what servers and clients may do to it.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use proxy::{NotLed, Resolvers};
use routes::domain::Alias;
use routes::table::Change;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::dns::{Dns, record, to};
use crate::gates::{basic, only, password};
use crate::rig::{Container, Heard, Rig, ZONE, alias, alias_host as host, eventually};

/// A proxy that asks this server.
async fn asking(dns: &Dns) -> Rig {
    let resolvers = Resolvers::At(vec![dns.address]);
    Rig::with(move |config| config.resolvers = resolvers).await
}

/// The same with an alias `shop` that leads to a container.
async fn with_shop(dns: &Dns) -> (Rig, Container) {
    let mut rig = asking(dns).await;
    let web = rig.running().await;
    rig.push(1_000, Change::Alias(alias("shop", &web, "http-3000")))
        .await;
    (rig, web)
}

#[tokio::test]
async fn a_domain_is_the_alias_that_its_record_leads_to() {
    let dns = Dns::start().await;
    let mut rig = asking(&dns).await;
    let (web, other) = (rig.running().await, rig.running().await);
    let shop = Alias {
        target: Some("/render?mode=ro".into()),
        ..alias("shop", &web, "http-3000")
    };
    rig.push(1_000, Change::Alias(shop)).await;
    let blog = Alias {
        pinned: true,
        target: Some("/only".into()),
        ..alias("blog", &other, "files-2")
    };
    rig.push(1_001, Change::Alias(blog)).await;
    dns.leads("shop.example.net", &host("shop"));
    dns.leads("blog.example.net", "cdn._x.example.org");
    dns.leads("cdn._x.example.org", &host("BLOG"));

    let heard = rig.get("shop.example.net", "/a?b=c").await;
    assert_eq!(heard.status, StatusCode::OK, "{}", heard.text());
    assert_eq!(heard.json()["target"], "/a?b=c");
    assert_eq!(heard.told("x-hoody-edge-port"), ["3000"]);
    // The app sees the name that was asked for.
    for name in ["host", "x-hoody-edge-host", "x-forwarded-host"] {
        assert_eq!(heard.told(name), ["shop.example.net"], "{name}");
    }
    let heard = rig.get("SHOP.example.NET.", "/").await;
    assert_eq!(heard.json()["target"], "/render?mode=ro");
    // What is pinned is pinned under any name; and each leads to its own container.
    let heard = rig.get("blog.example.net", "/").await;
    assert_eq!(heard.json()["target"], "/only");
    assert_eq!(heard.told("x-hoody-edge-service"), ["files"]);
    assert_eq!(
        rig.get("blog.example.net", "/x").await.code(),
        "alias_path_pinned"
    );
    assert_eq!(
        web.seen()
            .requests
            .load(std::sync::atomic::Ordering::SeqCst),
        2
    );
    assert_eq!(
        other
            .seen()
            .requests
            .load(std::sync::atomic::Ordering::SeqCst),
        1
    );
    // What is known is not asked for again, and nothing beyond the alias is asked for at all.
    assert_eq!(
        dns.names(),
        ["shop.example.net", "blog.example.net", "cdn._x.example.org"]
    );
    let led = "hoody_proxy_domain_lookups_total{result=\"alias\"}";
    rig.comes_to(led, 2.0).await;
    // The alias is what the table says now, and the log is the container's.
    let line = rig.logged("/a?b=c").await;
    assert_eq!(line["host"], "shop.example.net");
    rig.push(1_002, Change::Alias(alias("shop", &other, "files-3")))
        .await;
    let heard = rig.get("shop.example.net", "/").await;
    assert_eq!(heard.told("x-hoody-edge-index"), ["3"]);
    rig.push(1_003, Change::NoAlias("shop".into())).await;
    assert_eq!(
        rig.get("shop.example.net", "/").await.code(),
        "domain_without_alias"
    );
}

#[tokio::test]
async fn an_alias_that_is_off_is_like_one_that_never_was() {
    let dns = Dns::start().await;
    let mut rig = asking(&dns).await;
    let web = rig.running().await;
    let past = Alias {
        expires: Some(1),
        ..alias("past", &web, "files-1")
    };
    rig.push(1_000, Change::Alias(past)).await;
    rig.push(1_001, Change::Alias(alias("off", &web, "files-1")))
        .await;
    rig.push(1_002, Change::NoAlias("off".into())).await;
    let mut answers = Vec::new();
    for name in ["past", "off", "never"] {
        dns.leads("shop.example.net", &host(name));
        let mut fresh = asking(&dns).await;
        let web = fresh.running().await;
        let past = Alias {
            expires: Some(1),
            ..alias("past", &web, "files-1")
        };
        fresh.push(1_000, Change::Alias(past)).await;
        let heard = fresh.get("shop.example.net", "/").await;
        assert_eq!(heard.code(), "domain_without_alias", "{name}");
        answers.push((heard.status, heard.body));
    }
    assert_eq!(answers[0].0, StatusCode::NOT_FOUND);
    assert!(answers.iter().all(|answer| *answer == answers[0]));
}

/// Names, what a server says of them, and what is said then.
#[tokio::test]
async fn what_is_missing_is_said_in_words() {
    let dns = Dns::start().await;
    let (rig, web) = with_shop(&dns).await;
    dns.leads("elsewhere.example.net", "pages.example.org");
    dns.lies_at("addresses.example.net", &["192.0.2.1"]);
    dns.leads("kit.example.net", &web.host("terminal-1"));
    dns.leads("api.example.net", "api.hoody.localhost");
    dns.leads("node.example.net", "shop.box2.containers.hoody.localhost");
    dns.leads("circle.example.net", "round.example.net");
    dns.leads("round.example.net", "circle.example.net");
    // What is inside of the network is not told to anybody who makes a record to it.
    dns.leads("inside.example.net", "db.internal");
    dns.leads("inside.example.org", "intranet");
    dns.leads("db.internal", "host-17.internal");
    for link in 0..20 {
        let (from, to) = (
            format!("{link}.example.org"),
            format!("{}.example.org", link + 1),
        );
        dns.leads(&from, &to);
    }
    dns.leads("20.example.org", &host("shop"));
    dns.says(
        "two.example.net",
        vec![
            record("two.example.net", to(&host("shop"))),
            record("two.example.net", to("pages.example.org")),
        ],
    );
    // An answer to another question is none.
    dns.says(
        "other.example.net",
        vec![record("victim.example.net", to(&host("shop")))],
    );
    for (name, status, code, word) in [
        (
            "none.example.net",
            404,
            "domain_not_configured",
            "_hoody.none.example.net",
        ),
        (
            "addresses.example.net",
            404,
            "domain_not_configured",
            "CNAME",
        ),
        ("other.example.net", 404, "domain_not_configured", "CNAME"),
        (
            "elsewhere.example.net",
            404,
            "domain_leads_elsewhere",
            "leads to pages.example.org",
        ),
        ("kit.example.net", 404, "domain_leads_elsewhere", "no alias"),
        ("api.example.net", 404, "domain_leads_elsewhere", "no alias"),
        (
            "node.example.net",
            404,
            "domain_leads_elsewhere",
            "no alias",
        ),
        (
            "circle.example.net",
            404,
            "domain_leads_elsewhere",
            "circle",
        ),
        ("0.example.org", 404, "domain_leads_elsewhere", "circle"),
        (
            "two.example.net",
            404,
            "domain_leads_elsewhere",
            "several names",
        ),
    ] {
        let heard = rig.get(name, "/").await;
        assert_eq!(
            (heard.status.as_u16(), &*heard.code()),
            (status, code),
            "{name}"
        );
        let message = heard.json()["message"].as_str().expect("words").to_owned();
        assert!(message.contains(word), "{name}: {message}");
        assert!(
            message.contains(&format!("my-shop.{ZONE}")),
            "{name}: {message}"
        );
        // Nobody learns the name of a container from it.
        assert!(
            !message.contains(&web.place.container.to_string()),
            "{name}"
        );
    }
    for (name, inside) in [
        ("inside.example.net", "db.internal"),
        ("inside.example.org", "intranet"),
    ] {
        let heard = rig.get(name, "/").await;
        assert_eq!(heard.code(), "domain_leads_elsewhere");
        assert!(heard.text().contains(inside) && !heard.text().contains("host-17"));
    }
    let asked = dns.names();
    let inside = |name: &&String| name.ends_with("internal") || name.ends_with("intranet");
    assert_eq!(asked.iter().find(inside), None);
    let page = Request::get("/").header("host", "none.example.net");
    let page = rig.ask(page.header("accept", "text/html")).await;
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(page.text().contains("Not set up yet"), "{}", page.text());
    // The last of the long way is near enough.
    assert_eq!(rig.get("13.example.org", "/").await.status, StatusCode::OK);
    assert_eq!(
        web.seen()
            .requests
            .load(std::sync::atomic::Ordering::SeqCst),
        1
    );
}

#[tokio::test]
async fn a_name_without_a_cname_says_which_alias_it_means() {
    let dns = Dns::start().await;
    let resolvers = Resolvers::At(vec![dns.address]);
    // Of a public zone: resolvers know the addresses of all others by themselves.
    let mut rig = Rig::with(move |config| {
        config.zone = routes::Zone::new("hoody.example.org", "box1").expect("a zone");
        config.resolvers = resolvers;
    })
    .await;
    let web = rig.running().await;
    rig.push(1_000, Change::Alias(alias("shop", &web, "http-3000")))
        .await;
    let shop = "shop.box1.containers.hoody.example.org";
    dns.lies_at(shop, &["192.0.2.1", "2001:db8::1"]);
    let cases: &[(&str, &[&str], Option<&str>)] = &[
        ("both.example.net", &["192.0.2.1", "2001:db8::1"], None),
        ("one.example.net", &["192.0.2.1"], None),
        ("less.example.net", &[], Some("domain_leads_elsewhere")),
        (
            "other.example.net",
            &["192.0.2.2"],
            Some("domain_leads_elsewhere"),
        ),
        (
            "more.example.net",
            &["192.0.2.1", "192.0.2.2"],
            Some("domain_leads_elsewhere"),
        ),
    ];
    // Where it leads somewhere, it is sent on to HTTPS.
    let leads = StatusCode::PERMANENT_REDIRECT;
    for (name, addresses, refused) in cases {
        dns.lies_at(name, addresses);
        dns.leads(&format!("_hoody.{name}"), shop);
        let heard = rig.get(name, "/").await;
        match refused {
            None => assert_eq!(heard.status, leads, "{name}: {}", heard.text()),
            Some(code) => assert_eq!(heard.code(), *code, "{name}"),
        }
    }
    // A name that leads to one that says so.
    dns.leads("www.both.example.net", "both.example.net");
    assert_eq!(rig.get("www.both.example.net", "/").await.status, leads);
    // More addresses than one node has, the same ones or not.
    let many: Vec<String> = (0..=255).map(|last| format!("198.51.100.{last}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    dns.lies_at("crowd.example.net", &many);
    dns.lies_at("crowd.box1.containers.hoody.example.org", &many);
    dns.leads(
        "_hoody.crowd.example.net",
        "crowd.box1.containers.hoody.example.org",
    );
    rig.push(1_001, Change::Alias(alias("crowd", &web, "http-3000")))
        .await;
    assert_eq!(
        rig.get("crowd.example.net", "/").await.code(),
        "domain_leads_elsewhere"
    );
    // The addresses alone name no alias, and the mark is none of a container.
    dns.lies_at("bare.example.net", &["192.0.2.1"]);
    assert_eq!(
        rig.get("bare.example.net", "/").await.code(),
        "domain_not_configured"
    );
    dns.lies_at("key.example.net", &["192.0.2.1"]);
    let key = format!("{}.box1.containers.hoody.example.org", web.label("files-1"));
    dns.leads("_hoody.key.example.net", &key);
    assert_eq!(
        rig.get("key.example.net", "/").await.code(),
        "domain_leads_elsewhere"
    );
}

#[tokio::test]
async fn answers_that_are_too_large_or_lead_out_are_bounded() {
    let dns = Dns::start().await;
    let (rig, _web) = with_shop(&dns).await;
    // Truncated over UDP, so that it is asked for over TCP.
    let mut many = vec![record("large.example.net", to(&host("shop")))];
    for number in 0..1_000 {
        many.push(record(&format!("{number}.example.org"), to(&host("shop"))));
    }
    dns.says("large.example.net", many);
    assert_eq!(
        rig.get("large.example.net", "/").await.status,
        StatusCode::OK
    );
    assert!(dns.over_tcp() > 0);
    // Names that are as long as names can be.
    let long = format!("{0}.{0}.{0}.{1}.net", "a".repeat(63), "b".repeat(57));
    assert_eq!(long.len(), 253);
    assert_eq!(rig.get(&long, "/").await.code(), "domain_not_configured");
    let longer = format!("a{long}");
    assert_eq!(rig.get(&longer, "/").await.code(), "bad_host");
    assert_eq!(dns.asked(Some(&longer)), 0);
}

/// A name of somebody who changes where it leads is the alias of one answer, never half of two.
#[tokio::test]
async fn a_name_that_changes_leads_where_one_answer_said() {
    let dns = Dns::start().await;
    let mut rig = asking(&dns).await;
    let (web, other) = (rig.running().await, rig.running().await);
    rig.push(1_000, Change::Alias(alias("shop", &web, "http-3000")))
        .await;
    rig.push(1_001, Change::Alias(alias("blog", &other, "http-3000")))
        .await;
    dns.leads("shop.example.net", &host("shop"));
    assert_eq!(
        rig.get("shop.example.net", "/").await.status,
        StatusCode::OK
    );
    dns.leads("shop.example.net", &host("blog"));
    for _ in 0..20 {
        assert_eq!(
            rig.get("shop.example.net", "/").await.status,
            StatusCode::OK
        );
    }
    assert_eq!(
        other
            .seen()
            .requests
            .load(std::sync::atomic::Ordering::SeqCst),
        0
    );
    assert_eq!(dns.asked(None), 1);
}

#[tokio::test]
async fn what_cannot_be_a_domain_is_not_asked_for() {
    let dns = Dns::start().await;
    let mut rig = asking(&dns).await;
    let web = rig.running().await;
    for (host, code) in [
        ("127.0.0.1", "unknown_host"),
        ("[::1]", "unknown_host"),
        ("127.1", "unknown_host"),
        ("localhost", "unknown_host"),
        ("intranet", "unknown_host"),
        ("x.localhost", "unknown_host"),
        ("db.internal", "unknown_host"),
        ("printer.local", "unknown_host"),
        ("1.0.0.127.in-addr.arpa", "unknown_host"),
        ("shop.example", "unknown_host"),
        (
            "no-such-alias.box1.containers.hoody.localhost",
            "unknown_host",
        ),
        ("m\u{fc}nchen.example.net", "bad_request"),
        ("a_b.example.net", "bad_host"),
        ("a..example.net", "bad_host"),
    ] {
        let heard = rig.get(host, "/").await;
        assert_eq!(heard.code(), code, "{host}");
    }
    assert_eq!(
        rig.get(&web.host("files-1"), "/").await.status,
        StatusCode::OK
    );
    assert_eq!(dns.asked(None), 0);
    // An international name is asked for in its ASCII form.
    let heard = rig.get("xn--mnchen-3ya.example.net", "/").await;
    assert_eq!(heard.code(), "domain_not_configured");
    assert_eq!(dns.asked(Some("xn--mnchen-3ya.example.net")), 1);
    // Where nobody is asked, there are no custom domains.
    let none = Rig::start().await;
    assert_eq!(
        none.get("shop.example.net", "/").await.code(),
        "unknown_host"
    );
}

#[tokio::test]
async fn many_requests_for_a_name_ask_once_and_hold_up_nobody() {
    let dns = Dns::start().await;
    let (rig, _web) = with_shop(&dns).await;
    dns.leads("shop.example.net", &host("shop"));
    dns.hold();
    let rig = Arc::new(rig);
    let asks: Vec<_> = (0..30)
        .map(|_| {
            let rig = rig.clone();
            tokio::spawn(async move { rig.get("shop.example.net", "/").await.status })
        })
        .collect();
    eventually(|| (dns.asked(None) > 0).then_some(())).await;
    // Others go on meanwhile.
    assert_eq!(rig.get(&host("shop"), "/").await.status, StatusCode::OK);
    dns.release();
    for ask in asks {
        assert_eq!(ask.await.expect("no panic"), StatusCode::OK);
    }
    assert_eq!(dns.asked(None), 1);
}

/// A request by this client, as a load balancer says; its answer's first line.
async fn from(rig: &Rig, client: &str, host: &str) -> String {
    let mut socket = rig.tcp().await;
    let head = format!(
        "PROXY TCP4 {client} 127.0.0.1 1 2\r\nGET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.expect("written");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("an answer");
    answer
}

#[tokio::test]
async fn a_scanner_asks_for_a_few_names_and_keeps_nobody_from_theirs() {
    let dns = Dns::start().await;
    let resolvers = Resolvers::At(vec![dns.address]);
    let mut rig = Rig::with(move |config| {
        config.resolvers = resolvers;
        config.senders = vec!["127.0.0.0/8".parse().expect("a network")];
    })
    .await;
    let web = rig.running().await;
    rig.push(1_000, Change::Alias(alias("shop", &web, "http-3000")))
        .await;
    dns.leads("shop.example.net", &host("shop"));
    assert!(
        from(&rig, "192.0.2.9", "shop.example.net")
            .await
            .starts_with("HTTP/1.1 200")
    );
    let mut limited = 0;
    for number in 0..100 {
        let heard = from(&rig, "192.0.2.1", &format!("{number}.example.org")).await;
        if heard.contains("domain_lookups_limited") {
            assert!(
                heard.starts_with("HTTP/1.1 429") && heard.contains("etry-"),
                "{heard}"
            );
            limited += 1;
        } else {
            assert!(heard.contains("domain_not_configured"), "{heard}");
        }
    }
    // A burst, and what is forgiven meanwhile; each name costs two questions at most.
    assert!(limited >= 40, "{limited}");
    assert!(
        dns.asked(None) <= 1 + 2 * (100 - limited),
        "{}",
        dns.asked(None)
    );
    // The same client gets what is known, and others get what they ask for.
    assert!(
        from(&rig, "192.0.2.1", "shop.example.net")
            .await
            .starts_with("HTTP/1.1 200")
    );
    let other = from(&rig, "192.0.2.2", "new.example.org").await;
    assert!(other.contains("domain_not_configured"), "{other}");
    let counted = "hoody_proxy_domain_lookups_total{result=\"limited\"}";
    rig.comes_to(counted, limited as f64).await;
}

#[tokio::test]
async fn lookups_at_once_are_bounded() {
    let dns = Dns::start().await;
    let resolvers = Resolvers::At(vec![dns.address]);
    let rig = Rig::with(move |config| {
        config.resolvers = resolvers;
        config.senders = vec!["127.0.0.0/8".parse().expect("a network")];
    })
    .await;
    dns.hold();
    let rig = Arc::new(rig);
    let asks: Vec<_> = (0..100u8)
        .map(|number| {
            let rig = rig.clone();
            tokio::spawn(async move {
                let (client, host) = (format!("10.0.0.{number}"), format!("{number}.example.org"));
                from(&rig, &client, &host).await
            })
        })
        .collect();
    // Who finds no room is told at once.
    let busy = "hoody_proxy_domain_lookups_total{result=\"busy\"}";
    for _ in 0..500 {
        if rig.metric(busy).await >= 36.0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(rig.metric(busy).await >= 36.0);
    assert!(dns.asked(None) <= 4 * 64, "{}", dns.asked(None));
    dns.release();
    let mut refused = 0;
    for ask in asks {
        let heard = ask.await.expect("no panic");
        refused += usize::from(
            heard.starts_with("HTTP/1.1 503") && heard.contains("domain_lookup_failed"),
        );
    }
    assert!(refused >= 36, "{refused}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_cuts_off_nobody_who_is_known() {
    let dns = Dns::start().await;
    let (rig, _web) = with_shop(&dns).await;
    dns.leads("shop.example.net", &host("shop"));
    assert_eq!(
        rig.get("shop.example.net", "/").await.status,
        StatusCode::OK
    );
    dns.be_broken(true);
    assert_eq!(
        rig.get("shop.example.net", "/").await.status,
        StatusCode::OK
    );
    let heard = rig.get("new.example.net", "/").await;
    assert_eq!(heard.code(), "domain_lookup_failed");
    assert_eq!(heard.header("retry-after"), Some("10"));
    dns.be_broken(false);
    dns.be_silent(true);
    let heard = rig.get("silent.example.net", "/").await;
    assert_eq!(heard.code(), "domain_lookup_failed");
    let counted = "hoody_proxy_domain_lookups_total{result=\"unanswered\"}";
    rig.comes_to(counted, 2.0).await;
}

#[tokio::test]
async fn gates_and_isolation_are_those_of_the_alias() {
    let dns = Dns::start().await;
    let mut rig = asking(&dns).await;
    let mut web = rig.running().await;
    web.place.access = Some(Arc::new(only(vec![password()])));
    rig.upsert(&web.place).await;
    rig.push(1_000, Change::Alias(alias("shop", &web, "terminal-1")))
        .await;
    dns.leads("shop.example.net", &host("shop"));
    let ask = |path: &'static str| Request::get(path).header("host", "shop.example.net");
    let heard = rig.ask(ask("/")).await;
    assert_eq!(heard.status, StatusCode::UNAUTHORIZED);
    let page = ask("/docs")
        .header("accept", "text/html")
        .header("sec-fetch-mode", "navigate")
        .header("sec-fetch-dest", "document");
    let page = rig.ask(page).await;
    assert!(page.text().contains("shop.example.net"), "{}", page.text());
    let passes = ask("/").header("authorization", basic("ann", "secret"));
    let heard = rig.ask(passes).await;
    assert_eq!(heard.told("x-hoody-edge-user"), ["ann"]);
    assert!(heard.told("authorization").is_empty());
    let says = ask("/say")
        .header("authorization", basic("ann", "secret"))
        .header("x-say", "set-cookie: a=1; Domain=example.net")
        .header("x-say", "service-worker-allowed: /");
    let heard = rig.ask(says).await;
    assert_eq!(heard.header("set-cookie"), Some("a=1"));
    assert_eq!(heard.header("service-worker-allowed"), None);
    // What only the proxy may say is not believed because the name is another.
    let forged = ask("/")
        .header("authorization", basic("ann", "secret"))
        .header("x-hoody-edge-host", "evil.example.net");
    assert_eq!(
        rig.ask(forged).await.told("x-hoody-edge-host"),
        ["shop.example.net"]
    );
}

/// A public zone: names are served over HTTPS, and so are domains.
#[tokio::test]
async fn a_domain_of_a_public_node_is_sent_to_https_once_it_has_a_certificate() {
    let dns = Dns::start().await;
    let resolvers = Resolvers::At(vec![dns.address]);
    let mut rig = Rig::with(move |config| {
        config.zone = routes::Zone::new("hoody.example", "box1").expect("a zone");
        config.resolvers = resolvers;
        config.public_https_port = Some(443);
    })
    .await;
    let web = rig.running().await;
    rig.push(1_000, Change::Alias(alias("shop", &web, "http-3000")))
        .await;
    dns.leads("shop.example.net", "shop.box1.containers.hoody.example");
    dns.leads("gone.example.net", "gone.box1.containers.hoody.example");
    let certified = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = certified.clone();
    let domains = {
        let proxy = rig.take();
        let domains = proxy.domains().clone();
        rig.put(proxy);
        domains
    };
    domains.certified_by(move |name| {
        assert_eq!(name, "shop.example.net");
        told.load(std::sync::atomic::Ordering::SeqCst)
    });
    let waits = rig.get("shop.example.net", "/a?b").await;
    assert_eq!(waits.code(), "domain_without_certificate");
    assert_eq!(waits.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(waits.header("retry-after"), Some("15"));
    certified.store(true, std::sync::atomic::Ordering::SeqCst);
    let there = rig.get("shop.example.net", "/a?b").await;
    assert_eq!(there.status, StatusCode::PERMANENT_REDIRECT);
    assert_eq!(
        there.header("location"),
        Some("https://shop.example.net/a?b")
    );
    assert_eq!(
        rig.get("gone.example.net", "/").await.code(),
        "domain_without_alias"
    );
    assert_eq!(
        rig.get("none.example.net", "/").await.code(),
        "domain_not_configured"
    );
    assert_eq!(
        web.seen()
            .requests
            .load(std::sync::atomic::Ordering::SeqCst),
        0
    );

    // Who orders certificates asks the same.
    let place = domains
        .entitled("shop.example.net", None)
        .await
        .expect("entitled");
    assert_eq!(place.container, web.place.container);
    for (name, why) in [
        ("gone.example.net", NotLed::NoAlias),
        ("none.example.net", NotLed::NoRecord),
        ("shop.box1.containers.hoody.example", NotLed::NotAsked),
        ("127.0.0.1", NotLed::NotAsked),
        ("*.example.net", NotLed::NotAsked),
    ] {
        let heard = domains.entitled(name, None).await;
        assert_eq!(heard.map(|place| place.container), Err(why), "{name}");
    }
    rig.push(1_001, Change::NoAlias("shop".into())).await;
    let heard = domains.entitled("shop.example.net", None).await;
    assert_eq!(heard.map(|place| place.container), Err(NotLed::NoAlias));

    // A connection that was made for another name is not asked where this one leads.
    let before = dns.asked(None);
    let stream = rig
        .tls("shop.box1.containers.hoody.example", &[b"http/1.1"])
        .await;
    let io = hyper_util::rt::TokioIo::new(stream.expect("a connection"));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("it");
    tokio::spawn(connection);
    let ask = Request::get("/").header("host", "hidden.example.net");
    let ask = ask
        .body(http_body_util::Full::new(bytes::Bytes::new()))
        .expect("a request");
    let heard = Heard::from(sender.send_request(ask).await.expect("an answer")).await;
    assert_eq!(heard.code(), "misdirected_request");
    assert_eq!(dns.asked(None), before);
}
