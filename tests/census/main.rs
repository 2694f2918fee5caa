//! How much of the wire contract there is, and whether tests call all of it.
//!
//! Run after all tests that call anything: they leave behind what they called, in
//! `contract-called` beside the build products; remove it to count anew. `HOODY_CENSUS_WRITE=1`
//! writes `contract/implemented.txt` anew.

use serde_json::Value;
use tests::contract::{Census, Contract, Coverage, namespace};

#[test]
fn the_contract_is_implemented_as_far_as_it_was_and_every_row_of_it_is_called() {
    let coverage = Coverage::of_this_build();
    let census = census(&coverage);
    println!(
        "contract: {} of {} rows implemented",
        census.implemented.len(),
        census.rows
    );
    if asked("HOODY_CENSUS_WRITE") {
        census.commit().expect("the list can be written");
        return;
    }
    let mut faults = Vec::new();
    for (rows, what) in [
        (
            &census.gone,
            "implemented once and no longer; HOODY_CENSUS_WRITE=1 takes them off the list",
        ),
        (
            &census.new,
            "new; HOODY_CENSUS_WRITE=1 puts them on contract/implemented.txt",
        ),
        (
            &census.uncalled,
            "called by no test; add a story to tests/it",
        ),
    ] {
        if !rows.is_empty() {
            let names: Vec<_> = rows.iter().map(String::as_str).collect();
            faults.push(format!(
                "{} rows are {what}:\n  {}",
                names.len(),
                names.join("\n  ")
            ));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn asked(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value == "1")
}

fn census(coverage: &Coverage) -> Census {
    let mut documents = vec![("api".to_owned(), control::document())];
    for document in kitd::services::documents()
        .into_iter()
        .chain([proxy_logs::document()])
    {
        let slug = document["x-service"]
            .as_str()
            .expect("documents name their service");
        documents.push((namespace(slug).to_owned(), document.clone()));
    }
    let documents = documents
        .iter()
        .map(|(name, document): &(String, Value)| (name.as_str(), document));
    Contract::get().census(documents, coverage)
}
