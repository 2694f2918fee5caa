//! The life of a container, seen from outside.

use reqwest::Method;
use serde_json::json;
use tests::Node;

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_created_stopped_started_paused_and_deleted() {
    let node = Node::running();
    let web = node.create("life").await;
    node.root(&web, "echo kept > /root/note").await;

    node.operate(&web, "stop").await;
    node.reached(&web, "stopped").await;
    let host = web.host("terminal");
    // A request starts it, and is held until it is there.
    let woken = node
        .client
        .request(Method::GET, &host, "/api/v1/terminal/health");
    let woken = node.client.execute(woken.build().unwrap()).await.unwrap();
    assert_eq!(woken.status(), 200);
    node.reached(&web, "running").await;

    node.operate(&web, "force-stop").await;
    node.reached(&web, "stopped").await;
    let page = node
        .client
        .request(Method::GET, &host, "/")
        .header("accept", "text/html");
    let page = node.client.execute(page.build().unwrap()).await.unwrap();
    assert_eq!(page.status(), 503);
    assert!(page.text().await.unwrap().contains("stopped"));

    node.operate(&web, "start").await;
    node.answers(&web).await;
    node.reached(&web, "running").await;
    assert_eq!(node.root(&web, "cat /root/note").await, "kept");

    node.operate(&web, "pause").await;
    node.reached(&web, "paused").await;
    node.operate(&web, "resume").await;
    node.answers(&web).await;

    let boot = node.root(&web, "cut -d' ' -f22 /proc/1/stat").await;
    node.operate(&web, "restart").await;
    node.until("it has restarted", || async {
        let body = json!({ "command": "cut -d' ' -f22 /proc/1/stat", "wait": true });
        let path = "/api/v1/terminal/execute?ephemeral=true";
        match node
            .kit(&web, "terminal", Method::POST, path, |request| {
                request.json(&body)
            })
            .await
        {
            Ok(answer) if answer.status == 200 => answer.json()["stdout"]
                .as_str()
                .is_some_and(|seen| seen.trim() != boot),
            _ => false, // it is on its way down or up
        }
    })
    .await;
    node.reached(&web, "running").await;

    let logs = node
        .get(&format!("/api/v1/containers/{}/status-logs", web.id))
        .await
        .expect(200);
    assert!(logs.text().contains("running"), "{}", logs.text());
    node.get(&format!("/api/v1/containers/{}/stats", web.id))
        .await
        .expect(200);

    node.remove(&web).await;
    let gone = node
        .kit(
            &web,
            "terminal",
            Method::GET,
            "/api/v1/terminal/health",
            |r| r,
        )
        .await
        .unwrap();
    assert_eq!(gone.status, 404);
}
