//! What happened: the history. The stream of it is [`crate::stream`].

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use kit::{Call, Fault, Operation, Route};
use routes::Id;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::containers::invalid;
use super::page::Order;
use super::text::{IdText, Number};
use crate::auth::permissions::Permission;
use crate::auth::{Principal, broken};
use crate::control::Control;
use crate::store::events::{self, Filter, Kind, Resource, View};
use crate::time::{self, DAY, Millis};

/// Something that happened.
#[derive(Serialize, JsonSchema)]
pub struct Event {
    id: String,
    event_type: String,
    resource_type: String,
    resource_id: String,
    /// Whose it is. Who had it happen is `triggered_by` in the payload.
    user_id: String,
    payload: Value,
    /// The realms that the resource was in.
    realm_ids: Vec<String>,
    created_at: String,
}

impl Event {
    fn of(event: events::Event) -> Event {
        Event {
            id: event.id.to_string(),
            event_type: event.kind,
            resource_type: event.resource,
            resource_id: event.resource_id,
            user_id: event.user.to_string(),
            payload: event.payload,
            realm_ids: event.realms.iter().map(Id::to_string).collect(),
            created_at: time::text(event.at),
        }
    }
}

/// What a caller may see of the events: those of what the caller may read.
pub fn view(principal: &Principal) -> Result<View, Fault> {
    principal.may(Permission::Events)?;
    let token = principal.token();
    if token.is_some_and(|token| !token.event_access) {
        return Err(
            Fault::forbidden("this token has no access to events").code("PERMISSION_DENIED")
        );
    }
    let may = |permission| principal.may(permission).is_ok();
    let sees = |resource: &Resource| match resource {
        Resource::Container | Resource::StorageShare | Resource::Firewall => {
            may(Permission::ContainersRead)
        }
        Resource::Project => may(Permission::ProjectsRead),
        Resource::ProxyAlias => may(Permission::ProxyAliases),
        Resource::ProxyPermissions => {
            may(Permission::ContainersRead) && may(Permission::ProjectsRead)
        }
        Resource::AuthToken => may(Permission::CreateTokens),
        Resource::Notification
        | Resource::Server
        | Resource::Pool
        | Resource::User
        | Resource::ActivityLog => may(Permission::ReadAccount),
    };
    Ok(View {
        user: principal.user.id,
        realms: principal.realms(),
        resources: Resource::ALL.iter().copied().filter(sees).collect(),
        token: token.map(|token| token.id),
    })
}

fn seen(call: &Call) -> Result<View, Fault> {
    view(&Principal::of(call)?)
}

/// Removing what happened to a container takes what removing a container takes.
fn removable(call: &Call) -> Result<View, Fault> {
    let principal = Principal::who_may(call, Permission::ContainersDelete)?;
    principal.may(Permission::ProjectsDelete)?;
    view(&principal)
}

/// RFC 3339, or a day in UTC.
fn moment(field: &str, text: Option<&str>) -> Result<Option<Millis>, Fault> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let at = text.parse::<Timestamp>().ok().or_else(|| {
        let day = text.parse::<jiff::civil::Date>().ok()?;
        Some(day.to_zoned(TimeZone::UTC).ok()?.timestamp())
    });
    match at {
        Some(at) => Ok(Some(at.as_millisecond())),
        None => Err(invalid(
            field,
            "must be a time such as 2026-11-22T03:30:00Z or a day such as 2026-11-22",
        )),
    }
}

fn no_event(id: Id) -> Fault {
    Fault::not_found(format!("no event {id}; list them with `hoody events list`")).code("NOT_FOUND")
}

#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum SortBy {
    CreatedAt,
    EventType,
}

