//! Auth tokens: long-lived credentials for programs.
//!
//! A person manages all tokens of their account. A token that may make tokens manages itself and
//! those it made, and gives none of them more than it has.

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use kit::{Call, Fault, Operation, Route, Verb};
use routes::Id;
use rusqlite::Connection;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::text::{AddressRule, IdText, PublicKey, TokenAlias, given};
use crate::auth::permissions::{Permission, Permissions, Template};
use crate::auth::{Principal, broken, token};
use crate::control::Control;
use crate::store::events::{Kind, News};
use crate::store::{self, tokens};
use crate::time::{self, DAY, Millis, SECOND};
use crate::words;

/// `operationId` of the list, whose envelope says whether it is whole.
pub const LIST: &str = "listAuthTokens";
/// `operationId` of what a token may always ask.
pub const CURRENT: &str = "getCurrentAuthToken";

/// Bytes of `public_storage`, as JSON.
const PUBLIC_STORAGE: usize = 64 << 10;
/// Addresses and networks in a token's list.
const RULES: usize = 100;
/// Characters of a wrong rule that are said back.
const SHOWN: usize = 60;
/// Realms of a token.
const REALMS: usize = 100;
/// Tokens made by tokens made by tokens.
const DEPTH: u32 = 8;
/// How long a token that may not be prolonged lasts where nothing was said.
const BOUNDED_LIFE: Millis = 30 * DAY;

/// A token, without its secret.
#[derive(Serialize, JsonSchema)]
pub struct AuthToken {
    id: String,
    alias: String,
    /// The beginning of the secret.
    prefix: String,
    public_key: Option<String>,
    public_storage: Option<Value>,
    ip_whitelist: Vec<String>,
    realm_ids: Vec<String>,
    allow_no_realm: bool,
    permissions: Permissions,
    expires_at: Option<String>,
    is_enabled: bool,
    vault_access: bool,
    event_access: bool,
    created_by_token_id: Option<String>,
    delegation_depth: u32,
    last_used_at: Option<String>,
    last_used_ip: Option<String>,
    created_at: String,
    updated_at: String,
}

impl AuthToken {
    fn of(token: &store::tokens::Token) -> AuthToken {
        AuthToken {
            id: token.id.to_string(),
            alias: token.alias.clone(),
            prefix: token.prefix.clone(),
            public_key: token.public_key.clone(),
            public_storage: token.public_storage.clone(),
            ip_whitelist: token.ip_whitelist.clone(),
            realm_ids: token.realms.iter().map(Id::to_string).collect(),
            allow_no_realm: token.allow_no_realm,
            permissions: token.permissions.clone(),
            expires_at: token.expires_at.map(time::text),
            is_enabled: token.is_enabled,
            vault_access: token.vault_access,
            event_access: token.event_access,
            created_by_token_id: token.created_by.map(|id| id.to_string()),
            delegation_depth: token.depth,
            last_used_at: token.last_used_at.map(time::text),
            last_used_ip: token.last_used_ip.clone(),
            created_at: time::text(token.created_at),
            updated_at: time::text(token.updated_at),
        }
    }
}

/// A new token, with its secret.
#[derive(Serialize, JsonSchema)]
pub struct NewToken {
    /// The secret. It is shown this once.
    token: String,
    #[serde(flatten)]
    about: AuthToken,
}

/// The token of a call and where it is good.
#[derive(Serialize, JsonSchema)]
pub struct CurrentToken {
    token: AuthToken,
    restrictions: Restrictions,
}

#[derive(Serialize, JsonSchema)]
struct Restrictions {
    has_realm_restrictions: bool,
    requires_realm_scope: bool,
    allowed_realm_ids: Vec<String>,
    allow_no_realm: bool,
    active_realm_id: Option<String>,
}

impl CurrentToken {
    pub fn of(principal: &Principal) -> Option<CurrentToken> {
        let token = principal.token()?;
        Some(CurrentToken {
            token: AuthToken::of(token),
            restrictions: Restrictions {
                has_realm_restrictions: !token.realms.is_empty(),
                requires_realm_scope: !token.allow_no_realm,
                allowed_realm_ids: token.realms.iter().map(Id::to_string).collect(),
                allow_no_realm: token.allow_no_realm,
                active_realm_id: principal.realm.map(|realm| realm.to_string()),
            },
        })
    }
}

