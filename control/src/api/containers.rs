//! Containers: making, finding, changing and deleting them.

use std::collections::BTreeMap;

use kit::{Call, Fault, Operation, Route, Verb};
use routes::Id;
use rusqlite::Connection;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::kvm;
use super::limits::{self, Bytes, Cpus};
use super::page::{Asked, Limit, Order, Page, Pagination};
use super::projects::{self, realms_of_changed, realms_of_new};
use super::proxy_aliases::ProxyDomain;
use super::stats;
use super::text::{
    Color, Comment, ContainerLabel, ContainerName, IdText, ImageName, SshKey, VariableName,
    VariableValue, given,
};
use crate::auth::permissions::Permission;
use crate::auth::{Principal, broken};
use crate::container::{Claim, Status, Wants};
use crate::control::Control;
use crate::edge;
use crate::prespawn::{self, Wish};
use crate::reconcile::hostname;
use crate::runtime::Limits;
use crate::store::containers::{Clash, Filter, Owned, Request};
use crate::store::prespawned::{self, Member, State};
use crate::store::rules::Owner;
use crate::store::snapshots::Disk;
use crate::store::{self, containers};
use crate::time;
use crate::words;

/// Environment variables of a container.
pub const VARIABLES: usize = 256;
/// All of them together, in bytes.
pub const VARIABLES_BYTES: usize = 256 << 10;

/// A container as its owner sees it. What this node does not offer is false or null.
#[derive(Serialize, JsonSchema)]
pub struct Container {
    id: String,
    /// None where it is a machine that is kept ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    project_id: Option<String>,
    project_alias: Option<String>,
    server_id: Option<String>,
    /// The node's label in the container's URLs.
    server_name: Option<String>,
    /// The host name inside.
    subserver_name: String,
    server: Option<Server>,
    ssh_hostname: Option<String>,
    name: String,
    color: String,
    container_image: String,
    ai: bool,
    hoody_kit: bool,
    dev_kit: bool,
    kvm: bool,
    /// What it may take of its server.
    limits: limits::Shown,
    autostart: bool,
    ramdisk_scope: &'static str,
    ramdisk: bool,
    /// Its machine was kept ready before it was asked for.
    prespawn: bool,
    is_default: bool,
    status: &'static str,
    environment_vars: BTreeMap<String, String>,
    volumes: Map<String, Value>,
    ssh_public_key: Option<String>,
    comment: Option<String>,
    source_container_id: Option<String>,
    server_expired: bool,
    server_expired_at: Option<String>,
    server_expired_reason: Option<String>,
    created_at: String,
    updated_at: String,
    realm_ids: Vec<String>,
    snapshot_count: u32,
    last_used_snapshot: Option<String>,
    pool_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy_domains: Option<Vec<ProxyDomain>>,
    has_proxy_permissions: bool,
    proxy_permissions_scope: &'static str,
    has_proxy_domains: bool,
    proxy_domains_count: usize,
}

/// What leads to a container and what it is behind, to be shown with it.
#[derive(Default)]
pub struct Around {
    aliases: Vec<store::aliases::Alias>,
    own_rules: bool,
    project_rules: bool,
}

impl Around {
    fn of(db: &Connection, owned: &Owned) -> rusqlite::Result<Around> {
        let has = |owner| store::rules::find(db, owner).map(|kept| kept.rules.is_some());
        Ok(Around {
            aliases: store::aliases::of_container(db, owned.container.id)?,
            own_rules: has(Owner::Container(owned.container.id))?,
            project_rules: has(Owner::Project(owned.project.id))?,
        })
    }
}

