//! Where clients of libsql find their databases.
//!
//! `libsql://HOST/api/v1/sqlite/hrana/app/` is the database `app`, made where it is missing;
//! `…/hrana-read/app/` is the same one, only to be read; and `libsql://HOST` is the database
//! `default`, or the one that `?db=` names. Clients over HTTP need the slash at the end: they put what
//! they ask for in place of what follows the last one.

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::future::BoxFuture;
use http::StatusCode;
use http::header::UPGRADE;
use kit::{Fault, Raw, Route};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::Sqlite;
use crate::hrana::stream::Target;
use crate::hrana::{Encoding, http as over_http, socket};
use crate::name::Name;

/// The database of clients that name none.
const DEFAULT: &str = "default";
const WRITING: &str = "/api/v1/sqlite/hrana/";
const READING: &str = "/api/v1/sqlite/hrana-read/";

/// Which database.
#[derive(Deserialize, JsonSchema)]
#[expect(
    dead_code,
    reason = "handlers read it themselves; this is its reference"
)]
struct OfPath {
    /// Name of the database, or its path below `/hoody/databases`; made where it is missing.
    db: String,
}

/// Which database.
#[derive(Deserialize, JsonSchema)]
#[expect(
    dead_code,
    reason = "handlers read it themselves; this is its reference"
)]
struct OfQuery {
    /// Name of the database, or its path below `/hoody/databases`; `default` where not given.
    db: Option<String>,
}

fn target(request: &Request) -> Result<Target, Fault> {
    let path = request.uri().path();
    let of = |prefix: &str| {
        let rest = path.split_once(prefix)?.1;
        rest.split('/').next()
    };
    let decoded = |text: &str| {
        let pair = format!("db={}", text.replace('+', "%2B"));
        kit::arguments::query_pairs(&pair).pop().map(|(_, it)| it)
    };
    let (db, reads_only) = match (of(WRITING), of(READING)) {
        (Some(db), _) => (decoded(db).unwrap_or_default(), false),
        (None, Some(db)) => (decoded(db).unwrap_or_default(), true),
        (None, None) => {
            let pairs = kit::arguments::query_pairs(request.uri().query().unwrap_or_default());
            let db = pairs
                .into_iter()
                .find(|(name, it)| name == "db" && !it.is_empty());
            (db.map_or_else(|| DEFAULT.to_owned(), |(_, it)| it), false)
        }
    };
    Ok(Target {
        name: Name::parse(&db)?,
        reads_only,
    })
}

/// The encoding that a path names.
fn encoding(request: &Request) -> Encoding {
    match request.uri().path().contains("/v3-protobuf") {
        true => Encoding::Protobuf,
        false => Encoding::Json,
    }
}

fn refuse(request_encoding: Encoding, fault: &Fault) -> Response {
    let (status, error) = over_http::of_fault(fault);
    over_http::refuse(request_encoding, status, &error)
}

async fn supported() -> Response {
    (StatusCode::OK, "supported\n").into_response()
}

async fn pipeline(sqlite: Sqlite, request: Request) -> Response {
    let encoding = encoding(&request);
    match target(&request) {
        Ok(target) => over_http::pipeline(sqlite, target, encoding, request).await,
        Err(fault) => refuse(encoding, &fault),
    }
}

async fn cursor(sqlite: Sqlite, request: Request) -> Response {
    let encoding = encoding(&request);
    match target(&request) {
        Ok(target) => over_http::cursor(sqlite, target, encoding, request).await,
        Err(fault) => refuse(encoding, &fault),
    }
}

async fn connect(sqlite: Sqlite, request: Request) -> Response {
    let target = match target(&request) {
        Ok(target) => target,
        Err(fault) => return refuse(Encoding::Json, &fault),
    };
    let (mut parts, _) = request.into_parts();
    match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => socket::upgrade(sqlite, target, upgrade),
        Err(rejection) => {
            let fault = Fault::new(
                StatusCode::UPGRADE_REQUIRED,
                format!(
                    "connect with a WebSocket, or use Hrana over HTTP below this path \
                     (v2/pipeline, v3/pipeline): {rejection}"
                ),
            )
            .code("UPGRADE_REQUIRED");
            refuse(Encoding::Json, &fault)
        }
    }
}

/// The page, or a WebSocket.
async fn root(sqlite: Sqlite, request: Request) -> Response {
    if request.headers().contains_key(UPGRADE) {
        return connect(sqlite, request).await;
    }
    match sqlite.config.page {
        Some(page) => page(),
        None => refuse(
            Encoding::Json,
            &Fault::not_found("there is no page here; the operations are listed in openapi.json"),
        ),
    }
}

type Served = BoxFuture<'static, Response>;

