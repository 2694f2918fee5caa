//! The line between a node and its directory: counted, cut, held up, answered by somebody else.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};

/// What becomes of a request.
pub enum Fate {
    Pass,
    Fail,
    /// It is never sent, and never answered: its process is about to die.
    Hang,
    Answer(Response<String>),
}

type Decide = dyn Fn(usize, &Request<()>) -> Fate + Send + Sync;
type Change = dyn Fn(&str, Bytes) -> Bytes + Send + Sync;

/// A client of a real directory that a test stands on the line of.
pub struct Wire {
    inner: Arc<dyn HttpClient>,
    decide: Mutex<Arc<Decide>>,
    change: Mutex<Arc<Change>>,
    requests: AtomicUsize,
    orders: AtomicUsize,
}

type Asking = Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>>;

impl Wire {
    pub fn new(inner: impl HttpClient) -> Arc<Wire> {
        Arc::new(Wire {
            inner: Arc::new(inner),
            decide: Mutex::new(Arc::new(|_, _| Fate::Pass)),
            change: Mutex::new(Arc::new(|_, body| body)),
            requests: AtomicUsize::new(0),
            orders: AtomicUsize::new(0),
        })
    }

    /// Decide by the number of a request, from 1 on, and its head.
    pub fn decide(&self, decide: impl Fn(usize, &Request<()>) -> Fate + Send + Sync + 'static) {
        *self.decide.lock().unwrap() = Arc::new(decide);
    }

    /// Change answers, by the path that was asked.
    pub fn change(&self, change: impl Fn(&str, Bytes) -> Bytes + Send + Sync + 'static) {
        *self.change.lock().unwrap() = Arc::new(change);
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// New orders that reached the directory and were taken.
    pub fn orders(&self) -> usize {
        self.orders.load(Ordering::SeqCst)
    }

    async fn ask(
        self: Arc<Wire>,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Result<BytesResponse, Error> {
        let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let head = Request::from_parts(parts.clone(), ());
        let decide = self.decide.lock().unwrap().clone();
        let answer = match decide(number, &head) {
            Fate::Pass => self.inner.request(Request::from_parts(parts, body)).await?,
            Fate::Fail => return Err(Error::Other("the line is cut".into())),
            Fate::Hang => std::future::pending().await,
            Fate::Answer(answer) => {
                let (parts, text) = answer.into_parts();
                BytesResponse {
                    parts,
                    body: Box::new(Bytes::from(text)),
                }
            }
        };
        if path == "/order-plz" && answer.parts.status.is_success() {
            self.orders.fetch_add(1, Ordering::SeqCst);
        }
        let BytesResponse { parts, mut body } = answer;
        let body = body.into_bytes().await.map_err(Error::Other)?;
        let change = self.change.lock().unwrap().clone();
        Ok(BytesResponse {
            parts,
            body: Box::new(change(&path, body)),
        })
    }
}

/// A wire that a node can have as its own.
pub struct End(pub Arc<Wire>);

impl HttpClient for End {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Asking {
        Box::pin(self.0.clone().ask(request))
    }
}

/// A problem as directories answer it (RFC 8555, section 6.7).
pub fn problem(status: u16, kind: &str, retry_after: Option<u32>) -> Fate {
    let text = serde_json::json!({
        "type": format!("urn:ietf:params:acme:error:{kind}"),
        "detail": "as the test wants it",
        "status": status,
    });
    let mut answer = Response::builder()
        .status(status)
        .header("content-type", "application/problem+json");
    if let Some(seconds) = retry_after {
        answer = answer.header("retry-after", seconds);
    }
    Fate::Answer(answer.body(text.to_string()).unwrap())
}
