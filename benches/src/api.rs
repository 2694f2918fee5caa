//! Just enough of a client to ask a node for containers and to reach their URLs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

/// How long anything may take before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a state that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(5);

#[derive(Deserialize)]
struct Profile {
    api_url: String,
    ca_cert: PathBuf,
    token: String,
}

/// A node.
pub struct Api {
    http: reqwest::Client,
    url: String,
    token: String,
    project: tokio::sync::OnceCell<(String, String)>,
}

/// A container and where it is reached.
#[derive(Debug, Clone)]
pub struct Container {
    pub id: String,
    project: String,
    server: String,
    /// `containers.<domain>` with the port, where it is not the usual one.
    below: String,
}

impl Container {
    /// The authority of one of its services.
    pub fn host(&self, service: &str) -> String {
        format!(
            "{}-{}-{service}-1.{}.{}",
            self.project, self.id, self.server, self.below
        )
    }
}

/// Names below `localhost` are this machine; all others are not resolved.
struct Here;

impl Resolve for Here {
    fn resolve(&self, name: Name) -> Resolving {
        let local = name.as_str().ends_with("localhost");
        Box::pin(async move {
            if !local {
                return Err("only nodes with a local domain are measured".into());
            }
            let here = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
            Ok(Box::new(std::iter::once(here)) as Addrs)
        })
    }
}

