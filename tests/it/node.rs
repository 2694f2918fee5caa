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
    assert_eq!(mine["images"][0]["has_rated"], false);
    let at = |verb: &str| format!("/api/v1/images/{verb}/{}", text(&image["id"]));
    let icon = format!("/api/v1/images/{}/icon", text(&image["id"]));
    assert_eq!(
        rig.get(&icon).await.expect(200).data(),
        image["icon_url"],
        "pages show it as it is"
    );
    let imported = rig.post(&at("import"), json!({})).await.expect(200).data();
    assert_eq!(imported["alias"], "debian-13");
    let paid = rig
        .post(&at("purchase"), json!({}))
        .await
        .expect(200)
        .data();
    assert_eq!(paid["price_paid"], 0.0);
    for rating in [2.0, 4.5] {
        let rated = rig.post(&at("rate"), json!({ "rating": rating })).await;
        assert_eq!(
            rated.expect(200).data(),
            json!({ "new_rating": rating, "average_rating": rating, "rating_count": 1 })
        );
    }
    let mine = rig.get("/api/v1/images/user").await.expect(200).data();
    assert_eq!(mine["images"][0]["user_rating"], 4.5);
    for (query, found) in [
        ("min_rating=4.5&max_rating=4.5&sort_by=rating", 1),
        ("max_rating=4", 0),
        ("max_price=0&sort_by=price", 1),
        ("min_price=1", 0),
    ] {
        let path = format!("/api/v1/images/public?{query}");
        let found_now = rig.get(&path).await.expect(200).data();
        assert_eq!(found_now["pagination"]["total"], found, "{query}");
    }
    for wrong in [json!(5.1), json!(-1), json!("good"), json!(null)] {
        let answer = rig.post(&at("rate"), json!({ "rating": wrong })).await;
        refused(answer, 400, "VALIDATION_ERROR");
    }
    let nothing = format!("/api/v1/images/rate/{NOTHING}");
    refused(
        rig.post(&nothing, json!({ "rating": 1 })).await,
        404,
        "NOT_FOUND",
    );
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
