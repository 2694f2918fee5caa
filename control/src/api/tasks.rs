//! What the reconciler is at, for the administrator.

use kit::{Call, Fault, Operation, Route};
use routes::Id;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::auth::permissions::Permission;
use crate::auth::{Principal, broken};
use crate::control::Control;
use crate::prespawn;
use crate::store::containers::{self, Container};
use crate::tasks;
use crate::time;

/// What the node is working at, the oldest first: each container that is being brought to where it
/// should be, those of all accounts that were given up, and the machines that are kept ready.
///
/// For administrators; a token needs the permission `admin.monitoring`.
#[derive(Deserialize, JsonSchema)]
pub struct List {}

#[derive(Serialize, JsonSchema)]
pub struct Tasks {
    tasks: Vec<Task>,
    sweep: Sweep,
    shares: Shares,
    prespawn: Prespawn,
}

/// The machines that are kept ready.
#[derive(Serialize, JsonSchema)]
struct Prespawn {
    pools: Vec<Pool>,
    /// Bytes that they hold.
    memory: u64,
    /// Bytes that they may hold.
    memory_limit: u64,
    /// `make` or `drop`: what is being done about them.
    step: Option<&'static str>,
    step_since: Option<String>,
    /// Why the last try to make or remove one failed; it is tried again.
    failure: Option<String>,
    failed_at: Option<String>,
}

/// Machines of a kind that are kept ready.
#[derive(Serialize, JsonSchema)]
struct Pool {
    image: String,
    hoody_kit: bool,
    /// How many there should be.
    size: usize,
    /// How many there are.
    ready: usize,
}

impl Prespawn {
    fn of(control: &Control) -> Prespawn {
        let standing = control.prespawn.standing();
        let pool = |kept: prespawn::Kept| Pool {
            image: kept.kind.image,
            hoody_kit: kept.kind.kit,
            size: kept.size,
            ready: kept.ready,
        };
        let (step, step_since) = standing.doing.unzip();
        let (failure, failed_at) = standing.failure.unzip();
        Prespawn {
            pools: standing.pools.into_iter().map(pool).collect(),
            memory: standing.memory,
            memory_limit: control.config.prespawn.memory,
            step,
            step_since: step_since.map(time::text),
            failure,
            failed_at: failed_at.map(time::text),
        }
    }
}

#[derive(Serialize, JsonSchema)]
struct Task {
    container_id: String,
    container_name: Option<String>,
    project_id: Option<String>,
    /// `running`: a step is under way. `waiting`: for the machine, or for the next try. `failed`:
    /// given up until somebody asks again.
    state: &'static str,
    since: String,
    /// The step under way.
    step: Option<&'static str>,
    step_since: Option<String>,
    /// Failures in a row.
    failures: u32,
    last_failure: Option<Failure>,
    /// When the next try is, where it waits for that.
    next_try: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct Failure {
    step: Option<&'static str>,
    reason: String,
    /// Whether more tries are made.
    permanent: bool,
    at: String,
}

/// The look at everything that the node takes now and then.
#[derive(Serialize, JsonSchema)]
struct Sweep {
    /// Since when one is under way.
    since: Option<String>,
    /// When the last one ended.
    ended_at: Option<String>,
    /// Why the last one failed.
    failure: Option<String>,
}

/// Directories that containers see of one another.
#[derive(Serialize, JsonSchema)]
struct Shares {
    /// How many are seen.
    mounted: usize,
    /// How many should be and are not; their shares say why.
    missing: usize,
    /// When they were last looked at.
    looked_at: Option<String>,
    /// Why that failed as a whole; it is tried again.
    failure: Option<String>,
}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/tasks")
        .named("listTasks")
        .cli("tasks list");
    type Service = Control;
    type Reply = Tasks;

    async fn run(self, control: Control, call: Call) -> Result<Tasks, Fault> {
        let principal = Principal::who_may(&call, Permission::Monitoring)?;
        if !principal.user.is_admin {
            return Err(
                Fault::forbidden("only administrators see what the node works at")
                    .code("PERMISSION_DENIED"),
            );
        }
        let under_way = control.tasks.list();
        let rows = control
            .store
            .read("list the containers", containers::all)
            .await
            .map_err(broken)?;
        let row = |id: Id| rows.iter().find(|row| row.id == id);
        let mut tasks: Vec<Task> = under_way
            .iter()
            .map(|task| of(task, row(task.container)))
            .collect();
        let listed = |id: Id| under_way.iter().any(|task| task.container == id);
        tasks.extend(
            rows.iter()
                .filter(|row| !listed(row.id))
                .filter_map(given_up),
        );
        let sweep = control.tasks.sweep().clone();
        let shares = control.shares.last().clone();
        Ok(Tasks {
            tasks,
            sweep: Sweep {
                since: sweep.since.map(time::text),
                ended_at: sweep.ended.map(time::text),
                failure: sweep.failure,
            },
            shares: Shares {
                mounted: shares.mounted,
                missing: shares.missing,
                looked_at: shares.at.map(time::text),
                failure: shares.failure,
            },
            prespawn: Prespawn::of(&control),
        })
    }
}

fn of(task: &tasks::Task, row: Option<&Container>) -> Task {
    Task {
        container_id: task.container.to_string(),
        container_name: row.map(|row| row.name.clone()),
        project_id: row.map(|row| row.project.to_string()),
        state: if task.step.is_some() {
            "running"
        } else {
            "waiting"
        },
        since: time::text(task.since),
        step: task.step.map(|(step, _)| step.as_str()),
        step_since: task.step.map(|(_, at)| time::text(at)),
        failures: task.failures,
        last_failure: task.last_failure.as_ref().map(|failure| Failure {
            step: Some(failure.step.as_str()),
            reason: failure.reason.clone(),
            permanent: failure.permanent,
            at: time::text(failure.at),
        }),
        next_try: task.next_try.map(time::text),
    }
}

/// A container of which nothing more is tried.
fn given_up(row: &Container) -> Option<Task> {
    let reason = row.failure.clone()?;
    Some(Task {
        container_id: row.id.to_string(),
        container_name: Some(row.name.clone()),
        project_id: Some(row.project.to_string()),
        state: "failed",
        since: time::text(row.status_since),
        step: None,
        step_since: None,
        failures: 0,
        last_failure: Some(Failure {
            step: None,
            reason,
            permanent: true,
            at: time::text(row.status_since),
        }),
        next_try: None,
    })
}
