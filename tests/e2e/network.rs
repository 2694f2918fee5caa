//! Who reaches whom.

use reqwest::Method;
use tests::Node;

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_reach_each_other_through_their_urls_alone() {
    let node = Node::running();
    let (one, two) = (node.create("near").await, node.create("far").await);
    let address = node
        .root(
            &two,
            // The kit may answer before the network is up.
            "timeout 10 sh -c 'until ip -4 -o addr show eth0 | grep inet; do sleep 0.1; done' \
             | awk '{print $4}' | cut -d/ -f1",
        )
        .await;
    assert!(!address.is_empty(), "it has no address");
    node.root(
        &two,
        "systemd-run -q --unit=web python3 -m http.server 8000 --bind 0.0.0.0",
    )
    .await;
    let inside = "curl -s -o /dev/null -w %{http_code} --retry 20 --retry-connrefused --retry-delay 1 http://127.0.0.1:8000/";
    assert_eq!(node.root(&two, inside).await, "200");

    let direct = node
        .run_as(
            &one,
            "root",
            &format!("curl -s --max-time 3 http://{address}:8000/"),
        )
        .await;
    assert_ne!(direct.code, 0, "a neighbour's port answered: {direct:?}");
    let ping = node.run_as(&one, "root", &format!("ping -c 1 -W 2 {address} || python3 -c 'import socket; s=socket.socket(); s.settimeout(2); s.connect((\"{address}\", 22))'")).await;
    assert_ne!(ping.code, 0, "a neighbour answered: {ping:?}");

    let by_port = node
        .client
        .request(Method::GET, &two.port("http", 8000), "/");
    let answer = node.client.execute(by_port.build().unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    node.remove(&one).await;
    node.remove(&two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn urls_work_from_inside_and_leave_ports_80_and_443_alone() {
    let node = Node::running();
    let (one, two) = (node.create("self").await, node.create("other").await);
    for computer in [&one, &two] {
        let url = node.url(&computer.host("terminal"), "/api/v1/terminal/health");
        let command = format!("curl -sS --retry 10 --retry-all-errors --retry-delay 1 {url}");
        let said = node.run_as(&one, "user", &command).await;
        assert!(said.stdout.contains("\"ok\""), "{url}: {said:?}");
    }
    node.root(
        &one,
        "systemd-run -q --unit=own python3 -m http.server 80 --bind 127.0.0.1",
    )
    .await;
    let own = "curl -s -o /dev/null -w %{http_code} --retry 20 --retry-all-errors --retry-delay 1 http://localhost/";
    assert_eq!(node.root(&one, own).await, "200");
    node.remove(&one).await;
    node.remove(&two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_own_services_are_out_of_reach() {
    let node = Node::running();
    let web = node.create("guarded").await;
    let gateway = node
        .root(&web, "ip route show default | awk '{print $3}'")
        .await;
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let said = node
        .run_as(
            &web,
            "root",
            &format!("timeout 3 bash -c 'exec 3<>/dev/tcp/{gateway}/{port}'"),
        )
        .await;
    assert_ne!(said.code, 0, "a server of the host answered");
    node.remove(&web).await;
}
