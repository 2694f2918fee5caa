//! Making, copying, moving, removing; owners and permissions.

use super::*;

#[tokio::test]
async fn a_file_and_a_directory_do_not_take_each_others_place() {
    let rig = Rig::new();
    rig.write("/dir/in", "in");
    rig.write("/file", "file");
    rig.put("/dir", "x").await.is(409);
    rig.put("/dir/", "x").await.is(409);
    rig.put("/new/", "x").await.is(409);
    rig.put("/", "x").await.is(409);
    rig.put("/api/v1/files/", "x").await.is(409);
    rig.put("/file/below", "x").await.is(409);
    rig.put("/api/v1/files/append/dir", "x").await.is(409);
    rig.get("/file/below").await.is(404);
    rig.get("/missing").await.is(404);
    rig.call("DELETE", "/missing").await.is(404);
    rig.call("DELETE", "/file/below").await.is(404);
    rig.call("DELETE", "/").await.is(403);
    rig.call("DELETE", "/api/v1/files/%2F").await.is(403);
    rig.call("POST", "/api/v1/files/file?mkdir").await.is(409);
    rig.call("POST", "/api/v1/files/file/below?mkdir")
        .await
        .is(409);
    rig.call("MKCOL", "/dir").await.is(405);
    rig.call("MKCOL", "/no/parent").await.is(409);
    for (from, to) in [
        ("file", "/dir"),
        ("dir", "/file"),
        ("dir", "/dir/inside"),
        ("dir/in", "/dir"),
        ("file", "/file"),
    ] {
        rig.call(
            "POST",
            &format!("/api/v1/files/copy/{from}?copy_to={to}&overwrite=true"),
        )
        .await
        .is(409);
        rig.call(
            "POST",
            &format!("/api/v1/files/move/{from}?move_to={to}&overwrite=true"),
        )
        .await
        .is(409);
    }
    assert_eq!(
        (rig.read("/dir/in").as_str(), rig.read("/file").as_str()),
        ("in", "file")
    );
    rig.clean();
}

