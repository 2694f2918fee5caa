//! Listings, pages and views.

use super::*;

#[tokio::test]
async fn what_the_kernel_makes_up_is_read_to_its_end() {
    let router = serve(Path::new("/"));
    let cpu = send(&router, "GET", "/proc/cpuinfo", &[], "").await.is(200);
    assert!(cpu.body.len() > 100 && cpu.header("content-length") == cpu.body.len().to_string());
    assert!(cpu.header("etag").is_empty());
    let symbols = send(&router, "GET", "/api/v1/files/proc/kallsyms", &[], "").await;
    assert!(symbols.status != 200 || symbols.body.len() > 100_000);
    let max = send(
        &router,
        "GET",
        "/sys/kernel/mm/transparent_hugepage/enabled",
        &[],
        "",
    )
    .await;
    assert!(max.status == 404 || max.text().contains("never"));
    send(&router, "GET", "/proc/self/exe", &[], "")
        .await
        .is(403);
    for memory in ["/proc/self/mem", "/api/v1/files/proc/self/mem"] {
        let refused = send(&router, "GET", memory, &[], "").await.is(403);
        assert!(
            refused.text().contains("the kernel makes it up"),
            "{}",
            refused.text()
        );
    }
    send(&router, "GET", "/dev/zero", &[], "").await.is(403);
    send(&router, "GET", "/api/v1/files/stat/dev/null", &[], "")
        .await
        .is(200);
    let glob = send(
        &router,
        "GET",
        "/api/v1/files/glob/%2F?pattern=proc/*/status&timeout=20",
        &[],
        "",
    )
    .await
    .is(200);
    assert_eq!(glob.json()["count"], 0, "a search stays out of /proc");
}

