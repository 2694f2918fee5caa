//! What SQLite says went wrong, as a failure for the caller.

use http::StatusCode;
use kit::Fault;
use rusqlite::{Error, ErrorCode};
use std::time::Duration;

use crate::watch::{Over, Watch};

/// What a statement of somebody else's did that is not let through is told by [`Watch`].
pub fn of(error: &Error, watch: &Watch) -> Fault {
    if let Some(reason) = watch.refusal() {
        return Fault::forbidden(reason).code("NOT_ALLOWED");
    }
    match error {
        Error::SqliteFailure(failure, message) => {
            let said = message
                .clone()
                .unwrap_or_else(|| rusqlite::ffi::code_to_str(failure.extended_code).to_owned());
            of_code(failure.code, failure.extended_code, said, watch)
        }
        Error::SqlInputError {
            error, msg, offset, ..
        } => match error.code {
            ErrorCode::Unknown => {
                let at = match *offset {
                    at if at >= 0 => format!(" (at byte {at} of the statement)"),
                    _ => String::new(),
                };
                Fault::bad_request(format!("{msg}{at}")).code("SQL_ERROR")
            }
            code => of_code(code, error.extended_code, msg.clone(), watch),
        },
        Error::MultipleStatement => {
            Fault::bad_request("one statement at a time; send the others as items of their own")
                .code("MULTIPLE_STATEMENTS")
        }
        Error::NulError(_) => {
            Fault::bad_request("a statement has no NUL characters").code("SQL_ERROR")
        }
        other => Fault::bad_request(other.to_string()).code("SQL_ERROR"),
    }
}

fn of_code(code: ErrorCode, extended: i32, said: String, watch: &Watch) -> Fault {
    match code {
        ErrorCode::ConstraintViolation => Fault::conflict(said).code("CONSTRAINT"),
        ErrorCode::DatabaseBusy if extended == rusqlite::ffi::SQLITE_BUSY_SNAPSHOT => {
            let message = "somebody else has written since this transaction began to read, so it \
                           cannot write; roll it back and begin anew, with BEGIN IMMEDIATE";
            Fault::conflict(message).code("BUSY_SNAPSHOT")
        }
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => busy(),
        ErrorCode::OperationInterrupted => match watch.over() {
            Some(Over::Gone) => Fault::unavailable("the caller went away").code("CANCELLED"),
            _ => timeout(watch.allowed()),
        },
        ErrorCode::NotADatabase => not_a_database(),
        ErrorCode::DatabaseCorrupt => Fault::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!(
                "the database is damaged ({said}); look at it with the maintenance operation \
                 quick_check, and restore it from a backup"
            ),
        )
        .code("CORRUPT"),
        ErrorCode::DiskFull => {
            let message = "the disk is full; nothing of this was written. Make room and try again";
            Fault::new(StatusCode::INSUFFICIENT_STORAGE, message).code("DISK_FULL")
        }
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied => {
            Fault::forbidden(format!("the database cannot be written: {said}")).code("READ_ONLY")
        }
        ErrorCode::AuthorizationForStatementDenied => {
            Fault::forbidden(format!("this is not let through here: {said}")).code("NOT_ALLOWED")
        }
        ErrorCode::TooBig => Fault::too_large(format!(
            "{said}: a statement has at most {} bytes, a value at most {}",
            crate::limits::STATEMENT,
            crate::limits::VALUE
        ))
        .code("TOO_BIG"),
        ErrorCode::OutOfMemory => Fault::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!(
                "this needs more than the {} bytes that all databases here may use together; ask \
                 for less at a time",
                crate::limits::HEAP
            ),
        )
        .code("MEMORY_LIMIT"),
        ErrorCode::CannotOpen => Fault::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("the database cannot be opened: {said}"),
        )
        .code("CANNOT_OPEN"),
        ErrorCode::SystemIoFailure => {
            tracing::warn!(extended, said, "a database could not be read or written");
            Fault::internal(format!("the disk failed: {said}")).code("IO_ERROR")
        }
        _ => Fault::bad_request(said).code("SQL_ERROR"),
    }
}

/// What was named is something else.
pub fn not_a_database() -> Fault {
    Fault::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "the file is not an SQLite database, or it is encrypted; name another one",
    )
    .code("NOT_A_DATABASE")
}

/// Somebody else writes.
pub fn busy() -> Fault {
    Fault::unavailable(format!(
        "another transaction has been writing to this database for more than {} seconds; try again",
        crate::limits::BUSY.as_secs()
    ))
    .code("BUSY")
    .retry_after(Duration::from_secs(1))
}

/// It took too long.
pub fn timeout(allowed: Duration) -> Fault {
    Fault::new(
        StatusCode::REQUEST_TIMEOUT,
        format!(
            "it was ended after {} s; ask for less at a time, add an index, or pass a longer \
             timeout (at most {} s)",
            allowed.as_secs_f64(),
            crate::limits::LONGEST.as_secs()
        ),
    )
    .code("TIMEOUT")
}

/// Whether trying again may help: another connection holds a lock.
pub fn is_busy(error: &Error) -> bool {
    let (code, extended) = match error {
        Error::SqliteFailure(failure, _) => (failure.code, failure.extended_code),
        Error::SqlInputError { error, .. } => (error.code, error.extended_code),
        _ => return false,
    };
    // a transaction that read what is no longer the newest can never write
    matches!(code, ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
        && extended != rusqlite::ffi::SQLITE_BUSY_SNAPSHOT
}
