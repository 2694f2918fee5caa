//! Who gets in, as whom, and how far.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use control::auth::session::REUSE_GRACE;
use http::StatusCode;
use kit::{Access, Verb};
use routes::Id;
use serde_json::json;
use support::World;

const REALM: Id = Id([0xaa; 12]);
const OTHER: Id = Id([0xbb; 12]);

fn filled(path: &str) -> String {
    path.replace("{operation}", "start")
        .replace("{key}", "KEY")
        .replace("{id}", &Id([7; 12]).to_string())
}

#[tokio::test]
async fn every_guarded_operation_refuses_whoever_shows_nothing_or_nonsense() {
    let world = World::new().await;
    let node = world.start().await;
    let api = control::api(&node.control);
    let mut guarded = 0;
    for route in api.routes() {
        if route.access == Access::Open {
            continue;
        }
        guarded += 1;
        for verb in [Some(route.verb), route.also]
            .into_iter()
            .flatten()
            .map(Verb::as_str)
        {
            let path = filled(route.path);
            node.ask(verb, &path).send().await.refused(401);
            for bad in [
                "Bearer",
                "Bearer ",
                "Bearer nonsense",
                "Bearer eyJhbGciOiJub25lIn0.e30.",
                "Bearer hdy_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                "hdy_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                "Basic ",
                "Basic !!!",
                "Digest x",
                "Basic bm8tY29sb24=",
            ] {
                let answer = node
                    .ask(verb, &path)
                    .header("authorization", bad)
                    .send()
                    .await;
                assert_eq!(
                    answer.status,
                    StatusCode::UNAUTHORIZED,
                    "{verb} {path} with {bad}"
                );
            }
        }
    }
    assert!(guarded > 35, "only {guarded} guarded operations");
    let open: Vec<_> = api
        .routes()
        .filter(|route| route.access == Access::Open)
        .map(|route| route.id)
        .collect();
    assert_eq!(
        open,
        [
            "login",
            "refreshToken",
            "getIpInfo",
            "getPublicKey",
            "getSocialStats"
        ]
    );
}

#[tokio::test]
async fn a_login_gives_tokens_that_work() {
    let world = World::new().await;
    let node = world.start().await;
    let login = node.login().await;
    assert_eq!(login["expires_in"], 86_400);
    assert_eq!(login["refresh_expires_in"], 604_800);
    assert_eq!(login["user"]["username"], "admin");
    let me = node.with(login["token"].as_str().unwrap());
    for path in [
        "/api/v1/users/me",
        "/api/v1/users/auth/me",
        "/api/v1/users/auth/me/",
    ] {
        let user = me.get(path).await.ok();
        assert_eq!(user["is_admin"], true);
        assert!(user.get("password_hash").is_none());
    }
    let id = login["user"]["id"].as_str().unwrap();
    assert_eq!(me.get(&format!("/api/v1/users/{id}")).await.ok()["id"], id);
}

#[tokio::test]
async fn wrong_logins_say_the_same_whatever_is_wrong() {
    let world = World::new().await;
    let node = world.start().await;
    let login = |body| {
        node.ask("POST", "/api/v1/users/auth/login")
            .json(body)
            .send()
    };
    let unknown = login(json!({ "username": "nobody", "password": "wrong-password" })).await;
    let wrong = login(json!({ "username": "admin", "password": "wrong-password" })).await;
    assert_eq!(unknown.body, wrong.body);
    unknown.refused(401);
    login(json!({ "email": "nobody@example.com", "password": "wrong-password" }))
        .await
        .refused(401);
    login(json!({ "password": "wrong-password" }))
        .await
        .refused(400);
    for (body, field) in [
        (
            json!({ "username": "a b", "password": "wrong-password" }),
            "/username",
        ),
        (
            json!({ "username": "ab", "password": "wrong-password" }),
            "/username",
        ),
        (
            json!({ "username": "admin", "password": "short" }),
            "/password",
        ),
        (
            json!({ "username": "admin", "password": "x".repeat(129) }),
            "/password",
        ),
        (json!({ "username": "admin", "password": 7 }), "/password"),
        (
            json!({ "username": "admin", "password": "wrong-password", "response_mode": "intent" }),
            "/response_mode",
        ),
    ] {
        assert_eq!(login(body).await.wrong_field(), field);
    }
}