#[tokio::test]
async fn what_is_new_belongs_to_whom_its_directory_belongs_or_to_the_owner_named() {
    if !is_root() {
        return;
    }
    let rig = Rig::new();
    rig.write(
        "/etc/passwd",
        "root:x:0:0::/root:/bin/sh\nuser:x:1000:1001::/home/user:/bin/sh\nwww:x:33:33:::\n",
    );
    rig.write(
        "/etc/group",
        "root:x:0:\nusers:x:1001:\nwww:x:33:\nstaff:x:50:\n",
    );
    fs::create_dir_all(rig.at("/home/user")).unwrap();
    std::os::unix::fs::chown(rig.at("/home/user"), Some(1000), Some(1001)).unwrap();
    let owner = |path: &str| {
        let stat = fs::metadata(rig.at(path)).unwrap();
        (stat.uid(), stat.gid())
    };
    rig.put("/home/user/deep/er/f", "x").await.is(201);
    assert_eq!(
        [
            owner("/home/user/deep"),
            owner("/home/user/deep/er"),
            owner("/home/user/deep/er/f")
        ],
        [(1000, 1001); 3]
    );
    rig.put("/srv/f", "x").await.is(201);
    assert_eq!(owner("/srv/f"), (0, 0));
    rig.call("MKCOL", "/home/user/col").await.is(201);
    rig.put("/api/v1/files/append/home/user/log", "x")
        .await
        .is(200);
    rig.call("POST", "/api/v1/files/home/user/made?mkdir")
        .await
        .is(200);
    rig.put("/home/user/touched?touch", "").await.is(201);
    rig.call("POST", "/api/v1/files/copy/srv?copy_to=/home/user/srv")
        .await
        .is(200);
    for path in [
        "/home/user/col",
        "/home/user/log",
        "/home/user/made",
        "/home/user/touched",
        "/home/user/srv/f",
    ] {
        assert_eq!(owner(path), (1000, 1001), "{path}");
    }
    rig.put("/api/v1/files/srv/site/index.html?owner=www", "x")
        .await
        .is(200);
    assert_eq!(
        [owner("/srv/site"), owner("/srv/site/index.html")],
        [(33, 33); 2]
    );
    rig.put("/api/v1/files/srv/g?owner=user:staff", "x")
        .await
        .is(200);
    assert_eq!(owner("/srv/g"), (1000, 50));
    rig.put("/api/v1/files/srv/n?owner=4000:4001", "x")
        .await
        .is(200);
    assert_eq!(owner("/srv/n"), (4000, 4001));
    for wrong in [
        "root",
        "0",
        "user:root",
        "nobody-knows",
        "user:nobody-knows",
        ":staff",
        ":",
        "4294967295",
    ] {
        rig.put(&format!("/api/v1/files/srv/w?owner={wrong}"), "x")
            .await
            .is(400);
    }
    assert!(!rig.at("/srv/w").exists());

    for (wish, want) in [
        ("www", (33, 50)),
        ("user:", (1000, 1001)),
        (":www", (1000, 33)),
        ("7:8", (7, 8)),
    ] {
        let done = rig
            .call("PATCH", &format!("/api/v1/files/chown/srv/g?chown={wish}"))
            .await
            .is(200)
            .json();
        assert_eq!(
            (done["success"].as_bool(), owner("/srv/g")),
            (Some(true), want),
            "{wish}"
        );
    }
    for wrong in [
        "root",
        "0:0",
        ":0",
        "",
        ":",
        "nobody-knows",
        "7:",
        "-1",
        "user:group:more",
    ] {
        rig.call("PATCH", &format!("/api/v1/files/chown/srv/g?chown={wrong}"))
            .await
            .is(400);
    }
    assert_eq!(owner("/srv/g"), (7, 8));
    let stat = rig
        .get("/api/v1/files/stat/home/user/log")
        .await
        .is(200)
        .json();
    assert_eq!(
        (stat["owner"].as_str(), stat["group"].as_str()),
        (Some("user"), Some("users"))
    );
}

