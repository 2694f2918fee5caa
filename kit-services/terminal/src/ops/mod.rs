//! The operations, by group.

use kit::{Api, Fault, Raw, Route};

use crate::session::{Over, Session};
use crate::{Terminal, socket};

pub mod automation;
pub mod drops;
pub mod execution;
pub mod machine;
pub mod page;
pub mod report;
pub mod screenshot;
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
    .raw(screenshot::raw(terminal))
    .raw(socket::raw(terminal))
    .op::<report::Report>(terminal)
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
    .op::<drops::Begin>(terminal)
    .raw(drops::upload(terminal))
    .op::<drops::Commit>(terminal)
    .op::<drops::OneShot>(terminal)
    .op::<system::ListProcesses>(terminal)
    .op::<system::GetProcess>(terminal)
    .op::<system::SendSignal>(terminal)
    .op::<system::Freeze>(terminal)
    .op::<system::Unfreeze>(terminal)
    .op::<system::ListPorts>(terminal)
    .op::<system::Resources>(terminal)
    .op::<machine::Displays>(terminal)
    .op::<machine::DaemonConfig>(terminal)
    .op::<machine::Reboot>(terminal)
    .op::<machine::Shutdown>(terminal)
}

/// What is said of a session that ended while it was asked something.
fn over(session: &Session) -> impl Fn(Over) -> Fault {
    let id = session.id;
    move |_| {
        Fault::not_found(format!("the session of terminal {id} is over")).code("SESSION_NOT_FOUND")
    }
}
