//! One small service, seen through every face of its declaration.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::call::edge;
use crate::{Api, Call, Fault, Operation, Raw, Route, Verb, Wire};
use axum::Router;
use axum::body::Body;
use axum::routing::get;
use futures::FutureExt;
use http::{Request, Response, StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower::ServiceExt;

/// A shelf of books.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<BTreeMap<String, Book>>>);

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Book {
    title: String,
    pages: u32,
    /// Books it refers to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    refers: Vec<Book>,
}

/// List the books.
///
/// Sorted by key.
#[derive(Deserialize, JsonSchema)]
struct List {
    /// Only books with at least this many pages.
    #[serde(default)]
    pages: u32,
    /// Only these keys.
    keys: Option<Vec<String>>,
    #[serde(default)]
    order: Order,
}

#[derive(Default, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Order {
    #[default]
    Up,
    Down,
}

#[derive(Serialize, JsonSchema)]
struct Books {
    books: Vec<Book>,
}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/shelf/")
        .named("listBooks")
        .cli("shelf list");
    type Service = Shelf;
    type Reply = Books;
    async fn run(self, shelf: Shelf, _: Call) -> Result<Books, Fault> {
        let shelf = shelf.0.lock().unwrap();
        let mut books: Vec<Book> = shelf
            .iter()
            .filter(|(key, book)| {
                book.pages >= self.pages && self.keys.as_ref().is_none_or(|keys| keys.contains(key))
            })
            .map(|(_, book)| book.clone())
            .collect();
        if self.order == Order::Down {
            books.reverse();
        }
        Ok(Books { books })
    }
}

/// Count the books.
#[derive(Deserialize, JsonSchema)]
struct Count {}

impl Operation for Count {
    const ROUTE: Route = Route::get("/api/v1/shelf/")
        .selected_by("count")
        .cli("shelf count");
    type Service = Shelf;
    type Reply = usize;
    async fn run(self, shelf: Shelf, _: Call) -> Result<usize, Fault> {
        Ok(shelf.0.lock().unwrap().len())
    }
}

/// Put a book on the shelf.
#[derive(Deserialize, JsonSchema)]
struct Put {
    /// Where it stands.
    key: String,
    /// Replace the one that is there.
    #[serde(default)]
    replace: bool,
    title: String,
    pages: u32,
    #[serde(default)]
    refers: Vec<Book>,
}

impl Operation for Put {
    const ROUTE: Route = Route::put("/api/v1/shelf/{key}")
        .also(Verb::Patch)
        .query(&["replace"])
        .status(201)
        .says("The book stands")
        .named("putBook")
        .cli("shelf put");
    type Service = Shelf;
    type Reply = Book;
    async fn run(self, shelf: Shelf, _: Call) -> Result<Book, Fault> {
        let mut shelf = shelf.0.lock().unwrap();
        if shelf.contains_key(&self.key) && !self.replace {
            return Err(
                Fault::conflict(format!("`{}` is taken; add replace=true", self.key)).code("TAKEN"),
            );
        }
        let book = Book {
            title: self.title,
            pages: self.pages,
            refers: self.refers,
        };
        shelf.insert(self.key, book.clone());
        Ok(book)
    }
}

/// Get a book.
#[derive(Deserialize, JsonSchema)]
struct Get {
    book: String,
}

impl Operation for Get {
    // another name for the same place in the path
    const ROUTE: Route = Route::get("/api/v1/shelf/{book}")
        .named("getBook")
        .cli("shelf get");
    type Service = Shelf;
    type Reply = Book;
    async fn run(self, shelf: Shelf, _: Call) -> Result<Book, Fault> {
        let found = shelf.0.lock().unwrap().get(&self.book).cloned();
        found.ok_or_else(|| Fault::not_found(format!("no book `{}`", self.book)))
    }
}

/// Say where a call comes from.
#[derive(Deserialize, JsonSchema)]
struct Whence;

#[derive(Serialize, JsonSchema)]
struct From {
    index: u32,
    client: Option<String>,
    who: Option<String>,
}

#[derive(Clone)]
struct Who(String);

impl Operation for Whence {
    const ROUTE: Route = Route::post("/api/v1/whence").named("whence");
    type Service = Shelf;
    type Reply = From;
    async fn run(self, _: Shelf, call: Call) -> Result<From, Fault> {
        Ok(From {
            index: call.index(),
            client: call.client().map(|ip| ip.to_string()),
            who: call.extensions.get::<Who>().map(|who| who.0.clone()),
        })
    }
}

