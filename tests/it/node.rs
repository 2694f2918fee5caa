//! What the node says of itself: servers, rentals, images, keys, the caller's address.

use reqwest::Method;
use serde_json::json;
use tests::Rig;

use crate::wire::{NOTHING, refused, text};

#[tokio::test(flavor = "multi_thread")]
async fn clients_find_the_node_among_servers_and_rentals() {
    let rig = Rig::start().await;
    let rentals = rig.get("/api/v1/rentals").await.expect(200).data();
    assert_eq!(rig.get("/api/v1/servers").await.expect(200).data(), rentals);
    let id = text(&rentals[0]["server_id"]);
    assert_eq!(rentals[0]["server"]["container_capacity"]["used"], 0);
    let server = rig
        .get(&format!("/api/v1/servers/{id}"))
        .await
        .expect(200)
        .data();
    assert_eq!(
        (&server["server"]["name"], &server["status"]),
        (&json!(tests::rig::NODE), &json!("active"))
    );
    assert_eq!(
        rig.get(&format!("/api/v1/rentals/{id}"))
            .await
            .expect(200)
            .data(),
        server
    );
    assert_eq!(
        rig.get("/api/v1/servers/available")
            .await
            .expect(200)
            .data(),
        json!([])
    );
    for list in ["servers", "rentals"] {
        refused(
            rig.get(&format!("/api/v1/{list}/{NOTHING}")).await,
            404,
            "NOT_FOUND",
        );
        refused(
            rig.get(&format!("/api/v1/{list}/nonsense")).await,
            400,
            "VALIDATION_ERROR",
        );
    }
    rig.ask("web").await;
    assert_eq!(
        rig.get("/api/v1/servers").await.data()[0]["server"]["container_capacity"]["used"],
        1
    );
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_listed_and_found() {
    let rig = Rig::start().await;
    let images = rig
        .get("/api/v1/images/public?os=debian&search=trixie")
        .await
        .expect(200)
        .data();
    let image = &images["images"][0];
    assert_eq!(image["alias"], "debian-13");
    let path = format!("/api/v1/images/public/{}", text(&image["id"]));
    assert_eq!(rig.get(&path).await.expect(200).data(), *image);
    let mine = rig.get("/api/v1/images/user").await.expect(200).data();
    assert_eq!(mine["images"][0]["id"], image["id"]);
    let none = rig
        .get("/api/v1/images/public?os=plan9")
        .await
        .expect(200)
        .data();
    assert_eq!(
        (&none["images"], &none["pagination"]["total"]),
        (&json!([]), &json!(0))
    );
    refused(
        rig.get(&format!("/api/v1/images/public/{NOTHING}")).await,
        404,
        "NOT_FOUND",
    );
    refused(
        rig.get("/api/v1/images/public?limit=0").await,
        400,
        "VALIDATION_ERROR",
    );
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_no_account_answers_without_one() {
    let rig = Rig::start().await;
    let open = |path: &str| rig.send("api", rig.open_api(Method::GET, path));
    let keys = open("/api/v1/meta/public-key").await.expect(200).data();
    assert_eq!(keys["active_kid"], keys["keys"][0]["kid"]);
    open("/api/v1/meta/social-stats").await.expect(200);

    let ip = open("/api/v1/ip").await.expect(200).data();
    assert_eq!(
        (&ip["ip"], &ip["is_logged"], &ip["protocol"]),
        (&json!("127.0.0.1"), &json!(false), &json!("https"))
    );
    let known = rig.get("/api/v1/ip").await.expect(200).data();
    assert_eq!(known["is_logged"], true);
    assert!(
        !known.to_string().contains(&rig.token),
        "an answer may be logged"
    );

    let health = open("/api/v1/health").await.expect(200).json();
    assert_eq!(health["status"], "ok");
    let not_allowed = rig
        .send("api", rig.open_api(Method::POST, "/api/v1/ip"))
        .await
        .expect(405)
        .json();
    let nothing = open("/api/v1/nothing").await.expect(404).json();
    assert_eq!(
        (&not_allowed["statusCode"], &nothing["statusCode"]),
        (&json!(405), &json!(404))
    );
    rig.stop().await;
}
