//! The administrator's own account.

use reqwest::Method;
use serde_json::json;
use tests::Rig;

use crate::wire::{Caller, NOTHING, invalid, log_in, refused, text};

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_changed_by_its_owner_who_is_logged_in() {
    let rig = Rig::start().await;
    let me = rig.get("/api/v1/users/me").await.expect(200).data();
    let path = format!("/api/v1/users/{}", text(&me["id"]));
    let mut same = me.clone();
    for of_the_call in ["auth_token", "pending_pool_invitations"] {
        same.as_object_mut().expect("an object").remove(of_the_call);
    }
    assert_eq!(rig.get(&path).await.expect(200).data(), same);
    refused(
        rig.get(&format!("/api/v1/users/{NOTHING}")).await,
        404,
        "NOT_FOUND",
    );
    invalid(rig.get("/api/v1/users/somebody").await, "/id");
    refused(
        rig.put(&path, json!({ "alias": "by a token" })).await,
        403,
        "PERMISSION_DENIED",
    );

    let owner = Caller::logged_in(&rig).await;
    for (method, alias) in [(Method::PUT, "Ada"), (Method::PATCH, "Grace")] {
        let changed = owner
            .call(method, &path, Some(json!({ "alias": alias })))
            .await
            .expect(200)
            .data();
        assert_eq!(changed["alias"], alias);
        assert_eq!(rig.get(&path).await.data()["alias"], alias);
    }

    let new = "Correct-Horse-8";
    invalid(
        owner.put(&path, json!({ "password": new })).await,
        "/current_password",
    );
    invalid(
        owner
            .put(
                &path,
                json!({ "password": "weak", "current_password": rig.password }),
            )
            .await,
        "/password",
    );
    let wrong = json!({ "password": new, "current_password": "not the password" });
    refused(owner.put(&path, wrong).await, 401, "INVALID_CREDENTIALS");
    owner
        .put(
            &path,
            json!({ "password": new, "current_password": rig.password }),
        )
        .await
        .expect(200);
    log_in(&rig, new).await.expect(200);
    refused(
        log_in(&rig, &rig.password).await,
        401,
        "INVALID_CREDENTIALS",
    );
    rig.stop().await;
}
