//! Projects.

use kit::{Call, Fault, Operation, Route, Verb};
use routes::Id;
use rusqlite::Connection;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::page::{Asked, Limit, Order, Page, Pagination};
use super::text::{Color, IdText, Number, ProjectAlias, given};
use crate::auth::permissions::Permission;
use crate::auth::{Principal, broken};
use crate::container::Wants;
use crate::control::Control;
use crate::edge;
use crate::store::events::{Kind, News};
use crate::store::{self, Realms, containers, projects};
use crate::time::{self, Millis};
use crate::words;

/// Realms one thing is in.
pub const REALMS: usize = 100;

#[derive(Serialize, JsonSchema)]
pub struct Project {
    id: String,
    user_id: String,
    alias: String,
    color: String,
    created_at: String,
    updated_at: String,
    max_containers: Option<u32>,
    is_default: bool,
    realm_ids: Vec<String>,
}

impl Project {
    fn of(project: &store::projects::Project) -> Project {
        Project {
            id: project.id.to_string(),
            user_id: project.user.to_string(),
            alias: project.alias.clone(),
            color: project.color.clone(),
            created_at: time::text(project.created_at),
            updated_at: time::text(project.updated_at),
            max_containers: project.max_containers,
            is_default: false,
            realm_ids: project.realms.iter().map(Id::to_string).collect(),
        }
    }
}

/// Somebody else's right to a project.
#[derive(Serialize, JsonSchema)]
pub struct ProjectPermission {
    id: String,
    project_id: String,
    user_id: String,
    permission_level: String,
    created_at: String,
    updated_at: String,
}

/// The project, if the caller sees it.
pub async fn seen(
    control: &Control,
    principal: &Principal,
    id: Id,
) -> Result<store::projects::Project, Fault> {
    let found = control
        .store
        .read("look up a project", move |db| projects::find(db, id))
        .await
        .map_err(broken)?;
    found
        .filter(|project| {
            project.user == principal.user.id && principal.realms().see(&project.realms)
        })
        .ok_or_else(|| no_project(id))
}

pub fn no_project(id: Id) -> Fault {
    Fault::not_found(format!(
        "no project {id}; list them with `hoody projects list`"
    ))
    .code("NOT_FOUND")
}

/// The realms of something new: those asked for, and that of the URL. Of a caller who sees only
/// some realms, it must be in one of them.
pub fn realms_of_new(principal: &Principal, asked: Vec<IdText>) -> Result<Vec<Id>, Fault> {
    let mut realms: Vec<Id> = asked
        .into_iter()
        .map(|realm| realm.0)
        .chain(principal.realm)
        .collect();
    if let (Realms::Within(seen), None) = (principal.realms(), principal.realm) {
        if realms.is_empty() && seen.len() == 1 {
            realms = seen;
        } else if realms.is_empty() {
            return Err(Fault::bad_request(
                "this token is for several realms; name one of them in `realm_ids`",
            )
            .code("VALIDATION_ERROR")
            .field("/realm_ids", "is required of this token"));
        }
    }
    may_be_in(principal, &realms)?;
    realms.sort_unstable();
    realms.dedup();
    if realms.len() > REALMS {
        let message = format!("holds more than {REALMS} realms");
        return Err(Fault::bad_request(format!("`realm_ids` {message}"))
            .code("VALIDATION_ERROR")
            .field("/realm_ids", message));
    }
    Ok(realms)
}

/// A token puts things into its own realms only.
fn may_be_in(principal: &Principal, realms: &[Id]) -> Result<(), Fault> {
    let Some(token) = principal.token().filter(|token| !token.realms.is_empty()) else {
        return Ok(());
    };
    match realms.iter().find(|realm| !token.realms.contains(realm)) {
        Some(realm) => Err(
            Fault::forbidden(format!("this token is not valid for realm {realm}"))
                .code("REALM_NOT_ALLOWED"),
        ),
        None => Ok(()),
    }
}

/// The realms of something that is changed. A token that is bound to realms cannot move things
/// between them.
pub fn realms_of_changed(principal: &Principal, asked: Vec<IdText>) -> Result<Vec<Id>, Fault> {
    if principal
        .token()
        .is_some_and(|token| !token.realms.is_empty())
    {
        return Err(Fault::forbidden(
            "a token that is bound to realms cannot change realms; log in",
        )
        .code("PERMISSION_DENIED"));
    }
    let mut realms: Vec<Id> = asked.into_iter().map(|realm| realm.0).collect();
    realms.sort_unstable();
    realms.dedup();
    realms.truncate(REALMS);
    Ok(realms)
}

#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum SortBy {
    Id,
    Alias,
    CreatedAt,
    UpdatedAt,
}

impl SortBy {
    fn column(self) -> &'static str {
        match self {
            SortBy::Id => "id",
            SortBy::Alias => "alias",
            SortBy::CreatedAt => "created_at",
            SortBy::UpdatedAt => "updated_at",
        }
    }
}