/// When a token ends.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Expiry {
    /// `today`, `tomorrow` (the end of the day in UTC), or RFC 3339.
    Text(String),
    /// Unix time in seconds or milliseconds.
    Number(f64),
    /// Neither; refused with a reason of its own.
    #[schemars(skip)]
    Other(Value),
}

/// Addresses as a list, or in one text with commas between.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Addresses {
    #[schemars(with = "Vec<AddressRule>")]
    List(Vec<Value>),
    Text(String),
    /// Neither; refused with a reason of its own.
    #[schemars(skip)]
    Other(Value),
}

fn invalid(field: &str, message: impl Into<String>) -> Fault {
    let message = message.into();
    Fault::bad_request(format!("invalid parameter `{field}`: {message}"))
        .code("VALIDATION_ERROR")
        .field(format!("/{field}"), message)
}

impl Expiry {
    pub fn at(&self, now: Millis) -> Result<Millis, Fault> {
        const WORDS: &str = "must be `today`, `tomorrow`, an RFC 3339 time or a Unix time";
        const SECONDS_MOST: f64 = 1e11; // larger numbers are milliseconds
        const MOST: f64 = 253_402_300_799_000.0; // the end of the year 9999
        let wrong = || invalid("expires_at", WORDS);
        let at = match self {
            Expiry::Text(text) if text == "today" => end_of_day(now, 0).ok_or_else(wrong)?,
            Expiry::Text(text) if text == "tomorrow" => end_of_day(now, 1).ok_or_else(wrong)?,
            Expiry::Text(text) => text
                .parse::<Timestamp>()
                .map_err(|_| wrong())?
                .as_millisecond(),
            Expiry::Number(n) if *n >= 0.0 && *n < SECONDS_MOST => (*n * SECOND as f64) as Millis,
            Expiry::Number(n) if *n >= 0.0 && *n <= MOST => *n as Millis,
            Expiry::Number(_) | Expiry::Other(_) => return Err(wrong()),
        };
        if at <= now {
            Err(invalid("expires_at", "is in the past"))
        } else {
            Ok(at)
        }
    }
}

fn end_of_day(now: Millis, days: i64) -> Option<Millis> {
    let today = Timestamp::from_millisecond(now)
        .ok()?
        .to_zoned(TimeZone::UTC)
        .date();
    let day = today.checked_add(days.days()).ok()?;
    let end = day.to_datetime(Time::constant(23, 59, 59, 999_000_000));
    Some(
        end.to_zoned(TimeZone::UTC)
            .ok()?
            .timestamp()
            .as_millisecond(),
    )
}

impl Addresses {
    fn rules(self) -> Result<Vec<String>, Fault> {
        const NEXT: &str = "say `*`, addresses, or networks such as 192.0.2.0/24, as a list or with commas between";
        let wrong = |bad: &dyn std::fmt::Display| {
            let bad: String = bad.to_string().chars().take(SHOWN).collect();
            invalid(
                "ip_whitelist",
                format!("`{bad}` is no address, no network and not `*`; {NEXT}"),
            )
        };
        let rules: Vec<String> = match self {
            Addresses::List(list) => list
                .into_iter()
                .map(|rule| match rule {
                    Value::String(rule) => Ok(rule),
                    other => Err(wrong(&other)),
                })
                .collect::<Result<_, _>>()?,
            Addresses::Other(other) => return Err(wrong(&other)),
            Addresses::Text(text) => text
                .split(',')
                .map(str::trim)
                .filter(|rule| !rule.is_empty())
                .map(str::to_owned)
                .collect(),
        };
        if rules.len() > RULES {
            return Err(invalid(
                "ip_whitelist",
                format!("holds more than {RULES} entries"),
            ));
        }
        if let Some(bad) = rules.iter().find(|rule| !token::is_rule(rule)) {
            return Err(wrong(bad));
        }
        Ok(if rules.is_empty() {
            vec!["*".to_owned()]
        } else {
            rules
        })
    }
}

fn realms(given: Vec<IdText>) -> Result<Vec<Id>, Fault> {
    let mut realms: Vec<Id> = given.into_iter().map(|realm| realm.0).collect();
    realms.sort_unstable();
    realms.dedup();
    if realms.len() > REALMS {
        return Err(invalid(
            "realm_ids",
            format!("holds more than {REALMS} realms"),
        ));
    }
    Ok(realms)
}