/// Fall over.
#[derive(Deserialize, JsonSchema)]
struct Panic {}

impl Operation for Panic {
    const ROUTE: Route = Route::delete("/api/v1/panic")
        .with_body()
        .named("panic")
        .open();
    type Service = Shelf;
    type Reply = ();
    async fn run(self, _: Shelf, _: Call) -> Result<(), Fault> {
        panic!("on purpose");
    }
}

fn api(shelf: &Shelf) -> Api {
    Api::new("shelf", "A shelf of books.")
        .op::<List>(shelf)
        .op::<Count>(shelf)
        .op::<Put>(shelf)
        .op::<Get>(shelf)
        .op::<Whence>(shelf)
        .op::<Panic>(shelf)
        .raw(
            Raw::new(Route::get("/").named("page"), "The page.")
                .answers("text/html")
                .handler(get(async || axum::response::Html("<p>"))),
        )
        .raw(Raw::new(
            Route::method("PROPFIND", "/dav/{*path}").named("propfind"),
            "Properties.",
        ))
}

fn guarded(shelf: &Shelf) -> Api {
    api(shelf).wire(Wire::CONTROL).gate(|_, mut call| {
        async move {
            let token = call
                .headers
                .get(header::AUTHORIZATION)
                .and_then(|value| value.to_str().ok());
            match token
                .and_then(|token| token.strip_prefix("Bearer "))
                .map(str::to_owned)
            {
                Some(name) => {
                    call.extensions.insert(Who(name));
                    Ok(call)
                }
                None => Err(Fault::unauthorized("who are you? send a token")),
            }
        }
        .boxed()
    })
}

fn shelf() -> Shelf {
    let shelf = Shelf::default();
    let book = |title: &str, pages| Book {
        title: title.into(),
        pages,
        refers: Vec::new(),
    };
    shelf.0.lock().unwrap().extend([
        ("a".to_owned(), book("Anna", 100)),
        ("b/c".to_owned(), book("Buch", 200)),
    ]);
    shelf
}

async fn send(router: &Router, request: Request<Body>) -> Response<Body> {
    router.clone().oneshot(request).await.unwrap()
}

fn request(line: &str, body: &str) -> Request<Body> {
    let (method, uri) = line.split_once(' ').unwrap();
    Request::builder()
        .method(method)
        .uri(uri)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_owned()))
        .unwrap()
}

async fn parsed(response: Response<Body>) -> (u16, Value) {
    let status = response.status().as_u16();
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX)
        .await
        .unwrap();
    let body = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into());
    (status, body)
}

async fn ask(router: &Router, line: &str, body: &str) -> (u16, Value) {
    parsed(send(router, request(line, body)).await).await
}

