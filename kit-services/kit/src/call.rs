//! What a request tells an operation beside its parameters.

use std::net::IpAddr;

use http::request::Parts;
use http::{Extensions, HeaderMap, Method, Uri};

/// Headers in which the proxy tells the kit what it knows. The proxy strips them from every
/// inbound request and sets them itself; nothing else reaches a kit's socket from outside.
pub mod edge {
    /// The service that the host named: `terminal`.
    pub const SERVICE: &str = "x-hoody-edge-service";
    /// What the node itself asks the kit for: no host leads to it.
    pub const KIT: &str = "kit";
    /// The index that the host named: `1`.
    pub const INDEX: &str = "x-hoody-edge-index";
    /// The address of the client.
    pub const CLIENT: &str = "x-hoody-edge-client";
    /// `http` or `https`: how the client reached the proxy.
    pub const SCHEME: &str = "x-hoody-edge-scheme";
    /// The authority the client asked for, lower case, with its port where not the scheme's.
    pub const HOST: &str = "x-hoody-edge-host";
    /// The port inside the container, for the hosts `http-{port}` and `https-{port}`.
    pub const PORT: &str = "x-hoody-edge-port";
    /// How the visitor passed a gate: `password`, `token`, `jwt`, `ip` or `link`; absent where
    /// everybody may pass.
    pub const AUTH: &str = "x-hoody-edge-auth";
    /// The group of the rules that the visitor is in.
    pub const GROUP: &str = "x-hoody-edge-group";
    /// The user name, the subject of a JWT or the id of a link, in percent-encoding where it is
    /// more than visible ASCII.
    pub const USER: &str = "x-hoody-edge-user";
    /// Those that say who came in: an application may be told.
    pub const IDENTITY: [&str; 3] = [AUTH, GROUP, USER];
    /// What all of them begin with.
    pub const PREFIX: &str = "x-hoody-edge-";
}

/// The request behind a call.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    /// What gates and layers added: who is calling, for one.
    pub extensions: Extensions,
}

impl From<Parts> for Call {
    fn from(parts: Parts) -> Call {
        Call {
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            extensions: parts.extensions,
        }
    }
}

impl Call {
    /// A call that no request stands behind: from a test, or from inside the process.
    pub fn internal() -> Self {
        Call {
            method: Method::GET,
            uri: Uri::from_static("/"),
            headers: HeaderMap::new(),
            extensions: Extensions::new(),
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The index in the host name; 1 where the request came without the proxy.
    pub fn index(&self) -> u32 {
        self.text(edge::INDEX)
            .and_then(|text| text.parse().ok())
            .unwrap_or(1)
    }

    /// The client's address as the proxy saw it.
    pub fn client(&self) -> Option<IpAddr> {
        self.text(edge::CLIENT)?.parse().ok()
    }

    /// The authority the client asked for.
    pub fn host(&self) -> Option<&str> {
        self.text(edge::HOST).or_else(|| self.text("host"))
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &str {
        self.text(edge::SCHEME).unwrap_or("http")
    }

    pub fn user_agent(&self) -> Option<&str> {
        self.text("user-agent")
    }
}