#[derive(Serialize, JsonSchema)]
struct Server {
    name: String,
    is_free: bool,
    specs: Option<ServerSpecs>,
    expires_at: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct ServerSpecs {
    cpu_cores: Option<u32>,
    ram_gb: Option<f64>,
    disk_gb: Option<f64>,
    shared_compute: bool,
}

/// What this node makes containers from where nothing is named.
const DEFAULT_IMAGE: &str = "debian-13";

impl Container {
    pub fn of(control: &Control, owned: &Owned, around: &Around, domains: bool) -> Container {
        const GIB: f64 = 1_073_741_824.0;
        let Owned { container, project } = owned;
        let host = &control.host;
        let size = |bytes: u64| (bytes > 0).then(|| (bytes as f64 / GIB * 10.0).round() / 10.0);
        Container {
            id: container.id.to_string(),
            project_id: Some(container.project.to_string()),
            project_alias: Some(project.alias.clone()),
            server_id: Some(control.identity.id.to_string()),
            server_name: Some(control.config.node.clone()),
            subserver_name: hostname(&container.name),
            server: Some(Server {
                name: control.config.node.clone(),
                is_free: false,
                specs: Some(ServerSpecs {
                    cpu_cores: (host.cpus > 0).then_some(host.cpus),
                    ram_gb: size(host.memory),
                    disk_gb: size(host.disk),
                    shared_compute: true,
                }),
                expires_at: None,
            }),
            ssh_hostname: None,
            name: container.name.clone(),
            color: container.color.clone(),
            container_image: container
                .image
                .clone()
                .unwrap_or_else(|| default_image(control).to_owned()),
            ai: false,
            hoody_kit: container.kit,
            dev_kit: false,
            kvm: container.kvm,
            limits: limits::Shown::of(control, container.limits),
            autostart: container.autostart,
            ramdisk_scope: "container",
            ramdisk: container.ramdisk,
            prespawn: container.prespawned,
            is_default: false,
            status: container.status.as_str(),
            environment_vars: container.environment.clone(),
            volumes: Map::new(),
            ssh_public_key: container.ssh_public_key.clone(),
            comment: container.comment.clone(),
            source_container_id: container
                .disk
                .source
                .as_ref()
                .map(|source| source.id.to_string()),
            server_expired: false,
            server_expired_at: None,
            server_expired_reason: None,
            created_at: time::text(container.created_at),
            updated_at: time::text(container.updated_at),
            realm_ids: container.realms.iter().map(Id::to_string).collect(),
            snapshot_count: container.disk.snapshots,
            last_used_snapshot: container.disk.last_used.clone(),
            pool_id: None,
            proxy_domains: domains.then(|| {
                let aliases = around.aliases.iter();
                aliases
                    .map(|alias| ProxyDomain::of(control, alias))
                    .collect()
            }),
            has_proxy_permissions: around.own_rules || around.project_rules,
            proxy_permissions_scope: match (around.own_rules, around.project_rules) {
                (true, _) => "container",
                (false, true) => "project",
                (false, false) => "none",
            },
            has_proxy_domains: !around.aliases.is_empty(),
            proxy_domains_count: around.aliases.len(),
        }
    }
}

/// What a list shows of a machine that is kept ready. Its own id becomes the key to the URLs of
/// whoever is given it: another stands in its place, from which it cannot be told.
fn kept_ready(control: &Control, member: &Member, pool: &prespawn::Pool) -> Container {
    let mut shown = [0; 12];
    shown.copy_from_slice(&Sha256::digest(format!("kept ready {}", member.id))[..12]);
    let id = Id(shown);
    let nobody = store::projects::Project {
        id: Id([0; 12]),
        user: Id([0; 12]),
        alias: String::new(),
        color: String::new(),
        max_containers: None,
        realms: Vec::new(),
        created_at: member.since,
        updated_at: member.since,
    };
    let container = store::containers::Container {
        id,
        project: nobody.id,
        name: format!("prespawn-{}", &id.to_string()[..8]),
        color: "#808080".to_owned(),
        image: Some(pool.kind.image.clone()),
        kit: pool.kind.kit,
        autostart: false,
        ramdisk: control.runtime.has_ramdisks(),
        kvm: false,
        limits: pool.kind.limits,
        environment: BTreeMap::new(),
        ssh_public_key: None,
        comment: None,
        realms: Vec::new(),
        wants: Wants::Frozen,
        force: false,
        restart_from: None,
        version: 1,
        applied: 1,
        revision: 1,
        requested_by: "system".to_owned(),
        failure: None,
        prespawned: true,
        claim: None,
        made: true,
        status: match member.state {
            State::Making => Status::Creating,
            State::Ready => Status::Paused,
            State::Dropping => Status::Deleting,
        },
        status_since: member.since,
        incarnation: 0,
        started_at: None,
        created_at: member.since,
        updated_at: member.since,
        disk: Disk::default(),
    };
    let owned = Owned {
        container,
        project: nobody,
    };
    let mut shown = Container::of(control, &owned, &Around::default(), false);
    (shown.project_id, shown.project_alias) = (None, None);
    shown
}

fn default_image(control: &Control) -> &'static str {
    if control.runtime.name() == "local" {
        "local"
    } else {
        DEFAULT_IMAGE
    }
}

