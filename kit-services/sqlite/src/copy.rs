//! Whole databases: copying one while others write, and taking one in.

use std::path::Path;
use std::time::Duration;

use http::StatusCode;
use kit::Fault;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use crate::connection::Guarded;
use crate::fault;
use crate::name::{Name, Place};
use crate::watch::Over;

/// Pages that are copied between two looks at the clock.
const PAGES: i32 = 256;

/// Open a file for a copy that is to be written into it.
fn blank(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.execute_batch("PRAGMA synchronous = OFF")?;
    Ok(connection)
}

/// Copy a database to a file that is there and empty: the state at one moment, without gaps.
pub fn into_file(connection: &Guarded, path: &Path) -> Result<(), Fault> {
    let failed = |error: &rusqlite::Error| connection.fault(error);
    let copied = connection.watch.trusted(|| -> Result<(), Fault> {
        // one moment: what others write meanwhile is not seen
        connection
            .execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")
            .map_err(|error| failed(&error))?;
        let mut into = blank(path).map_err(|error| failed(&error))?;
        pages(connection, &mut into, &|| connection.watch.over()).map_err(|error| match error {
            Ended::Sql(error) => failed(&error),
            Ended::Over(over) => ended(over, connection.watch.allowed()),
        })?;
        into.execute_batch("PRAGMA journal_mode = DELETE; VACUUM; PRAGMA synchronous = FULL")
            .map_err(|error| failed(&error))?;
        into.close().map_err(|(_, error)| failed(&error))
    });
    connection.roll_back();
    copied?;
    std::fs::File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|error| {
            Fault::internal(format!("the copy could not be written: {}", error.kind()))
        })
}

/// Copy a database to a new one of this name.
pub fn into_new(connection: &Guarded, name: &Name, directory: &Path) -> Result<Place, Fault> {
    let place = name.make(directory)?;
    into_file(connection, &place.real).inspect_err(|_| {
        let _ = std::fs::remove_file(&place.real);
        for companion in place.companions() {
            let _ = std::fs::remove_file(companion);
        }
    })?;
    Ok(place)
}

/// Put all of another database in place of this one, in one transaction.
pub fn replace(connection: &mut Guarded, from: &Connection) -> Result<bool, Fault> {
    let watch = connection.watch.clone();
    let copied = watch.trusted(|| pages(from, connection.raw(), &|| watch.over()));
    match copied {
        Ok(()) => Ok(true),
        Err(Ended::Sql(error)) if fault::is_busy(&error) => Ok(false),
        Err(Ended::Sql(error)) => Err(connection.fault(&error)),
        Err(Ended::Over(over)) => Err(ended(over, watch.allowed())),
    }
}

enum Ended {
    Sql(rusqlite::Error),
    Over(Over),
}

fn ended(over: Over, allowed: Duration) -> Fault {
    match over {
        Over::Late => fault::timeout(allowed),
        Over::Gone => Fault::unavailable("the caller went away").code("CANCELLED"),
    }
}

fn pages(
    from: &Connection,
    into: &mut Connection,
    over: &dyn Fn() -> Option<Over>,
) -> Result<(), Ended> {
    let backup = Backup::new(from, into).map_err(Ended::Sql)?;
    loop {
        match backup.step(PAGES).map_err(Ended::Sql)? {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
        if let Some(over) = over() {
            return Err(Ended::Over(over));
        }
    }
}

/// Open what is to be taken in, and look whether it is whole.
pub fn checked(path: &Path) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let wrong = |why: String| {
        Fault::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("what was sent is no whole SQLite database: {why}"),
        )
        .code("NOT_A_DATABASE")
    };
    let look = || {
        let connection = Connection::open_with_flags(path, flags)?;
        // it may have been one that writes ahead, and the log did not come along
        connection.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
        let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        Ok::<_, rusqlite::Error>((connection, found))
    };
    match look() {
        Ok((connection, found)) if found == "ok" => Ok(connection),
        Ok((_, found)) => Err(wrong(found)),
        Err(error) => Err(wrong(error.to_string())),
    }
}
