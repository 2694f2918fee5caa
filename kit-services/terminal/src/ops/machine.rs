//! The machine as a whole: its displays, what it starts by itself, its restart and its end.

use kit::{Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::system::read;
use crate::Terminal;
use crate::system::displays::{self, Display};
use crate::system::power::{Act, Schedule, ScheduleError};
use crate::system::units::{self, Program};

/// The X displays of the machine: one entry for each X server that answers.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Displays {}

impl Operation for Displays {
    const ROUTE: Route = Route::get("/api/v1/system/displays")
        .named("getDisplayInfo")
        .cli("terminal system display-info");
    type Service = Terminal;
    type Reply = Vec<Display>;

    async fn run(self, terminal: Terminal, _: Call) -> Result<Vec<Display>, Fault> {
        let Some(sockets) = terminal.config().displays.clone() else {
            return Ok(Vec::new());
        };
        read(move || displays::list(&sockets)).await
    }
}

/// The programs that the machine's supervisor, systemd, was set up with beside those of the
/// system: whether each is started with the machine, and with what command.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct DaemonConfig {}

impl Operation for DaemonConfig {
    const ROUTE: Route = Route::get("/api/v1/system/daemon")
        .named("getDaemonConfig")
        .cli("terminal system daemon-config");
    type Service = Terminal;
    type Reply = Vec<Program>;

    async fn run(self, terminal: Terminal, _: Call) -> Result<Vec<Program>, Fault> {
        let Some(units) = terminal.config().units.clone() else {
            return Ok(Vec::new());
        };
        read(move || units::list(&units)).await
    }
}

/// Restart the machine. Everything that runs in it ends; what is on its disk stays. The answer
/// comes before it happens, and a later call for restart or shutdown takes this one's place.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Reboot {
    /// Seconds until then, at most 86400; a second where not given.
    delay: Option<i64>,
}

/// Shut the machine down. Everything that runs in it ends; what is on its disk stays. The answer
/// comes before it happens, and a later call for restart or shutdown takes this one's place.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Shutdown {
    /// Seconds until then, at most 86400; a second where not given.
    delay: Option<i64>,
}

/// What was scheduled.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Scheduled {
    success: bool,
    message: String,
    /// Seconds from now until it happens.
    effective_seconds: u32,
    /// The same in minutes, rounded up.
    effective_minutes: u32,
}

impl Operation for Reboot {
    const ROUTE: Route = Route::post("/api/v1/system/reboot")
        .named("rebootSystem")
        .cli("terminal system reboot")
        .query(&["delay"]);
    type Service = Terminal;
    type Reply = Scheduled;

    async fn run(self, terminal: Terminal, _: Call) -> Result<Scheduled, Fault> {
        schedule(&terminal, Act::Reboot, self.delay).await
    }
}

impl Operation for Shutdown {
    const ROUTE: Route = Route::post("/api/v1/system/shutdown")
        .named("shutdownSystem")
        .cli("terminal system shutdown")
        .query(&["delay"]);
    type Service = Terminal;
    type Reply = Scheduled;

    async fn run(self, terminal: Terminal, _: Call) -> Result<Scheduled, Fault> {
        schedule(&terminal, Act::Shutdown, self.delay).await
    }
}

async fn schedule(terminal: &Terminal, act: Act, delay: Option<i64>) -> Result<Scheduled, Fault> {
    let schedule = Schedule::read(act, delay.unwrap_or(0)).ok_or_else(|| {
        Fault::bad_request("delay must be 0 to 86400 seconds").field("/delay", "out of range")
    })?;
    let Some(program) = &terminal.config().power else {
        return Err(Fault::forbidden(
            "this kit has no machine to itself; restart or stop the container with the API instead",
        )
        .code("NOT_PERMITTED"));
    };
    schedule.ask(program).await.map_err(|error| match error {
        ScheduleError::Refused { .. } => Fault::forbidden(error.to_string()).code("NOT_PERMITTED"),
        ScheduleError::Ask { .. } => Fault::unavailable(error.to_string()).code("NO_SYSTEMD"),
    })?;
    tracing::info!(seconds = schedule.seconds, "asked for: {}", act.as_str());
    Ok(Scheduled {
        success: true,
        message: format!("{} in {} second(s)", act.as_str(), schedule.seconds),
        effective_seconds: schedule.seconds,
        effective_minutes: schedule.seconds.div_ceil(60),
    })
}