pub fn no_container(id: Id) -> Fault {
    Fault::not_found(format!(
        "no container {id}; list them with `hoody containers list`"
    ))
    .code("NOT_FOUND")
}

/// The container, if the caller sees it.
pub async fn seen(control: &Control, principal: &Principal, id: Id) -> Result<Owned, Fault> {
    let found = control
        .store
        .read("look up a container", move |db| containers::owned(db, id))
        .await
        .map_err(broken)?;
    found
        .filter(|owned| sees(principal, owned))
        .ok_or_else(|| no_container(id))
}

/// Whether the caller sees it.
pub fn sees(principal: &Principal, owned: &Owned) -> bool {
    owned.project.user == principal.user.id && principal.realms().see(&owned.container.realms)
}

pub fn invalid(field: &str, message: impl Into<String>) -> Fault {
    let message = message.into();
    Fault::bad_request(format!("invalid parameter `{field}`: {message}"))
        .code("VALIDATION_ERROR")
        .field(format!("/{field}"), message)
}

fn clashes(clash: Clash, name: &str) -> Fault {
    match clash {
        Clash::Name => Fault::conflict(format!(
            "the project has a container `{name}` already; choose another name"
        ))
        .code("NAME_TAKEN"),
        Clash::Key => Fault::conflict("another container has this SSH key; each needs its own")
            .code("SSH_KEY_TAKEN"),
    }
}

/// Environment variables within their bounds.
pub fn variables(
    given: impl IntoIterator<Item = (String, String)>,
) -> Result<BTreeMap<String, String>, Fault> {
    let all: BTreeMap<String, String> = given.into_iter().collect();
    let bytes: usize = all
        .iter()
        .map(|(key, value)| key.len() + value.len() + 2)
        .sum();
    if all.len() > VARIABLES {
        return Err(invalid(
            "environment_vars",
            format!("holds more than {VARIABLES} variables"),
        ));
    }
    if bytes > VARIABLES_BYTES {
        return Err(invalid(
            "environment_vars",
            format!("holds more than {VARIABLES_BYTES} bytes"),
        ));
    }
    Ok(all)
}

fn plain(given: BTreeMap<VariableName, VariableValue>) -> impl Iterator<Item = (String, String)> {
    given
        .into_iter()
        .map(|(key, value)| (key.into_string(), value.into_string()))
}

/// `debian`, `debian/13`, `debian:13`, `Debian 13` and `debian-13` are the same image.
async fn image(control: &Control, asked: &str) -> Result<String, Fault> {
    let wanted = asked.to_ascii_lowercase().replace(['/', ':', ' '], "-");
    let images = control.runtime.images().await.map_err(|error| {
        tracing::warn!(error = %crate::auth::chain(&error), "could not list the images");
        Fault::unavailable("the node cannot list its images now; try again")
            .code("RUNTIME_UNAVAILABLE")
    })?;
    let exact = images.iter().find(|image| image.name == wanted);
    let mut family = images
        .iter()
        .filter(|image| image.name.split('-').next() == Some(wanted.as_str()));
    match exact.or_else(|| family.next()) {
        Some(image) => Ok(image.name.clone()),
        None => Err(invalid(
            "container_image",
            format!("no image `{asked}`; list them with `hoody images list`"),
        )),
    }
}

#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum SortBy {
    Id,
    Name,
    Status,
    CreatedAt,
    UpdatedAt,
}

impl SortBy {
    fn column(self) -> &'static str {
        match self {
            SortBy::Id => "id",
            SortBy::Name => "name",
            SortBy::Status => "status",
            SortBy::CreatedAt => "created_at",
            SortBy::UpdatedAt => "updated_at",
        }
    }
}

#[derive(Serialize, JsonSchema)]
pub struct Containers {
    containers: Vec<Container>,
    pagination: Pagination,
}

