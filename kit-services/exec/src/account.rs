//! Whom scripts run as.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use accounts::Account;

/// What the variables of scripts come from. They are those of the moment in which a script starts.
#[derive(Debug)]
pub struct Environment {
    pub home: PathBuf,
    /// Whether the kit has a machine to itself.
    pub machine: bool,
    /// Over all others.
    pub extra: BTreeMap<String, String>,
}

impl Environment {
    /// The variables that every script has: those of a login, with those of the machine over them.
    pub fn of(&self, account: Option<&Account>) -> BTreeMap<String, String> {
        let home = account.map_or(&self.home, |account| &account.home);
        let mut variables = BTreeMap::from([
            ("PATH".to_owned(), accounts::PATH.to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("HOME".to_owned(), home.display().to_string()),
        ]);
        if let Some(account) = account {
            variables.insert("USER".to_owned(), account.name.clone());
            variables.insert("LOGNAME".to_owned(), account.name.clone());
        }
        if self.machine {
            variables.extend(accounts::machine_variables());
        }
        variables.extend(self.extra.clone());
        variables
    }

    /// The file whose change makes variables others.
    pub fn file(&self) -> Option<&'static Path> {
        self.machine.then(|| Path::new(accounts::VARIABLES))
    }
}
