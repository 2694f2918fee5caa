//! How long from a change at the API until the proxy acts on it, in tables of several sizes?
//!
//! Control and the proxy as a node runs them, without a runtime of containers: control's API with
//! its database on disk, the feed between them, and the proxy's listener. An alias is switched off
//! and on again through the API, while its name is asked for over one connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use control::Control;
use control::publish::Rules;
use control::runtime::fake::Fake;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use routes::table::{Owners, Place, State};
use routes::{Id, Zone};
use serde_json::{Map, Value, json};
use tower::ServiceExt;

use crate::figures::summary;

const DOMAIN: &str = "hoody.localhost";
const NODE: &str = "bench";
/// A change that is not seen by then is lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// Measure `changes` changes in a table of each of these sizes.
pub async fn ask(sizes: &[usize], changes: usize) -> anyhow::Result<Value> {
    let mut result = Map::new();
    for &size in sizes {
        result.insert(size.to_string(), one(size, changes).await?);
    }
    Ok(json!({ "changes": changes, "debug": cfg!(debug_assertions), "routes": result }))
}

/// A stopped computer: the proxy answers for it by itself.
fn place(container: Id, project: Id) -> Place {
    Place {
        container,
        project,
        name: "web".into(),
        state: State::Stopped,
        incarnation: 1_795_318_200_123,
        directory: format!("/var/lib/hoody/containers/{container}").into(),
        owners: Owners {
            base: 1_000_000,
            count: 65_536,
        },
        address: None,
        embedding: Default::default(),
        sleep: Default::default(),
        access: None,
        links: None,
        hooks: None,
    }
}

struct Api {
    control: Control,
    router: axum::Router,
    token: String,
}

impl Api {
    async fn ask(&self, method: Method, path: &str, body: Value) -> anyhow::Result<Value> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .body(Full::<Bytes>::from(body.to_string()))?;
        let answer = self.router.clone().oneshot(request).await?;
        let status = answer.status();
        let bytes = answer.into_body().collect().await?.to_bytes();
        let mut body: Value = serde_json::from_slice(&bytes)?;
        ensure!(status.is_success(), "{path}: {body}");
        Ok(body["data"].take())
    }
}

async fn one(size: usize, changes: usize) -> anyhow::Result<Value> {
    let state = tempfile::tempdir()?;
    control::first_run(state.path()).await?;
    let token = control::mint_token(state.path(), "bench").await?;
    let mut config = proxy::Config::new(Zone::new(DOMAIN, NODE)?, state.path());
    config.http = vec!["127.0.0.1:0".parse()?];
    config.https = Vec::new();
    let feed = config.feed.clone();
    let clock = Arc::new(certs::SystemClock);
    let certs = certs::Local::open_or_create(&state.path().join("pki"), DOMAIN, NODE, clock)?;
    let proxy = proxy::Proxy::start(config, certs.resolver())?;
    let http = proxy.bound().http[0];

    let fake = Fake::silent(state.path().join("containers"));
    let config = control::Config::new(state.path(), NODE, DOMAIN);
    let control = Control::open(config, Arc::new(fake)).await?;
    let router = control::api(&control).router();
    let api = Arc::new(Api {
        control,
        router,
        token,
    });
    let project = api
        .ask(Method::POST, "/api/v1/projects/", json!({ "alias": "p" }))
        .await?;
    let project: Id = project["id"].as_str().context("an id")?.parse()?;
    let path = format!("/api/v1/projects/{project}/containers");
    let made = api
        .ask(Method::POST, &path, json!({ "server_id": NODE }))
        .await?;
    let container: Id = made["id"].as_str().context("an id")?.parse()?;
    let others = (1..size).map(|number| {
        let mut id = Id([0; 12]);
        id.0[..8].copy_from_slice(
            &(number as u64)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .to_be_bytes(),
        );
        id.0[8..].copy_from_slice(&(number as u32).to_be_bytes());
        place(id, project)
    });
    let places = others.chain([place(container, project)]).collect();
    let publisher = &api.control.publisher;
    publisher.open(places, Rules::default());

    let began = Instant::now();
    let feeding = tokio::spawn({
        let api = api.clone();
        async move { api.control.publisher.run(&feed, |_| {}).await }
    });
    let body =
        json!({ "container_id": container.to_string(), "alias": "measured", "program": "files" });
    let alias = api.ask(Method::POST, "/api/v1/proxy/aliases", body).await?;
    let path = format!(
        "/api/v1/proxy/aliases/{}/state",
        alias["id"].as_str().context("an id")?
    );
    let stream = tokio::net::TcpStream::connect(http).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut visit = async || -> anyhow::Result<bool> {
        let request = Request::get("/")
            .header("host", format!("measured.{NODE}.containers.{DOMAIN}"))
            .body(Full::<Bytes>::default())?;
        let answer = sender.send_request(request).await?;
        let found = answer.status() != StatusCode::NOT_FOUND;
        answer.into_body().collect().await?;
        sender.ready().await?;
        Ok(found)
    };
    while !visit().await? {
        ensure!(began.elapsed() < PATIENCE * 6, "the table never arrived");
    }
    let whole = began.elapsed();

    let (mut effects, mut answers, mut visits) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..changes {
        let enabled = number % 2 == 1;
        let began = Instant::now();
        let call = tokio::spawn({
            let (api, path) = (api.clone(), path.clone());
            async move {
                api.ask(Method::PATCH, &path, json!({ "enabled": enabled }))
                    .await
                    .map(|_| began.elapsed())
            }
        });
        loop {
            let asked = Instant::now();
            let found = visit().await?;
            visits.push(asked.elapsed());
            if found == enabled {
                break;
            }
            ensure!(began.elapsed() < PATIENCE, "a change never arrived");
        }
        effects.push(began.elapsed());
        answers.push(call.await??);
    }
    feeding.abort();
    println!("{size} routes: the whole table after {whole:?}");
    let result = json!({
        "whole_table_ms": whole.as_millis() as u64,
        "effect": summary(&format!("{size} routes: in effect after"), &effects),
        "answer": summary(&format!("{size} routes: answered after"), &answers),
        "visit": summary(&format!("{size} routes: one visit"), &visits),
    });
    proxy.stop().await;
    Ok(result)
}
