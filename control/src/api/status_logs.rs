//! When a container changed its status, and why.

use kit::{Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::containers::seen;
use super::page::{Asked, Limit, Order, Page, Pagination};
use super::text::IdText;
use crate::auth::permissions::Permission;
use crate::auth::{Principal, broken};
use crate::control::Control;
use crate::store::status_logs;
use crate::time;

#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum SortBy {
    TransitionTime,
    CreatedAt,
    ToStatus,
    FromStatus,
}

/// The changes of a container's status, newest first: from what, to what, who had it changed.
#[derive(Deserialize, JsonSchema)]
pub struct List {
    id: IdText,
    page: Option<Page>,
    /// Changes on a page; 10 where not named.
    limit: Option<Limit>,
    sort_by: Option<SortBy>,
    sort_order: Option<Order>,
}

#[derive(Serialize, JsonSchema)]
pub struct StatusLogs {
    logs: Vec<StatusLog>,
    pagination: Pagination,
}

#[derive(Serialize, JsonSchema)]
struct StatusLog {
    id: String,
    container_id: String,
    from_status: Option<&'static str>,
    to_status: &'static str,
    transition_time: String,
    /// How long it was in the status it left.
    duration_ms: Option<i64>,
    /// `user:name`, `token:alias`, or `system` where the machine changed by itself.
    triggered_by: String,
    metadata: Option<Value>,
}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/containers/{id}/status-logs")
        .named("getContainerStatusLogs")
        .cli("containers status-logs");
    type Service = Control;
    type Reply = StatusLogs;

    async fn run(self, control: Control, call: Call) -> Result<StatusLogs, Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersRead)?;
        principal.may(Permission::ContainersLogs)?;
        let id = seen(&control, &principal, self.id.0).await?.container.id;
        let column = match self.sort_by {
            Some(SortBy::ToStatus) => "to_status",
            Some(SortBy::FromStatus) => "from_status",
            None | Some(SortBy::TransitionTime | SortBy::CreatedAt) => "transition_time",
        };
        let asked = Asked {
            page: self.page,
            limit: self.limit,
            usual: 10,
            column,
            order: self.sort_order,
        };
        let (page, total) = control
            .store
            .read("list status logs", move |db| {
                status_logs::list(db, id, asked.slice())
            })
            .await
            .map_err(broken)?;
        let logs = page.into_iter().map(|log| StatusLog {
            id: log.id.to_string(),
            container_id: log.container.to_string(),
            from_status: log.from.map(crate::container::Status::as_str),
            to_status: log.to.as_str(),
            transition_time: time::text(log.at),
            duration_ms: log.duration_ms,
            triggered_by: log.triggered_by,
            metadata: log.metadata,
        });
        Ok(StatusLogs {
            logs: logs.collect(),
            pagination: asked.pagination(total),
        })
    }
}
