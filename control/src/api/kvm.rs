//! Virtual machines inside of containers.

use kit::{Call, Fault, Operation, Route, Verb};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::containers::{change, invalid};
use super::text::IdText;
use crate::auth::Principal;
use crate::auth::permissions::Permission;
use crate::control::Control;

/// What is said where the host has no `/dev/kvm`, or its runtime cannot hand it on.
pub fn not_here() -> Fault {
    Fault::forbidden("this node does not offer virtual machines inside of containers")
        .code("KVM_NOT_AVAILABLE")
}

/// Give a container the host's `/dev/kvm`, for virtual machines inside of it, or take it away.
///
/// A running container has it within moments, and loses it as soon. What has it open keeps it.
#[derive(Deserialize, JsonSchema)]
pub struct Set {
    id: IdText,
    kvm: Option<bool>,
    /// The same as `kvm`.
    dev_kvm: Option<bool>,
}

#[derive(Serialize, JsonSchema)]
pub struct Changed {
    id: String,
    name: String,
    status: &'static str,
    kvm: bool,
}

impl Operation for Set {
    const ROUTE: Route = Route::put("/api/v1/containers/{id}/kvm")
        .also(Verb::Patch)
        .named("setContainerKvmPatch")
        .cli("containers kvm")
        .says("Container updated");
    type Service = Control;
    type Reply = Changed;

    async fn run(self, control: Control, call: Call) -> Result<Changed, Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersUpdate)?;
        principal.may(Permission::Kvm)?;
        let Some(wanted) = self.kvm.or(self.dev_kvm) else {
            return Err(invalid("kvm", "must be true or false"));
        };
        let offered = control.runtime.has_kvm();
        let owned = change(&control, &principal, self.id.0, move |container| {
            if wanted && !offered {
                return Err(not_here());
            }
            container.kvm = wanted;
            Ok(())
        })
        .await?;
        Ok(Changed {
            id: owned.container.id.to_string(),
            name: owned.container.name.clone(),
            status: owned.container.status.as_str(),
            kvm: owned.container.kvm,
        })
    }
}
