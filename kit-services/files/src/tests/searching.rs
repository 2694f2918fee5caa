//! Names and contents found.

use super::*;

#[tokio::test]
async fn glob_finds_names_within_its_bounds() {
    let rig = Rig::new();
    for path in [
        "/w/a.rs",
        "/w/src/b.rs",
        "/w/src/deep/c.rs",
        "/w/src/d.md",
        "/w/target/e.rs",
        "/w/.git/f.rs",
        "/w/src/skip/g.rs",
    ] {
        rig.write(path, path);
    }
    rig.write("/w/.gitignore", "/target\n");
    rig.write("/w/src/.gitignore", "skip/\n");
    symlink("/w", rig.at("/w/src/loop")).unwrap();
    let find = |query: &'static str| {
        let rig = &rig;
        async move {
            let found = rig
                .get(&format!("/api/v1/files/glob/w?{query}&sort=name"))
                .await
                .is(200)
                .json();
            let names = found["entries"].as_array().unwrap().iter();
            (
                names
                    .map(|entry| entry["name"].as_str().unwrap().to_owned())
                    .collect::<Vec<_>>()
                    .join(" "),
                found,
            )
        }
    };
    assert_eq!(
        find("pattern=**/*.rs").await.0,
        "a.rs src/b.rs src/deep/c.rs"
    );
    assert_eq!(find("pattern=*.rs").await.0, "a.rs");
    assert_eq!(
        find("pattern=src/**/*.%7Brs,md%7D").await.0,
        "src/b.rs src/d.md src/deep/c.rs"
    );
    assert_eq!(
        find("pattern=**/*.rs&no_ignore=true").await.0,
        ".git/f.rs a.rs src/b.rs src/deep/c.rs src/skip/g.rs target/e.rs"
    );
    let (names, found) = find("pattern=**/*.rs&max_results=2").await;
    assert_eq!(
        (
            names.as_str(),
            found["truncated"].as_bool(),
            found["count"].as_u64()
        ),
        ("a.rs src/b.rs", Some(true), Some(2))
    );
    assert_eq!(find("pattern=**/*.rs&max_depth=1").await.0, "a.rs");
    assert_eq!(
        find("pattern=**/*.rs&max_files_scanned=2").await.1["truncated"],
        true
    );
    assert_eq!(find("pattern=src").await.1["entries"][0]["is_dir"], true);
    for wrong in [
        "",
        "pattern=",
        "pattern=[",
        "pattern=*&max_results=10001",
        "pattern=*&max_depth=101",
        "pattern=*&timeout=121",
        "pattern=*&max_files_scanned=500001",
    ] {
        rig.get(&format!("/api/v1/files/glob/w?{wrong}"))
            .await
            .is(400);
    }
    rig.get(&format!(
        "/api/v1/files/glob/w?pattern={}",
        "x".repeat(5000)
    ))
    .await
    .is(400);
    rig.get("/api/v1/files/glob/w/a.rs?pattern=*").await.is(404);
    rig.get("/api/v1/files/glob/missing?pattern=*")
        .await
        .is(404);
    let same = rig
        .get("/api/v1/files/w?glob=**/*.rs&sort=name")
        .await
        .is(200)
        .json();
    assert_eq!(same["count"], 3);
}

#[tokio::test]
async fn grep_finds_lines_within_its_bounds() {
    let rig = Rig::new();
    rig.write("/w/a.txt", "one\ntwo TODO two\nthree\nTODO\n");
    rig.write("/w/sub/b.md", "todo\nx.y\nxzy\n");
    rig.write("/w/binary", b"TODO\0TODO\n");
    rig.write("/w/big", vec![b'T'; 200_000]);
    rig.write("/w/many", "hit\n".repeat(2000));
    let find = |query: &'static str| {
        let rig = &rig;
        async move {
            rig.get(&format!("/api/v1/files/grep/w?{query}"))
                .await
                .is(200)
                .json()
        }
    };
    let found = find("pattern=TODO&context=1&glob=*.txt").await;
    assert_eq!(
        found["matches"],
        json!([
            { "path": "/w/a.txt", "line_number": 2, "column_byte": 5, "line": "two TODO two", "context_before": ["one"], "context_after": ["three"] },
            { "path": "/w/a.txt", "line_number": 4, "column_byte": 1, "line": "TODO" },
        ])
    );
    let counts = |found: &Value| {
        [
            "total_matches",
            "total_files_searched",
            "total_files_matched",
        ]
        .map(|key| found[key].as_u64().unwrap())
    };
    assert_eq!(
        counts(&find("pattern=TODO&ignore_case=true").await),
        [3, 5, 2]
    );
    assert_eq!(counts(&find("pattern=x.y").await), [2, 5, 1]);
    assert_eq!(
        counts(&find("pattern=x.y&fixed_string=true&glob=sub/*").await),
        [1, 1, 1]
    );
    assert_eq!(counts(&find("pattern=hit").await), [50, 5, 1]);
    assert_eq!(counts(&find("pattern=hit&max_count=1000").await)[0], 500);
    assert_eq!(find("pattern=hit&max_count=1000").await["truncated"], true);
    assert_eq!(counts(&find("pattern=hit&max_matches=7").await)[0], 7);
    assert_eq!(counts(&find("pattern=T&max_filesize=1000").await)[1], 3);
    let long = find("pattern=T&glob=big").await;
    assert_eq!(long["matches"][0]["line"].as_str().unwrap().len(), 4096);
    let one = rig
        .get("/api/v1/files/grep/w/a.txt?pattern=three")
        .await
        .is(200)
        .json();
    assert_eq!(one["matches"][0]["line_number"], 3);
    for wrong in [
        "",
        "pattern=",
        "pattern=(",
        "pattern=a&context=11",
        "pattern=a&max_matches=10001",
        "pattern=a&max_filesize=104857601",
        "pattern=a&glob=[",
    ] {
        rig.get(&format!("/api/v1/files/grep/w?{wrong}"))
            .await
            .is(400);
    }
    rig.get("/api/v1/files/grep/w?pattern=((a{1000}){1000}){1000}")
        .await
        .is(400);
    rig.get("/api/v1/files/grep/missing?pattern=x")
        .await
        .is(404);
    let same = rig
        .get("/api/v1/files/w?grep=TODO&glob=*.txt")
        .await
        .is(200)
        .json();
    assert_eq!(same["total_matches"], 2);
}