async fn list(
    control: &Control,
    filter: Filter,
    asked: Asked,
    domains: bool,
    ready: bool,
) -> Result<Containers, Fault> {
    let (page, total, members) = control
        .store
        .read("list containers", move |db| {
            let (page, total) = containers::list(db, &filter, asked.slice())?;
            let page = page.into_iter().map(|owned| {
                let around = Around::of(db, &owned)?;
                Ok((owned, around))
            });
            let members = match ready {
                true => prespawned::all(db)?,
                false => Vec::new(),
            };
            Ok((page.collect::<rusqlite::Result<Vec<_>>>()?, total, members))
        })
        .await
        .map_err(broken)?;
    // They come after all others.
    let pools = &control.config.prespawn.pools;
    let of_pool = |member: &Member| {
        let pool = pools.iter().find(|pool| pool.kind.key() == member.kind)?;
        Some(kept_ready(control, member, pool))
    };
    let members: Vec<Container> = members.iter().filter_map(of_pool).collect();
    let (all, slice) = (total + members.len() as u64, asked.slice());
    let before = usize::try_from(slice.offset.saturating_sub(total)).unwrap_or(usize::MAX);
    let room = usize::try_from(slice.limit).unwrap_or(usize::MAX);
    let room = room.saturating_sub(page.len());
    let owned = page
        .iter()
        .map(|(owned, around)| Container::of(control, owned, around, domains));
    Ok(Containers {
        containers: owned
            .chain(members.into_iter().skip(before).take(room))
            .collect(),
        pagination: asked.pagination(all),
    })
}

/// The account's containers in all projects, newest first.
#[derive(Deserialize, JsonSchema)]
pub struct List {
    page: Option<Page>,
    /// Containers on a page; 50 where not named.
    limit: Option<Limit>,
    sort_by: Option<SortBy>,
    sort_order: Option<Order>,
    /// Only containers of this realm.
    #[expect(dead_code, reason = "the gate reads it")]
    realm_id: Option<String>,
    /// Whether to name the aliases that lead to each.
    #[serde(default)]
    include_proxy_domains: bool,
    /// For administrators: whether to list machines that are kept ready and are nobody's yet, after
    /// all others. Their ids are stand-ins: nothing can be asked of them.
    #[serde(default)]
    include_prespawn: bool,
    /// Whether to list those that are being deleted.
    #[serde(default)]
    include_deleting: bool,
}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/containers/")
        .named("listContainers")
        .cli("containers list");
    type Service = Control;
    type Reply = Containers;

    async fn run(self, control: Control, call: Call) -> Result<Containers, Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersRead)?;
        let asked = Asked {
            page: self.page,
            limit: self.limit,
            usual: 50,
            column: self.sort_by.unwrap_or(SortBy::CreatedAt).column(),
            order: self.sort_order,
        };
        let filter = Filter {
            user: principal.user.id,
            project: None,
            realms: principal.realms(),
            deleting: self.include_deleting,
        };
        // In no realm and of no account: whoever sees all of the node sees them.
        let ready = self.include_prespawn
            && principal.user.is_admin
            && principal.may(Permission::Monitoring).is_ok()
            && principal.realms().see(&[]);
        list(&control, filter, asked, self.include_proxy_domains, ready).await
    }
}

/// The containers of one project, newest first.
#[derive(Deserialize, JsonSchema)]
pub struct ListByProject {
    id: IdText,
    page: Option<Page>,
    /// Containers on a page; 50 where not named.
    limit: Option<Limit>,
    sort_by: Option<SortBy>,
    sort_order: Option<Order>,
    /// Whether to name the aliases that lead to each.
    #[serde(default)]
    include_proxy_domains: bool,
    /// Whether to list machines that are kept ready: none of them is in a project.
    #[serde(default)]
    #[expect(dead_code, reason = "it changes nothing")]
    include_prespawn: bool,
    /// Whether to list those that are being deleted.
    #[serde(default)]
    include_deleting: bool,
}

impl Operation for ListByProject {
    const ROUTE: Route =
        Route::get("/api/v1/projects/{id}/containers").named("listProjectContainers");
    type Service = Control;
    type Reply = Containers;

    async fn run(self, control: Control, call: Call) -> Result<Containers, Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersRead)?;
        let project = projects::seen(&control, &principal, self.id.0).await?;
        let asked = Asked {
            page: self.page,
            limit: self.limit,
            usual: 50,
            column: self.sort_by.unwrap_or(SortBy::CreatedAt).column(),
            order: self.sort_order,
        };
        let filter = Filter {
            user: principal.user.id,
            project: Some(project.id),
            realms: principal.realms(),
            deleting: self.include_deleting,
        };
        list(&control, filter, asked, self.include_proxy_domains, false).await
    }
}

