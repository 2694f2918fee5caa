//! The host's way to the web, for a container that shares it: proxy settings for logins and apt.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

const BEGIN: &str = "# the host's proxy settings; kept by hoody\n";
const END: &str = "# end of the host's proxy settings\n";
const APT: &str = "apt/apt.conf.d/80hoody-proxy";
const LOGINS: &str = "environment";

/// Bring what the container has to what the host says. `etc` is `/etc`.
pub fn install(environment: &BTreeMap<String, String>, etc: &Path) -> io::Result<()> {
    let plain = |text: &str| !text.contains(['"', '\n', '\\', '\0']);
    let known: BTreeMap<_, _> = environment
        .iter()
        .filter(|(name, value)| plain(name) && plain(value))
        .collect();

    let before = read(&etc.join(LOGINS))?;
    let mut logins = without_block(&before);
    if !known.is_empty() {
        if !logins.is_empty() && !logins.ends_with('\n') {
            logins.push('\n');
        }
        let lines = known
            .iter()
            .map(|(name, value)| format!("{name}=\"{value}\"\n"));
        logins.extend(
            [BEGIN.to_owned()]
                .into_iter()
                .chain(lines)
                .chain([END.to_owned()]),
        );
    }
    if logins != before {
        replace(&etc.join(LOGINS), &logins)?;
    }

    let proxies = [("http_proxy", "http"), ("https_proxy", "https")];
    let apt: String = proxies
        .iter()
        .filter_map(|(name, scheme)| {
            let value = known
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(name))?
                .1;
            Some(format!("Acquire::{scheme}::Proxy \"{value}\";\n"))
        })
        .collect();
    let path = etc.join(APT);
    match (apt.is_empty(), path.exists()) {
        (true, true) => std::fs::remove_file(&path),
        (false, _) if read(&path)? != apt => replace(&path, &apt),
        _ => Ok(()),
    }
}

fn without_block(text: &str) -> String {
    match (text.find(BEGIN), text.find(END)) {
        (Some(begin), Some(end)) if begin < end => {
            format!("{}{}", &text[..begin], &text[end + END.len()..])
        }
        _ => text.to_owned(),
    }
}

fn read(path: &Path) -> io::Result<String> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    }
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let fresh = path.with_extension("hoody-new");
    std::fs::write(&fresh, text)?;
    std::fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_and_go_and_leave_the_rest_alone() {
        let etc = tempfile::tempdir().unwrap();
        let (logins, apt) = (etc.path().join(LOGINS), etc.path().join(APT));
        std::fs::write(&logins, "MINE=1").unwrap();
        let mut environment = BTreeMap::from([
            ("http_proxy".to_owned(), "http://proxy:3128".to_owned()),
            ("no_proxy".to_owned(), "localhost".to_owned()),
            ("EVIL".to_owned(), "a\"\nb".to_owned()),
        ]);
        for _ in 0..2 {
            install(&environment, etc.path()).unwrap();
            let text = std::fs::read_to_string(&logins).unwrap();
            assert_eq!(
                text.matches("http_proxy=\"http://proxy:3128\"\n").count(),
                1,
                "{text}"
            );
            assert!(
                text.starts_with("MINE=1\n") && !text.contains("EVIL"),
                "{text}"
            );
            let text = std::fs::read_to_string(&apt).unwrap();
            assert_eq!(text, "Acquire::http::Proxy \"http://proxy:3128\";\n");
        }
        environment.clear();
        install(&environment, etc.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&logins).unwrap(), "MINE=1\n");
        assert!(!apt.exists());
    }
}
