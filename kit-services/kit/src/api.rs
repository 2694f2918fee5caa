//! Gathering the operations of a service.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use axum::routing::MethodRouter;
use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use schemars::generate::{Contract, SchemaSettings};
use serde::Serialize;
use serde_json::{Map, Value};
use serde_path_to_error::Segment;

use crate::{Access, Call, Fault, Operation, Route, Wire};

/// All that a service offers: the one list behind its routes, its document and its tools.
pub struct Api {
    /// The slug of the service: `terminal`.
    pub name: &'static str,
    /// One line on what the service is for.
    pub title: &'static str,
    /// Where health and documents answer: `/api/v1/terminal`.
    pub base: String,
    pub wire: Wire,
    pub(crate) ops: Vec<Arc<Op>>,
    pub(crate) raws: Vec<Raw>,
    /// Operations that are tools only: what they do over HTTP, a raw route does.
    pub(crate) tools: Vec<Arc<Op>>,
    /// Whether `openapi.json` beside the health leads to the one at the root.
    pub(crate) redirects: bool,
    pub(crate) gate: Option<Gate>,
    /// Whether the service holds something that would be lost with the process.
    pub busy: Option<Busy>,
    pub(crate) fallback: Option<MethodRouter>,
    pub(crate) other_methods: Option<MethodRouter>,
}

/// Asked before every guarded operation; may add who is calling to the call's extensions.
pub type Gate = Arc<dyn Fn(Route, Call) -> BoxFuture<'static, Result<Call, Fault>> + Send + Sync>;

/// See [`Api::busy`].
pub type Busy = Arc<dyn Fn() -> bool + Send + Sync>;

/// One operation, its types erased.
pub struct Op {
    pub route: Route,
    input: Lazy,
    reply: Lazy,
    call: Box<Run>,
}

type Run =
    dyn Fn(Map<String, Value>, Call) -> BoxFuture<'static, Result<Value, Fault>> + Send + Sync;

/// A schema made when first asked for: a kit that is idle holds none.
struct Lazy {
    cell: OnceLock<Value>,
    make: Box<dyn Fn() -> Value + Send + Sync>,
}

impl Lazy {
    fn new(make: impl Fn() -> Value + Send + Sync + 'static) -> Self {
        Lazy {
            cell: OnceLock::new(),
            make: Box::new(make),
        }
    }
    fn get(&self) -> &Value {
        self.cell.get_or_init(&self.make)
    }
}

/// The schema of a type as it is read.
fn read<T: JsonSchema>() -> Value {
    schema::<T>(Contract::Deserialize)
}

/// The schema of a type as it is written.
pub(crate) fn written<T: JsonSchema>() -> Value {
    schema::<T>(Contract::Serialize)
}

fn schema<T: JsonSchema>(contract: Contract) -> Value {
    let mut schema = SchemaSettings::draft2020_12()
        .with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
            settings.contract = contract;
        })
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value();
    if schema["type"] != "object"
        && let Some(object) = schema.as_object_mut()
    {
        object.remove("title"); // `uint` and `null` are no titles
    }
    schema
}

/// The schema of parameters: an object even where the type that holds them is a unit.
fn input<T: JsonSchema>() -> Value {
    let mut schema = read::<T>();
    if schema.get("type").and_then(Value::as_str) == Some("null")
        && let Some(object) = schema.as_object_mut()
    {
        object.insert("type".into(), "object".into());
    }
    schema
}

impl Op {
    /// JSON Schema of the parameters, an object; its `description` is the operation's reference text.
    pub fn input(&self) -> &Value {
        self.input.get()
    }
    /// JSON Schema of the reply, before the wire wraps it.
    pub fn reply(&self) -> &Value {
        self.reply.get()
    }
    /// The operation's reference text.
    pub fn doc(&self) -> &str {
        self.input()
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
    /// Run it with arguments already merged. A panic in it is an internal failure of this call
    /// alone.
    pub async fn call(&self, arguments: Map<String, Value>, call: Call) -> Result<Value, Fault> {
        let run = AssertUnwindSafe(async { (self.call)(arguments, call).await });
        run.catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!(operation = %self.route.name(), "an operation panicked");
            Err(Fault::internal(format!(
                "{} failed in a way that is ours to mend",
                self.route.name()
            )))
        })
    }
    /// Ask the gate, if the operation is guarded and there is one.
    pub(crate) async fn admit(&self, gate: Option<&Gate>, call: Call) -> Result<Call, Fault> {
        match gate {
            Some(gate) if self.route.access == Access::Guarded => gate(self.route, call).await,
            _ => Ok(call),
        }
    }
}

