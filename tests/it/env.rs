//! Environment variables of containers, and that the machine is told.

use reqwest::Method;
use serde_json::json;
use tests::Rig;

use crate::wire::{invalid, refused};

#[tokio::test(flavor = "multi_thread")]
async fn variables_are_set_listed_and_removed_and_the_machine_knows() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let path = format!("/api/v1/containers/{}/env", web.id);
    let send = |method, path: String, body| rig.send("api", rig.api(method, &path).json(&body));

    let all = send(Method::PUT, path.clone(), json!({ "A": "1", "B": "2" }))
        .await
        .expect(200)
        .data();
    assert_eq!(all["environment_vars"], json!({ "A": "1", "B": "2" }));
    send(Method::PATCH, path.clone(), json!({ "C": "3" }))
        .await
        .expect(200);
    send(Method::PUT, format!("{path}/A"), json!({ "value": "one" }))
        .await
        .expect(200);
    send(Method::PATCH, format!("{path}/D"), json!({ "value": "" }))
        .await
        .expect(200);
    rig.delete(&format!("{path}/B")).await.expect(200);
    let want = json!({ "A": "one", "C": "3", "D": "" });
    assert_eq!(
        rig.get(&path).await.expect(200).data()["environment_vars"],
        want
    );
    rig.until("the machine knows", || async {
        let machine = rig.fake.machine(web.id).expect("it was made");
        let told: serde_json::Map<_, _> = machine
            .environment
            .into_iter()
            .map(|(key, value)| (key, json!(value)))
            .collect();
        want.as_object()
            .is_some_and(|want| want.iter().all(|(key, value)| told.get(key) == Some(value)))
            && !told.contains_key("B")
    })
    .await;

    refused(rig.delete(&format!("{path}/B")).await, 404, "NOT_FOUND");
    invalid(
        send(Method::PUT, format!("{path}/A"), json!({})).await,
        "/value",
    );
    invalid(
        send(Method::PUT, format!("{path}/1A"), json!({ "value": "x" })).await,
        "/key",
    );
    // A line break would be lost on the way into the machine: it is refused, everywhere.
    invalid(
        send(
            Method::PUT,
            format!("{path}/A"),
            json!({ "value": "two\nlines" }),
        )
        .await,
        "/value",
    );
    rig.put(&path, json!({ "A": "two\nlines" }))
        .await
        .expect(400);
    rig.patch(
        &format!("/api/v1/containers/{}", web.id),
        json!({ "environment_vars": { "A": "two\nlines" } }),
    )
    .await
    .expect(400);
    rig.put(&path, json!({ "not a name": "x" }))
        .await
        .expect(400);
    rig.put(&path, json!({ "A": { "deep": true } }))
        .await
        .expect(400);
    assert_eq!(rig.get(&path).await.data()["environment_vars"], want);
    rig.stop().await;
}
