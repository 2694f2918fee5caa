//! Paths, names and what is behind them.

use super::*;

#[tokio::test]
async fn nothing_outside_the_root_can_be_reached() {
    let rig = Rig::new();
    let outside = rig.dir.path().join("outside");
    symlink(&outside, rig.at("/absolute")).unwrap();
    symlink("../outside", rig.at("/relative")).unwrap();
    symlink("../../../../../../../../../../etc", rig.at("/far")).unwrap();
    symlink(outside.join("secret"), rig.at("/file")).unwrap();
    symlink("../outside/new", rig.at("/dangling")).unwrap();
    let root = rig.at("/");
    let outside_name = outside.to_str().unwrap();
    for url in [
        "/absolute/secret",
        "/relative/secret",
        "/file",
        "/far/passwd",
        "/..%2foutside/secret",
        "/%2e%2e/outside/secret",
        "/%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e%2fetc/passwd",
        "/proc/self/root/etc/passwd",
    ] {
        for prefix in [
            "",
            "/api/v1/files",
            "/api/v1/files/stat",
            "/api/v1/files/realpath",
        ] {
            if (prefix, url) == ("/api/v1/files/stat", "/file") {
                continue; // a link can be asked about, whatever it leads to
            }
            let answer = rig.get(&format!("{prefix}{url}")).await;
            assert_eq!(
                answer.status,
                StatusCode::NOT_FOUND,
                "{prefix}{url}: {}",
                answer.text()
            );
        }
        rig.call("DELETE", &format!("/api/v1/files{url}/x"))
            .await
            .is(404);
        rig.send(
            "PATCH",
            &format!("/api/v1/files/chmod{url}?chmod=777"),
            &[],
            "",
        )
        .await
        .is(404);
    }
    // A destination stays below the root too, whatever it is written as.
    rig.write("/a", "a");
    rig.call("POST", "/api/v1/files/copy/a?copy_to=../../outside/b")
        .await
        .is(200);
    assert_eq!(rig.read("/outside/b"), "a");
    rig.call(
        "POST",
        &format!("/api/v1/files/move/a?move_to={outside_name}/b"),
    )
    .await
    .is(200);
    assert_eq!(
        fs::read_to_string(root.join(outside_name.trim_start_matches('/')).join("b")).unwrap(),
        "a"
    );
    // Writing through a link that leads out writes below the root, where the link leads there.
    rig.put("/dangling", "x").await.is(201);
    assert_eq!(rig.read("/outside/new"), "x");
    rig.put("/relative/y", "y").await.is(201);
    assert_eq!(rig.read("/outside/y"), "y");
    rig.put("/far/passwd", "z").await.is(409); // its directory is a link to nothing here
    // Removing a link removes the link.
    rig.call("DELETE", "/absolute").await.is(200);
    rig.call("DELETE", "/file").await.is(200);
    let listing = rig.get("/?json").await.is(200).json();
    assert!(
        listing["paths"]
            .as_array()
            .unwrap()
            .iter()
            .all(|item| item["name"] != "secret")
    );
    rig.intact();
}

