//! Facts of the node that need no account.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use kit::{Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::control::Control;

/// The key with which what the node signs is verified.
#[derive(Deserialize, JsonSchema)]
pub struct PublicKey {}

#[derive(Serialize, JsonSchema)]
pub struct Keys {
    keys: Vec<Key>,
    active_kid: String,
    usage: Vec<&'static str>,
    signing_format: SigningFormat,
}

#[derive(Serialize, JsonSchema)]
struct Key {
    kid: String,
    algorithm: &'static str,
    public_key_hex: String,
    public_key_b64: String,
    public_key_b64url: String,
}

/// What is signed, and how far clocks may differ.
#[derive(Serialize, JsonSchema)]
struct SigningFormat {
    response_header: &'static str,
    response_signed_data: &'static str,
    identity_claim_signed_data: &'static str,
    container_claim_signed_data: &'static str,
    replay_tolerance_seconds: u32,
}

impl Operation for PublicKey {
    const ROUTE: Route = Route::get("/api/v1/meta/public-key")
        .named("getPublicKey")
        .cli("meta get")
        .open();
    type Service = Control;
    type Reply = Keys;

    async fn run(self, control: Control, _: Call) -> Result<Keys, Fault> {
        let kid = control.secrets.key_id();
        let public = control.secrets.signing.verifying_key().to_bytes();
        Ok(Keys {
            keys: vec![Key {
                kid: kid.clone(),
                algorithm: "ed25519",
                public_key_hex: hex::encode(public),
                public_key_b64: STANDARD.encode(public),
                public_key_b64url: URL_SAFE_NO_PAD.encode(public),
            }],
            active_kid: kid,
            usage: vec!["response_signature", "identity_claim", "container_claim"],
            signing_format: SigningFormat {
                response_header: "X-Hoody-Signature: t=<unix>,kid=<id>,m=<METHOD>,s=<status>,path=<path>,sig=<hex>",
                response_signed_data: "t\nMETHOD\nstatus\npath\nbody",
                identity_claim_signed_data: "payload_b64",
                container_claim_signed_data: "payload_b64",
                replay_tolerance_seconds: 300,
            },
        })
    }
}

/// How many people follow the project elsewhere. A node of one's own does not ask around: all null.
#[derive(Deserialize, JsonSchema)]
pub struct SocialStats {}

#[derive(Serialize, JsonSchema)]
pub struct Counters {
    github: Option<u64>,
    telegram: Option<u64>,
    discord: Option<u64>,
    discord_online: Option<u64>,
    x: Option<u64>,
    linkedin: Option<u64>,
    #[serde(rename = "fetchedAt")]
    fetched_at: Option<String>,
}

impl Operation for SocialStats {
    const ROUTE: Route = Route::get("/api/v1/meta/social-stats")
        .named("getSocialStats")
        .open();
    type Service = Control;
    type Reply = Counters;

    async fn run(self, _: Control, _: Call) -> Result<Counters, Fault> {
        Ok(Counters {
            github: None,
            telegram: None,
            discord: None,
            discord_online: None,
            x: None,
            linkedin: None,
            fetched_at: None,
        })
    }
}
