//! What an operation is: a struct of parameters, a route, and what it does.

use std::borrow::Cow;
use std::future::Future;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Call, Fault};

/// One thing a service can be asked to do.
///
/// The fields of the implementing struct are the parameters: those named in the route's path come
/// from there, those listed by [`Route::headers`] from headers, those listed by [`Route::query`] (all the others, where the verb carries no body)
/// from the query string, the rest from the JSON body. The struct's doc comment is the reference
/// text of the operation and each field's the one of its parameter.
pub trait Operation: DeserializeOwned + JsonSchema + Send + 'static {
    /// Where the operation answers and how it is called.
    const ROUTE: Route;
    /// The handle of the service that does the work; cheap to clone.
    type Service: Clone + Send + Sync + 'static;
    /// The JSON reply.
    type Reply: Serialize + JsonSchema + Send + 'static;

    /// Do it.
    fn run(
        self,
        service: Self::Service,
        call: Call,
    ) -> impl Future<Output = Result<Self::Reply, Fault>> + Send;
}

/// The HTTP method of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    /// A method beyond the usual ones, such as WebDAV's `PROPFIND`; raw routes only.
    Other(&'static str),
}

impl Verb {
    /// The method as it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "GET",
            Verb::Head => "HEAD",
            Verb::Post => "POST",
            Verb::Put => "PUT",
            Verb::Patch => "PATCH",
            Verb::Delete => "DELETE",
            Verb::Options => "OPTIONS",
            Verb::Other(name) => name,
        }
    }

    /// Whether parameters that are not in the path travel in a body.
    pub const fn has_body(self) -> bool {
        matches!(self, Verb::Post | Verb::Put | Verb::Patch)
    }
}

/// Who may call an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever the service's gate lets through.
    Guarded,
    /// Anyone: the gate is not asked.
    Open,
}

/// Where an operation answers, what it is called, and what success looks like.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub verb: Verb,
    /// A second verb served on the same path.
    pub also: Option<Verb>,
    /// Path template: `/api/v1/things/{id}`, `{*path}` for the rest of the path.
    pub path: &'static str,
    /// Parameters of an operation with a body that travel in the query string.
    pub query: &'static [&'static str],
    /// Parameters that travel in headers of these names, in lower case.
    pub headers: &'static [&'static str],
    /// Whether parameters that are in neither path nor query travel in a JSON body.
    pub body: bool,
    /// What selects this operation where several share verb and path: a key that the query string
    /// must have, or `key=value`.
    pub selector: Option<&'static str>,
    /// Status of success.
    pub status: u16,
    /// Sentence of success, for wires that carry one.
    pub message: &'static str,
    /// `operationId`; also the name of the MCP tool.
    pub id: &'static str,
    /// The words of the command line that calls it, without the leading `hoody`.
    pub cli: &'static str,
    pub access: Access,
}

impl Route {
    const fn new(verb: Verb, path: &'static str) -> Self {
        Route {
            verb,
            also: None,
            path,
            query: &[],
            headers: &[],
            body: verb.has_body(),
            selector: None,
            status: 200,
            message: "OK",
            id: "",
            cli: "",
            access: Access::Guarded,
        }
    }
    pub const fn get(path: &'static str) -> Self {
        Self::new(Verb::Get, path)
    }
    pub const fn head(path: &'static str) -> Self {
        Self::new(Verb::Head, path)
    }
    pub const fn post(path: &'static str) -> Self {
        Self::new(Verb::Post, path)
    }
    pub const fn put(path: &'static str) -> Self {
        Self::new(Verb::Put, path)
    }
    pub const fn patch(path: &'static str) -> Self {
        Self::new(Verb::Patch, path)
    }
    pub const fn delete(path: &'static str) -> Self {
        Self::new(Verb::Delete, path)
    }
    pub const fn options(path: &'static str) -> Self {
        Self::new(Verb::Options, path)
    }
    /// A route for a method beyond the usual ones.
    pub const fn method(name: &'static str, path: &'static str) -> Self {
        Self::new(Verb::Other(name), path)
    }
    /// Name it: the `operationId`.
    pub const fn named(mut self, id: &'static str) -> Self {
        self.id = id;
        self
    }
    /// The words of its command, without `hoody`.
    pub const fn cli(mut self, words: &'static str) -> Self {
        self.cli = words;
        self
    }
    /// Serve a second verb on the same path.
    pub const fn also(mut self, verb: Verb) -> Self {
        self.also = Some(verb);
        self
    }
    /// These parameters travel in the query string although the verb has a body.
    pub const fn query(mut self, names: &'static [&'static str]) -> Self {
        self.query = names;
        self
    }
    /// These parameters travel in headers of the same names, in lower case.
    pub const fn headers(mut self, names: &'static [&'static str]) -> Self {
        self.headers = names;
        self
    }
    /// Its parameters travel in a JSON body, although the verb usually carries none.
    pub const fn with_body(mut self) -> Self {
        self.body = true;
        self
    }
    /// This query key, or `key=value`, selects the operation among those that share its path.
    pub const fn selected_by(mut self, key: &'static str) -> Self {
        self.selector = Some(key);
        self
    }
    pub const fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }
    /// The sentence of success.
    pub const fn says(mut self, message: &'static str) -> Self {
        self.message = message;
        self
    }
    /// Anyone may call it.
    pub const fn open(mut self) -> Self {
        self.access = Access::Open;
        self
    }

    /// Its name in documents and among tools: the `operationId`, or one made of verb and path.
    pub fn name(&self) -> Cow<'static, str> {
        if !self.id.is_empty() {
            return Cow::Borrowed(self.id);
        }
        let mut name = self.verb.as_str().to_ascii_lowercase();
        let selector = self.selector.unwrap_or_default();
        let words = self.path.split('/').chain(selector.split('='));
        for word in words
            .map(|word| word.trim_matches(['{', '*', '}']))
            .filter(|word| !word.is_empty())
        {
            name.push('_');
            name.extend(
                word.chars()
                    .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }),
            );
        }
        Cow::Owned(name)
    }

    /// What stands before the rest of the path, where that is the only parameter in it: `/files/`
    /// of `/files/{*path}`.
    pub fn rest_prefix(&self) -> Option<&'static str> {
        let (prefix, _) = self.path.split_once("{*")?;
        (!prefix.contains('{')).then_some(prefix)
    }

    /// The rest of a request's path, decoded; bytes that are no UTF-8 are replaced.
    pub fn rest_lossy(&self, path: &str) -> String {
        let prefix = self.rest_prefix().unwrap_or_default();
        let rest = path.strip_prefix(prefix).unwrap_or_default();
        percent_encoding::percent_decode_str(rest)
            .decode_utf8_lossy()
            .into_owned()
    }

    /// The names of the parameters in the path, `{*rest}` ones included without their star.
    pub fn path_parameters(&self) -> impl Iterator<Item = &'static str> {
        self.path
            .split('/')
            .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| name.trim_start_matches('*'))
    }
}
