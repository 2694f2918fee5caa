//! What a token allows. A path that is not named is denied.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is asked of a caller before an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    ContainersCreate,
    ContainersRead,
    ContainersUpdate,
    ContainersDelete,
    ContainersStart,
    ContainersStop,
    ContainersRestart,
    ContainersLogs,
    Snapshots,
    ProjectsCreate,
    ProjectsRead,
    ProjectsUpdate,
    ProjectsDelete,
    Realms,
    ProxyAliases,
    CreateTokens,
    ReadAccount,
    Events,
    Monitoring,
    Kvm,
    System,
    Networking,
    Firewalls,
    StorageShares,
}

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(default)]
        pub struct $name { $(pub $field: $kind),* }

        impl Grant for $name {
            fn all() -> Self {
                $name { $($field: Grant::all()),* }
            }
            fn within(&self, other: &Self) -> bool {
                true $(&& self.$field.within(&other.$field))*
            }
        }
    };
}

trait Grant: Sized {
    fn all() -> Self;
    /// Whether everything granted here is granted there.
    fn within(&self, other: &Self) -> bool;
}

impl Grant for bool {
    fn all() -> bool {
        true
    }
    fn within(&self, other: &bool) -> bool {
        !*self || *other
    }
}

section! {
    /// What a token allows; a path that is not named is denied.
    Permissions {
        containers: Containers,
        projects: Projects,
        financial: Financial,
        resources: Resources,
        admin: Admin,
    }
}
section! { Containers { create: bool, read: bool, update: bool, delete: bool, actions: Actions, features: Features } }
section! { Actions { start: bool, stop: bool, restart: bool, exec: bool, logs: bool } }
section! { Features { ai: bool, hoody_kit: bool, snapshots: bool, networking: bool, kvm: bool } }
section! { Projects { create: bool, read: bool, update: bool, delete: bool, members: Members } }
section! { Members { invite: bool, remove: bool, change_roles: bool } }
section! { Financial { wallet: Wallet, billing: Billing, server_rental: ServerRental } }
section! { Wallet { read: bool, transfer: bool, withdraw: bool } }
section! { Billing { read: bool, manage_payment_methods: bool, download_invoices: bool } }
section! { ServerRental { view_marketplace: bool, rent_servers: bool, extend_rentals: bool, terminate_rentals: bool } }
section! {
    Resources {
        vault: bool,
        events: bool,
        ssh_keys: bool,
        storage_shares: bool,
        proxy_aliases: bool,
        firewalls: bool,
        realms: bool,
        auth_token_public_profile: bool,
        create_tokens: bool,
        read_account: bool,
    }
}
section! { Admin { users: bool, servers: bool, system: bool, billing: bool, monitoring: bool } }

/// Sets of permissions that have a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Template {
    FullAccess,
    ExternalCustomer,
    DevTeam,
    FinanceTeam,
    ReadOnly,
}

impl Permissions {
    /// Everything an account may do, the administration of the node aside.
    pub fn full() -> Permissions {
        Permissions {
            admin: Admin::default(),
            ..Permissions::all()
        }
    }

    pub fn of(template: Template) -> Permissions {
        let full = Permissions::full();
        let none = Permissions::default();
        let look = Containers {
            read: true,
            actions: Actions {
                logs: true,
                ..Actions::default()
            },
            ..Containers::default()
        };
        let browse = Projects {
            read: true,
            ..Projects::default()
        };
        match template {
            Template::FullAccess => full,
            Template::DevTeam => Permissions {
                containers: full.containers,
                projects: Projects {
                    create: true,
                    update: true,
                    ..browse
                },
                resources: Resources {
                    vault: false,
                    create_tokens: false,
                    ..full.resources
                },
                ..none
            },
            Template::ExternalCustomer => Permissions {
                containers: Containers {
                    actions: full.containers.actions,
                    ..look
                },
                projects: browse,
                ..none
            },
            Template::FinanceTeam => Permissions {
                financial: full.financial,
                resources: Resources {
                    read_account: true,
                    ..none.resources
                },
                ..none
            },
            Template::ReadOnly => Permissions {
                containers: look,
                projects: browse,
                financial: Financial {
                    wallet: Wallet {
                        read: true,
                        ..Wallet::default()
                    },
                    billing: Billing {
                        read: true,
                        ..Billing::default()
                    },
                    server_rental: ServerRental {
                        view_marketplace: true,
                        ..ServerRental::default()
                    },
                },
                resources: Resources {
                    events: true,
                    realms: true,
                    read_account: true,
                    ..none.resources
                },
                ..none
            },
        }
    }

