//! The caller's account.

use kit::{Call, Fault, Operation, Route, Verb};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::text::{IdText, NewPassword, Password, UserAlias};
use super::tokens::CurrentToken;
use crate::auth::permissions::Permission;
use crate::auth::{Principal, broken};
use crate::control::Control;
use crate::store::{self, users};
use crate::time;

/// An account as its owner sees it.
#[derive(Serialize, JsonSchema)]
pub struct User {
    id: String,
    username: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    alias: String,
    metadata: Map<String, Value>,
    is_admin: bool,
    is_banned: bool,
    email_verified: bool,
    avatar_url: Option<String>,
    signup_method: Option<String>,
    free_tier_unlocked: bool,
    free_tier_unlocked_at: Option<String>,
    free_tier_unlock_source: Option<String>,
    onboarding: Map<String, Value>,
    created_at: String,
    updated_at: String,
}

impl User {
    pub fn of(user: &store::users::User) -> User {
        User {
            id: user.id.to_string(),
            username: user.username.clone(),
            email: user.email.clone(),
            alias: user.alias.clone(),
            metadata: Map::new(),
            is_admin: user.is_admin,
            is_banned: user.is_banned,
            email_verified: false,
            avatar_url: None,
            signup_method: None,
            free_tier_unlocked: false,
            free_tier_unlocked_at: None,
            free_tier_unlock_source: None,
            onboarding: Map::new(),
            created_at: time::text(user.created_at),
            updated_at: time::text(user.updated_at),
        }
    }
}

/// The caller's account, and the token they called with where it was one.
#[derive(Serialize, JsonSchema)]
pub struct Me {
    #[serde(flatten)]
    user: User,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_token: Option<CurrentToken>,
    pending_pool_invitations: u32,
}

fn me(call: &Call) -> Result<Me, Fault> {
    let principal = Principal::who_may(call, Permission::ReadAccount)?;
    Ok(Me {
        user: User::of(&principal.user),
        auth_token: CurrentToken::of(&principal),
        pending_pool_invitations: 0,
    })
}

/// The account that is calling.
#[derive(Deserialize, JsonSchema)]
pub struct Current {}

impl Operation for Current {
    const ROUTE: Route = Route::get("/api/v1/users/auth/me")
        .named("getCurrentUser")
        .cli("auth profile current");
    type Service = Control;
    type Reply = Me;

    async fn run(self, _: Control, call: Call) -> Result<Me, Fault> {
        me(&call)
    }
}

/// The account that is calling; the same as `/users/auth/me`.
#[derive(Deserialize, JsonSchema)]
pub struct CurrentAlias {}

impl Operation for CurrentAlias {
    const ROUTE: Route = Route::get("/api/v1/users/me").named("getCurrentUserAlias");
    type Service = Control;
    type Reply = Me;

    async fn run(self, _: Control, call: Call) -> Result<Me, Fault> {
        me(&call)
    }
}

fn no_user(id: IdText) -> Fault {
    Fault::not_found(format!("no user {}", id.0)).code("NOT_FOUND")
}

/// An account, by its id. Everyone sees their own; an administrator who is logged in sees all.
#[derive(Deserialize, JsonSchema)]
pub struct Get {
    id: IdText,
}

impl Operation for Get {
    const ROUTE: Route = Route::get("/api/v1/users/{id}")
        .named("getUserById")
        .cli("users get");
    type Service = Control;
    type Reply = User;

    async fn run(self, control: Control, call: Call) -> Result<User, Fault> {
        let principal = Principal::who_may(&call, Permission::ReadAccount)?;
        let administers = principal.user.is_admin && principal.token().is_none();
        if principal.user.id != self.id.0 && !administers {
            return Err(no_user(self.id));
        }
        let id = self.id.0;
        let found = control
            .store
            .read("look up a user", move |db| users::find(db, id))
            .await
            .map_err(broken)?;
        found
            .map(|user| User::of(&user))
            .ok_or_else(|| no_user(self.id))
    }
}

/// Change the caller's own account: its alias, its password.
///
/// A new password needs the current one, and a login: an auth token cannot change it.
#[derive(Deserialize, JsonSchema)]
pub struct Update {
    id: IdText,
    alias: Option<UserAlias>,
    /// The new password.
    password: Option<NewPassword>,
    current_password: Option<Password>,
}

impl Operation for Update {
    const ROUTE: Route = Route::put("/api/v1/users/{id}")
        .also(Verb::Patch)
        .named("updateUserPatch")
        .cli("users update")
        .says("User updated");
    type Service = Control;
    type Reply = User;

    async fn run(self, control: Control, call: Call) -> Result<User, Fault> {
        let principal = Principal::of(&call)?;
        if principal.user.id != self.id.0 {
            return Err(no_user(self.id));
        }
        if principal.token().is_some() {
            return Err(
                Fault::forbidden("an auth token cannot change the account; log in")
                    .code("PERMISSION_DENIED"),
            );
        }
        let password_hash = match self.password {
            None => None,
            Some(password) => {
                let current = self.current_password.ok_or_else(|| {
                    Fault::bad_request("a new password needs the current one")
                        .code("VALIDATION_ERROR")
                        .field("/current_password", "is required with password")
                })?;
                control
                    .auth
                    .by_password(&principal.user.username, &current, &call)
                    .await?;
                Some(control.auth.hash(password.into_string()).await?)
            }
        };
        let (id, alias, now) = (self.id.0, self.alias, control.now());
        let user = control
            .store
            .write("change a user", move |db| {
                if let Some(alias) = &alias {
                    users::set_alias(db, id, alias, now)?;
                }
                if let Some(password_hash) = &password_hash {
                    users::set_password(db, id, password_hash, now)?;
                }
                users::find(db, id)
            })
            .await
            .map_err(broken)?;
        user.map(|user| User::of(&user))
            .ok_or_else(|| no_user(self.id))
    }
}
