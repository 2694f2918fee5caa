//! Bytes in and out.

use super::*;

#[tokio::test]
async fn a_file_comes_back_as_it_was_sent() {
    let rig = Rig::new();
    let put = rig
        .put("/api/v1/files/home/user/a.txt", "hello\n")
        .await
        .is(200);
    assert_eq!(
        put.json(),
        json!({ "success": true, "path": "/home/user/a.txt", "new_size": 6 })
    );
    let get = rig.get("/api/v1/files/home/user/a.txt").await.is(200);
    assert_eq!(get.text(), "hello\n");
    assert_eq!(get.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(get.header("x-content-type-options"), "nosniff");
    assert_eq!(get.header("content-length"), "6");
    assert_eq!(
        rig.get("/api/v1/files/%2Fhome%2Fuser%2Fa.txt")
            .await
            .is(200)
            .text(),
        "hello\n"
    );
    assert_eq!(rig.get("/home/user/a.txt").await.is(200).text(), "hello\n");
    assert_eq!(
        rig.get("/api/v1/files/~/a.txt").await.is(200).text(),
        "hello\n"
    );
    let head = rig.call("HEAD", "/home/user/a.txt").await.is(200);
    assert_eq!((head.body.len(), head.header("content-length")), (0, "6"));
    assert_eq!(head.header("etag"), get.header("etag"));
    let put = rig
        .send(
            "PUT",
            "/home/user/a.txt",
            &[("content-type", "application/json")],
            "{",
        )
        .await
        .is(201);
    assert!(put.body.is_empty());
    assert_eq!(rig.read("/home/user/a.txt"), "{");
    assert_eq!(
        fs::metadata(rig.at("/home/user/a.txt")).unwrap().mode() & 0o7777,
        0o644
    );
    assert_eq!(
        fs::metadata(rig.at("/home/user")).unwrap().mode() & 0o7777,
        0o755
    );
    rig.clean();
}

#[tokio::test]
async fn an_empty_file_is_a_file() {
    let rig = Rig::new();
    rig.put("/api/v1/files/empty", "").await.is(200);
    let get = rig.get("/api/v1/files/empty").await.is(200);
    assert_eq!((get.body.len(), get.header("content-length")), (0, "0"));
    assert_eq!(
        rig.get("/api/v1/files/empty?base64").await.is(200).text(),
        ""
    );
    assert_eq!(
        rig.get("/api/v1/files/empty?sha256").await.is(200).text(),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
    rig.send("GET", "/empty", &[("range", "bytes=0-")], "")
        .await
        .is(416);
}

#[tokio::test]
async fn a_large_body_passes_through_little_memory() {
    const SIZE: u64 = 160 << 20;
    const ROOM: u64 = 48 << 20;
    let rig = Rig::new();
    let before = peak_rss();
    let put = rig.put("/api/v1/files/large", stream(SIZE)).await.is(200);
    assert_eq!(put.json()["new_size"], SIZE);
    let request = Request::get("/api/v1/files/large")
        .body(Body::empty())
        .unwrap();
    let response = rig.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()["content-length"], SIZE.to_string());
    let (mut body, mut at) = (response.into_body().into_data_stream(), 0);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.unwrap();
        for (i, got) in chunk.iter().enumerate().step_by(997) {
            assert_eq!(*got, byte(at + i as u64), "byte {}", at + i as u64);
        }
        at += chunk.len() as u64;
    }
    assert_eq!(at, SIZE);
    let grown = peak_rss() - before;
    assert!(grown < ROOM, "memory grew by {} MiB", grown >> 20);
}