/// What happened to what the caller may see, newest first.
///
/// Every change of a project, a container, an alias, proxy permissions or a token is here, with who
/// had it happen and when. Events are kept for 90 days, and the last 20,000 of an account.
///
/// At the same path, with `EIO=4` in the query, Socket.IO clients hear of them as they happen: the
/// token goes into the payload of `CONNECT` (`auth: {token}`), and each event comes as a `message`.
#[derive(Deserialize, JsonSchema)]
pub struct List {
    /// Events on a page; 100 where not named.
    limit: Option<Number<1, 500>>,
    /// Events to pass over.
    offset: Option<Number<0, { u32::MAX }>>,
    sort_by: Option<SortBy>,
    sort_order: Option<Order>,
    event_type: Option<Kind>,
    resource_type: Option<Resource>,
    resource_id: Option<IdText>,
    project_id: Option<IdText>,
    container_id: Option<IdText>,
    /// Only what happened then or later: a time or a day.
    start_date: Option<String>,
    /// Only what happened before: a time or a day.
    end_date: Option<String>,
    /// Only events of this realm.
    #[expect(dead_code, reason = "the gate reads it")]
    realm_id: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Events {
    events: Vec<Event>,
    pagination: Pagination,
}

#[derive(Serialize, JsonSchema)]
struct Pagination {
    total: u64,
    limit: u32,
    offset: u32,
    has_more: bool,
}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/events")
        .named("listEvents")
        .cli("events list");
    type Service = Control;
    type Reply = Events;

    async fn run(self, control: Control, call: Call) -> Result<Events, Fault> {
        let view = seen(&call)?;
        let filter = Filter {
            kind: self.event_type,
            resource: self.resource_type,
            resource_id: self.resource_id.map(|id| id.0),
            project: self.project_id.map(|id| id.0),
            container: self.container_id.map(|id| id.0),
            since: moment("start_date", self.start_date.as_deref())?,
            until: moment("end_date", self.end_date.as_deref())?,
            id: None,
        };
        let sort = events::Sort {
            by_kind: self.sort_by == Some(SortBy::EventType),
            descending: self.sort_order != Some(Order::Asc),
            limit: self.limit.map_or(100, |limit| limit.0),
            offset: self.offset.map_or(0, |offset| offset.0),
        };
        let (page, total) = control
            .store
            .read("list events", move |db| {
                events::list(db, &view, &filter, sort)
            })
            .await
            .map_err(broken)?;
        Ok(Events {
            pagination: Pagination {
                total,
                limit: sort.limit,
                offset: sort.offset,
                has_more: u64::from(sort.offset) + (page.len() as u64) < total,
            },
            events: page.into_iter().map(Event::of).collect(),
        })
    }
}

/// One event.
#[derive(Deserialize, JsonSchema)]
pub struct Get {
    id: IdText,
}

impl Operation for Get {
    const ROUTE: Route = Route::get("/api/v1/events/{id}")
        .named("getEventById")
        .cli("events get");
    type Service = Control;
    type Reply = Event;

    async fn run(self, control: Control, call: Call) -> Result<Event, Fault> {
        let (view, id) = (seen(&call)?, self.id.0);
        let found = control
            .store
            .read("look up an event", move |db| events::find(db, &view, id))
            .await
            .map_err(broken)?;
        found.map(Event::of).ok_or_else(|| no_event(id))
    }
}

/// How many events there are, by type and by what they tell of.
#[derive(Deserialize, JsonSchema)]
pub struct Stats {
    /// Only what happened then or later: a time or a day.
    start_date: Option<String>,
    /// Only what happened before: a time or a day.
    end_date: Option<String>,
    /// Only events of this realm.
    #[expect(dead_code, reason = "the gate reads it")]
    realm_id: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Statistics {
    total_events: u64,
    by_type: BTreeMap<String, u64>,
    by_resource: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_event: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    newest_event: Option<String>,
}

impl Operation for Stats {
    const ROUTE: Route = Route::get("/api/v1/events/stats")
        .named("getEventStatistics")
        .cli("events stats");
    type Service = Control;
    type Reply = Statistics;