/// Every path of Hrana.
pub fn raws(sqlite: &Sqlite) -> Vec<Raw> {
    let handler = |serve: fn(Sqlite, Request) -> Served| {
        let sqlite = sqlite.clone();
        move |request: Request| serve(sqlite.clone(), request)
    };
    let mut raws = vec![
        Raw::new(
            Route::get("/").named("sqlite_page"),
            "The query page; over a WebSocket, Hrana on the database `default`, or `db`.",
        )
        .answers("text/html")
        .parameters::<OfQuery>()
        .handler(get(handler(|sqlite, request| Box::pin(root(sqlite, request))))),
        Raw::new(
            Route::get("/api/v1/sqlite/hrana/{db}").named("connectHrana"),
            "Connect to a database with a client of libsql, over a WebSocket.\n\nClients take this \
             address with a slash at its end, for both of their transports. Hrana 2 and 3, \
             with the subprotocols `hrana3-protobuf`, `hrana3`, `hrana2` and `hrana1`; the `jwt` of \
             its hello is not looked at. Streams end with the connection. A transaction in which \
             nothing is done for 30 seconds is rolled back.",
        )
        .websocket("hrana3")
        .parameters::<OfPath>()
        .handler(get(handler(|sqlite, request| {
            Box::pin(connect(sqlite, request))
        }))),
        Raw::new(
            Route::get("/api/v1/sqlite/hrana-read/{db}").named("connectHranaToRead"),
            "The same, where nothing can be written.",
        )
        .websocket("hrana3")
        .parameters::<OfPath>()
        .handler(get(handler(|sqlite, request| {
            Box::pin(connect(sqlite, request))
        }))),
    ];
    for (version, paths) in VERSIONS {
        for (at, [check, pipelines, cursors]) in paths.iter().enumerate() {
            let described = |raw: Raw| match at {
                2 => raw.parameters::<OfQuery>(),
                _ => raw.parameters::<OfPath>(),
            };
            let kind = match *version {
                "3 in Protobuf" => "application/x-protobuf",
                _ => "application/json",
            };
            raws.push(
                described(
                    Raw::new(
                        Route::get(check),
                        "Whether this version of Hrana over HTTP is supported: it is.",
                    )
                    .answers("text/plain"),
                )
                .handler(get(supported)),
            );
            raws.push(
                described(
                    Raw::new(
                        Route::post(pipelines),
                        "Run a pipeline of requests on a stream, with Hrana over HTTP.\n\nThe \
                         baton of the answer leads to the stream; one that nobody asks anything \
                         for 60 seconds is closed, and for 30 in a transaction.",
                    )
                    .takes(kind)
                    .answers(kind),
                )
                .handler(post(handler(|sqlite, request| {
                    Box::pin(pipeline(sqlite, request))
                }))),
            );
            if !cursors.is_empty() {
                raws.push(
                    described(
                        Raw::new(
                            Route::post(cursors),
                            "Run a batch on a stream, with Hrana over HTTP; its rows come as they \
                             are found.",
                        )
                        .takes(kind)
                        .answers(kind),
                    )
                    .handler(post(handler(|sqlite, request| {
                        Box::pin(cursor(sqlite, request))
                    }))),
                );
            }
        }
    }
    raws
}

/// Per version: where it is asked for, where pipelines go, and where cursors do.
const VERSIONS: &[(&str, [[&str; 3]; 3])] = &[
    (
        "2",
        [
            [
                "/api/v1/sqlite/hrana/{db}/v2",
                "/api/v1/sqlite/hrana/{db}/v2/pipeline",
                "",
            ],
            [
                "/api/v1/sqlite/hrana-read/{db}/v2",
                "/api/v1/sqlite/hrana-read/{db}/v2/pipeline",
                "",
            ],
            ["/v2", "/v2/pipeline", ""],
        ],
    ),
    (
        "3",
        [
            [
                "/api/v1/sqlite/hrana/{db}/v3",
                "/api/v1/sqlite/hrana/{db}/v3/pipeline",
                "/api/v1/sqlite/hrana/{db}/v3/cursor",
            ],
            [
                "/api/v1/sqlite/hrana-read/{db}/v3",
                "/api/v1/sqlite/hrana-read/{db}/v3/pipeline",
                "/api/v1/sqlite/hrana-read/{db}/v3/cursor",
            ],
            ["/v3", "/v3/pipeline", "/v3/cursor"],
        ],
    ),
    (
        "3 in Protobuf",
        [
            [
                "/api/v1/sqlite/hrana/{db}/v3-protobuf",
                "/api/v1/sqlite/hrana/{db}/v3-protobuf/pipeline",
                "/api/v1/sqlite/hrana/{db}/v3-protobuf/cursor",
            ],
            [
                "/api/v1/sqlite/hrana-read/{db}/v3-protobuf",
                "/api/v1/sqlite/hrana-read/{db}/v3-protobuf/pipeline",
                "/api/v1/sqlite/hrana-read/{db}/v3-protobuf/cursor",
            ],
            [
                "/v3-protobuf",
                "/v3-protobuf/pipeline",
                "/v3-protobuf/cursor",
            ],
        ],
    ),
];
