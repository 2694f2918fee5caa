//! Signed links: what they open, for how long, and who ends them.

use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use http::{Request, StatusCode};
use routes::Id;
use routes::access::Policy;
use routes::link::{Link, LinkKey, Links, Methods};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use crate::gates::{only, password, rule};
use crate::rig::{Container, Heard, Rig};

const KEY: [u8; 32] = [42; 32];

fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs()
}

fn link(web: &Container) -> Link {
    Link {
        id: Id([7; 12]),
        container: web.place.container,
        service: "files".into(),
        instance: 1,
        expires: now() + 600,
        methods: Methods::ALL,
        prefix: None,
    }
}

fn mint(link: &Link) -> String {
    link.mint(&LinkKey::new(KEY)).expect("a token")
}

async fn linked(rig: &mut Rig) -> Container {
    let mut web = rig.running().await;
    web.place.links = Some(Arc::new(Links {
        key: LinkKey::new(KEY),
        revoked: vec![],
    }));
    rule(rig, &mut web, Some(only(vec![password()]))).await;
    web
}

async fn ask(
    rig: &Rig,
    web: &Container,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
) -> Heard {
    let mut ask = Request::builder()
        .method(method)
        .uri(target)
        .header("host", web.host("files-1"));
    for (name, value) in headers {
        ask = ask.header(*name, *value);
    }
    rig.ask(ask).await
}

#[tokio::test]
async fn a_link_opens_its_service_for_programs() {
    let mut rig = Rig::start().await;
    let web = linked(&mut rig).await;
    let token = mint(&link(&web));
    let target = format!("/a?x=1&hoody_link={token}&y=2");
    for method in ["GET", "POST", "DELETE"] {
        let heard = ask(&rig, &web, method, &target, &[]).await;
        assert_eq!(heard.status, StatusCode::OK);
        assert_eq!(heard.json()["target"], "/a?x=1&y=2");
        assert_eq!(heard.told("x-hoody-edge-auth"), ["link"]);
        assert_eq!(
            heard.told("x-hoody-edge-user"),
            ["070707070707070707070707"]
        );
        assert!(heard.told("x-hoody-edge-group").is_empty());
    }
    rig.logged("/a?x=1&hoody_link=***&y=2").await;
    // Elsewhere it is nothing.
    for door in ["files-2", "terminal-1"] {
        let heard = rig.get(&web.host(door), &target).await;
        assert_eq!(
            (heard.status.as_u16(), heard.code().as_str()),
            (403, "link_refused")
        );
    }
    let other = linked(&mut rig).await;
    let heard = ask(&rig, &other, "GET", &target, &[]).await;
    assert_eq!(heard.code(), "link_refused");
    for forged in [
        format!("{token}A"),
        token[1..].to_owned(),
        "x".repeat(5_000),
        String::new(),
    ] {
        let heard = ask(&rig, &web, "GET", &format!("/?hoody_link={forged}"), &[]).await;
        assert!(heard.status == 403 || heard.status == 401, "{forged:.20}");
    }
}

#[tokio::test]
async fn a_link_is_limited_as_it_says() {
    let mut rig = Rig::start().await;
    let web = linked(&mut rig).await;
    let token = mint(&Link {
        methods: Methods::READ,
        prefix: Some("/docs".into()),
        ..link(&web)
    });
    for (method, path, status) in [
        ("GET", "/docs", 200),
        ("GET", "/docs/a%20b", 200),
        ("HEAD", "/docs/a", 200),
        ("GET", "/", 403),
        ("GET", "/docsx", 403),
        ("GET", "/docs/../private", 403),
        ("GET", "/docs/%2e%2e/private", 403),
        ("GET", "/docs/..%2fprivate", 403),
        ("GET", "//docs", 403),
        ("POST", "/docs", 403),
        ("DELETE", "/docs/a", 403),
    ] {
        let heard = ask(
            &rig,
            &web,
            method,
            &format!("{path}?hoody_link={token}"),
            &[],
        )
        .await;
        assert_eq!(heard.status.as_u16(), status, "{method} {path}");
    }
    // The contract extracts archives with a GET; to a link it is the write that it is.
    for (query, status) in [
        ("preview", 200),
        ("extract", 403),
        ("extract=a", 403),
        ("%65xtract=a", 403),
        ("preview&extract_file=a", 403),
    ] {
        let target = format!("/docs/a.zip?{query}&hoody_link={token}");
        let heard = ask(&rig, &web, "GET", &target, &[]).await;
        assert_eq!(heard.status.as_u16(), status, "{query}");
    }
    let expired = mint(&Link {
        expires: now(),
        ..link(&web)
    });
    let heard = ask(&rig, &web, "GET", &format!("/?hoody_link={expired}"), &[]).await;
    assert_eq!(heard.code(), "link_refused");
    assert!(heard.text().contains("expired"), "{}", heard.text());
}

