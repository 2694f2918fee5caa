//! WebDAV: properties, locks, and what each writing request asks of them.

use std::process::Command;

use super::*;

const LOCKINFO: &str = r#"<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype><owner>me &amp; <href>mailto:me</href></owner></lockinfo>"#;
const SHARED: &str = r#"<lockinfo xmlns="DAV:"><lockscope><shared/></lockscope><locktype><write/></locktype></lockinfo>"#;

fn update(set: &str) -> String {
    format!(
        "<propertyupdate xmlns=\"DAV:\" xmlns:q=\"urn:q\"><set><prop>{set}</prop></set></propertyupdate>"
    )
}

impl Rig {
    /// Lock a path and give the token as it stands in `If`.
    async fn lock(&self, url: &str, depth: &str, info: &'static str) -> String {
        let answer = self.send("LOCK", url, &[("depth", depth)], info).await;
        assert!(
            matches!(answer.status.as_u16(), 200 | 201),
            "{}",
            answer.text()
        );
        assert!(answer.text().contains("activelock"));
        format!("({})", answer.header("lock-token"))
    }

    async fn find(&self, url: &str, depth: &str, body: impl Into<Body>) -> String {
        self.send("PROPFIND", url, &[("depth", depth)], body)
            .await
            .is(207)
            .text()
    }
}