    async fn run(self, control: Control, call: Call) -> Result<Statistics, Fault> {
        let view = seen(&call)?;
        let filter = Filter {
            since: moment("start_date", self.start_date.as_deref())?,
            until: moment("end_date", self.end_date.as_deref())?,
            ..Filter::default()
        };
        let counts = control
            .store
            .read("count events", move |db| events::count(db, &view, &filter))
            .await
            .map_err(broken)?;
        let mut reply = Statistics {
            total_events: 0,
            by_type: BTreeMap::new(),
            by_resource: BTreeMap::new(),
            oldest_event: counts.oldest.map(time::text),
            newest_event: counts.newest.map(time::text),
        };
        for (kind, resource, n) in counts.by_kind {
            reply.total_events += n;
            *reply.by_type.entry(kind).or_default() += n;
            *reply.by_resource.entry(resource).or_default() += n;
        }
        Ok(reply)
    }
}

/// Remove one event from the history.
#[derive(Deserialize, JsonSchema)]
pub struct Delete {
    id: IdText,
}

impl Operation for Delete {
    const ROUTE: Route = Route::delete("/api/v1/events/{id}")
        .named("deleteEvent")
        .cli("events delete")
        .says("Event deleted");
    type Service = Control;
    type Reply = ();

    async fn run(self, control: Control, call: Call) -> Result<(), Fault> {
        let (view, id) = (removable(&call)?, self.id.0);
        let filter = Filter {
            id: Some(id),
            ..Filter::default()
        };
        match remove(&control, view, filter).await? {
            0 => Err(no_event(id)),
            _ => Ok(()),
        }
    }
}

async fn remove(control: &Control, view: View, filter: Filter) -> Result<u64, Fault> {
    let gone = control
        .store
        .write("remove events", move |db| {
            events::delete(db, &view, &filter)
        })
        .await
        .map_err(broken)?;
    Ok(gone as u64)
}

/// Remove events from the history: those that fit everything that is named.
#[derive(Deserialize, JsonSchema)]
pub struct BulkDelete {
    event_type: Option<Kind>,
    resource_type: Option<Resource>,
    resource_id: Option<IdText>,
    /// Only what happened before: a time or a day.
    before_date: Option<String>,
    /// Only events of this realm; it must be one that the caller sees.
    realm_id: Option<IdText>,
}

#[derive(Serialize, JsonSchema)]
pub struct Removed {
    deleted_count: u64,
}

impl Operation for BulkDelete {
    const ROUTE: Route = Route::delete("/api/v1/events")
        .named("bulkDeleteEvents")
        .cli("events bulk-delete")
        .with_body()
        .says("Events deleted");
    type Service = Control;
    type Reply = Removed;

    async fn run(self, control: Control, call: Call) -> Result<Removed, Fault> {
        let mut view = removable(&call)?;
        if let Some(realm) = self.realm_id {
            if !view.realms.see(&[realm.0]) {
                return Ok(Removed { deleted_count: 0 });
            }
            view.realms = crate::store::Realms::Within(vec![realm.0]);
        }
        let filter = Filter {
            kind: self.event_type,
            resource: self.resource_type,
            resource_id: self.resource_id.map(|id| id.0),
            until: moment("before_date", self.before_date.as_deref())?,
            ..Filter::default()
        };
        let all = filter.kind.is_none()
            && filter.resource.is_none()
            && filter.resource_id.is_none()
            && filter.until.is_none();
        if all {
            return Err(Fault::bad_request(
                "say which events to remove: `event_type`, `resource_type`, `resource_id` or `before_date`",
            )
            .code("VALIDATION_ERROR"));
        }
        let deleted_count = remove(&control, view, filter).await?;
        Ok(Removed { deleted_count })
    }
}

/// Remove the events that are older than so many days.
#[derive(Deserialize, JsonSchema)]
pub struct Cleanup {
    retention_days: Number<1, 365>,
}

#[derive(Serialize, JsonSchema)]
pub struct CleanedUp {
    deleted_count: u64,
    retention_days: u32,
    cutoff_date: String,
}

impl Operation for Cleanup {
    const ROUTE: Route = Route::post("/api/v1/events/cleanup")
        .named("cleanupOldEvents")
        .cli("events cleanup")
        .says("Old events deleted");
    type Service = Control;
    type Reply = CleanedUp;

    async fn run(self, control: Control, call: Call) -> Result<CleanedUp, Fault> {
        let view = removable(&call)?;
        let days = self.retention_days.0;
        let cutoff = control.now() - i64::from(days) * DAY;
        let filter = Filter {
            until: Some(cutoff),
            ..Filter::default()
        };
        Ok(CleanedUp {
            deleted_count: remove(&control, view, filter).await?,
            retention_days: days,
            cutoff_date: time::text(cutoff),
        })
    }
}
