//! What stories share: callers other than the rig's administrator, and how refusals read.

use reqwest::Method;
use serde_json::{Value, json};
use tests::Rig;
use tests::rig::{Answer, DOMAIN};

/// An id that nothing has.
pub const NOTHING: &str = "00000000000000000000ffff";

/// Somebody who calls the API with a bearer of their own.
pub struct Caller<'a> {
    rig: &'a Rig,
    bearer: String,
    realm: Option<String>,
}

impl<'a> Caller<'a> {
    pub fn new(rig: &'a Rig, bearer: impl Into<String>) -> Caller<'a> {
        Caller {
            rig,
            bearer: bearer.into(),
            realm: None,
        }
    }

    /// The administrator, logged in.
    pub async fn logged_in(rig: &'a Rig) -> Caller<'a> {
        let session = log_in(rig, &rig.password).await.expect(200).data();
        Caller::new(rig, text(&session["token"]))
    }

    /// The same caller at the host of a realm.
    pub fn at(&self, realm: &str) -> Caller<'a> {
        Caller {
            rig: self.rig,
            bearer: self.bearer.clone(),
            realm: Some(realm.to_owned()),
        }
    }

    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let host = match &self.realm {
            Some(realm) => format!("{realm}.api.{DOMAIN}"),
            None => format!("api.{DOMAIN}"),
        };
        let mut request = self
            .rig
            .client
            .request(method, &host, path)
            .bearer_auth(&self.bearer);
        if let Some(body) = body {
            request = request.json(&body);
        }
        self.rig.send("api", request).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, Some(body)).await
    }
}

/// Try to log in as the administrator with this password.
pub async fn log_in(rig: &Rig, password: &str) -> Answer {
    let body = json!({ "username": rig.username, "password": password });
    rig.send(
        "api",
        rig.open_api(Method::POST, "/api/v1/users/auth/login")
            .json(&body),
    )
    .await
}

/// The message of an answer that refuses with this status and code.
#[track_caller]
pub fn refused(answer: Answer, status: u16, code: &str) -> String {
    let answer = answer.expect(status);
    let body = answer.json();
    assert_eq!(body["code"], code, "{body}");
    let message = text(&body["message"]);
    assert!(!message.is_empty(), "{body}");
    message
}

/// Refused because of this parameter, named as a JSON pointer.
#[track_caller]
pub fn invalid(answer: Answer, pointer: &str) {
    let body = answer.expect(400).json();
    assert_eq!(body["code"], "VALIDATION_ERROR", "{body}");
    assert_eq!(body["data"][0]["instancePath"], pointer, "{body}");
}

#[track_caller]
pub fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
        .to_owned()
}

/// The values of a key in a list of objects.
#[track_caller]
pub fn each(list: &Value, key: &str) -> Vec<Value> {
    let list = list
        .as_array()
        .unwrap_or_else(|| panic!("{list} is no list"));
    list.iter().map(|item| item[key].clone()).collect()
}