/// Served to programs that speak WebDAV themselves, as long as it is held.
async fn listen(rig: &Rig) -> (String, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let router = rig.router.clone();
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn litmus_is_content() {
    let rig = Rig::new();
    let (url, task) = listen(&rig).await;
    let work = rig.dir.path().join("litmus");
    fs::create_dir(&work).unwrap();
    let mut command = Command::new("litmus");
    command.args(["-k", &url]).current_dir(&work);
    let run = tokio::task::spawn_blocking(move || command.output());
    let output = run
        .await
        .unwrap()
        .expect("litmus is installed by packages.sh check");
    let text = String::from_utf8_lossy(&output.stdout);
    let passed = text.matches("0 failed").count();
    println!("{text}");
    assert!(output.status.success() && passed == 5, "{text}");
    task.abort();
    rig.intact();
    rig.clean();
}

#[tokio::test]
async fn properties_are_told_as_deep_as_asked() {
    let rig = Rig::new();
    rig.write("/d/a & b.txt", "12345");
    rig.write("/d/deep/c", "");
    symlink(rig.dir.path().join("outside/secret"), rig.at("/d/out")).unwrap();
    symlink("a & b.txt", rig.at("/d/link")).unwrap();
    let hrefs = |text: &str| text.matches("<D:href>").count();
    assert_eq!(hrefs(&rig.find("/d", "0", "").await), 1);
    let one = rig.find("/d", "1", "").await;
    assert_eq!(hrefs(&one), 4, "{one}");
    for part in [
        "<D:href>/d/</D:href>",
        "<D:href>/d/a%20%26%20b.txt</D:href>",
        "<D:getcontentlength>5</D:getcontentlength>",
        "<D:getcontenttype>text/plain</D:getcontenttype>",
        "<D:href>/d/deep/</D:href>",
        "<D:resourcetype><D:collection/></D:resourcetype>",
    ] {
        assert!(one.contains(part), "{part} in {one}");
    }
    assert_eq!(hrefs(&rig.find("/d", "infinity", "").await), 5);
    let names = rig
        .find(
            "/d/deep",
            "0",
            "<propfind xmlns='DAV:'><propname/></propfind>",
        )
        .await;
    assert!(names.contains("<D:resourcetype/>") && !names.contains("collection"));
    let some = "<propfind xmlns='DAV:'><prop><getetag/><quota-available-bytes/><no xmlns='urn:n'/></prop></propfind>";
    let some = rig.find("/d", "0", some).await;
    assert!(
        some.contains("<D:quota-available-bytes>") && some.contains("404 Not Found"),
        "{some}"
    );
    assert!(some.contains("<x:no xmlns:x=\"urn:n\"/>"), "{some}");
    for (depth, body, status) in [
        ("2", "", 400),
        ("0", "<propfind xmlns='DAV:'/>", 400),
        ("0", "<propfind/>", 400),
        (
            "0",
            "<!DOCTYPE p [<!ENTITY a 'b'>]><propfind xmlns='DAV:'><prop>&a;</prop></propfind>",
            400,
        ),
    ] {
        rig.send("PROPFIND", "/d", &[("depth", depth)], body)
            .await
            .refused(status);
    }
    rig.send("PROPFIND", "/d", &[], "x".repeat(300 << 10))
        .await
        .refused(413);
    rig.call("PROPFIND", "/missing").await.is(404);
    // A link out of the root is nothing, also by name.
    rig.call("PROPFIND", "/d/out").await.is(404);
    rig.send("PROPPATCH", "/d/out", &[], update("<q:a>1</q:a>"))
        .await
        .is(404);
    rig.intact();
}

#[tokio::test]
async fn a_directory_too_large_for_one_answer_says_so() {
    let rig = Rig::new();
    fs::create_dir(rig.at("/many")).unwrap();
    for i in 0..10_001 {
        fs::write(rig.at(&format!("/many/{i}")), "").unwrap();
    }
    rig.send("PROPFIND", "/many", &[("depth", "1")], "")
        .await
        .refused(507);
    rig.send("PROPFIND", "/", &[("depth", "infinity")], "")
        .await
        .refused(403);
    rig.send("PROPFIND", "/many", &[("depth", "0")], "")
        .await
        .is(207);
}

#[tokio::test]
async fn properties_stay_with_their_file() {
    let rig = Rig::new();
    rig.write("/a", "a");
    let set = update("<q:p xml:lang='en'>1 &lt; <q:in b='&quot;'/></q:p>");
    let value = "<x:p xmlns:x=\"urn:q\" xml:lang=\"en\">1 &lt; <x:in xmlns:x=\"urn:q\" b=\"&quot;\"></x:in></x:p>";
    let done = rig.send("PROPPATCH", "/a", &[], set).await.is(207).text();
    assert!(done.contains("200 OK"), "{done}");
    rig.put("/a", "other").await.is(201);
    rig.send("COPY", "/a", &[("destination", "/b")], "")
        .await
        .is(204);
    rig.send("MOVE", "/a", &[("destination", "/c")], "")
        .await
        .is(204);
    for url in ["/b", "/c"] {
        let text = rig.find(url, "0", "").await;
        assert!(text.contains(value), "{text}");
    }
    rig.call("DELETE", "/c").await.is(200);
    rig.put("/c", "new").await.is(201);
    assert!(!rig.find("/c", "0", "").await.contains("urn:q"));
    // All or none: one that cannot be set keeps the others from being set.
    let both = update("<q:other>1</q:other><getetag>x</getetag>");
    let text = rig.send("PROPPATCH", "/b", &[], both).await.is(207).text();
    assert!(
        text.contains("403 Forbidden") && text.contains("424 Failed Dependency"),
        "{text}"
    );
    assert!(!rig.find("/b", "0", "").await.contains("other"));
    let long = update(&format!("<q:long>{}</q:long>", "x".repeat(40 << 10)));
    let text = rig.send("PROPPATCH", "/b", &[], long).await.is(207).text();
    assert!(text.contains("507 Insufficient Storage"), "{text}");
    assert!(rig.find("/b", "0", "").await.contains(value));
    for body in ["", "<propertyupdate xmlns='DAV:'/>", "<x/>"] {
        rig.send("PROPPATCH", "/b", &[], body).await.refused(400);
    }
}

#[tokio::test]
async fn what_a_program_wrote_into_the_attribute_cannot_break_an_answer() {
    let rig = Rig::new();
    rig.write("/a", "a");
    let held = fs::File::open(rig.at("/a")).unwrap();
    for (local, value) in [
        ("p", "</D:prop><D:evil/>"),
        ("p><D:evil/", ""),
        ("p", "<!DOCTYPE evil>"),
    ] {
        let text =
            json!([{"name": {"space": "urn:q", "local": local}, "value": value}]).to_string();
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::fsetxattr(&held, "user.hoody.dav", text.as_bytes(), flags).unwrap();
        assert!(
            !rig.find("/a", "0", "").await.contains("evil"),
            "{local} {value}"
        );
    }
}

#[tokio::test]
async fn every_way_of_writing_asks_the_lock() {
    let rig = Rig::new();
    rig.write("/dir/file", "0123");
    rig.write("/free", "free");
    symlink("dir", rig.at("/way")).unwrap();
    symlink("dir/file", rig.at("/name")).unwrap();
    let lock = rig.lock("/dir", "infinity", LOCKINFO).await;
    for (method, url) in [
        ("PUT", "/dir/file"),
        ("PUT", "/dir/new"),
        ("PUT", "/way/file"),
        ("PUT", "/name"),
        ("PUT", "/dir/file?touch"),
        ("PUT", "/api/v1/files/dir/file"),
        ("PUT", "/api/v1/files/append/dir/file"),
        ("PUT", "/api/v1/files/dir/new/deep"),
        ("DELETE", "/dir/file"),
        ("DELETE", "/dir"),
        ("DELETE", "/way/file"),
        ("DELETE", "/api/v1/files/dir"),
        ("DELETE", "/api/v1/files/stat/../dir"),
        ("MKCOL", "/dir/sub"),
        ("MKCOL", "/way/sub"),
        ("POST", "/api/v1/files/dir/sub?mkdir=true"),
        (
            "POST",
            "/api/v1/files/copy/free?copy_to=/dir/file&overwrite=true",
        ),
        ("POST", "/api/v1/files/copy/free?copy_to=/dir/other"),
        ("POST", "/api/v1/files/move/dir/file?move_to=/out"),
        ("POST", "/api/v1/files/move/free?move_to=/dir/in"),
        ("POST", "/api/v1/files/dir/file?move_to=/out"),
        ("POST", "/api/v1/files/free?copy_to=/dir/in"),
        ("PATCH", "/api/v1/files/chmod/dir/file?chmod=600"),
        ("PATCH", "/api/v1/files/chown/dir/file?chown=1:1"),
        ("PATCH", "/api/v1/files/dir/file?chmod=600"),
    ] {
        rig.call(method, url).await.refused(423);
    }
    for (method, url, header, body) in [
        ("PATCH", "/dir/file", ("x-update-range", "append"), "x"),
        ("PATCH", "/dir/file", ("x-update-range", "bytes=0-0"), "x"),
        ("PATCH", "/dir/file", ("x-other", ""), "{\"mode\":\"600\"}"),
        ("PATCH", "/dir/file", ("x-other", ""), "{\"name\":\"b\"}"),
        (
            "PATCH",
            "/api/v1/files/dir/file",
            ("content-type", "application/json"),
            "{\"name\":\"b\"}",
        ),
        ("COPY", "/free", ("destination", "/dir/x"), ""),
        ("MOVE", "/free", ("destination", "/dir/file"), ""),
        ("MOVE", "/dir/file", ("destination", "/x"), ""),
        ("LOCK", "/dir/file", ("depth", "0"), SHARED),
        ("LOCK", "/way/file", ("depth", "0"), LOCKINFO),
        (
            "PROPPATCH",
            "/name",
            ("x-other", ""),
            "<propertyupdate xmlns='DAV:'><remove><prop><a/></prop></remove></propertyupdate>",
        ),
    ] {
        rig.send(method, url, &[header], body).await.refused(423);
    }
    assert_eq!(rig.read("/dir/file"), "0123");
    assert_eq!(rig.read("/free"), "free");
    // Who holds it writes; who only reads is not asked.
    rig.get("/dir/file").await.is(200);
    rig.send("COPY", "/dir/file", &[("destination", "/copy")], "")
        .await
        .is(204);
    rig.send("PUT", "/dir/file", &[("if", &lock)], "mine")
        .await
        .is(201);
    rig.send(
        "PUT",
        "/api/v1/files/way/file",
        &[("if", &lock)],
        "mine too",
    )
    .await
    .is(200);
    rig.send(
        "PUT",
        "/dir/file",
        &[("if", "(<urn:uuid:0> [\"x\"])")],
        "no",
    )
    .await
    .refused(412);
    rig.send("PUT", "/dir/file", &[("if", "(Not <DAV:no-lock>)")], "no")
        .await
        .refused(423);
    rig.send("PUT", "/free", &[("if", "([\"other\"])")], "no")
        .await
        .refused(412);
    rig.send("PUT", "/free", &[("if", "bad")], "no")
        .await
        .refused(400);
    assert_eq!(rig.read("/dir/file"), "mine too");
    rig.send("DELETE", "/dir", &[("if", &lock)], "")
        .await
        .is(200);
    rig.put("/dir/file", "free again").await.is(201);
}

#[tokio::test]
async fn locks_are_shared_refreshed_and_given_up() {
    let rig = Rig::new();
    rig.write("/d/a", "a");
    let (one, two) = (
        rig.lock("/d/a", "0", SHARED).await,
        rig.lock("/d/a", "0", SHARED).await,
    );
    rig.send("LOCK", "/d/a", &[("depth", "0")], LOCKINFO)
        .await
        .refused(423);
    let below = rig
        .send("LOCK", "/d", &[("depth", "infinity")], LOCKINFO)
        .await
        .is(207)
        .text();
    assert!(
        below.contains("423 Locked") && below.contains("424 Failed Dependency"),
        "{below}"
    );
    rig.send("PUT", "/d/a", &[("if", &two)], "b").await.is(201);
    let told = rig.find("/d/a", "0", "").await;
    assert_eq!(told.matches("<D:activelock>").count(), 2, "{told}");
    let refreshed = rig
        .send(
            "LOCK",
            "/d/a",
            &[("if", &one), ("timeout", "Second-1234")],
            "",
        )
        .await;
    assert!(refreshed.is(200).text().contains("Second-123"));
    rig.send("LOCK", "/d/a", &[("if", "(<urn:uuid:0>)")], "")
        .await
        .refused(412);
    rig.call("LOCK", "/d/a").await.refused(400);
    rig.send("LOCK", "/d/a", &[("depth", "1")], LOCKINFO)
        .await
        .refused(400);
    rig.send("LOCK", "/d/a", &[], "<lockinfo xmlns='DAV:'/>")
        .await
        .refused(422);
    let owner = format!(
        "<lockinfo xmlns='DAV:'><lockscope><shared/></lockscope><locktype><write/></locktype><owner>{}</owner></lockinfo>",
        "o".repeat(5000)
    );
    rig.send("LOCK", "/d/a", &[], owner).await.refused(413);
    for token in [&one, &two] {
        let token = token.trim_matches(['(', ')']);
        rig.send("UNLOCK", "/d", &[("lock-token", token)], "")
            .await
            .refused(409);
        rig.send("UNLOCK", "/d/a", &[("lock-token", token)], "")
            .await
            .is(204);
        rig.send("UNLOCK", "/d/a", &[("lock-token", token)], "")
            .await
            .refused(409);
    }
    rig.call("UNLOCK", "/d/a").await.refused(400);
    rig.put("/d/a", "c").await.is(201);
    // A lock on a name that nothing has makes an empty file; not where there is no directory.
    let new = rig.lock("/d/new", "0", LOCKINFO).await;
    assert_eq!(rig.read("/d/new"), "");
    rig.put("/d/new", "x").await.refused(423);
    rig.send(
        "MOVE",
        "/d/new",
        &[("destination", "/d/moved"), ("if", &new)],
        "",
    )
    .await
    .is(204);
    rig.put("/d/new", "x").await.is(201);
    rig.put("/d/moved", "x").await.is(201);
    rig.send("LOCK", "/no/where", &[], LOCKINFO)
        .await
        .refused(409);
    symlink(rig.dir.path().join("outside/new"), rig.at("/out")).unwrap();
    rig.send("LOCK", "/out", &[], LOCKINFO).await.refused(404);
    rig.intact();
}

#[tokio::test]
async fn an_upload_that_a_lock_overtakes_does_not_land() {
    let rig = Rig::new();
    rig.write("/a", "old");
    let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<Bytes>>(1);
    let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let upload = tokio::spawn({
        let router = rig.router.clone();
        async move { send(&router, "PUT", "/a", &[], body).await }
    });
    sender.send(Ok(Bytes::from("begun"))).await.unwrap();
    sender.send(Ok(Bytes::new())).await.unwrap(); // taken once the upload reads its body
    rig.lock("/a", "0", LOCKINFO).await;
    drop(sender);
    upload.await.unwrap().refused(423);
    assert_eq!(rig.read("/a"), "old");
    rig.clean();
}
