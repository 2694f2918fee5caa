//! Containers that sleep: a request wakes them, or says why it does not.

use control::runtime::fake::{Act, Moment, Trouble};
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tests::Rig;
use tests::rig::{Answer, Container};

use crate::wire::{each, invalid};

const HEALTH: &str = "/api/v1/terminal/health";

async fn knock(rig: &Rig, web: &Container) -> Answer {
    rig.kit(web, "terminal", Method::GET, HEALTH, |it| it).await
}

async fn manage(rig: &Rig, web: &Container, act: &str) {
    let path = format!("/api/v1/containers/{}/{act}", web.id);
    rig.post(&path, json!({})).await.expect(200);
}

async fn settings(rig: &Rig, web: &Container, change: Value) -> Answer {
    let path = format!("/api/v1/containers/{}/proxy/settings", web.id);
    let before = rig.get(&path).await.expect(200).data();
    let etag = before["etag"].as_str().expect("an etag").to_owned();
    let request = rig.api(Method::PATCH, &path).header("if-match", etag);
    rig.send("api", request.json(&change)).await
}

async fn statuses(rig: &Rig, web: &Container) -> Vec<(Value, Value)> {
    let path = format!("/api/v1/containers/{}/status-logs", web.id);
    let logs = rig.get(&format!("{path}?limit=100&sort_order=asc")).await;
    let logs = logs.expect(200).data();
    let (to, who) = (
        each(&logs["logs"], "to_status"),
        each(&logs["logs"], "triggered_by"),
    );
    to.into_iter().zip(who).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_wakes_what_is_stopped_or_paused() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    for (act, status) in [("stop", "stopped"), ("pause", "paused")] {
        manage(&rig, &web, act).await;
        rig.reached(&web, status).await;
        let before = statuses(&rig, &web).await.len();
        let all = join_all((0..20).map(|_| knock(&rig, &web))).await;
        for answer in all {
            answer.expect(200);
        }
        rig.reached(&web, "running").await;
        let after = statuses(&rig, &web).await.split_off(before);
        assert_eq!(
            after,
            [(json!("running"), json!("visitor"))],
            "one wake, and it says whose"
        );
    }
    manage(&rig, &web, "stop").await;
    rig.reached(&web, "stopped").await;
    let path = "/api/v1/terminal/ws?terminal_id=1";
    let socket = rig.websocket(&web, "terminal", path, Some("tty")).await;
    socket.expect("a terminal in what was stopped");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_turned_off_by_force_or_policy_stays_off() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    manage(&rig, &web, "force-stop").await;
    rig.reached(&web, "stopped").await;
    rig.until("the proxy knows", || async {
        knock(&rig, &web).await.json()["code"] == "container_stopped"
    })
    .await;
    manage(&rig, &web, "start").await;
    rig.reached(&web, "running").await;
    let said = settings(&rig, &web, json!({ "wake": "off" })).await;
    assert_eq!(said.expect(200).data()["wake"], "off");
    for (act, status, code) in [
        ("pause", "paused", "container_paused"),
        ("stop", "stopped", "container_stopped"),
    ] {
        manage(&rig, &web, act).await;
        rig.reached(&web, status).await;
        rig.until("the proxy knows", || async {
            knock(&rig, &web).await.json()["code"] == code
        })
        .await;
    }
    settings(&rig, &web, json!({ "wake": "on" }))
        .await
        .expect(200);
    rig.until("the proxy knows", || async {
        knock(&rig, &web).await.status == 200
    })
    .await;
    rig.stop().await;
}

/// Whoever may not come in wakes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_gate_wakes_nothing() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let shut = json!({ "default": "deny" });
    settings(&rig, &web, shut).await.expect(200);
    manage(&rig, &web, "stop").await;
    rig.reached(&web, "stopped").await;
    let before = statuses(&rig, &web).await;
    for _ in 0..3 {
        let answer = knock(&rig, &web).await.expect(403);
        assert_eq!(answer.json()["code"], "access_denied");
    }
    let path = format!("/api/v1/containers/{}", web.id);
    assert_eq!(rig.get(&path).await.data()["status"], "stopped");
    assert_eq!(statuses(&rig, &web).await, before);
    rig.stop().await;
}