fn storage(given: Option<Map<String, Value>>) -> Result<Option<Value>, Fault> {
    let Some(given) = given.map(Value::Object) else {
        return Ok(None);
    };
    if given.to_string().len() > PUBLIC_STORAGE {
        return Err(invalid(
            "public_storage",
            format!("is larger than {PUBLIC_STORAGE} bytes"),
        ));
    }
    Ok(Some(given))
}

/// Nobody hands on more than they have.
fn no_more_than(maker: &Principal, token: &store::tokens::Token) -> Result<(), Fault> {
    let Some(own) = maker.token() else {
        return Ok(());
    };
    let refuse = |what: &str| {
        Err(Fault::forbidden(format!(
            "a token cannot give {what} it does not have itself"
        ))
        .code("PERMISSION_DENIED"))
    };
    if !token.permissions.fits(&own.permissions)
        || (token.vault_access && !own.vault_access)
        || (token.event_access && !own.event_access)
    {
        return refuse("permissions");
    }
    let outside =
        token.realms.is_empty() || token.realms.iter().any(|realm| !own.realms.contains(realm));
    if (!own.realms.is_empty() && outside) || (token.allow_no_realm && !own.allow_no_realm) {
        return refuse("realms");
    }
    if own
        .expires_at
        .is_some_and(|end| token.expires_at.is_none_or(|at| at > end))
    {
        return refuse("a life");
    }
    if !own.ip_whitelist.iter().any(|rule| rule == "*")
        && token
            .ip_whitelist
            .iter()
            .any(|rule| !own.ip_whitelist.contains(rule))
    {
        return refuse("addresses");
    }
    Ok(())
}

fn no_token(id: Id) -> Fault {
    Fault::not_found(format!(
        "no auth token {id}; list them with `hoody auth list`"
    ))
    .code("NOT_FOUND")
}

/// A token that the caller manages.
async fn managed(
    control: &Control,
    principal: &Principal,
    id: Id,
) -> Result<store::tokens::Token, Fault> {
    let found = control
        .store
        .read("look up an auth token", move |db| tokens::find(db, id))
        .await
        .map_err(broken)?;
    found
        .filter(|token| manages(principal, token))
        .ok_or_else(|| no_token(id))
}

fn manages(principal: &Principal, token: &store::tokens::Token) -> bool {
    token.user == principal.user.id
        && principal
            .token()
            .is_none_or(|own| token.id == own.id || token.created_by == Some(own.id))
        && (principal.realm.is_none() || principal.realms().see(&token.realms))
}

/// Record what happened to a token, without anything secret of it.
fn record(
    db: &Connection,
    kind: Kind,
    token: &store::tokens::Token,
    by: &str,
    at: Millis,
) -> rusqlite::Result<()> {
    let facts = json!({
        "alias": token.alias,
        "prefix": token.prefix,
        "created_by_token_id": token.created_by.map(|id| id.to_string()),
    });
    let news = News {
        kind,
        by,
        at,
        facts,
    };
    store::events::of_account(db, token.user, token.id, &token.realms, &news)
}

async fn save(
    control: &Control,
    principal: &Principal,
    token: store::tokens::Token,
) -> Result<AuthToken, Fault> {
    let about = AuthToken::of(&token);
    let by = principal.label();
    control
        .store
        .write("change an auth token", move |db| {
            let before = tokens::find(db, token.id)?;
            tokens::update(db, &token)?;
            let kind = match before.map(|before| before.is_enabled) {
                Some(true) if !token.is_enabled => Kind::AuthTokenDisabled,
                Some(false) if token.is_enabled => Kind::AuthTokenEnabled,
                _ => Kind::AuthTokenUpdated,
            };
            record(db, kind, &token, &by, token.updated_at)
        })
        .await
        .map_err(broken)?;
    Ok(about)
}

