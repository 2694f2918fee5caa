//! Asking a node: the API with a token, the kits of its containers without.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::ArgMatches;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Body, Method, Response, StatusCode, Url};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio_util::io::ReaderStream;

use super::names::Container;
use super::profile::{self, Profile};
use super::request::{Payload, Request};

/// A node that does not answer a connection within this time is not there.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest failure that is read for its message.
const MAX_FAILURE: usize = 1 << 20;

/// Somebody to ask.
pub enum Place {
    Api,
    /// A service in a container.
    Kit {
        container: Container,
        service: String,
        index: u32,
    },
}

/// A node, as a profile describes it.
pub struct Node {
    http: reqwest::Client,
    api: Url,
    /// Changes when its access token is renewed.
    profile: Mutex<Profile>,
    path: PathBuf,
}

/// An answer that is no success.
#[derive(Debug, thiserror::Error)]
#[error("{message} ({})", .status.as_u16())]
pub struct Refused {
    pub status: StatusCode,
    pub message: String,
}

impl Node {
    /// The node that the options of a command name.
    pub fn open(matches: &ArgMatches) -> anyhow::Result<Node> {
        let path = profile_path(matches)?;
        let mut profile = Profile::read(&path)?.unwrap_or_default();
        let text = |name: &str| {
            matches
                .get_one::<String>(name)
                .filter(|text| !text.is_empty())
                .cloned()
        };
        if let Some(url) = text("api-url")
            && url != profile.api_url
        {
            // what one node gave out is not for another
            profile = Profile {
                api_url: url,
                ..Profile::default()
            };
        }
        if let Some(token) = text("token") {
            profile.token = Some(token);
            profile.refresh_token = None;
        }
        if let Some(file) = text("ca-cert") {
            profile.ca_cert = Some(file.into());
        }
        if profile.api_url.is_empty() {
            bail!(
                "no node to ask: there is no profile {}; start one with `hoody up`, or name one with \
                 `hoody login --api-url https://api.example.com`",
                path.display()
            );
        }
        let api = Url::parse(&profile.api_url)
            .ok()
            .filter(|url| matches!(url.scheme(), "https" | "http") && url.host_str().is_some())
            .with_context(|| format!("the API's address is no URL: {}", profile.api_url))?;
        let is_local = api.host_str().is_some_and(is_local);
        let http = client(profile.ca_cert.as_deref(), is_local)?;
        Ok(Node {
            http,
            api,
            profile: Mutex::new(profile),
            path,
        })
    }

