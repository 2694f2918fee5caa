//! The JSON shapes of success and failure, which differ from service to service.

use serde_json::{Value, json};

use crate::{Fault, Route};

/// How a service wraps what its operations return.
#[derive(Clone, Copy, Debug)]
pub struct Wire {
    pub success: fn(&Route, Value) -> Value,
    pub failure: fn(&Fault) -> Value,
}

impl Wire {
    /// Payload bare; failures as `{error, message, code?}`.
    pub const KIT: Wire = Wire {
        success: bare,
        failure: kit_failure,
    };
    /// Payload bare; failures as `{success: false, error}`.
    pub const FILES: Wire = Wire {
        success: bare,
        failure: files_failure,
    };
    /// Payload bare; failures as `{error, code?}`.
    pub const SQLITE: Wire = Wire {
        success: bare,
        failure: sqlite_failure,
    };
    /// `{statusCode, message, data}`; failures as `{statusCode, error, message, code?, data?}`.
    pub const CONTROL: Wire = Wire {
        success: control_success,
        failure: control_failure,
    };
}

fn bare(_: &Route, reply: Value) -> Value {
    reply
}

fn control_success(route: &Route, reply: Value) -> Value {
    json!({ "statusCode": route.status, "message": route.message, "data": reply })
}

fn reason(fault: &Fault) -> &'static str {
    fault.status.canonical_reason().unwrap_or("Error")
}

fn wrong_fields(fault: &Fault) -> Value {
    fault
        .fields
        .iter()
        .map(|field| json!({ "instancePath": field.path, "message": field.message }))
        .collect()
}

fn kit_failure(fault: &Fault) -> Value {
    let mut body = json!({ "error": reason(fault), "message": fault.message });
    if let Some(code) = fault.code {
        body["code"] = code.into();
    }
    if !fault.fields.is_empty() {
        body["fields"] = wrong_fields(fault);
    }
    body
}

fn files_failure(fault: &Fault) -> Value {
    let mut body = json!({ "success": false, "error": fault.message });
    if let Some(code) = fault.code {
        body["code"] = code.into();
    }
    body
}

fn sqlite_failure(fault: &Fault) -> Value {
    let mut body = json!({ "error": fault.message });
    if let Some(code) = fault.code {
        body["code"] = code.into();
    }
    body
}

fn control_failure(fault: &Fault) -> Value {
    let mut body = json!({
        "statusCode": fault.status.as_u16(),
        "error": reason(fault),
        "message": fault.message,
    });
    if let Some(code) = fault.code {
        body["code"] = code.into();
    }
    if !fault.fields.is_empty() {
        body["data"] = wrong_fields(fault);
    }
    body
}
