//! Whom scripts run as.

use std::collections::BTreeMap;

use accounts::Account;

/// The variables that every script has: those of a login, with `/etc/environment` over them where
/// the kit has a machine to itself.
pub fn environment(
    account: Option<&Account>,
    home: &std::path::Path,
    machine: bool,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::from([
        ("PATH".to_owned(), accounts::PATH.to_owned()),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
        (
            "HOME".to_owned(),
            account
                .map_or(home, |account| &account.home)
                .display()
                .to_string(),
        ),
    ]);
    if let Some(account) = account {
        variables.insert("USER".to_owned(), account.name.clone());
        variables.insert("LOGNAME".to_owned(), account.name.clone());
    }
    if machine {
        variables.extend(accounts::machine_variables());
    }
    variables
}
