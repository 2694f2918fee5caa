//! Any name is an alias or not, one that is leads where it says, and no target leaves its host.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use routes::Id;
use routes::address::{Address, Zone};
use routes::domain::{Alias, check_name, check_target};

static ZONE: LazyLock<Zone> =
    LazyLock::new(|| Zone::new("hoody.localhost", "box1").expect("a good zone"));

fuzz_target!(|text: (&str, &str, &str, bool)| {
    let (name, target, asked, pinned) = text;
    if check_name(name, &ZONE).is_ok() {
        let host = format!("{name}.{}.{}", ZONE.node(), ZONE.containers());
        let meaning = Address::parse(&host, &ZONE).expect("an alias means something");
        assert!(matches!(meaning, Address::Alias(_)), "{meaning:?}");
        assert_eq!(meaning.host(&ZONE).to_string(), host);
    }
    let Ok(target) = check_target(target) else {
        return;
    };
    if let Some(target) = &target {
        assert!(target.starts_with('/') && !target.starts_with("//"));
        // What is checked is in its form.
        assert_eq!(check_target(target).as_ref(), Ok(&Some(target.clone())));
    }
    let alias = Alias {
        name: "shop".into(),
        container: Id([1; 12]),
        door: "files-1".parse().expect("a door"),
        target,
        pinned,
        expires: None,
    };
    let kept = serde_json::to_string(&alias).expect("an alias is JSON");
    assert_eq!(
        serde_json::from_str::<Alias>(&kept).expect("an alias"),
        alias
    );
    // What a client asks for begins with a slash, or is an asterisk; the alias passes it on, or
    // shows its own.
    let asked = format!("/{asked}");
    let path = |target: &str| target.split('?').next().unwrap_or_default().to_owned();
    match alias.target(&asked) {
        Ok(shown) => {
            let own = alias.target.as_deref().map_or_else(|| "/".to_owned(), path);
            let shown_path = path(&shown);
            assert!(shown_path == path(&asked) || shown_path == own, "{shown}");
            if pinned {
                assert!(shown_path == own || shown_path == "/" || shown_path.is_empty());
            }
        }
        Err(_) => assert!(pinned && path(&asked) != "/"),
    }
});
