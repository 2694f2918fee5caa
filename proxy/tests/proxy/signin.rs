//! Signing in with a browser: the page, the cookie, and everybody who would like to have it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, StatusCode};
use http_body_util::Full;
use routes::access::{Gate, Password, Policy};
use routes::table::{Change, Project};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::gates::{only, password, rule, token};
use crate::rig::{Container, Heard, Rig};

const PAGE: [(&str, &str); 3] = [
    ("accept", "text/html,application/xhtml+xml"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-mode", "navigate"),
];

async fn gated(rig: &mut Rig, policy: Policy) -> Container {
    let mut web = rig.running().await;
    rule(rig, &mut web, Some(policy)).await;
    web
}

async fn ask(
    rig: &Rig,
    web: &Container,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Heard {
    send(rig, &web.host("terminal-1"), method, path, headers, "").await
}

async fn send(
    rig: &Rig,
    host: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Heard {
    let mut ask = Request::builder()
        .method(method)
        .uri(path)
        .header("host", host);
    for (name, value) in headers {
        ask = ask.header(*name, *value);
    }
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
    Heard::from(rig.send(ask.body(body).expect("a request")).await).await
}

/// Send the form as a browser does from the page itself.
async fn post(rig: &Rig, web: &Container, form: &str, more: &[(&str, &str)]) -> Heard {
    let host = web.host("terminal-1");
    let origin = format!("http://{host}");
    let mut headers = vec![
        ("content-type", "application/x-www-form-urlencoded"),
        ("origin", origin.as_str()),
        ("accept", "text/html"),
        ("sec-fetch-site", "same-origin"),
    ];
    headers.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
    headers.extend(more);
    send(rig, &host, "POST", "/.hoody/sign-in", &headers, form).await
}

/// The pair of name and value that an answer sets.
fn cookie(heard: &Heard) -> String {
    let line = heard.header("set-cookie").expect("a cookie");
    line.split(';').next().expect("a pair").to_owned()
}

async fn signed_in(rig: &Rig, web: &Container) -> String {
    let heard = post(rig, web, "username=ann&password=secret&next=%2F", &[]).await;
    assert_eq!(heard.status, StatusCode::SEE_OTHER);
    cookie(&heard)
}

#[tokio::test]
async fn a_person_gets_a_page_and_then_the_page_they_wanted() {
    let mut rig = Rig::start().await;
    let web = gated(&mut rig, only(vec![password(), token("header:x-key")])).await;
    let page = ask(&rig, &web, "GET", "/docs?a=1&b=2", &PAGE).await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(
        page.header("www-authenticate"),
        Some("Session realm=\"hoody\"")
    );
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert_eq!(page.header("referrer-policy"), Some("same-origin"));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(
        policy.starts_with("default-src 'none'; style-src 'sha256-"),
        "{policy}"
    );
    assert!(policy.contains("form-action 'self'") && !policy.contains("unsafe"));
    let text = page.text();
    assert!(text.contains("value=\"/docs?a=1&amp;b=2\""), "{text}");
    assert!(text.contains("action=\"/.hoody/sign-in\"") && !text.contains("<script"));
    assert!(page.header("set-cookie").is_none());

    let wrong = post(&rig, &web, "username=ann&password=no&next=%2Fdocs", &[]).await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    assert!(wrong.text().contains("role=\"alert\"") && wrong.text().contains("value=\"/docs\""));
    assert!(wrong.header("set-cookie").is_none());

    let host = web.host("terminal-1");
    for form in [
        "username=ann&password=secret&next=%2Fdocs%3Fa%3D1",
        "token=t0ken&next=%2Fdocs%3Fa%3D1",
    ] {
        let heard = post(&rig, &web, form, &[]).await;
        assert_eq!(heard.status, StatusCode::SEE_OTHER);
        let location = heard.header("location").expect("somewhere");
        assert_eq!(location, format!("http://{host}/docs?a=1"));
        let set = heard.header("set-cookie").expect("a cookie");
        assert!(
            set.starts_with("hoody_") && set.contains("; Path=/;"),
            "{set}"
        );
        assert!(
            set.contains("HttpOnly") && set.contains("SameSite=Lax"),
            "{set}"
        );
        assert!(!set.contains("secret") && !set.contains("t0ken"), "{set}");
        // The cookie opens it for pages and programs alike, and the container never sees it.
        let mine = format!("theirs=1; {}; other=2", cookie(&heard));
        for headers in [&PAGE[..], &[("accept", "*/*")]] {
            let mut headers = headers.to_vec();
            headers.extend([
                ("cookie", mine.as_str()),
                ("authorization", "Bearer the-apps-own"),
            ]);
            let heard = ask(&rig, &web, "GET", "/docs?a=1", &headers).await;
            assert_eq!(heard.status, StatusCode::OK);
            assert_eq!(heard.told("cookie"), ["theirs=1; other=2"]);
            assert_eq!(heard.told("authorization"), ["Bearer the-apps-own"]);
            assert_eq!(heard.told("x-hoody-edge-group"), ["friends"]);
        }
    }
    assert_eq!(web.seen().requests.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn programs_are_never_led_to_the_page() {
    let mut rig = Rig::start().await;
    let web = gated(&mut rig, only(vec![password()])).await;
    for (method, headers) in [
        ("GET", &[("accept", "application/json")][..]),
        (
            "GET",
            &[("accept", "text/html"), ("sec-fetch-dest", "empty")],
        ),
        (
            "GET",
            &[("accept", "text/html"), ("sec-fetch-dest", "image")],
        ),
        ("POST", &[("accept", "text/html")]),
        (
            "OPTIONS",
            &[("accept", "*/*"), ("origin", "https://other.example")],
        ),
    ] {
        let heard = ask(&rig, &web, method, "/", headers).await;
        assert_eq!(
            heard.status,
            StatusCode::UNAUTHORIZED,
            "{method} {headers:?}"
        );
        assert_eq!(heard.code(), "authentication_required");
        assert!(heard.header("location").is_none());
    }
    // In a frame there is a page, too.
    let heard = ask(
        &rig,
        &web,
        "GET",
        "/",
        &[("accept", "text/html"), ("sec-fetch-dest", "iframe")],
    )
    .await;
    assert!(heard.text().contains("<form"));
}

#[tokio::test]
async fn over_tls_the_cookie_is_the_hosts_alone() {
    let mut rig = Rig::start().await;
    let web = gated(&mut rig, only(vec![password()])).await;
    let host = web.host("terminal-1");
    let mut client = rig.h2(&host).await;
    let form = Request::post(format!("https://{host}/.hoody/sign-in"))
        .header(
            "content-type",
            "application/x-www-form-urlencoded; charset=utf-8",
        )
        .header("origin", format!("https://{host}"))
        .body(Full::new(Bytes::from(
            "username=ann&password=secret&next=/x",
        )))
        .expect("a request");
    let heard = Heard::from(client.send_request(form).await.expect("an answer")).await;
    assert_eq!(heard.status, StatusCode::SEE_OTHER);
    assert_eq!(
        heard.header("location"),
        Some(&*format!("https://{host}/x"))
    );
    let set = heard.header("set-cookie").expect("a cookie");
    assert!(set.starts_with("__Host-hoody-"), "{set}");
    for part in [
        "; Path=/;",
        "; HttpOnly",
        "; Secure",
        "; SameSite=None",
        "; Partitioned",
    ] {
        assert!(set.contains(part), "{set}");
    }
    assert!(!set.to_ascii_lowercase().contains("domain"), "{set}");
    // HTTP/2 may send the cookies one by one.
    let ask = Request::get(format!("https://{host}/"))
        .header("cookie", "theirs=1")
        .header("cookie", cookie(&heard))
        .body(Full::new(Bytes::new()))
        .expect("a request");
    let heard = Heard::from(client.send_request(ask).await.expect("an answer")).await;
    assert_eq!(heard.told("cookie"), ["theirs=1"]);
}

#[tokio::test]
async fn a_cookie_is_good_for_its_own_door_only() {
    let mut rig = Rig::start().await;
    let web = gated(&mut rig, only(vec![password()])).await;
    // With the very same gate.
    let other = gated(&mut rig, only(vec![password()])).await;
    let mine = signed_in(&rig, &web).await;
    let (name, value) = mine.split_once('=').expect("a pair");
    let opens = async |host: String, cookie: &str| {
        send(&rig, &host, "GET", "/", &[("cookie", cookie)], "")
            .await
            .status
    };
    assert_eq!(opens(web.host("terminal-1"), &mine).await, StatusCode::OK);
    for host in [
        web.host("terminal-2"),
        web.host("files-1"),
        web.host("http-1"),
        other.host("terminal-1"),
    ] {
        assert_eq!(opens(host, &mine).await, StatusCode::UNAUTHORIZED);
    }
    // Forged, cut, or under another name.
    let mut flipped = value.as_bytes().to_vec();
    flipped[value.len() / 2] ^= 1;
    let flipped = String::from_utf8_lossy(&flipped).into_owned();
    for forged in [
        format!("{name}={flipped}"),
        format!("{name}={}", &value[..value.len() - 1]),
        format!("{name}="),
        format!("{name}x={value}"),
        format!("__Host-{name}={value}"),
        format!("{name}={{\"e\":9999999999}}"),
    ] {
        let status = opens(web.host("terminal-1"), &forged).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{forged}");
    }
    // What a neighbour's page has put beside it neither opens nor hides it.
    let tossed = format!("{name}=x; {mine}; {name}=y");
    assert_eq!(opens(web.host("terminal-1"), &tossed).await, StatusCode::OK);
    // A wrong cookie is no guess at a password.
    rig.comes_to("hoody_proxy_wrong_credentials_total", 0.0)
        .await;
}

#[tokio::test]
async fn a_cookie_ends_with_the_gate_that_it_opened() {
    let mut rig = Rig::start().await;
    let mut web = gated(&mut rig, only(vec![password()])).await;
    let mine = signed_in(&rig, &web).await;
    let status = async |rig: &Rig, web: &Container| {
        ask(rig, web, "GET", "/", &[("cookie", &mine)]).await.status
    };
    let more = only(vec![token("header:x-key"), password()]);
    rule(&mut rig, &mut web, Some(more)).await;
    assert_eq!(status(&rig, &web).await, StatusCode::OK);
    // It outlives the proxy that made it.
    rig.restart().await;
    assert_eq!(status(&rig, &web).await, StatusCode::OK);
    let changed = Gate::Password(Password::new("ann", "salt", "changed"));
    web.place.access = Some(Arc::new(only(vec![changed])));
    let all = Change::Replace(vec![web.place.clone()]);
    rig.push(200, all).await;
    assert_eq!(status(&rig, &web).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn other_origins_cannot_use_a_cookie() {
    let mut rig = Rig::start().await;
    let web = gated(&mut rig, only(vec![password()])).await;
    let mine = signed_in(&rig, &web).await;
    let own = format!("http://{}", web.host("terminal-1"));
    let next_door = format!("http://{}", web.host("terminal-2"));
    for (origin, site, allowed) in [
        (Some(own.as_str()), Some("same-origin"), true),
        (Some(own.as_str()), None, true),
        (None, Some("same-origin"), true),
        (Some("https://evil.example"), Some("cross-site"), false),
        (Some("https://evil.example"), Some("same-origin"), false),
        (Some(next_door.as_str()), Some("same-site"), false),
        (Some("null"), Some("cross-site"), false),
        (None, Some("same-site"), false),
        (None, Some("none"), false),
        (None, None, false),
    ] {
        let mut headers = vec![("cookie", mine.as_str())];
        headers.extend(origin.map(|it| ("origin", it)));
        headers.extend(site.map(|it| ("sec-fetch-site", it)));
        for method in ["POST", "PUT", "DELETE", "PROPFIND"] {
            let heard = ask(&rig, &web, method, "/", &headers).await;
            let (status, code) = if allowed {
                (200, "")
            } else {
                (403, "cross_origin")
            };
            assert_eq!(
                heard.status.as_u16(),
                status,
                "{method} {origin:?} {site:?}"
            );
            if !allowed {
                assert_eq!(heard.code(), code);
            }
        }
        // A WebSocket could do anything.
        let url = format!("ws://{}/ws", web.host("terminal-1"));
        let mut upgrade = url.into_client_request().expect("a request");
        for (name, value) in &headers {
            let name: http::HeaderName = name.parse().expect("a name");
            upgrade
                .headers_mut()
                .insert(name, value.parse().expect("a value"));
        }
        let socket = client_async(upgrade, rig.tcp().await).await;
        assert_eq!(socket.is_ok(), allowed, "{origin:?} {site:?}");
        if let Ok((mut socket, _)) = socket {
            assert!(socket.next().await.is_some_and(|it| it.is_ok()));
        }
        // To look is allowed: whether the answer may be read, the app says.
        assert_eq!(
            ask(&rig, &web, "GET", "/", &headers).await.status,
            StatusCode::OK
        );
    }
    // A credential that no browser sends by itself is nobody else's.
    let basic = crate::gates::basic("ann", "secret");
    let headers = [
        ("authorization", basic.as_str()),
        ("origin", "https://other.example"),
    ];
    assert_eq!(
        ask(&rig, &web, "POST", "/", &headers).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn nobody_else_signs_anybody_in() {
    let mut rig = Rig::start().await;
    let web = gated(&mut rig, only(vec![password()])).await;
    let form = "username=ann&password=secret&next=%2F";
    let next_door = format!("http://{}", web.host("terminal-2"));
    for (origin, site) in [
        ("https://evil.example", "cross-site"),
        ("null", "cross-site"),
        (&next_door, "same-site"),
        ("https://evil.example", "same-origin"),
    ] {
        let heard = post(
            &rig,
            &web,
            form,
            &[("origin", origin), ("sec-fetch-site", site)],
        )
        .await;
        assert_eq!(heard.status, StatusCode::FORBIDDEN, "{origin}");
        assert!(heard.header("set-cookie").is_none());
    }
    let heard = ask(
        &rig,
        &web,
        "POST",
        "/.hoody/sign-out",
        &[("origin", "https://evil.example")],
    )
    .await;
    assert_eq!(heard.code(), "cross_origin");
    let heard = ask(
        &rig,
        &web,
        "GET",
        "/.hoody/sign-out",
        &[("sec-fetch-site", "cross-site")],
    )
    .await;
    assert_eq!(heard.code(), "cross_origin");
    // A program may.
    let host = web.host("terminal-1");
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let heard = send(&rig, &host, "POST", "/.hoody/sign-in", &headers, form).await;
    assert_eq!(heard.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_sign_in_goes_on_to_its_own_host_only() {
    let mut rig = Rig::start().await;
    let web = gated(&mut rig, only(vec![password()])).await;
    let own = format!("http://{}/", web.host("terminal-1"));
    for next in [
        "https%3A%2F%2Fevil.example",
        "%2F%2Fevil.example",
        "%2F%5Cevil.example",
        "%5C%5Cevil.example",
        "javascript%3Aalert(1)",
        "%2Fa%0D%0ASet-Cookie%3A+x%3Dy",
        "%2F%09%2Fevil.example",
        "%2F.hoody%2Fsign-out",
        "evil.example",
        "%40evil.example",
        "",
    ] {
        let form = format!("username=ann&password=secret&next={next}");
        let heard = post(&rig, &web, &form, &[]).await;
        assert_eq!(heard.header("location"), Some(&*own), "{next}");
        let set = heard.headers.get_all("set-cookie").iter().count();
        assert_eq!(set, 1, "{next}");
    }
    // A credential in an address is taken out of it, and the rest stays on this host.
    let heard = ask(
        &rig,
        &web,
        "GET",
        "//evil.example/?token=Basic%20YW5uOnNlY3JldA==",
        &PAGE,
    )
    .await;
    assert_eq!(heard.status, StatusCode::SEE_OTHER);
    assert_eq!(
        heard.header("location"),
        Some(&*format!("{own}/evil.example/"))
    );
}

#[tokio::test]
async fn what_is_no_form_is_refused() {
    let mut rig = Rig::start().await;
    let web = gated(&mut rig, only(vec![password()])).await;
    let long = format!("username=ann&password={}", "x".repeat(20_000));
    for (kind, body, status) in [
        ("application/json", "{}", 400),
        ("text/plain", "username=ann&password=secret", 400),
        ("multipart/form-data", "username=ann&password=secret", 400),
        ("application/x-www-form-urlencoded", "", 400),
        ("application/x-www-form-urlencoded", "username=ann", 400),
        (
            "application/x-www-form-urlencoded",
            "username=ann&username=ann&password=secret",
            400,
        ),
        ("application/x-www-form-urlencoded", &long, 413),
    ] {
        let heard = post(&rig, &web, body, &[("content-type", kind)]).await;
        assert_eq!(heard.status.as_u16(), status, "{kind} {body:.40}");
    }
    // One that does not say how long it is.
    let host = web.host("terminal-1");
    let body = "x".repeat(0x8000);
    let raw = format!(
        "POST /.hoody/sign-in HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n8000\r\n{body}\r\n0\r\n\r\n"
    );
    let answer = rig.raw(raw.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer:.60}");
    // The path is the proxy's only where there is something to sign in to.
    let open = rig.running().await;
    let heard = post(&rig, &open, "username=ann", &[]).await;
    assert_eq!(
        (heard.status, heard.json()["body"].as_u64()),
        (StatusCode::OK, Some(12))
    );
}

#[tokio::test]
async fn a_sign_in_is_guessed_at_in_vain() {
    let mut rig = Rig::start().await;
    let web = gated(&mut rig, only(vec![password()])).await;
    let mine = signed_in(&rig, &web).await;
    let mut refused = 0;
    for guess in 0..20 {
        let heard = post(&rig, &web, &format!("username=ann&password={guess}"), &[]).await;
        match heard.status.as_u16() {
            401 => assert!(guess < 10),
            429 => refused += 1,
            other => panic!("{other}"),
        }
        assert!(heard.header("set-cookie").is_none());
    }
    assert!(refused >= 9, "{refused}");
    let heard = post(&rig, &web, "username=ann&password=secret", &[]).await;
    assert_eq!(heard.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(heard.header("retry-after").is_some());
    // Who is in stays in.
    assert_eq!(
        ask(&rig, &web, "GET", "/", &[("cookie", &mine)])
            .await
            .status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn two_documents_are_signed_in_to_one_after_the_other() {
    let mut rig = Rig::start().await;
    let web = gated(&mut rig, only(vec![password()])).await;
    let project = Project {
        id: web.place.project,
        policy: Some(only(vec![token("header:x-key")])),
    };
    rig.push(200, Change::Project(project)).await;
    let half = post(&rig, &web, "username=ann&password=secret&next=%2Fx", &[]).await;
    assert_eq!(half.status, StatusCode::UNAUTHORIZED);
    assert!(half.text().contains("role=\"status\"") && half.text().contains("name=\"token\""));
    let half = cookie(&half);
    assert_eq!(
        ask(&rig, &web, "GET", "/", &[("cookie", &half)])
            .await
            .status,
        StatusCode::UNAUTHORIZED
    );
    let whole = post(&rig, &web, "token=t0ken&next=%2Fx", &[("cookie", &half)]).await;
    assert_eq!(whole.status, StatusCode::SEE_OTHER);
    let whole = cookie(&whole);
    let heard = ask(&rig, &web, "GET", "/", &[("cookie", &whole)]).await;
    assert_eq!(heard.told("x-hoody-edge-user"), ["ann"]);
}

#[tokio::test]
async fn a_credential_in_an_address_becomes_a_cookie() {
    let mut rig = Rig::start().await;
    let web = gated(&mut rig, only(vec![password(), token("param:key")])).await;
    let host = web.host("terminal-1");
    for (target, rest) in [
        (
            "/docs?a=1&token=Basic%20YW5uOnNlY3JldA==&b=2",
            "/docs?a=1&b=2",
        ),
        ("/docs?token=t0ken", "/docs"),
        ("/?key=t0ken&a=1", "/?a=1"),
    ] {
        let heard = ask(&rig, &web, "GET", target, &PAGE).await;
        assert_eq!(heard.status, StatusCode::SEE_OTHER, "{target}");
        assert_eq!(
            heard.header("location"),
            Some(&*format!("http://{host}{rest}"))
        );
        assert_eq!(heard.header("referrer-policy"), Some("no-referrer"));
        let mine = cookie(&heard);
        let heard = ask(&rig, &web, "GET", rest, &[("cookie", &mine)]).await;
        assert_eq!(
            (heard.status, heard.json()["target"].as_str()),
            (StatusCode::OK, Some(rest))
        );
    }
    let wrong = ask(&rig, &web, "GET", "/docs?token=wrong", &PAGE).await;
    assert!(wrong.status == 401 && wrong.text().contains("role=\"alert\""));
    rig.logged("/docs?token=***").await;
}

#[tokio::test]
async fn signing_out_takes_the_cookie_away() {
    let mut rig = Rig::start().await;
    let web = gated(&mut rig, only(vec![password()])).await;
    let mine = signed_in(&rig, &web).await;
    let heard = ask(
        &rig,
        &web,
        "GET",
        "/.hoody/sign-out",
        &[("cookie", &mine), ("sec-fetch-site", "same-origin")],
    )
    .await;
    assert_eq!(heard.status, StatusCode::SEE_OTHER);
    let set = heard.header("set-cookie").expect("a cookie");
    assert!(set.contains("=; ") && set.contains("Max-Age=0"), "{set}");
    // A copy of it opens nothing, here or after a restart; another sign-in is not touched.
    let heard = ask(&rig, &web, "GET", "/", &[("cookie", &mine)]).await;
    assert_eq!(heard.status, StatusCode::UNAUTHORIZED);
    rig.restart().await;
    let heard = ask(&rig, &web, "GET", "/", &[("cookie", &mine)]).await;
    assert_eq!(heard.status, StatusCode::UNAUTHORIZED);
    let mine = signed_in(&rig, &web).await;
    // Whoever is in already is led on from the page.
    let heard = ask(&rig, &web, "GET", "/.hoody/sign-in", &[("cookie", &mine)]).await;
    let own = format!("http://{}/", web.host("terminal-1"));
    assert_eq!(
        (heard.status.as_u16(), heard.header("location")),
        (303, Some(&*own))
    );
    assert!(heard.header("set-cookie").is_none());
    let heard = ask(&rig, &web, "GET", "/.hoody/sign-in", &PAGE).await;
    assert!(
        heard.status == 401 && heard.text().contains("value=\"/\""),
        "{}",
        heard.text()
    );
}

/// The story is `kit-services/ui/test/signin.mjs`; the pages' packages have to be installed.
#[tokio::test]
#[ignore = "needs Node and Chromium: `make pages` plays it"]
async fn signing_in_with_a_browser() {
    let mut rig = Rig::start().await;
    let web = gated(&mut rig, only(vec![password(), token("header:x-key")])).await;
    let url = format!("https://{}:{}/", web.host("terminal-1"), rig.https.port());
    let mut story = tokio::process::Command::new("node");
    let pages = concat!(env!("CARGO_MANIFEST_DIR"), "/../kit-services/ui");
    story.current_dir(pages).args(["test/signin.mjs", &url]);
    if let Some(shots) = std::env::var_os("SIGNIN_SHOTS") {
        story.arg("--shots").arg(shots);
    }
    let played = story.status().await.expect("node runs");
    assert!(played.success());
    // A page of another site has sent a POST: with the cookie of the frame or without, it went no
    // further.
    let posts: Vec<_> = (rig.log().into_iter())
        .filter(|line| line["method"] == "POST" && line["target"] == "/")
        .collect();
    assert!(!posts.is_empty());
    assert!(
        posts
            .iter()
            .all(|line| line["status"] == 403 || line["status"] == 401),
        "{posts:?}"
    );
}