#[tokio::test]
async fn guessing_is_stopped_by_address_and_account() {
    let world = World::new().await;
    let mut config = world.config();
    config.limits.login_failures = 3;
    config.limits.login_failures_per_address = 5;
    let node = world.start_with(config).await;
    let login = |name: &str, password: &str, from: &str| {
        let body = json!({ "username": name, "password": password });
        node.ask("POST", "/api/v1/users/auth/login")
            .from(from)
            .json(body)
            .send()
    };
    for _ in 0..3 {
        login("admin", "wrong-password", "192.0.2.1")
            .await
            .refused(401);
    }
    let stopped = login("admin", &world.password, "192.0.2.1").await;
    assert!(stopped.headers.contains_key("retry-after"));
    stopped.refused(429);
    login("admin", &world.password, "192.0.2.2").await.ok(); // whoever sits elsewhere is not locked out
    for name in ["one", "two"] {
        login("name", name, "192.0.2.1").await.refused(400);
        login(name, "wrong-password", "192.0.2.1")
            .await
            .refused(401);
    }
    login("three", "wrong-password", "192.0.2.1")
        .await
        .refused(429);
}

#[tokio::test]
async fn refresh_tokens_are_good_once() {
    let world = World::new().await;
    let node = world.start().await;
    let login = node.login().await;
    let refresh = |token: &str, authorization: Option<String>| {
        let ask = node
            .ask("POST", "/api/v1/users/auth/refresh")
            .json(json!({ "refreshToken": token }));
        match authorization {
            Some(text) => ask
                .header("authorization", &format!("Bearer {text}"))
                .send(),
            None => ask.send(),
        }
    };
    let first = login["refreshToken"].as_str().unwrap();
    let access = login["token"].as_str().unwrap();
    // The header may carry the access token, the refresh token, or nothing.
    let second = refresh(first, Some(access.to_owned())).await.ok();
    let second = second["refreshToken"].as_str().unwrap();
    let third = refresh(second, Some(second.to_owned())).await.ok();
    let third_token = third["refreshToken"].as_str().unwrap();
    node.with(third["token"].as_str().unwrap())
        .get("/api/v1/users/me")
        .await
        .ok();
    // A lost answer may be asked for again, shortly.
    let again = refresh(second, None).await.ok();
    assert_eq!(again["expires_in"], 86_400);
    // Of another session: no.
    let other = node.login().await;
    refresh(
        third_token,
        Some(other["token"].as_str().unwrap().to_owned()),
    )
    .await
    .refused(401);
    refresh(access, None).await.refused(401);
    refresh("nonsense", None).await.refused(401);
    // The first is two steps back: somebody has a copy. Its whole session ends.
    refresh(first, None).await.refused(401);
    refresh(third_token, None).await.refused(401);
    node.with(third["token"].as_str().unwrap())
        .get("/api/v1/users/me")
        .await
        .refused(401);
    node.with(other["token"].as_str().unwrap())
        .get("/api/v1/users/me")
        .await
        .ok();
    const { assert!(REUSE_GRACE < 60_000) };
}

#[tokio::test]
async fn logging_out_ends_every_login_and_no_auth_token() {
    let world = World::new().await;
    let node = world.start().await;
    let (one, two) = (node.login().await, node.login().await);
    let me = node.with(one["token"].as_str().unwrap());
    let program = me
        .post("/api/v1/auth/tokens", json!({ "alias": "program" }))
        .await
        .ok();
    let program = node.with(program["token"].as_str().unwrap());
    program
        .post("/api/v1/users/auth/logout", json!({}))
        .await
        .ok(); // it has no login to end
    me.get("/api/v1/users/me").await.ok();
    assert!(
        me.ask("POST", "/api/v1/users/auth/logout")
            .send()
            .await
            .ok()
            .is_null()
    );
    for login in [&one, &two] {
        node.with(login["token"].as_str().unwrap())
            .get("/api/v1/users/me")
            .await
            .refused(401);
        let refresh = json!({ "refreshToken": login["refreshToken"] });
        node.ask("POST", "/api/v1/users/auth/refresh")
            .json(refresh)
            .send()
            .await
            .refused(401);
    }
    program.get("/api/v1/users/me").await.ok();
}