/// A neighbour swaps a directory and a link that leads out, as fast as it can, while requests of
/// every kind go through that name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_swapped_in_leads_nowhere() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let rig = Rig::new();
    rig.write("/door/secret", "public");
    symlink(rig.dir.path().join("outside"), rig.at("/swap")).unwrap();
    let (door, swap) = (rig.at("/door"), rig.at("/swap"));
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let swapper = std::thread::spawn(move || {
        let mut swaps = 0u64;
        while !stopped.load(Ordering::Relaxed) {
            renameat_with(CWD, &door, CWD, &swap, RenameFlags::EXCHANGE).unwrap();
            swaps += 1;
        }
        swaps
    });
    let until = Instant::now() + Duration::from_secs(4);
    let (mut reads, mut hits) = (0u64, 0u64);
    while Instant::now() < until {
        let get = rig.get("/api/v1/files/door/secret").await;
        assert_ne!(get.text(), "secret");
        hits += u64::from(get.text() == "public");
        reads += 1;
        let _ = rig.put(&format!("/door/put{}", reads % 8), "x").await;
        let _ = rig.put("/door/deep/er/put", "x").await;
        let _ = rig
            .send("PUT", "/api/v1/files/append/door/appended", &[], "x")
            .await;
        let _ = rig
            .call(
                "POST",
                "/api/v1/files/copy/door?copy_to=/copied&overwrite=true",
            )
            .await;
        if let Ok(copied) = fs::read_to_string(rig.at("/copied/secret")) {
            assert_ne!(copied, "secret");
        }
        let _ = rig.call("DELETE", "/door/deep").await;
        let _ = rig.call("DELETE", "/api/v1/files/door/put1").await;
        let _ = rig
            .send(
                "PATCH",
                "/api/v1/files/chmod/door/secret?chmod=600",
                &[],
                "",
            )
            .await;
        let grep = rig.get("/api/v1/files/grep/door?pattern=sec").await;
        assert_eq!(
            grep.json()["total_matches"].as_u64().unwrap_or(0),
            0,
            "{}",
            grep.text()
        );
        rig.intact();
    }
    stop.store(true, Ordering::Relaxed);
    let swaps = swapper.join().unwrap();
    assert!(
        swaps > 1000 && reads > 20 && hits > 0,
        "{swaps} swaps, {reads} reads, {hits} hits"
    );
    rig.intact();
}

#[tokio::test]
async fn any_name_that_a_file_can_have_goes_round() {
    let rig = Rig::new();
    let names: &[&[u8]] = &[
        b"with space",
        b"%41",
        b"100%",
        b"a+b",
        b"a&b=c",
        b"what?#",
        b"-rf",
        b"--help",
        b"new\nline",
        b"tab\t",
        b"q\"uote'",
        b"back\\slash",
        b"*",
        b"...",
        b".hidden",
        "\u{00fc}ml\u{00e4}ut \u{1f600}".as_bytes(),
        b"\xff\xfe latin",
        b"bad \xc3\x28",
        b"health",
        b"~",
        b"con\x01trol",
    ];
    for name in names {
        let url = format!("/api/v1/files/%2Fodd%2F{}", crate::path::encode(name));
        let real = rig.at("/odd").join(std::ffi::OsStr::from_bytes(name));
        rig.put(&url, name.to_vec()).await.is(200);
        assert_eq!(fs::read(&real).unwrap(), *name, "{url}");
        assert_eq!(rig.get(&url).await.is(200).body, *name, "{url}");
        rig.get(&format!("{url}?stat")).await.is(200);
        let stat = rig
            .get(&format!(
                "/api/v1/files/stat/odd/{}",
                crate::path::encode(name)
            ))
            .await
            .is(200)
            .json();
        assert_eq!(stat["size"], name.len());
        let encoded = crate::path::encode(name);
        let copy = format!("/api/v1/files/copy/odd/{encoded}?copy_to=/odd/{encoded}.copy");
        rig.call("POST", &copy).await.is(200);
        let mut copied = real.clone().into_os_string();
        copied.push(".copy");
        assert_eq!(fs::read(&copied).unwrap(), *name);
        rig.call(
            "DELETE",
            &format!("/odd/{}.copy", crate::path::encode(name)),
        )
        .await
        .is(200);
        assert!(!Path::new(&copied).exists());
    }
    let listing = rig.get("/odd?json").await.is(200).json();
    let items = listing["paths"].as_array().unwrap();
    assert_eq!(items.len(), names.len());
    for item in items {
        let exact = item["encoded_name"]
            .as_str()
            .map(|text| percent_encoding::percent_decode_str(text).collect());
        let name: Vec<u8> =
            exact.unwrap_or_else(|| item["name"].as_str().unwrap().as_bytes().to_vec());
        assert!(names.contains(&&name[..]), "{item}");
        rig.call(
            "DELETE",
            &format!("/api/v1/files/odd/{}", crate::path::encode(&name)),
        )
        .await
        .is(200);
    }
    assert_eq!(fs::read_dir(rig.at("/odd")).unwrap().count(), 0);
    rig.put("/api/v1/files/nul%00byte", "x").await.is(400);
    let long = "n".repeat(256);
    assert!(
        rig.put(&format!("/{long}"), "x")
            .await
            .refused(400)
            .contains("too long")
    );
    rig.put(&format!("/{}", "n".repeat(255)), "x").await.is(201);
}