/// The auth tokens of the account, newest first.
#[derive(Deserialize, JsonSchema)]
pub struct List {}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/auth/tokens")
        .named(LIST)
        .cli("auth list");
    type Service = Control;
    type Reply = Vec<AuthToken>;

    async fn run(self, control: Control, call: Call) -> Result<Vec<AuthToken>, Fault> {
        let principal = Principal::who_may(&call, Permission::CreateTokens)?;
        let (user, by) = (principal.user.id, principal.token().map(|token| token.id));
        let all = control
            .store
            .read("list auth tokens", move |db| tokens::list(db, user, by))
            .await
            .map_err(broken)?;
        Ok(all
            .iter()
            .filter(|token| manages(&principal, token))
            .map(AuthToken::of)
            .collect())
    }
}

/// Make an auth token. Its secret is in the answer, and nowhere else.
///
/// Without permissions and without a template it may do what the account may, the administration
/// of the node aside.
#[derive(Deserialize, JsonSchema)]
pub struct Create {
    /// A name to know it by; one is made up where none is given.
    alias: Option<TokenAlias>,
    public_key: Option<PublicKey>,
    /// Public facts about the holder of the key, at most 64 KiB.
    public_storage: Option<Map<String, Value>>,
    /// Where it may be used from: addresses, networks, or `*`.
    ip_whitelist: Option<Addresses>,
    /// A set of permissions by name; it wins over `permissions`.
    permission_template: Option<Template>,
    permissions: Option<Permissions>,
    /// The realms it is for; everything where empty.
    #[serde(default)]
    realm_ids: Vec<IdText>,
    /// Whether it may be used without a realm in the URL.
    #[serde(default = "yes")]
    allow_no_realm: bool,
    #[serde(default)]
    vault_access: bool,
    #[serde(default = "yes")]
    event_access: bool,
    /// A token that can never make others, reach the vault, or last for ever.
    #[serde(default)]
    deny_reauthorization: bool,
    expires_at: Option<Expiry>,
}

fn yes() -> bool {
    true
}

impl Operation for Create {
    const ROUTE: Route = Route::post("/api/v1/auth/tokens")
        .named("createAuthToken")
        .cli("auth create")
        .status(201)
        .says("Auth token created");
    type Service = Control;
    type Reply = NewToken;

    async fn run(self, control: Control, call: Call) -> Result<NewToken, Fault> {
        let principal = Principal::who_may(&call, Permission::CreateTokens)?;
        let now = control.now();
        let own = principal.token();
        let depth = own.map_or(0, |own| own.depth + 1);
        if depth > DEPTH {
            return Err(Fault::forbidden(format!(
                "tokens cannot be made by more than {DEPTH} others in a row"
            ))
            .code("PERMISSION_DENIED"));
        }
        let mut permissions = match (self.permission_template, self.permissions) {
            (Some(template), _) => Permissions::of(template),
            (None, Some(permissions)) => permissions,
            (None, None) => own.map_or_else(Permissions::full, |own| own.permissions.clone()),
        };
        let mut expires_at = self.expires_at.map(|expiry| expiry.at(now)).transpose()?;
        let mut vault_access = self.vault_access;
        if self.deny_reauthorization {
            permissions.resources.create_tokens = false;
            permissions.resources.vault = false;
            vault_access = false;
            expires_at = Some(expires_at.unwrap_or(now + BOUNDED_LIFE));
        }
        let secret = token::secret();
        let token = store::tokens::Token {
            id: words::id(),
            user: principal.user.id,
            hash: token::hash(&secret),
            prefix: token::shown(&secret),
            alias: self.alias.map_or_else(words::name, TokenAlias::into_string),
            public_key: self.public_key.map(PublicKey::into_string),
            public_storage: storage(self.public_storage)?,
            ip_whitelist: self
                .ip_whitelist
                .map_or_else(|| Ok(vec!["*".to_owned()]), Addresses::rules)?,
            realms: realms(self.realm_ids)?,
            allow_no_realm: self.allow_no_realm,
            permissions,
            vault_access,
            event_access: self.event_access,
            is_enabled: true,
            expires_at,
            created_by: own.map(|own| own.id),
            depth,
            last_used_at: None,
            last_used_ip: None,
            created_at: now,
            updated_at: now,
        };
        no_more_than(&principal, &token)?;
        let about = AuthToken::of(&token);
        let by = principal.label();
        let most = control.config.limits.tokens_per_user;
        let written = control
            .store
            .write("make an auth token", move |db| {
                if tokens::count(db, token.user)? >= most {
                    return Ok(false);
                }
                tokens::insert(db, &token)?;
                record(db, Kind::AuthTokenCreated, &token, &by, now)?;
                Ok(true)
            })
            .await
            .map_err(broken)?;
        if !written {
            return Err(Fault::conflict(format!(
                "the account has {most} auth tokens already; delete some"
            ))
            .code("LIMIT_REACHED"));
        }
        Ok(NewToken {
            token: secret,
            about,
        })
    }
}

