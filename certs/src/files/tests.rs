use std::time::SystemTime;

use rcgen::{CertificateParams, KeyPair};

use super::*;

/// A certificate for some names that ends in so many days, and its key.
fn made(names: &[&str], days: i64) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(days);
    let certificate = params.self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn open(directory: &Path) -> Files {
    let nothing = Arc::new(Resolver::new(Names::default()));
    Files::open(directory, Arc::new(SystemTime::now), nothing).unwrap()
}

/// The first certificate that is shown for a name, in PEM form as [`made`] has it.
fn shown(files: &Files, host: &str) -> Option<Vec<u8>> {
    Some(files.resolver().find(host)?.cert[0].to_vec())
}

fn der(pem: &str) -> Vec<u8> {
    use rustls_pki_types::pem::PemObject;
    rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes())
        .unwrap()
        .to_vec()
}

#[test]
fn certificates_are_found_in_every_usual_place() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (one, one_key) = made(&["one.example", "*.One.example"], 90);
    let (two, two_key) = made(&["two.example"], 90);
    let (three, three_key) = made(&["three.example"], 90);
    let (four, four_key) = made(&["four.example"], 90);
    fs::write(at("one.crt"), &one).unwrap();
    fs::write(at("one.key"), one_key).unwrap();
    fs::write(at("two.pem"), &two).unwrap();
    fs::write(at("two.key"), two_key).unwrap();
    fs::write(at("three.pem"), format!("{three_key}{three}")).unwrap();
    fs::create_dir(at("four.example")).unwrap();
    fs::write(at("four.example/fullchain.pem"), &four).unwrap();
    fs::write(at("four.example/privkey.pem"), four_key).unwrap();
    fs::write(at("README"), "live/ holds the certificates").unwrap();
    let files = open(directory.path());
    for (host, expected) in [
        ("one.example", Some(&one)),
        ("www.one.example", Some(&one)),
        ("two.example", Some(&two)),
        ("three.example", Some(&three)),
        ("four.example", Some(&four)),
        ("five.example", None),
    ] {
        assert_eq!(shown(&files, host), expected.map(|pem| der(pem)), "{host}");
    }
    let holdings = files.holdings();
    assert_eq!(holdings.len(), 4);
    assert!(
        holdings
            .iter()
            .all(|it| it.error.is_none() && it.ends.is_some())
    );
}

#[test]
fn a_change_is_taken_up_and_a_broken_one_leaves_what_there_was() {
    let directory = tempfile::tempdir().unwrap();
    let (chain, key) = (
        directory.path().join("a.crt"),
        directory.path().join("a.key"),
    );
    let put = |(certificate, private): &(String, String)| {
        fs::write(&chain, certificate).unwrap();
        fs::write(&key, private).unwrap();
    };
    let (first, second) = (made(&["a.example"], 30), made(&["a.example"], 60));
    put(&first);
    let files = open(directory.path());
    assert!(!files.look().unwrap(), "nothing changed");
    put(&second);
    assert!(files.look().unwrap());
    assert_eq!(shown(&files, "a.example"), Some(der(&second.0)));
    for (certificate, private) in [
        (first.0.clone(), second.1.clone()),
        (String::new(), second.1.clone()),
        (second.0.clone(), "-----BEGIN PRIVATE KEY-----".to_owned()),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
            second.1.clone(),
        ),
    ] {
        put(&(certificate.clone(), private));
        assert!(files.look().unwrap());
        assert!(!files.look().unwrap(), "it is said once");
        assert_eq!(
            shown(&files, "a.example"),
            Some(der(&second.0)),
            "{certificate}"
        );
        assert!(files.holdings()[0].error.is_some());
    }
    fs::remove_file(&key).unwrap();
    files.look().unwrap();
    assert_eq!(
        shown(&files, "a.example"),
        Some(der(&second.0)),
        "the key is gone"
    );
    put(&first);
    files.look().unwrap();
    assert_eq!(shown(&files, "a.example"), Some(der(&first.0)));
    assert_eq!(files.holdings()[0].error, None);
    // Who takes both away does not want it shown any more.
    fs::remove_file(&chain).unwrap();
    files.look().unwrap();
    assert_eq!(shown(&files, "a.example"), None);
}

#[test]
fn of_two_for_one_name_the_one_that_ends_later_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    let (long, short) = (made(&["a.example"], 80), made(&["a.example"], 20));
    for (name, (chain, key)) in [("1.pem", &long), ("2.pem", &short)] {
        fs::write(directory.path().join(name), format!("{chain}{key}")).unwrap();
    }
    let files = open(directory.path());
    assert_eq!(shown(&files, "a.example"), Some(der(&long.0)));
    let left = files.seconds_left(SystemTime::now());
    assert_eq!(left.len(), 1);
    let days = left[0].1 / (24 * 3600);
    assert!(
        (19..=20).contains(&days),
        "the one that ends first counts: {days}"
    );
}

#[test]
fn a_file_that_is_no_certificate_by_its_size_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = fs::File::create(directory.path().join("a.pem")).unwrap();
    file.set_len(FILE_BYTES + 1).unwrap();
    let files = open(directory.path());
    let error = files.holdings()[0].error.clone().unwrap();
    assert!(error.contains("at most"), "{error}");
}

#[test]
fn a_directory_that_is_not_there_is_told() {
    let nothing = Arc::new(Resolver::new(Names::default()));
    let missing = Path::new("/nonexistent/certificates");
    let error = Files::open(missing, Arc::new(SystemTime::now), nothing)
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("/nonexistent/certificates"),
        "{error}"
    );
}

#[test]
fn what_is_too_much_to_be_read_is_told() {
    let directory = tempfile::tempdir().unwrap();
    for number in 0..3 {
        let (chain, key) = made(&[&format!("n{number}.example")], 90);
        fs::write(
            directory.path().join(format!("{number}.pem")),
            format!("{key}{chain}"),
        )
        .unwrap();
    }
    let nothing = Arc::new(Resolver::new(Names::default()));
    let clock = Arc::new(SystemTime::now);
    let files = Files::open_with(directory.path(), clock, nothing, 2).unwrap();
    let holdings = files.holdings();
    assert_eq!(holdings.len(), 3, "two that were read, and a word");
    let told = holdings[2].error.as_deref().unwrap();
    assert!(told.contains("more than 2 entries"), "{told}");
    let mut all = fs::read_dir(directory.path()).unwrap();
    fs::remove_file(all.next().unwrap().unwrap().path()).unwrap();
    files.look().unwrap();
    let holdings = files.holdings();
    assert!(holdings.iter().all(|it| it.error.is_none()), "{holdings:?}");
    assert_eq!(holdings.len(), 2);
}
