//! Environment variables of containers. What runs already keeps what it has; what starts next
//! gets the new ones.

use std::collections::BTreeMap;

use kit::{Call, Fault, Operation, Route, Verb};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::containers::{change, seen, variables};
use super::text::{IdText, VariableName, VariableValue};
use crate::auth::Principal;
use crate::auth::permissions::Permission;
use crate::control::Control;
use crate::store::containers::Owned;

#[derive(Serialize, JsonSchema)]
pub struct Environment {
    environment_vars: BTreeMap<String, String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Changed {
    environment_vars: BTreeMap<String, String>,
    /// Whether the machine knows of the change already; it is told in any case.
    synced: bool,
}

impl Changed {
    fn of(owned: Owned) -> Changed {
        Changed {
            environment_vars: owned.container.environment,
            synced: false,
        }
    }
}

/// The environment variables of a container.
#[derive(Deserialize, JsonSchema)]
pub struct List {
    id: IdText,
}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/containers/{id}/env")
        .named("listContainerEnvVars")
        .cli("containers env list");
    type Service = Control;
    type Reply = Environment;

    async fn run(self, control: Control, call: Call) -> Result<Environment, Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersRead)?;
        let owned = seen(&control, &principal, self.id.0).await?;
        Ok(Environment {
            environment_vars: owned.container.environment,
        })
    }
}

/// Set environment variables of a container: each key of the body is one. Others stay.
#[derive(Deserialize, JsonSchema)]
pub struct BulkSet {
    id: IdText,
    #[serde(flatten)]
    variables: BTreeMap<VariableName, VariableValue>,
}

impl Operation for BulkSet {
    const ROUTE: Route = Route::put("/api/v1/containers/{id}/env")
        .also(Verb::Patch)
        .named("bulkSetContainerEnvVars")
        .cli("containers env bulk-set")
        .says("Environment updated");
    type Service = Control;
    type Reply = Changed;

    async fn run(self, control: Control, call: Call) -> Result<Changed, Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersUpdate)?;
        let given = self.variables;
        change(&control, &principal, self.id.0, move |container| {
            let given = given
                .into_iter()
                .map(|(key, value)| (key.into_string(), value.into_string()));
            container.environment = variables(
                std::mem::take(&mut container.environment)
                    .into_iter()
                    .chain(given),
            )?;
            Ok(())
        })
        .await
        .map(Changed::of)
    }
}

/// Set one environment variable of a container.
#[derive(Deserialize, JsonSchema)]
pub struct Set {
    id: IdText,
    key: VariableName,
    value: VariableValue,
}

impl Operation for Set {
    const ROUTE: Route = Route::put("/api/v1/containers/{id}/env/{key}")
        .also(Verb::Patch)
        .named("setContainerEnvVar")
        .cli("containers env set")
        .says("Environment updated");
    type Service = Control;
    type Reply = Changed;

    async fn run(self, control: Control, call: Call) -> Result<Changed, Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersUpdate)?;
        let (key, value) = (self.key.into_string(), self.value.into_string());
        change(&control, &principal, self.id.0, move |container| {
            let before = std::mem::take(&mut container.environment);
            container.environment = variables(before.into_iter().chain([(key, value)]))?;
            Ok(())
        })
        .await
        .map(Changed::of)
    }
}

/// Remove one environment variable of a container.
#[derive(Deserialize, JsonSchema)]
pub struct Delete {
    id: IdText,
    key: VariableName,
}

impl Operation for Delete {
    const ROUTE: Route = Route::delete("/api/v1/containers/{id}/env/{key}")
        .named("deleteContainerEnvVar")
        .cli("containers env delete")
        .says("Environment updated");
    type Service = Control;
    type Reply = Changed;

    async fn run(self, control: Control, call: Call) -> Result<Changed, Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersUpdate)?;
        let key = self.key.into_string();
        change(
            &control,
            &principal,
            self.id.0,
            move |container| match container.environment.remove(&key) {
                Some(_) => Ok(()),
                None => Err(
                    Fault::not_found(format!("the container has no variable `{key}`"))
                        .code("NOT_FOUND"),
                ),
            },
        )
        .await
        .map(Changed::of)
    }
}