fn titles(reply: &Value) -> Vec<&str> {
    reply["books"]
        .as_array()
        .unwrap()
        .iter()
        .map(|book| book["title"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn query_values_are_typed_and_have_defaults() {
    let router = api(&shelf()).router();
    for (line, want) in [
        ("GET /api/v1/shelf/", vec!["Anna", "Buch"]),
        ("GET /api/v1/shelf", vec!["Anna", "Buch"]),
        ("GET /api/v1/shelf?pages=150", vec!["Buch"]),
        ("GET /api/v1/shelf?order=down", vec!["Buch", "Anna"]),
        ("GET /api/v1/shelf?keys=a,x", vec!["Anna"]),
        ("GET /api/v1/shelf?keys=a&keys=b%2Fc", vec!["Anna", "Buch"]),
        ("GET /api/v1/shelf?keys=", vec!["Anna", "Buch"]),
        (
            "GET /api/v1/shelf?unknown=1&pages=1&pages=",
            vec!["Anna", "Buch"],
        ),
    ] {
        let (status, reply) = ask(&router, line, "").await;
        assert_eq!((status, titles(&reply)), (200, want), "{line}");
    }
}

#[tokio::test]
async fn a_selector_tells_operations_on_one_path_apart() {
    let router = api(&shelf()).router();
    assert_eq!(
        ask(&router, "GET /api/v1/shelf?count", "").await,
        (200, json!(2))
    );
    assert_eq!(
        ask(&router, "GET /api/v1/shelf/?count=", "").await,
        (200, json!(2))
    );
}

#[tokio::test]
async fn what_is_wrong_is_named_by_a_pointer() {
    let router = guarded(&shelf()).router();
    for (line, body, pointer) in [
        ("PUT /api/v1/shelf/x", json!({ "title": "T" }), "/pages"),
        (
            "PUT /api/v1/shelf/x",
            json!({ "title": "T", "pages": "many" }),
            "/pages",
        ),
        (
            "PUT /api/v1/shelf/x",
            json!({ "title": "T", "pages": -1 }),
            "/pages",
        ),
        (
            "PUT /api/v1/shelf/x",
            json!({ "title": "T", "pages": 1, "refers": [{ "title": "U", "pages": 2, "refers": [3] }] }),
            "/refers/0/refers/0",
        ),
        (
            "PUT /api/v1/shelf/x",
            json!({ "title": "T", "pages": 1, "refers": [{ "title": "U" }] }),
            "/refers/0/pages",
        ),
        (
            "PUT /api/v1/shelf/x?replace=maybe",
            json!({ "title": "T", "pages": 1 }),
            "/replace",
        ),
        ("GET /api/v1/shelf?pages=many", json!({}), "/pages"),
        ("GET /api/v1/shelf?order=sideways", json!({}), "/order"),
    ] {
        let mut request = request(line, &body.to_string());
        request
            .headers_mut()
            .insert(header::AUTHORIZATION, "Bearer me".parse().unwrap());
        let (status, reply) = parsed(send(&router, request).await).await;
        assert_eq!(status, 400, "{line} {body}: {reply}");
        assert_eq!(reply["statusCode"], 400);
        assert_eq!(reply["code"], "VALIDATION_ERROR");
        assert_eq!(
            reply["data"][0]["instancePath"], pointer,
            "{line} {body}: {reply}"
        );
    }
}

#[tokio::test]
async fn bodies_of_any_shape_get_an_answer() {
    let router = api(&shelf()).router();
    for (line, body, status) in [
        ("POST /api/v1/whence", "", 200),
        ("POST /api/v1/whence", "  \n", 200),
        ("POST /api/v1/whence", "null", 200),
        ("POST /api/v1/whence", "{}", 200),
        ("POST /api/v1/whence", "[]", 400),
        ("POST /api/v1/whence", "{", 400),
        ("POST /api/v1/whence", "\u{0}", 400),
        ("GET /api/v1/shelf", "{ this is no json", 200),
    ] {
        let (got, reply) = ask(&router, line, body).await;
        assert_eq!(got, status, "{line} {body:?}: {reply}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(ask(&router, "POST /api/v1/whence", &deep).await.0, 400);
}

#[tokio::test]
async fn a_body_over_the_bound_is_refused() {
    let router = api(&shelf()).router();
    let large = " ".repeat(crate::http::MAX_BODY + 1);
    assert_eq!(ask(&router, "POST /api/v1/whence", &large).await.0, 413);
    // without a length it is read up to the bound
    let piece: Result<Vec<u8>, std::io::Error> = Ok(vec![b' '; 1 << 20]);
    let pieces = futures::stream::iter(
        (0..32).map(move |_| Ok::<_, std::io::Error>(piece.as_ref().unwrap().clone())),
    );
    let request = Request::post("/api/v1/whence")
        .body(Body::from_stream(pieces))
        .unwrap();
    assert_eq!(parsed(send(&router, request).await).await.0, 413);
    let broken = futures::stream::iter([Ok(vec![b'{']), Err(std::io::Error::other("gone"))]);
    let request = Request::post("/api/v1/whence")
        .body(Body::from_stream(broken))
        .unwrap();
    assert_eq!(parsed(send(&router, request).await).await.0, 400);
}

#[tokio::test]
async fn paths_may_carry_what_is_encoded() {
    let router = api(&shelf()).router();
    assert_eq!(
        ask(&router, "GET /api/v1/shelf/b%2Fc", "").await.1["title"],
        "Buch"
    );
    assert_eq!(
        ask(&router, "GET /api/v1/shelf/b%2Fc/", "").await.1["title"],
        "Buch"
    );
    assert_eq!(ask(&router, "GET /api/v1/shelf/%FF", "").await.0, 400);
    let (status, reply) = ask(&router, "GET /api/v1/shelf/nothing", "").await;
    assert_eq!(
        (status, reply),
        (
            404,
            json!({ "error": "Not Found", "message": "no book `nothing`" })
        )
    );
}

#[tokio::test]
async fn both_verbs_answer_and_status_is_as_declared() {
    let router = api(&shelf()).router();
    let body = r#"{"title": "New", "pages": 1}"#;
    assert_eq!(ask(&router, "PUT /api/v1/shelf/n", body).await.0, 201);
    let (status, reply) = ask(&router, "PATCH /api/v1/shelf/n", body).await;
    assert_eq!((status, &reply["code"]), (409, &json!("TAKEN")));
    assert_eq!(
        ask(&router, "PATCH /api/v1/shelf/n?replace=true", body)
            .await
            .0,
        201
    );
}

#[tokio::test]
async fn what_is_not_there_says_so_in_the_wires_shape() {
    let router = api(&shelf()).router();
    let (status, reply) = ask(&router, "GET /nothing", "").await;
    assert_eq!((status, &reply["error"]), (404, &json!("Not Found")));
    let response = send(&router, request("DELETE /api/v1/shelf/a", "")).await;
    let allow = response.headers()[header::ALLOW]
        .to_str()
        .unwrap()
        .to_owned();
    let mut allow: Vec<_> = allow.split(',').collect();
    allow.sort_unstable();
    assert_eq!(allow, ["GET", "HEAD", "PATCH", "PUT"]);
    let (status, reply) = parsed(response).await;
    assert_eq!(
        (status, &reply["error"]),
        (405, &json!("Method Not Allowed"))
    );
    let control = guarded(&shelf()).router();
    let (status, reply) = ask(&control, "GET /nothing", "").await;
    assert_eq!((status, &reply["statusCode"]), (404, &json!(404)));
}

#[tokio::test]
async fn a_panic_is_the_failure_of_one_call() {
    let router = api(&shelf()).router();
    let (status, reply) = ask(&router, "DELETE /api/v1/panic", "").await;
    assert_eq!(
        (status, &reply["error"]),
        (500, &json!("Internal Server Error"))
    );
    assert!(!reply.to_string().contains("on purpose"), "{reply}");
    assert_eq!(ask(&router, "GET /api/v1/shelf", "").await.0, 200);
}

#[tokio::test]
async fn the_edge_speaks_through_headers() {
    let router = api(&shelf()).router();
    let mut request = request("POST /api/v1/whence", "");
    request
        .headers_mut()
        .insert(edge::INDEX, "7".parse().unwrap());
    request
        .headers_mut()
        .insert(edge::CLIENT, "2001:db8::1".parse().unwrap());
    let (_, reply) = parsed(send(&router, request).await).await;
    assert_eq!(
        reply,
        json!({ "index": 7, "client": "2001:db8::1", "who": null })
    );
}

#[tokio::test]
async fn the_gate_is_asked_unless_the_operation_is_open() {
    let router = guarded(&shelf()).router();
    assert_eq!(ask(&router, "POST /api/v1/whence", "").await.0, 401);
    assert_eq!(ask(&router, "DELETE /api/v1/panic", "").await.0, 500);
    // nobody learns from a 400 what a 401 would have hidden
    assert_eq!(ask(&router, "PUT /api/v1/shelf/%FF", "{").await.0, 401);
    let mut request = request("POST /api/v1/whence", "");
    request
        .headers_mut()
        .insert(header::AUTHORIZATION, "Bearer me".parse().unwrap());
    let (_, reply) = parsed(send(&router, request).await).await;
    assert_eq!(
        reply,
        json!({
            "statusCode": 200, "message": "OK", "data": { "index": 1, "client": null, "who": "me" },
        })
    );
}

#[tokio::test]
async fn health_and_documents_answer() {
    let router = api(&shelf()).router();
    let (status, health) = ask(&router, "GET /api/v1/shelf/health", "").await;
    assert_eq!(
        (status, &health["status"], &health["service"]),
        (200, &json!("ok"), &json!("shelf"))
    );
    assert!(
        health["memory"]["rss"].as_u64().is_some_and(|rss| rss > 0),
        "{health}"
    );
    let (_, document) = ask(&router, "GET /api/v1/shelf/openapi.json", "").await;
    let (_, yaml) = ask(&router, "GET /api/v1/shelf/openapi.yaml", "").await;
    assert_eq!(ask(&router, "GET /openapi.json", "").await.1, document);
    assert_eq!(ask(&router, "GET /openapi.yaml", "").await.1, yaml);
    assert_eq!(
        yaml_serde::from_str::<Value>(yaml.as_str().unwrap()).unwrap(),
        document
    );
}

#[test]
fn the_document_reads_like_this() {
    insta::assert_json_snapshot!("kit_document", api(&Shelf::default()).document());
    insta::assert_json_snapshot!(
        "control_document",
        guarded(&Shelf::default()).document()["paths"]["/api/v1/shelf/{book}"]
    );
}

#[test]
#[should_panic(expected = "declared twice")]
fn an_operation_declared_twice_does_not_start() {
    let shelf = Shelf::default();
    let _ = Api::new("shelf", "")
        .op::<Get>(&shelf)
        .op::<Get>(&shelf)
        .router();
}

/// A JSON-RPC message to the MCP endpoint, as an agent sends it.
async fn rpc(router: &Router, headers: &[(&str, &str)], message: Value) -> (u16, Value) {
    let mut request = request("POST /mcp", &message.to_string());
    request.headers_mut().insert(
        header::HOST,
        "p-c-shelf-1.node.containers.example".parse().unwrap(),
    );
    request.headers_mut().insert(
        header::ACCEPT,
        "application/json, text/event-stream".parse().unwrap(),
    );
    for (name, value) in headers {
        request.headers_mut().insert(
            header::HeaderName::from_bytes(name.as_bytes()).unwrap(),
            value.parse().unwrap(),
        );
    }
    parsed(send(router, request).await).await
}

fn tool_call(name: &str, arguments: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": { "name": name, "arguments": arguments } })
}

#[tokio::test]
async fn an_agent_finds_and_calls_the_tools() {
    let router = api(&shelf()).router();
    let (status, hello) = rpc(&router, &[], json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": { "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } },
    })).await;
    assert_eq!(status, 200, "{hello}");
    assert_eq!(hello["result"]["serverInfo"]["name"], "shelf");
    assert_eq!(hello["result"]["instructions"], "A shelf of books.");
    assert_eq!(hello["result"]["protocolVersion"], "2025-06-18");
    assert!(hello["result"]["capabilities"]["tools"].is_object());
    let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    assert_eq!(rpc(&router, &[], initialized).await.0, 202);

    let (_, list) = rpc(
        &router,
        &[],
        json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" }),
    )
    .await;
    insta::assert_json_snapshot!("tools", list["result"]["tools"]);

    let (_, got) = rpc(&router, &[], tool_call("getBook", json!({ "book": "b/c" }))).await;
    let want = json!({ "title": "Buch", "pages": 200 });
    assert_eq!(got["id"], 7);
    assert_eq!(got["result"]["structuredContent"], want);
    assert_eq!(
        serde_json::from_str::<Value>(got["result"]["content"][0]["text"].as_str().unwrap())
            .unwrap(),
        want
    );
    assert_ne!(got["result"]["isError"], true);
    let (_, count) = rpc(&router, &[], tool_call("get_api_v1_shelf_count", json!({}))).await;
    assert_eq!(count["result"]["content"][0]["text"], "2");
    let no_arguments = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": { "name": "whence" } });
    assert_eq!(
        rpc(&router, &[], no_arguments).await.1["result"]["structuredContent"]["index"],
        1
    );
}

#[tokio::test]
async fn a_tool_that_fails_says_so_as_a_result() {
    let router = api(&shelf()).router();
    let (status, got) = rpc(&router, &[], tool_call("getBook", json!({ "book": "x" }))).await;
    assert_eq!(status, 200);
    assert_eq!(got["result"]["isError"], true);
    assert_eq!(got["result"]["content"][0]["text"], "no book `x`");
    let (_, got) = rpc(&router, &[], tool_call("getBook", json!({ "book": 3 }))).await;
    assert_eq!(got["result"]["isError"], true);
    assert_eq!(
        got["result"]["structuredContent"]["fields"][0]["instancePath"],
        "/book"
    );
    let (_, got) = rpc(&router, &[], tool_call("panic", json!({}))).await;
    assert_eq!(got["result"]["isError"], true);
    let (_, got) = rpc(&router, &[], tool_call("nothing", json!({}))).await;
    assert!(
        got["error"]["message"]
            .as_str()
            .unwrap()
            .contains("no tool `nothing`"),
        "{got}"
    );
}

#[tokio::test]
async fn a_tool_call_carries_the_request_and_asks_the_gate() {
    let router = guarded(&shelf()).router();
    let (_, got) = rpc(&router, &[], tool_call("whence", json!({}))).await;
    assert_eq!(got["result"]["isError"], true);
    assert_eq!(
        got["result"]["content"][0]["text"],
        "who are you? send a token"
    );
    let headers = [
        ("authorization", "Bearer me"),
        (edge::INDEX, "3"),
        (edge::CLIENT, "192.0.2.1"),
    ];
    let (_, got) = rpc(&router, &headers, tool_call("whence", json!({}))).await;
    assert_eq!(
        got["result"]["structuredContent"],
        json!({ "index": 3, "client": "192.0.2.1", "who": "me" })
    );
    // what is open to all is open here
    let (_, got) = rpc(&router, &[], tool_call("panic", json!({}))).await;
    assert_eq!(got["result"]["structuredContent"]["statusCode"], 500);
}

#[tokio::test]
async fn the_mcp_endpoint_knows_its_visitors() {
    let router = api(&shelf()).router();
    let list = || json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" });
    let host = [(edge::HOST, "p-c-shelf-1.node.containers.example:8443")];
    let own = [
        host[0],
        ("origin", "https://p-c-shelf-1.node.containers.example:8443"),
    ];
    let other = [host[0], ("origin", "https://evil.example")];
    let null = [host[0], ("origin", "null")];
    assert_eq!(rpc(&router, &own, list()).await.0, 200);
    assert_eq!(rpc(&router, &other, list()).await.0, 403);
    assert_eq!(rpc(&router, &null, list()).await.0, 403);
    assert_eq!(rpc(&router, &[("accept", "*/*")], list()).await.0, 200);
    assert_eq!(
        rpc(&router, &[("content-type", "text/plain")], list())
            .await
            .0,
        415
    );
    assert_eq!(
        rpc(&router, &[], json!({ "not": "json-rpc" })).await.0 / 100,
        4
    );
    let mut stream = request("GET /mcp", "");
    stream.headers_mut().insert(
        header::HOST,
        "p-c-shelf-1.node.containers.example".parse().unwrap(),
    );
    assert_eq!(
        send(&router, stream).await.status(),
        StatusCode::METHOD_NOT_ALLOWED
    );
    let long = json!({ "jsonrpc": "2.0", "id": 2, "method": "x".repeat(crate::http::MAX_BODY) });
    assert_eq!(rpc(&router, &[], long).await.0, 413);
}

/// Write a note, unless somebody wrote it since.
#[derive(Deserialize, JsonSchema)]
struct Write {
    /// The version that is replaced.
    #[serde(rename = "if-match")]
    if_match: Option<String>,
    text: String,
}

impl Operation for Write {
    const ROUTE: Route = Route::put("/api/v1/note")
        .headers(&["if-match"])
        .named("writeNote");
    type Service = Shelf;
    type Reply = Value;
    async fn run(self, _: Shelf, _: Call) -> Result<Value, Fault> {
        Ok(json!([self.if_match, self.text]))
    }
}

#[tokio::test]
async fn a_parameter_may_travel_in_a_header() {
    let api = Api::new("note", "A note.").op::<Write>(&Shelf::default());
    let document = api.document();
    let operation = &document["paths"]["/api/v1/note"]["put"];
    assert_eq!(operation["parameters"][0]["in"], "header");
    assert_eq!(operation["parameters"][0]["name"], "if-match");
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    assert!(body["properties"].get("if-match").is_none(), "{body}");

    let router = api.router();
    let mut with = request("PUT /api/v1/note", r#"{"text":"a"}"#);
    with.headers_mut().insert("If-Match", "v7".parse().unwrap());
    assert_eq!(
        parsed(send(&router, with).await).await,
        (200, json!(["v7", "a"]))
    );
    let (_, without) = ask(&router, "PUT /api/v1/note", r#"{"text":"a"}"#).await;
    assert_eq!(without, json!([null, "a"]));
}
