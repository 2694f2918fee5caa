use super::*;
use crate::runtime::Limits;

fn machine() -> Machine {
    Machine {
        id: Id([7; 12]),
        project: Id([8; 12]),
        hostname: "web".to_owned(),
        image: None,
        environment: vec![
            ("KEY".to_owned(), "a \"b\"".to_owned()),
            ("BAD".to_owned(), "a\nEVIL=1".to_owned()),
        ],
        ssh_public_key: None,
        kit: true,
        autostart: true,
        ramdisk: true,
        kvm: false,
        limits: Limits {
            cpu: Some(2000),
            memory: Some(1 << 30),
            disk: Some(10 << 30),
            processes: None,
        },
    }
}

fn instance(config: Value) -> Instance {
    serde_json::from_value(
        json!({ "name": "c-070707070707070707070707", "status": "Running", "config": config }),
    )
    .unwrap()
}

#[test]
fn addresses_are_in_the_network_and_nobodys() {
    let network = Network::parse("10.213.0.1/29").unwrap();
    let mut taken = HashSet::new();
    for number in 0..5u8 {
        let address = network
            .choose(Id([number; 12]), &taken)
            .expect("one is left");
        assert_ne!(address, network.gateway);
        assert_eq!(u32::from(address) >> 3, u32::from(network.gateway) >> 3);
        assert!(![0, 7].contains(&(address.octets()[3] & 7)), "{address}");
        assert!(taken.insert(address), "{address} twice");
    }
    assert_eq!(network.choose(Id([9; 12]), &taken), None);
}

#[test]
fn networks_that_are_none_are_refused() {
    for text in [
        "",
        "10.0.0.1",
        "10.0.0.1/33",
        "10.0.0.1/0",
        "none",
        "fd00::1/64",
    ] {
        assert_eq!(Network::parse(text), None, "{text}");
    }
}

#[test]
fn a_machine_is_unprivileged_and_apart() {
    let network = Network::parse("10.213.0.1/20").unwrap();
    let config = configuration(&machine(), network, Ipv4Addr::new(10, 213, 0, 9));
    assert_eq!(config["security.privileged"], "false");
    assert_eq!(config["security.idmap.isolated"], "true");
    assert_eq!(config["boot.autostart"], "false");
    assert_eq!(config["environment.HOODY_ADDRESS"], "10.213.0.9/20");
    assert_eq!(config["limits.memory"], "1073741824B");
    let settings = Settings {
        socket: "/s".into(),
        name: "hoody".into(),
        containers: "/c".into(),
        kit: "/k".into(),
        relay: "/state/run/relay.sock".into(),
    };
    let devices = devices(
        &machine(),
        &settings,
        Path::new("/c/1"),
        Ipv4Addr::new(10, 213, 0, 9),
    );
    assert_eq!(devices["eth0"]["security.port_isolation"], "true");
    assert_eq!(devices["eth0"]["hwaddr"], "02:00:0a:d5:00:09");
    assert_eq!(devices["kit"]["readonly"], "true");
    assert!(
        devices["run"].get("shift").is_none(),
        "files there must belong to the machine's ids"
    );
}

#[test]
fn an_environment_cannot_add_lines() {
    let text = environment_file(&machine()).bytes;
    assert_eq!(
        String::from_utf8(text.unwrap()).unwrap(),
        "KEY=\"a \"b\"\"\n"
    );
}

#[test]
fn what_a_session_would_cut_is_put_back() {
    let machine = Machine {
        environment: vec![
            ("PLAIN".to_owned(), "x".to_owned()),
            ("CUT".to_owned(), "it's #1".to_owned()),
            ("not a name".to_owned(), "a#b".to_owned()),
        ],
        ..machine()
    };
    let script = String::from_utf8(environment_script(&machine).bytes.unwrap()).unwrap();
    let said = |before: &str| {
        let shell = format!("{before}\n{script}\nprintf %s \"${{CUT-}}\"");
        let ran = std::process::Command::new("sh")
            .args(["-c", &shell])
            .output();
        String::from_utf8(ran.unwrap().stdout).unwrap()
    };
    assert_eq!(said("CUT=\"it's \""), "it's #1");
    assert_eq!(said("CUT=\"it's\""), "it's #1");
    assert_eq!(said("CUT='\"it'\\''s '"), "it's #1");
    assert_eq!(said("CUT=mine"), "mine", "a session's own stays");
    assert!(
        !script.contains("PLAIN") && !script.contains("not a name"),
        "{script}"
    );
}

#[test]
fn a_machine_without_a_range_owns_nothing() {
    assert_eq!(instance(json!({})).owners().count, 0);
    assert!(!instance(json!({})).owners().contains(0));
    let owners = instance(json!({ "volatile.idmap.base": "1065536" })).owners();
    assert!(owners.contains(1_065_536) && !owners.contains(0) && !owners.contains(1_131_072));
}

#[test]
fn events_name_their_machine() {
    let event =
        |source: &str| json!({ "type": "lifecycle", "metadata": { "source": source } }).to_string();
    let id = Some(Id([7; 12]));
    assert_eq!(
        changed(&event(
            "/1.0/instances/c-070707070707070707070707?project=hoody"
        )),
        id
    );
    assert_eq!(
        changed(&event("/1.0/instances/c-070707070707070707070707/logs/x")),
        id
    );
    assert_eq!(changed(&event("/1.0/instances/other")), None);
    assert_eq!(
        changed(&event("/1.0/images/c-070707070707070707070707")),
        None
    );
    assert_eq!(changed("not JSON"), None);
}