    pub fn allows(&self, permission: Permission) -> bool {
        let containers = &self.containers;
        match permission {
            Permission::ContainersCreate => containers.create,
            Permission::ContainersRead => containers.read,
            Permission::ContainersUpdate => containers.update,
            Permission::ContainersDelete => containers.delete,
            Permission::ContainersStart => containers.actions.start,
            Permission::ContainersStop => containers.actions.stop,
            Permission::ContainersRestart => containers.actions.restart,
            Permission::ContainersLogs => containers.actions.logs,
            Permission::Snapshots => containers.features.snapshots,
            Permission::ProjectsCreate => self.projects.create,
            Permission::ProjectsRead => self.projects.read,
            Permission::ProjectsUpdate => self.projects.update,
            Permission::ProjectsDelete => self.projects.delete,
            Permission::Realms => self.resources.realms,
            Permission::ProxyAliases => self.resources.proxy_aliases,
            Permission::CreateTokens => self.resources.create_tokens,
            Permission::ReadAccount => self.resources.read_account,
            Permission::Events => self.resources.events,
            Permission::Monitoring => self.admin.monitoring,
            Permission::Kvm => containers.features.kvm,
            Permission::System => self.admin.system,
            Permission::Networking => containers.features.networking,
            Permission::Firewalls => self.resources.firewalls,
            Permission::StorageShares => self.resources.storage_shares,
        }
    }

    /// Whether `other` allows all that this allows.
    pub fn fits(&self, other: &Permissions) -> bool {
        self.within(other)
    }
}

impl Permission {
    /// The path that grants it: `containers.actions.start`.
    pub fn path(self) -> &'static str {
        match self {
            Permission::ContainersCreate => "containers.create",
            Permission::ContainersRead => "containers.read",
            Permission::ContainersUpdate => "containers.update",
            Permission::ContainersDelete => "containers.delete",
            Permission::ContainersStart => "containers.actions.start",
            Permission::ContainersStop => "containers.actions.stop",
            Permission::ContainersRestart => "containers.actions.restart",
            Permission::ContainersLogs => "containers.actions.logs",
            Permission::Snapshots => "containers.features.snapshots",
            Permission::ProjectsCreate => "projects.create",
            Permission::ProjectsRead => "projects.read",
            Permission::ProjectsUpdate => "projects.update",
            Permission::ProjectsDelete => "projects.delete",
            Permission::Realms => "resources.realms",
            Permission::ProxyAliases => "resources.proxy_aliases",
            Permission::CreateTokens => "resources.create_tokens",
            Permission::ReadAccount => "resources.read_account",
            Permission::Events => "resources.events",
            Permission::Monitoring => "admin.monitoring",
            Permission::Kvm => "containers.features.kvm",
            Permission::System => "admin.system",
            Permission::Networking => "containers.features.networking",
            Permission::Firewalls => "resources.firewalls",
            Permission::StorageShares => "resources.storage_shares",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_is_denied() {
        let some: Permissions = serde_json::from_str(r#"{"containers":{"read":true}}"#).unwrap();
        assert!(some.allows(Permission::ContainersRead));
        assert!(
            !some.allows(Permission::ContainersDelete) && !some.allows(Permission::ReadAccount)
        );
    }

    #[test]
    fn templates_are_ordered() {
        let full = Permissions::of(Template::FullAccess);
        for template in [
            Template::ExternalCustomer,
            Template::DevTeam,
            Template::FinanceTeam,
            Template::ReadOnly,
        ] {
            let part = Permissions::of(template);
            assert!(part.fits(&full) && !full.fits(&part), "{template:?}");
        }
        assert!(!full.admin.system, "no token administers the node");
        assert!(!Permissions::of(Template::ReadOnly).allows(Permission::ContainersStart));
    }
}
