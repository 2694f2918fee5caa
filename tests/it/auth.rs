//! Logging in, refreshing, logging out, and the ways to say who one is.

use reqwest::Method;
use serde_json::json;
use tests::Rig;

use crate::wire::{Caller, invalid, log_in, refused, text};

const ME: &str = "/api/v1/users/auth/me";
const REFRESH: &str = "/api/v1/users/auth/refresh";

#[tokio::test(flavor = "multi_thread")]
async fn a_login_lasts_until_it_is_ended() {
    let rig = Rig::start().await;
    let session = log_in(&rig, &rig.password).await.expect(200).data();
    assert_eq!(
        (&session["requires_2fa"], &session["expires_in"]),
        (&json!(false), &json!(86_400))
    );
    let first = Caller::new(&rig, text(&session["token"]));
    let me = first.get(ME).await.expect(200).data();
    assert_eq!(me["username"], rig.username.as_str());
    assert!(me["auth_token"].is_null());
    assert_eq!(first.get("/api/v1/users/me").await.expect(200).data(), me);

    // clients send their access token with it, even one that is about to expire
    let body = json!({ "refreshToken": session["refreshToken"] });
    let refreshed = first.post(REFRESH, body).await.expect(200).data();
    assert_ne!(refreshed["refreshToken"], session["refreshToken"]);
    let second = Caller::new(&rig, text(&refreshed["token"]));
    second.get(ME).await.expect(200);

    second
        .call(Method::POST, "/api/v1/users/auth/logout", None)
        .await
        .expect(200);
    for ended in [&first, &second] {
        refused(ended.get(ME).await, 401, "INVALID_TOKEN");
    }
    let body = json!({ "refreshToken": refreshed["refreshToken"] });
    refused(second.post(REFRESH, body).await, 401, "INVALID_TOKEN");
    // a token is no login
    rig.get(ME).await.expect(200);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_logins_are_refused_without_saying_what_was_wrong() {
    let rig = Rig::start().await;
    let login = |body| {
        rig.send(
            "api",
            rig.open_api(Method::POST, "/api/v1/users/auth/login")
                .json(&body),
        )
    };
    let known = login(json!({ "username": rig.username, "password": "not the password" })).await;
    let unknown = login(json!({ "username": "nobody-here", "password": "not the password" })).await;
    assert_eq!(
        refused(known, 401, "INVALID_CREDENTIALS"),
        refused(unknown, 401, "INVALID_CREDENTIALS")
    );
    invalid(
        login(json!({ "password": rig.password })).await,
        "/username",
    );
    invalid(
        login(json!({ "username": rig.username })).await,
        "/password",
    );
    invalid(
        login(json!({ "username": rig.username, "password": 12345678 })).await,
        "/password",
    );
    let broken = rig
        .open_api(Method::POST, "/api/v1/users/auth/login")
        .body("{");
    refused(rig.send("api", broken).await, 400, "INVALID_JSON");

    let session = log_in(&rig, &rig.password).await.expect(200).data();
    let other = log_in(&rig, &rig.password).await.expect(200).data();
    let caller = Caller::new(&rig, text(&session["token"]));
    for wrong in [
        &session["token"],
        &other["refreshToken"],
        &json!("nonsense"),
    ] {
        refused(
            caller.post(REFRESH, json!({ "refreshToken": wrong })).await,
            401,
            "INVALID_TOKEN",
        );
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_without_tokens_use_basic() {
    let rig = Rig::start().await;
    let basic = |user: &str, password: &str| {
        rig.send(
            "api",
            rig.open_api(Method::GET, ME)
                .basic_auth(user, Some(password)),
        )
    };
    for (user, password) in [
        (&rig.username, &rig.password),
        (&rig.username, &rig.token),
        (&rig.token, &rig.password),
    ] {
        let me = basic(user, password).await.expect(200).data();
        assert_eq!(me["username"], rig.username.as_str());
        assert_eq!(
            me["auth_token"].is_null(),
            user != &rig.token && password != &rig.token
        );
    }
    refused(
        basic(&rig.username, "not the password").await,
        401,
        "INVALID_CREDENTIALS",
    );
    refused(
        basic("nobody-here", &rig.token).await,
        401,
        "INVALID_CREDENTIALS",
    );
    // the bare token, as some clients send it
    let bare = rig
        .open_api(Method::GET, ME)
        .header("authorization", &rig.token);
    rig.send("api", bare).await.expect(200);
    rig.stop().await;
}