#[tokio::test]
async fn basic_takes_passwords_and_tokens_in_both_places() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let token = me.post("/api/v1/auth/tokens", json!({})).await.ok()["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let basic = |pair: String| {
        let value = format!("Basic {}", STANDARD.encode(pair));
        node.ask("GET", "/api/v1/users/me")
            .header("authorization", &value)
            .send()
    };
    let password = &world.password;
    for good in [
        format!("admin:{password}"),
        format!("admin:{token}"),
        format!("{token}:{password}"),
        format!("{token}:"),
    ] {
        basic(good).await.ok();
    }
    for bad in [
        "admin:wrong-password".to_owned(),
        format!("nobody:{token}"),
        format!("{token}:wrong-password"),
        format!("nobody:{password}"),
    ] {
        basic(bad).await.refused(401);
    }
    node.ask("GET", "/api/v1/users/me")
        .header("authorization", &token)
        .send()
        .await
        .ok();
}

#[tokio::test]
async fn a_token_is_shown_once_and_kept_as_a_hash() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let made = me
        .post("/api/v1/auth/tokens", json!({ "alias": "deploy", "expires_at": "tomorrow", "ip_whitelist": "192.0.2.0/24,::1" }))
        .await;
    assert_eq!(made.status, StatusCode::CREATED);
    let made = made.ok();
    let secret = made["token"].as_str().unwrap();
    assert!(secret.len() >= 36 && secret.starts_with(made["prefix"].as_str().unwrap()));
    assert_eq!(made["ip_whitelist"], json!(["192.0.2.0/24", "::1"]));
    let id = made["id"].as_str().unwrap();
    let read = me.get(&format!("/api/v1/auth/tokens/{id}")).await.ok();
    assert!(read.get("token").is_none());
    let list = me.get("/api/v1/auth/tokens").await;
    assert_eq!(list.body["truncated"], false);
    assert_eq!(list.ok().as_array().unwrap().len(), 1);
    for file in ["control.db", "control.db-wal"] {
        let bytes = std::fs::read(world.directory.path().join(file)).unwrap_or_default();
        assert!(
            !bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes()),
            "the secret is in {file}"
        );
        let password = world.password.as_bytes();
        assert!(
            !bytes
                .windows(password.len())
                .any(|window| window == password)
        );
    }
    // Only from where it may be used.
    let use_from = |address: &str| {
        node.ask("GET", "/api/v1/users/me")
            .bearer(secret)
            .from(address)
            .send()
    };
    use_from("192.0.2.9").await.ok();
    use_from("198.51.100.1").await.refused(403);
    let used = me.get(&format!("/api/v1/auth/tokens/{id}")).await.ok();
    assert_eq!(used["last_used_ip"], "192.0.2.9");
    // Disabled, enabled, deleted.
    me.put(
        &format!("/api/v1/auth/tokens/{id}"),
        json!({ "is_enabled": false }),
    )
    .await
    .ok();
    use_from("192.0.2.9").await.refused(401);
    me.ask("PATCH", &format!("/api/v1/auth/tokens/{id}"))
        .json(json!({ "is_enabled": true, "expires_at": null }))
        .send()
        .await
        .ok();
    use_from("192.0.2.9").await.ok();
    assert!(
        me.delete(&format!("/api/v1/auth/tokens/{id}"))
            .await
            .ok()
            .is_null()
    );
    use_from("192.0.2.9").await.refused(401);
    me.get(&format!("/api/v1/auth/tokens/{id}"))
        .await
        .refused(404);
    for (body, field) in [
        (json!({ "alias": "a/b" }), "/alias"),
        (json!({ "alias": "" }), "/alias"),
        (json!({ "ip_whitelist": "everywhere" }), "/ip_whitelist"),
        (
            json!({ "ip_whitelist": ["192.0.2.1", "192.0.2.1/99"] }),
            "/ip_whitelist",
        ),
        (json!({ "expires_at": true }), "/expires_at"),
        (
            json!({ "expires_at": "2001-01-01T00:00:00Z" }),
            "/expires_at",
        ),
        (
            json!({ "public_storage": { "x": "y".repeat(70_000) } }),
            "/public_storage",
        ),
    ] {
        assert_eq!(
            me.post("/api/v1/auth/tokens", body).await.wrong_field(),
            field
        );
    }
}

