//! A node that runs as processes of its own, as a user starts it, for tests on real containers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::Client;
use crate::contract::{self, Contract, Coverage, Reply};
use crate::rig::Answer;

/// How long a real machine may take for anything.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(50);

/// A running node.
pub struct Node {
    pub state: PathBuf,
    pub client: Client,
    domain: String,
    token: String,
    coverage: Coverage,
    project: tokio::sync::OnceCell<String>,
}

/// What `hoody up` left for clients.
#[derive(Deserialize)]
struct Profile {
    api_url: String,
    ca_cert: PathBuf,
    token: String,
}

/// A real container.
#[derive(Debug, Clone)]
pub struct Computer {
    pub id: String,
    pub project: String,
    pub server: String,
    domain: String,
}

impl Computer {
    /// The host of one of its services.
    pub fn host(&self, service: &str) -> String {
        let Computer {
            id,
            project,
            server,
            domain,
        } = self;
        format!("{project}-{id}-{service}-1.{server}.containers.{domain}")
    }

    /// The host of a port inside it.
    pub fn port(&self, scheme: &str, port: u16) -> String {
        let Computer {
            id,
            project,
            server,
            domain,
        } = self;
        format!("{project}-{id}-{scheme}-{port}.{server}.containers.{domain}")
    }
}

/// What there is of containers beside the API's view of them.
#[derive(Debug, PartialEq, Eq)]
pub struct Remains {
    pub directories: Vec<String>,
    pub mounts: Vec<String>,
    pub routes: Vec<String>,
}

impl Remains {
    /// Whether anything of this container is left.
    pub fn tell_of(&self, id: &str) -> bool {
        [&self.directories, &self.mounts, &self.routes]
            .into_iter()
            .flatten()
            .any(|name| name.contains(id))
    }
}

/// What a command in a container said.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    pub code: i64,
    pub stdout: String,
    pub stderr: String,
}

impl Node {
    /// The node whose state directory is in `HOODY_STATE`. The test is only run where there is one.
    pub fn running() -> Node {
        let state = std::env::var_os("HOODY_STATE").map(PathBuf::from);
        let state = state.expect("HOODY_STATE names the state directory of a running node");
        let profiles = std::env::var_os("HOODY_CONFIG").map(PathBuf::from);
        let profiles = profiles.expect("HOODY_CONFIG names the directory of its profile");
        Node::of(&state, &profiles.join("default.json"))
    }

    /// The node of this state directory, and the profile that `hoody up` wrote for it.
    pub fn of(state: &Path, profile: &Path) -> Node {
        let text = std::fs::read_to_string(profile).expect("`hoody up` leaves a profile");
        let profile: Profile = serde_json::from_str(&text).expect("a profile is JSON");
        let authority = profile
            .api_url
            .trim_start_matches("https://api.")
            .trim_end_matches('/');
        let (domain, port) = match authority.split_once(':') {
            Some((domain, port)) => (domain, port.parse().expect("a port")),
            None => (authority, 443),
        };
        let pem = std::fs::read(&profile.ca_cert).expect("the authority's certificate");
        Node {
            state: state.to_owned(),
            client: Client::new(SocketAddr::from(([127, 0, 0, 1], port)), &pem),
            domain: domain.to_owned(),
            token: profile.token,
            coverage: Coverage::of_this_build(),
            project: tokio::sync::OnceCell::new(),
        }
    }

    /// Send a request and judge the reply by the contract.
    pub async fn send(&self, namespace: &str, request: RequestBuilder) -> reqwest::Result<Answer> {
        let request = request.build()?;
        let method = request.method().as_str().to_owned();
        let path = crate::rig::path_and_query(request.url());
        let response = self.client.execute(request).await?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let bytes = response.bytes().await?.to_vec();
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
        if status < 500
            && let Err(violation) = Contract::get().observe(&self.coverage, namespace, &reply)
        {
            panic!("{violation}");
        }
        Ok(Answer {
            status,
            headers,
            bytes,
        })
    }

