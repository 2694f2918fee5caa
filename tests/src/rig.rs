//! A node in one process: control on the fake runtime, the proxy, and the kit services, on ports
//! that the system chose. Dropping it ends it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use certs::Holdings;
use control::certificates::Told;
use control::runtime::fake::Fake;
use reqwest::{Method, RequestBuilder};
use routes::table::KIT_SOCKET;
use routes::{Id, Zone};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::{WebSocketStream, tungstenite};

use crate::client::Client;
use crate::contract::{self, Contract, Coverage, Reply};

/// The domain of every rig.
pub const DOMAIN: &str = "hoody.localhost";
/// The node's label in host names.
pub const NODE: &str = "here";
/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running node and an administrator's token.
pub struct Rig {
    pub client: Client,
    pub fake: Fake,
    pub state: tempfile::TempDir,
    pub username: String,
    pub password: String,
    /// An `hdy_` token of the administrator.
    pub token: String,
    coverage: Coverage,
    project: tokio::sync::OnceCell<Id>,
    proxy: Option<proxy::Proxy>,
    stop: Option<oneshot::Sender<()>>,
}

/// A reply, already judged by the contract.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub bytes: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or(Value::Null)
    }

    /// What an enveloped reply carries.
    pub fn data(&self) -> Value {
        self.json()["data"].take()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// Panic with the body unless the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

/// A container of a rig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub id: Id,
    pub project: Id,
}

impl Container {
    /// `{P}-{C}-{service}-{index}.{node}.containers.{domain}`.
    pub fn host(&self, service: &str, index: u32) -> String {
        let Container { id, project } = self;
        format!("{project}-{id}-{service}-{index}.{NODE}.containers.{DOMAIN}")
    }
}

/// What the authority has, as control tells it.
fn told(local: certs::Local) -> control::certificates::Certificates {
    let millis = |time: std::time::SystemTime| {
        let since = time.duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis() as i64)
    };
    control::certificates::Certificates::new(move || {
        let told = local.holdings().into_iter().map(|it| Told {
            names: it.names,
            class: it.class.as_str().to_owned(),
            mode: it.mode.to_owned(),
            ends: it.ends.map(millis),
            renews: it.renews.map(millis),
            error: it.error,
        });
        Ok(told.collect())
    })
}

impl Rig {
    /// Start a node.
    pub async fn start() -> Rig {
        let state = tempfile::Builder::new()
            .prefix("rig")
            .tempdir()
            .expect("a temporary directory");
        let homes = state.path().join("homes");
        let fake = Fake::new(state.path().join("containers"), serve_kit(homes));
        Rig::start_on(state, fake).await
    }

