//! Who is calling, and what they may do.
//!
//! Read in this order: [`principal`] (who a caller is and what they see), [`permissions`] (what a
//! token allows), [`password`], [`session`] (JWTs and their refreshing), [`token`] (`hdy_`
//! secrets), [`limiter`], then [`Auth`], which reads a request.

pub mod limiter;
pub mod password;
pub mod permissions;
pub mod principal;
pub mod session;
pub mod token;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use kit::{Call, Fault};
use routes::Id;

use crate::config::Limits;
use crate::secrets::Secrets;
use crate::store::users::User;
use crate::store::{Store, StoreError, sessions, tokens, users};
use crate::time::{Clock, MINUTE, Millis};
use limiter::Limiter;
use password::Passwords;
pub use principal::{Principal, Via};
use session::{Kind, Sessions};

/// The header in which the proxy names the realm of the host.
pub const REALM: &str = "x-hoody-edge-realm";

/// When and from where a token was last used is written this often at most.
const USE_NOTED_EVERY: Millis = MINUTE;

/// The window of all limits on failures.
const WINDOW: Millis = 30 * MINUTE;

/// Tells who is behind a request.
#[derive(Clone)]
pub struct Auth {
    store: Store,
    clock: Clock,
    passwords: Passwords,
    sessions: Sessions,
    failures: Arc<Limiter>,
    failures_per_address: Arc<Limiter>,
    refreshes: Arc<Limiter>,
}

/// The tokens of a session as they are handed out.
#[derive(Debug, Clone)]
pub struct Handed {
    pub access: String,
    pub refresh: String,
    pub access_expires_at: Millis,
    pub refresh_expires_at: Millis,
}

/// Failures of the database are ours, and their text stays here.
pub fn broken(error: StoreError) -> Fault {
    tracing::error!(error = %chain(&error), "the database failed");
    Fault::internal("the node's database failed; the node's log says how")
}

/// An error with all that led to it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

fn wrong_credentials() -> Fault {
    Fault::unauthorized("wrong user name or password").code("INVALID_CREDENTIALS")
}

fn wrong_token() -> Fault {
    Fault::unauthorized("the token is unknown, expired or revoked; log in again")
        .code("INVALID_TOKEN")
}

fn nobody() -> Fault {
    Fault::unauthorized("no credentials; send `Authorization: Bearer <token>`").code("UNAUTHORIZED")
}

fn banned() -> Fault {
    Fault::forbidden("this account is banned").code("BANNED")
}

