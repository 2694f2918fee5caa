//! The inbox: what the node tells people.

use kit::{Call, Fault, Operation, Route, Verb};
use routes::Id;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::containers::invalid;
use super::text::IdText;
use super::tokens::Expiry;
use crate::auth::permissions::Permission;
use crate::auth::{Principal, broken};
use crate::control::Control;
use crate::store::notifications::{self, Inbox, Kind, Severity};
use crate::{time, words};

/// Characters of a title and of a message.
const TITLE: usize = 200;
const MESSAGE: usize = 4000;

#[derive(Serialize, JsonSchema)]
pub struct Notification {
    id: String,
    title: String,
    message: String,
    #[serde(rename = "type")]
    kind: Kind,
    severity: Severity,
    is_public: bool,
    is_global: bool,
    target_user_ids: Option<Vec<String>>,
    expires_at: Option<String>,
    created_at: String,
    updated_at: String,
    is_read: bool,
    read_at: Option<String>,
}

impl Notification {
    fn of(notification: notifications::Notification) -> Notification {
        let everybodys = notification.user.is_none();
        Notification {
            id: notification.id.to_string(),
            title: notification.title,
            message: notification.message,
            kind: notification.kind,
            severity: notification.severity,
            is_public: everybodys,
            is_global: everybodys,
            target_user_ids: notification.user.map(|user| vec![user.to_string()]),
            expires_at: notification.expires_at.map(time::text),
            created_at: time::text(notification.created_at),
            updated_at: time::text(notification.created_at),
            is_read: notification.read_at.is_some(),
            read_at: notification.read_at.map(time::text),
        }
    }
}

/// Notices tell of containers: whoever may not read those does not read these.
fn inbox(control: &Control, call: &Call) -> Result<Inbox, Fault> {
    let principal = Principal::who_may(call, Permission::ReadAccount)?;
    principal.may(Permission::ContainersRead)?;
    Ok(Inbox {
        user: principal.user.id,
        realms: principal.realms(),
        now: control.now(),
    })
}

/// What the node has told the account: announcements to all, and what concerns its containers.
#[derive(Deserialize, JsonSchema)]
pub struct List {}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/notifications/")
        .named("listUserNotifications")
        .cli("inbox list");
    type Service = Control;
    type Reply = Vec<Notification>;

    async fn run(self, control: Control, call: Call) -> Result<Vec<Notification>, Fault> {
        let inbox = inbox(&control, &call)?;
        let all = control
            .store
            .read("list notifications", move |db| {
                notifications::list(db, &inbox)
            })
            .await
            .map_err(broken)?;
        Ok(all.into_iter().map(Notification::of).collect())
    }
}

/// The announcements to all.
#[derive(Deserialize, JsonSchema)]
pub struct ListPublic {}

impl Operation for ListPublic {
    const ROUTE: Route = Route::get("/api/v1/notifications/public")
        .named("listPublicNotifications")
        .cli("inbox list-public");
    type Service = Control;
    type Reply = Vec<Notification>;

    async fn run(self, control: Control, call: Call) -> Result<Vec<Notification>, Fault> {
        let principal = Principal::of(&call)?;
        let inbox = Inbox {
            user: principal.user.id,
            realms: principal.realms(),
            now: control.now(),
        };
        let all = control
            .store
            .read("list announcements", move |db| {
                notifications::list(db, &inbox)
            })
            .await
            .map_err(broken)?;
        let everybodys = all.into_iter().filter(|one| one.user.is_none());
        Ok(everybodys.map(Notification::of).collect())
    }
}

/// Mark one as read.
#[derive(Deserialize, JsonSchema)]
pub struct MarkRead {
    id: IdText,
}

#[derive(Serialize, JsonSchema)]
pub struct Marked {
    id: String,
    notification_id: String,
    is_read: bool,
    read_at: Option<String>,
}

fn no_notification(id: Id) -> Fault {
    Fault::not_found(format!(
        "no notification {id}; list them with `hoody inbox list`"
    ))
    .code("NOT_FOUND")
}