#[tokio::test]
async fn a_hole_of_many_gigabytes_is_read_and_copied_as_a_hole() {
    const SIZE: u64 = 64 << 30;
    let rig = Rig::new();
    rig.write("/sparse", "");
    let file = fs::OpenOptions::new()
        .write(true)
        .open(rig.at("/sparse"))
        .unwrap();
    file.set_len(SIZE).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", SIZE - 3).unwrap();
    let get = rig
        .send("GET", "/sparse", &[("range", "bytes=-3")], "")
        .await
        .is(206);
    assert_eq!(get.text(), "end");
    assert_eq!(
        get.header("content-range"),
        format!("bytes {}-{}/{SIZE}", SIZE - 3, SIZE - 1)
    );
    let began = Instant::now();
    rig.call("POST", "/api/v1/files/copy/sparse?copy_to=/copy")
        .await
        .is(200);
    assert!(began.elapsed() < Duration::from_secs(20));
    let copy = fs::metadata(rig.at("/copy")).unwrap();
    assert_eq!(copy.len(), SIZE);
    assert!(copy.blocks() * 512 < 16 << 20, "{} blocks", copy.blocks());
    assert_eq!(
        rig.send("GET", "/copy", &[("range", "bytes=-3")], "")
            .await
            .text(),
        "end"
    );
}

