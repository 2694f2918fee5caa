//! Control is killed at random moments, and everything converges.

use std::time::Duration;

use tests::Node;

/// Kills of control during creations and deletions.
const KILLS: u32 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn random_kills_of_control_leave_nothing_behind() {
    let node = Node::running();
    let mut made = Vec::new();
    let mut rng = 0x9e37_79b9_u32 ^ std::process::id();
    for turn in 0..KILLS {
        let web = node.ask(&format!("crash-{turn}")).await;
        rng = rng.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        tokio::time::sleep(Duration::from_millis(u64::from(rng >> 22))).await;
        made.push(web.id.clone());
        node.kill("control").await;
        node.answers(&web).await;
        node.delete(&format!("/api/v1/containers/{}", web.id))
            .await
            .expect(200);
        rng = rng.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        tokio::time::sleep(Duration::from_millis(u64::from(rng >> 22))).await;
        node.kill("control").await;
        node.gone(&web).await;
    }
    node.until("nothing is left of them", || async {
        let remains = node.remains();
        made.iter().all(|id| !remains.tell_of(id))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_goes_on_without_control_and_starts_without_it() {
    let node = Node::running();
    let web = node.create("steady").await;
    node.kill("proxy").await;
    node.answers(&web).await;
    node.kill("control").await;
    node.answers(&web).await;
    assert_eq!(node.root(&web, "echo fine").await, "fine");
    node.remove(&web).await;
}