/// An operation that is no JSON exchange: a page, a stream, an upload, a download. It is served by
/// a plain axum handler and declared here so that it is documented.
#[derive(Clone)]
pub struct Raw {
    pub route: Route,
    pub doc: &'static str,
    /// Content type of the answer.
    pub answers: &'static str,
    /// Content type of the request body, where the verb has one.
    pub takes: &'static str,
    /// Subprotocol, where it is a WebSocket.
    pub websocket: Option<&'static str>,
    /// Schema of the JSON answer, where it has one.
    pub reply: Option<fn() -> Value>,
    pub input: Option<fn() -> Value>,
    pub(crate) handler: Option<MethodRouter>,
}

impl Raw {
    pub fn new(route: Route, doc: &'static str) -> Self {
        Raw {
            route,
            doc,
            answers: "application/octet-stream",
            takes: "application/octet-stream",
            websocket: None,
            reply: None,
            input: None,
            handler: None,
        }
    }
    /// Content type of the answer.
    #[must_use]
    pub fn answers(mut self, content_type: &'static str) -> Self {
        self.answers = content_type;
        self
    }
    /// Content type of the request body.
    #[must_use]
    pub fn takes(mut self, content_type: &'static str) -> Self {
        self.takes = content_type;
        self
    }
    /// It answers JSON of this type.
    #[must_use]
    pub fn replies<T: JsonSchema>(mut self) -> Self {
        self.answers = "application/json";
        self.reply = Some(written::<T>);
        self
    }
    /// It is a WebSocket with this subprotocol.
    #[must_use]
    pub fn websocket(mut self, subprotocol: &'static str) -> Self {
        self.websocket = Some(subprotocol);
        self
    }
    /// Its path and query parameters.
    #[must_use]
    pub fn parameters<T: JsonSchema>(mut self) -> Self {
        self.input = Some(read::<T>);
        self
    }
    /// The handler that serves it; without one it is documentation of a path that another
    /// handler or the fallback serves.
    #[must_use]
    pub fn handler(mut self, handler: MethodRouter) -> Self {
        self.handler = Some(handler);
        self
    }
}

impl Api {
    /// The API of the service with this slug, answering at `/api/v1/{name}`.
    pub fn new(name: &'static str, title: &'static str) -> Self {
        Api {
            name,
            title,
            base: format!("/api/v1/{name}"),
            wire: Wire::KIT,
            ops: Vec::new(),
            raws: Vec::new(),
            tools: Vec::new(),
            redirects: false,
            gate: None,
            busy: None,
            fallback: None,
            other_methods: None,
        }
    }
    /// Answer health and documents below another path.
    #[must_use]
    pub fn base(mut self, path: impl Into<String>) -> Self {
        self.base = path.into();
        self
    }
    #[must_use]
    pub fn wire(mut self, wire: Wire) -> Self {
        self.wire = wire;
        self
    }
    /// Ask this before every guarded operation.
    #[must_use]
    pub fn gate(
        mut self,
        gate: impl Fn(Route, Call) -> BoxFuture<'static, Result<Call, Fault>> + Send + Sync + 'static,
    ) -> Self {
        self.gate = Some(Arc::new(gate));
        self
    }
    /// Say when the service holds something that would be lost with the process: a session, a job.
    #[must_use]
    pub fn busy(mut self, busy: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.busy = Some(Arc::new(busy));
        self
    }
    /// Add an operation.
    #[must_use]
    pub fn op<O: Operation>(mut self, service: &O::Service) -> Self {
        self.ops.push(erased::<O>(service));
        self
    }
    /// Add an operation whose parameters come from a table instead of a struct: one of a family that
    /// differ in nothing else. `input` is their JSON Schema, with the reference text of the operation.
    #[must_use]
    pub fn tabled<R: Serialize + JsonSchema + Send + 'static>(
        mut self,
        route: Route,
        input: impl Fn() -> Value + Send + Sync + 'static,
        run: impl Fn(Map<String, Value>, Call) -> BoxFuture<'static, Result<R, Fault>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.ops.push(Arc::new(Op {
            route,
            input: Lazy::new(input),
            reply: Lazy::new(written::<R>),
            call: Box::new(move |arguments, call| {
                let done = run(arguments, call);
                async move { reply(done.await?) }.boxed()
            }),
        }));
        self
    }
    /// Add an operation that is a tool and has no route of its own: bytes that a raw route takes or
    /// gives, as JSON for an agent.
    #[must_use]
    pub fn tool<O: Operation>(mut self, service: &O::Service) -> Self {
        self.tools.push(erased::<O>(service));
        self
    }
    /// Have `openapi.json` below [`base`](Api::base) lead to the document at the root.
    #[must_use]
    pub fn document_at_root(mut self) -> Self {
        self.redirects = true;
        self
    }
    /// Add an operation that a plain handler serves.
    #[must_use]
    pub fn raw(mut self, raw: Raw) -> Self {
        self.raws.push(raw);
        self
    }
    /// Serve a path of some operation when it is asked with a method that none of them has.
    #[must_use]
    pub fn other_methods(mut self, handler: MethodRouter) -> Self {
        self.other_methods = Some(handler);
        self
    }
    /// Serve what no route matches.
    #[must_use]
    pub fn fallback(mut self, handler: MethodRouter) -> Self {
        self.fallback = Some(handler);
        self
    }

    /// The operations in the order they were added.
    pub fn ops(&self) -> impl Iterator<Item = &Arc<Op>> {
        self.ops.iter()
    }
    /// The raw operations in the order they were added.
    pub fn raws(&self) -> impl Iterator<Item = &Raw> {
        self.raws.iter()
    }
    /// Whether something of its own answers at this path.
    pub(crate) fn serves(&self, path: &str) -> bool {
        let raws = self.raws.iter().filter(|raw| raw.handler.is_some());
        let ops = self.ops.iter().map(|op| op.route.path);
        ops.chain(raws.map(|raw| raw.route.path))
            .any(|own| own == path)
    }
    /// Every route of both kinds.
    pub fn routes(&self) -> impl Iterator<Item = Route> {
        self.ops
            .iter()
            .map(|op| op.route)
            .chain(self.raws.iter().map(|raw| raw.route))
    }
}