/// Make a container in a project and start it.
///
/// The answer comes at once with `status: creating`, or `claiming` where a machine was ready; the
/// container is `running` when its kit answers at its URLs. Where it cannot be made, it becomes
/// `failed`, and its status logs say why.
#[derive(Deserialize, JsonSchema)]
pub struct Create {
    /// The project.
    id: IdText,
    /// The server to make it on, from `hoody servers list`.
    server_id: String,
    /// Its name; one is made up where none is given, or for `rand`.
    name: Option<ContainerName>,
    /// A colour, such as #FF8800; one is chosen where none is given.
    color: Option<Color>,
    /// What to make it from; the node's default where null.
    container_image: Option<ImageName>,
    environment_vars: Option<BTreeMap<VariableName, VariableValue>>,
    /// Who may log in over SSH.
    ssh_public_key: Option<SshKey>,
    comment: Option<Comment>,
    /// Whether it carries the kit: terminal, files and the other services.
    #[serde(default = "yes")]
    hoody_kit: bool,
    /// Virtual machines inside: whether it has the host's `/dev/kvm`.
    #[serde(default)]
    kvm: bool,
    /// The same as `kvm`.
    #[serde(default)]
    dev_kvm: bool,
    /// Whether it starts when the host boots.
    #[serde(default = "yes")]
    autostart: bool,
    /// Whether it has a disk in memory at `/ramdisk`. It takes up to half of the container's memory,
    /// outlives restarts of the container, and ends with the container and with the host's boot.
    #[serde(default = "yes")]
    ramdisk: bool,
    /// Processors it may use, such as 2 or 0.5.
    cpus: Option<Cpus>,
    /// Memory it may use: bytes, or text such as 512MiB.
    memory: Option<Bytes>,
    /// Disk it may fill, snapshots not counted: bytes, or text such as 10GiB.
    disk: Option<Bytes>,
    /// Processes and threads it may have.
    processes: Option<u32>,
    /// Ask for a machine that was booted in advance and answers within moments. Where none is ready,
    /// one is made, and the status logs say why; the same is done without asking where the node
    /// keeps machines of the kind.
    #[serde(default)]
    prespawn: bool,
    /// Have a machine made in any case.
    #[serde(default)]
    bypass_prespawn: bool,
    /// Realms it belongs to, beside that of the URL.
    #[serde(default)]
    realm_ids: Vec<IdText>,
}

fn yes() -> bool {
    true
}

/// Whether the server that is asked for, by its id or name, is this one: there is no other.
pub fn on_this_server(control: &Control, asked: &str) -> Result<(), Fault> {
    if asked == control.identity.id.to_string() || asked == control.config.node {
        return Ok(());
    }
    Err(Fault::not_found(format!(
        "no server `{asked}`; list them with `hoody servers list`"
    ))
    .code("SERVER_NOT_FOUND"))
}

/// A container that is to be written.
pub struct New {
    pub container: store::containers::Container,
    /// Its name was chosen by the caller; any other will do otherwise.
    pub named: bool,
    /// How many there may be on the node.
    pub of_node: u32,
    /// Whether a machine that was kept ready is to be its own.
    pub wish: Wish,
}

pub enum Refused {
    NoProject,
    Clash(Clash),
    ProjectFull(u32),
    NodeFull(u32),
}

impl Operation for Create {
    const ROUTE: Route = Route::post("/api/v1/projects/{id}/containers")
        .named("createProjectContainer")
        .cli("containers create")
        .says("Container is being created");
    type Service = Control;
    type Reply = Container;

