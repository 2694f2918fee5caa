use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("could not create the directory {path}")]
    CreateDirectory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("could not lock {path}")]
    Lock {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("could not read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("could not write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A file of the authority that cannot be made again without everybody noticing.
    #[error(
        "{path} is damaged: {what}; restore it from a backup, or move the directory {directory} \
         away to start with a new authority, which then has to be trusted anew"
    )]
    Damaged {
        path: PathBuf,
        directory: PathBuf,
        what: String,
    },
    #[error(
        "{path} is an authority for {found}, not for {wanted}; set the domain back, or move the \
         directory {directory} away to start with a new authority"
    )]
    OtherDomain {
        path: PathBuf,
        directory: PathBuf,
        found: String,
        wanted: String,
    },
    #[error(
        "the authority in {path} has ended; move the directory {directory} away to start with a \
         new one, which then has to be trusted anew"
    )]
    Ended { path: PathBuf, directory: PathBuf },
    #[error("could not make {what}")]
    Make {
        what: String,
        #[source]
        source: rcgen::Error,
    },
    #[error("a freshly made certificate for {name} cannot be used")]
    Use {
        name: String,
        #[source]
        source: rustls::Error,
    },
    #[error("the clock of this machine shows {now:?}, which no certificate can hold")]
    Clock { now: SystemTime },
    #[error("{path} holds no certificate in PEM form, so that it cannot be a root")]
    NoRoot { path: PathBuf },
    #[error("could not set up HTTPS to the directory: {why}")]
    NoClient { why: String },
    #[error(
        "{path} cannot be read as an account; move it away to make another, which the directory's \
         limits count as new"
    )]
    NoAccount {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("could not start the thread that orders certificates")]
    Spawn(#[source] io::Error),
}