#[tokio::test]
async fn a_person_keeps_the_link_as_a_cookie() {
    let mut rig = Rig::start().await;
    let mut web = linked(&mut rig).await;
    let read = Link {
        methods: Methods::READ,
        prefix: Some("/docs".into()),
        ..link(&web)
    };
    let token = mint(&read);
    let page = [("accept", "text/html"), ("sec-fetch-dest", "document")];
    let heard = ask(
        &rig,
        &web,
        "GET",
        &format!("/docs?hoody_link={token}&p=1"),
        &page,
    )
    .await;
    assert_eq!(heard.status, StatusCode::SEE_OTHER);
    let host = web.host("files-1");
    assert_eq!(
        heard.header("location"),
        Some(&*format!("http://{host}/docs?p=1"))
    );
    let set = heard.header("set-cookie").expect("a cookie");
    let mine = set.split(';').next().expect("a pair").to_owned();
    let age: u64 = set
        .split("Max-Age=")
        .nth(1)
        .and_then(|it| it.split(';').next()?.parse().ok())
        .expect("an age");
    assert!((590..=600).contains(&age), "{age}");
    let origin = format!("http://{host}");
    let own = [("cookie", mine.as_str()), ("origin", origin.as_str())];
    for (method, path, status) in [
        ("GET", "/docs?p=1", 200),
        ("GET", "/docs/x.css", 200),
        ("GET", "/other", 403),
        ("POST", "/docs", 403),
    ] {
        assert_eq!(
            ask(&rig, &web, method, path, &own).await.status.as_u16(),
            status,
            "{method} {path}"
        );
    }
    // The cookie says no more than the link: revoked, it opens nothing.
    let mut links = Links {
        key: LinkKey::new(KEY),
        revoked: vec![],
    };
    assert!(links.revoke(read.id, read.expires, now()));
    web.place.links = Some(Arc::new(links));
    rig.upsert(&web.place).await;
    let heard = ask(&rig, &web, "GET", "/docs", &own).await;
    assert_eq!(heard.code(), "link_refused");
    assert!(heard.text().contains("revoked"));
    // Another key ends them all.
    let other = mint(&Link {
        id: Id([8; 12]),
        ..link(&web)
    });
    assert_eq!(
        ask(&rig, &web, "GET", &format!("/?hoody_link={other}"), &[])
            .await
            .status,
        StatusCode::OK
    );
    web.place.links = Some(Arc::new(Links {
        key: LinkKey::new([1; 32]),
        revoked: vec![],
    }));
    rig.upsert(&web.place).await;
    assert_eq!(
        ask(&rig, &web, "GET", &format!("/?hoody_link={other}"), &[])
            .await
            .code(),
        "link_refused"
    );
}

#[tokio::test]
async fn a_link_does_not_reach_what_is_cut_off() {
    let mut rig = Rig::start().await;
    let mut web = linked(&mut rig).await;
    let target = format!("/?hoody_link={}", mint(&link(&web)));
    let off = Policy {
        enabled: false,
        ..Policy::open()
    };
    rule(&mut rig, &mut web, Some(off)).await;
    assert_eq!(
        ask(&rig, &web, "GET", &target, &[]).await.code(),
        "access_denied"
    );
    // Where everybody may pass, it is not needed and goes no further.
    rule(&mut rig, &mut web, None).await;
    let heard = ask(&rig, &web, "GET", &target, &[]).await;
    assert_eq!(
        (heard.status, heard.json()["target"].as_str()),
        (StatusCode::OK, Some("/"))
    );
}

#[tokio::test]
async fn a_websocket_ends_with_its_link() {
    let mut rig = Rig::start().await;
    let mut web = linked(&mut rig).await;
    let open = async |rig: &Rig, web: &Container, link: &Link| {
        let url = format!("ws://{}/ws?hoody_link={}", web.host("files-1"), mint(link));
        let (mut socket, _) = client_async(url, rig.tcp().await).await.expect("open");
        let hello = socket.next().await.expect("open").expect("a message");
        assert_eq!(hello, Message::from("hello"));
        socket
    };
    let ends = async |socket: &mut tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>| {
        let end = tokio::time::timeout(Duration::from_secs(10), async {
            while let Some(Ok(_)) = socket.next().await {}
        });
        end.await.is_ok()
    };
    let short = Link {
        id: Id([1; 12]),
        expires: now() + 3,
        ..link(&web)
    };
    let long = Link {
        id: Id([2; 12]),
        ..link(&web)
    };
    let mut by_short = open(&rig, &web, &short).await;
    let mut by_long = open(&rig, &web, &long).await;
    assert!(ends(&mut by_short).await, "it has expired");
    by_long.send("still".into()).await.expect("sent");
    assert_eq!(
        by_long.next().await.expect("open").expect("a message"),
        Message::from("still")
    );
    let mut links = Links {
        key: LinkKey::new(KEY),
        revoked: vec![],
    };
    assert!(links.revoke(long.id, long.expires, now()));
    web.place.links = Some(Arc::new(links));
    rig.upsert(&web.place).await;
    assert!(ends(&mut by_long).await, "it was revoked");
}