/// An operation without its types.
fn erased<O: Operation>(service: &O::Service) -> Arc<Op> {
    let service = service.clone();
    Arc::new(Op {
        route: O::ROUTE,
        input: Lazy::new(input::<O>),
        reply: Lazy::new(written::<O::Reply>),
        call: Box::new(move |arguments, call| {
            let service = service.clone();
            async move {
                let operation: O = parse(arguments)?;
                reply(operation.run(service, call).await?)
            }
            .boxed()
        }),
    })
}

fn reply(reply: impl Serialize) -> Result<Value, Fault> {
    serde_json::to_value(reply).map_err(|error| {
        Fault::internal(format!("the reply could not be written as JSON: {error}"))
    })
}

fn parse<O: Operation>(arguments: Map<String, Value>) -> Result<O, Fault> {
    let none = arguments.is_empty();
    serde_path_to_error::deserialize(Value::Object(arguments)).or_else(|error| {
        // a unit struct has no parameters and is no object either
        match none.then(|| O::deserialize(Value::Null)) {
            Some(Ok(operation)) => Ok(operation),
            _ => Err(wrong(&error)),
        }
    })
}

/// Name the parameter that is wrong, by its name and as a JSON pointer (RFC 6901).
fn wrong(error: &serde_path_to_error::Error<serde_json::Error>) -> Fault {
    let message = error.inner().to_string();
    let mut names: Vec<String> = error
        .path()
        .iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(index.to_string()),
            Segment::Map { key } => Some(key.clone()),
            Segment::Enum { variant } => Some(variant.clone()),
            Segment::Unknown => None,
        })
        .collect();
    // serde names a missing field in its message and an unknown one too; the path ends above it
    for lead in ["missing field `", "unknown field `"] {
        if let Some((name, _)) = message
            .strip_prefix(lead)
            .and_then(|rest| rest.split_once('`'))
        {
            names.push(name.to_owned());
        }
    }
    let pointer: String = names
        .iter()
        .map(|name| format!("/{}", name.replace('~', "~0").replace('/', "~1")))
        .collect();
    let sentence = if names.is_empty() {
        format!("invalid parameters: {message}")
    } else {
        format!("invalid parameter `{}`: {message}", names.join("."))
    };
    Fault::bad_request(sentence)
        .field(pointer, message)
        .code("VALIDATION_ERROR")
}
