//! Archives: looked into, extracted, and built to attack.

use std::io::Write;

use super::*;

enum Member<'a> {
    File(&'a str, &'a [u8], u32),
    Link(tar::EntryType, &'a str, &'a str),
    Special(&'a str),
}

/// A tar archive; names go in as they are, which no honest writer would do.
fn tarball(members: &[Member<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for member in members {
        let mut header = tar::Header::new_gnu();
        let (name, content, kind, mode, target) = match member {
            Member::File(name, content, mode) => {
                (*name, *content, tar::EntryType::Regular, *mode, "")
            }
            Member::Link(kind, name, target) => (*name, &b""[..], *kind, 0o777, *target),
            Member::Special(name) => (*name, &b""[..], tar::EntryType::Char, 0o666, ""),
        };
        let fields = header.as_old_mut();
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        fields.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_mtime(1_000_000_000);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zipped(members: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = ::zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in members {
        let options = ::zip::write::SimpleFileOptions::default();
        writer.start_file(*name, options).unwrap();
        writer.write_all(content.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

impl Rig {
    /// Extract, wait, and tell what the history says of it.
    async fn extract(&self, url: &str) -> Value {
        let begun = self.get(url).await.is(200).json();
        let id = begun["extraction_id"].clone();
        for _ in 0..600 {
            let history = self.get("/?extraction_history").await.is(200).json();
            let mut all = history["history"].as_array().unwrap().iter();
            if let Some(one) = all.find(|one| one["id"] == id) {
                return one.clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{begun} goes on for ever");
    }

    async fn fails(&self, url: &str, why: &str) {
        let record = self.extract(url).await;
        assert_eq!(record["status"], "failed", "{record}");
        assert!(record["error"].as_str().unwrap().contains(why), "{record}");
        self.intact();
        self.clean();
    }
}

#[tokio::test]
async fn archives_are_listed_shown_and_extracted() {
    let rig = Rig::new();
    let tar = tarball(&[
        Member::File("src/a.txt", b"aaa", 0o640),
        Member::File("./src/run", b"#!", 0o4755),
        Member::Link(tar::EntryType::Symlink, "src/link", "a.txt"),
        Member::Link(tar::EntryType::Link, "hard", "src/a.txt"),
        Member::Special("null"),
    ]);
    rig.write("/w/one.tar", &tar);
    rig.write("/w/one.tar.gz", gzip(&tar));
    rig.write(
        "/w/two.zip",
        zipped(&[("a/x.html", "<b>"), ("a/y", "yy"), ("b", "b")]),
    );
    for name in ["one.tar", "one.tar.gz"] {
        let listed = rig.get(&format!("/w/{name}?preview")).await.is(200).json();
        assert_eq!(listed["format"], name.trim_start_matches("one."));
        assert_eq!(
            (&listed["total_files"], &listed["total_size"]),
            (&json!(5), &json!(5))
        );
        assert_eq!(listed["entries"][2]["link_target"], "a.txt");
        assert_eq!(listed["entries"][0]["permissions"], 0o640);
    }
    let page = rig
        .get("/w/two.zip?view_file&preview=a/x.html")
        .await
        .is(200);
    assert_eq!(
        (page.text().as_str(), page.header("content-type")),
        ("<b>", "text/html; charset=utf-8")
    );
    assert!(
        page.header("content-security-policy")
            .starts_with("sandbox")
    );
    assert_eq!(
        rig.get("/w/one.tar.gz?contents=src/run")
            .await
            .is(200)
            .text(),
        "#!"
    );
    rig.get("/w/two.zip?preview=nothing").await.refused(404);
    rig.get("/w/two.zip?preview=../../b").await.refused(404);
    rig.get("/w?preview").await.refused(400);
    rig.get("/w/missing.zip?preview").await.refused(404);

    let done = rig.extract("/w/one.tar.gz?extract").await;
    assert_eq!(
        (&done["status"], &done["dest_path"]),
        (&json!("completed"), &json!("/w/one")),
        "{done}"
    );
    assert_eq!(
        (&done["extracted_files"], &done["extracted_bytes"]),
        (&json!(4), &json!(5))
    );
    assert_eq!(
        (
            rig.read("/w/one/src/link").as_str(),
            rig.read("/w/one/hard").as_str()
        ),
        ("aaa", "aaa")
    );
    let mode = |path: &str| fs::metadata(rig.at(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(
        (mode("/w/one/src/a.txt"), mode("/w/one/src/run")),
        (0o640, 0o755)
    );
    assert!(!rig.at("/w/one/null").exists());
    rig.extract("/w/two.zip?extract_file&extract=a/y&dest=deep/er")
        .await;
    assert_eq!(rig.read("/w/deep/er/a/y"), "yy");
    assert!(!rig.at("/w/deep/er/b").exists());
    rig.fails("/w/two.zip?extract=nothing&dest=none", "no file nothing")
        .await;
    for wrong in ["dest=/abs", "dest=../up", "dest=a/../../b"] {
        rig.get(&format!("/w/two.zip?extract&{wrong}"))
            .await
            .refused(400);
    }
    rig.get("/w/two.zip?extract=../x").await.refused(400);
    rig.get("/w/deep/er/a/y?extract").await.refused(400);
    rig.call("HEAD", "/w/two.zip?extract").await.is(403);
    rig.send(
        "GET",
        "/w/two.zip?extract",
        &[("sec-fetch-site", "cross-site")],
        "",
    )
    .await
    .refused(403);
    assert!(!rig.at("/w/two").exists());
    assert_eq!(
        rig.get("/?extractions").await.is(200).json()["extractions"],
        json!([])
    );
}

#[tokio::test]
async fn what_an_archive_says_leads_nowhere_else() {
    let rig = Rig::new();
    let outside = rig.dir.path().join("outside");
    let outside = outside.to_str().unwrap();
    let symlink_type = tar::EntryType::Symlink;
    for (name, member) in [
        ("up", Member::File("../up", b"x", 0o644)),
        ("abs", Member::File("/abs", b"x", 0o644)),
        ("mid", Member::File("a/../../mid", b"x", 0o644)),
    ] {
        rig.write(&format!("/w/{name}.tar"), tarball(&[member]));
        rig.fails(&format!("/w/{name}.tar?extract"), "leads out")
            .await;
    }
    rig.write("/w/slip.zip", zipped(&[("../slip", "x")]));
    rig.fails("/w/slip.zip?extract", "leads out").await;
    rig.write(
        "/w/link.tar",
        tarball(&[
            Member::Link(symlink_type, "out", outside),
            Member::Link(symlink_type, "up", "../../../outside"),
            Member::Link(symlink_type, "in", "dir"),
            Member::File("ok", b"ok", 0o644),
        ]),
    );
    assert_eq!(
        rig.extract("/w/link.tar?extract").await["extracted_files"],
        2
    );
    assert!(
        fs::symlink_metadata(rig.at("/w/link/out")).is_err()
            && fs::symlink_metadata(rig.at("/w/link/up")).is_err()
    );
    // Through a link that the archive brought, or that was there.
    rig.write(
        "/w/through.tar",
        tarball(&[
            Member::Link(symlink_type, "d", "sub"),
            Member::File("d/x", b"x", 0o644),
        ]),
    );
    rig.fails("/w/through.tar?extract", "could not write").await;
    fs::create_dir(rig.at("/w/there")).unwrap();
    symlink(outside, rig.at("/w/there/d")).unwrap();
    rig.fails("/w/through.tar?extract=d&dest=there", "could not write")
        .await;
    symlink(outside, rig.at("/w/dest")).unwrap();
    assert!(
        rig.get("/w/link.tar?extract&dest=dest")
            .await
            .status
            .is_client_error()
    );
    // A file takes the place of a link, not of what it leads to.
    symlink(format!("{outside}/secret"), rig.at("/w/there/ok")).unwrap();
    rig.extract("/w/link.tar?extract=ok&dest=there").await;
    assert!(
        fs::symlink_metadata(rig.at("/w/there/ok"))
            .unwrap()
            .is_file()
    );
    rig.write(
        "/w/hard.tar",
        tarball(&[Member::Link(
            tar::EntryType::Link,
            "h",
            "../../outside/secret",
        )]),
    );
    rig.fails("/w/hard.tar?extract", "leads out").await;
    rig.write(
        "/w/hard2.tar",
        tarball(&[Member::Link(tar::EntryType::Link, "h", "d/secret")]),
    );
    rig.fails("/w/hard2.tar?extract&dest=there", "could not write")
        .await;
    rig.intact();
}

#[tokio::test]
async fn bombs_and_broken_archives_end_early() {
    let rig = Rig::new();
    // 600 MiB of zeroes in less than one.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let mut header = tar::Header::new_gnu();
    header.set_path("zeroes").unwrap();
    header.set_size(600 << 20);
    header.set_mode(0o644);
    header.set_cksum();
    encoder.write_all(header.as_bytes()).unwrap();
    let zeroes = vec![0; 1 << 20];
    for _ in 0..600 {
        encoder.write_all(&zeroes).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 1 << 20);
    rig.write("/bomb.tar.gz", &bomb);
    rig.fails("/bomb.tar.gz?extract", "more comes out").await;
    rig.get("/bomb.tar.gz?preview").await.refused(413);
    assert!(!rig.at("/bomb/zeroes").exists());
    // A name of 100 MiB, which a reader would gather in memory.
    let mut long = tar::Header::new_gnu();
    long.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
    long.set_entry_type(tar::EntryType::GNULongName);
    long.set_size(100 << 20);
    long.set_cksum();
    let mut name = long.as_bytes().to_vec();
    name.resize(512 + (100 << 20), b'a');
    rig.write("/name.tar.gz", gzip(&name));
    rig.get("/name.tar.gz?preview").await.refused(413);
    // A zip that announces more entries than it may have.
    let mut many = zipped(&[("a", "a")]);
    let end = many.len() - 22;
    many[end + 8..end + 12].copy_from_slice(&[0xff; 4]);
    rig.write("/many.zip", many);
    rig.get("/many.zip?preview").await.refused(413);
    for (name, bytes) in [
        ("x.zip", &b"no"[..]),
        ("x.tar", b"no"),
        ("x.tar.gz", b"no"),
        ("x.tar.bz2", b"no"),
        ("x.tar.xz", b"no"),
    ] {
        rig.write(&format!("/{name}"), bytes);
        rig.get(&format!("/{name}?preview")).await.refused(422);
        rig.fails(&format!("/{name}?extract"), "cannot be read")
            .await;
    }
}

#[tokio::test]
async fn a_lock_keeps_an_archive_from_being_extracted_over_it() {
    let rig = Rig::new();
    rig.write("/a.zip", zipped(&[("f", "new")]));
    rig.write("/a/f", "old");
    let info = "<lockinfo xmlns='DAV:'><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>";
    rig.send("LOCK", "/a/f", &[], info).await.is(200);
    rig.get("/a.zip?extract").await.refused(423);
    assert_eq!(rig.read("/a/f"), "old");
}

/// A tar archive with `usual` in `a.txt`, in base64.
const USUAL_XZ: &str = "/Td6WFoAAATm1rRGAgAhARwAAAAQz1jM4Cf/AF1dADCLiofEDvKXpPh1PcWp7dmXqh+bSp6krW04vBYHqqCPKVTvjX\
    vM/CinOmbCwbZn+mH/o87K6UhLhURVcU9uZQQEZWWmuUvCm/Kx8CHvkOm/3h3Gpl8dbAI7I158AAAAAABSSO4jr9Gm\
    UwABeYBQAAAA5DeTlbHEZ/sCAAAAAARZWg==";
const USUAL_BZ2: &str = "QlpoOTFBWSZTWfARHH0AAG17gMmAAAJAAXeAAAhgBB5ACAggAFQ0p6mmmE0bTRkgkkJo00yaMg3/khyEF4IQieK7HM\
    5aoEMDGKvE9hF3IGi0VIx5MYZfAYd24ffcyIgPxdyRThQkPARHH0A=";

fn base64(text: &str) -> Vec<u8> {
    use ::base64::Engine;
    let engine = ::base64::engine::general_purpose::STANDARD;
    engine.decode(text).unwrap()
}

/// An xz stream that asks for a dictionary of nearly 4 GiB before anything else.
fn greedy_xz() -> Vec<u8> {
    let checked = |bytes: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        [bytes, &crc.sum().to_le_bytes()].concat()
    };
    let mut stream = b"\xfd7zXZ\0".to_vec();
    stream.extend(checked(&[0x00, 0x01]));
    // 12 bytes in all, one filter: LZMA2 with one byte of properties
    stream.extend(checked(&[0x02, 0x00, 0x21, 0x01, 40, 0, 0, 0]));
    stream.extend([0; 64]);
    stream
}

#[tokio::test]
async fn a_dictionary_that_is_too_large_is_not_made() {
    let rig = Rig::new();
    rig.write("/greedy.tar.xz", greedy_xz());
    let said = rig.get("/greedy.tar.xz?preview").await.is(422).json();
    let message = said["message"].as_str().or(said["error"].as_str());
    assert!(
        message.is_some_and(|text| text.contains("memory")),
        "{said}"
    );

    // As `xz -9` and `bzip2` write them.
    for (name, content) in [("usual.tar.xz", USUAL_XZ), ("usual.tar.bz2", USUAL_BZ2)] {
        rig.write(&format!("/{name}"), base64(content));
        let listed = rig.get(&format!("/{name}?preview")).await.is(200).json();
        assert_eq!(listed["entries"][0]["path"], "a.txt", "{listed}");
        let shown = rig.get(&format!("/{name}?preview=a.txt")).await.is(200);
        assert_eq!(shown.text(), "usual");
    }
}
