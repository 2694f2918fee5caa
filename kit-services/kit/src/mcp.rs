//! The MCP face of an [`Api`]: each operation a tool, over streamable HTTP at `/mcp`.
//!
//! There are no sessions: every request stands for itself and is answered with JSON, so nothing
//! is kept between calls and nothing has to be bounded. Whoever may call an operation over HTTP
//! may call its tool: the request's headers reach the operation, and guarded operations ask the
//! same gate. Raw routes are no tools: they carry bytes and streams; [`Api::tool`] adds one in their
//! place.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::any;
use http::header::{ACCEPT, ORIGIN};
use http::{HeaderMap, HeaderValue, Method};
use rmcp::ErrorData;
use rmcp::handler::server::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation,
    ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
    ToolAnnotations,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::{Map, Value};

use crate::api::Op;
use crate::http::{MAX_BODY, both, refuse};
use crate::{Api, Call, Fault, Verb};

pub(crate) fn routes(router: Router, api: &Arc<Api>) -> Router {
    let (wire, tools) = (api.wire, Tools(api.clone()));
    // The host is checked by the proxy: only a request for a host that leads here gets here.
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_max_request_body_bytes(MAX_BODY)
        .disable_allowed_hosts();
    let sessions = Arc::new(NeverSessionManager::default());
    let service = StreamableHttpService::new(move || Ok(tools.clone()), sessions, config);
    let handler = any(move |mut request: Request| async move {
        if !same_origin(request.headers()) {
            return refuse(
                wire,
                &Fault::forbidden("a page of another origin may not call these tools"),
            );
        }
        accept_both(request.headers_mut());
        service.handle(request).await.map(Body::new)
    });
    both(router, "/mcp", handler)
}

/// Whether the request comes from a page of this host, or from no page at all.
fn same_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else {
        return true;
    };
    let host = headers
        .get(crate::call::edge::HOST)
        .or_else(|| headers.get(http::header::HOST));
    match (
        origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://")),
        host,
    ) {
        (Some((_, origin)), Some(host)) => origin.as_bytes().eq_ignore_ascii_case(host.as_bytes()),
        _ => false,
    }
}

/// A client that takes anything takes both of what the protocol may answer.
fn accept_both(headers: &mut HeaderMap) {
    let anything = match headers.get(ACCEPT) {
        None => true,
        Some(value) => value.to_str().is_ok_and(|value| value.contains("*/*")),
    };
    if anything {
        let both = HeaderValue::from_static("application/json, text/event-stream");
        headers.insert(ACCEPT, both);
    }
}

/// The operations of an API as tools.
#[derive(Clone)]
struct Tools(Arc<Api>);

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        let server = Implementation::new(self.0.name, env!("CARGO_PKG_VERSION"));
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(server)
            .with_instructions(self.0.title)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(
            self.offered().map(|op| tool(op)).collect(),
        ))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(op) = self.offered().find(|op| op.route.name() == request.name) else {
            let message = format!("no tool `{}`; list them with tools/list", request.name);
            return Err(ErrorData::invalid_params(message, None));
        };
        let call = call(op, context.extensions.get::<http::request::Parts>());
        let arguments = request.arguments.unwrap_or_default();
        let answer = async {
            let call = op.admit(self.0.gate.as_ref(), call).await?;
            op.call(arguments, call).await
        };
        let answer = tokio::select! {
            answer = answer => answer,
            () = context.ct.cancelled() => Err(Fault::unavailable("the call was cancelled")),
        };
        Ok(self.result(answer).into())
    }
}

impl Tools {
    fn offered(&self) -> impl Iterator<Item = &Arc<Op>> {
        self.0.ops.iter().chain(&self.0.tools)
    }

    /// The JSON of a reply as text, and as it is where it is an object.
    fn result(&self, answer: Result<Value, Fault>) -> CallToolResult {
        match answer {
            Ok(reply) => {
                let mut result =
                    CallToolResult::success(vec![ContentBlock::text(reply.to_string())]);
                result.structured_content = Some(reply).filter(Value::is_object);
                result
            }
            Err(fault) => {
                let body = fault
                    .body
                    .clone()
                    .unwrap_or_else(|| (self.0.wire.failure)(&fault));
                let mut result = CallToolResult::error(vec![ContentBlock::text(fault.message)]);
                result.structured_content = Some(body).filter(Value::is_object);
                result
            }
        }
    }
}

/// The request behind a tool call as the operation would see it over HTTP.
fn call(op: &Op, parts: Option<&http::request::Parts>) -> Call {
    let mut call = Call::internal();
    if let Some(parts) = parts {
        call.uri = parts.uri.clone();
        call.headers = parts.headers.clone();
        call.extensions = parts.extensions.clone();
    }
    call.method = Method::from_bytes(op.route.verb.as_str().as_bytes()).unwrap_or(Method::POST);
    call
}

/// An operation as a tool. Its schema leaves out what the tool says elsewhere.
fn tool(op: &Op) -> Tool {
    let mut input: Map<String, Value> = op.input().as_object().cloned().unwrap_or_default();
    for said in ["title", "description"] {
        input.remove(said);
    }
    let verb = op.route.verb;
    let annotations = ToolAnnotations::new()
        .read_only(matches!(verb, Verb::Get | Verb::Head | Verb::Options))
        .destructive(verb == Verb::Delete)
        .idempotent(matches!(
            verb,
            Verb::Get | Verb::Head | Verb::Options | Verb::Put | Verb::Delete
        ));
    Tool::new(op.route.name(), op.doc().to_owned(), Arc::new(input)).annotate(annotations)
}
