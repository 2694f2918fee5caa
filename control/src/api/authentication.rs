//! Logging in, refreshing, logging out.

use kit::{Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{ClientName, Email, Password, RefreshToken, Username};
use super::users::User;
use crate::auth::session::{ACCESS_LIFE, REFRESH_LIFE};
use crate::auth::{Handed, Principal, address, broken};
use crate::control::Control;
use crate::store::projects::Project;
use crate::store::{Realms, Slice, containers, projects, sessions, tokens};
use crate::time::{self, SECOND};

/// Log in with user name or e-mail address, and password.
///
/// The access token is good for a day, the refresh token for seven. After too many failures from
/// one address the answer is 429, with `Retry-After`.
#[derive(Deserialize, JsonSchema)]
pub struct Login {
    /// Name of the account, in its exact case.
    username: Option<Username>,
    /// E-mail address of the account, instead of its name.
    email: Option<Email>,
    password: Password,
    /// `tokens` is the only mode this node offers.
    response_mode: Option<ResponseMode>,
    /// What kind of client this is.
    #[expect(
        dead_code,
        reason = "it changes nothing; it is read so that its limits hold"
    )]
    client: Option<ClientName>,
}

#[derive(Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
enum ResponseMode {
    Intent,
    Tokens,
}

#[derive(Serialize, JsonSchema)]
pub struct LoggedIn {
    requires_2fa: bool,
    #[serde(flatten)]
    tokens: Tokens,
    client_ip: String,
    /// The newest logins, this one first.
    recent_login_ips: Vec<RecentLogin>,
    auth_token_count: u32,
    user: User,
    server: Option<ServerRef>,
    project: Option<ProjectRef>,
    container: Option<ContainerRef>,
}

#[derive(Serialize, JsonSchema)]
pub struct Tokens {
    /// The access token.
    token: String,
    #[serde(rename = "refreshToken")]
    refresh_token: String,
    expires_at: String,
    /// Seconds.
    expires_in: i64,
    refresh_expires_at: String,
    refresh_expires_in: i64,
}

impl From<Handed> for Tokens {
    fn from(handed: Handed) -> Tokens {
        Tokens {
            token: handed.access,
            refresh_token: handed.refresh,
            expires_at: time::text(handed.access_expires_at),
            expires_in: ACCESS_LIFE / SECOND,
            refresh_expires_at: time::text(handed.refresh_expires_at),
            refresh_expires_in: REFRESH_LIFE / SECOND,
        }
    }
}

#[derive(Serialize, JsonSchema)]
struct RecentLogin {
    ip: String,
    timestamp: String,
}

#[derive(Serialize, JsonSchema)]
struct ServerRef {
    id: String,
    name: String,
    is_ready: bool,
}

#[derive(Serialize, JsonSchema)]
struct ProjectRef {
    id: String,
    alias: String,
}

#[derive(Serialize, JsonSchema)]
struct ContainerRef {
    id: String,
    name: String,
}

impl Operation for Login {
    const ROUTE: Route = Route::post("/api/v1/users/auth/login")
        .named("login")
        .cli("auth login")
        .says("Logged in")
        .open();
    type Service = Control;
    type Reply = LoggedIn;

    async fn run(self, control: Control, call: Call) -> Result<LoggedIn, Fault> {
        const RECENT: u32 = 5;
        let name: &str = match (&self.username, &self.email) {
            (Some(username), _) => username,
            (None, Some(email)) => email,
            (None, None) => {
                let message = "Username or email, and password are required";
                return Err(Fault::bad_request(message)
                    .code("VALIDATION_ERROR")
                    .field("/username", "one of username and email is required"));
            }
        };
        if self.response_mode == Some(ResponseMode::Intent) {
            return Err(
                Fault::bad_request("this node answers logins with tokens only")
                    .code("VALIDATION_ERROR")
                    .field("/response_mode", "must be tokens"),
            );
        }
        let user = control
            .auth
            .by_password(name, &self.password, &call)
            .await?;
        let handed = control.auth.begin(&user, &call).await?;
        let id = user.id;
        let (recent, count, project, container) = control
            .store
            .read("gather the facts of a login", move |db| {
                let first = Slice {
                    column: "created_at",
                    descending: false,
                    limit: 1,
                    offset: 0,
                };
                let (projects, _) = projects::list(db, id, &Realms::All, first)?;
                let filter = containers::Filter {
                    user: id,
                    project: None,
                    realms: Realms::All,
                    deleting: false,
                };
                let (containers, _) = containers::list(db, &filter, first)?;
                let recent = sessions::recent(db, id, RECENT)?;
                Ok((
                    recent,
                    tokens::count(db, id)?,
                    projects.into_iter().next(),
                    containers.into_iter().next(),
                ))
            })
            .await
            .map_err(broken)?;
        tracing::info!(user.id = %user.id, "user {} logged in", user.username);
        Ok(LoggedIn {
            requires_2fa: false,
            tokens: handed.into(),
            client_ip: address(&call).to_string(),
            recent_login_ips: recent
                .into_iter()
                .map(|(ip, at)| RecentLogin {
                    ip,
                    timestamp: time::text(at),
                })
                .collect(),
            auth_token_count: count,
            user: User::of(&user),
            server: Some(ServerRef {
                id: control.identity.id.to_string(),
                name: control.config.node.clone(),
                is_ready: true,
            }),
            project: project.map(|Project { id, alias, .. }| ProjectRef {
                id: id.to_string(),
                alias,
            }),
            container: container.map(|owned| ContainerRef {
                id: owned.container.id.to_string(),
                name: owned.container.name,
            }),
        })
    }
}

/// End all logins of the account.
///
/// Every access and refresh token of the account is worthless afterwards. Auth tokens stay: delete
/// them one by one. Called with an auth token, nothing is ended.
#[derive(Deserialize, JsonSchema)]
pub struct Logout {}

impl Operation for Logout {
    const ROUTE: Route = Route::post("/api/v1/users/auth/logout")
        .named("logout")
        .cli("auth logout")
        .says("Logged out");
    type Service = Control;
    type Reply = ();

    async fn run(self, control: Control, call: Call) -> Result<(), Fault> {
        control.auth.end(&Principal::of(&call)?).await
    }
}

/// Trade a refresh token for new tokens.
///
/// A refresh token is good once. `Authorization` may carry the same refresh token or an access
/// token of the same login, even an expired one.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refresh {
    /// The refresh token of the login or of the refresh before.
    refresh_token: RefreshToken,
}

impl Operation for Refresh {
    const ROUTE: Route = Route::post("/api/v1/users/auth/refresh")
        .named("refreshToken")
        .cli("auth refresh")
        .says("Tokens refreshed")
        .open();
    type Service = Control;
    type Reply = Tokens;

    async fn run(self, control: Control, call: Call) -> Result<Tokens, Fault> {
        Ok(control
            .auth
            .refresh(&self.refresh_token, &call)
            .await?
            .into())
    }
}