#[tokio::test]
async fn ranges_and_conditions_are_those_of_the_standard() {
    let rig = Rig::new();
    let content: String = (0..20_000).map(|i| format!("{i:09}\n")).collect();
    rig.write("/f.bin", &content);
    let whole = rig.get("/f.bin").await.is(200);
    assert_eq!(whole.text(), content);
    assert_eq!(whole.header("accept-ranges"), "bytes");
    let etag = whole.header("etag").to_owned();
    let modified = whole.header("last-modified").to_owned();
    for (range, want, shown) in [
        ("bytes=0-9", &content[..10], "bytes 0-9/200000"),
        (
            "bytes=99990-110009",
            &content[99_990..110_010],
            "bytes 99990-110009/200000",
        ),
        (
            "bytes=199990-",
            &content[199_990..],
            "bytes 199990-199999/200000",
        ),
        (
            "bytes=-10",
            &content[199_990..],
            "bytes 199990-199999/200000",
        ),
    ] {
        let part = rig
            .send("GET", "/f.bin", &[("range", range)], "")
            .await
            .is(206);
        assert_eq!(
            (part.text().as_str(), part.header("content-range")),
            (want, shown),
            "{range}"
        );
        assert_eq!(part.header("content-length"), want.len().to_string());
    }
    let beyond = rig
        .send("GET", "/f.bin", &[("range", "bytes=200000-")], "")
        .await
        .is(416);
    assert_eq!(beyond.header("content-range"), "bytes */200000");
    let several = rig
        .send("GET", "/f.bin", &[("range", "bytes=0-1,4-5")], "")
        .await
        .is(200);
    assert_eq!(several.body.len(), 200_000);

    let same = rig
        .send("GET", "/f.bin", &[("if-none-match", &etag)], "")
        .await
        .is(304);
    assert!(same.body.is_empty() && same.header("etag") == etag);
    rig.send("GET", "/f.bin", &[("if-modified-since", &modified)], "")
        .await
        .is(304);
    rig.send("GET", "/f.bin", &[("if-none-match", "\"other\"")], "")
        .await
        .is(200);
    rig.send("GET", "/f.bin", &[("if-match", "\"other\"")], "")
        .await
        .is(412);
    let range = ("range", "bytes=0-9");
    rig.send("GET", "/f.bin", &[range, ("if-range", &etag)], "")
        .await
        .is(206);
    rig.send("GET", "/f.bin", &[range, ("if-range", &modified)], "")
        .await
        .is(206);
    rig.send("GET", "/f.bin", &[range, ("if-range", "\"other\"")], "")
        .await
        .is(200);

    rig.send("PUT", "/f.bin", &[("if-none-match", "*")], "new")
        .await
        .is(412);
    rig.send("PUT", "/f.bin", &[("if-match", "\"other\"")], "new")
        .await
        .is(412);
    assert_eq!(rig.read("/f.bin"), content);
    let put = rig
        .send("PUT", "/f.bin", &[("if-match", &etag)], "new")
        .await
        .is(201);
    assert_eq!(put.header("etag"), rig.get("/f.bin").await.header("etag"));
    rig.send("GET", "/f.bin", &[("if-none-match", &etag)], "")
        .await
        .is(200);
    rig.send("PUT", "/new", &[("if-match", "*")], "new")
        .await
        .is(412);
    rig.send("PUT", "/new", &[("if-none-match", "*")], "new")
        .await
        .is(201);
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_the_old_file_whole() {
    let rig = Rig::new();
    rig.write("/f", "old content");
    rig.put("/api/v1/files/f", broken("new")).await.is(400);
    rig.put("/f", broken("new")).await.is(400);
    rig.put("/fresh", broken("new")).await.is(400);
    rig.send(
        "PATCH",
        "/f",
        &[("x-update-range", "append")],
        broken("more"),
    )
    .await
    .is(400);
    rig.put("/api/v1/files/append/fresh", broken("new"))
        .await
        .is(400);
    assert_eq!(rig.read("/f"), "old content");
    assert!(!rig.at("/fresh").exists());
    rig.clean();
}

#[tokio::test]
async fn a_full_disk_leaves_the_old_file_whole() {
    if !is_root() {
        return;
    }
    struct Mounted(PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
        }
    }
    let rig = Rig::new();
    fs::create_dir(rig.at("/small")).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    if rustix::mount::mount("tmpfs", rig.at("/small"), "tmpfs", flags, c"size=2m").is_err() {
        return; // not allowed here
    }
    let _mounted = Mounted(rig.at("/small"));
    rig.put("/small/f", "old").await.is(201);
    let error = rig
        .put("/api/v1/files/small/f", stream(8 << 20))
        .await
        .refused(507);
    assert!(error.contains("full"), "{error}");
    assert_eq!(rig.read("/small/f"), "old");
    rig.put("/api/v1/files/append/small/f", stream(8 << 20))
        .await
        .is(507);
    assert_eq!(rig.read("/small/f"), "old");
    rig.send("PUT", "/small/g", &[("content-length", "99999999")], "")
        .await
        .is(507);
    rig.write("/large", vec![7; 4 << 20]);
    rig.call("POST", "/api/v1/files/copy/large?copy_to=/small/large")
        .await
        .is(507);
    rig.write("/tree/large", vec![7; 4 << 20]);
    rig.call("POST", "/api/v1/files/move/tree?move_to=/small/tree")
        .await
        .is(507);
    assert!(rig.at("/tree/large").exists());
    rig.clean();
    // What fits goes over, whole, and is gone here.
    rig.write("/fits/a/b", "b");
    symlink("b", rig.at("/fits/a/link")).unwrap();
    fs::set_permissions(rig.at("/fits/a/b"), fs::Permissions::from_mode(0o4751)).unwrap();
    rig.call("POST", "/api/v1/files/move/fits?move_to=/small/fits")
        .await
        .is(200);
    assert_eq!(rig.read("/small/fits/a/link"), "b");
    assert_eq!(
        fs::metadata(rig.at("/small/fits/a/b")).unwrap().mode() & 0o7777,
        0o4751
    );
    assert!(!rig.at("/fits").exists());
    // A mount point is not removed with the tree around it, nor is what it holds.
    rig.call("DELETE", "/small").await.is(409);
    assert_eq!(rig.read("/small/f"), "old");
}

