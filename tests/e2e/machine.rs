//! What a user calls a real machine.

use tests::Node;

#[tokio::test(flavor = "multi_thread")]
async fn systemd_runs_with_no_failed_unit() {
    let node = Node::running();
    let web = node.create("machine").await;
    node.until("the machine has booted", || async {
        let said = node
            .run_as(&web, "root", "systemctl is-system-running")
            .await;
        said.stdout.trim() != "starting" && said.stdout.trim() != "initializing"
    })
    .await;
    let failed = node
        .run_as(&web, "root", "systemctl --failed --no-legend --plain")
        .await;
    assert_eq!(failed.stdout.trim(), "");
    assert_eq!(
        node.root(&web, "systemctl is-system-running").await,
        "running"
    );
    assert_eq!(node.root(&web, "ps -o comm= -p 1").await, "systemd");
    assert_eq!(
        node.root(&web, ". /etc/os-release; echo $ID-$VERSION_ID")
            .await,
        "debian-13"
    );
    assert_eq!(node.root(&web, "hostname").await, "machine");
    for unit in ["systemd-logind", "systemd-journald", "cron"] {
        assert_eq!(
            node.root(&web, &format!("systemctl is-active {unit}"))
                .await,
            "active"
        );
    }
    for tool in [
        "bash", "curl", "git", "python3", "nano", "less", "ps", "ip", "sqlite3", "jq", "rg", "tmux",
    ] {
        node.root(&web, &format!("command -v {tool}")).await;
    }
    let user = node
        .run_as(&web, "user", "id -u; sudo -n id -u; echo $HOME; pwd")
        .await;
    assert_eq!(user.stdout, "1000\n0\n/home/user\n/home/user\n", "{user:?}");
    assert_eq!(
        node.root(&web, "python3 -c 'import http.server; print(1)'")
            .await,
        "1"
    );
    node.remove(&web).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_can_be_installed() {
    let node = Node::running();
    let web = node.create("packages").await;
    node.root(
        &web,
        "apt-get update -qq && apt-get install -y -qq --no-install-recommends hello",
    )
    .await;
    assert_eq!(node.root(&web, "hello").await, "Hello, world!");
    node.remove(&web).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_two_containers_share_an_identity() {
    let node = Node::running();
    let (one, two) = (node.create("one").await, node.create("two").await);
    let identity = [
        "cat /etc/machine-id",
        "cat /sys/class/net/eth0/address",
        "ip -4 -o addr show eth0 | awk '{print $4}'",
        "awk '{print $2}' /proc/self/uid_map",
        "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
    ];
    for question in identity {
        let wait = "systemctl is-system-running --wait >/dev/null; ";
        let first = node.root(&one, &format!("{wait}{question}")).await;
        let second = node.root(&two, &format!("{wait}{question}")).await;
        assert!(!first.is_empty(), "{question}");
        assert_ne!(first, second, "{question}");
    }
    node.remove(&one).await;
    node.remove(&two).await;
}