/// The token this call was made with, and the realms it is good for.
#[derive(Deserialize, JsonSchema)]
pub struct Current {}

impl Operation for Current {
    const ROUTE: Route = Route::get("/api/v1/auth/tokens/me")
        .named(CURRENT)
        .cli("auth get-current");
    type Service = Control;
    type Reply = CurrentToken;

    async fn run(self, _: Control, call: Call) -> Result<CurrentToken, Fault> {
        CurrentToken::of(&Principal::of(&call)?).ok_or_else(|| {
            Fault::bad_request("this call was not made with an auth token; see `/api/v1/users/me`")
                .code("NOT_AN_AUTH_TOKEN")
        })
    }
}

/// One auth token, without its secret.
#[derive(Deserialize, JsonSchema)]
pub struct Get {
    id: IdText,
}

impl Operation for Get {
    const ROUTE: Route = Route::get("/api/v1/auth/tokens/{id}")
        .named("getAuthTokenById")
        .cli("auth get");
    type Service = Control;
    type Reply = AuthToken;

    async fn run(self, control: Control, call: Call) -> Result<AuthToken, Fault> {
        let principal = Principal::who_may(&call, Permission::CreateTokens)?;
        Ok(AuthToken::of(
            &managed(&control, &principal, self.id.0).await?,
        ))
    }
}

/// Change an auth token; what is not named stays.
#[derive(Deserialize, JsonSchema)]
pub struct Update {
    id: IdText,
    alias: Option<TokenAlias>,
    #[serde(default, deserialize_with = "given")]
    public_key: Option<Option<PublicKey>>,
    #[serde(default, deserialize_with = "given")]
    public_storage: Option<Option<Map<String, Value>>>,
    ip_whitelist: Option<Addresses>,
    permissions: Option<Permissions>,
    realm_ids: Option<Vec<IdText>>,
    allow_no_realm: Option<bool>,
    vault_access: Option<bool>,
    event_access: Option<bool>,
    /// Null for a token that does not end.
    #[serde(default, deserialize_with = "given")]
    expires_at: Option<Option<Expiry>>,
    is_enabled: Option<bool>,
}

impl Operation for Update {
    const ROUTE: Route = Route::put("/api/v1/auth/tokens/{id}")
        .also(Verb::Patch)
        .named("updateAuthTokenPatch")
        .cli("auth update")
        .says("Auth token updated");
    type Service = Control;
    type Reply = AuthToken;

    async fn run(self, control: Control, call: Call) -> Result<AuthToken, Fault> {
        let principal = Principal::who_may(&call, Permission::CreateTokens)?;
        let mut token = managed(&control, &principal, self.id.0).await?;
        let now = control.now();
        if let Some(alias) = self.alias {
            token.alias = alias.into_string();
        }
        if let Some(key) = self.public_key {
            token.public_key = key.map(PublicKey::into_string);
        }
        if let Some(given) = self.public_storage {
            token.public_storage = storage(given)?;
        }
        if let Some(addresses) = self.ip_whitelist {
            token.ip_whitelist = addresses.rules()?;
        }
        if let Some(permissions) = self.permissions {
            token.permissions = permissions;
        }
        if let Some(given) = self.realm_ids {
            token.realms = realms(given)?;
        }
        if let Some(expiry) = self.expires_at {
            token.expires_at = expiry.map(|expiry| expiry.at(now)).transpose()?;
        }
        token.allow_no_realm = self.allow_no_realm.unwrap_or(token.allow_no_realm);
        token.vault_access = self.vault_access.unwrap_or(token.vault_access);
        token.event_access = self.event_access.unwrap_or(token.event_access);
        token.is_enabled = self.is_enabled.unwrap_or(token.is_enabled);
        token.updated_at = now;
        no_more_than(&principal, &token)?;
        save(&control, &principal, token).await
    }
}

