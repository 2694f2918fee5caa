//! The main job, in one process.

use reqwest::Method;
use serde_json::json;
use tests::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn a_new_container_answers_at_its_hostnames() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;

    let body = json!({ "command": "echo $((6 * 7)); echo no >&2; exit 3", "wait": true });
    let ran = rig
        .kit(
            &web,
            "terminal",
            Method::POST,
            "/api/v1/terminal/execute?ephemeral=true",
            |request| request.json(&body),
        )
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&ran["stdout"], &ran["stderr"], &ran["exit_code"]),
        (&json!("42\n"), &json!("no\n"), &json!(3))
    );

    let path = "/api/v1/files/notes.txt";
    rig.kit(&web, "files", Method::PUT, path, |request| {
        request.body("hello")
    })
    .await
    .expect(200);
    let back = rig
        .kit(&web, "files", Method::GET, path, |request| request)
        .await
        .expect(200);
    assert_eq!(back.text(), "hello");

    rig.delete(&format!("/api/v1/containers/{}", web.id))
        .await
        .expect(200);
    rig.until("nothing is left", || async {
        rig.fake.everything().is_empty()
    })
    .await;
    rig.stop().await;
}