/// The address a call came from; loopback where it came without the proxy.
pub fn address(call: &Call) -> IpAddr {
    call.client().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

impl Auth {
    pub fn new(store: Store, clock: Clock, secrets: &Secrets, limits: &Limits) -> Auth {
        Auth {
            store,
            passwords: Passwords::new(),
            sessions: Sessions::new(secrets.session),
            failures: Arc::new(Limiter::new(limits.login_failures, WINDOW)),
            failures_per_address: Arc::new(Limiter::new(limits.login_failures_per_address, WINDOW)),
            refreshes: Arc::new(Limiter::new(limits.refreshes, WINDOW)),
            clock,
        }
    }

    fn now(&self) -> Millis {
        (self.clock)().as_millisecond()
    }

    /// The caller, or why there is none.
    pub async fn identify(&self, call: &Call) -> Result<Principal, Fault> {
        let presented = call.headers.get(AUTHORIZATION).ok_or_else(nobody)?;
        let presented = presented.to_str().map_err(|_| nobody())?.trim();
        let realm = realm(call)?;
        let (scheme, rest) = presented.split_once(' ').unwrap_or((presented, ""));
        let rest = rest.trim();
        let (user, via) = if scheme.eq_ignore_ascii_case("bearer") {
            if token::looks_like(rest) {
                self.by_token(rest, call).await?
            } else {
                self.by_session(rest).await?
            }
        } else if scheme.eq_ignore_ascii_case("basic") {
            self.by_basic(rest, call).await?
        } else if token::looks_like(presented) {
            self.by_token(presented, call).await?
        } else {
            return Err(nobody());
        };
        if user.is_banned {
            return Err(banned());
        }
        Ok(Principal {
            user: Arc::new(user),
            via,
            realm,
        })
    }

    /// The caller where there is one: for operations that anyone may call.
    pub async fn identify_if_any(&self, call: &Call) -> Option<Principal> {
        if !call.headers.contains_key(AUTHORIZATION) {
            return None;
        }
        self.identify(call).await.ok()
    }

    async fn by_session(&self, text: &str) -> Result<(User, Via), Fault> {
        let claims = self
            .sessions
            .read(text, Kind::Access)
            .ok_or_else(wrong_token)?;
        if claims.expires_at <= self.now() {
            return Err(Fault::unauthorized(
                "the access token has expired; refresh it or log in again",
            )
            .code("TOKEN_EXPIRED"));
        }
        let found = self
            .store
            .read("look up a session", move |db| {
                let Some(session) = sessions::find(db, claims.session)? else {
                    return Ok(None);
                };
                users::find(db, session.user)
            })
            .await
            .map_err(broken)?;
        let user = found
            .filter(|user| user.id == claims.user)
            .ok_or_else(wrong_token)?;
        Ok((user, Via::Session(claims.session)))
    }

    async fn by_token(&self, secret: &str, call: &Call) -> Result<(User, Via), Fault> {
        let hash = token::hash(secret);
        let found = self
            .store
            .read("look up an auth token", move |db| {
                let Some(token) = tokens::by_hash(db, &hash)? else {
                    return Ok(None);
                };
                Ok(users::find(db, token.user)?.map(|user| (user, token)))
            })
            .await
            .map_err(broken)?;
        let (user, token) = found.ok_or_else(wrong_token)?;
        let now = self.now();
        if !token.is_enabled || token.expires_at.is_some_and(|at| at <= now) {
            return Err(wrong_token());
        }
        let address = address(call);
        if !token::admits(&token.ip_whitelist, address) {
            return Err(
                Fault::forbidden(format!("this token may not be used from {address}"))
                    .code("IP_NOT_ALLOWED"),
            );
        }
        if token
            .last_used_at
            .is_none_or(|at| now - at >= USE_NOTED_EVERY)
        {
            let (id, text) = (token.id, address.to_string());
            self.store
                .write("note the use of an auth token", move |db| {
                    tokens::used(db, id, &text, now)
                })
                .await
                .map_err(broken)?;
        }
        Ok((user, Via::Token(Arc::new(token))))
    }

    /// `user:password`, `user:authToken` and `authToken:password`.
    async fn by_basic(&self, text: &str, call: &Call) -> Result<(User, Via), Fault> {
        let pair = STANDARD
            .decode(text)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = pair.ok_or_else(nobody)?;
        let (name, secret) = pair.split_once(':').ok_or_else(nobody)?;
        if token::looks_like(secret) {
            let (user, via) = self.by_token(secret, call).await?;
            let named = user.username == name
                || user
                    .email
                    .as_deref()
                    .is_some_and(|email| email.eq_ignore_ascii_case(name));
            return if named {
                Ok((user, via))
            } else {
                Err(wrong_credentials())
            };
        }
        if token::looks_like(name) {
            let (user, via) = self.by_token(name, call).await?;
            // The token is authority enough; a password beside it must still be right.
            if !secret.is_empty() {
                self.check(Some(user.clone()), &user.username, secret, call)
                    .await?;
            }
            return Ok((user, via));
        }
        let user = self.by_password(name, secret, call).await?;
        Ok((user, Via::Password))
    }

    /// The user with this name or e-mail address and password. Takes as long for an unknown user
    /// as for a wrong password.
    pub async fn by_password(
        &self,
        name: &str,
        password: &str,
        call: &Call,
    ) -> Result<User, Fault> {
        let wanted = name.to_owned();
        let found = self
            .store
            .read("look up a user", move |db| {
                if wanted.contains('@') {
                    users::by_email(db, &wanted)
                } else {
                    users::by_name(db, &wanted)
                }
            })
            .await
            .map_err(broken)?;
        self.check(found, name, password, call).await
    }

    async fn check(
        &self,
        user: Option<User>,
        name: &str,
        password: &str,
        call: &Call,
    ) -> Result<User, Fault> {
        let now = self.now();
        let network = limiter::network(address(call));
        let pair = format!("{network} {}", name.to_lowercase());
        self.failures.check(&pair, now)?;
        self.failures_per_address.check(&network, now)?;
        let hash = user.as_ref().map(|user| user.password_hash.clone());
        let right = self.passwords.verify(hash, password.to_owned()).await?;
        match user {
            Some(user) if right => Ok(user),
            _ => {
                self.failures.note(&pair, now);
                self.failures_per_address.note(&network, now);
                Err(wrong_credentials())
            }
        }
    }

    /// Hash a new password.
    pub async fn hash(&self, password: String) -> Result<String, Fault> {
        self.passwords.hash(password).await
    }

    /// Begin a session.
    pub async fn begin(&self, user: &User, call: &Call) -> Result<Handed, Fault> {
        if user.is_banned {
            return Err(banned());
        }
        let now = self.now();
        let session = sessions::Session {
            id: crate::words::id(),
            user: user.id,
            rotation: 0,
            rotated_at: now,
            expires_at: now + session::REFRESH_LIFE,
            address: address(call).to_string(),
            created_at: now,
        };
        let handed = self.sessions.hand(session.id, user.id, 0, now);
        self.store
            .write("begin a session", move |db| sessions::insert(db, &session))
            .await
            .map_err(broken)?;
        Ok(handed)
    }

    /// Trade a refresh token for new tokens. `Authorization`, where sent, must be of the same
    /// session: the refresh token itself or an access token, even one that has expired.
    ///
    /// A refresh token is good once. Used again it is taken for stolen and its session ends, but
    /// for a few seconds in which a client that lost the answer may ask again.
    pub async fn refresh(&self, presented: &str, call: &Call) -> Result<Handed, Fault> {
        let claims = self
            .sessions
            .read(presented, Kind::Refresh)
            .ok_or_else(wrong_token)?;
        if let Some(header) = call.headers.get(AUTHORIZATION) {
            let header = header
                .to_str()
                .ok()
                .and_then(|text| text.split_once(' '))
                .map(|(_, text)| text.trim());
            let same = header.is_some_and(|text| {
                text == presented
                    || [Kind::Access, Kind::Refresh].into_iter().any(|kind| {
                        self.sessions
                            .read(text, kind)
                            .is_some_and(|other| other.session == claims.session)
                    })
            });
            if !same {
                return Err(Fault::unauthorized(
                    "`Authorization` and `refreshToken` are of different sessions; send the refresh token in both",
                )
                .code("INVALID_TOKEN"));
            }
        }
        let now = self.now();
        let key = claims.session.to_string();
        self.refreshes.check(&key, now)?;
        self.refreshes.note(&key, now);
        if claims.expires_at <= now {
            return Err(
                Fault::unauthorized("the refresh token has expired; log in again")
                    .code("TOKEN_EXPIRED"),
            );
        }
        let verdict = self
            .store
            .write("refresh a session", move |db| {
                let Some(session) = sessions::find(db, claims.session)? else {
                    return Ok(Verdict::Unknown);
                };
                let Some(user) = users::find(db, session.user)? else {
                    return Ok(Verdict::Unknown);
                };
                if user.id != claims.user || user.is_banned {
                    return Ok(Verdict::Unknown);
                }
                if claims.rotation == session.rotation {
                    sessions::rotate(db, session.id, now + session::REFRESH_LIFE, now)?;
                    return Ok(Verdict::Rotated(session.rotation + 1));
                }
                if claims.rotation + 1 == session.rotation
                    && now - session.rotated_at <= session::REUSE_GRACE
                {
                    return Ok(Verdict::Rotated(session.rotation));
                }
                sessions::delete(db, session.id)?;
                Ok(Verdict::Reused)
            })
            .await
            .map_err(broken)?;
        match verdict {
            Verdict::Rotated(rotation) => {
                Ok(self
                    .sessions
                    .hand(claims.session, claims.user, rotation, now))
            }
            Verdict::Unknown => Err(wrong_token()),
            Verdict::Reused => {
                tracing::warn!(user.id = %claims.user, "a refresh token was used twice; its session is ended");
                Err(
                    Fault::unauthorized("the refresh token was used before; log in again")
                        .code("TOKEN_REUSED"),
                )
            }
        }
    }

    /// End every session of the caller. A token is no session: it stays until it is deleted.
    pub async fn end(&self, principal: &Principal) -> Result<(), Fault> {
        if principal.token().is_some() {
            return Ok(());
        }
        let user = principal.user.id;
        self.store
            .write("end the sessions of a user", move |db| {
                sessions::delete_of(db, user)
            })
            .await
            .map_err(broken)?;
        Ok(())
    }
}

enum Verdict {
    Rotated(u64),
    Reused,
    Unknown,
}

/// The realm a request is made in: that of its host, else that of its query.
fn realm(call: &Call) -> Result<Option<Id>, Fault> {
    let wrong = || {
        let message = "must be 24 hexadecimal digits";
        Fault::bad_request(format!("`realm_id` {message}"))
            .code("VALIDATION_ERROR")
            .field("/realm_id", message)
    };
    if let Some(header) = call.headers.get(REALM) {
        let text = header.to_str().map_err(|_| wrong())?;
        return text.parse().map(Some).map_err(|_| wrong());
    }
    let query = call.uri.query().unwrap_or_default();
    let asked = kit::arguments::query_pairs(query)
        .into_iter()
        .find(|(name, _)| name == "realm_id");
    match asked {
        Some((_, text)) if !text.is_empty() => text
            .to_ascii_lowercase()
            .parse()
            .map(Some)
            .map_err(|_| wrong()),
        _ => Ok(None),
    }
}
