//! What a gate adds to a request, and what the logs take of it: containers of one proxy, each with
//! a gate of its own or none, asked in turn.

use std::io::{BufRead, BufReader, Write};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::header;
use routes::access::{Carrier, Gate, Group, Password, Policy, Program, Reach, Rule};
use routes::jwt::{Algorithm, Jwt, Keys};
use routes::table::{Ack, Change, Update};

use super::client::{Client, Protocol, Sender};
use super::cost;
use super::ground::{Ground, SMALL, host};
use super::ours;
use super::rivals::Rival;
use super::saturation::{self, Ask};
use super::{Samples, Settings};

/// The thread that writes both logs.
const WRITER: &str = "access-log";

const SECRET: &str = "a secret of thirty-two bytes, or so";
/// Signed with it, for `ann`, until the year 2100.
const TOKEN: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbm4iLCJleHAiOjQxMDI0NDQ4MDB9.malStjwOOQuret3x6QpNSUt4VmErKMr4ZUFS-LsdvQo";
/// `ann:secret`.
const BASIC: &str = "Basic YW5uOnNlY3JldA==";

/// What stands before a container, and what a request brings to pass it.
struct Case {
    name: &'static str,
    gate: Option<Gate>,
    brings: Option<(&'static str, String)>,
}

fn cases() -> anyhow::Result<Vec<Case>> {
    let jwt = Jwt {
        algorithm: Algorithm::HS256,
        keys: Keys::read(Algorithm::HS256, SECRET)?,
        sources: vec![Carrier::authorization()],
        claims: Default::default(),
    };
    let password = || Gate::Password(Password::new("ann", "salt", "secret"));
    let case = |name, gate, brings| Case { name, gate, brings };
    let authorization = |value: &str| Some(("authorization", value.to_owned()));
    Ok(vec![
        case("open", None, None),
        case("ip", Some(Gate::Ip(vec!["127.0.0.0/8".parse()?])), None),
        case("password", Some(password()), authorization(BASIC)),
        // What it brings, the proxy says itself: see `sign_in`.
        case("cookie", Some(password()), None),
        case(
            "jwt",
            Some(Gate::Jwt(Box::new(jwt))),
            authorization(&format!("Bearer {TOKEN}")),
        ),
    ])
}

/// Nobody but who passes the gate.
fn policy(gate: Gate) -> anyhow::Result<Policy> {
    let all = Program::parse("*").context("every program has this name")?;
    Ok(Policy {
        default: Rule::Deny,
        groups: vec![Group {
            name: "friends".into(),
            ways: vec![vec![gate]],
            grants: [(all, Reach::All)].into(),
        }],
        ..Policy::open()
    })
}

/// Ask them all in turn, as often as there are rounds.
pub async fn ask(
    settings: &Settings,
    client: &Client,
    ground: &Ground,
    rival: &Rival,
) -> anyhow::Result<Vec<(&'static str, Samples)>> {
    let mut rows = Vec::new();
    for (number, mut case) in cases()?.into_iter().enumerate() {
        let route = 1 + number; // those that other questions ask for lie between
        if let Some(gate) = case.gate.take() {
            guard(ground, rival, 2 + number as u64, route, policy(gate)?)?;
        }
        if case.name == "cookie" {
            case.brings = Some(("cookie", sign_in(client, rival, &host(route)).await?));
        }
        rows.push((case, route, Samples::default()));
    }
    for _ in 0..settings.rounds {
        for (case, route, row) in &mut rows {
            let ask = Ask {
                host: host(*route),
                brings: case.brings.clone(),
            };
            let writer = cost::thread(rival.pid(), WRITER);
            let round =
                saturation::round_of(ground, rival, Protocol::TlsH1, settings.time(), &[ask])
                    .await?;
            let writer = cost::thread(rival.pid(), WRITER) - writer;
            row.add("cpu_us", round.cpu_us);
            row.add(
                "log_writer_us",
                writer.as_secs_f64() * 1e6 / round.requests as f64,
            );
        }
    }
    Ok(rows
        .into_iter()
        .map(|(case, _, row)| (case.name, row))
        .collect())
}

/// Put a policy before a route, as control does.
fn guard(
    ground: &Ground,
    rival: &Rival,
    generation: u64,
    route: usize,
    policy: Policy,
) -> anyhow::Result<()> {
    let mut place = ours::place(ground.upstream(SMALL), route)?;
    place.access = Some(std::sync::Arc::new(policy));
    let update = Update {
        generation,
        change: Change::Upsert(place),
    };
    let mut control = rival.control.as_ref().context("only ours has a feed")?;
    let mut line = serde_json::to_vec(&update)?;
    line.push(b'\n');
    control.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(control).read_line(&mut answer)?;
    let ack: Ack = serde_json::from_str(&answer).context("no answer of the feed")?;
    ensure!(ack.generation == generation, "the rules are not in effect");
    Ok(())
}

/// The cookie of somebody who came with a password in the address.
async fn sign_in(client: &Client, rival: &Rival, host: &str) -> anyhow::Result<String> {
    let Sender::H1(mut sender) = client.sender(rival, Protocol::TlsH1, host).await? else {
        anyhow::bail!("it was to speak HTTP/1.1");
    };
    let request = hyper::Request::get(format!("/?token={}", BASIC.replace(' ', "%20")))
        .header(header::HOST, host)
        .header(header::ACCEPT, "text/html")
        .body(Empty::<Bytes>::new().boxed())?;
    let answer = sender.send_request(request).await?;
    let cookie = answer.headers().get(header::SET_COOKIE);
    let cookie = cookie.with_context(|| format!("no cookie with {}", answer.status()))?;
    let pair = cookie.to_str()?.split(';').next().unwrap_or_default();
    Ok(pair.to_owned())
}
