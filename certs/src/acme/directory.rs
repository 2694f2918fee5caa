//! The connection to a directory: bounds on what it may make us wait for and hold, and what it
//! says about when to come back.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body_util::BodyExt;
use instant_acme::{BodyWrapper, BytesResponse, Error as AcmeError, HttpClient};

use crate::Error;

/// For one answer of a directory, all of it.
const ANSWER: Duration = Duration::from_secs(30);
/// To connect to it.
const CONNECT: Duration = Duration::from_secs(10);
/// The largest answer that is read: a chain takes some 10 KiB.
const ANSWER_BYTES: usize = 1 << 20;

/// A request on its way.
type Asking = Pin<Box<dyn Future<Output = Result<BytesResponse, AcmeError>> + Send>>;

/// HTTPS to a directory, trusting the roots of the machine and one more.
pub struct Https {
    client: reqwest::Client,
}

impl Https {
    pub fn new(root: Option<&Path>) -> Result<Https, Error> {
        let mut builder = reqwest::Client::builder()
            .https_only(true)
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .redirect(reqwest::redirect::Policy::none());
        if let Some(path) = root {
            let pem = std::fs::read(path).map_err(|source| Error::Read {
                path: path.to_owned(),
                source,
            })?;
            let roots = reqwest::Certificate::from_pem_bundle(&pem)
                .ok()
                .filter(|roots| !roots.is_empty());
            let roots = roots.ok_or_else(|| Error::NoRoot {
                path: path.to_owned(),
            })?;
            builder = builder.tls_certs_merge(roots);
        }
        let client = builder.build().map_err(|source| Error::NoClient {
            why: crate::chain(&source),
        })?;
        Ok(Https { client })
    }
}

impl HttpClient for Https {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Asking {
        let client = self.client.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(never) => match never {},
            };
            let sent = client
                .request(parts.method, parts.uri.to_string())
                .headers(parts.headers)
                .body(body)
                .send();
            let mut answer = sent.await.map_err(other)?;
            let mut response = Response::new(());
            *response.status_mut() = answer.status();
            *response.headers_mut() = std::mem::take(answer.headers_mut());
            let mut whole = Vec::new();
            while let Some(part) = answer.chunk().await.map_err(other)? {
                whole.extend_from_slice(&part);
                if whole.len() > ANSWER_BYTES {
                    return Err(AcmeError::Other("the answer is too long".into()));
                }
            }
            Ok(BytesResponse {
                parts: response.into_parts().0,
                body: Box::new(Bytes::from(whole)),
            })
        })
    }
}

/// The whole chain of reasons as one text: a connection that failed says why deep inside.
fn other(error: reqwest::Error) -> AcmeError {
    AcmeError::Other(crate::chain(&error.without_url()).into())
}

/// Asks for one order, and remembers when its last refusal wants to be asked again.
pub struct Heard {
    inner: Arc<dyn HttpClient>,
    told: Told,
}

/// What the last refusal said about when to come back.
#[derive(Clone, Default)]
pub struct Told(Arc<Mutex<Option<Duration>>>);

impl Told {
    pub fn get(&self) -> Option<Duration> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    pub fn new(inner: Arc<dyn HttpClient>) -> (Heard, Told) {
        let told = Told::default();
        let heard = Heard {
            inner,
            told: told.clone(),
        };
        (heard, told)
    }
}

impl HttpClient for Heard {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Asking {
        let uri = request.uri().clone();
        let asking = self.inner.request(request);
        let told = self.told.clone();
        Box::pin(async move {
            let answer = asking.await?;
            let (status, headers) = (answer.parts.status, &answer.parts.headers);
            let refused = status.is_client_error() || status.is_server_error();
            *told.0.lock().unwrap_or_else(PoisonError::into_inner) =
                refused.then(|| retry_after(headers)).flatten();
            let kind = headers.get(header::CONTENT_TYPE);
            let kind = kind.and_then(|kind| kind.to_str().ok());
            let is_json = kind.is_some_and(|kind| {
                let essence = kind.split(';').next().unwrap_or_default();
                essence.trim().ends_with("json")
            });
            if refused && !is_json {
                // A problem is JSON; anything else comes from what stands before the directory.
                return Err(AcmeError::Other(
                    format!("{uri} was answered {}", status.as_u16()).into(),
                ));
            }
            Ok(answer)
        })
    }
}

/// Seconds or a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    date.duration_since(SystemTime::now()).ok()
}
