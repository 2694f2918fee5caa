//! Containers made from one another, and brought to what their sources are.

use kit::{Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::containers::{Container, New, add, on_this_server, refusal, seen, show};
use super::projects;
use super::snapshots::{at_rest, change, not_now};
use super::text::{ContainerName, IdText, SshKey};
use crate::auth::Principal;
use crate::auth::broken;
use crate::auth::permissions::Permission;
use crate::container::{Status, Wants};
use crate::control::Control;
use crate::edge;
use crate::policies;
use crate::prespawn::Wish;
use crate::runtime::Source;
use crate::store::rules::Owner;
use crate::store::{self, Realms, containers, snapshots};
use crate::words;

/// Make a container from another: with its disk as it is now, or as it was in a snapshot.
///
/// The answer comes at once with `status: copying`; the copy is `stopped` when it is made, so that
/// what runs in its source does not run twice before somebody wants it to. It is a computer of its
/// own: another id, address, URLs, system id and SSH host keys. Environment, comment, colour and the
/// rules of the proxy come along, and so do those of its firewall and its network unless it is said
/// otherwise; snapshots, aliases, links and the SSH key do not. The source may
/// run, and goes on undisturbed.
#[derive(Deserialize, JsonSchema)]
pub struct Copy {
    id: IdText,
    /// The project of the copy.
    target_project_id: IdText,
    /// The server to make it on; the source's where none is named.
    target_server_id: Option<String>,
    /// Its name; one is made up where none is given.
    name: Option<ContainerName>,
    /// Who may log in over SSH. Files that let others log in are copied with all files.
    ssh_public_key: Option<SshKey>,
    /// A snapshot of the source to make it from, by its name or alias.
    source_snapshot: Option<String>,
    /// Whether the rules of the firewall come along.
    #[serde(default = "yes")]
    copy_firewall_rules: bool,
    /// Whether what is said about the network comes along, a proxy's credentials with it.
    #[serde(default = "yes")]
    copy_network_rules: bool,
    /// Virtual machines inside; this node does not offer them.
    #[serde(default)]
    kvm: bool,
    /// The same as `kvm`.
    #[serde(default)]
    dev_kvm: bool,
}

fn yes() -> bool {
    true
}

impl Operation for Copy {
    const ROUTE: Route = Route::post("/api/v1/containers/{id}/copy")
        .named("copyContainer")
        .cli("containers copy")
        .says("Container is being copied");
    type Service = Control;
    type Reply = Container;

    async fn run(self, control: Control, call: Call) -> Result<Container, Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersCreate)?;
        principal.may(Permission::ContainersRead)?;
        let id = self.id.0;
        let origin = seen(&control, &principal, id).await?;
        let project = projects::seen(&control, &principal, self.target_project_id.0).await?;
        if let Some(server) = &self.target_server_id {
            on_this_server(&control, server)?;
        }
        if self.kvm || self.dev_kvm {
            return Err(Fault::forbidden(
                "this node does not offer virtual machines inside of containers",
            )
            .code("KVM_NOT_AVAILABLE"));
        }
        // Realms that the caller does not see are not the caller's to put things into.
        let mut realms = origin.container.realms.clone();
        if let Realms::Within(mine) = principal.realms() {
            realms.retain(|realm| mine.contains(realm));
        }
        let named = self.name.map(ContainerName::into_string);
        let now = control.now();
        let container = containers::Container {
            id: words::id(),
            project: project.id,
            name: named.clone().unwrap_or_else(words::name),
            ssh_public_key: self.ssh_public_key.map(SshKey::into_string),
            realms,
            wants: Wants::Off,
            force: false,
            restart_from: None,
            version: 1,
            applied: 0,
            revision: 1,
            requested_by: principal.label(),
            failure: None,
            made: false,
            prespawned: false,
            claim: None,
            status: Status::Copying,
            status_since: now,
            incarnation: 0,
            started_at: None,
            created_at: now,
            updated_at: now,
            disk: snapshots::Disk::default(),
            ..origin.container
        };
        let new = New {
            container,
            named: named.is_some(),
            of_node: control.config.limits.containers_per_node,
            wish: Wish::None,
        };
        let (firewall, network) = (self.copy_firewall_rules, self.copy_network_rules);
        let secrets = control.secrets.clone();
        let (asked, name, publisher) = (
            self.source_snapshot,
            new.container.name.clone(),
            control.clone(),
        );
        let written = control
            .store
            .write_then(
                "make a copy of a container",
                move |db| {
                    // The source may have changed since it was looked up.
                    let Some(origin) = containers::owned(db, id)? else {
                        return Ok(Err(super::containers::no_container(id)));
                    };
                    if let Err(fault) = at_rest(&origin) {
                        return Ok(Err(fault));
                    }
                    let snapshot = match &asked {
                        Some(text) => match super::snapshots::found(db, id, text)? {
                            Ok(found) if found.state == snapshots::State::Kept => Some(found.name),
                            Ok(_) => {
                                let why = "has not taken that snapshot yet";
                                return Ok(Err(not_now(&origin, why)));
                            }
                            Err(fault) => return Ok(Err(fault)),
                        },
                        None => None,
                    };
                    let owned = match add(db, new)? {
                        Ok(owned) => owned,
                        Err(refused) => {
                            return Ok(Err(refusal(refused, project.id, &name)));
                        }
                    };
                    let copy = owned.container.id;
                    snapshots::copy_of(db, copy, &Source { id, snapshot })?;
                    if firewall {
                        store::firewalls::put(db, copy, &store::firewalls::find(db, id)?, now)?;
                    }
                    if network {
                        policies::copy_network(db, &secrets, id, copy)?;
                    }
                    let rules = store::rules::find(db, Owner::Container(id))?.rules;
                    let edge = match &rules {
                        Some(rules) => {
                            store::rules::put(db, Owner::Container(copy), Some(rules), now)?;
                            Some(edge::of_container(db, copy, now)?)
                        }
                        None => None,
                    };
                    let owned = containers::owned(db, copy)?.unwrap_or(owned);
                    Ok(Ok((owned, edge)))
                },
                move |written| {
                    if let Ok((owned, Some(edge))) = written {
                        publisher
                            .publisher
                            .set_edge(owned.container.id, edge.clone());
                    }
                },
            )
            .await
            .map_err(broken)?;
        let (owned, _) = written?;
        // Known before the copy is made, let alone started; tried again by itself where it fails.
        policies::apply(&control).await.ok();
        control.nudges.nudge(owned.container.id);
        show(&control, owned, false).await
    }
}