#[tokio::test]
async fn a_file_that_is_replaced_keeps_owner_mode_and_attributes() {
    let rig = Rig::new();
    rig.write("/f", "old");
    fs::set_permissions(rig.at("/f"), fs::Permissions::from_mode(0o4750)).unwrap();
    let attribute = rustix::fs::setxattr(
        rig.at("/f"),
        "user.note",
        b"mine",
        rustix::fs::XattrFlags::empty(),
    )
    .is_ok();
    if is_root() {
        std::os::unix::fs::chown(rig.at("/f"), Some(1234), Some(2345)).unwrap();
        fs::set_permissions(rig.at("/f"), fs::Permissions::from_mode(0o4750)).unwrap();
    }
    rig.put("/f?fsync", "new").await.is(201);
    let stat = fs::metadata(rig.at("/f")).unwrap();
    assert_eq!(
        stat.mode() & 0o7777,
        0o750,
        "set-user-id is for the old content only"
    );
    if is_root() {
        assert_eq!((stat.uid(), stat.gid()), (1234, 2345));
    }
    if attribute {
        let mut value = [0; 16];
        let size = rustix::fs::getxattr(rig.at("/f"), "user.note", &mut value[..]).unwrap();
        assert_eq!(&value[..size], b"mine");
    }
    // A link at the end of the path is written through.
    symlink("f", rig.at("/link")).unwrap();
    rig.put("/link", "through").await.is(201);
    assert!(fs::symlink_metadata(rig.at("/link")).unwrap().is_symlink());
    assert_eq!(rig.read("/f"), "through");
}

#[tokio::test]
async fn bytes_are_added_and_overwritten_in_place() {
    let rig = Rig::new();
    let append = [("x-update-range", "append")];
    let done = rig
        .put("/api/v1/files/append/log/a", "one\n")
        .await
        .is(200)
        .json();
    assert_eq!(
        done,
        json!({ "success": true, "path": "/log/a", "new_size": 4 })
    );
    assert_eq!(
        rig.put("/api/v1/files/log/a?append", "two\n")
            .await
            .is(200)
            .json()["new_size"],
        8
    );
    assert_eq!(
        rig.put("/api/v1/files/log/a?append=false", "1\n")
            .await
            .is(200)
            .json()["new_size"],
        2
    );
    rig.send("PATCH", "/log/a", &append, "2\n").await.is(204);
    rig.send("PATCH", "/log/a?fsync", &append, "3\n")
        .await
        .is(204);
    assert_eq!(rig.read("/log/a"), "1\n2\n3\n");
    rig.send("PATCH", "/log/a", &[("x-update-range", "bytes=2-2")], "X")
        .await
        .is(204);
    rig.send("PATCH", "/log/a", &[("x-update-range", "bytes=4-")], "Y")
        .await
        .is(204);
    assert_eq!(rig.read("/log/a"), "1\nX\nY\n");
    for (range, body, status) in [
        ("bytes=6-7", "xx", 416),
        ("bytes=5-6", "xx", 416),
        ("bytes=0-1", "xxx", 400),
        ("bytes=0-1", "x", 400),
        ("bytes=0-1/6", "xx", 400),
        ("bytes=3-1", "xx", 400),
        ("lines=1-2", "xx", 400),
    ] {
        let length = body.len().to_string();
        let headers = [
            ("x-update-range", range),
            ("content-length", length.as_str()),
        ];
        rig.send("PATCH", "/log/a", &headers, body).await.is(status);
    }
    assert_eq!(rig.read("/log/a"), "1\nX\nY\n");
    rig.send(
        "PATCH",
        "/missing",
        &[("x-update-range", "bytes=0-1")],
        "xx",
    )
    .await
    .is(404);
    rig.send("PUT", "/log/a", &[("content-range", "bytes 0-1/6")], "xx")
        .await
        .is(400);

    // Appends from several requests at once: each whole or refused.
    let (slow, feed) = {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(4);
        let stream = futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|bytes| (bytes, receiver))
        });
        (Body::from_stream(stream), sender)
    };
    let router = rig.router.clone();
    let first =
        tokio::spawn(
            async move { send(&router, "PUT", "/api/v1/files/append/both", &[], slow).await },
        );
    feed.send(Ok(Bytes::from_static(b"a"))).await.unwrap();
    while !rig.at("/both").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(
        rig.put("/api/v1/files/append/both", "b")
            .await
            .refused(409)
            .contains("another")
    );
    drop(feed);
    first.await.unwrap().is(200);
    rig.put("/api/v1/files/append/both", "b").await.is(200);
    assert_eq!(rig.read("/both"), "ab");
    rig.put("/both?touch", "").await.is(201);
    assert_eq!(rig.read("/both"), "ab");
}