#[tokio::test]
async fn a_wrong_list_of_addresses_is_told_what_is_wrong_with_it() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    for (given, bad) in [
        (json!("everywhere"), "`everywhere`"),
        (json!("192.0.2.1, 192.0.2.0/99"), "`192.0.2.0/99`"),
        (json!(["192.0.2.1", "1.2.3"]), "`1.2.3`"),
        (json!(["192.0.2.1", 7]), "`7`"),
        (json!([["192.0.2.1"]]), "`[\"192.0.2.1\"]`"),
        (json!(7), "`7`"),
        (json!({ "only": "::1" }), "`{\"only\":\"::1\"}`"),
    ] {
        let body = json!({ "ip_whitelist": given });
        let said = me.post("/api/v1/auth/tokens", body).await.refused(400);
        let words = format!(
            "invalid parameter `ip_whitelist`: {bad} is no address, no network and not `*`; say `*`,"
        );
        assert!(said.starts_with(&words), "{said}");
    }
    let long = json!({ "ip_whitelist": "x".repeat(100_000) });
    let said = me.post("/api/v1/auth/tokens", long).await.refused(400);
    assert!(
        said.len() < 300,
        "it is not said back whole: {}",
        said.len()
    );
}

#[tokio::test]
async fn a_token_may_what_it_was_given_and_gives_no_more() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let project = me.project("site").await;
    let make = |body| me.post("/api/v1/auth/tokens", body);
    let reader = make(json!({ "permission_template": "read_only" }))
        .await
        .ok()["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let reader = node.with(&reader);
    reader.get("/api/v1/projects").await.ok();
    assert!(
        reader
            .post("/api/v1/projects", json!({ "alias": "x" }))
            .await
            .refused(403)
            .contains("projects.create")
    );
    reader
        .delete(&format!("/api/v1/projects/{project}"))
        .await
        .refused(403);
    reader
        .post("/api/v1/auth/tokens", json!({}))
        .await
        .refused(403);

    let maker = make(json!({ "permissions": { "projects": { "read": true }, "resources": { "create_tokens": true } } }))
        .await
        .ok()["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let maker = node.with(&maker);
    maker
        .post(
            "/api/v1/auth/tokens",
            json!({ "permission_template": "full_access" }),
        )
        .await
        .refused(403);
    maker
        .post("/api/v1/auth/tokens", json!({ "vault_access": true }))
        .await
        .refused(403);
    let child = maker.post("/api/v1/auth/tokens", json!({})).await.ok();
    assert_eq!(child["delegation_depth"], 1);
    assert_eq!(child["permissions"]["projects"]["delete"], false);
    // It sees itself and what it made, and nothing else.
    assert_eq!(
        maker
            .get("/api/v1/auth/tokens")
            .await
            .ok()
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let child_token = node.with(child["token"].as_str().unwrap());
    child_token.get("/api/v1/projects").await.ok();
    let parent = child["created_by_token_id"].as_str().unwrap();
    child_token
        .delete(&format!("/api/v1/auth/tokens/{parent}"))
        .await
        .refused(404);
    // What a deleted token made goes with it.
    me.delete(&format!("/api/v1/auth/tokens/{parent}"))
        .await
        .ok();
    child_token.get("/api/v1/projects").await.refused(401);

    let locked = make(json!({ "deny_reauthorization": true, "vault_access": true }))
        .await
        .ok();
    assert_eq!(locked["permissions"]["resources"]["create_tokens"], false);
    assert_eq!(locked["vault_access"], false);
    assert!(locked["expires_at"].is_string());

    let about = child_token
        .node
        .with(locked["token"].as_str().unwrap())
        .get("/api/v1/auth/tokens/me")
        .await
        .ok();
    assert_eq!(about["token"]["id"], locked["id"]);
    me.get("/api/v1/auth/tokens/me").await.refused(400);
}

#[tokio::test]
async fn what_is_outside_of_a_realm_does_not_exist() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let inside = me
        .post(
            "/api/v1/projects",
            json!({ "alias": "in", "realm_ids": [REALM] }),
        )
        .await
        .ok();
    let outside = me.project("out").await;
    let inside = inside["id"].as_str().unwrap();
    let secret = me
        .post(
            "/api/v1/auth/tokens",
            json!({ "realm_ids": [REALM], "allow_no_realm": false }),
        )
        .await
        .ok()["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let bound = node.with(&secret);
    // Without its realm, and in another, it is sent back in the words that clients look for.
    assert!(
        bound
            .get("/api/v1/projects")
            .await
            .refused(403)
            .contains("requires a realm-scoped URL")
    );
    assert!(
        bound
            .within(OTHER)
            .get("/api/v1/projects")
            .await
            .refused(403)
            .contains("not valid for realm")
    );
    let about = bound.get("/api/v1/auth/tokens/me").await.ok();
    assert_eq!(about["restrictions"]["allowed_realm_ids"], json!([REALM]));
    assert_eq!(about["restrictions"]["requires_realm_scope"], true);
    // In its realm it sees what is there; the rest is as unknown as an id that was never issued.
    let bound = bound.within(REALM);
    bound.get(&format!("/api/v1/projects/{inside}")).await.ok();
    let list = bound.get("/api/v1/projects").await.ok();
    assert_eq!(list["pagination"]["total"], 1);
    assert_eq!(list["projects"][0]["id"], inside);
    let never = Id([9; 12]).to_string();
    for (method, suffix, body) in [
        ("GET", "", json!(null)),
        ("PUT", "", json!({ "alias": "x" })),
        ("DELETE", "", json!(null)),
        ("GET", "/containers", json!(null)),
        ("POST", "/containers", json!({ "server_id": "x" })),
        ("GET", "/stats", json!(null)),
        ("GET", "/permissions", json!(null)),
    ] {
        let ask = |id: &str| {
            bound
                .ask(method, &format!("/api/v1/projects/{id}{suffix}"))
                .json(body.clone())
                .send()
        };
        let (hidden, unknown) = (ask(&outside).await, ask(&never).await);
        let text = |answer: &support::Answer, id: &str| answer.body.to_string().replace(id, "ID");
        assert_eq!(
            text(&hidden, &outside),
            text(&unknown, &never),
            "{method} {suffix}"
        );
        hidden.refused(404);
    }
    // The same by query, which clients use where the host cannot carry a realm.
    let query = format!(
        "/api/v1/projects?realm_id={}",
        REALM.to_string().to_uppercase()
    );
    assert_eq!(me.get(&query).await.ok()["pagination"]["total"], 1);
    assert_eq!(
        me.get("/api/v1/projects?realm_id=zz").await.wrong_field(),
        "/realm_id"
    );
    // What is made in a realm belongs to it; what is made by the bound cannot be elsewhere.
    let made = bound
        .post("/api/v1/projects", json!({ "alias": "new" }))
        .await
        .ok();
    assert_eq!(made["realm_ids"], json!([REALM]));
    bound
        .post(
            "/api/v1/projects",
            json!({ "alias": "new", "realm_ids": [OTHER] }),
        )
        .await
        .refused(403);
    let id = made["id"].as_str().unwrap();
    bound
        .put(
            &format!("/api/v1/projects/{id}"),
            json!({ "realm_ids": [] }),
        )
        .await
        .refused(403);

    let container = bound.container(id, "web").await;
    bound.until(&container, "running").await;
    assert_eq!(
        bound.get("/api/v1/containers").await.ok()["pagination"]["total"],
        1
    );
    me.within(OTHER)
        .get(&format!("/api/v1/containers/{container}"))
        .await
        .refused(404);
    me.within(OTHER)
        .manage(&container, "stop")
        .await
        .refused(404);
    me.within(OTHER)
        .delete(&format!("/api/v1/containers/{container}"))
        .await
        .refused(404);
    let realms = me.get("/api/v1/realms/?include_usage=true").await.ok();
    assert_eq!(realms["realm_ids"], json!([REALM]));
    assert_eq!(
        realms["usage"][REALM.to_string()],
        json!({ "projects": 2, "containers": 1 })
    );
}

#[tokio::test]
async fn a_realm_can_be_added_and_the_last_is_not_taken() {
    let world = World::new().await;
    let node = world.start().await;
    let me = node.admin().await;
    let made = me
        .post("/api/v1/auth/tokens", json!({ "realm_ids": [REALM] }))
        .await
        .ok();
    let path = format!("/api/v1/auth/tokens/{}", made["id"].as_str().unwrap());
    let both = me
        .post(&format!("{path}/add-realm"), json!({ "realm_id": OTHER }))
        .await
        .ok();
    assert_eq!(both["realm_ids"], json!([REALM, OTHER]));
    let one = me
        .post(
            &format!("{path}/remove-realm"),
            json!({ "realm_id": REALM }),
        )
        .await
        .ok();
    assert_eq!(one["realm_ids"], json!([OTHER]));
    me.post(
        &format!("{path}/remove-realm"),
        json!({ "realm_id": OTHER }),
    )
    .await
    .refused(409);
    assert_eq!(
        me.post(&format!("{path}/add-realm"), json!({ "realm_id": "x" }))
            .await
            .wrong_field(),
        "/realm_id"
    );
}

#[tokio::test]
async fn a_password_is_changed_by_who_knows_it() {
    let world = World::new().await;
    let node = world.start().await;
    let login = node.login().await;
    let me = node.with(login["token"].as_str().unwrap());
    let path = format!("/api/v1/users/{}", login["user"]["id"].as_str().unwrap());
    let new = "Correct-Horse-1";
    me.put(&path, json!({ "password": new })).await.refused(400);
    me.put(
        &path,
        json!({ "password": new, "current_password": "wrong-password" }),
    )
    .await
    .refused(401);
    assert_eq!(
        me.put(&path, json!({ "password": "too-simple-for-us" }))
            .await
            .wrong_field(),
        "/password"
    );
    me.put(
        &path,
        json!({ "password": new, "current_password": world.password, "alias": "Boss" }),
    )
    .await
    .ok();
    let again = json!({ "username": "admin", "password": new });
    let user = node
        .ask("POST", "/api/v1/users/auth/login")
        .json(again)
        .send()
        .await
        .ok();
    assert_eq!(user["user"]["alias"], "Boss");
    me.put(
        &format!("/api/v1/users/{}", Id([1; 12])),
        json!({ "alias": "x" }),
    )
    .await
    .refused(404);
}

#[tokio::test]
async fn a_first_run_makes_one_administrator_and_tells_the_password_once() {
    let world = World::new().await;
    let path = world.directory.path();
    let again = control::first_run(path).await.unwrap();
    assert_eq!((again.username.as_str(), again.password), ("admin", None));
    let node = world.start().await;
    // Beside a running control, too.
    let secret = control::mint_token(path, "setup").await.unwrap();
    node.with(&secret).get("/api/v1/users/me").await.ok();
    let next = control::mint_token(path, "setup").await.unwrap();
    node.with(&secret)
        .get("/api/v1/users/me")
        .await
        .refused(401);
    node.with(&next).get("/api/v1/users/me").await.ok();
    let reset = control::provision::reset_password(path).await.unwrap();
    let login = json!({ "username": "admin", "password": reset.password.unwrap() });
    node.ask("POST", "/api/v1/users/auth/login")
        .json(login)
        .send()
        .await
        .ok();
}