#[tokio::test]
async fn permissions_are_octal_and_nothing_else() {
    let rig = Rig::new();
    rig.write("/f", "x");
    for (text, want) in [
        ("755", 0o755),
        ("0644", 0o644),
        ("000", 0),
        ("1777", 0o1777),
    ] {
        let done = rig
            .call("PATCH", &format!("/api/v1/files/chmod/f?chmod={text}"))
            .await
            .is(200)
            .json();
        assert_eq!(done["mode"], format!("{want:03o}"));
        assert_eq!(fs::metadata(rig.at("/f")).unwrap().mode() & 0o7777, want);
    }
    for wrong in [
        "",
        "7",
        "75",
        "888",
        "u%2Bx",
        "-755",
        "00755",
        "0o755",
        "%2B644",
        "07777777777",
    ] {
        rig.call("PATCH", &format!("/api/v1/files/chmod/f?chmod={wrong}"))
            .await
            .is(400);
    }
    rig.call("PATCH", "/api/v1/files/chmod/f").await.is(400);
    let done = rig
        .call("PATCH", "/api/v1/files/f?chmod=600")
        .await
        .is(200)
        .json();
    assert_eq!(
        (done["statusCode"].as_u64(), done["data"]["mode"].as_str()),
        (Some(200), Some("600"))
    );
    rig.send("PATCH", "/f", &[], r#"{"mode":"640"}"#)
        .await
        .is(204);
    assert_eq!(fs::metadata(rig.at("/f")).unwrap().mode() & 0o7777, 0o640);
    rig.send("PATCH", "/f", &[], r#"{"mode":"640","name":"g"}"#)
        .await
        .is(400);
    rig.send("PATCH", "/f", &[], "not json").await.is(400);
    rig.send("PATCH", "/f", &[], "").await.is(400);
}

#[tokio::test]
async fn copies_and_moves_replace_only_when_told() {
    let rig = Rig::new();
    rig.write("/a", "a");
    rig.write("/b", "b");
    rig.write("/tree/one", "1");
    rig.write("/tree/sub/two", "2");
    symlink("one", rig.at("/tree/link")).unwrap();
    fs::set_permissions(rig.at("/tree/one"), fs::Permissions::from_mode(0o4741)).unwrap();

    assert!(
        rig.call("POST", "/api/v1/files/copy/a?copy_to=/b")
            .await
            .refused(409)
            .contains("/b")
    );
    rig.call("POST", "/api/v1/files/copy/a?copy_to=/b&overwrite=false")
        .await
        .is(409);
    rig.call("POST", "/api/v1/files/move/a?move_to=/b")
        .await
        .is(409);
    assert_eq!(
        (rig.read("/a").as_str(), rig.read("/b").as_str()),
        ("a", "b")
    );
    let done = rig
        .call("POST", "/api/v1/files/copy/a?copy_to=%2Fb&overwrite=true")
        .await
        .is(200)
        .json();
    assert_eq!(
        done,
        json!({ "success": true, "source": "/a", "destination": "/b" })
    );
    assert_eq!(rig.read("/b"), "a");

    rig.call("POST", "/api/v1/files/copy/tree?copy_to=/deep/er/tree")
        .await
        .is(200);
    assert_eq!(
        (
            rig.read("/deep/er/tree/sub/two").as_str(),
            rig.read("/deep/er/tree/link").as_str()
        ),
        ("2", "1")
    );
    assert!(
        fs::symlink_metadata(rig.at("/deep/er/tree/link"))
            .unwrap()
            .is_symlink()
    );
    let (from, to) = (
        fs::metadata(rig.at("/tree/one")).unwrap(),
        fs::metadata(rig.at("/deep/er/tree/one")).unwrap(),
    );
    assert_eq!((to.mode() & 0o7777, to.mtime()), (0o741, from.mtime()));
    rig.write("/deep/er/tree/extra", "x");
    rig.call("POST", "/api/v1/files/copy/tree?copy_to=/deep/er/tree")
        .await
        .is(409);
    rig.call(
        "POST",
        "/api/v1/files/copy/tree?copy_to=/deep/er/tree&overwrite=true",
    )
    .await
    .is(200);
    assert!(!rig.at("/deep/er/tree/extra").exists() && rig.at("/deep/er/tree/one").exists());

    let done = rig
        .call("POST", "/api/v1/files/tree?move_to=/moved/tree")
        .await
        .is(200)
        .json();
    assert_eq!(done["data"]["destination"], "/moved/tree");
    assert!(!rig.at("/tree").exists() && rig.at("/moved/tree/sub/two").exists());
    rig.call(
        "POST",
        "/api/v1/files/move/deep/er/tree?move_to=/moved/tree&overwrite=true",
    )
    .await
    .is(200);
    let done = rig
        .send(
            "PATCH",
            "/api/v1/files/moved/tree",
            &[],
            r#"{"name":"forest"}"#,
        )
        .await
        .is(200)
        .json();
    assert_eq!(done["data"]["destination"], "/moved/forest");
    rig.send("PATCH", "/api/v1/files/b", &[], r#"{"move_to":"/c/d"}"#)
        .await
        .is(200);
    assert_eq!(rig.read("/c/d"), "a");
    rig.send("PATCH", "/c/d", &[], r#"{"name":"e"}"#)
        .await
        .is(204);
    for name in ["", ".", "..", "a/b", "../x"] {
        let body = json!({ "name": name }).to_string();
        rig.send("PATCH", "/api/v1/files/a", &[], body.clone())
            .await
            .is(400);
        rig.send("PATCH", "/a", &[], body).await.is(400);
    }
    rig.call("POST", "/api/v1/files/copy/missing?copy_to=/x")
        .await
        .is(404);
    rig.call("POST", "/api/v1/files/move/missing?move_to=/x")
        .await
        .is(404);
    rig.call("POST", "/api/v1/files/copy/a").await.is(400);
    rig.call("POST", "/api/v1/files/copy/a?copy_to=")
        .await
        .is(400);
    rig.call("POST", "/api/v1/files/copy/a?copy_to=/")
        .await
        .is(409);
    rig.call("POST", "/api/v1/files/a").await.is(400);
    rig.call("POST", "/api/v1/files/a?mkdir&copy_to=/x")
        .await
        .is(400);

    let to = |to: &'static str| [("destination", to)];
    rig.send("COPY", "/a", &to("/w/x"), "").await.is(409);
    rig.send("COPY", "/a", &to("/copied"), "").await.is(204);
    rig.send(
        "COPY",
        "/a",
        &[("destination", "/copied"), ("overwrite", "F")],
        "",
    )
    .await
    .is(412);
    rig.send(
        "MOVE",
        "/copied",
        &[
            ("destination", "http://h.test/mo%20ved%2ff"),
            ("host", "h.test:80"),
        ],
        "",
    )
    .await
    .is(409);
    rig.send(
        "MOVE",
        "/copied",
        &[
            ("destination", "http://h.test/mo%20ved"),
            ("host", "h.test:80"),
        ],
        "",
    )
    .await
    .is(204);
    rig.send(
        "MOVE",
        "/mo%20ved",
        &[("destination", "http://other/x"), ("host", "h.test")],
        "",
    )
    .await
    .is(502);
    rig.send(
        "COPY",
        "/moved",
        &[("destination", "/flat"), ("depth", "0")],
        "",
    )
    .await
    .is(204);
    assert_eq!(fs::read_dir(rig.at("/flat")).unwrap().count(), 0);
    rig.send("MOVE", "/mo%20ved", &to("/flat"), "")
        .await
        .is(204);
    assert_eq!(rig.read("/flat"), "a");
    rig.send("MOVE", "/flat", &[], "").await.is(400);
    rig.clean();
}

#[tokio::test]
async fn a_tree_is_removed_whole_however_deep_and_links_in_it_are_not_followed() {
    let rig = Rig::new();
    symlink(rig.dir.path().join("outside"), rig.at("/aside")).unwrap();
    rig.write("/kept/f", "kept");
    fs::create_dir(rig.at("/tree")).unwrap();
    symlink(rig.dir.path().join("outside"), rig.at("/tree/out")).unwrap();
    symlink("../kept", rig.at("/tree/kept")).unwrap();
    for i in 0..300 {
        fs::write(rig.at(&format!("/tree/{i}")), "").unwrap();
    }
    // Deeper than a path can be long.
    let mut dir = fs::File::open(rig.at("/tree")).unwrap();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&dir, "deeper", rustix::fs::Mode::RWXU).unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::RDONLY;
        dir = rustix::fs::openat(&dir, "deeper", flags, rustix::fs::Mode::empty())
            .unwrap()
            .into();
    }
    drop(dir);
    assert!(
        rig.call("POST", "/api/v1/files/copy/tree?copy_to=/copy")
            .await
            .refused(400)
            .contains("deeper")
    );
    assert!(!rig.at("/copy").exists());
    let done = rig
        .call("DELETE", "/api/v1/files/tree")
        .await
        .is(200)
        .json();
    assert_eq!(
        (done["success"].as_bool(), rig.at("/tree").exists()),
        (Some(true), false)
    );
    assert_eq!(rig.read("/kept/f"), "kept");
    rig.write("/stat/f", "");
    rig.call("DELETE", "/api/v1/files/stat/f").await.is(200); // the words of operations are names to DELETE
    assert!(!rig.at("/stat/f").exists());
    rig.intact();
    rig.clean();
}