impl Operation for MarkRead {
    const ROUTE: Route = Route::put("/api/v1/notifications/{id}/read")
        .also(Verb::Patch)
        .named("markUserNotificationAsReadPatch")
        .cli("inbox mark")
        .says("Notification read");
    type Service = Control;
    type Reply = Marked;

    async fn run(self, control: Control, call: Call) -> Result<Marked, Fault> {
        let (inbox, id) = (inbox(&control, &call)?, self.id.0);
        let marked = control
            .store
            .write("mark a notification", move |db| {
                notifications::mark(db, &inbox, Some(id))?;
                notifications::find(db, &inbox, id)
            })
            .await
            .map_err(broken)?;
        let marked = marked.ok_or_else(|| no_notification(id))?;
        Ok(Marked {
            id: id.to_string(),
            notification_id: id.to_string(),
            is_read: marked.read_at.is_some(),
            read_at: marked.read_at.map(time::text),
        })
    }
}

/// Mark all as read.
#[derive(Deserialize, JsonSchema)]
pub struct MarkAllRead {}

#[derive(Serialize, JsonSchema)]
pub struct Count {
    /// How many were unread.
    count: usize,
}

impl Operation for MarkAllRead {
    const ROUTE: Route = Route::put("/api/v1/notifications/read-all")
        .also(Verb::Patch)
        .named("markAllUserNotificationsAsReadPatch")
        .cli("inbox mark-all")
        .says("Notifications read");
    type Service = Control;
    type Reply = Count;

    async fn run(self, control: Control, call: Call) -> Result<Count, Fault> {
        let inbox = inbox(&control, &call)?;
        let count = control
            .store
            .write("mark all notifications", move |db| {
                notifications::mark(db, &inbox, None)
            })
            .await
            .map_err(broken)?;
        Ok(Count { count })
    }
}

/// Announce something to all accounts of the node. For administrators; a token needs the permission
/// `admin.system`.
#[derive(Deserialize, JsonSchema)]
pub struct Announce {
    /// At most 200 characters.
    title: String,
    /// At most 4,000 characters.
    message: String,
    #[serde(rename = "type", default = "announcement")]
    kind: Kind,
    #[serde(default = "info")]
    severity: Severity,
    /// When it goes by itself: an RFC 3339 or Unix time; never where null.
    expires_at: Option<Expiry>,
}

fn announcement() -> Kind {
    Kind::Announcement
}

fn info() -> Severity {
    Severity::Info
}

fn words_of(field: &'static str, text: &str, most: usize) -> Result<String, Fault> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > most {
        return Err(invalid(field, format!("must have 1 to {most} characters")));
    }
    Ok(text.to_owned())
}

impl Operation for Announce {
    const ROUTE: Route = Route::post("/api/v1/notifications/")
        .named("announce")
        .cli("inbox announce")
        .status(201)
        .says("Announced");
    type Service = Control;
    type Reply = Notification;

    async fn run(self, control: Control, call: Call) -> Result<Notification, Fault> {
        let principal = Principal::who_may(&call, Permission::System)?;
        if !principal.user.is_admin {
            return Err(
                Fault::forbidden("only administrators announce something to all")
                    .code("PERMISSION_DENIED"),
            );
        }
        let now = control.now();
        let notification = notifications::Notification {
            id: words::id(),
            user: None,
            title: words_of("title", &self.title, TITLE)?,
            message: words_of("message", &self.message, MESSAGE)?,
            kind: self.kind,
            severity: self.severity,
            realms: Vec::new(),
            created_at: now,
            expires_at: self.expires_at.map(|at| at.at(now)).transpose()?,
            read_at: None,
        };
        let made = notification.clone();
        control
            .store
            .write("announce something", move |db| {
                notifications::insert(db, &notification)
            })
            .await
            .map_err(broken)?;
        Ok(Notification::of(made))
    }
}
