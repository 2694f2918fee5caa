//! Proof for a container's services that its caller may use it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer;
use kit::{Call, Fault, Operation, Route};
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::containers::seen;
use super::text::IdText;
use crate::auth::Principal;
use crate::auth::permissions::Permission;
use crate::control::Control;
use crate::time::SECOND;

/// How long a claim holds: long enough for a request and a clock that is off.
const LIFETIME_SECONDS: i64 = 300;

/// Get a signed claim that the caller may use a container, for services in it that ask for one in
/// `X-Hoody-Container-Claim`. It is the JSON of `container_claim`.
///
/// `payload_b64` is the base64 of a JSON object: `container_id`, `project_id`, `user_id`, the realms
/// of the container, `iat` and `exp` in seconds since 1970, and a `nonce`. `signature_hex` is the
/// Ed25519 signature (RFC 8032) of the text of `payload_b64` by the key `kid`, which
/// `GET /api/v1/meta/public-key` shows. It holds for five minutes.
#[derive(Deserialize, JsonSchema)]
pub struct Authorize {
    id: IdText,
}

#[derive(Serialize, JsonSchema)]
pub struct Authorized {
    container_claim: Claim,
    /// Seconds.
    expires_in: i64,
    container_id: String,
    project_id: String,
}

#[derive(Serialize, JsonSchema)]
struct Claim {
    kid: String,
    payload_b64: String,
    signature_hex: String,
}

impl Operation for Authorize {
    const ROUTE: Route = Route::post("/api/v1/containers/{id}/authorize")
        .named("authorizeContainer")
        .cli("containers authorize")
        .says("Container authorized");
    type Service = Control;
    type Reply = Authorized;

    async fn run(self, control: Control, call: Call) -> Result<Authorized, Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersRead)?;
        let container = seen(&control, &principal, self.id.0).await?.container;
        let now = control.now() / SECOND;
        let mut nonce = [0; 16];
        rand::rng().fill(&mut nonce);
        let payload = json!({
            "container_id": container.id.to_string(),
            "project_id": container.project.to_string(),
            "user_id": principal.user.id.to_string(),
            "realm_ids": container.realms.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "iat": now,
            "exp": now + LIFETIME_SECONDS,
            "nonce": hex::encode(nonce),
        });
        let payload = STANDARD.encode(payload.to_string());
        let secrets = &control.secrets;
        Ok(Authorized {
            container_claim: Claim {
                kid: secrets.key_id(),
                signature_hex: hex::encode(secrets.signing.sign(payload.as_bytes()).to_bytes()),
                payload_b64: payload,
            },
            expires_in: LIFETIME_SECONDS,
            container_id: container.id.to_string(),
            project_id: container.project.to_string(),
        })
    }
}
