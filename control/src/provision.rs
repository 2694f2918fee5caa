//! The first run: an administrator, and a token for whoever set the node up.
//!
//! These work on the database of a state directory, whether control runs or not, and need no
//! more authority than reading that directory does.

use std::path::{Path, PathBuf};

use crate::auth::permissions::{Admin, Permissions};
use crate::auth::{password, token};
use crate::config;
use crate::store::tokens::Token;
use crate::store::users::User;
use crate::store::{Store, StoreError, tokens, users};
use crate::time;
use crate::words;

/// The name of the first administrator.
pub const ADMINISTRATOR: &str = "admin";

/// The administrator of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Administrator {
    pub username: String,
    /// Only where it was made just now; it is kept nowhere.
    pub password: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    #[error("could not make the state directory {path}")]
    MakeDirectory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("could not hash the password: {0}")]
    Hash(argon2::password_hash::Error),
    #[error("the node has no administrator yet; run `hoody up`")]
    NoAdministrator,
}

fn open(state: &Path) -> Result<Store, ProvisionError> {
    std::fs::create_dir_all(state).map_err(|source| ProvisionError::MakeDirectory {
        path: state.to_owned(),
        source,
    })?;
    Ok(Store::open(&config::database(state))?)
}

/// Make the administrator where there is none. Their password is in the answer of the run that
/// made them and in no other.
pub async fn first_run(state: &Path) -> Result<Administrator, ProvisionError> {
    let store = open(state)?;
    if let Some(user) = store
        .read("look for an administrator", users::administrator)
        .await?
    {
        return Ok(Administrator {
            username: user.username,
            password: None,
        });
    }
    let password = words::password();
    let password_hash = password::hash(&password).map_err(ProvisionError::Hash)?;
    let now = time::system()().as_millisecond();
    let user = User {
        id: words::id(),
        username: ADMINISTRATOR.to_owned(),
        email: None,
        alias: ADMINISTRATOR.to_owned(),
        password_hash,
        is_admin: true,
        is_banned: false,
        created_at: now,
        updated_at: now,
    };
    let made = store
        .write("make the administrator", move |db| {
            // Two first runs at once: the first to come makes them.
            if let Some(user) = users::administrator(db)? {
                return Ok(Err(user.username));
            }
            users::insert(db, &user)?;
            Ok(Ok(user.username))
        })
        .await?;
    Ok(match made {
        Ok(username) => Administrator {
            username,
            password: Some(password),
        },
        Err(username) => Administrator {
            username,
            password: None,
        },
    })
}

/// Give the administrator a new password, in place of one that was lost.
pub async fn reset_password(state: &Path) -> Result<Administrator, ProvisionError> {
    let store = open(state)?;
    let password = words::password();
    let password_hash = password::hash(&password).map_err(ProvisionError::Hash)?;
    let now = time::system()().as_millisecond();
    let username = store
        .write("reset the administrator's password", move |db| {
            let Some(user) = users::administrator(db)? else {
                return Ok(None);
            };
            users::set_password(db, user.id, &password_hash, now)?;
            Ok(Some(user.username))
        })
        .await?;
    let username = username.ok_or(ProvisionError::NoAdministrator)?;
    Ok(Administrator {
        username,
        password: Some(password),
    })
}

/// Make an auth token of the administrator's with this alias, in place of an older one of the
/// same alias. The secret is in the answer alone.
pub async fn mint_token(state: &Path, alias: &str) -> Result<String, ProvisionError> {
    let store = open(state)?;
    let (alias, now) = (alias.to_owned(), time::system()().as_millisecond());
    let secret = token::secret();
    let (hash, prefix) = (token::hash(&secret), token::shown(&secret));
    store
        .write("make a token of the administrator's", move |db| {
            let Some(user) = users::administrator(db)? else {
                return Ok(None);
            };
            for old in tokens::list(db, user.id, None)? {
                if old.alias == alias {
                    tokens::delete(db, old.id)?;
                }
            }
            let token = Token {
                id: words::id(),
                user: user.id,
                hash,
                prefix,
                alias,
                public_key: None,
                public_storage: None,
                ip_whitelist: vec!["*".to_owned()],
                realms: Vec::new(),
                allow_no_realm: true,
                // The command of this machine may see what the node is at.
                permissions: Permissions {
                    admin: Admin {
                        monitoring: true,
                        ..Admin::default()
                    },
                    ..Permissions::full()
                },
                vault_access: true,
                event_access: true,
                is_enabled: true,
                expires_at: None,
                created_by: None,
                depth: 0,
                last_used_at: None,
                last_used_ip: None,
                created_at: now,
                updated_at: now,
            };
            tokens::insert(db, &token)?;
            Ok(Some(()))
        })
        .await?
        .ok_or(ProvisionError::NoAdministrator)?;
    Ok(secret)
}