    async fn run(self, control: Control, call: Call) -> Result<Container, Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersCreate)?;
        let project = projects::seen(&control, &principal, self.id.0).await?;
        on_this_server(&control, &self.server_id)?;
        let kvm = self.kvm || self.dev_kvm;
        if kvm {
            principal.may(Permission::Kvm)?;
            if !control.runtime.has_kvm() {
                return Err(kvm::not_here());
            }
        }
        if self.prespawn && self.bypass_prespawn {
            return Err(invalid(
                "bypass_prespawn",
                "a machine that was kept ready is asked for with `prespawn`; leave one of them out",
            ));
        }
        let named = self
            .name
            .filter(|name| &**name != "rand")
            .map(ContainerName::into_string);
        let image = match self.container_image.as_deref() {
            Some(asked) => Some(image(&control, asked).await?),
            None => None,
        };
        let asked = limits::Asked {
            cpus: self.cpus.map(Some),
            memory: self.memory.map(Some),
            disk: self.disk.map(Some),
            processes: self.processes.map(Some),
        };
        let limits = asked.over(&control, Limits::default())?;
        let now = control.now();
        let container = store::containers::Container {
            id: words::id(),
            project: project.id,
            name: named.clone().unwrap_or_else(words::name),
            color: self.color.map_or_else(words::color, |color| color.normal()),
            image,
            kit: self.hoody_kit,
            autostart: self.autostart,
            kvm,
            limits,
            ramdisk: self.ramdisk && control.runtime.has_ramdisks(),
            environment: variables(plain(self.environment_vars.unwrap_or_default()))?,
            ssh_public_key: self.ssh_public_key.map(SshKey::into_string),
            comment: self.comment.map(Comment::into_string),
            realms: realms_of_new(&principal, self.realm_ids)?,
            wants: Wants::On,
            force: false,
            restart_from: None,
            version: 1,
            applied: 0,
            revision: 1,
            requested_by: principal.label(),
            failure: None,
            prespawned: false,
            claim: None,
            made: false,
            status: Status::Creating,
            status_since: now,
            incarnation: 0,
            started_at: None,
            created_at: now,
            updated_at: now,
            disk: Disk::default(),
        };
        let wish = match self.bypass_prespawn {
            true => Wish::None,
            false => {
                let image = container.image.as_deref();
                let image = image.unwrap_or_else(|| default_image(&control));
                prespawn::wish(&control, &container, image, self.prespawn)
            }
        };
        let wished = wish != Wish::None;
        let new = New {
            named: named.is_some(),
            of_node: control.config.limits.containers_per_node,
            container,
            wish,
        };
        let name = new.container.name.clone();
        let written = control
            .store
            .write("make a container", move |db| add(db, new))
            .await
            .map_err(broken)?;
        let owned = written.map_err(|refused| refusal(refused, self.id.0, &name))?;
        control.nudges.nudge(owned.container.id);
        if wished {
            control.metrics.claim(owned.container.prespawned);
            control.prespawn.nudge();
        }
        Ok(Container::of(&control, &owned, &Around::default(), false))
    }
}

/// Write a new container, unless something stands in its way.
pub fn add(db: &Connection, new: New) -> rusqlite::Result<Result<Owned, Refused>> {
    let New {
        mut container,
        named,
        of_node,
        wish,
    } = new;
    // The project may have been deleted since it was looked up.
    let Some(project) = store::projects::find(db, container.project)? else {
        return Ok(Err(Refused::NoProject));
    };
    if let Some(most) = project.max_containers
        && containers::count(db, Some(project.id))? >= most
    {
        return Ok(Err(Refused::ProjectFull(most)));
    }
    if containers::count(db, None)? >= of_node {
        return Ok(Err(Refused::NodeFull(of_node)));
    }
    while let Some(clash) = containers::clash(db, &container)? {
        if clash == Clash::Key || named {
            return Ok(Err(Refused::Clash(clash)));
        }
        container.name = words::name();
    }
    let metadata = match wish {
        Wish::None => None,
        Wish::Missed(reason) => Some(containers::missed(&reason)),
        Wish::One { kind, edition } => match prespawned::take(db, &kind, &edition)? {
            Some(id) => {
                // The machine has had the id from its beginning, and nobody was told.
                container.id = id;
                container.prespawned = true;
                container.claim = Some(Claim::Open);
                container.status = Status::Claiming;
                Some(json!({ "prespawn": "claimed" }))
            }
            None => Some(containers::missed(
                "no machine was ready; the next are being made",
            )),
        },
    };
    containers::insert(db, &container, metadata)?;
    Ok(Ok(Owned { container, project }))
}

/// What stood in the way of a new container, to its caller.
pub fn refusal(refused: Refused, project: Id, name: &str) -> Fault {
    match refused {
        Refused::NoProject => projects::no_project(project),
        Refused::Clash(clash) => clashes(clash, name),
        Refused::ProjectFull(most) => Fault::conflict(format!(
            "the project may have {most} containers and has them; delete some"
        ))
        .code("LIMIT_REACHED"),
        Refused::NodeFull(most) => Fault::conflict(format!(
            "the server has {most} containers and takes no more"
        ))
        .code("LIMIT_REACHED"),
    }
}

/// One container.
#[derive(Deserialize, JsonSchema)]
pub struct Get {
    id: IdText,
    /// Whether to name the aliases that lead to it.
    #[serde(default)]
    include_proxy_domains: bool,
}

