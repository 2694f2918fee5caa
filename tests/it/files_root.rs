//! The same files directly at the root of their host, as browsers and WebDAV clients have them.

use reqwest::{Method, RequestBuilder};
use serde_json::json;
use tests::Rig;
use tests::rig::Answer;

use crate::files::{Files, refused_by_files};
use crate::wire::each;

fn method(name: &str) -> Method {
    Method::from_bytes(name.as_bytes()).expect("a method")
}

async fn plain(files: &Files<'_>, verb: &str, path: &str) -> Answer {
    files.call(method(verb), path, |request| request).await
}

async fn to(files: &Files<'_>, verb: &str, path: &str, destination: &str) -> Answer {
    files
        .call(method(verb), path, |request| {
            request.header("destination", destination)
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_a_page_a_listing_and_an_archive() {
    let rig = Rig::start().await;
    let files = Files::of(&rig).await;
    for path in ["/docs/one.txt", "/docs/two.txt", "/docs/deep/one-more.txt"] {
        files.write(path, path).await;
    }
    let listing = plain(&files, "GET", "/docs?sort=name")
        .await
        .expect(200)
        .json();
    let names = each(&listing["paths"], "name");
    assert_eq!((names.len(), &listing["kind"]), (3, &json!("Index")));
    let browser = |request: RequestBuilder| request.header("accept", "text/html,*/*");
    let page = files.call(Method::GET, "/docs", browser).await.expect(200);
    assert!(page.header("content-type").starts_with("text/html") && page.text().contains("<html"));
    assert_eq!(
        files
            .call(Method::GET, "/docs/one.txt", browser)
            .await
            .expect(200)
            .text(),
        "/docs/one.txt"
    );
    assert_eq!(
        plain(&files, "GET", "/docs?simple")
            .await
            .expect(200)
            .text()
            .lines()
            .count(),
        3
    );

    let found = plain(&files, "GET", "/docs?q=ONE&json=")
        .await
        .expect(200)
        .json();
    assert_eq!(each(&found["paths"], "name").len(), 2, "{found}");
    let zip = plain(&files, "GET", "/docs?zip").await.expect(200);
    assert_eq!(zip.header("content-type"), "application/zip");
    assert!(zip.bytes.starts_with(b"PK") && zip.text().contains("deep/one-more.txt"));

    let head = plain(&files, "HEAD", "/docs/one.txt").await.expect(200);
    assert_eq!((head.header("content-length"), head.bytes.len()), ("13", 0));
    assert!(!head.header("etag").is_empty() && !head.header("last-modified").is_empty());
    plain(&files, "HEAD", "/nothing").await.expect(404);
    refused_by_files(plain(&files, "GET", "/nothing").await, 404);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webdav_client_makes_changes_and_removes() {
    let rig = Rig::start().await;
    let files = Files::of(&rig).await;
    let put = |path: &'static str, body: &'static str| {
        files.call(Method::PUT, path, move |request| request.body(body))
    };
    plain(&files, "MKCOL", "/box").await.expect(201);
    refused_by_files(plain(&files, "MKCOL", "/box").await, 405);
    refused_by_files(plain(&files, "MKCOL", "/no/parent").await, 409);
    put("/box/a.txt", "0123456789").await.expect(201);
    plain(&files, "PUT", "/box/empty?touch").await.expect(201);
    assert_eq!(files.read("/box/empty").await.as_deref(), Some(""));

    let patch = |path: &'static str, range: &'static str, body: &'static str| {
        files.call(Method::PATCH, path, move |request| {
            request.header("x-update-range", range).body(body)
        })
    };
    patch("/box/a.txt", "append", "ab").await.expect(204);
    patch("/box/a.txt", "bytes=2-3", "--").await.expect(204);
    assert_eq!(
        files.read("/box/a.txt").await.as_deref(),
        Some("01--456789ab")
    );
    refused_by_files(patch("/box/a.txt", "some", "x").await, 400);
    refused_by_files(patch("/box/nothing", "bytes=0-1", "xx").await, 404);
    let change = |body: serde_json::Value| {
        files.call(Method::PATCH, "/box/a.txt", move |request| {
            request.json(&body)
        })
    };
    change(json!({ "mode": "600" })).await.expect(204);
    refused_by_files(change(json!({})).await, 400);
    refused_by_files(change(json!({ "name": "../b" })).await, 400);

    to(&files, "COPY", "/box/a.txt", "/box/b.txt")
        .await
        .expect(204);
    let url = format!(
        "https://{}:{}/box/c.txt",
        files.container.host("files", 1),
        rig.client.port()
    );
    to(&files, "MOVE", "/box/b.txt", &url).await.expect(204);
    assert_eq!(
        (
            files.read("/box/b.txt").await,
            files.read("/box/c.txt").await.is_some()
        ),
        (None, true)
    );
    refused_by_files(
        to(
            &files,
            "MOVE",
            "/box/c.txt",
            "https://elsewhere.example/c.txt",
        )
        .await,
        502,
    );
    let keep = |request: RequestBuilder| {
        request
            .header("destination", "/box/a.txt")
            .header("overwrite", "F")
    };
    refused_by_files(files.call(method("COPY"), "/box/c.txt", keep).await, 412);
    refused_by_files(plain(&files, "COPY", "/box/c.txt").await, 400);

    let options = plain(&files, "OPTIONS", "/box").await.expect(200);
    assert!(options.header("allow").contains("MKCOL"));
    assert_eq!(options.header("dav"), "1, 2");
    assert_eq!(plain(&files, "CHECKAUTH", "/").await.expect(200).text(), "");
    let named = files
        .call(method("CHECKAUTH"), "/", |request| {
            request.basic_auth("ada", Some("secret"))
        })
        .await;
    assert_eq!(named.expect(200).text(), "ada");
    let out = plain(&files, "LOGOUT", "/").await.expect(401);
    assert!(out.header("www-authenticate").starts_with("Basic"));

    assert_eq!(
        plain(&files, "DELETE", "/box").await.expect(200).json()["success"],
        true
    );
    refused_by_files(plain(&files, "DELETE", "/box").await, 404);
    refused_by_files(plain(&files, "POST", "/").await, 405);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webdav_client_keeps_properties_and_locks() {
    let rig = Rig::start().await;
    let files = Files::of(&rig).await;
    files.write("/box/a.txt", "12345").await;
    let xml = |verb: &'static str, path: &'static str, body: &'static str| {
        files.call(method(verb), path, move |request| {
            request.header("depth", "1").body(body)
        })
    };
    let set = "<propertyupdate xmlns='DAV:'><set><prop><by xmlns='urn:t'>Ada</by></prop></set></propertyupdate>";
    let done = xml("PROPPATCH", "/box/a.txt", set).await.expect(207).text();
    assert!(done.contains("200 OK"), "{done}");
    let told = xml("PROPFIND", "/box", "").await.expect(207);
    assert!(told.header("content-type").starts_with("application/xml"));
    let told = told.text();
    for part in [
        "<D:href>/box/</D:href>",
        "<D:href>/box/a.txt</D:href>",
        "<D:getcontentlength>5</D:getcontentlength>",
        "<x:by xmlns:x=\"urn:t\">Ada</x:by>",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    refused_by_files(xml("PROPPATCH", "/box/a.txt", "<x/>").await, 400);
    refused_by_files(xml("PROPFIND", "/nothing", "").await, 404);

    let info = "<lockinfo xmlns='DAV:'><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>";
    let locked = files
        .call(method("LOCK"), "/box/a.txt", |request| {
            request.header("depth", "0").body(info)
        })
        .await
        .expect(200);
    let token = locked.header("lock-token").to_owned();
    assert!(locked.text().contains("<D:activelock>") && token.starts_with("<urn:uuid:"));
    let put = |condition: String| {
        files.call(Method::PUT, "/box/a.txt", move |request| {
            request.header("if", condition).body("mine")
        })
    };
    refused_by_files(
        files
            .call(Method::PUT, "/box/a.txt", |request| request.body("no"))
            .await,
        423,
    );
    refused_by_files(plain(&files, "DELETE", "/box").await, 423);
    refused_by_files(put("(<urn:uuid:other>)".to_owned()).await, 412);
    put(format!("({token})")).await.expect(201);
    let unlock = || {
        let token = token.clone();
        files.call(method("UNLOCK"), "/box/a.txt", move |request| {
            request.header("lock-token", token)
        })
    };
    unlock().await.expect(204);
    refused_by_files(unlock().await, 409);
    plain(&files, "DELETE", "/box").await.expect(200);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_looked_into_and_extracted() {
    let rig = Rig::start().await;
    let files = Files::of(&rig).await;
    files.write("/docs/a.txt", "aaa").await;
    files.write("/docs/deep/b.txt", "bb").await;
    let zip = plain(&files, "GET", "/docs?zip").await.expect(200).bytes;
    files
        .call(Method::PUT, "/w/docs.zip", |request| request.body(zip))
        .await
        .expect(201);
    let listed = plain(&files, "GET", "/w/docs.zip?preview").await;
    let listed = listed.expect(200).json();
    let paths = each(&listed["entries"], "path");
    assert_eq!(paths, ["a.txt", "deep/", "deep/b.txt"]);
    assert_eq!(
        (&listed["format"], &listed["total_size"]),
        (&json!("zip"), &json!(5))
    );
    let view = plain(&files, "GET", "/w/docs.zip?view_file=&preview=deep/b.txt").await;
    assert_eq!(view.expect(200).text(), "bb");

    for (url, missing) in [
        ("/w/docs.zip?extract=", None),
        (
            "/w/docs.zip?extract_file=&extract=a.txt&dest=part",
            Some("/w/part/deep"),
        ),
    ] {
        let begun = plain(&files, "GET", url).await.expect(200).json();
        let id = begun["extraction_id"].as_str().expect("an id").to_owned();
        let record = loop {
            let history = plain(&files, "GET", "/?extraction_history=")
                .await
                .expect(200)
                .json();
            let all = history["history"].as_array().expect("a list");
            if let Some(one) = all.iter().find(|one| one["id"] == *id) {
                break one.clone();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        };
        assert_eq!(record["status"], "completed", "{record}");
        if let Some(missing) = missing {
            plain(&files, "GET", missing).await.expect(404);
        }
    }
    assert_eq!(
        files.read("/w/docs/deep/b.txt").await.as_deref(),
        Some("bb")
    );
    assert_eq!(files.read("/w/part/a.txt").await.as_deref(), Some("aaa"));
    for url in ["/?extractions=", "/api/v1/extractions"] {
        let active = plain(&files, "GET", url).await.expect(200).json();
        assert_eq!(active["extractions"], json!([]));
    }
    refused_by_files(
        plain(&files, "GET", "/w/docs.zip?extract=&dest=../out").await,
        400,
    );
    refused_by_files(plain(&files, "GET", "/docs/a.txt?preview=").await, 400);
    rig.stop().await;
}
