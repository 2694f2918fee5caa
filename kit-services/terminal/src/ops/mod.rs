//! The operations, by group.

use kit::{Api, Fault, Raw, Route};

use crate::{Terminal, socket};

pub mod automation;
pub mod execution;
pub mod page;
pub mod sessions;
pub mod system;

/// THE list of what the service offers.
pub fn api(terminal: &Terminal) -> Api {
    Api::new(
        "terminal",
        "Shells that outlive their clients, commands, and what runs on the machine",
    )
    .raw(
        Raw::new(
            Route::get("/")
                .named("getWebInterface")
                .cli("terminal sessions web"),
            "The terminal as a web page. Its parameters are handed to the session it opens.",
        )
        .answers("text/html")
        .parameters::<page::Page>(),
    )
    .op::<execution::Execute>(terminal)
    .op::<execution::GetResult>(terminal)
    .op::<execution::Abort>(terminal)
    .op::<sessions::Create>(terminal)
    .op::<sessions::List>(terminal)
    .op::<sessions::ListHistory>(terminal)
    .op::<sessions::Delete>(terminal)
    .raw(sessions::raw(terminal))
    .raw(socket::raw(terminal))
    .op::<automation::Write>(terminal)
    .op::<automation::Press>(terminal)
    .op::<automation::Paste>(terminal)
    .op::<automation::Mouse>(terminal)
    .op::<automation::TakeSnapshot>(terminal)
    .op::<automation::Find>(terminal)
    .op::<automation::Wait>(terminal)
    .op::<automation::Keys>(terminal)
    .op::<automation::State>(terminal)
    .op::<automation::Metrics>(terminal)
    .op::<system::ListProcesses>(terminal)
    .op::<system::GetProcess>(terminal)
    .op::<system::SendSignal>(terminal)
    .op::<system::Freeze>(terminal)
    .op::<system::Unfreeze>(terminal)
    .op::<system::ListPorts>(terminal)
    .op::<system::Resources>(terminal)
}

/// Refuse what this kit cannot do, rather than do something else.
pub fn refuse_ssh(host: Option<&String>, user: Option<&String>) -> Result<(), Fault> {
    if host.or(user).is_some_and(|text| !text.is_empty()) {
        return Err(Fault::new(
            http::StatusCode::NOT_IMPLEMENTED,
            "sessions on other machines are not available; run `ssh` in a session of this one",
        )
        .code("SSH_NOT_AVAILABLE"));
    }
    Ok(())
}
