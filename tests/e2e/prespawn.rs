//! Machines that are kept ready, on the engine and with the kit that there is.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tests::Node;
use tests::node::Computer;

/// What tells a machine from others, a line each.
const WHO: &str =
    "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub /sys/class/net/eth0/address
    sha256sum /etc/ssh/ssh_host_ed25519_key | cut -c-64
    hostname; hostname -I
    head -1 /proc/self/uid_map | tr -s ' '
    su - user -c 'echo $WHOSE'
    cat /home/user/.ssh/authorized_keys";
const KILLS: u32 = 4;

async fn pools(node: &Node) -> Value {
    let tasks = node.get("/api/v1/tasks").await.expect(200).data();
    tasks["prespawn"].clone()
}

/// Wait until the pools are full.
async fn full(node: &Node) {
    node.until("machines are ready", || async {
        let pools = pools(node).await;
        let pool = &pools["pools"][0];
        if pool.is_null() {
            return false; // control has just begun, and not looked yet
        }
        assert!(
            pool["size"].as_u64() > Some(1),
            "this node keeps too few ready: {pools}"
        );
        pool["ready"] == pool["size"] && pools["step"].is_null()
    })
    .await;
}

/// A container on a machine that was kept ready; others may be faster, and then it is tried again.
async fn claim(node: &Node, name: &str, number: u32) -> Computer {
    let path = format!("/api/v1/projects/{}/containers", node.project().await);
    loop {
        full(node).await;
        let key = format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{number} {name}@here");
        let body = json!({
            "server_id": node.server().await, "name": name, "prespawn": true,
            "environment_vars": { "WHOSE": name }, "ssh_public_key": key,
        });
        let made = node.post(&path, body).await.expect(200).data();
        let computer = node.computer(&made);
        if made["prespawn"] == true {
            assert_eq!(made["status"], "claiming");
            return computer;
        }
        node.answers(&computer).await;
        node.remove(&computer).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_are_given_machines_share_nothing() {
    let node = Node::running();
    let mut seen = Vec::new();
    for (number, name) in ["given-one", "given-two"].into_iter().enumerate() {
        let number = u32::try_from(number).unwrap();
        let web = claim(&node, name, number).await;
        node.answers(&web).await;
        let who = node.root(&web, WHO).await;
        let lines: Vec<String> = who.lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 9, "{who}");
        assert_eq!(lines[4], name);
        assert_eq!(lines[7], name);
        assert!(lines[8].contains(&format!("{name}@here")), "{who}");
        // Its own URLs lead to it from inside, and it reaches the world as any other.
        assert_eq!(
            node.root(&web, "getent hosts $(hostname) | wc -l").await,
            "1"
        );
        let failed = node.root(&web, "systemctl --failed --no-legend").await;
        assert_eq!(failed, "");
        let logs = format!("/api/v1/containers/{}/status-logs?sort_order=asc", web.id);
        let logs = node.get(&logs).await.expect(200).data();
        assert_eq!(logs["logs"][0]["to_status"], "claiming", "{logs}");
        assert_eq!(logs["logs"][0]["metadata"]["prespawn"], "claimed");
        // It lives on as any other.
        node.reached(&web, "running").await;
        node.operate(&web, "restart").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        node.answers(&web).await;
        assert_eq!(node.root(&web, WHO).await, who);
        seen.push((web, lines));
    }
    for (one, other) in seen[0].1.iter().zip(&seen[1].1) {
        assert_ne!(one, other);
    }
    for (web, _) in &seen {
        node.remove(web).await;
        assert!(!node.remains().tell_of(&web.id));
    }
}

/// Control is killed at random moments of claims, and of filling the pools again.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_it_loses_none_and_keeps_none() {
    let node = Node::running();
    let mut rng = 0x85eb_ca6b_u32 ^ std::process::id();
    let mut random = |most: u64| {
        rng = rng.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Duration::from_millis(u64::from(rng >> 8) % most)
    };
    let mut ids = BTreeSet::new();
    for turn in 0..KILLS {
        let web = claim(&node, &format!("killed-{turn}"), 10 + turn).await;
        assert!(ids.insert(web.id.clone()), "{} was given twice", web.id);
        tokio::time::sleep(random(60)).await;
        node.kill("control").await;
        node.answers(&web).await;
        let name = node
            .root(&web, "hostname; su - user -c 'echo $WHOSE'")
            .await;
        assert_eq!(name, format!("killed-{turn}\nkilled-{turn}"));
        // By now the next is being made.
        tokio::time::sleep(random(3000)).await;
        node.kill("control").await;
        node.answers(&web).await;
        node.remove(&web).await;
    }
    full(&node).await;
    node.until("nothing is left of them", || async {
        let remains = node.remains();
        ids.iter().all(|id| !remains.tell_of(id))
    })
    .await;
}