    async fn start_on(state: tempfile::TempDir, fake: Fake) -> Rig {
        let administrator = control::first_run(state.path())
            .await
            .expect("an administrator");
        let token = control::mint_token(state.path(), "rig")
            .await
            .expect("a token");
        let clock = Arc::new(certs::SystemClock);
        let local = certs::Local::open_or_create(&state.path().join("pki"), DOMAIN, NODE, clock)
            .expect("a private authority");

        let zone = Zone::new(DOMAIN, NODE).expect("a zone");
        let mut config = proxy::Config::new(zone, state.path());
        config.http = vec!["127.0.0.1:0".parse().expect("an address")];
        config.https = vec!["127.0.0.1:0".parse().expect("an address")];
        config.workers = 1;
        config.limits.tell = Duration::from_millis(50);
        let proxy = proxy::Proxy::start(config, local.resolver()).expect("the proxy starts");
        let client = Client::new(proxy.bound().https[0], local.ca_pem().as_bytes());

        let mut config = control::Config::new(state.path(), NODE, DOMAIN);
        config.https_port = client.port();
        config.certificates = Some(told(local));
        config.pace.grace = Duration::from_millis(500);
        config.pace.idle_minute = Duration::from_millis(500);
        let runtime: Arc<dyn control::runtime::Runtime> = Arc::new(fake.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let shutdown = async move { drop(stopped.await) };
            control::serve(config, runtime, shutdown)
                .await
                .expect("control serves");
        });
        let rig = Rig {
            client,
            fake,
            state,
            username: administrator.username,
            password: administrator.password.expect("made just now"),
            token,
            coverage: Coverage::of_this_build(),
            project: tokio::sync::OnceCell::new(),
            proxy: Some(proxy),
            stop: Some(stop),
        };
        rig.until("the API answers", || async {
            rig.get("/api/v1/users/auth/me").await.status == 200
        })
        .await;
        rig
    }

    /// Send a request and judge the reply by the contract of `namespace`.
    pub async fn send(&self, namespace: &str, request: RequestBuilder) -> Answer {
        let request = request.build().expect("a valid request");
        let method = request.method().as_str().to_owned();
        let path = path_and_query(request.url());
        let response = self
            .client
            .execute(request)
            .await
            .expect("the node answers");
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let bytes = response.bytes().await.expect("a whole reply").to_vec();
        let content_type = headers
            .get("content-type")
            .and_then(|value| value.to_str().ok());
        let reply = Reply {
            method: &method,
            path: &path,
            status,
            content_type,
            body: &bytes,
        };
        if !is_by_proxy(&reply) {
            self.judge(namespace, &reply);
        }
        Answer {
            status,
            headers,
            bytes,
        }
    }

    /// Judge a reply by the contract of `namespace`.
    pub fn judge(&self, namespace: &str, reply: &Reply<'_>) {
        if let Err(violation) = Contract::get().observe(&self.coverage, namespace, reply) {
            panic!("{violation}");
        }
    }

    /// A request to the API with the administrator's token.
    pub fn api(&self, method: Method, path: &str) -> RequestBuilder {
        self.open_api(method, path).bearer_auth(&self.token)
    }

    /// A request to the API from nobody.
    pub fn open_api(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, &format!("api.{DOMAIN}"), path)
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("api", self.api(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("api", self.api(Method::POST, path).json(&body))
            .await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send("api", self.api(Method::PUT, path).json(&body))
            .await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send("api", self.api(Method::PATCH, path).json(&body))
            .await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send("api", self.api(Method::DELETE, path)).await
    }

    /// A request to a service of a container.
    pub async fn kit(
        &self,
        container: &Container,
        service: &str,
        method: Method,
        path: &str,
        shape: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Answer {
        let request = self
            .client
            .request(method, &container.host(service, 1), path);
        self.send(contract::namespace(service), shape(request))
            .await
    }

    /// A WebSocket to a service of a container; the switch of protocols is judged like an answer.
    pub async fn websocket(
        &self,
        container: &Container,
        service: &str,
        path: &str,
        subprotocol: Option<&str>,
    ) -> Result<WebSocketStream<TlsStream<TcpStream>>, tungstenite::Error> {
        let connected = self
            .client
            .websocket(&container.host(service, 1), path, subprotocol)
            .await;
        let judge = |status, content_type: Option<&str>, body: &[u8]| {
            let reply = Reply {
                method: "GET",
                path,
                status,
                content_type,
                body,
            };
            if !is_by_proxy(&reply) {
                self.judge(contract::namespace(service), &reply);
            }
        };
        match &connected {
            Ok(_) => judge(101, None, b""),
            Err(tungstenite::Error::Http(refused)) => {
                let content_type = refused
                    .headers()
                    .get("content-type")
                    .and_then(|value| value.to_str().ok());
                let body = refused.body().as_deref().unwrap_or_default();
                judge(refused.status().as_u16(), content_type, body);
            }
            Err(_) => {}
        }
        connected
    }

    /// The project that this rig's containers are in.
    pub async fn project(&self) -> Id {
        *self
            .project
            .get_or_init(|| async {
                let made = self
                    .post("/api/v1/projects/", json!({ "alias": "demo" }))
                    .await
                    .expect(201);
                id_of(&made.data())
            })
            .await
    }

    /// The id of this node.
    pub async fn server(&self) -> String {
        let servers = self.get("/api/v1/servers").await.expect(200).data();
        let server = &servers[0];
        let id = server["server_id"].as_str().or(server["id"].as_str());
        id.expect("a node has an id").to_owned()
    }

    /// Ask for a container and return at once.
    pub async fn ask(&self, name: &str) -> Container {
        let project = self.project().await;
        let body = json!({ "server_id": self.server().await, "name": name, "hoody_kit": true });
        let path = format!("/api/v1/projects/{project}/containers");
        let made = self.post(&path, body).await.expect(200).data();
        assert_eq!(made["status"], "creating", "{made}");
        Container {
            id: id_of(&made),
            project,
        }
    }

    /// A container whose kit answers.
    pub async fn create(&self, name: &str) -> Container {
        let container = self.ask(name).await;
        self.reached(&container, "running").await;
        self.until("its kit answers", || async {
            let path = "/api/v1/terminal/health";
            self.kit(&container, "terminal", Method::GET, path, |request| request)
                .await
                .status
                == 200
        })
        .await;
        container
    }

    /// Have requests to a container that sleeps answered at once.
    pub async fn never_wake(&self, container: &Container) {
        let path = format!("/api/v1/containers/{}/proxy/settings", container.id);
        let request = self.api(Method::PATCH, &path).header("if-match", "file:v0");
        let request = request.json(&json!({ "wake": "off" }));
        self.send("api", request).await.expect(200);
    }

    /// Wait until the container's status is this one.
    pub async fn reached(&self, container: &Container, status: &str) {
        let path = format!("/api/v1/containers/{}", container.id);
        self.until(&format!("the container is {status}"), || async {
            self.get(&path).await.data()["status"] == status
        })
        .await;
    }

    /// Wait until something holds, or panic.
    pub async fn until<F>(&self, what: &str, holds: impl Fn() -> F)
    where
        F: Future<Output = bool>,
    {
        let began = Instant::now();
        while !holds().await {
            assert!(began.elapsed() < PATIENCE, "gave up waiting until {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// End the node and wait for its end.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        if let Some(proxy) = self.proxy.take() {
            proxy.stop().await;
        }
    }
}

/// Whether the proxy refused by itself: its answers are of no service.
fn is_by_proxy(reply: &Reply<'_>) -> bool {
    let body: Value = serde_json::from_slice(reply.body).unwrap_or_default();
    let code = body.get("code").and_then(Value::as_str);
    proxy::REFUSALS
        .iter()
        .any(|(status, name)| *status == reply.status && code == Some(name))
}

pub(crate) fn path_and_query(url: &reqwest::Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}

#[track_caller]
fn id_of(object: &Value) -> Id {
    let id = object["id"].as_str().and_then(|id| id.parse().ok());
    id.unwrap_or_else(|| panic!("no id in {object}"))
}

/// Serves the real kit, with a home of its own for each container.
fn serve_kit(homes: PathBuf) -> control::runtime::fake::Serve {
    Arc::new(move |id, directory| {
        let home = homes.join(id.to_string());
        std::fs::create_dir_all(&home).expect("a home");
        let listener = kitd::dispatch::bind(&directory.join(KIT_SOCKET)).expect("the kit's socket");
        let mut settings = kitd::Settings::process(home.clone());
        settings.power = Some(stand_in(&home));
        settings.runtime = script_runtime();
        let kit = kitd::Kit::new(settings);
        tokio::spawn(async move {
            let never = std::future::pending();
            if let Err(error) = kit.serve(listener, never).await {
                tracing::error!(%error, "a kit ended");
            }
        })
        .abort_handle()
    })
}

/// A stand-in for systemd-run(1), so that no test restarts the machine it runs on: it notes what it
/// is asked for in `.power/asked` of the container's home.
fn stand_in(home: &std::path::Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let directory = home.join(".power");
    std::fs::create_dir_all(&directory).expect("a directory");
    let program = directory.join("systemd-run");
    let asked = directory.join("asked");
    let script = format!("#!/bin/sh\necho \"$*\" >>'{}'\n", asked.display());
    std::fs::write(&program, script).expect("a script");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, mode).expect("it can be run");
    program
}

/// Where `hoody/setup/deno.sh` puts the runtime of scripts.
pub fn script_runtime() -> PathBuf {
    let cache = std::env::var("HOODY_CACHE").unwrap_or_else(|_| {
        let home = std::env::var("HOME").expect("a home");
        format!("{home}/.cache/hoody")
    });
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../hoody/setup/deno.sh");
    let found = std::process::Command::new(script)
        .args(["--cache", &format!("{cache}/tools"), "--print"])
        .output()
        .expect("the script runs");
    String::from_utf8(found.stdout)
        .expect("a path")
        .trim()
        .into()
}
