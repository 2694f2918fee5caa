//! Who is calling.

use std::sync::Arc;

use kit::{Call, Fault};
use routes::Id;

use super::permissions::Permission;
use crate::store::Realms;
use crate::store::tokens::Token;
use crate::store::users::User;

/// A caller whose credentials were good.
#[derive(Debug, Clone)]
pub struct Principal {
    pub user: Arc<User>,
    pub via: Via,
    /// The realm the request was made in.
    pub realm: Option<Id>,
}

/// How a caller showed who they are.
#[derive(Debug, Clone)]
pub enum Via {
    /// A login, by its access token.
    Session(Id),
    /// User name and password with the request itself.
    Password,
    Token(Arc<Token>),
}

impl Principal {
    /// The caller that the gate found.
    pub fn of(call: &Call) -> Result<Principal, Fault> {
        call.extensions.get::<Principal>().cloned().ok_or_else(|| {
            Fault::unauthorized("no credentials; send `Authorization: Bearer <token>`")
        })
    }

    /// The caller, if they may do this.
    pub fn who_may(call: &Call, permission: Permission) -> Result<Principal, Fault> {
        let principal = Self::of(call)?;
        principal.may(permission)?;
        Ok(principal)
    }

    pub fn may(&self, permission: Permission) -> Result<(), Fault> {
        match self.token() {
            Some(token) if !token.permissions.allows(permission) => Err(Fault::forbidden(format!(
                "this token lacks the permission `{}`",
                permission.path()
            ))
            .code("PERMISSION_DENIED")),
            _ => Ok(()),
        }
    }

    pub fn token(&self) -> Option<&Token> {
        match &self.via {
            Via::Token(token) => Some(token),
            Via::Session(_) | Via::Password => None,
        }
    }

    /// Refuse a token outside of the realms it is for.
    pub fn in_realm(&self) -> Result<(), Fault> {
        let Some(token) = self.token() else {
            return Ok(());
        };
        match self.realm {
            None if !token.allow_no_realm => Err(Fault::forbidden(
                "this token requires a realm-scoped URL: put one of its realms before the API's host name",
            )
            .code("REALM_REQUIRED")),
            Some(realm) if !token.realms.is_empty() && !token.realms.contains(&realm) => {
                Err(Fault::forbidden(format!("this token is not valid for realm {realm}"))
                    .code("REALM_NOT_ALLOWED"))
            }
            _ => Ok(()),
        }
    }

    /// What the caller sees of what belongs to realms.
    pub fn realms(&self) -> Realms {
        match (self.realm, self.token()) {
            (Some(realm), _) => Realms::Within(vec![realm]),
            (None, Some(token)) if !token.realms.is_empty() => Realms::Within(token.realms.clone()),
            _ => Realms::All,
        }
    }

    /// Who it was, for logs: `user:admin`, `token:deploy`.
    pub fn label(&self) -> String {
        match self.token() {
            Some(token) => format!("token:{}", token.alias),
            None => format!("user:{}", self.user.username),
        }
    }
}