/// A visitor can have a container woken so often, and then has to wait.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_keeps_a_container_flapping() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let mut woken = 0;
    let limited = loop {
        manage(&rig, &web, "pause").await;
        rig.reached(&web, "paused").await;
        let answer = knock(&rig, &web).await;
        if answer.status != 200 {
            break answer;
        }
        rig.reached(&web, "running").await;
        woken += 1;
        assert!(woken <= 12, "there is no bound");
    };
    assert_eq!(limited.status, 503);
    assert_eq!(limited.json()["code"], "wake_limited");
    let wait: u32 = limited.header("retry-after").parse().expect("seconds");
    assert!((1..=61).contains(&wait), "{wait}");
    // Its owner can, whatever visitors did.
    manage(&rig, &web, "resume").await;
    rig.reached(&web, "running").await;
    knock(&rig, &web).await.expect(200);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_sees_a_page_while_it_starts() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    manage(&rig, &web, "stop").await;
    rig.reached(&web, "stopped").await;
    rig.fake
        .trouble(Act::Start, Moment::Before, Trouble::Hang, 1);
    let page = rig
        .client
        .request(Method::GET, &web.host("terminal", 1), "/")
        .header("accept", "text/html");
    let page = page.build().expect("a request");
    let page = rig.client.execute(page).await.expect("an answer");
    assert_eq!(page.status(), 503);
    let text = page.text().await.expect("a page");
    assert!(text.contains("http-equiv=\"refresh\""), "{text}");
    rig.fake.hung(1).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sleep_is_set_within_its_bounds() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    for (change, field) in [
        (json!({ "idle_minutes": 5 }), "/idle_minutes"),
        (
            json!({ "idle_action": "stop", "idle_minutes": 0 }),
            "/idle_minutes",
        ),
        (
            json!({ "idle_action": "stop", "idle_minutes": 43_201 }),
            "/idle_minutes",
        ),
    ] {
        invalid(settings(&rig, &web, change).await, field);
    }
    for (change, action, minutes) in [
        (json!({ "idle_action": "stop" }), "stop", json!(30)),
        (json!({ "idle_minutes": 5 }), "stop", json!(5)),
        (json!({ "idle_action": "pause" }), "pause", json!(5)),
        (json!({ "wake": "off" }), "pause", json!(5)),
        (json!({ "idle_action": "never" }), "never", Value::Null),
    ] {
        let said = settings(&rig, &web, change).await.expect(200).data();
        assert_eq!(
            (&said["idle_action"], &said["idle_minutes"]),
            (&json!(action), &minutes)
        );
    }
    rig.stop().await;
}

/// Sleep of their own, on one that is used and on one that is not.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_needs_is_put_to_sleep() {
    let rig = Rig::start().await;
    for (action, status) in [("pause", "paused"), ("stop", "stopped")] {
        let idle = rig.create(&format!("idle-{action}")).await;
        let open = rig.create(&format!("open-{action}")).await;
        let held = rig.create(&format!("held-{action}")).await;
        let path = "/api/v1/terminal/ws?terminal_id=1";
        let socket = rig.websocket(&open, "terminal", path, Some("tty")).await;
        let socket = socket.expect("a terminal");
        // A session goes on when nobody looks at it.
        let made = json!({ "terminal_id": "7" });
        rig.kit(
            &held,
            "terminal",
            Method::POST,
            "/api/v1/terminal/create",
            |it| it.json(&made),
        )
        .await
        .expect(200);
        let policy = json!({ "idle_action": action, "idle_minutes": 1 });
        for web in [&idle, &open, &held] {
            settings(&rig, web, policy.clone()).await.expect(200);
        }
        for times in 1..=2 {
            rig.until("it sleeps", || async {
                let slept = statuses(&rig, &idle).await;
                let asleep = slept
                    .iter()
                    .filter(|it| **it == (json!(status), json!("idle")));
                asleep.count() == times
            })
            .await;
            knock(&rig, &idle).await.expect(200);
        }
        for web in [&open, &held] {
            let path = format!("/api/v1/containers/{}", web.id);
            let now = rig.get(&path).await.data();
            assert_eq!(now["status"], "running", "it is needed");
        }
        // What is not needed any more sleeps, too.
        drop(socket);
        for (web, terminal) in [(&open, 1), (&held, 7)] {
            let path = format!("/api/v1/terminal/{terminal}");
            rig.kit(web, "terminal", Method::DELETE, &path, |it| it)
                .await;
            rig.reached(web, status).await;
        }
        // Who takes the policy back has it run on.
        let never = json!({ "idle_action": "never" });
        settings(&rig, &idle, never).await.expect(200);
    }
    rig.stop().await;
}
