//! Asking the node as its visitors do: by its names, over HTTPS, trusting its authority.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Certificate, Client, Method, StatusCode};
use serde_json::Value;

use crate::config::{Config, Mode};

/// A node that takes longer for an answer is not well.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest answer that is read.
const ANSWER_BYTES: usize = 8 << 20;

/// A visitor of this machine's node.
pub struct Visitor {
    http: Client,
    api: String,
    token: Option<String>,
}

/// The node answered, but not with success.
#[derive(Debug, thiserror::Error)]
#[error("{method} {path} was answered {}: {message}", .status.as_u16())]
struct Refused {
    status: StatusCode,
    method: Method,
    path: String,
    message: String,
}

impl Visitor {
    /// A visitor from this machine, who knows where every name of the node leads without asking a
    /// resolver. `ca` is the certificate of the authority.
    pub fn new(config: &Config, listening: &[IpAddr], ca: &str) -> anyhow::Result<Visitor> {
        let door = SocketAddr::new(door(listening), config.https);
        let ca = Certificate::from_pem(ca.as_bytes())
            .context("the authority's certificate is damaged")?;
        let builder = match config.certificates.mode {
            Mode::Local => Client::builder().tls_certs_only([ca]),
            // Until there is one from elsewhere, the authority's is shown.
            Mode::Acme | Mode::Files => Client::builder()
                .tls_certs_merge([ca])
                .tls_certs_merge(more_roots(config)?),
        };
        let http = builder
            .dns_resolver(std::sync::Arc::new(Here(door)))
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .build()
            .context("could not make an HTTP client")?;
        Ok(Visitor {
            http,
            api: config.api_url(),
            token: None,
        })
    }

    /// The same with a token for the API.
    pub fn with_token(self, token: String) -> Visitor {
        Visitor {
            token: Some(token),
            ..self
        }
    }

    /// The status of an address, or why there is none.
    pub async fn status(&self, url: &str) -> Result<StatusCode, reqwest::Error> {
        Ok(self.http.get(url).send().await?.status())
    }

    /// Whether the API takes this token.
    pub async fn accepts(&self, token: &str) -> anyhow::Result<bool> {
        match self
            .ask(Method::GET, "/api/v1/users/me", None, Some(token))
            .await
        {
            Ok(_) => Ok(true),
            Err(error) => match error
                .downcast_ref::<Refused>()
                .map(|refused| refused.status)
            {
                Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Ok(false),
                _ => Err(error),
            },
        }
    }

    /// The data of the API's answer.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(Method::GET, path, None, self.token.as_deref())
            .await
    }

    /// The data of the API's answer.
    pub async fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        self.ask(Method::POST, path, Some(body), self.token.as_deref())
            .await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        token: Option<&str>,
    ) -> anyhow::Result<Value> {
        let mut request = self
            .http
            .request(method.clone(), format!("{}{path}", self.api));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let mut response = request
            .send()
            .await
            .with_context(|| format!("{method} {path} was not answered"))?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(part) = response
            .chunk()
            .await
            .with_context(|| format!("the answer to {method} {path} broke off"))?
        {
            bytes.extend_from_slice(&part);
            if bytes.len() > ANSWER_BYTES {
                bail!("the answer to {method} {path} is too long");
            }
        }
        let mut body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if !status.is_success() {
            let message = body["message"]
                .as_str()
                .unwrap_or("without a reason")
                .to_owned();
            return Err(Refused {
                status,
                method,
                path: path.to_owned(),
                message,
            }
            .into());
        }
        Ok(body["data"].take())
    }
}

/// The roots that were named beside the system's.
fn more_roots(config: &Config) -> anyhow::Result<Vec<Certificate>> {
    let Some(path) = &config.certificates.root else {
        return Ok(Vec::new());
    };
    let pem = std::fs::read(path).with_context(|| format!("could not read {}", path.display()))?;
    Certificate::from_pem_bundle(&pem)
        .with_context(|| format!("{} holds no certificates in PEM form", path.display()))
}

/// The address at which this machine reaches its own node.
fn door(listening: &[IpAddr]) -> IpAddr {
    let (v4, v6) = (
        IpAddr::from(Ipv4Addr::LOCALHOST),
        IpAddr::from(Ipv6Addr::LOCALHOST),
    );
    let takes = |ip: &IpAddr| listening.contains(ip);
    if takes(&v4) || takes(&Ipv4Addr::UNSPECIFIED.into()) {
        v4
    } else if takes(&v6) || takes(&Ipv6Addr::UNSPECIFIED.into()) {
        v6
    } else {
        listening.first().copied().unwrap_or(v4)
    }
}

/// Every name leads to one address.
struct Here(SocketAddr);

impl reqwest::dns::Resolve for Here {
    fn resolve(&self, _name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let door = SocketAddr::new(self.0.ip(), 0); // the port stays that of the address asked for
        Box::pin(async move { Ok(Box::new(std::iter::once(door)) as reqwest::dns::Addrs) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_door_is_one_that_is_open() {
        for (listening, expected) in [
            (vec!["::1", "127.0.0.1", "10.0.0.1"], "127.0.0.1"),
            (vec!["0.0.0.0", "::"], "127.0.0.1"),
            (vec!["::"], "::1"),
            (vec!["192.0.2.1"], "192.0.2.1"),
            (vec![], "127.0.0.1"),
        ] {
            let listening: Vec<IpAddr> = listening
                .into_iter()
                .map(|ip| ip.parse().unwrap())
                .collect();
            assert_eq!(door(&listening).to_string(), expected);
        }
    }
}
