//! Names of the node's own that lead into containers.

use http::{Request, StatusCode};
use routes::domain::Alias;
use routes::table::Change;

use crate::rig::{Container, Rig};

fn alias(name: &str, to: &Container, door: &str) -> Alias {
    Alias {
        name: name.into(),
        container: to.place.container,
        door: door.parse().expect("a door"),
        target: None,
        pinned: false,
        expires: None,
    }
}

fn host(name: &str) -> String {
    format!("{name}.box1.containers.hoody.localhost")
}

#[tokio::test]
async fn an_alias_is_its_container_under_another_name() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let other = rig.running().await;
    rig.push(1_000, Change::Alias(alias("shop", &web, "http-3000")))
        .await;
    let heard = rig.get(&host("shop"), "/a/b?c=d").await;
    assert_eq!(heard.status, StatusCode::OK);
    assert_eq!(heard.json()["target"], "/a/b?c=d");
    assert_eq!(heard.told("x-hoody-edge-service"), ["http"]);
    assert_eq!(heard.told("x-hoody-edge-port"), ["3000"]);
    // The app sees the name that was asked for.
    assert_eq!(heard.told("host"), [host("shop")]);
    // The alias is moved: the next request goes where it leads now.
    rig.push(1_001, Change::Alias(alias("shop", &other, "files-2")))
        .await;
    let heard = rig.get(&host("shop"), "/").await;
    assert_eq!(heard.told("x-hoody-edge-service"), ["files"]);
    assert_eq!(heard.told("x-hoody-edge-index"), ["2"]);
}

#[tokio::test]
async fn an_alias_that_leads_nowhere_is_like_one_that_never_was() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let now = jiff_now();
    let past = Alias {
        expires: Some(now - 1),
        ..alias("past", &web, "files-1")
    };
    let future = Alias {
        expires: Some(now + 3_600_000),
        ..alias("future", &web, "files-1")
    };
    let mut lost = alias("lost", &web, "files-1");
    lost.container.0 = [0xee; 12];
    for (generation, change) in [
        (1_000, Change::Alias(past)),
        (1_001, Change::Alias(future)),
        (1_002, Change::Alias(lost)),
        (1_003, Change::Alias(alias("off", &web, "files-1"))),
        (1_004, Change::NoAlias("off".into())),
    ] {
        rig.push(generation, change).await;
    }
    assert_eq!(rig.get(&host("future"), "/").await.status, StatusCode::OK);
    let never = rig.get(&host("never"), "/").await;
    assert_eq!(never.code(), "unknown_host");
    for name in ["past", "lost", "off"] {
        let heard = rig.get(&host(name), "/").await;
        assert_eq!(
            (heard.status, &heard.body),
            (never.status, &never.body),
            "{name}"
        );
    }
}

fn jiff_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.expect("after 1970").as_millis()).expect("before the year 292277026")
}

#[tokio::test]
async fn a_target_is_what_the_bare_name_shows() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let free = Alias {
        target: Some("/render?mode=ro".into()),
        ..alias("free", &web, "exec-1")
    };
    let pinned = Alias {
        name: "pinned".into(),
        pinned: true,
        ..free.clone()
    };
    rig.push(1_000, Change::Alias(free)).await;
    rig.push(1_001, Change::Alias(pinned)).await;
    for (name, asked, want) in [
        ("free", "/", Some("/render?mode=ro")),
        ("free", "/?a=1", Some("/render?mode=ro&a=1")),
        ("free", "/other?mode=rw", Some("/other?mode=rw")),
        ("pinned", "/?a=1&mode=rw", Some("/render?mode=ro&a=1")),
        ("pinned", "/render?m%6fde=rw", Some("/render?mode=ro")),
        ("pinned", "/other", None),
        ("pinned", "/render/", None),
        ("pinned", "/render/..%2fother", None),
        ("pinned", "/./render", None),
        ("pinned", "/api/v1/exec/scripts/write", None),
    ] {
        let heard = rig.get(&host(name), asked).await;
        match want {
            Some(want) => assert_eq!(heard.json()["target"], want, "{name} {asked}"),
            None => {
                assert_eq!(heard.status, StatusCode::NOT_FOUND, "{name} {asked}");
                assert_eq!(heard.code(), "alias_path_pinned", "{name} {asked}");
            }
        }
    }
    // In absolute form and over HTTP/2 it is the same path.
    let line = format!(
        "GET http://{0}/other HTTP/1.1\r\nhost: {0}\r\nconnection: close\r\n\r\n",
        host("pinned")
    );
    assert!(rig.raw(line.as_bytes()).await.contains("alias_path_pinned"));
    let mut h2 = rig.h2(&host("pinned")).await;
    for (path, status) in [("/other", 404), ("/?x=1", 200)] {
        let request = Request::get(format!("https://{}{path}", host("pinned")))
            .body(http_body_util::Full::new(bytes::Bytes::new()))
            .expect("a request");
        let answer = h2.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), status, "{path}");
    }
    // The log tells what was asked for.
    rig.logged("/?a=1").await;
}
