//! A control plane over a fake world, in this process.
#![allow(dead_code, reason = "each test takes what it needs")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use control::runtime::fake::Fake;
use control::{Config, Control, Runtime};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use routes::Id;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tower::ServiceExt;

/// What the world has of a node that outlives its control.
pub struct World {
    pub directory: TempDir,
    pub fake: Fake,
    pub password: String,
}

/// A node whose control runs until it is dropped or killed.
pub struct Node {
    pub control: Control,
    pub router: Router,
    pub fake: Fake,
    pub password: String,
    tasks: Vec<JoinHandle<()>>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(self.status.is_success(), "{} {:#}", self.status, self.body);
        assert_eq!(
            self.body["statusCode"],
            self.status.as_u16(),
            "{:#}",
            self.body
        );
        assert!(
            self.body["message"].is_string() && self.body.get("data").is_some(),
            "{:#}",
            self.body
        );
        self.body["data"].clone()
    }

    /// The message of a refusal with this status, in the shape of the contract.
    #[track_caller]
    pub fn refused(self, status: u16) -> String {
        assert_eq!(self.status.as_u16(), status, "{:#}", self.body);
        assert_eq!(self.body["statusCode"], status, "{:#}", self.body);
        assert!(self.body["error"].is_string(), "{:#}", self.body);
        self.body["message"]
            .as_str()
            .expect("refusals have a message")
            .to_owned()
    }

    /// The parameter that a 400 complains of.
    #[track_caller]
    pub fn wrong_field(self) -> String {
        assert_eq!(self.status, StatusCode::BAD_REQUEST, "{:#}", self.body);
        assert!(
            self.body["data"][0]["message"].is_string(),
            "{:#}",
            self.body
        );
        self.body["data"][0]["instancePath"]
            .as_str()
            .expect("the field has a path")
            .to_owned()
    }
}

impl World {
    pub async fn new() -> World {
        let directory = tempfile::tempdir().unwrap();
        let fake = Fake::silent(directory.path().join("containers"));
        let first = control::first_run(directory.path()).await.unwrap();
        World {
            directory,
            fake,
            password: first.password.unwrap(),
        }
    }

    pub fn config(&self) -> Config {
        let mut config = Config::new(self.directory.path(), "node-1", "hoody.localhost");
        let pace = &mut config.pace;
        pace.sweep = Duration::from_millis(300);
        pace.grace = Duration::from_millis(200);
        pace.ready_poll = Duration::from_millis(5);
        pace.ready_patience = Duration::from_millis(400);
        pace.backoff_least = Duration::from_millis(5);
        pace.backoff_most = Duration::from_millis(20);
        pace.refill_pause = Duration::from_millis(5);
        pace.adopt_pause = Duration::from_millis(5);
        config
    }

    pub async fn start(&self) -> Node {
        self.start_with(self.config()).await
    }

    pub async fn start_with(&self, config: Config) -> Node {
        self.start_on(config, Arc::new(self.fake.clone())).await
    }

    pub async fn start_on(&self, config: Config, runtime: Arc<dyn Runtime>) -> Node {
        let control = Control::open(config, runtime).await.unwrap();
        let feeding = control.clone();
        let tasks = vec![
            tokio::spawn(control::reconcile::run(control.clone())),
            tokio::spawn(control::prespawn::run(control.clone())),
            tokio::spawn(async move {
                let feed = feeding.config.feed();
                feeding.publisher.run(&feed, |_| {}).await;
            }),
        ];
        let router = control::router(&control);
        Node {
            control,
            router,
            fake: self.fake.clone(),
            password: self.password.clone(),
            tasks,
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// One request, to be sent.
pub struct Ask {
    node: Router,
    request: http::request::Builder,
    body: Option<Value>,
}

impl Ask {
    pub fn bearer(self, token: &str) -> Ask {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub fn header(mut self, name: &str, value: &str) -> Ask {
        self.request = self.request.header(name, value);
        self
    }

    pub fn from(self, address: &str) -> Ask {
        self.header("x-hoody-edge-client", address)
    }

    pub fn realm(self, realm: Id) -> Ask {
        self.header("x-hoody-edge-realm", &realm.to_string())
    }

    pub fn json(mut self, body: Value) -> Ask {
        self.body = Some(body);
        self
    }

    pub async fn send(self) -> Answer {
        let body = self
            .body
            .map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let request = self
            .request
            .header("content-type", "application/json")
            .body(body)
            .unwrap();
        let response = self.node.oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::String(text));
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }
}

impl Node {
    pub fn ask(&self, method: &str, path: &str) -> Ask {
        Ask {
            node: self.router.clone(),
            request: Request::builder().method(method).uri(path),
            body: None,
        }
    }

    pub async fn login(&self) -> Value {
        self.ask("POST", "/api/v1/users/auth/login")
            .json(json!({ "username": "admin", "password": self.password }))
            .send()
            .await
            .ok()
    }

    /// A logged-in administrator.
    pub async fn admin(&self) -> Me<'_> {
        let token = self.login().await["token"].as_str().unwrap().to_owned();
        Me {
            node: self,
            token,
            realm: None,
        }
    }

    pub fn with<'a>(&'a self, token: &str) -> Me<'a> {
        Me {
            node: self,
            token: token.to_owned(),
            realm: None,
        }
    }
}

/// Somebody with a token.
#[derive(Clone)]
pub struct Me<'a> {
    pub node: &'a Node,
    pub token: String,
    pub realm: Option<Id>,
}

impl Me<'_> {
    pub fn within(&self, realm: Id) -> Self {
        Me {
            realm: Some(realm),
            ..self.clone()
        }
    }

    pub fn ask(&self, method: &str, path: &str) -> Ask {
        let ask = self.node.ask(method, path).bearer(&self.token);
        match self.realm {
            Some(realm) => ask.realm(realm),
            None => ask,
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path).send().await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask("POST", path).json(body).send().await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.ask("PUT", path).json(body).send().await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path).send().await
    }

    pub async fn project(&self, alias: &str) -> String {
        self.post("/api/v1/projects/", json!({ "alias": alias }))
            .await
            .ok()["id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub async fn server(&self) -> String {
        self.get("/api/v1/servers").await.ok()[0]["server_id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub async fn container(&self, project: &str, name: &str) -> String {
        let server = self.server().await;
        let made = self
            .post(
                &format!("/api/v1/projects/{project}/containers"),
                json!({ "server_id": server, "name": name }),
            )
            .await
            .ok();
        assert_eq!(made["status"], "creating");
        made["id"].as_str().unwrap().to_owned()
    }

    pub async fn manage(&self, container: &str, operation: &str) -> Answer {
        self.ask(
            "POST",
            &format!("/api/v1/containers/{container}/{operation}"),
        )
        .send()
        .await
    }

    /// Poll until the container has the status.
    #[track_caller]
    pub fn until<'b>(
        &'b self,
        container: &'b str,
        status: &'b str,
    ) -> impl Future<Output = Value> + 'b {
        let place = std::panic::Location::caller();
        async move {
            let mut last = Value::Null;
            for _ in 0..1000 {
                let answer = self.get(&format!("/api/v1/containers/{container}")).await;
                if answer.status == StatusCode::NOT_FOUND && status == "gone" {
                    return Value::Null;
                }
                last = answer.body;
                if last["data"]["status"] == status {
                    return last["data"].clone();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("{place}: container {container} never was {status}: {last:#}")
        }
    }
}
