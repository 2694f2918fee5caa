//! Containers that sleep: a request waits here while control wakes what it is for.
//!
//! Whoever comes here may pass the gates already. Control is asked over a socket of its own, once
//! for all who wait for the same container; that it runs, the routing table says. What it takes to
//! wake a container again and again, control bounds; here only waiting is bounded.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderMap;
use routes::sleep::{Call, LINE, Said};
use routes::table::{Place, State};
use routes::{Id, Table};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep_until, timeout};

use crate::refusals::{Audience, NotWoken, Refusal};

/// Requests that wait for one container.
const WAITERS: u32 = 256;
/// Requests that wait for all of them: each holds a connection open.
const ALL_WAITERS: usize = 4_096;
/// Questions to control at once; there is one at a time for a container.
const ASKING: usize = 64;
/// Control answers when the wish is in its database.
const ANSWER: Duration = Duration::from_secs(5);
/// A container that does not stir is asked for again after this: its wish may have been overtaken.
const AGAIN: Duration = Duration::from_secs(2);

/// Who waits for what.
pub struct Wakes {
    socket: PathBuf,
    waiting: Mutex<HashMap<Id, Waited>>,
    all: Semaphore,
    asking: Semaphore,
}

struct Waited {
    count: u32,
    asked: Arc<Asked>,
}

/// What control said last, and when. Locked while it is asked.
type Asked = tokio::sync::Mutex<Option<(Instant, Said)>>;

/// Why a container could not be asked for.
#[derive(Debug, thiserror::Error)]
pub enum AskControl {
    #[error("could not speak to control")]
    Speak(#[from] std::io::Error),
    #[error("control did not answer in time")]
    Silent(#[from] tokio::time::error::Elapsed),
    #[error("control answered something else than asked")]
    Nonsense(#[from] serde_json::Error),
}

/// One who waits.
struct Waiter<'a> {
    wakes: &'a Wakes,
    container: Id,
    asked: Arc<Asked>,
    _place: tokio::sync::SemaphorePermit<'a>,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.wakes.waiting();
        if let Some(waited) = waiting.get_mut(&self.container) {
            waited.count -= 1;
            if waited.count == 0 {
                waiting.remove(&self.container);
            }
        }
    }
}

impl Wakes {
    pub fn new(socket: PathBuf) -> Wakes {
        Wakes {
            socket,
            waiting: Mutex::default(),
            all: Semaphore::new(ALL_WAITERS),
            asking: Semaphore::new(ASKING),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Id, Waited>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place among those who wait for a container; none where they are too many.
    fn join(&self, container: Id) -> Option<Waiter<'_>> {
        let _place = self.all.try_acquire().ok()?;
        let mut waiting = self.waiting();
        let waited = waiting.entry(container).or_insert_with(|| Waited {
            count: 0,
            asked: Arc::default(),
        });
        if waited.count >= WAITERS {
            return None;
        }
        waited.count += 1;
        Some(Waiter {
            wakes: self,
            container,
            asked: waited.asked.clone(),
            _place,
        })
    }

    /// Wait until a container runs, and have it woken where it sleeps; not for longer than
    /// `patience`. `table` is the newest, and `changed` is told after every change of it.
    pub async fn wait(
        &self,
        place: &Arc<Place>,
        patience: Duration,
        table: impl Fn() -> Arc<Table>,
        mut changed: watch::Receiver<()>,
        mut stopping: watch::Receiver<bool>,
    ) -> Result<(), Refusal> {
        let crowded = || Refusal::NotWoken(place.clone(), NotWoken::Crowded);
        let waiter = self.join(place.container).ok_or_else(crowded)?;
        let until = tokio::time::Instant::now() + patience;
        loop {
            changed.mark_unchanged();
            let now = table().places.get(&place.container).cloned();
            let now = now.ok_or(Refusal::UnknownContainer)?;
            match now.state {
                State::Running => return Ok(()),
                State::Failed => return Err(Refusal::Failed(now)),
                _ if !now.sleep.wakes => return Err(asleep(&now)),
                // It is not turned back on its way down.
                State::Creating | State::Starting | State::Stopping => {}
                State::Paused | State::Stopped => match waiter.ask().await {
                    Ok(Said::Waking | Said::Noted) => {}
                    Ok(Said::No) => return Err(asleep(&now)),
                    Ok(Said::Later(seconds)) => {
                        return Err(Refusal::NotWoken(now, NotWoken::Often(seconds)));
                    }
                    Err(error) => {
                        tracing::warn!(container.id = %now.container, %error, "could not have container {} woken", now.container);
                        return Err(Refusal::NotWoken(now, NotWoken::Away));
                    }
                },
            }
            let again = until.min(tokio::time::Instant::now() + AGAIN);
            tokio::select! {
                news = changed.changed() => if news.is_err() {
                    return Err(Refusal::Starting(now));
                },
                _ = stopping.wait_for(|stops| *stops) => return Err(Refusal::Starting(now)),
                () = sleep_until(again) => if again == until {
                    return Err(Refusal::Starting(now));
                },
            }
        }
    }
}

impl Waiter<'_> {
    /// Have control wake it, unless that was just said.
    async fn ask(&self) -> Result<Said, AskControl> {
        let mut asked = self.asked.lock().await;
        if let Some((at, said)) = *asked
            && at.elapsed() < AGAIN
        {
            return Ok(said);
        }
        // Nobody closes it.
        let _turn = self.wakes.asking.acquire().await;
        let said = say(&self.wakes.socket, &Call::Wake(self.container)).await?;
        *asked = Some((Instant::now(), said));
        Ok(said)
    }
}

/// Say something to control, and hear what it says.
pub async fn say(socket: &Path, call: &Call) -> Result<Said, AskControl> {
    let exchange = async {
        let mut line = serde_json::to_vec(call)?;
        line.push(b'\n');
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(&line).await?;
        let mut answer = Vec::new();
        let mut stream = BufReader::new(stream).take(LINE as u64);
        stream.read_until(b'\n', &mut answer).await?;
        Ok(serde_json::from_slice(&answer)?)
    };
    timeout(ANSWER, exchange).await?
}

/// What there is to say of one that sleeps and stays so.
fn asleep(place: &Arc<Place>) -> Refusal {
    match place.state {
        State::Paused => Refusal::Paused(place.clone()),
        State::Creating | State::Starting => Refusal::Starting(place.clone()),
        _ => Refusal::Stopped(place.clone()),
    }
}

/// The container that has to be waited for, where a request was refused because of its sleep.
pub fn sleeper(refusal: &Refusal) -> Option<&Arc<Place>> {
    match refusal {
        Refusal::Starting(place) | Refusal::Stopped(place) | Refusal::Paused(place) => {
            Some(place).filter(|place| place.sleep.wakes)
        }
        _ => None,
    }
}

/// How long requests wait.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// A person, who then sees a page that looks again by itself.
    pub page: Duration,
    /// A program that does not say.
    pub usual: Duration,
    /// A program that says `Prefer: wait=` (RFC 7240, section 4.3).
    pub most: Duration,
}

