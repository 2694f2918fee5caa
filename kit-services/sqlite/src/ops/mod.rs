//! Where the service meets HTTP.

use axum::extract::Request;
use axum::response::Response;
use axum::routing::any;
use kit::{Api, Fault, Wire};

use crate::Sqlite;

pub mod database;
pub mod health;
pub mod history;
pub mod hrana;
pub mod kv;
pub mod transfer;

/// The operations of the service.
pub fn api(sqlite: &Sqlite) -> Api {
    let all = sqlite.clone();
    let rest = any(move |request: Request| {
        let sqlite = all.clone();
        async move { otherwise(sqlite, request).await }
    });
    let mut api = Api::new(
        "sqlite",
        "SQLite databases: SQL in transactions, a key-value store with a history, Hrana for libsql.",
    )
    .wire(Wire::SQLITE)
    .document_at_root()
    .op::<database::Transact>(sqlite)
    .op::<database::Create>(sqlite)
    .op::<database::List>(sqlite)
    .op::<database::Delete>(sqlite)
    .op::<database::Tables>(sqlite)
    .op::<database::Query>(sqlite)
    .op::<database::Maintain>(sqlite)
    .op::<history::List>(sqlite)
    .op::<history::Clear>(sqlite)
    .op::<history::DeleteEntry>(sqlite)
    .op::<history::Stats>(sqlite)
    .op::<health::Health>(sqlite)
    .op::<health::Cache>(sqlite)
    .op::<kv::List>(sqlite)
    .op::<kv::Remove>(sqlite)
    .op::<kv::Increment>(sqlite)
    .op::<kv::Decrement>(sqlite)
    .op::<kv::Pop>(sqlite)
    .op::<kv::RemoveElement>(sqlite)
    .op::<kv::BatchSet>(sqlite)
    .op::<kv::BatchGet>(sqlite)
    .op::<kv::BatchDelete>(sqlite)
    .op::<kv::KeyHistory>(sqlite)
    .op::<kv::KeySnapshot>(sqlite)
    .op::<kv::RollBack>(sqlite)
    .op::<kv::Diff>(sqlite)
    .op::<kv::TableSnapshot>(sqlite)
    .op::<kv::RollBackTable>(sqlite)
    .tool::<kv::GetTool>(sqlite)
    .tool::<kv::SetTool>(sqlite)
    .tool::<kv::ExistsTool>(sqlite)
    .tool::<kv::PushTool>(sqlite)
    .fallback(rest);
    let raws = kv::raws(sqlite)
        .into_iter()
        .chain(transfer::raws(sqlite))
        .chain(hrana::raws(sqlite));
    for raw in raws {
        api = api.raw(raw);
    }
    api
}

/// What no route matches.
async fn otherwise(sqlite: Sqlite, request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    if let Some(response) = kv::with_slashes(sqlite, request).await {
        return response;
    }
    let fault = Fault::not_found(format!(
        "no operation {method} {path}; the operations are listed in openapi.json"
    ));
    kit::http::refuse(Wire::SQLITE, &fault)
}

/// The sentence for a parameter that is wrong.
pub(crate) fn wrong(name: &str, message: &str) -> kit::Fault {
    kit::Fault::bad_request(format!("invalid parameter `{name}`: {message}"))
        .field(format!("/{name}"), message)
        .code("VALIDATION_ERROR")
}