/// Delete an auth token, and those that were made with it.
#[derive(Deserialize, JsonSchema)]
pub struct Delete {
    id: IdText,
}

impl Operation for Delete {
    const ROUTE: Route = Route::delete("/api/v1/auth/tokens/{id}")
        .named("deleteAuthToken")
        .cli("auth delete")
        .says("Auth token deleted");
    type Service = Control;
    type Reply = ();

    async fn run(self, control: Control, call: Call) -> Result<(), Fault> {
        let principal = Principal::who_may(&call, Permission::CreateTokens)?;
        let token = managed(&control, &principal, self.id.0).await?;
        let (by, now) = (principal.label(), control.now());
        control
            .store
            .write("delete an auth token", move |db| {
                record(db, Kind::AuthTokenDeleted, &token, &by, now)?;
                tokens::delete(db, token.id)
            })
            .await
            .map_err(broken)
    }
}

/// Add a realm to those a token is for.
#[derive(Deserialize, JsonSchema)]
pub struct AddRealm {
    id: IdText,
    realm_id: IdText,
}

impl Operation for AddRealm {
    const ROUTE: Route = Route::post("/api/v1/auth/tokens/{id}/add-realm")
        .named("addRealmToAuthToken")
        .cli("auth realms add")
        .says("Realm added");
    type Service = Control;
    type Reply = AuthToken;

    async fn run(self, control: Control, call: Call) -> Result<AuthToken, Fault> {
        let principal = Principal::who_may(&call, Permission::CreateTokens)?;
        let mut token = managed(&control, &principal, self.id.0).await?;
        let all = token
            .realms
            .iter()
            .copied()
            .map(IdText)
            .chain([self.realm_id])
            .collect();
        token.realms = realms(all)?;
        token.updated_at = control.now();
        no_more_than(&principal, &token)?;
        save(&control, &principal, token).await
    }
}

/// Take a realm from those a token is for. The last one cannot be taken: the token would be good
/// everywhere.
#[derive(Deserialize, JsonSchema)]
pub struct RemoveRealm {
    id: IdText,
    realm_id: IdText,
}

impl Operation for RemoveRealm {
    const ROUTE: Route = Route::post("/api/v1/auth/tokens/{id}/remove-realm")
        .named("removeRealmFromAuthToken")
        .cli("auth realms remove")
        .says("Realm removed");
    type Service = Control;
    type Reply = AuthToken;

    async fn run(self, control: Control, call: Call) -> Result<AuthToken, Fault> {
        let principal = Principal::who_may(&call, Permission::CreateTokens)?;
        let mut token = managed(&control, &principal, self.id.0).await?;
        if token.realms == [self.realm_id.0] {
            return Err(Fault::conflict(
                "this is the token's last realm; without it the token would be good everywhere. Delete the token, or update its `realm_ids`",
            )
            .code("LAST_REALM"));
        }
        token.realms.retain(|realm| *realm != self.realm_id.0);
        token.updated_at = control.now();
        save(&control, &principal, token).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiries_in_every_form() {
        let now = "2026-11-22T10:00:00Z"
            .parse::<Timestamp>()
            .unwrap()
            .as_millisecond();
        let check = |expiry: Expiry, want: Option<&str>| {
            assert_eq!(expiry.at(now).ok().map(time::text).as_deref(), want);
        };
        let text = |text: &str| Expiry::Text(text.to_owned());
        check(text("today"), Some("2026-11-22T23:59:59.999Z"));
        check(text("tomorrow"), Some("2026-11-23T23:59:59.999Z"));
        check(
            text("2027-01-01T00:00:00Z"),
            Some("2027-01-01T00:00:00.000Z"),
        );
        check(
            text("2027-01-01T00:00:00+02:00"),
            Some("2026-12-31T22:00:00.000Z"),
        );
        check(text("2020-01-01T00:00:00Z"), None);
        check(text("soon"), None);
        check(
            Expiry::Number(1_800_000_000.0),
            Some("2027-01-15T08:00:00.000Z"),
        );
        check(
            Expiry::Number(1_800_000_000_000.0),
            Some("2027-01-15T08:00:00.000Z"),
        );
        check(Expiry::Number(0.0), None);
        check(Expiry::Number(f64::MAX), None);
        check(Expiry::Number(f64::NAN), None);
    }
}
