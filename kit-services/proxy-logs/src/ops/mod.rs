//! The operations, by group.

use kit::{Api, Raw, Route};

use crate::Logs;

pub mod logs;

/// THE list of what the service offers.
pub fn api(logs: &Logs) -> Api {
    Api::new(
        "logs",
        "The requests that reached this container through the proxy, and what became of them",
    )
    .raw(
        Raw::new(
            Route::get("/").named("getLogsPage").cli("proxy logs page"),
            "The log as a web page: search, filters, a live tail, and requests sent again.",
        )
        .answers("text/html"),
    )
    .op::<logs::List>(logs)
    .op::<logs::GetStats>(logs)
    .op::<logs::Clear>(logs)
    .raw(logs::stream(logs))
}
