//! How an operation fails.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

/// A failure as its caller sees it: a status, a sentence that says what, which and what next, and
/// where one exists a stable code. A service's [`Wire`](crate::Wire) gives it its JSON shape.
#[derive(Debug, Clone)]
pub struct Fault {
    pub status: StatusCode,
    pub code: Option<&'static str>,
    pub message: String,
    /// Which parameters are wrong, and why.
    pub fields: Vec<WrongField>,
    /// A body to send instead of the usual shape, where the contract wants one.
    pub body: Option<Value>,
    pub retry_after: Option<Duration>,
}

/// One wrong parameter.
#[derive(Debug, Clone)]
pub struct WrongField {
    /// JSON pointer into the arguments: `/events/0/row`.
    pub path: String,
    pub message: String,
}

impl Fault {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Fault {
            status,
            code: None,
            message: message.into(),
            fields: Vec::new(),
            body: None,
            retry_after: None,
        }
    }
    /// 400: the request is wrong as it stands.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
    /// 401: who are you?
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, message)
    }
    /// 403: known, and not allowed.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }
    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }
    /// 409: it clashes with what is there.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }
    /// 413: larger than a named bound.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }
    /// 500: our own failure. The message must not carry secrets or host paths.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
    /// 503: not now; try again.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// Add a stable code.
    #[must_use]
    pub fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }
    /// Name a wrong parameter.
    #[must_use]
    pub fn field(mut self, path: impl Into<String>, message: impl Into<String>) -> Self {
        self.fields.push(WrongField {
            path: path.into(),
            message: message.into(),
        });
        self
    }
    /// Send this body instead of the usual shape.
    #[must_use]
    pub fn with_body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }
    /// Tell the caller when to come back.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.message, self.status.as_u16())
    }
}

impl std::error::Error for Fault {}
