//! What the node sees of the caller.

use std::collections::BTreeMap;

use kit::{Call, Fault, Operation, Route, call::edge};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::auth::address;
use crate::control::Control;
use crate::time;

/// Headers that are nobody's business, not even in an answer to who sent them: it may be logged.
const SECRET: [&str; 4] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "x-hoody-token",
];

/// The caller's address and headers as the node sees them.
#[derive(Deserialize, JsonSchema)]
pub struct Ip {}

#[derive(Serialize, JsonSchema)]
pub struct IpInfo {
    ip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
    headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    referer: Option<String>,
    timestamp: String,
    /// Whether the call carried good credentials.
    is_logged: bool,
    protocol: String,
    /// Where in the world the address is: this node does not know.
    ip_info: Option<Value>,
}

impl Operation for Ip {
    const ROUTE: Route = Route::get("/api/v1/ip")
        .named("getIpInfo")
        .cli("ip get")
        .open();
    type Service = Control;
    type Reply = IpInfo;

    async fn run(self, control: Control, call: Call) -> Result<IpInfo, Fault> {
        let headers: BTreeMap<String, String> = call
            .headers
            .iter()
            .filter(|(name, _)| {
                !SECRET.contains(&name.as_str()) && !name.as_str().starts_with(edge::PREFIX)
            })
            .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
            .collect();
        Ok(IpInfo {
            ip: address(&call).to_string(),
            user_agent: call.user_agent().map(str::to_owned),
            referer: headers.get("referer").cloned(),
            headers,
            timestamp: time::text(control.now()),
            is_logged: control.auth.identify_if_any(&call).await.is_some(),
            protocol: call.scheme().to_owned(),
            ip_info: None,
        })
    }
}