    /// Ask, and return the answer if it is a success.
    pub async fn send(&self, place: &Place, request: Request) -> anyhow::Result<Response> {
        let url = self.url(place, &request)?;
        let response = match place {
            Place::Kit { .. } => self.once(&url, &request, None).await?,
            Place::Api => {
                let token = self.profile.lock().await.token.clone();
                let response = self.once(&url, &request, token.as_deref()).await?;
                if response.status() == StatusCode::UNAUTHORIZED
                    && let Some(token) = self.renew(token).await?
                {
                    self.once(&url, &request, Some(&token)).await?
                } else {
                    response
                }
            }
        };
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refusal(place, response).await)
    }

    /// Ask the API, and return the data of its answer.
    pub async fn api(&self, request: Request) -> anyhow::Result<Value> {
        let response = self.send(&Place::Api, request).await?;
        Ok(unwrapped(
            response
                .json()
                .await
                .context("the API's answer is not JSON")?,
        ))
    }

    /// Ask a kit, and return its answer.
    pub async fn kit(&self, place: &Place, request: Request) -> anyhow::Result<Value> {
        let response = self.send(place, request).await?;
        response
            .json()
            .await
            .context("the kit's answer is not JSON")
    }

    /// Where a request goes: the same scheme and port for the API and for kits.
    fn url(&self, place: &Place, request: &Request) -> anyhow::Result<Url> {
        let mut url = self.api.clone();
        if let Place::Kit {
            container,
            service,
            index,
        } = place
        {
            let host = self
                .api
                .host_str()
                .expect("checked when the node was opened");
            let host = format!(
                "{}-{}-{service}-{index}.{}.{}",
                container.project,
                container.id,
                container.server,
                containers_domain(host)
            );
            url.set_host(Some(&host))
                .map_err(|error| anyhow!("{host} is no host: {error}"))?;
        }
        let target = request.target();
        let (path, query) = target
            .split_once('?')
            .map_or((&*target, None), |(path, query)| (path, Some(query)));
        url.set_path(path);
        url.set_query(query);
        Ok(url)
    }

    async fn once(
        &self,
        url: &Url,
        request: &Request,
        token: Option<&str>,
    ) -> anyhow::Result<Response> {
        let method =
            Method::from_bytes(request.method.as_bytes()).context("the method is no method")?;
        let mut builder = self.http.request(method, url.clone());
        if let Some(token) = token {
            builder = builder.bearer_auth(token);
        }
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        builder = match &request.payload {
            Payload::None => builder,
            Payload::Json(members) => builder.json(members),
            Payload::File { content_type, path } => {
                let file = tokio::fs::File::open(path).await;
                let file = file.with_context(|| format!("could not open {}", path.display()))?;
                let length = file
                    .metadata()
                    .await
                    .with_context(|| format!("could not look at {}", path.display()))?;
                if length.is_file() {
                    builder = builder.header(reqwest::header::CONTENT_LENGTH, length.len());
                }
                builder
                    .header(CONTENT_TYPE, content_type)
                    .body(Body::wrap_stream(ReaderStream::new(file)))
            }
            Payload::Stdin { content_type } => {
                let stream = ReaderStream::new(tokio::io::stdin());
                builder
                    .header(CONTENT_TYPE, content_type)
                    .body(Body::wrap_stream(stream))
            }
        };
        builder
            .send()
            .await
            .map_err(|error| unreachable(url, error))
    }

    /// A new access token for one that is no longer taken, if the profile can have one.
    async fn renew(&self, old: Option<String>) -> anyhow::Result<Option<String>> {
        let mut profile = self.profile.lock().await;
        if profile.token != old {
            return Ok(profile.token.clone()); // somebody else renewed it
        }
        let Some(refresh) = profile.refresh_token.clone() else {
            return Ok(None);
        };
        let request = Request::json(
            "POST",
            "/api/v1/users/auth/refresh",
            json!({ "refreshToken": refresh }),
        );
        let url = self.url(&Place::Api, &request)?;
        let response = self.once(&url, &request, Some(&refresh)).await?;
        if !response.status().is_success() {
            return Ok(None);
        }
        let data = unwrapped(
            response
                .json()
                .await
                .context("the API's answer is not JSON")?,
        );
        let Some(token) = data["token"].as_str() else {
            return Ok(None);
        };
        profile.token = Some(token.to_owned());
        if let Some(refresh) = data["refreshToken"].as_str() {
            profile.refresh_token = Some(refresh.to_owned());
        }
        profile.write(&self.path)?;
        Ok(profile.token.clone())
    }

    /// Change the profile and keep it.
    pub async fn keep(&self, change: impl FnOnce(&mut Profile)) -> anyhow::Result<()> {
        let mut profile = self.profile.lock().await;
        change(&mut profile);
        Ok(profile.write(&self.path)?)
    }
}

/// The file of the profile that the options name.
fn profile_path(matches: &ArgMatches) -> anyhow::Result<PathBuf> {
    let text = |name: &str| {
        matches
            .get_one::<String>(name)
            .filter(|text| !text.is_empty())
    };
    let directory = match (text("config"), text("home")) {
        (Some(directory), _) => PathBuf::from(directory),
        (None, Some(home)) => Path::new(home).join(".config/hoody"),
        (None, None) => bail!("where are profiles kept? set HOME, or say --config DIRECTORY"),
    };
    let name = matches
        .get_one::<String>("profile")
        .expect("it has a default");
    Ok(profile::path(&directory, name)?)
}

/// `api.X` is `containers.X`, `{realm}.api.X` too; `Y.api.X` is `Y.containers.X`.
pub(super) fn containers_domain(api: &str) -> String {
    if let Some(domain) = api.strip_prefix("api.") {
        return format!("containers.{domain}");
    }
    match api.split_once(".api.") {
        Some((realm, domain))
            if realm.len() == 24 && realm.bytes().all(|b| b.is_ascii_hexdigit()) =>
        {
            format!("containers.{domain}")
        }
        Some((before, domain)) => format!("{before}.containers.{domain}"),
        None => format!("containers.{api}"),
    }
}

/// The data of an envelope; a body that is none as it is.
pub(super) fn unwrapped(mut body: Value) -> Value {
    let envelope = body["statusCode"].is_number() && body["message"].is_string();
    match body.get_mut("data") {
        Some(data) if envelope => data.take(),
        _ => body,
    }
}

