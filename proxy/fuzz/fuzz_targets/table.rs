//! Any line of the feed is refused or applied, and what was applied is found again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use routes::table::{Change, Table, Update};

fuzz_target!(|lines: &[u8]| {
    let mut table = Table::default();
    for line in lines.split(|&byte| byte == b'\n') {
        let Ok(update) = serde_json::from_slice::<Update>(line) else {
            continue;
        };
        let again = serde_json::to_vec(&update).expect("an update is JSON");
        assert_eq!(
            serde_json::from_slice::<Update>(&again).expect("an update"),
            update
        );
        let (generation, change) = (update.generation, update.change.clone());
        table.apply(update);
        assert_eq!(table.generation, generation);
        match change {
            Change::Replace(places) => {
                assert!(table.places.len() <= places.len() && table.projects.is_empty());
            }
            Change::Whole(whole) => {
                assert!(table.places.len() <= whole.places.len());
                assert!(table.projects.len() <= whole.projects.len());
            }
            Change::Upsert(place) => {
                let found = table.find(Some(place.project), place.container);
                assert_eq!(found.map(|found| &**found), Some(&place));
            }
            Change::Remove(container) => assert!(table.find(None, container).is_none()),
            Change::Project(project) => {
                assert_eq!(table.projects.get(&project.id).map(|it| &**it), project.policy.as_ref());
            }
            Change::Alias(alias) => {
                assert_eq!(table.aliases.get(&alias.name).map(|it| &**it), Some(&alias));
            }
            Change::NoAlias(name) => assert!(table.aliases.get(&name).is_none()),
        }
        assert!(
            table
                .places
                .iter()
                .all(|(id, place)| *id == place.container)
        );
    }
    let kept = serde_json::to_vec(&table).expect("a table is JSON");
    assert_eq!(
        serde_json::from_slice::<Table>(&kept).expect("a table"),
        table
    );
});