impl Api {
    pub fn open(profile: &Path) -> anyhow::Result<Api> {
        let text = std::fs::read_to_string(profile)
            .with_context(|| format!("no profile {}; run `make up` first", profile.display()))?;
        let profile: Profile = serde_json::from_str(&text)?;
        let authority = std::fs::read(&profile.ca_cert)?;
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&authority)?])
            .dns_resolver(Arc::new(Here))
            .timeout(PATIENCE)
            .build()?;
        let url = profile.api_url.trim_end_matches('/').to_owned();
        Ok(Api {
            http,
            url,
            token: profile.token,
            project: tokio::sync::OnceCell::new(),
        })
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let mut request = self
            .http
            .request(method.clone(), format!("{}{path}", self.url))
            .bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await?;
        let status = response.status();
        let mut body: Value = response.json().await?;
        if !status.is_success() {
            bail!("{method} {path}: {status} {}", body["message"]);
        }
        Ok(body["data"].take())
    }

    /// The project that measurements happen in, and this node.
    async fn place(&self) -> anyhow::Result<&(String, String)> {
        self.project
            .get_or_try_init(|| async {
                let body = json!({ "alias": "benchmarks" });
                let project = match self
                    .call(Method::POST, "/api/v1/projects/", Some(body))
                    .await
                {
                    Ok(project) => project,
                    Err(_) => self.call(Method::GET, "/api/v1/projects/", None).await?["projects"]
                        [0]
                    .take(),
                };
                let servers = self.call(Method::GET, "/api/v1/servers", None).await?;
                let text = |value: &Value| value.as_str().map(str::to_owned).context("an id");
                let server = &servers[0];
                let server = text(&server["server_id"]).or_else(|_| text(&server["id"]))?;
                Ok((text(&project["id"])?, server))
            })
            .await
    }

    /// Create a container and return at once.
    pub async fn create(&self, name: &str) -> anyhow::Result<Container> {
        let (project, server) = self.place().await?;
        let body = json!({ "server_id": server, "name": name, "hoody_kit": true, "bypass_prespawn": true });
        let path = format!("/api/v1/projects/{project}/containers");
        let made = self.call(Method::POST, &path, Some(body)).await?;
        self.placed(&made)
    }

    /// Create a container on a machine that was kept ready, and return at once. Whether there was one.
    pub async fn claim(&self, name: &str) -> anyhow::Result<(Container, bool)> {
        let (project, server) = self.place().await?;
        let body = json!({ "server_id": server, "name": name, "prespawn": true });
        let path = format!("/api/v1/projects/{project}/containers");
        let made = self.call(Method::POST, &path, Some(body)).await?;
        Ok((self.placed(&made)?, made["prespawn"] == true))
    }

    /// How the machines are that are kept ready.
    pub async fn kept_ready(&self) -> anyhow::Result<Value> {
        let tasks = self.call(Method::GET, "/api/v1/tasks", None).await?;
        Ok(tasks["prespawn"].clone())
    }

    fn placed(&self, made: &Value) -> anyhow::Result<Container> {
        let text = |key: &str| {
            made[key]
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("no {key}"))
        };
        let below = self
            .url
            .split_once("://api.")
            .map_or(self.url.as_str(), |(_, rest)| rest);
        Ok(Container {
            id: text("id")?,
            project: text("project_id")?,
            server: text("server_name")?,
            below: format!("containers.{below}"),
        })
    }

    /// Wait for the first 200 of the container's terminal.
    pub async fn answered(
        &self,
        container: &Container,
        since: Instant,
    ) -> anyhow::Result<Duration> {
        let url = format!(
            "https://{}/api/v1/terminal/health",
            container.host("terminal")
        );
        loop {
            let response = self.http.get(&url).send().await?;
            if response.status() == StatusCode::OK {
                return Ok(since.elapsed());
            }
            if since.elapsed() > PATIENCE {
                bail!("{url} still answers {}", response.status());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// `start`, `stop` and so on.
    pub async fn operate(&self, container: &Container, operation: &str) -> anyhow::Result<()> {
        let path = format!("/api/v1/containers/{}/{operation}", container.id);
        self.call(Method::POST, &path, None).await.map(drop)
    }

    /// Take a snapshot; its name.
    pub async fn snapshot(&self, container: &Container) -> anyhow::Result<String> {
        let path = format!("/api/v1/containers/{}/snapshots", container.id);
        let taken = self.call(Method::POST, &path, Some(json!({}))).await?;
        let name = taken["snapshot"]["name"].as_str();
        name.map(str::to_owned).context("no name")
    }

    /// Bring a snapshot back; returns when the disk is back.
    pub async fn restore(&self, container: &Container, name: &str) -> anyhow::Result<()> {
        let path = format!("/api/v1/containers/{}/snapshots/{name}", container.id);
        self.call(Method::PUT, &path, None).await.map(drop)
    }

    /// Delete a snapshot.
    pub async fn forget(&self, container: &Container, name: &str) -> anyhow::Result<()> {
        let path = format!("/api/v1/containers/{}/snapshots/{name}", container.id);
        self.call(Method::DELETE, &path, None).await.map(drop)
    }

    /// Make a container from another and return at once.
    pub async fn copy(&self, container: &Container) -> anyhow::Result<Container> {
        let path = format!("/api/v1/containers/{}/copy", container.id);
        let body = json!({ "target_project_id": container.project });
        let made = self.call(Method::POST, &path, Some(body)).await?;
        self.placed(&made)
    }

    /// Bring a copy to what its source is, and return at once.
    pub async fn sync(&self, copy: &Container) -> anyhow::Result<()> {
        let path = format!("/api/v1/containers/{}/sync", copy.id);
        self.call(Method::POST, &path, None).await.map(drop)
    }

    /// Wait until the container's status is this one.
    pub async fn reached(&self, container: &Container, status: &str) -> anyhow::Result<()> {
        let path = format!("/api/v1/containers/{}", container.id);
        let began = Instant::now();
        loop {
            let seen = self.call(Method::GET, &path, None).await?["status"].take();
            if seen == status {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                bail!("{} is {seen}, not {status}", container.id);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Delete the container and wait until it is gone.
    pub async fn delete(&self, container: &Container) -> anyhow::Result<()> {
        let path = format!("/api/v1/containers/{}", container.id);
        self.call(Method::DELETE, &path, None).await?;
        let began = Instant::now();
        while self
            .call(Method::GET, &path, None)
            .await
            .is_ok_and(|seen| seen["status"] != "deleted")
        {
            if began.elapsed() > PATIENCE {
                bail!("{} does not go away", container.id);
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// PUT bytes to a service of the container.
    pub async fn put(
        &self,
        container: &Container,
        service: &str,
        path: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<()> {
        let url = format!("https://{}{path}", container.host(service));
        self.http
            .put(url)
            .body(body)
            .send()
            .await?
            .error_for_status()?;
        Ok(())
    }
}
