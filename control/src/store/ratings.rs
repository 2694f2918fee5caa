//! What people think of images.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use routes::Id;

use crate::time::Millis;

/// What all think of an image, and what one person does.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rating {
    /// The mean; 0 where nobody has said anything.
    pub average: f64,
    pub count: u32,
    pub own: Option<f64>,
}

/// Write down what somebody thinks of an image; the last word holds.
pub fn rate(
    connection: &Connection,
    user: Id,
    image: &str,
    rating: f64,
    now: Millis,
) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO image_ratings (user_id, image, rating, rated_at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (user_id, image) DO UPDATE SET rating = excluded.rating, rated_at = excluded.rated_at",
        params![user.to_string(), image, rating, now],
    )?;
    Ok(())
}

/// The ratings of all images that have some, by name. An image that is gone keeps its own for when
/// it comes back: there is one for each person at most.
pub fn all(connection: &Connection, user: Id) -> rusqlite::Result<HashMap<String, Rating>> {
    let mut statement = connection.prepare_cached(
        "SELECT image, avg(rating), count(*), max(CASE user_id WHEN ?1 THEN rating END)
         FROM image_ratings GROUP BY image",
    )?;
    let rows = statement.query_map([user.to_string()], |row| {
        let rating = Rating {
            average: row.get(1)?,
            count: row.get(2)?,
            own: row.get(3)?,
        };
        Ok((row.get(0)?, rating))
    })?;
    rows.collect()
}