impl Operation for Get {
    const ROUTE: Route = Route::get("/api/v1/containers/{id}")
        .named("getContainerById")
        .cli("containers get");
    type Service = Control;
    type Reply = Container;

    async fn run(self, control: Control, call: Call) -> Result<Container, Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersRead)?;
        let owned = seen(&control, &principal, self.id.0).await?;
        show(&control, owned, self.include_proxy_domains).await
    }
}

/// Change a container; what is not named stays. The environment and the SSH key are brought to
/// the machine; programs that run already keep the environment they have.
#[derive(Deserialize, JsonSchema)]
pub struct Update {
    id: IdText,
    name: Option<ContainerLabel>,
    color: Option<Color>,
    autostart: Option<bool>,
    /// All variables; those that are not named are removed.
    environment_vars: Option<BTreeMap<VariableName, VariableValue>>,
    /// The same as `environment_vars`.
    env_vars: Option<BTreeMap<VariableName, VariableValue>>,
    /// Processors it may use, such as 2 or 0.5. This and the other limits hold at once, for what runs
    /// already too, and are refused where that does not fit into them; null is what the server gives to
    /// every container.
    #[serde(default, deserialize_with = "given")]
    cpus: Option<Option<Cpus>>,
    /// Memory it may use: bytes, or text such as 512MiB.
    #[serde(default, deserialize_with = "given")]
    memory: Option<Option<Bytes>>,
    /// Disk it may fill, snapshots not counted: bytes, or text such as 10GiB.
    #[serde(default, deserialize_with = "given")]
    disk: Option<Option<Bytes>>,
    /// Processes and threads it may have.
    #[serde(default, deserialize_with = "given")]
    processes: Option<Option<u32>>,
    /// Null takes the key away.
    #[serde(default, deserialize_with = "given")]
    ssh_public_key: Option<Option<SshKey>>,
    /// Null takes the comment away.
    #[serde(default, deserialize_with = "given")]
    comment: Option<Option<Comment>>,
    realm_ids: Option<Vec<IdText>>,
}

impl Operation for Update {
    const ROUTE: Route = Route::put("/api/v1/containers/{id}")
        .also(Verb::Patch)
        .named("updateContainerPatch")
        .cli("containers update")
        .says("Container updated");
    type Service = Control;
    type Reply = Container;

    async fn run(self, control: Control, call: Call) -> Result<Container, Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersUpdate)?;
        if self.environment_vars.is_some() && self.env_vars.is_some() {
            return Err(invalid(
                "env_vars",
                "is another name of `environment_vars`; leave one of them out",
            ));
        }
        let environment = self
            .environment_vars
            .or(self.env_vars)
            .map(|given| variables(plain(given)))
            .transpose()?;
        let realms = self
            .realm_ids
            .map(|asked| realms_of_changed(&principal, asked))
            .transpose()?;
        let name = self.name.map(ContainerLabel::into_string);
        let color = self.color.map(|color| color.normal());
        let key = self.ssh_public_key.map(|key| key.map(SshKey::into_string));
        let comment = self
            .comment
            .map(|comment| comment.map(Comment::into_string));
        let autostart = self.autostart;
        let asked = limits::Asked {
            cpus: self.cpus,
            memory: self.memory,
            disk: self.disk,
            processes: self.processes,
        };
        let bounds = control.clone();
        let usage = match asked.lowers() {
            true => {
                let container = seen(&control, &principal, self.id.0).await?.container;
                match matches!(container.status, Status::Running | Status::Paused) {
                    true => Some(stats::usage(&control, container.id).await?),
                    false => None,
                }
            }
            false => None,
        };
        let owned = change(&control, &principal, self.id.0, move |container| {
            if let Some(name) = name {
                container.name = name;
            }
            if let Some(color) = color {
                container.color = color;
            }
            if let Some(autostart) = autostart {
                container.autostart = autostart;
            }
            let limits = asked.over(&bounds, container.limits)?;
            if let Some(usage) = usage {
                limits::fits(container.limits, limits, &usage)?;
            }
            container.limits = limits;
            if let Some(environment) = environment {
                container.environment = environment;
            }
            if let Some(key) = key {
                container.ssh_public_key = key;
            }
            if let Some(comment) = comment {
                container.comment = comment;
            }
            if let Some(realms) = realms {
                container.realms = realms;
            }
            Ok(())
        })
        .await?;
        show(&control, owned, false).await
    }
}

