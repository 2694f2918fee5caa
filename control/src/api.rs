//! The operations, a file per noun.
//!
//! [`api()`] is the list of all; [`gate()`] stands before every one that is not open. Shapes are
//! those of the public clients: [`envelope`], [`page`], [`text`] hold what they share.

pub mod authentication;
mod authorize;
pub mod certificates;
pub mod containers;
pub mod copies;
pub mod env;
pub mod envelope;
pub mod events;
pub mod firewall;
pub mod images;
pub mod kvm;
mod limits;
pub mod manage;
pub mod meta;
pub mod network;
pub mod notifications;
pub mod page;
pub mod projects;
pub mod proxy_aliases;
pub mod proxy_discovery;
pub mod proxy_hooks;
pub mod proxy_links;
pub mod proxy_permissions;
pub mod realms;
pub mod servers;
pub mod snapshots;
pub mod stats;
pub mod status_logs;
pub mod storage;
pub mod tasks;
pub mod text;
pub mod tokens;
pub mod users;
pub mod utilities;

use futures::FutureExt;
use futures::future::BoxFuture;
use kit::{Api, Call, Fault, Route};
use serde_json::Value;

use self::proxy_permissions as rules;
use crate::auth::Principal;
use crate::control::Control;

/// The control plane's API.
pub fn api(control: &Control) -> Api {
    let gatekeeper = control.clone();
    Api::new("api", "Projects, containers and who may use them.")
        .base("/api/v1")
        .wire(envelope::WIRE)
        .gate(move |route, call| gate(gatekeeper.clone(), route, call))
        // who is calling
        .op::<authentication::Login>(control)
        .op::<authentication::Logout>(control)
        .op::<authentication::Refresh>(control)
        .op::<users::Current>(control)
        .op::<users::CurrentAlias>(control)
        .op::<users::Get>(control)
        .op::<users::Update>(control)
        .op::<tokens::List>(control)
        .op::<tokens::Create>(control)
        .op::<tokens::Current>(control)
        .op::<tokens::Get>(control)
        .op::<tokens::Update>(control)
        .op::<tokens::Delete>(control)
        .op::<tokens::AddRealm>(control)
        .op::<tokens::RemoveRealm>(control)
        .op::<realms::List>(control)
        // projects
        .op::<projects::List>(control)
        .op::<projects::Create>(control)
        .op::<projects::Get>(control)
        .op::<projects::Update>(control)
        .op::<projects::Delete>(control)
        .op::<projects::ListPermissions>(control)
        .op::<stats::OfProject>(control)
        // containers
        .op::<containers::List>(control)
        .op::<containers::ListByProject>(control)
        .op::<containers::Create>(control)
        .op::<containers::Get>(control)
        .op::<containers::Update>(control)
        .op::<containers::Delete>(control)
        .op::<authorize::Authorize>(control)
        .op::<copies::Copy>(control)
        .op::<copies::Sync>(control)
        .op::<kvm::Set>(control)
        .op::<manage::Manage>(control)
        .op::<stats::OfContainer>(control)
        .op::<status_logs::List>(control)
        .op::<snapshots::List>(control)
        .op::<snapshots::Create>(control)
        .op::<snapshots::Restore>(control)
        .op::<snapshots::Delete>(control)
        .op::<snapshots::SetAlias>(control)
        .op::<env::List>(control)
        .op::<env::BulkSet>(control)
        .op::<env::Set>(control)
        .op::<env::Delete>(control)
        // what happened
        .op::<events::List>(control)
        .op::<events::BulkDelete>(control)
        .op::<events::Stats>(control)
        .op::<events::Cleanup>(control)
        .op::<events::Get>(control)
        .op::<events::Delete>(control)
        .op::<notifications::List>(control)
        .op::<notifications::Announce>(control)
        .op::<notifications::ListPublic>(control)
        .op::<notifications::MarkAllRead>(control)
        .op::<notifications::MarkRead>(control)
        // what they reach over the network
        .op::<network::Get>(control)
        .op::<network::Update>(control)
        .op::<network::Delete>(control)
        .op::<network::Start>(control)
        .op::<network::Stop>(control)
        .op::<firewall::List>(control)
        .op::<firewall::Reset>(control)
        .op::<firewall::AddIngress>(control)
        .op::<firewall::ToggleIngress>(control)
        .op::<firewall::RemoveIngress>(control)
        .op::<firewall::AddEgress>(control)
        .op::<firewall::ToggleEgress>(control)
        .op::<firewall::RemoveEgress>(control)
        // what they see of one another
        .op::<storage::List>(control)
        .op::<storage::Create>(control)
        .op::<storage::Get>(control)
        .op::<storage::Update>(control)
        .op::<storage::Delete>(control)
        .op::<storage::ListAll>(control)
        .op::<storage::ListIncoming>(control)
        .op::<storage::ListAllIncoming>(control)
        .op::<storage::SetMount>(control)
        // who may reach what, and by which names
        .op::<rules::Get<rules::OfContainer>>(control)
        .op::<rules::Replace<rules::OfContainer>>(control)
        .op::<rules::Delete<rules::OfContainer>>(control)
        .op::<rules::SetDefault<rules::OfContainer>>(control)
        .op::<rules::SetState<rules::OfContainer>>(control)
        .op::<rules::RemoveGroup<rules::OfContainer>>(control)
        .op::<rules::SetPassword<rules::OfContainer>>(control)
        .op::<rules::SetToken<rules::OfContainer>>(control)
        .op::<rules::SetJwt<rules::OfContainer>>(control)
        .op::<rules::SetIp<rules::OfContainer>>(control)
        .op::<rules::SetPermission<rules::OfContainer>>(control)
        .op::<rules::ClearPermissions<rules::OfContainer>>(control)
        .op::<rules::RemovePermission<rules::OfContainer>>(control)
        .op::<rules::Get<rules::OfProject>>(control)
        .op::<rules::Replace<rules::OfProject>>(control)
        .op::<rules::Delete<rules::OfProject>>(control)
        .op::<rules::SetDefault<rules::OfProject>>(control)
        .op::<rules::SetState<rules::OfProject>>(control)
        .op::<rules::RemoveGroup<rules::OfProject>>(control)
        .op::<rules::SetPassword<rules::OfProject>>(control)
        .op::<rules::SetToken<rules::OfProject>>(control)
        .op::<rules::SetJwt<rules::OfProject>>(control)
        .op::<rules::SetIp<rules::OfProject>>(control)
        .op::<rules::SetPermission<rules::OfProject>>(control)
        .op::<rules::ClearPermissions<rules::OfProject>>(control)
        .op::<rules::RemovePermission<rules::OfProject>>(control)
        .op::<proxy_hooks::List>(control)
        .op::<proxy_hooks::ListService>(control)
        .op::<proxy_hooks::Get>(control)
        .op::<proxy_hooks::Add>(control)
        .op::<proxy_hooks::Update>(control)
        .op::<proxy_hooks::Move>(control)
        .op::<proxy_hooks::Remove>(control)
        .op::<proxy_hooks::Clear>(control)
        .op::<proxy_discovery::ListGroups>(control)
        .op::<proxy_discovery::ListServices>(control)
        .op::<proxy_discovery::GetService>(control)
        .op::<proxy_discovery::GetSettings>(control)
        .op::<proxy_discovery::UpdateSettings>(control)
        .op::<proxy_aliases::List>(control)
        .op::<proxy_aliases::Create>(control)
        .op::<proxy_aliases::Get>(control)
        .op::<proxy_aliases::Update>(control)
        .op::<proxy_aliases::SetState>(control)
        .op::<proxy_aliases::Delete>(control)
        .op::<proxy_links::List>(control)
        .op::<proxy_links::Create>(control)
        .op::<proxy_links::Delete>(control)
        // the node
        .op::<tasks::List>(control)
        .op::<servers::List>(control)
        .op::<servers::Available>(control)
        .op::<servers::Get>(control)
        .op::<servers::ListRentals>(control)
        .op::<servers::GetRental>(control)
        .op::<certificates::List>(control)
        .op::<images::ListPublic>(control)
        .op::<images::GetPublic>(control)
        .op::<images::ListMine>(control)
        .op::<images::Icon>(control)
        .op::<images::Import>(control)
        .op::<images::Purchase>(control)
        .op::<images::Rate>(control)
        .op::<utilities::Ip>(control)
        .op::<meta::PublicKey>(control)
        .op::<meta::SocialStats>(control)
}

/// All that is served at the API's host: the operations, and the stream of events.
pub fn router(control: &Control) -> axum::Router {
    crate::stream::before(api(control).router(), control)
}

/// The OpenAPI document of [`api()`], without a node behind it.
pub fn document() -> Value {
    api(&Control::detached()).document()
}

/// Lets a call through with its [`Principal`], or says who it lacks.
fn gate(control: Control, route: Route, call: Call) -> BoxFuture<'static, Result<Call, Fault>> {
    async move {
        let principal = control.auth.identify(&call).await?;
        // A client that was sent to a realm asks here which ones it may use.
        if route.id != tokens::CURRENT {
            principal.in_realm()?;
        }
        let mut call = call;
        call.extensions.insert::<Principal>(principal);
        Ok(call)
    }
    .boxed()
}
