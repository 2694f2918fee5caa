//! Hosts that mean more than a service: desktops, and a container's own `localhost`.

use std::net::IpAddr;

use crate::rig::Rig;

#[tokio::test]
async fn a_desktop_is_a_terminal_that_is_told_what_to_start() {
    let mut rig = Rig::start().await;
    let web = rig.running().await;
    for (path, target) in [
        (
            "/",
            "/?desktop=true&redirect=display&terminal_id=1607&display=1607",
        ),
        (
            "/?terminal_id=1&desktop_env=mate&display=2&redirect=no",
            "/?desktop=true&redirect=display&terminal_id=1607&display=1607&desktop_env=mate",
        ),
        (
            "/?desktop_env=rm",
            "/?desktop=true&redirect=display&terminal_id=1607&display=1607",
        ),
    ] {
        let heard = rig.get(&web.host("desktop-7"), path).await;
        assert_eq!(heard.json()["target"], target, "{path}");
        assert_eq!(heard.told("x-hoody-edge-service"), ["terminal"]);
        assert_eq!(heard.told("x-hoody-edge-index"), ["1607"]);
    }
    let beyond = rig.get(&web.host("desktop-65000"), "/").await;
    assert_eq!(beyond.code(), "unknown_service");
}

#[tokio::test]
async fn localhost_is_the_container_that_asks() {
    let mut rig = Rig::start().await;
    let mut web = rig.running().await;
    let host = "localhost.containers.hoody.localhost";
    let nobody = rig.get(host, "/terminal-1/x").await;
    assert_eq!(nobody.code(), "unknown_host", "it comes from no container");

    web.place.address = Some(IpAddr::from([127, 0, 0, 1]));
    rig.upsert(&web.place).await;
    for (path, target, service, instance) in [
        ("/terminal-1", "/", "terminal", "1"),
        ("/terminal-1?a=b", "/?a=b", "terminal", "1"),
        ("/files-2/a%2Fb?c", "/a%2Fb?c", "files", "2"),
        ("/notifications-1/", "/", "n", "1"),
    ] {
        let heard = rig.get(host, path).await;
        assert_eq!(heard.json()["target"], target, "{path}");
        assert_eq!(heard.told("x-hoody-edge-service"), [service], "{path}");
        assert_eq!(heard.told("x-hoody-edge-index"), [instance], "{path}");
    }
    let port = rig.get(host, "/http-3000/").await;
    assert_eq!(port.told("x-hoody-edge-port"), ["3000"]);
    for path in [
        "/",
        "/terminal",
        "/nothing-1/",
        "//terminal-1",
        "/ssh/",
        "/terminal-1%2Fx",
    ] {
        let heard = rig.get(host, path).await;
        assert_eq!(heard.status, 404, "{path}");
    }
}