/// The account's projects, newest first.
#[derive(Deserialize, JsonSchema)]
pub struct List {
    page: Option<Page>,
    /// Projects on a page; 10 where not named.
    limit: Option<Limit>,
    sort_by: Option<SortBy>,
    sort_order: Option<Order>,
    /// Only projects of this realm.
    #[expect(dead_code, reason = "the gate reads it")]
    realm_id: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Projects {
    projects: Vec<Project>,
    pagination: Pagination,
}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/projects/")
        .named("listProjects")
        .cli("projects list");
    type Service = Control;
    type Reply = Projects;

    async fn run(self, control: Control, call: Call) -> Result<Projects, Fault> {
        let principal = Principal::who_may(&call, Permission::ProjectsRead)?;
        let asked = Asked {
            page: self.page,
            limit: self.limit,
            usual: 10,
            column: self.sort_by.unwrap_or(SortBy::CreatedAt).column(),
            order: self.sort_order,
        };
        let (user, realms) = (principal.user.id, principal.realms());
        let (page, total) = control
            .store
            .read("list projects", move |db| {
                projects::list(db, user, &realms, asked.slice())
            })
            .await
            .map_err(broken)?;
        Ok(Projects {
            projects: page.iter().map(Project::of).collect(),
            pagination: asked.pagination(total),
        })
    }
}

fn record(db: &Connection, kind: Kind, id: Id, by: &str, at: Millis) -> rusqlite::Result<()> {
    let facts = Value::Null;
    store::events::of_project(
        db,
        id,
        None,
        &News {
            kind,
            by,
            at,
            facts,
        },
    )
}

/// Make a project.
#[derive(Deserialize, JsonSchema)]
pub struct Create {
    /// What people call it.
    alias: ProjectAlias,
    /// A colour, such as #FF8800; one is chosen where none is given.
    color: Option<Color>,
    /// How many containers it may have; null for as many as the node allows.
    max_containers: Option<Number<0, 100_000>>,
    /// Realms it belongs to, beside that of the URL.
    #[serde(default)]
    realm_ids: Vec<IdText>,
}

impl Operation for Create {
    const ROUTE: Route = Route::post("/api/v1/projects/")
        .named("createProject")
        .cli("projects create")
        .status(201)
        .says("Project created");
    type Service = Control;
    type Reply = Project;

    async fn run(self, control: Control, call: Call) -> Result<Project, Fault> {
        let principal = Principal::who_may(&call, Permission::ProjectsCreate)?;
        let now = control.now();
        let project = store::projects::Project {
            id: words::id(),
            user: principal.user.id,
            alias: self.alias.into_string(),
            color: self.color.map_or_else(words::color, |color| color.normal()),
            max_containers: self.max_containers.map(|most| most.0),
            realms: realms_of_new(&principal, self.realm_ids)?,
            created_at: now,
            updated_at: now,
        };
        let made = Project::of(&project);
        let by = principal.label();
        let most = control.config.limits.projects_per_user;
        let written = control
            .store
            .write("make a project", move |db| {
                if projects::count(db, project.user, &Realms::All)? >= u64::from(most) {
                    return Ok(false);
                }
                projects::insert(db, &project)?;
                record(db, Kind::ProjectCreated, project.id, &by, now)?;
                Ok(true)
            })
            .await
            .map_err(broken)?;
        if written {
            Ok(made)
        } else {
            Err(Fault::conflict(format!(
                "the account has {most} projects already; delete some"
            ))
            .code("LIMIT_REACHED"))
        }
    }
}

/// One project.
#[derive(Deserialize, JsonSchema)]
pub struct Get {
    id: IdText,
    /// Whether to list who else may use it.
    #[serde(default)]
    include_permissions: bool,
}

#[derive(Serialize, JsonSchema)]
pub struct Detailed {
    #[serde(flatten)]
    project: Project,
    #[serde(skip_serializing_if = "Option::is_none")]
    permissions: Option<Vec<ProjectPermission>>,
}

impl Operation for Get {
    const ROUTE: Route = Route::get("/api/v1/projects/{id}")
        .named("getProjectById")
        .cli("projects get");
    type Service = Control;
    type Reply = Detailed;

    async fn run(self, control: Control, call: Call) -> Result<Detailed, Fault> {
        let principal = Principal::who_may(&call, Permission::ProjectsRead)?;
        let project = seen(&control, &principal, self.id.0).await?;
        Ok(Detailed {
            project: Project::of(&project),
            permissions: self.include_permissions.then(Vec::new),
        })
    }
}

/// Change a project; what is not named stays.
#[derive(Deserialize, JsonSchema)]
pub struct Update {
    id: IdText,
    alias: Option<ProjectAlias>,
    color: Option<Color>,
    /// Null takes the bound away.
    #[serde(default, deserialize_with = "given")]
    max_containers: Option<Option<Number<0, 100_000>>>,
    realm_ids: Option<Vec<IdText>>,
}