#[tokio::test]
async fn a_directory_is_listed_in_order_and_in_pages() {
    let rig = Rig::new();
    for (name, size) in [("b", 3), ("a", 2), ("c", 1)] {
        rig.write(&format!("/d/{name}"), vec![b'x'; size]);
    }
    fs::create_dir(rig.at("/d/dir")).unwrap();
    symlink("dir", rig.at("/d/to-dir")).unwrap();
    symlink("a", rig.at("/d/to-a")).unwrap();
    symlink("nothing", rig.at("/d/to-nothing")).unwrap();
    let list = |query: &'static str| {
        let rig = &rig;
        async move {
            let listing = rig
                .get(&format!("/api/v1/files/d?{query}"))
                .await
                .is(200)
                .json();
            let names = listing["paths"].as_array().unwrap().iter();
            names
                .map(|item| item["name"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
                .join(" ")
        }
    };
    assert_eq!(list("").await, "a b c dir to-a to-dir to-nothing");
    assert_eq!(list("order=desc").await, "to-nothing to-dir to-a dir c b a");
    assert_eq!(
        list("sort=size&order=desc").await,
        "b a to-a c dir to-dir to-nothing"
    );
    assert_eq!(list("offset=1&limit=2").await, "b c");
    assert_eq!(list("sort=size&offset=3&limit=2").await, "c a");
    assert_eq!(list("offset=99").await, "");
    let listing = rig.get("/d?json&limit=1").await.is(200).json();
    assert_eq!(
        (listing["total"].as_u64(), listing["truncated"].as_bool()),
        (Some(7), Some(true))
    );
    assert_eq!(
        (listing["kind"].as_str(), listing["href"].as_str()),
        (Some("Index"), Some("/d"))
    );
    let kinds: Vec<_> = rig.get("/d/?json").await.json()["paths"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["path_type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        kinds,
        [
            "File",
            "File",
            "File",
            "Dir",
            "SymlinkFile",
            "SymlinkDir",
            "SymlinkFile"
        ]
    );
    for wrong in ["limit=10001", "offset=x", "sort=colour", "order=up"] {
        rig.get(&format!("/api/v1/files/d?{wrong}")).await.is(400);
    }
    assert_eq!(
        rig.get("/d?simple").await.is(200).text(),
        "a\nb\nc\ndir/\nto-a\nto-dir/\nto-nothing\n"
    );
    rig.get("/api/v1/files/").await.is(200);
    rig.get("/api/v1/files").await.is(200);
    let found = rig.get("/?q=TO-").await.is(200).json();
    assert_eq!(found["paths"].as_array().unwrap().len(), 3);
    assert_eq!(found["paths"][0]["name"], "d/to-a");
    rig.get(&format!("/?q={}", "x".repeat(513))).await.is(400);
}

#[tokio::test]
async fn a_browser_gets_the_page_and_programs_get_json() {
    let rig = Rig::new();
    rig.write("/d/page.html", "<script>1</script>");
    let browser = [("accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    for url in ["/", "/d", "/d/"] {
        let page = rig.send("GET", url, &browser, "").await.is(200);
        assert_eq!(
            (page.text().as_str(), page.header("vary")),
            ("the page", "accept")
        );
        assert_eq!(
            rig.send("GET", &format!("{url}?json"), &browser, "")
                .await
                .json()["kind"],
            "Index"
        );
        assert_eq!(rig.get(url).await.json()["kind"], "Index");
        assert_eq!(
            rig.send("GET", url, &[("accept", "*/*")], "").await.json()["kind"],
            "Index"
        );
    }
    let file = rig.send("GET", "/d/page.html", &browser, "").await.is(200);
    assert_eq!(file.header("content-type"), "text/html; charset=utf-8");
    assert!(
        file.header("content-security-policy")
            .starts_with("sandbox")
            && !file
                .header("content-security-policy")
                .contains("same-origin")
    );
    assert_eq!(rig.send("GET", "/missing", &browser, "").await.status, 404);
    let options = rig.call("OPTIONS", "/d").await.is(200);
    assert!(options.header("allow").contains("MKCOL"));
    assert_eq!(options.header("dav"), "1, 2");
    rig.call("TRACE", "/d").await.is(405);
    let auth = rig
        .send(
            "CHECKAUTH",
            "/",
            &[("authorization", "Basic bWU6cGFzcw==")],
            "",
        )
        .await
        .is(200);
    assert_eq!(auth.text(), "me");
    assert!(
        rig.call("LOGOUT", "/")
            .await
            .is(401)
            .header("www-authenticate")
            .starts_with("Basic")
    );
}

#[tokio::test]
async fn views_of_a_file_are_selected_by_the_query() {
    let rig = Rig::new();
    let text: String = (1..=300_000).map(|i| format!("line {i}\n")).collect();
    rig.write("/t.txt", &text);
    rig.write("/small.txt", "a\nb\nc");
    let sum = {
        use sha2::Digest;
        hex::encode(sha2::Sha256::digest(&text))
    };
    assert_eq!(
        rig.get("/api/v1/files/t.txt?sha256=&sha256=")
            .await
            .is(200)
            .text(),
        sum
    );
    assert_eq!(rig.get("/t.txt?hash").await.is(200).text(), sum);
    let base64 = rig.get("/api/v1/files/t.txt?base64").await.is(200);
    assert_eq!(
        base64.header("content-length"),
        base64.body.len().to_string()
    );
    use base64::Engine;
    assert_eq!(
        base64::engine::general_purpose::STANDARD
            .decode(&base64.body)
            .unwrap(),
        text.as_bytes()
    );
    for (url, want, range, total) in [
        (
            "/api/v1/files/t.txt?lines=2-3",
            "line 2\nline 3\n",
            "2-3",
            "",
        ),
        (
            "/api/v1/files/t.txt?lines=299999-",
            "line 299999\nline 300000\n",
            "299999-300000",
            "300000",
        ),
        (
            "/api/v1/files/t.txt?lines=-2",
            "line 299999\nline 300000\n",
            "-2",
            "",
        ),
        ("/small.txt?lines=2-99", "b\nc", "2-3", "3"),
        ("/small.txt?lines=-2", "b\nc", "-2", ""),
        ("/small.txt?lines=-99", "a\nb\nc", "1-3", "3"),
    ] {
        let answer = rig.get(url).await.is(200);
        assert_eq!(
            (
                answer.text().as_str(),
                answer.header("x-line-range"),
                answer.header("x-total-lines")
            ),
            (want, range, total),
            "{url}"
        );
    }
    let many = rig.get("/t.txt?lines=1-").await.is(200);
    assert_eq!(
        (many.header("x-line-range"), many.header("x-truncated")),
        ("1-100000", "true")
    );
    rig.get("/small.txt?lines=4").await.is(416);
    rig.get("/small.txt?lines=x").await.is(400);
    rig.get("/?lines=1").await.is(400);
    rig.get("/?sha256").await.is(400);
    let stat = rig.get("/api/v1/files/small.txt?stat").await.is(200).json();
    assert_eq!(
        (stat["size"].as_u64(), stat["path"].as_str()),
        (Some(5), Some("/small.txt"))
    );
    let download = rig.get("/small.txt?download").await.is(200);
    assert!(
        download
            .header("content-disposition")
            .starts_with("attachment; filename=\"small.txt\"")
    );
    assert_eq!(
        rig.get("/small.txt?content-type=application/x-thing")
            .await
            .header("content-type"),
        "application/x-thing"
    );
    rig.get("/small.txt?content-type=nonsense").await.is(400);
    rig.get("/small.txt?content-type=a/b%0d%0ax:y")
        .await
        .is(400);
    for absent in ["revision=1", "history", "thumbnail"] {
        rig.get(&format!("/small.txt?{absent}")).await.is(501);
    }
    rig.get("/?download=http://example.org/x").await.is(501);
    rig.put("/api/v1/files/x?backend=b", "x").await.is(404);
    assert!(!rig.at("/x").exists());
}

#[tokio::test]
async fn the_service_says_what_it_is_and_what_is_not_there() {
    let rig = Rig::new();
    assert_eq!(
        rig.get("/api/v1/version").await.is(200).json()["version"],
        "v1"
    );
    assert_eq!(
        rig.get("/api/v1/files/health").await.is(200).json()["service"],
        "files"
    );
    let document = rig.get("/api/v1/files/openapi.json").await.is(200).json();
    assert_eq!(
        document["paths"]["/api/v1/files/{path}"]["get"]["operationId"],
        "getFile"
    );
    assert_eq!(document["paths"]["/{path}"]["put"]["x-cli"], "files upload");
    rig.put("/api/v1/nothing", "x").await.is(404);
    rig.get("/api/v1/journal").await.is(404);
    assert!(!rig.at("/api").exists());
    rig.call("POST", "/api/v1/files/stat/x").await.is(405);
    // However its slashes are written, a path is a path.
    rig.write("/d/f", "f");
    for url in [
        "/api/v1/files//d/f",
        "/api/v1/files/%2Fd%2Ff",
        "/api/v1/files/d//f",
        "//d/f",
    ] {
        assert_eq!(rig.get(url).await.is(200).text(), "f", "{url}");
    }
    for url in [
        "/api/v1/files/stat/",
        "/api/v1/files/stat/%2F",
        "/api/v1/files/stat//",
    ] {
        assert_eq!(rig.get(url).await.is(200).json()["path"], "/", "{url}");
    }
    assert_eq!(
        rig.get("/api/v1/files/stat//d/f").await.is(200).json()["size"],
        1
    );
    assert_eq!(
        rig.get("/api/v1/files/glob/?pattern=d/*")
            .await
            .is(200)
            .json()["count"],
        1
    );
    // Its own words are still names, said with the slash encoded.
    rig.put("/api/v1/files/%2Fhealth", "mine").await.is(200);
    assert_eq!(
        rig.get("/api/v1/files/%2Fhealth").await.is(200).text(),
        "mine"
    );
    assert_eq!(rig.get("/health").await.is(200).text(), "mine");
}

#[tokio::test]
async fn a_directory_is_packed_while_it_is_sent() {
    let rig = Rig::new();
    let text = "the same words again and again\n".repeat(20_000);
    rig.write("/d/text.txt", &text);
    rig.write("/d/sub/empty", "");
    rig.write("/d/sub/\u{e4} b", "umlaut");
    symlink("text.txt", rig.at("/d/link")).unwrap();
    symlink(rig.dir.path().join("outside"), rig.at("/d/out")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        rig.at("/d/fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    fs::set_permissions(rig.at("/d/text.txt"), fs::Permissions::from_mode(0o751)).unwrap();
    let zip = rig.get("/api/v1/files/d?zip=&zip=").await.is(200);
    assert_eq!(zip.header("content-type"), "application/zip");
    assert!(zip.header("content-disposition").contains("d.zip"));
    assert!(zip.body.len() < text.len() / 10);
    let file = rig.dir.path().join("d.zip");
    fs::write(&file, &zip.body).unwrap();
    let script = r#"
import sys, zipfile, json
z = zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None
print(json.dumps({i.filename: [i.file_size, oct(i.external_attr >> 16), z.read(i).decode()[:20]] for i in z.infolist()}))
"#;
    let python = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(&file)
        .output()
        .unwrap();
    assert!(
        python.status.success(),
        "{}",
        String::from_utf8_lossy(&python.stderr)
    );
    let entries: Value = serde_json::from_slice(&python.stdout).unwrap();
    let mut names: Vec<_> = entries.as_object().unwrap().keys().cloned().collect();
    names.sort();
    assert_eq!(
        names,
        [
            "link",
            "out",
            "sub/",
            "sub/empty",
            "sub/\u{e4} b",
            "text.txt"
        ]
    );
    assert_eq!(
        entries["text.txt"],
        json!([text.len(), "0o100751", "the same words again"])
    );
    assert_eq!(entries["link"], json!([8, "0o120777", "text.txt"]));
    rig.get("/d/text.txt?zip").await.is(400);
    assert!(rig.call("HEAD", "/d?zip").await.is(200).body.is_empty());
}
