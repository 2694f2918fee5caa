//! Gates in front of containers: who passes, what is kept back, and what ends when rules change.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use routes::access::{Carrier, Gate, Group, Password, Policy, Program, Reach, Rule, Token};
use routes::jwt::{Algorithm, Jwt, Keys};
use routes::table::{Change, Project, State, Whole};
use serde_json::{Value, json};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::rig::{Container, Heard, Rig, eventually};

pub const SECRET: &str = "a secret that only two know";

pub fn password() -> Gate {
    Gate::Password(Password::new("ann", "salt", "secret"))
}

pub fn token(carrier: &str) -> Gate {
    Gate::Token(Token::new(carrier.parse().expect("a carrier"), "t0ken"))
}

fn ip(networks: &[&str]) -> Gate {
    let networks = networks.iter().map(|it| it.parse().expect("a network"));
    Gate::Ip(networks.collect())
}

fn jwt(algorithm: Algorithm, key: &str, claims: Value) -> Gate {
    Gate::Jwt(Box::new(Jwt {
        algorithm,
        keys: Keys::read(algorithm, key).expect("a key"),
        sources: vec![
            Carrier::authorization(),
            Carrier::cookie("id").expect("a cookie"),
        ],
        claims: serde_json::from_value(claims).expect("claims"),
    }))
}