#[tokio::test]
async fn what_is_no_file_is_refused_and_does_not_hang() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let rig = Rig::new();
    mknodat(
        CWD,
        rig.at("/fifo"),
        FileType::Fifo,
        Mode::RUSR | Mode::WUSR,
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(rig.at("/socket")).unwrap();
    let mut names = vec!["fifo", "socket"];
    if is_root()
        && mknodat(
            CWD,
            rig.at("/zero"),
            FileType::CharacterDevice,
            Mode::RUSR,
            rustix::fs::makedev(1, 5),
        )
        .is_ok()
    {
        names.push("zero");
    }
    let all = async {
        for name in &names {
            for query in ["", "?sha256", "?base64", "?lines=1-2"] {
                let error = rig
                    .get(&format!("/api/v1/files/{name}{query}"))
                    .await
                    .refused(403);
                assert!(error.contains("FIFO"), "{error}");
            }
            rig.get(&format!("/api/v1/files/grep/{name}?pattern=x"))
                .await
                .is(403);
            rig.put(&format!("/{name}"), "x").await.is(403);
            rig.put(&format!("/api/v1/files/append/{name}"), "x")
                .await
                .is(403);
            rig.send(
                "PATCH",
                &format!("/{name}"),
                &[("x-update-range", "bytes=0-")],
                "x",
            )
            .await
            .is(403);
            rig.call("POST", &format!("/api/v1/files/copy/{name}?copy_to=/c"))
                .await
                .is(403);
            rig.get(&format!("/api/v1/files/stat/{name}")).await.is(200);
        }
        rig.get("/api/v1/files/grep/%2F?pattern=x").await.is(200);
        let items = rig.get("/?json").await.is(200).json();
        let special: Vec<_> = items["paths"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["special"].clone())
            .collect();
        assert_eq!(special[..2], [json!("fifo"), json!("socket")]);
        // In a tree they are passed over, and counted.
        fs::create_dir(rig.at("/tree")).unwrap();
        rig.call("POST", "/api/v1/files/move/fifo?move_to=/tree/fifo")
            .await
            .is(200);
        assert!(
            fs::symlink_metadata(rig.at("/tree/fifo"))
                .unwrap()
                .file_type()
                .is_fifo()
        );
        let done = rig
            .call("POST", "/api/v1/files/copy/tree?copy_to=/copy")
            .await
            .is(200)
            .json();
        assert_eq!(done["skipped"], 1);
        rig.call("DELETE", "/tree").await.is(200);
    };
    tokio::time::timeout(Duration::from_secs(20), all)
        .await
        .expect("a special file does not hang a request");
}

#[tokio::test]
async fn links_are_described_and_resolved() {
    let rig = Rig::new();
    rig.write("/real/f", "four");
    symlink("/real", rig.at("/dir")).unwrap();
    symlink("dir/f", rig.at("/link")).unwrap();
    symlink("loop", rig.at("/loop")).unwrap();
    let stat = rig.get("/api/v1/files/stat/link").await.is(200).json();
    assert_eq!(
        (stat["path_type"].as_str(), stat["symlink_target"].as_str()),
        (Some("SymlinkFile"), Some("dir/f"))
    );
    assert_eq!(
        (stat["size"].as_u64(), stat["is_symlink"].as_bool()),
        (Some(4), Some(true))
    );
    let real = rig.get("/api/v1/files/realpath/link").await.is(200).json();
    assert_eq!(real, json!({ "path": "/link", "real_path": "/real/f" }));
    assert_eq!(
        rig.get("/api/v1/files/realpath/%2F").await.is(200).json()["real_path"],
        "/"
    );
    rig.get("/loop").await.is(403);
    rig.put("/loop", "x").await.is(403);
    rig.get("/api/v1/files/stat/loop").await.is(200);
    rig.call("DELETE", "/loop").await.is(200);
    rig.call("DELETE", "/link").await.is(200);
    assert_eq!(rig.read("/real/f"), "four");
}