impl Patience {
    pub fn of(&self, audience: Audience, headers: &HeaderMap) -> Duration {
        match (preferred(headers), audience) {
            (Some(wait), _) => wait.min(self.most),
            (None, Audience::Person) => self.page,
            (None, _) => self.usual,
        }
    }
}

/// What a request says of its patience.
fn preferred(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all("prefer").iter();
    let listed = lines.filter_map(|line| line.to_str().ok());
    listed
        .flat_map(|line| line.split(','))
        .find_map(|preference| {
            let (name, value) = preference.split(';').next()?.split_once('=')?;
            let value = value.trim().trim_matches('"');
            let wait = name.trim().eq_ignore_ascii_case("wait");
            let seconds = value.parse::<u32>().ok().filter(|_| wait)?;
            Some(Duration::from_secs(seconds.into()))
        })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn who_says_how_long_to_wait_is_heard() {
        let patience = Patience {
            page: Duration::from_secs(1),
            usual: Duration::from_secs(30),
            most: Duration::from_secs(120),
        };
        for (lines, audience, seconds) in [
            (&[][..], Audience::Kit, 30),
            (&[], Audience::Person, 1),
            (&["wait=5"], Audience::Kit, 5),
            (&["respond-async, Wait=7"], Audience::Kit, 7),
            (&["respond-async", "wait=\"8\"; x=y"], Audience::Kit, 8),
            (&["wait=0"], Audience::Person, 0),
            (&["wait=100000"], Audience::Kit, 120),
            (&["wait=-1"], Audience::Kit, 30),
            (&["waits=3", "wait"], Audience::Kit, 30),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("prefer", HeaderValue::from_static(line));
            }
            let found = patience.of(audience, &headers);
            assert_eq!(found, Duration::from_secs(seconds), "{lines:?}");
        }
    }

    #[test]
    fn those_who_wait_are_counted_and_leave_nothing() {
        let wakes = Wakes::new("/nonexistent".into());
        let (one, other) = (Id([1; 12]), Id([2; 12]));
        let mut all: Vec<_> = (0..WAITERS).map_while(|_| wakes.join(one)).collect();
        assert_eq!(all.len(), WAITERS as usize);
        assert!(wakes.join(one).is_none(), "they are too many");
        assert!(wakes.join(other).is_some(), "others are not held up");
        all.pop();
        assert!(wakes.join(one).is_some());
        drop(all);
        assert!(wakes.waiting().is_empty());
        assert_eq!(wakes.all.available_permits(), ALL_WAITERS);
    }
}
