//! Starting, stopping, restarting and pausing containers.

use kit::{Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::containers::{ask, going};
use super::text::IdText;
use crate::auth::Principal;
use crate::auth::permissions::Permission;
use crate::container::{Status, Wants};
use crate::control::Control;
use crate::store::containers::{Container, Request};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    Start,
    Stop,
    ForceStop,
    Restart,
    Pause,
    Resume,
}

impl Act {
    fn permission(self) -> Permission {
        match self {
            Act::Start | Act::Resume => Permission::ContainersStart,
            Act::Stop | Act::ForceStop | Act::Pause => Permission::ContainersStop,
            Act::Restart => Permission::ContainersRestart,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Act::Start => "start",
            Act::Stop => "stop",
            Act::ForceStop => "force-stop",
            Act::Restart => "restart",
            Act::Pause => "pause",
            Act::Resume => "resume",
        }
    }

    /// What it asks for, if the container is in a state for it.
    fn request(self, container: &Container, by: String, at: i64) -> Result<Request, Fault> {
        if container.wants == Wants::Gone {
            return Err(going(container.id));
        }
        let not = |what: &str| {
            Err(Fault::conflict(format!(
                "container {} is {}, not {what}",
                container.id, container.status
            ))
            .code("INVALID_STATE"))
        };
        let request = |wants| Request {
            wants,
            force: false,
            restart: false,
            by: by.clone(),
            at,
        };
        Ok(match self {
            Act::Start => request(Wants::On),
            Act::Stop => request(Wants::Off),
            Act::ForceStop => Request {
                force: true,
                ..request(Wants::Off)
            },
            // What is off needs no restart to be on.
            Act::Restart => Request {
                restart: container.status == Status::Running,
                ..request(Wants::On)
            },
            Act::Pause if container.wants == Wants::Frozen => request(Wants::Frozen),
            Act::Pause if container.status != Status::Running || container.wants != Wants::On => {
                return not("running");
            }
            Act::Pause => request(Wants::Frozen),
            Act::Resume
                if container.status != Status::Paused && container.wants != Wants::Frozen =>
            {
                return not("paused");
            }
            Act::Resume => request(Wants::On),
        })
    }
}

/// Start, stop, restart, pause or resume a container.
///
/// The answer comes at once, with the status as it is now; poll the container, or read its status
/// logs, to see it change. `stop` asks the machine to shut down and turns it off after 30 seconds;
/// `force-stop` turns it off at once.
#[derive(Deserialize, JsonSchema)]
pub struct Manage {
    id: IdText,
    operation: Act,
}

#[derive(Serialize, JsonSchema)]
pub struct Managed {
    error: bool,
    operation: &'static str,
    container_id: String,
    project_id: String,
    message: String,
    status: &'static str,
}

impl Operation for Manage {
    const ROUTE: Route = Route::post("/api/v1/containers/{id}/{operation}")
        .named("manageContainer")
        .cli("containers manage")
        .says("Request taken");
    type Service = Control;
    type Reply = Managed;

    async fn run(self, control: Control, call: Call) -> Result<Managed, Fault> {
        let act = self.operation;
        let principal = Principal::who_may(&call, act.permission())?;
        let (by, at) = (principal.label(), control.now());
        let owned = ask(&control, &principal, self.id.0, move |container| {
            act.request(container, by, at)
        })
        .await?;
        control.nudges.nudge(owned.container.id);
        Ok(Managed {
            error: false,
            operation: act.word(),
            container_id: owned.container.id.to_string(),
            project_id: owned.project.id.to_string(),
            message: format!(
                "{} of container `{}` is under way",
                act.word(),
                owned.container.name
            ),
            status: owned.container.status.as_str(),
        })
    }
}
