//! How replies are wrapped: `{statusCode, message, data}`, and beside them what the contract adds.

use kit::{Route, Wire};
use serde_json::{Value, json};

/// The wire of control.
pub const WIRE: Wire = Wire {
    success,
    failure: Wire::CONTROL.failure,
};

fn success(route: &Route, reply: Value) -> Value {
    let mut body = json!({ "statusCode": route.status, "message": route.message, "data": reply });
    if route.id == super::tokens::LIST {
        // A user's tokens are so few that the list is always whole.
        body["truncated"] = false.into();
    }
    body
}
