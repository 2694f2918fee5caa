//! Realms: labels that keep what belongs together apart from the rest.

use kit::{Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::auth::permissions::Permission;
use crate::auth::{Principal, broken};
use crate::control::Control;
use crate::store::{Realms, containers, projects};

/// The realms that the account's projects, containers and tokens are in.
#[derive(Deserialize, JsonSchema)]
pub struct List {
    /// Whether to say how much is in each.
    #[serde(default)]
    include_usage: bool,
}

#[derive(Serialize, JsonSchema)]
pub struct RealmList {
    realm_ids: Vec<String>,
    total: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Map<String, Value>>,
}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/realms/")
        .named("listRealms")
        .cli("realms list");
    type Service = Control;
    type Reply = RealmList;

    async fn run(self, control: Control, call: Call) -> Result<RealmList, Fault> {
        let principal = Principal::who_may(&call, Permission::Realms)?;
        let (user, seen, count) = (principal.user.id, principal.realms(), self.include_usage);
        let found = control
            .store
            .read("list realms", move |db| {
                let mut found = Vec::new();
                for realm in projects::realms(db, user)? {
                    let within = Realms::Within(vec![realm]);
                    if !seen.see(&[realm]) {
                        continue;
                    }
                    let usage = if count {
                        let filter =
                            containers::Filter { user, project: None, realms: within.clone(), deleting: false };
                        let none = crate::store::Slice { column: "id", descending: false, limit: 0, offset: 0 };
                        let (_, containers) = containers::list(db, &filter, none)?;
                        Some(json!({ "projects": projects::count(db, user, &within)?, "containers": containers }))
                    } else {
                        None
                    };
                    found.push((realm.to_string(), usage));
                }
                Ok(found)
            })
            .await
            .map_err(broken)?;
        let usage = self.include_usage.then(|| {
            found
                .iter()
                .filter_map(|(realm, usage)| Some((realm.clone(), usage.clone()?)))
                .collect()
        });
        let realm_ids: Vec<String> = found.into_iter().map(|(realm, _)| realm).collect();
        Ok(RealmList {
            total: realm_ids.len(),
            realm_ids,
            usage,
        })
    }
}