/// Bring a copy to what its source is now; only what changed is transferred.
///
/// The copy keeps its id, address, system id, host keys, settings and environment; files that the
/// source has no more are removed from it. Where the copy was started or restored since it was last
/// the same as its source, what was changed in it would be lost: that is refused unless `force` is
/// set, and then it is turned off meanwhile. The answer comes at once with `status: copying`.
#[derive(Deserialize, JsonSchema)]
pub struct Sync {
    id: IdText,
    /// Lose what was changed in the copy.
    #[serde(default)]
    force: bool,
}

#[derive(Serialize, JsonSchema)]
pub struct Synced {
    container_id: String,
    source_container_id: String,
    status: &'static str,
}

impl Operation for Sync {
    const ROUTE: Route = Route::post("/api/v1/containers/{id}/sync")
        .named("syncContainer")
        .cli("containers sync")
        .says("Container is being synced");
    type Service = Control;
    type Reply = Synced;

    async fn run(self, control: Control, call: Call) -> Result<Synced, Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersUpdate)?;
        let (by, now, force) = (principal.label(), control.now(), self.force);
        let viewer = principal.clone();
        let (owned, source) = change(&control, &principal, self.id.0, move |db, owned| {
            let (container, disk) = (&owned.container, &owned.container.disk);
            let Some(source) = disk.source.as_ref().map(|source| source.id) else {
                return Ok(Err(Fault::conflict(format!(
                    "container {} is no copy: there is nothing to sync it with",
                    container.id
                ))
                .code("NOT_A_COPY")));
            };
            // It is under way: the answer is the same.
            if disk.syncing && container.failure.is_none() && container.wants != Wants::Gone {
                return Ok(Ok(source));
            }
            if let Err(fault) = at_rest(owned) {
                return Ok(Err(fault));
            }
            let origin = containers::owned(db, source)?
                .filter(|origin| super::containers::sees(&viewer, origin))
                .filter(|origin| origin.container.wants != Wants::Gone);
            let Some(origin) = origin else {
                return Ok(Err(Fault::conflict(format!(
                    "container {} was copied from {source}, which is no more",
                    container.id
                ))
                .code("SOURCE_GONE")));
            };
            if let Err(fault) = at_rest(&origin) {
                return Ok(Err(fault));
            }
            if snapshots::readers(db, container.id, None)? > 0 {
                return Ok(Err(not_now(owned, "is being copied itself")));
            }
            let failed_midway = disk.syncing;
            let same = disk.same_at == Some(container.incarnation)
                && matches!(container.wants, Wants::Off);
            if !force && !same && !failed_midway {
                return Ok(Err(Fault::conflict(format!(
                    "container {} was started or restored since it was the same as its source, and what was changed in it would be lost; `force` does it",
                    container.id
                ))
                .code("COPY_CHANGED")));
            }
            snapshots::sync(db, container, &by, now)?;
            Ok(Ok(source))
        })
        .await?;
        Ok(Synced {
            container_id: owned.container.id.to_string(),
            source_container_id: source.to_string(),
            status: Status::Copying.as_str(),
        })
    }
}
