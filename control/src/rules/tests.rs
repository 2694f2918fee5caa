use serde_json::json;

use super::*;

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => panic!("no object: {other}"),
    }
}

fn read(groups: Value, permissions: Value) -> Result<Rules, Wrong> {
    Rules::default().replaced(&object(groups), &object(permissions), None, None)
}

fn password() -> Value {
    json!({ "type": "password", "username": "ann", "password": "hunter2", "salt": "pepper" })
}

const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEVs/o5+uQbTjL3chynL4wXgUg2R9
q9UU8I5mEovUf86QZ7kOBIjJwqnzD1omageEHWwHdBO6B+dFabmdT9POxg==
-----END PUBLIC KEY-----
";

#[test]
fn a_document_is_read_kept_and_shown_without_its_secrets() {
    let groups = json!({
        "staff": [
            password(),
            { "all": [
                { "type": "ip", "range": "192.0.2.0/24, 2001:db8::/32" },
                { "type": "token", "header": "X-Api-Key", "value": "xyzzy" },
            ] },
        ],
        "guests": { "type": "jwt", "secret": "shared", "algorithm": "HS256",
            "sources": ["header:Authorization"], "claims": { "iss": "us" } },
        "apps": { "type": "jwt", "secret": PUBLIC, "algorithm": "ES256",
            "sources": ["cookie:session"] },
    });
    let permissions = json!({
        "staff": { "terminal": true, "http": [3000, 8080], "display": "1-4,8" },
        "guests": { "*": "*", "notifications": false },
    });
    let rules = read(groups, permissions.clone()).unwrap();
    assert_eq!((rules.default, rules.enabled), (Rule::Deny, true));

    let shown = Value::from(rules.shown_groups());
    let text = shown.to_string();
    for secret in ["hunter2", "xyzzy", "shared"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert_eq!(shown["staff"][0]["password"], REDACTED);
    assert_eq!(
        shown["staff"][1]["all"][0]["range"],
        "192.0.2.0/24, 2001:db8::/32"
    );
    assert_eq!(shown["staff"][1]["all"][1]["header"], "x-api-key");
    assert_eq!(shown["guests"]["secret"], REDACTED);
    assert_eq!(shown["apps"]["secret"], PUBLIC, "a public key is no secret");
    assert_eq!(Value::from(rules.shown_permissions()), permissions);

    let kept = serde_json::to_string(&rules).unwrap();
    assert!(
        !kept.contains("hunter2") && !kept.contains("xyzzy"),
        "{kept}"
    );
    assert_eq!(serde_json::from_str::<Rules>(&kept).unwrap(), rules);

    // What is shown may be sent back, and nothing is lost.
    let again = rules
        .replaced(
            &rules.shown_groups(),
            &rules.shown_permissions(),
            Some(rules.default),
            None,
        )
        .unwrap();
    assert_eq!(again, rules);
    // But not into another document.
    let lost = read(Value::from(rules.shown_groups()), json!({})).unwrap_err();
    assert!(lost.message.contains(REDACTED), "{lost:?}");
}

#[test]
fn the_policy_says_what_the_document_says() {
    let rules = read(
        json!({ "staff": [password(), { "type": "ip", "range": "10.1.2.3" }], "none": password() }),
        json!({ "staff": { "terminal": true, "n": 2, "http": "80,8000-8100", "exec": false } }),
    )
    .unwrap();
    let policy = rules.policy();
    let names: Vec<&str> = policy.groups.iter().map(|group| &*group.name).collect();
    assert_eq!(names, ["none", "staff"]);
    assert!(policy.groups[0].grants.is_empty());
    let staff = &policy.groups[1];
    assert_eq!(staff.ways.len(), 2);
    let reach = |name: &str| staff.grants[&Program::parse(name).unwrap()].clone();
    assert_eq!(reach("terminal"), Reach::All);
    assert_eq!(reach("notifications"), Reach::Only(vec![(2, 2)]));
    assert_eq!(reach("http"), Reach::Only(vec![(80, 80), (8000, 8100)]));
    assert_eq!(reach("exec"), Reach::None);
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let gate = |gate: Value| read(json!({ "g": gate }), json!({}));
    let cases = [
        (gate(json!({})), "/groups/g", "type"),
        (gate(json!("password")), "/groups/g", "type"),
        (gate(json!([])), "/groups/g", "1 to 16"),
        (gate(json!({ "all": [] })), "/groups/g", "1 to 16"),
        (
            gate(json!({ "type": "hoody-identity" })),
            "/groups/g",
            "hoody-identity",
        ),
        (gate(json!({ "type": "password" })), "/groups/g", "username"),
        (
            gate(json!({ "type": "password", "username": "a:b", "password": "c", "salt": "d" })),
            "/groups/g/username",
            "colon",
        ),
        (
            gate(json!({ "type": "password", "username": "a", "password": "", "salt": "d" })),
            "/groups/g/password",
            "1 to",
        ),
        (
            gate(
                json!({ "type": "password", "username": "a", "password": "b", "salt": "d", "algorithm": "md5" }),
            ),
            "/groups/g/algorithm",
            "sha256",
        ),
        (
            gate(
                json!({ "type": "password", "username": "a", "password": "b", "salt": "d", "more": 1 }),
            ),
            "/groups/g",
            "more",
        ),
        (
            gate(json!({ "type": "token", "header": "a", "cookie": "b", "value": "c" })),
            "/groups/g",
            "exactly one",
        ),
        (
            gate(json!({ "type": "token", "header": "Host", "value": "c" })),
            "/groups/g",
            "cannot carry",
        ),
        (
            gate(json!({ "type": "token", "header": "a b", "value": "c" })),
            "/groups/g",
            "cannot carry",
        ),
        (
            gate(json!({ "type": "ip", "range": "10.0.0.0/33" })),
            "/groups/g/range",
            "10.0.0.0/33",
        ),
        (
            gate(json!({ "type": "ip", "range": "" })),
            "/groups/g/range",
            "network",
        ),
        (
            gate(
                json!({ "type": "jwt", "secret": "s", "algorithm": "none", "sources": ["header:A"] }),
            ),
            "/groups/g/algorithm",
            "HS256",
        ),
        (
            gate(
                json!({ "type": "jwt", "secret": "s", "algorithm": "RS256", "sources": ["header:A"] }),
            ),
            "/groups/g/secret",
            "PEM",
        ),
        (
            gate(
                json!({ "type": "jwt", "secret": PUBLIC, "algorithm": "HS256", "sources": ["header:A"] }),
            ),
            "/groups/g/secret",
            "public key",
        ),
        (
            gate(json!({ "type": "jwt", "secret": "s", "algorithm": "HS256", "sources": [] })),
            "/groups/g/sources",
            "1 to",
        ),
        (
            gate(
                json!({ "type": "jwt", "secret": "s", "algorithm": "HS256", "sources": ["body:x"] }),
            ),
            "/groups/g/sources",
            "header:NAME",
        ),
        (
            gate(
                json!({ "type": "jwt", "secret": "s", "algorithm": "HS256", "sources": ["header:A"], "claims": { "a": [] } }),
            ),
            "/groups/g/claims",
            "texts",
        ),
        (
            gate(json!([password(), { "type": "what" }])),
            "/groups/g/1",
            "what",
        ),
        (
            read(json!({ "a b": password() }), json!({})),
            "/groups/a b",
            "letters",
        ),
        (
            read(json!({}), json!({ "g": { "files": true } })),
            "/permissions/g/files",
            "no group",
        ),
        (
            read(json!({ "g": password() }), json!({ "g": { "web": true } })),
            "/permissions/g/web",
            "no program `web`",
        ),
        (
            read(
                json!({ "g": password() }),
                json!({ "g": { "http": 70_000 } }),
            ),
            "/permissions/g/http",
            "ranges",
        ),
        (
            read(
                json!({ "g": password() }),
                json!({ "g": { "http": "9-1" } }),
            ),
            "/permissions/g/http",
            "ranges",
        ),
        (
            read(json!({ "g": password() }), json!({ "g": true })),
            "/permissions/g",
            "object",
        ),
    ];
    for (at, (found, place, word)) in cases.into_iter().enumerate() {
        let wrong = found.expect_err(&format!("case {at}"));
        assert_eq!(wrong.place, place, "case {at}: {wrong:?}");
        assert!(wrong.message.contains(word), "case {at}: {wrong:?}");
    }
}

#[test]
fn a_document_has_bounds() {
    let many = |count: usize| {
        let groups = (0..count).map(|n| (format!("g{n}"), password()));
        read(Value::Object(groups.collect()), json!({}))
    };
    assert!(many(access::GROUPS).is_ok());
    assert_eq!(many(access::GROUPS + 1).unwrap_err().place, "/groups");
    let large = json!({ "type": "jwt", "secret": "x".repeat(30 << 10), "algorithm": "HS256", "sources": ["header:A"] });
    let groups = (0..20).map(|n| (format!("g{n}"), large.clone()));
    let wrong = read(Value::Object(groups.collect()), json!({})).unwrap_err();
    assert!(wrong.message.contains("bytes"), "{wrong:?}");
    let ports: Vec<u32> = (1..=access::RANGES as u32 + 1).collect();
    assert!(reach(&json!(ports)).is_err() && reach(&json!(ports[1..])).is_ok());
}

#[test]
fn changes_are_of_one_thing() {
    let mut rules = Rules::default();
    assert_eq!(rules.remove_group("g"), Err(Missing::Group("g".into())));
    assert!(rules.set_permission("g", "files", &json!(true)).is_err());
    rules.set_group("g", &password()).unwrap();
    let wrong = rules
        .set_group("g", &json!({ "type": "ip", "range": "x" }))
        .unwrap_err();
    assert_eq!(wrong.place, "/range", "as the request names it");
    rules
        .set_permission("g", "notifications", &json!(1))
        .unwrap();
    rules.set_permission("g", "n", &json!(2)).unwrap();
    rules.set_permission("g", "*", &json!(false)).unwrap();
    assert_eq!(
        Value::from(rules.shown_permissions()),
        json!({ "g": { "n": 2, "*": false } }),
        "a program has one rule, however it is called"
    );
    let n = Program::parse("notification").unwrap();
    assert_eq!(Value::from(rules.permissions_of(&n)), json!({ "g": 2 }));
    let files = Program::parse("files").unwrap();
    assert_eq!(
        Value::from(rules.permissions_of(&files)),
        json!({ "g": false })
    );
    assert_eq!(rules.services(), ["*", "n"]);
    assert!(matches!(
        rules.remove_permission("g", "files"),
        Err(Missing::Program { .. })
    ));
    rules.remove_permission("g", "notifications").unwrap();
    rules.remove_permission("g", "*").unwrap();
    assert_eq!(
        rules.remove_permission("g", "*"),
        Err(Missing::Permissions("g".into()))
    );
    rules.remove_group("g").unwrap();
    assert_eq!(rules, Rules::default());
}

#[test]
fn hooks_keep_their_order_and_their_groups() {
    let hook = |id: &str, groups: &[&str]| Hook {
        id: id.into(),
        matches: hook::Match::default(),
        script: hook::Script {
            subdomain: None,
            index: 1,
            path: "/hook".into(),
        },
        timeout: 1,
        groups: groups.iter().map(|&name| name.into()).collect(),
        on_error: hook::OnError::Closed,
    };
    let mut rules = Rules::default();
    let order = |rules: &Rules| -> Vec<String> {
        let hooks = rules.hooks.get("files").into_iter().flatten();
        hooks.map(|hook| hook.id.clone()).collect()
    };
    for (id, at) in [("a", None), ("b", Some(0)), ("c", Some(1)), ("d", Some(99))] {
        rules.add_hook("files", hook(id, &[]), at).unwrap();
    }
    assert_eq!(order(&rules), ["b", "c", "a", "d"]);
    assert_eq!(rules.move_hook("files", "b", 2), Ok(2));
    assert_eq!(rules.move_hook("files", "d", 0), Ok(0));
    assert_eq!(order(&rules), ["d", "c", "a", "b"]);
    assert_eq!(rules.put_hook("files", hook("x", &[]), "c"), Ok(1));
    assert_eq!(order(&rules), ["d", "c", "a", "b"], "an id stays");
    rules.remove_hook("files", "a").unwrap();
    assert!(rules.remove_hook("files", "a").is_err() && rules.move_hook("exec", "d", 0).is_err());
    assert_eq!(order(&rules), ["d", "c", "b"]);

    assert!(rules.add_hook("files", hook("e", &["g"]), None).is_err());
    rules.set_group("g", &password()).unwrap();
    rules.add_hook("files", hook("e", &["g"]), None).unwrap();
    rules.remove_group("g").unwrap();
    assert!(rules.check().is_err(), "a hook that sees nobody is no hook");
    assert_eq!(rules.clear_hooks("files"), 4);
    assert!(rules.check().is_ok() && rules.hooks.is_empty());

    for n in 0..hook::PER_SERVICE {
        rules
            .add_hook("files", hook(&n.to_string(), &[]), None)
            .unwrap();
    }
    assert!(rules.add_hook("files", hook("more", &[]), None).is_err());
    for service in ["exec", "http", "terminal"] {
        for n in 0..hook::PER_SERVICE {
            rules
                .add_hook(service, hook(&n.to_string(), &[]), None)
                .unwrap();
        }
    }
    assert!(rules.add_hook("run", hook("more", &[]), None).is_err());
}