impl Operation for Update {
    const ROUTE: Route = Route::put("/api/v1/projects/{id}")
        .also(Verb::Patch)
        .named("updateProjectPatch")
        .cli("projects update")
        .says("Project updated");
    type Service = Control;
    type Reply = Project;

    async fn run(self, control: Control, call: Call) -> Result<Project, Fault> {
        let principal = Principal::who_may(&call, Permission::ProjectsUpdate)?;
        let mut project = seen(&control, &principal, self.id.0).await?;
        if let Some(alias) = self.alias {
            project.alias = alias.into_string();
        }
        if let Some(color) = self.color {
            project.color = color.normal();
        }
        if let Some(most) = self.max_containers {
            project.max_containers = most.map(|most| most.0);
        }
        if let Some(realms) = self.realm_ids {
            project.realms = realms_of_changed(&principal, realms)?;
        }
        let now = control.now();
        project.updated_at = now;
        let changed = Project::of(&project);
        let by = principal.label();
        control
            .store
            .write("change a project", move |db| {
                projects::update(db, &project)?;
                record(db, Kind::ProjectUpdated, project.id, &by, now)
            })
            .await
            .map_err(broken)?;
        Ok(changed)
    }
}

/// Delete a project with all its containers.
///
/// It is gone at once; its containers are shut down and removed behind it.
#[derive(Deserialize, JsonSchema)]
pub struct Delete {
    id: IdText,
    /// Whether to name what was deleted.
    #[serde(default)]
    include_deleted_items: bool,
}

#[derive(Serialize, JsonSchema)]
pub struct Deleted {
    deleted: Counts,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_items: Option<Items>,
}

#[derive(Serialize, JsonSchema)]
struct Counts {
    containers: usize,
    permissions: usize,
    aliases: usize,
}

#[derive(Serialize, JsonSchema)]
struct Items {
    containers: Vec<Item>,
}

#[derive(Serialize, JsonSchema)]
struct Item {
    id: String,
    name: String,
}

impl Operation for Delete {
    const ROUTE: Route = Route::delete("/api/v1/projects/{id}")
        .named("deleteProject")
        .cli("projects delete")
        .says("Project deleted");
    type Service = Control;
    type Reply = Deleted;

    async fn run(self, control: Control, call: Call) -> Result<Deleted, Fault> {
        let principal = Principal::who_may(&call, Permission::ProjectsDelete)?;
        principal.may(Permission::ContainersDelete)?;
        let id = seen(&control, &principal, self.id.0).await?.id;
        let now = control.now();
        let request = containers::Request {
            wants: Wants::Gone,
            force: true,
            restart: false,
            by: principal.label(),
            at: now,
        };
        let publisher = control.clone();
        let (gone, aliases) = control
            .store
            .write_then(
                "delete a project",
                move |db| {
                    let all = containers::of_project(db, id)?;
                    let mut aliases = Vec::new();
                    for container in &all {
                        aliases.extend(containers::ask(db, container, &request)?);
                    }
                    store::shares::remove_for_project(db, id, &request.by, now)?;
                    // Before it is gone, with the last of its containers or at once.
                    record(db, Kind::ProjectDeleted, id, &request.by, now)?;
                    projects::delete(db, id, now)?;
                    Ok((all, aliases))
                },
                move |(gone, aliases)| {
                    let gone: Vec<Id> = gone.iter().map(|container| container.id).collect();
                    edge::forget(&publisher.publisher, &gone, aliases);
                    publisher.publisher.set_project(id, None);
                },
            )
            .await
            .map_err(broken)?;
        for container in &gone {
            control.nudges.nudge(container.id);
        }
        let items = || {
            gone.iter()
                .map(|gone| Item {
                    id: gone.id.to_string(),
                    name: gone.name.clone(),
                })
                .collect()
        };
        Ok(Deleted {
            deleted: Counts {
                containers: gone.len(),
                permissions: 0,
                aliases: aliases.len(),
            },
            deleted_items: self.include_deleted_items.then(|| Items {
                containers: items(),
            }),
        })
    }
}

/// Who else may use a project: nobody, until rights can be given.
#[derive(Deserialize, JsonSchema)]
pub struct ListPermissions {
    id: IdText,
    page: Option<Page>,
    limit: Option<Limit>,
}

#[derive(Serialize, JsonSchema)]
pub struct Permissions {
    permissions: Vec<ProjectPermission>,
    pagination: Pagination,
}

impl Operation for ListPermissions {
    const ROUTE: Route = Route::get("/api/v1/projects/{id}/permissions")
        .named("getProjectPermissions")
        .cli("projects permissions list");
    type Service = Control;
    type Reply = Permissions;

    async fn run(self, control: Control, call: Call) -> Result<Permissions, Fault> {
        let principal = Principal::who_may(&call, Permission::ProjectsRead)?;
        seen(&control, &principal, self.id.0).await?;
        let asked = Asked {
            page: self.page,
            limit: self.limit,
            usual: 10,
            column: "id",
            order: None,
        };
        Ok(Permissions {
            permissions: Vec::new(),
            pagination: asked.pagination(0),
        })
    }
}