/// What a failure says: its message, and which parameters are wrong.
async fn refusal(place: &Place, response: Response) -> anyhow::Error {
    let status = response.status();
    let text = match read_some(response).await {
        Ok(text) => text,
        Err(error) => return error,
    };
    let body: Value = serde_json::from_slice(&text).unwrap_or_default();
    let says = |key: &str| {
        body[key]
            .as_str()
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let plain = || {
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        (body.is_null() && !text.is_empty() && !text.starts_with('<')).then_some(text)
    };
    let mut message = says("message")
        .or_else(|| says("error"))
        .or_else(plain)
        .unwrap_or_else(|| status.canonical_reason().unwrap_or("refused").to_owned());
    for field in body["data"]
        .as_array()
        .or(body["fields"].as_array())
        .into_iter()
        .flatten()
    {
        if let (Some(path), Some(why)) = (field["instancePath"].as_str(), field["message"].as_str())
            && !message.contains(why)
        {
            message.push_str(&format!("\n  {path}: {why}"));
        }
    }
    if status == StatusCode::UNAUTHORIZED && matches!(place, Place::Api) {
        message.push_str("; sign in with `hoody login`");
    }
    Refused { status, message }.into()
}

async fn read_some(mut response: Response) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        text.extend_from_slice(&chunk);
        if text.len() > MAX_FAILURE {
            break;
        }
    }
    Ok(text)
}

/// Why a node could not be asked, and what to do about it.
fn unreachable(url: &Url, error: reqwest::Error) -> anyhow::Error {
    let host = url.host_str().unwrap_or_default().to_owned();
    let mut causes = vec![error.to_string()];
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    let cause = causes.pop().unwrap_or_default();
    if causes
        .iter()
        .chain([&cause])
        .any(|cause| cause.contains("certificate"))
    {
        return anyhow!("{host} is not trusted: {cause}; name its authority with --ca-cert FILE");
    }
    if error.is_connect() || error.is_timeout() {
        return anyhow!(
            "could not reach {host}: {cause}; is the node up? ask it with `hoody status`"
        );
    }
    anyhow!("asking {host} failed: {cause}")
}

/// An HTTP client that trusts this authority beside the system's, and knows where `*.localhost` is.
fn client(authority: Option<&Path>, is_local: bool) -> anyhow::Result<reqwest::Client> {
    // `main` has chosen it already; tests have no `main`
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .dns_resolver(Arc::new(Names))
        .connect_timeout(CONNECT)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("hoody/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = authority {
        builder = match is_local {
            true => builder.tls_backend_preconfigured(trust(path)?),
            // Its own authority's certificate is shown until it has one that the world believes.
            false => builder.tls_certs_merge(authorities(path)?),
        };
    }
    builder.build().context("the HTTP client could not be made")
}

/// Whether this is a name that only this machine has (RFC 6761, 6.3).
fn is_local(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost")
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| {
        format!(
            "could not read the authority's certificate {}; is the node's state still there?",
            path.display()
        )
    })
}

/// The certificates of an authority, to be trusted beside those of the system.
fn authorities(path: &Path) -> anyhow::Result<Vec<reqwest::Certificate>> {
    let all = reqwest::Certificate::from_pem_bundle(&read(path)?).ok();
    all.filter(|all| !all.is_empty())
        .with_context(|| format!("{} holds no certificate in PEM form", path.display()))
}

/// A node with its own authority is trusted by that authority alone.
fn trust(path: &Path) -> anyhow::Result<rustls::ClientConfig> {
    let pem = read(path)?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.with_context(|| format!("{} is not PEM", path.display()))?;
        roots
            .add(certificate)
            .with_context(|| format!("{} holds no authority", path.display()))?;
    }
    if roots.is_empty() {
        bail!("{} holds no certificate", path.display());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("no TLS version is left")?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Names ending in `.localhost` are this machine (RFC 6761, 6.3); the system knows the others.
struct Names;

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let host = name.as_str().trim_end_matches('.').to_ascii_lowercase();
            if host == "localhost" || host.ends_with(".localhost") {
                let here = [
                    IpAddr::V4(Ipv4Addr::LOCALHOST),
                    IpAddr::V6(Ipv6Addr::LOCALHOST),
                ];
                return Ok(Box::new(here.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs);
            }
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
