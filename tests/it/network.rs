//! What containers reach over the network: what the API keeps, and what the machine's host is told.

use control::firewall::{Action, Filter, Kind};
use control::relay::{Credentials, Kind as By, Upstream};
use control::runtime::{Egress, Policy};
use reqwest::Method;
use serde_json::{Value, json};
use tests::Rig;
use tests::rig::Answer;

use crate::wire::{invalid, refused};

fn told(rig: &Rig, id: routes::Id) -> Option<Policy> {
    rig.fake.policy(id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_is_said_shown_stopped_and_forgotten() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let path = format!("/api/v1/containers/{}/network", web.id);

    let shown = rig.get(&path).await.expect(200).data();
    assert_eq!(shown["configured"], false);
    refused(rig.delete(&path).await, 404, "NETWORK_NOT_CONFIGURED");
    let start = format!("{path}/start");
    refused(
        rig.post(&start, json!({})).await,
        404,
        "NETWORK_NOT_CONFIGURED",
    );

    let blocked = rig.put(&path, json!({ "type": "block" })).await.expect(200);
    assert_eq!(blocked.data()["status"], "running");
    assert_eq!(told(&rig, web.id).unwrap().egress, Egress::Blocked);

    let said = json!({
        "type": "socks5", "proxy": "socks5://me:hush@proxy.test:1080", "country": "CH",
        "comment": "for tests", "dns_servers": ["192.0.2.53"],
    });
    let shown = rig.patch(&path, said).await.expect(200);
    assert!(!shown.text().contains("hush"), "{}", shown.text());
    let shown = shown.data();
    assert_eq!(shown["proxy"], "socks5://proxy.test:1080");
    assert_eq!(shown["credentials_configured"], true);
    let upstream = |password: &str| Upstream {
        kind: By::Socks5,
        host: "proxy.test".to_owned(),
        port: 1080,
        credentials: Some(Credentials {
            user: "me".to_owned(),
            password: password.to_owned(),
        }),
        dns: vec!["192.0.2.53".parse().unwrap()],
    };
    let egress = || told(&rig, web.id).map(|policy| policy.egress);
    assert_eq!(egress(), Some(Egress::Proxied(upstream("hush"))));
    // what is not said again stays
    let next = json!({ "type": "socks5", "city": "Bern" });
    rig.put(&path, next).await.expect(200);
    assert_eq!(egress(), Some(Egress::Proxied(upstream("hush"))));
    let shown = rig.get(&path).await.expect(200);
    assert!(!shown.text().contains("hush"));
    assert_eq!(
        (&shown.data()["country"], &shown.data()["city"]),
        (&json!("CH"), &json!("Bern"))
    );

    let stopped = rig
        .post(&format!("{path}/stop"), json!({}))
        .await
        .expect(200)
        .data();
    assert_eq!(
        (&stopped["status"], &stopped["is_running"]),
        (&json!("stopped"), &json!(false))
    );
    assert_eq!(told(&rig, web.id), None);
    let started = rig.post(&start, json!({})).await.expect(200).data();
    assert_eq!(started["status"], "running");
    assert_eq!(egress(), Some(Egress::Proxied(upstream("hush"))));

    let logs = rig
        .get(&format!("/api/v1/containers/{}/status-logs", web.id))
        .await
        .expect(200)
        .data();
    let newest = &logs["logs"][0];
    assert_eq!(newest["metadata"], json!({ "network": "socks5" }));
    assert_eq!(newest["from_status"], newest["to_status"]);

    // another kind of way has nothing of the one before
    invalid(rig.put(&path, json!({ "type": "http" })).await, "/proxy");
    rig.delete(&path).await.expect(200);
    assert_eq!(told(&rig, web.id), None);
    assert_eq!(rig.get(&path).await.data()["configured"], false);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_and_shows_no_secret() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let path = format!("/api/v1/containers/{}/network", web.id);
    let over = "x".repeat(101);
    for (body, field) in [
        (json!({}), "/type"),
        (json!({ "type": "wireguard" }), "/type"),
        (
            json!({ "type": "https", "proxy": "https://u:hush@h:1" }),
            "/type",
        ),
        (json!({ "type": "socks5" }), "/proxy"),
        (
            json!({ "type": "socks5", "proxy": "http://u:hush@h:1" }),
            "/proxy",
        ),
        (
            json!({ "type": "http", "proxy": "http://u:hush@127.0.0.1:1" }),
            "/proxy",
        ),
        (
            json!({ "type": "block", "proxy": "http://u:hush@h:1" }),
            "/proxy",
        ),
        (json!({ "type": "block", "country": over }), "/country"),
        (
            json!({ "type": "block", "dns_servers": ["dns.test"] }),
            "/dns_servers",
        ),
        (
            json!({ "type": "block", "dns_servers": ["1.1.1.1", "1.1.1.1", "1.1.1.1", "1.1.1.1", "1.1.1.1"] }),
            "/dns_servers",
        ),
    ] {
        let answer = rig.put(&path, body.clone()).await;
        assert!(!answer.text().contains("hush"), "{body}");
        invalid(answer, field);
    }
    let nobody = "/api/v1/containers/0123456789abcdef01234567/network";
    refused(rig.get(nobody).await, 404, "NOT_FOUND");
    refused(
        rig.put(nobody, json!({ "type": "block" })).await,
        404,
        "NOT_FOUND",
    );
    assert_eq!(told(&rig, web.id), None);
    rig.stop().await;
}

async fn remove(rig: &Rig, path: &str, body: Value) -> Answer {
    rig.send("api", rig.api(Method::DELETE, path).json(&body))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_added_in_order_toggled_and_removed() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let path = format!("/api/v1/containers/{}/firewall", web.id);
    let (egress, ingress) = (format!("{path}/egress"), format!("{path}/ingress"));
    let mail = json!({
        "action": "drop", "protocol": "tcp", "description": "no mail", "destination_port": "25,465",
        "destination": "0.0.0.0/0",
    });
    rig.post(&egress, mail.clone()).await.expect(200);
    let all = json!({ "action": "allow", "protocol": "udp", "description": "names", "destination_port": "53" });
    let rules = rig.post(&egress, all).await.expect(200).data();
    let named: Vec<&str> = rules["egress"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|rule| rule["description"].as_str())
        .collect();
    assert_eq!(named, ["no mail", "names"]);
    let ping = json!({ "action": "reject", "protocol": "icmp4", "description": "quiet", "icmp_type": "8", "source": "10.0.0.0/8" });
    rig.post(&ingress, ping).await.expect(200);

    let filters = || told(&rig, web.id).map(|policy| policy.filters);
    let has = filters().unwrap();
    assert_eq!(
        has.egress[0],
        Filter {
            action: Action::Drop,
            kind: Kind::Tcp {
                from: vec![],
                to: vec![25..=25, 465..=465]
            },
            peers: vec!["0.0.0.0/0".parse().unwrap()],
        }
    );
    assert_eq!((has.egress.len(), has.ingress.len()), (2, 1));

    let mut again = mail.clone();
    again["description"] = "the same by another name".into();
    refused(rig.post(&egress, again).await, 409, "DUPLICATE_RULE");

    let toggled = rig
        .patch(&egress, json!({ "state": "disabled", "protocol": "tcp" }))
        .await
        .expect(200)
        .data();
    assert_eq!(toggled["updated"]["description"], "no mail");
    assert_eq!(toggled["new_state"], "disabled");
    assert_eq!(filters().unwrap().egress.len(), 1);
    refused(
        rig.patch(&egress, json!({ "state": "enabled" })).await,
        409,
        "AMBIGUOUS_RULE",
    );
    refused(
        rig.patch(&ingress, json!({ "state": "enabled", "protocol": "tcp" }))
            .await,
        404,
        "RULE_NOT_FOUND",
    );
    rig.patch(&ingress, json!({ "state": "disabled" }))
        .await
        .expect(200);

    let listed = rig.get(&format!("{path}/rules")).await.expect(200).data();
    assert_eq!(listed["rule_count"], 3);
    assert_eq!(listed["ingress"][0]["direction"], "ingress");
    assert_eq!(listed["ingress"][0]["source"], "10.0.0.0/8");
    assert_eq!(listed["egress"][0]["state"], "disabled");

    refused(
        remove(&rig, &egress, json!({})).await,
        400,
        "VALIDATION_ERROR",
    );
    let gone = remove(&rig, &egress, json!({ "state": "disabled" }))
        .await
        .expect(200)
        .data();
    assert_eq!(
        (&gone["removed_count"], &gone["removed"][0]["description"]),
        (&json!(1), &json!("no mail"))
    );
    refused(
        remove(&rig, &egress, json!({ "protocol": "tcp" })).await,
        404,
        "RULE_NOT_FOUND",
    );
    let gone = remove(&rig, &ingress, json!({ "all": true }))
        .await
        .expect(200)
        .data();
    assert_eq!(gone["removed_count"], 1);
    let reset = rig
        .post(&format!("{path}/reset"), json!({}))
        .await
        .expect(200)
        .data();
    assert_eq!(reset["rules"], json!({ "ingress": [], "egress": [] }));
    assert_eq!(told(&rig, web.id), None);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_mean_nothing_are_refused_where_they_are_wrong() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let path = format!("/api/v1/containers/{}/firewall/egress", web.id);
    for (key, value) in [
        ("action", "accept"),
        ("protocol", "icmp6"),
        ("destination", "::/0"),
        ("destination", "0.0.0.0/0 accept\n}"),
        ("destination_port", "80; flush ruleset"),
        ("source_port", "0"),
        ("icmp_type", "8"),
        ("state", "maybe"),
    ] {
        let mut rule = json!({ "action": "drop", "protocol": "tcp", "description": "x" });
        rule[key] = value.into();
        invalid(rig.post(&path, rule).await, &format!("/{key}"));
    }
    for port in 1..=100 {
        let rule = json!({ "action": "drop", "protocol": "udp", "description": "x", "destination_port": port.to_string() });
        rig.post(&path, rule).await.expect(200);
    }
    let more = json!({ "action": "drop", "protocol": "tcp", "description": "x" });
    refused(rig.post(&path, more).await, 409, "LIMIT_REACHED");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_needs_the_permission_for_networks_and_for_firewalls() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let token = json!({
        "alias": "some", "permissions": { "containers": { "read": true, "update": true } },
    });
    let token = rig.post("/api/v1/auth/tokens", token).await.data();
    let secret = token["token"]
        .as_str()
        .expect("it is shown once")
        .to_owned();
    let base = format!("/api/v1/containers/{}", web.id);
    for (method, path, body) in [
        (Method::PUT, "network", json!({ "type": "block" })),
        (Method::DELETE, "network", json!({})),
        (Method::POST, "network/start", json!({})),
        (Method::POST, "network/stop", json!({})),
        (Method::GET, "firewall/rules", json!({})),
        (Method::POST, "firewall/reset", json!({})),
        (
            Method::POST,
            "firewall/egress",
            json!({ "action": "drop", "protocol": "tcp", "description": "x" }),
        ),
        (
            Method::PATCH,
            "firewall/ingress",
            json!({ "state": "enabled" }),
        ),
        (Method::DELETE, "firewall/ingress", json!({ "all": true })),
    ] {
        let request = rig
            .open_api(method, &format!("{base}/{path}"))
            .bearer_auth(&secret)
            .json(&body);
        refused(rig.send("api", request).await, 403, "PERMISSION_DENIED");
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_reaches_what_its_source_does() {
    let rig = Rig::start().await;
    let web = rig.create("web").await;
    let base = format!("/api/v1/containers/{}", web.id);
    let proxy = json!({ "type": "http", "proxy": "http://me:hush@proxy.test:3128" });
    rig.put(&format!("{base}/network"), proxy).await.expect(200);
    let rule = json!({ "action": "drop", "protocol": "udp", "description": "x" });
    rig.post(&format!("{base}/firewall/egress"), rule)
        .await
        .expect(200);
    let project = rig.get(&base).await.data()["project_id"].clone();
    for (comes, name) in [(true, "with"), (false, "without")] {
        let copy = json!({
            "target_project_id": project, "name": name,
            "copy_network_rules": comes, "copy_firewall_rules": comes,
        });
        let copy = rig.post(&format!("{base}/copy"), copy).await.data();
        let id = copy["id"].as_str().unwrap().parse().unwrap();
        let source = told(&rig, web.id).expect("it has one");
        assert_eq!(told(&rig, id), comes.then_some(source), "{name}");
    }
    rig.stop().await;
}