/// A container with what is around it.
pub async fn show(control: &Control, owned: Owned, domains: bool) -> Result<Container, Fault> {
    let (owned, around) = control
        .store
        .read("read what is around a container", move |db| {
            let around = Around::of(db, &owned)?;
            Ok((owned, around))
        })
        .await
        .map_err(broken)?;
    Ok(Container::of(control, &owned, &around, domains))
}

/// Change a container in one transaction, and have its machine told where it matters to it.
pub async fn change(
    control: &Control,
    principal: &Principal,
    id: Id,
    change: impl FnOnce(&mut store::containers::Container) -> Result<(), Fault> + Send + 'static,
) -> Result<Owned, Fault> {
    let (principal, now) = (principal.clone(), control.now());
    let changed = control
        .store
        .write("change a container", move |db| {
            let Some(mut owned) =
                containers::owned(db, id)?.filter(|owned| sees(&principal, owned))
            else {
                return Ok(Err(no_container(id)));
            };
            let before = owned.container.clone();
            if before.wants == Wants::Gone {
                return Ok(Err(going(id)));
            }
            if let Err(fault) = change(&mut owned.container) {
                return Ok(Err(fault));
            }
            let after = &mut owned.container;
            after.updated_at = now;
            if let Some(clash) = containers::clash(db, after)? {
                return Ok(Err(clashes(clash, &after.name)));
            }
            let machine = (
                &before.environment,
                &before.ssh_public_key,
                before.autostart,
                before.kvm,
                before.limits,
                &before.name,
            ) != (
                &after.environment,
                &after.ssh_public_key,
                after.autostart,
                after.kvm,
                after.limits,
                &after.name,
            );
            containers::update(db, after, machine)?;
            containers::record_change(db, &before, after, &principal.label())?;
            Ok(Ok(owned))
        })
        .await
        .map_err(broken)??;
    control.nudges.nudge(id);
    Ok(changed)
}

/// What is asked of a container that is being deleted.
pub fn going(id: Id) -> Fault {
    Fault::conflict(format!("container {id} is being deleted")).code("CONTAINER_DELETING")
}

/// Delete a container with everything in it.
///
/// Its URLs end within moments; it is `deleting` until nothing of it is left, then unknown.
#[derive(Deserialize, JsonSchema)]
pub struct Delete {
    id: IdText,
}

impl Operation for Delete {
    const ROUTE: Route = Route::delete("/api/v1/containers/{id}")
        .named("deleteContainer")
        .cli("containers delete")
        .says("Container is being deleted");
    type Service = Control;
    type Reply = ();

    async fn run(self, control: Control, call: Call) -> Result<(), Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersDelete)?;
        let id = self.id.0;
        let request = Request {
            wants: Wants::Gone,
            force: true,
            restart: false,
            by: principal.label(),
            at: control.now(),
        };
        ask(&control, &principal, id, move |_| Ok(request)).await?;
        control.nudges.nudge(id);
        Ok(())
    }
}

/// Take a request for a container in one transaction; `request` may refuse by what the container
/// is now. The container as it is afterwards.
pub async fn ask(
    control: &Control,
    principal: &Principal,
    id: Id,
    request: impl FnOnce(&store::containers::Container) -> Result<Request, Fault> + Send + 'static,
) -> Result<Owned, Fault> {
    let principal = principal.clone();
    let publisher = control.clone();
    let taken = control
        .store
        .write_then(
            "take a request for a container",
            move |db| {
                let owned = containers::owned(db, id)?;
                let Some(owned) = owned.filter(|owned| sees(&principal, owned)) else {
                    return Ok(Err(no_container(id)));
                };
                let request = match request(&owned.container) {
                    Ok(request) => request,
                    Err(fault) => return Ok(Err(fault)),
                };
                let aliases = containers::ask(db, &owned.container, &request)?;
                let owned = containers::owned(db, id)?;
                Ok(owned
                    .map(|owned| (owned, aliases))
                    .ok_or_else(|| no_container(id)))
            },
            move |taken| {
                if let Ok((owned, aliases)) = taken
                    && owned.container.wants == Wants::Gone
                {
                    edge::forget(&publisher.publisher, &[id], aliases);
                }
            },
        )
        .await
        .map_err(broken)?;
    taken.map(|(owned, _)| owned)
}
