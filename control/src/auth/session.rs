//! The tokens of a session: JSON Web Tokens (RFC 7519) under HMAC-SHA-256 (`HS256`, RFC 7518).
//!
//! The algorithm is fixed on both sides: a token that names another is none of ours.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use routes::Id;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::Handed;
use crate::time::{DAY, Millis, SECOND};

/// How long an access token is good.
pub const ACCESS_LIFE: Millis = DAY;
/// How long a refresh token is good.
pub const REFRESH_LIFE: Millis = 7 * DAY;
/// How long the token before the newest may still be used: a client may lose an answer.
pub const REUSE_GRACE: Millis = 10 * SECOND;

/// Longer than any token we make.
const MOST: usize = 1024;
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Access,
    Refresh,
}

/// What a token says, after its signature was found good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claims {
    pub user: Id,
    pub session: Id,
    pub rotation: u64,
    pub expires_at: Millis,
}

#[derive(Serialize, Deserialize)]
struct Payload {
    sub: Id,
    sid: Id,
    #[serde(rename = "use")]
    kind: Kind,
    rot: u64,
    iat: i64,
    exp: i64,
    /// Makes each token its own, even two of the same second.
    jti: String,
}

/// Makes and reads tokens.
#[derive(Clone)]
pub struct Sessions {
    mac: Hmac<Sha256>,
}

impl Sessions {
    pub fn new(secret: [u8; 32]) -> Sessions {
        Sessions {
            mac: Hmac::new_from_slice(&secret).expect("HMAC takes keys of any length"),
        }
    }

    /// Both tokens of a session that was refreshed `rotation` times.
    pub fn hand(&self, session: Id, user: Id, rotation: u64, now: Millis) -> Handed {
        let token = |kind, life| {
            self.write(&Payload {
                sub: user,
                sid: session,
                kind,
                rot: rotation,
                iat: now / SECOND,
                exp: (now + life) / SECOND,
                jti: crate::words::url_safe(16),
            })
        };
        Handed {
            access: token(Kind::Access, ACCESS_LIFE),
            refresh: token(Kind::Refresh, REFRESH_LIFE),
            access_expires_at: now + ACCESS_LIFE,
            refresh_expires_at: now + REFRESH_LIFE,
        }
    }

    fn write(&self, payload: &Payload) -> String {
        let payload = serde_json::to_vec(payload).expect("claims are plain JSON");
        let text = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(HEADER),
            URL_SAFE_NO_PAD.encode(payload)
        );
        let signature = self
            .mac
            .clone()
            .chain_update(text.as_bytes())
            .finalize()
            .into_bytes();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// What a token of this kind says; nothing where it is not one of ours. Whether it has expired
    /// is for the caller to see.
    pub fn read(&self, token: &str, kind: Kind) -> Option<Claims> {
        if token.len() > MOST {
            return None;
        }
        let (text, signature) = token.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        self.mac
            .clone()
            .chain_update(text.as_bytes())
            .verify_slice(&signature)
            .ok()?;
        let (header, payload) = text.split_once('.')?;
        if URL_SAFE_NO_PAD.decode(header).ok()? != HEADER.as_bytes() {
            return None;
        }
        let payload: Payload =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        (payload.kind == kind).then_some(Claims {
            user: payload.sub,
            session: payload.sid,
            rotation: payload.rot,
            expires_at: payload.exp.checked_mul(SECOND)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions() -> Sessions {
        Sessions::new([7; 32])
    }

    #[test]
    fn tokens_say_what_they_were_told() {
        let handed = sessions().hand(Id([1; 12]), Id([2; 12]), 3, 1_000_000);
        let claims = sessions().read(&handed.refresh, Kind::Refresh).unwrap();
        let expires_at = 1_000_000 + REFRESH_LIFE;
        assert_eq!(
            claims,
            Claims {
                user: Id([2; 12]),
                session: Id([1; 12]),
                rotation: 3,
                expires_at
            }
        );
        assert!(
            sessions().read(&handed.access, Kind::Refresh).is_none(),
            "an access token is no refresh token"
        );
        assert!(sessions().read(&handed.refresh, Kind::Access).is_none());
    }

    #[test]
    fn nothing_else_is_a_token() {
        let good = sessions().hand(Id([1; 12]), Id([2; 12]), 0, 0).access;
        let [header, payload, signature]: [&str; 3] =
            good.split('.').collect::<Vec<_>>().try_into().unwrap();
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        for bad in [
            String::new(),
            ".".into(),
            "..".into(),
            format!("{none}.{payload}."),
            format!("{none}.{payload}.{signature}"),
            format!("{header}.{payload}."),
            format!("{header}.{payload}.AAAA"),
            format!("{header}.{payload}A.{signature}"),
            format!("{good}."),
            "a".repeat(MOST + 1),
        ] {
            assert!(sessions().read(&bad, Kind::Access).is_none(), "{bad}");
        }
        assert!(
            Sessions::new([8; 32]).read(&good, Kind::Access).is_none(),
            "another key"
        );
    }
}