/// A token of HS256, or of what the header says.
fn signed(key: &[u8], header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
    let signature = ring::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Everything for who passes one of these gates, and nothing for anybody else.
pub fn only(gates: Vec<Gate>) -> Policy {
    of(Rule::Deny, gates)
}

fn of(default: Rule, gates: Vec<Gate>) -> Policy {
    let all = Program::parse("*").expect("a program");
    let ways = gates.into_iter().map(|gate| vec![gate]).collect();
    Policy {
        default,
        groups: vec![Group {
            name: "friends".into(),
            ways,
            grants: [(all, Reach::All)].into(),
        }],
        ..Policy::open()
    }
}

pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Give a container rules, or with nothing none.
pub async fn rule(rig: &mut Rig, web: &mut Container, policy: Option<Policy>) {
    web.place.access = policy.map(Arc::new);
    rig.upsert(&web.place).await;
}

async fn gated(rig: &mut Rig, policy: Policy) -> Container {
    let mut web = rig.running().await;
    rule(rig, &mut web, Some(policy)).await;
    web
}

async fn with(rig: &Rig, web: &Container, headers: &[(&str, &str)]) -> Heard {
    at(rig, web, "/", headers).await
}

async fn at(rig: &Rig, web: &Container, path: &str, headers: &[(&str, &str)]) -> Heard {
    let mut ask = Request::get(path).header("host", web.host("terminal-1"));
    for (name, value) in headers {
        ask = ask.header(*name, *value);
    }
    rig.ask(ask).await
}

#[tokio::test]
async fn a_password_opens_and_is_kept_back() {
    let mut rig = Rig::start().await;
    let web = gated(&mut rig, only(vec![password()])).await;
    let shut = with(&rig, &web, &[]).await;
    assert_eq!(shut.status, StatusCode::UNAUTHORIZED);
    assert_eq!(shut.code(), "authentication_required");
    let challenge = shut.header("www-authenticate").expect("a challenge");
    assert!(challenge.starts_with("Basic realm="), "{challenge}");
    for wrong in [
        basic("ann", "wrong"),
        basic("bob", "secret"),
        "Basic !".to_owned(),
        "Bearer secret".to_owned(),
    ] {
        let heard = with(&rig, &web, &[("authorization", &wrong)]).await;
        assert_eq!(heard.status, StatusCode::UNAUTHORIZED, "{wrong}");
    }
    assert_eq!(web.seen().requests.load(Ordering::SeqCst), 0);
    let credential = basic("ann", "secret");
    let heard = with(&rig, &web, &[("authorization", &credential)]).await;
    assert_eq!(heard.status, StatusCode::OK);
    assert!(heard.told("authorization").is_empty());
    assert_eq!(heard.told("x-hoody-edge-auth"), ["password"]);
    assert_eq!(heard.told("x-hoody-edge-group"), ["friends"]);
    assert_eq!(heard.told("x-hoody-edge-user"), ["ann"]);
    // A page's own request makes no browser ask by itself.
    let heard = with(
        &rig,
        &web,
        &[("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")],
    )
    .await;
    let challenge = heard.header("www-authenticate").expect("a challenge");
    assert_eq!(
        (heard.status.as_u16(), challenge),
        (401, "Session realm=\"hoody\"")
    );
    assert!(heard.header("location").is_none());
}

#[tokio::test]
async fn a_token_is_read_where_its_owner_said_and_nowhere_else() {
    let mut rig = Rig::start().await;
    let mut web = rig.running().await;
    for (carrier, good, bad) in [
        (
            "header:X-Key",
            vec![("x-key", "t0ken")],
            vec![("x-key", "t0ken2")],
        ),
        (
            "header:Authorization",
            vec![("authorization", "Bearer t0ken")],
            vec![("authorization", "Basic t0ken")],
        ),
        (
            "cookie:key",
            vec![("cookie", "a=1; key=t0ken; b=2")],
            vec![("cookie", "a=1; keys=t0ken")],
        ),
        // Two of them are none: another reader might take the other.
        (
            "cookie:key",
            vec![("cookie", "key=t0ken")],
            vec![("cookie", "key=t0ken; key=x")],
        ),
        (
            "header:X-Key",
            vec![("x-key", "t0ken")],
            vec![("x-key", "t0ken"), ("x-key", "x")],
        ),
    ] {
        rule(&mut rig, &mut web, Some(only(vec![token(carrier)]))).await;
        assert_eq!(
            with(&rig, &web, &bad).await.status,
            StatusCode::UNAUTHORIZED,
            "{carrier}"
        );
        let heard = with(&rig, &web, &good).await;
        assert_eq!(heard.status, StatusCode::OK, "{carrier}");
        for name in ["x-key", "authorization"] {
            assert!(heard.told(name).is_empty(), "{carrier}");
        }
        let cookies = heard.told("cookie");
        assert!(
            !cookies.iter().any(|it| it.contains("t0ken")),
            "{cookies:?}"
        );
        if good[0].1.starts_with("a=1") {
            assert_eq!(cookies, ["a=1; b=2"]);
        }
    }
    rule(&mut rig, &mut web, Some(only(vec![token("param:key")]))).await;
    for wrong in [
        "/?key=wrong",
        "/?key=t0ken&key=t0ken",
        "/?%6bey=t0ken",
        "/key=t0ken",
    ] {
        let heard = at(&rig, &web, wrong, &[]).await;
        assert_eq!(heard.status, StatusCode::UNAUTHORIZED, "{wrong}");
    }
    let heard = at(&rig, &web, "/p?a=1&key=t0ken&b=%20", &[]).await;
    assert_eq!(heard.json()["target"], "/p?a=1&b=%20");
    let line = rig.logged("/p?a=1&key=***&b=%20").await;
    assert_eq!(line["status"], 200);
}

#[tokio::test]
async fn the_apps_own_credentials_pass() {
    let mut rig = Rig::start().await;
    let web = gated(&mut rig, only(vec![token("header:x-key")])).await;
    let own = [
        ("authorization", "Bearer the-apps-own"),
        ("cookie", "session=the-apps-own"),
        ("x-api-key", "the-apps-own"),
        ("x-key", "t0ken"),
    ];
    let heard = at(&rig, &web, "/?token=the-apps-own", &own).await;
    for name in ["authorization", "cookie", "x-api-key"] {
        assert!(heard.told(name)[0].contains("the-apps-own"), "{name}");
    }
    assert_eq!(heard.json()["target"], "/?token=the-apps-own");
    // And with no gate of its own to open, so does what looks like one's.
    let mut web = web;
    rule(&mut rig, &mut web, None).await;
    let heard = with(&rig, &web, &own).await;
    assert_eq!(heard.told("x-key"), ["t0ken"]);
    assert!(heard.told("x-hoody-edge-auth").is_empty());
}

#[tokio::test]
async fn signed_tokens_open_and_forged_ones_do_not() {
    let mut rig = Rig::start().await;
    let claims = json!({ "iss": "https://id.example", "aud": "hoody" });
    let gate = jwt(Algorithm::HS256, SECRET, claims.clone());
    let mut web = gated(&mut rig, only(vec![gate])).await;
    let hs256 = json!({ "alg": "HS256", "typ": "JWT" });
    let good = json!({ "iss": "https://id.example", "aud": ["hoody"], "sub": "Ünal, B", "exp": 4_000_000_000u64 });
    let token = signed(SECRET.as_bytes(), &hs256, &good);
    let bearer = format!("Bearer {token}");
    let heard = with(&rig, &web, &[("authorization", &bearer)]).await;
    assert_eq!(heard.status, StatusCode::OK);
    assert_eq!(heard.told("x-hoody-edge-auth"), ["jwt"]);
    assert_eq!(heard.told("x-hoody-edge-user"), ["%C3%9Cnal%2C%20B"]);
    assert!(heard.told("authorization").is_empty());
    let cookie = format!("id={token}; theme=dark");
    let heard = with(&rig, &web, &[("cookie", &cookie)]).await;
    assert_eq!(heard.told("cookie"), ["theme=dark"]);
    // Over its own cookie another scheme of Authorization is the app's.
    let heard = with(
        &rig,
        &web,
        &[("cookie", &cookie), ("authorization", "Basic eDp5")],
    )
    .await;
    assert_eq!(heard.told("authorization"), ["Basic eDp5"]);

    let mut old = good.clone();
    old["exp"] = 1_000.into();
    let mut foreign = good.clone();
    foreign["aud"] = "other".into();
    let forged = [
        signed(b"another secret", &hs256, &good),
        signed(SECRET.as_bytes(), &hs256, &old),
        signed(SECRET.as_bytes(), &hs256, &foreign),
        signed(SECRET.as_bytes(), &json!({ "alg": "none" }), &good),
        format!(
            "{}.",
            signed(SECRET.as_bytes(), &json!({ "alg": "none" }), &good)
                .rsplit_once('.')
                .expect("parts")
                .0
        ),
        signed(SECRET.as_bytes(), &json!({ "alg": "HS512" }), &good),
        "x".repeat(9_000),
        format!(
            "{}.{}.{}",
            "A".repeat(20_000),
            "A".repeat(20_000),
            "A".repeat(20_000)
        ),
    ];
    for (at, token) in forged.iter().enumerate() {
        let heard = with(&rig, &web, &[("authorization", &format!("Bearer {token}"))]).await;
        assert_eq!(heard.status, StatusCode::UNAUTHORIZED, "{at}");
    }
    // A public key is no secret: what is signed with it as one opens nothing.
    let public = include_str!("../../routes/testdata/rsa.pub.pem");
    let gate = jwt(Algorithm::RS256, public, json!({}));
    rule(&mut rig, &mut web, Some(only(vec![gate]))).await;
    for header in [&hs256, &json!({ "alg": "RS256" })] {
        let token = signed(public.as_bytes(), header, &good);
        // From elsewhere: this client has been wrong often by now.
        let heard = with(&rig, &web, &[("authorization", &format!("Bearer {token}"))]).await;
        assert!(
            heard.status == 401 || heard.status == 429,
            "{}",
            heard.status
        );
    }
    assert_eq!(web.seen().requests.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_set_of_keys_is_asked_by_id() {
    let mut rig = Rig::start().await;
    let key = |id: &str, secret: &[u8]| json!({ "kty": "oct", "kid": id, "alg": "HS256", "k": URL_SAFE_NO_PAD.encode(secret) });
    let set = json!({ "keys": [key("old", b"secret one"), key("new", b"secret two")] });
    let gate = jwt(Algorithm::HS256, &set.to_string(), json!({}));
    let web = gated(&mut rig, only(vec![gate])).await;
    for (id, secret, opens) in [
        (Some("old"), "secret one", true),
        (Some("new"), "secret two", true),
        (None, "secret two", true),
        (Some("new"), "secret one", false),
        (Some("other"), "secret one", false),
    ] {
        let mut header = json!({ "alg": "HS256" });
        if let Some(id) = id {
            header["kid"] = id.into();
        }
        let token = signed(secret.as_bytes(), &header, &json!({ "sub": "x" }));
        let heard = with(&rig, &web, &[("authorization", &format!("Bearer {token}"))]).await;
        assert_eq!(heard.status == StatusCode::OK, opens, "{id:?} {secret}");
    }
}

#[tokio::test]
async fn addresses_are_of_both_families() {
    let mut rig = Rig::with(|config| {
        config.http.push("[::1]:0".parse().expect("an address"));
    })
    .await;
    let v6 = rig.bound().http[1];
    let v4 = rig.http;
    let mut web = rig.running().await;
    for (networks, by_v4, by_v6) in [
        (&["127.0.0.0/8"][..], true, false),
        (&["::1/128"], false, true),
        (&["2001:db8::/32", "127.0.0.1/32"], true, false),
        (&["::/0"], false, true),
        (&["0.0.0.0/0", "::/0"], true, true),
        (&["10.0.0.0/8"], false, false),
        (&[], false, false),
    ] {
        rule(&mut rig, &mut web, Some(only(vec![ip(networks)]))).await;
        for (address, opens) in [(v4, by_v4), (v6, by_v6)] {
            rig.http = address;
            let heard = with(&rig, &web, &[("x-forwarded-for", "10.1.2.3")]).await;
            let status = if opens {
                StatusCode::OK
            } else {
                StatusCode::FORBIDDEN
            };
            assert_eq!(heard.status, status, "{networks:?} {address}");
            if opens {
                assert_eq!(heard.told("x-hoody-edge-auth"), ["ip"]);
            } else {
                assert_eq!(heard.code(), "access_denied");
            }
        }
    }
}

#[tokio::test]
async fn a_project_and_its_container_both_have_to_allow() {
    let mut rig = Rig::start().await;
    let mut web = rig.running().await;
    let project = web.place.project;
    let key = ("x-key", "t0ken");
    let credential = basic("ann", "secret");
    let basic = ("authorization", credential.as_str());
    let push = |generation, policy| {
        (
            generation,
            Change::Project(Project {
                id: project,
                policy,
            }),
        )
    };
    let (generation, change) = push(100, Some(only(vec![token("header:x-key")])));
    rig.push(generation, change).await;
    assert_eq!(with(&rig, &web, &[]).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(with(&rig, &web, &[key]).await.status, StatusCode::OK);
    web.place.access = Some(Arc::new(only(vec![password()])));
    rig.push(101, Change::Upsert(web.place.clone())).await;
    assert_eq!(
        with(&rig, &web, &[key]).await.status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(
        with(&rig, &web, &[basic]).await.status,
        StatusCode::UNAUTHORIZED
    );
    let heard = with(&rig, &web, &[key, basic]).await;
    assert_eq!(heard.status, StatusCode::OK);
    assert_eq!(heard.told("x-hoody-edge-auth"), ["password"]);
    assert!(heard.told("x-key").is_empty() && heard.told("authorization").is_empty());
    // The project is cut off; its container says for itself that it is not.
    let off = Policy {
        enabled: false,
        ..Policy::open()
    };
    let (generation, change) = push(102, Some(off.clone()));
    rig.push(generation, change).await;
    assert_eq!(with(&rig, &web, &[basic]).await.status, StatusCode::OK);
    web.place.access = None;
    rig.push(103, Change::Upsert(web.place.clone())).await;
    let heard = with(&rig, &web, &[basic]).await;
    assert_eq!(
        (heard.status.as_u16(), heard.code().as_str()),
        (403, "access_denied")
    );
    // Rules of a whole table, and what is kept of them without control.
    let whole = Whole {
        aliases: Vec::new(),
        places: vec![web.place.clone()],
        projects: vec![Project {
            id: project,
            policy: Some(only(vec![password()])),
        }],
    };
    rig.push(104, Change::Whole(whole)).await;
    assert_eq!(with(&rig, &web, &[]).await.status, StatusCode::UNAUTHORIZED);
    rig.restart().await;
    assert_eq!(with(&rig, &web, &[]).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(with(&rig, &web, &[basic]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_group_reaches_its_programs_only() {
    let mut rig = Rig::start().await;
    let mut policy = only(vec![token("header:x-key")]);
    let named = |name| Program::parse(name).expect("a program");
    policy.groups[0].grants = [
        (named("terminal"), Reach::Only(vec![(1, 2)])),
        (named("notifications"), Reach::All),
        (named("http"), Reach::Only(vec![(8_000, 8_999)])),
    ]
    .into();
    policy.services.insert(named("files"), Rule::Allow);
    let web = gated(&mut rig, policy).await;
    for (door, status) in [
        ("terminal-1", 200),
        ("terminal-2", 200),
        ("terminal-3", 403),
        ("n-7", 200),
        ("http-8080", 200),
        ("http-9000", 403),
        ("https-8080", 403),
        ("cron-1", 403),
        ("files-1", 200),
    ] {
        let ask = Request::get("/")
            .header("host", web.host(door))
            .header("x-key", "t0ken");
        assert_eq!(rig.ask(ask).await.status.as_u16(), status, "{door}");
    }
    assert_eq!(
        rig.get(&web.host("files-1"), "/").await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn identity_is_the_proxys_to_tell() {
    let mut rig = Rig::start().await;
    let web = gated(&mut rig, of(Rule::Allow, vec![token("header:x-key")])).await;
    let claims = [
        ("x-hoody-edge-user", "root"),
        ("X-Hoody-Edge-Group", "admins"),
        ("x-hoody-edge-auth", "password"),
        ("X-HOODY-EDGE-USER", "root"),
    ];
    let heard = with(&rig, &web, &claims).await;
    assert_eq!(heard.status, StatusCode::OK);
    for name in [
        "x-hoody-edge-user",
        "x-hoody-edge-group",
        "x-hoody-edge-auth",
    ] {
        assert!(heard.told(name).is_empty(), "{name}");
    }
    let mut claims = claims.to_vec();
    claims.push(("x-key", "t0ken"));
    let heard = with(&rig, &web, &claims).await;
    assert_eq!(heard.told("x-hoody-edge-group"), ["friends"]);
    assert_eq!(heard.told("x-hoody-edge-auth"), ["token"]);
    assert!(heard.told("x-hoody-edge-user").is_empty());
}

#[tokio::test]
async fn what_is_shut_says_nothing_about_what_is_behind() {
    let mut rig = Rig::start().await;
    for state in [
        State::Running,
        State::Stopped,
        State::Starting,
        State::Failed,
    ] {
        let mut web = rig.container(state).await;
        rule(&mut rig, &mut web, Some(only(vec![password()]))).await;
        let heard = with(&rig, &web, &[]).await;
        assert_eq!(heard.code(), "authentication_required");
        let page = with(&rig, &web, &[("accept", "text/html")]).await;
        assert!(!page.text().contains(&web.place.name), "{}", page.text());
    }
}

/// A preflight carries no credential. It is answered for the container, which never sees it, and
/// opens nothing that a cookie or an address has opened.
#[tokio::test]
async fn a_page_of_another_origin_may_bring_a_credential() {
    let mut rig = Rig::start().await;
    let mut web = gated(&mut rig, only(vec![password()])).await;
    let asks = async |rig: &Rig, web: &Container, headers: &[(&str, &str)]| {
        let mut ask = Request::options("/run").header("host", web.host("terminal-1"));
        for (name, value) in headers {
            ask = ask.header(*name, *value);
        }
        rig.ask(ask).await
    };
    let preflight = [
        ("origin", "https://elsewhere.example"),
        ("access-control-request-method", "DELETE"),
        ("access-control-request-headers", "authorization,x-mine"),
    ];
    let heard = asks(&rig, &web, &preflight).await;
    assert_eq!(heard.status, StatusCode::NO_CONTENT);
    for (name, value) in [
        ("access-control-allow-origin", Some("*")),
        ("access-control-allow-methods", Some("DELETE")),
        ("access-control-allow-headers", Some("authorization,x-mine")),
        ("access-control-allow-credentials", None),
    ] {
        assert_eq!(heard.header(name), value, "{name}");
    }
    for part in [&preflight[..1], &preflight[1..], &[]] {
        assert_eq!(
            asks(&rig, &web, part).await.status,
            StatusCode::UNAUTHORIZED
        );
    }
    assert_eq!(web.seen().requests.load(Ordering::SeqCst), 0);
    // What is missing can be read there.
    let heard = with(&rig, &web, &preflight[..1]).await;
    assert_eq!(
        (
            heard.status.as_u16(),
            heard.header("access-control-allow-origin")
        ),
        (401, Some("*"))
    );
    // Where an address opens it, the container answers: it may rely on being asked.
    rule(
        &mut rig,
        &mut web,
        Some(only(vec![ip(&["127.0.0.0/8"]), password()])),
    )
    .await;
    assert_eq!(asks(&rig, &web, &preflight).await.status, StatusCode::OK);
    assert_eq!(web.seen().requests.load(Ordering::SeqCst), 1);
    rule(&mut rig, &mut web, Some(only(vec![ip(&["192.0.2.0/24"])]))).await;
    assert_eq!(
        asks(&rig, &web, &preflight).await.status,
        StatusCode::FORBIDDEN
    );
}

#[tokio::test]
async fn who_guesses_waits() {
    let mut rig = Rig::start().await;
    let web = gated(&mut rig, only(vec![password()])).await;
    let other = gated(&mut rig, only(vec![password()])).await;
    let right = basic("ann", "secret");
    let mut told = None;
    for guess in 0..50 {
        let credential = basic("ann", &guess.to_string());
        let heard = with(&rig, &web, &[("authorization", &credential)]).await;
        if heard.status == StatusCode::TOO_MANY_REQUESTS {
            told = heard.header("retry-after").map(str::to_owned);
            assert_eq!(heard.code(), "too_many_attempts");
            assert!(guess >= 10, "{guess}");
            break;
        }
        assert_eq!(heard.status, StatusCode::UNAUTHORIZED);
    }
    let seconds: u32 = told.expect("a bound").parse().expect("seconds");
    assert!((1..=60).contains(&seconds));
    // The right one is not heard either, or the answer would tell that it is right.
    let heard = with(&rig, &web, &[("authorization", &right)]).await;
    assert_eq!(heard.status, StatusCode::TOO_MANY_REQUESTS);
    // Who brings nothing is asked as before, and another container is another matter.
    assert_eq!(with(&rig, &web, &[]).await.status, StatusCode::UNAUTHORIZED);
    let heard = with(&rig, &other, &[("authorization", &right)]).await;
    assert_eq!(heard.status, StatusCode::OK);
    rig.comes_to("hoody_proxy_wrong_credentials_total", 10.0)
        .await;
    assert_eq!(web.seen().requests.load(Ordering::SeqCst), 0);
}

/// One right credential is no licence to guess at the other.
#[tokio::test]
async fn who_knows_one_of_two_guesses_no_more_than_others() {
    let mut rig = Rig::start().await;
    let mut policy = only(vec![]);
    policy.groups[0].ways = vec![vec![password(), token("header:x-key")]];
    let web = gated(&mut rig, policy).await;
    let known = basic("ann", "secret");
    let guess = async |key: &str| {
        let headers = [("authorization", known.as_str()), ("x-key", key)];
        with(&rig, &web, &headers).await.status.as_u16()
    };
    assert_eq!(guess("t0ken").await, 200);
    let mut answers = Vec::new();
    for number in 0..12 {
        answers.push(guess(&number.to_string()).await);
    }
    assert_eq!(answers, [&[401; 10][..], &[429; 2]].concat());
    assert_eq!(guess("t0ken").await, 429);
}

// ---- WebSockets and streams

async fn websocket(
    rig: &Rig,
    web: &Container,
    path: &str,
    headers: &[(&'static str, String)],
) -> Result<tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>, u16> {
    let url = format!("ws://{}{path}", web.host("terminal-1"));
    let mut ask = url.into_client_request().expect("a request");
    for (name, value) in headers {
        ask.headers_mut()
            .insert(*name, value.parse().expect("a value"));
    }
    match client_async(ask, rig.tcp().await).await {
        Ok((mut socket, _)) => {
            let hello = socket.next().await.expect("open").expect("a message");
            assert_eq!(hello, Message::from("hello"));
            Ok(socket)
        }
        Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => Err(answer.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

/// Whether it ends, rather than going on for ever.
pub async fn ends(socket: &mut tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>) -> bool {
    let end = tokio::time::timeout(Duration::from_secs(10), async {
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() {
                break;
            }
        }
    });
    end.await.is_ok()
}

pub async fn echoes(socket: &mut tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>) {
    socket.send("still".into()).await.expect("sent");
    let heard = socket.next().await.expect("open").expect("a message");
    assert_eq!(heard, Message::from("still"));
}

#[tokio::test]
async fn websockets_pass_the_same_gates() {
    let mut rig = Rig::start().await;
    let mut web = gated(&mut rig, only(vec![password(), token("header:x-key")])).await;
    assert_eq!(websocket(&rig, &web, "/ws", &[]).await.err(), Some(401));
    let header = [("authorization", basic("ann", "secret"))];
    echoes(&mut websocket(&rig, &web, "/ws", &header).await.expect("open")).await;
    // A browser can set no header: the parameter stands in for it, and goes no further.
    for (value, opens) in [
        ("t0ken", true),
        ("Basic%20YW5uOnNlY3JldA==", true),
        ("Basic+YW5uOnNlY3JldA%3D%3D", true),
        ("wrong", false),
        ("Basic%20YW5uOndyb25n", false),
    ] {
        let path = format!("/ws?cols=80&token={value}");
        match websocket(&rig, &web, &path, &[]).await {
            Ok(mut socket) => {
                assert!(opens, "{value}");
                echoes(&mut socket).await;
            }
            Err(status) => assert_eq!((status, opens), (401, false), "{value}"),
        }
    }
    rig.logged("/ws?cols=80&token=***").await;
    // For anything but a WebSocket or a page it is the app's.
    let heard = at(&rig, &web, "/?token=t0ken", &[]).await;
    assert_eq!(heard.status, StatusCode::UNAUTHORIZED);
    rule(
        &mut rig,
        &mut web,
        Some(only(vec![jwt(Algorithm::HS256, SECRET, json!({}))])),
    )
    .await;
    let good = signed(SECRET.as_bytes(), &json!({ "alg": "HS256" }), &json!({}));
    let path = format!("/ws?token={good}");
    echoes(&mut websocket(&rig, &web, &path, &[]).await.expect("open")).await;
}

#[tokio::test]
async fn a_changed_rule_ends_what_it_forbids_and_nothing_else() {
    let mut rig = Rig::start().await;
    let mut web = gated(&mut rig, only(vec![password(), token("header:x-key")])).await;
    let mut by_password = websocket(
        &rig,
        &web,
        "/ws",
        &[("authorization", basic("ann", "secret"))],
    )
    .await
    .expect("open");
    let mut by_token = websocket(&rig, &web, "/ws", &[("x-key", "t0ken".into())])
        .await
        .expect("open");
    // A change that says the same ends nothing.
    let policy = only(vec![password(), token("header:x-key")]);
    rule(&mut rig, &mut web, Some(policy)).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    echoes(&mut by_password).await;
    rule(&mut rig, &mut web, Some(only(vec![token("header:x-key")]))).await;
    assert!(ends(&mut by_password).await);
    echoes(&mut by_token).await;
    rule(
        &mut rig,
        &mut web,
        Some(Policy {
            enabled: false,
            ..Policy::open()
        }),
    )
    .await;
    assert!(ends(&mut by_token).await);
    let lines = || {
        rig.log()
            .into_iter()
            .filter(|line| line["refusal"] == "access_denied" && line["websocket"] == true)
            .count()
    };
    eventually(|| (lines() == 2).then_some(())).await;
    rig.comes_to("hoody_proxy_cut_total", 2.0).await;
    rig.comes_to("hoody_proxy_websockets", 0.0).await;
}

#[tokio::test]
async fn first_rules_end_what_nobody_was_asked_for() {
    let mut rig = Rig::start().await;
    let mut web = rig.running().await;
    let neighbour = rig.running().await;
    let mut open = websocket(&rig, &web, "/ws", &[]).await.expect("open");
    let mut next_door = websocket(&rig, &neighbour, "/ws", &[]).await.expect("open");
    rule(&mut rig, &mut web, Some(only(vec![password()]))).await;
    assert!(ends(&mut open).await);
    echoes(&mut next_door).await;
    // And a project's.
    let project = Project {
        id: neighbour.place.project,
        policy: Some(only(vec![password()])),
    };
    rig.push(200, Change::Project(project)).await;
    assert!(ends(&mut next_door).await);
}

#[tokio::test]
async fn a_deleted_container_ends_its_connections() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    let mut open = websocket(&rig, &web, "/ws", &[]).await.expect("open");
    rig.push(200, Change::Remove(web.place.container)).await;
    assert!(ends(&mut open).await);
}

#[tokio::test]
async fn events_end_when_the_rules_do() {
    let mut rig = Rig::start().await;
    let mut web = gated(&mut rig, only(vec![token("header:x-key")])).await;
    let host = web.host("terminal-1");
    for h2 in [false, true] {
        rule(&mut rig, &mut web, Some(only(vec![token("header:x-key")]))).await;
        let ask = Request::get(if h2 {
            format!("https://{host}/events")
        } else {
            "/events".into()
        });
        let ask = if h2 { ask } else { ask.header("host", &host) };
        let ask = ask
            .header("x-key", "t0ken")
            .body(Full::new(Bytes::new()))
            .expect("a request");
        // On the same HTTP/2 connection, something that may go on.
        let mut sender = if h2 { Some(rig.h2(&host).await) } else { None };
        let mut answer = match &mut sender {
            Some(sender) => sender.send_request(ask).await.expect("an answer"),
            None => rig.send(ask).await,
        };
        let first = answer
            .body_mut()
            .frame()
            .await
            .expect("open")
            .expect("a part");
        assert_eq!(first.into_data().expect("data"), "data: 0\n\n");
        rule(&mut rig, &mut web, Some(only(vec![password()]))).await;
        let end = tokio::time::timeout(Duration::from_secs(10), answer.body_mut().frame()).await;
        let end = end.expect("it ends");
        assert!(end.is_none_or(|end| end.is_err()), "h2: {h2}");
        if let Some(mut sender) = sender {
            let ask = Request::get(format!("https://{host}/"))
                .header("authorization", basic("ann", "secret"))
                .body(Full::new(Bytes::new()))
                .expect("a request");
            let answer = sender
                .send_request(ask)
                .await
                .expect("the connection goes on");
            assert_eq!(answer.status(), StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn a_token_that_expires_takes_its_websocket_with_it() {
    let mut rig = Rig::start().await;
    let web = gated(
        &mut rig,
        only(vec![jwt(Algorithm::HS256, SECRET, json!({}))]),
    )
    .await;
    let now = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs();
    let bearer = |expires: u64| {
        let token = signed(
            SECRET.as_bytes(),
            &json!({ "alg": "HS256" }),
            &json!({ "exp": expires }),
        );
        [("authorization", format!("Bearer {token}"))]
    };
    // Within the leeway of clocks, and almost out of it.
    let mut short = websocket(&rig, &web, "/ws", &bearer(now - routes::jwt::LEEWAY + 3))
        .await
        .expect("open");
    let mut long = websocket(&rig, &web, "/ws", &bearer(now + 600))
        .await
        .expect("open");
    assert!(ends(&mut short).await);
    echoes(&mut long).await;
}

#[tokio::test]
async fn a_request_that_is_cut_off_early_is_refused() {
    let mut rig = Rig::start().await;
    let mut web = gated(&mut rig, only(vec![token("header:x-key")])).await;
    let ask = Request::get("/never")
        .header("host", web.host("terminal-1"))
        .header("x-key", "t0ken");
    let ask = ask.body(Full::new(Bytes::new())).expect("a request");
    let socket = rig.tcp().await;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(socket))
            .await
            .expect("a connection");
    tokio::spawn(connection);
    let answer = tokio::spawn(sender.send_request(ask));
    let requests = |web: &Container| web.seen().requests.load(Ordering::SeqCst);
    eventually(|| (requests(&web) == 1).then_some(())).await;
    rule(&mut rig, &mut web, Some(only(vec![password()]))).await;
    let answer = answer.await.expect("it ran").expect("an answer");
    let heard = Heard::from(answer).await;
    assert_eq!(
        (heard.status.as_u16(), heard.code().as_str()),
        (403, "access_denied")
    );
    // It was not tried again behind the new rule's back.
    assert_eq!(requests(&web), 1);
}

#[tokio::test]
async fn pooled_connections_do_not_cross_from_open_to_gated() {
    let mut rig = Rig::start().await;
    let mut web = rig.running().await;
    assert_eq!(with(&rig, &web, &[]).await.status, StatusCode::OK);
    rule(&mut rig, &mut web, Some(only(vec![token("header:x-key")]))).await;
    for _ in 0..3 {
        assert_eq!(
            with(&rig, &web, &[("x-key", "t0ken")]).await.status,
            StatusCode::OK
        );
    }
    // What was open before is gone after a while; what is gated is pooled and stays.
    tokio::time::sleep(Duration::from_millis(1_800)).await;
    for _ in 0..3 {
        assert_eq!(
            with(&rig, &web, &[("x-key", "t0ken")]).await.status,
            StatusCode::OK
        );
    }
    let connections = web.seen().connections.load(Ordering::SeqCst);
    assert!(connections <= 1 + rig.config.workers, "{connections}");
}