    /// A request to the API with the administrator's token.
    pub async fn api(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> reqwest::Result<Answer> {
        let host = format!("api.{}", self.domain);
        let mut request = self
            .client
            .request(method, &host, path)
            .bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        self.send("api", request).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.api(Method::GET, path, None)
            .await
            .expect("the API answers")
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.api(Method::POST, path, Some(body))
            .await
            .expect("the API answers")
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.api(Method::DELETE, path, None)
            .await
            .expect("the API answers")
    }

    /// The project that containers of tests are in.
    pub async fn project(&self) -> &str {
        self.project
            .get_or_init(|| async {
                let body = json!({ "alias": format!("e2e-{}", std::process::id()) });
                let made = self
                    .post("/api/v1/projects/", body)
                    .await
                    .expect(201)
                    .data();
                text(&made, "id")
            })
            .await
    }

    /// The id of the node.
    pub async fn server(&self) -> String {
        let servers = self.get("/api/v1/servers").await.expect(200).data();
        let server = &servers[0];
        server["server_id"]
            .as_str()
            .or(server["id"].as_str())
            .expect("a node has an id")
            .to_owned()
    }

    /// Ask for a container and return at once.
    pub async fn ask(&self, name: &str) -> Computer {
        let body = json!({ "server_id": self.server().await, "name": name, "hoody_kit": true });
        let path = format!("/api/v1/projects/{}/containers", self.project().await);
        let made = self.post(&path, body).await.expect(200).data();
        self.computer(&made)
    }

    /// The container that an API object describes.
    pub fn computer(&self, object: &Value) -> Computer {
        Computer {
            id: text(object, "id"),
            project: text(object, "project_id"),
            server: text(object, "server_name"),
            domain: self.domain.clone(),
        }
    }

    /// A container whose terminal answers.
    pub async fn create(&self, name: &str) -> Computer {
        let computer = self.ask(name).await;
        self.answers(&computer).await;
        computer
    }

    /// Wait until the container's terminal answers.
    pub async fn answers(&self, computer: &Computer) {
        self.until("its terminal answers", || async {
            let path = "/api/v1/terminal/health";
            self.kit(computer, "terminal", Method::GET, path, |request| request)
                .await
                .is_ok_and(|answer| answer.status == 200)
        })
        .await;
    }

    /// A request to a service.
    pub async fn kit(
        &self,
        computer: &Computer,
        service: &str,
        method: Method,
        path: &str,
        shape: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> reqwest::Result<Answer> {
        let request = self.client.request(method, &computer.host(service), path);
        self.send(contract::namespace(service), shape(request))
            .await
    }

    /// Run a command as a user of the container and wait for its end.
    pub async fn run_as(&self, computer: &Computer, user: &str, command: &str) -> Said {
        let path = format!("/api/v1/terminal/execute?ephemeral=true&user={user}");
        let body = json!({ "command": command, "wait": true, "timeout": 100 });
        let answer = self
            .kit(computer, "terminal", Method::POST, &path, |request| {
                request.json(&body)
            })
            .await
            .expect("the terminal answers")
            .expect(200)
            .json();
        Said {
            code: answer["exit_code"].as_i64().unwrap_or(-1),
            stdout: answer["stdout"].as_str().unwrap_or_default().to_owned(),
            stderr: answer["stderr"].as_str().unwrap_or_default().to_owned(),
        }
    }

    /// Run a command that must succeed as root; what it printed, without white space at the ends.
    pub async fn root(&self, computer: &Computer, command: &str) -> String {
        let said = self.run_as(computer, "root", command).await;
        assert_eq!(said.code, 0, "{command}: {said:?}");
        said.stdout.trim().to_owned()
    }

    /// The container's status; `None` where the API knows no such container.
    pub async fn status(&self, computer: &Computer) -> Option<String> {
        let answer = self
            .get(&format!("/api/v1/containers/{}", computer.id))
            .await;
        (answer.status == 200).then(|| text(&answer.data(), "status"))
    }

    /// Wait until the container has this status.
    pub async fn reached(&self, computer: &Computer, status: &str) {
        self.until(&format!("it is {status}"), || async {
            self.status(computer).await.as_deref() == Some(status)
        })
        .await;
    }

    /// `start`, `stop` and so on.
    pub async fn operate(&self, computer: &Computer, operation: &str) {
        let path = format!("/api/v1/containers/{}/{operation}", computer.id);
        self.post(&path, json!({})).await.expect(200);
    }

    /// Delete the container and wait until nothing of it is left in the API.
    pub async fn remove(&self, computer: &Computer) {
        self.delete(&format!("/api/v1/containers/{}", computer.id))
            .await
            .expect(200);
        self.gone(computer).await;
    }

    /// Wait until nothing of a deleted container is left in the API.
    pub async fn gone(&self, computer: &Computer) {
        self.until("it is gone", || async {
            self.status(computer)
                .await
                .is_none_or(|status| status == "deleted")
        })
        .await;
    }

    /// A URL as a user writes it.
    pub fn url(&self, host: &str, path: &str) -> String {
        match self.client.port() {
            443 => format!("https://{host}{path}"),
            port => format!("https://{host}:{port}{path}"),
        }
    }

    /// What there is of containers on the host: shared directories, mounts, routes.
    pub fn remains(&self) -> Remains {
        let below = self.state.join("containers");
        let mut directories: Vec<_> = std::fs::read_dir(&below)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        directories.sort();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let prefix = below.to_string_lossy().into_owned();
        let mut mounts: Vec<_> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .filter(|path| path.starts_with(&prefix))
            .map(str::to_owned)
            .collect();
        mounts.sort();
        let table =
            std::fs::read_to_string(self.state.join("proxy/table.json")).unwrap_or_default();
        let table: Value = serde_json::from_str(&table).unwrap_or_default();
        let mut routes: Vec<_> = table["places"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(id, _)| id.clone())
            .collect();
        routes.sort();
        Remains {
            directories,
            mounts,
            routes,
        }
    }

    /// SIGKILL one of the node's processes, as its pid file names it.
    pub async fn kill(&self, role: &str) {
        let path = self.state.join("run").join(format!("{role}.pid"));
        let pid = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let pid = pid
            .split_whitespace()
            .next()
            .and_then(|pid| pid.parse().ok());
        let pid = rustix::process::Pid::from_raw(pid.expect("a pid")).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it runs");
        self.until("the API answers again", || async {
            self.api(Method::GET, "/api/v1/users/auth/me", None)
                .await
                .is_ok_and(|answer| answer.status == 200)
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
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[track_caller]
fn text(object: &Value, key: &str) -> String {
    object[key]
        .as_str()
        .unwrap_or_else(|| panic!("no `{key}` in {object}"))
        .to_owned()
}
