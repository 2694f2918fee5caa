//! Keeping programs up: started again when they end, and ended in order when it is over.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

use crate::files;
use crate::logs::Log;
use crate::process::Process;

/// What the programs' allocator is told: to give back memory a second after it was let go of, also
/// where nothing happens any more. By default it waits for the next allocation, and a proxy whose
/// visitors have left keeps what they needed.
const ALLOCATOR: (&str, &str) = (
    "_RJEM_MALLOC_CONF",
    "background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0",
);

/// A program that is to run all the time.
#[derive(Debug, Clone)]
pub struct Program {
    pub name: &'static str,
    pub path: PathBuf,
    pub arguments: Vec<OsString>,
    /// Where its output goes.
    pub log: PathBuf,
    /// The file that names its process while it runs.
    pub pid: PathBuf,
    /// Changes when another one is to take its place while it still runs; it then ends by itself.
    pub renew: Option<watch::Receiver<u64>>,
}

/// How patient a supervisor is.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// First wait before a program is started again; doubles up to `most`.
    pub least: Duration,
    pub most: Duration,
    /// A program that ran this long was up: its next wait is the first again.
    pub steady: Duration,
    /// From being asked to end to being killed.
    pub grace: Duration,
    /// From the start of its successor to being killed.
    pub leave: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            least: Duration::from_millis(200),
            most: Duration::from_secs(10),
            steady: Duration::from_secs(60),
            grace: Duration::from_secs(20), // both roles drain for up to 10 s
            leave: Duration::from_secs(180), // the proxy drains for up to 2 minutes
        }
    }
}

/// What is wanted of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub enum Want {
    Run,
    /// Ask it to end, and wait for as long as the grace lasts.
    End,
    /// Kill it.
    Die,
}

/// Run the programs, the first one first, until `want` says otherwise; then end them, the last
/// one first, each gone before the next is asked.
///
/// To be called from the main thread of a runtime with one thread: a child that asks to be told
/// when its parent dies is told when the thread that started it does.
pub async fn supervise(programs: Vec<Program>, pace: Pace, mut want: watch::Receiver<Want>) {
    let mut kept = Vec::new();
    for program in programs {
        let (tell, told) = watch::channel(Want::Run);
        kept.push((tell, tokio::spawn(keep(program, pace, told))));
    }
    let _ = want.wait_for(|want| *want > Want::Run).await; // an error means: nobody is left to want
    for (tell, mut keeping) in kept.into_iter().rev() {
        loop {
            let wanted = (*want.borrow_and_update()).max_of(Want::End);
            tell.send_replace(wanted);
            tokio::select! {
                ended = &mut keeping => {
                    if let Err(error) = ended {
                        error!(%error, "a supervising task panicked");
                    }
                    break;
                }
                Ok(()) = want.changed() => {}
            }
        }
    }
}

impl Want {
    fn max_of(self, other: Want) -> Want {
        if self > other { self } else { other }
    }
}

/// Run one program until something else is wanted.
async fn keep(program: Program, pace: Pace, mut want: watch::Receiver<Want>) {
    let name = program.name;
    let mut wait = pace.least;
    let mut renew = program.renew.clone();
    // Those whose successors run. They are killed with this task.
    let mut leaving = JoinSet::new();
    loop {
        let started = Instant::now();
        match start(&program) {
            Err(error) => error!(%error, "could not start {name}"),
            Ok(mut child) => loop {
                tokio::select! {
                    ended = child.wait() => {
                        match ended {
                            Ok(status) => warn!("{name} ended by itself: {status}"),
                            Err(error) => error!(%error, "lost sight of {name}"),
                        }
                        break;
                    }
                    () = renewed(&mut renew) => match start(&program) {
                        Ok(successor) => {
                            let old = std::mem::replace(&mut child, successor);
                            leaving.spawn(leave(name, old, pace.leave));
                        }
                        Err(error) => error!(%error, "could not start another {name}; the one there is goes on"),
                    },
                    Some(_) = leaving.join_next() => {}
                    _ = wanted(&mut want, Want::End) => {
                        end(name, &mut child, pace.grace, &mut want).await;
                        if let Err(error) = files::remove(&program.pid) {
                            warn!("{error:#}");
                        }
                        return;
                    }
                }
            },
        }
        if started.elapsed() >= pace.steady {
            wait = pace.least;
        }
        info!("starting {name} again in {wait:?}");
        tokio::select! {
            () = sleep(wait) => {}
            _ = wanted(&mut want, Want::End) => break,
        }
        wait = (wait * 2).min(pace.most);
    }
    if let Err(error) = files::remove(&program.pid) {
        warn!("{error:#}");
    }
}

/// Until at least this much is wanted.
async fn wanted(want: &mut watch::Receiver<Want>, least: Want) {
    let _ = want.wait_for(|want| *want >= least).await; // an error means: nobody is left to want
}

/// Until another one is to take the place of this one.
async fn renewed(renew: &mut Option<watch::Receiver<u64>>) {
    let changed = match renew {
        Some(renew) => renew.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        std::future::pending().await
    }
}

/// Wait for one to end whose successor runs.
async fn leave(name: &str, mut child: Child, most: Duration) {
    match timeout(most, child.wait()).await {
        Ok(Ok(status)) => info!("the {name} before this one ended: {status}"),
        Ok(Err(error)) => error!(%error, "lost sight of the {name} before this one"),
        Err(_) => {
            warn!("killing the {name} before this one");
            if let Err(error) = child.kill().await {
                error!(%error, "could not kill it");
            }
        }
    }
}

/// How much less than others the node's roles are to be ended for want of memory (proc(5)).
const OOM_SCORE: &str = "-500";

fn start(program: &Program) -> anyhow::Result<Child> {
    let mut log = Log::open(&program.log)?;
    let mut child = Command::new(&program.path)
        .args(&program.arguments)
        .env(ALLOCATOR.0, ALLOCATOR.1)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let id = child.id();
    if let Some(id) = id {
        // Where memory runs out, containers go first. An ordinary user may not ask for this.
        let _ = std::fs::write(format!("/proc/{id}/oom_score_adj"), OOM_SCORE);
    }
    let _ = writeln!(
        log,
        "--- {} starts as process {}",
        program.name,
        id.unwrap_or_default()
    );
    let outputs: [Option<Box<dyn AsyncRead + Send + Unpin>>; 2] = [
        child.stdout.take().map(|stdout| Box::new(stdout) as _),
        child.stderr.take().map(|stderr| Box::new(stderr) as _),
    ];
    for output in outputs.into_iter().flatten() {
        tokio::spawn(copy(output, log.clone()));
    }
    if let Some(process) = id.and_then(Process::of) {
        process.write(&program.pid)?;
    }
    info!(
        "{} runs as process {}",
        program.name,
        id.unwrap_or_default()
    );
    Ok(child)
}

/// Write what a program says to its log, whatever becomes of the log: a program must not wait.
async fn copy(mut output: impl AsyncRead + Unpin, mut log: Log) {
    const PART: usize = 8 << 10;
    let mut part = vec![0; PART];
    while let Ok(length @ 1..) = output.read(&mut part).await {
        if let Err(error) = log.write_all(&part[..length]) {
            warn!(%error, "could not write a log");
        }
    }
}

/// Ask a program to end, and kill it when it does not, or when that is wanted.
async fn end(name: &str, child: &mut Child, grace: Duration, want: &mut watch::Receiver<Want>) {
    info!("ending {name}");
    if let Some(pid) = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw)
    {
        // Its id is its own until it is waited for.
        if let Err(error) = kill_process(pid, Signal::TERM) {
            warn!(%error, "could not ask {name} to end");
        }
    }
    let ended = async {
        tokio::select! {
            ended = child.wait() => Some(ended),
            () = wanted(want, Want::Die) => None,
        }
    };
    match timeout(grace, ended).await {
        Ok(Some(Ok(status))) => info!("{name} ended: {status}"),
        Ok(Some(Err(error))) => error!(%error, "lost sight of {name}"),
        Ok(None) | Err(_) => {
            warn!("killing {name}");
            if let Err(error) = child.kill().await {
                error!(%error, "could not kill {name}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    const QUICK: Pace = Pace {
        least: Duration::from_millis(10),
        most: Duration::from_millis(40),
        steady: Duration::from_secs(60),
        grace: Duration::from_millis(300),
        leave: Duration::from_millis(500),
    };

    /// A program that is a line of shell.
    fn script(directory: &Path, name: &'static str, line: &str) -> Program {
        Program {
            name,
            path: "/bin/sh".into(),
            arguments: vec!["-c".into(), line.into()],
            log: directory.join(format!("{name}.log")),
            pid: directory.join(format!("{name}.pid")),
            renew: None,
        }
    }

    async fn until(what: &str, mut holds: impl FnMut() -> bool) {
        for _ in 0..1000 {
            if holds() {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("waited in vain for {what}");
    }

    fn lines(path: &Path, word: &str) -> usize {
        fs::read_to_string(path)
            .unwrap_or_default()
            .lines()
            .filter(|line| line.contains(word))
            .count()
    }

    #[tokio::test]
    async fn what_ends_is_started_again_and_what_it_said_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let program = script(
            directory.path(),
            "short",
            "echo said; echo complained >&2; exit 3",
        );
        let (want, wanted) = watch::channel(Want::Run);
        let supervising = tokio::spawn(supervise(vec![program.clone()], QUICK, wanted));
        until("three runs", || lines(&program.log, "said") >= 3).await;
        until("complaints", || lines(&program.log, "complained") >= 3).await;
        want.send_replace(Want::End);
        supervising.await.unwrap();
        assert!(!program.pid.exists());
    }

    #[tokio::test]
    async fn what_is_killed_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let program = script(directory.path(), "long", "exec sleep 60");
        let (want, wanted) = watch::channel(Want::Run);
        let supervising = tokio::spawn(supervise(vec![program.clone()], QUICK, wanted));
        until("a process", || Process::read(&program.pid).is_some()).await;
        let first = Process::read(&program.pid).unwrap();
        kill_process(
            Pid::from_raw(i32::try_from(first.pid).unwrap()).unwrap(),
            Signal::KILL,
        )
        .unwrap();
        until("another", || {
            Process::read(&program.pid).is_some_and(|now| now != first && now.is_alive())
        })
        .await;
        let second = Process::read(&program.pid).unwrap();
        want.send_replace(Want::End);
        supervising.await.unwrap();
        assert!(!second.is_alive());
    }

    #[tokio::test]
    async fn what_is_renewed_runs_until_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let patient = Pace {
            leave: Duration::from_secs(60),
            ..QUICK
        };
        for (pace, name) in [(patient, "patient"), (QUICK, "quick")] {
            let (renew, renewed) = watch::channel(0);
            let program = Program {
                renew: Some(renewed),
                ..script(directory.path(), name, "echo up; exec sleep 60")
            };
            let (want, wanted) = watch::channel(Want::Run);
            let supervising = tokio::spawn(supervise(vec![program.clone()], pace, wanted));
            until("the first", || lines(&program.log, "up") == 1).await;
            let first = Process::read(&program.pid).unwrap();
            renew.send_modify(|times| *times += 1);
            until("the second", || lines(&program.log, "up") == 2).await;
            let second = Process::read(&program.pid).unwrap();
            assert!(second != first && second.is_alive());
            match name {
                "patient" => assert!(first.is_alive()),
                _ => until("the end of the first", || !first.is_alive()).await,
            }
            want.send_replace(Want::End);
            supervising.await.unwrap();
            until("the end of both", || {
                !first.is_alive() && !second.is_alive()
            })
            .await;
            assert_eq!(lines(&program.log, "up"), 2, "neither came back");
        }
    }

    #[tokio::test]
    async fn the_last_one_started_ends_first() {
        let directory = tempfile::tempdir().unwrap();
        let order = directory.path().join("order");
        let line = |name: &str| {
            format!(
                "trap 'echo {name} >> {}; exit 0' TERM; echo up; while :; do sleep 0.02; done",
                order.display()
            )
        };
        let programs = vec![
            script(directory.path(), "one", &line("one")),
            script(directory.path(), "two", &line("two")),
        ];
        let logs: Vec<PathBuf> = programs.iter().map(|program| program.log.clone()).collect();
        let (want, wanted) = watch::channel(Want::Run);
        let supervising = tokio::spawn(supervise(programs, QUICK, wanted));
        until("both", || logs.iter().all(|log| lines(log, "up") >= 1)).await;
        want.send_replace(Want::End);
        supervising.await.unwrap();
        assert_eq!(fs::read_to_string(order).unwrap(), "two\none\n");
    }

    #[tokio::test]
    async fn what_does_not_listen_is_killed() {
        for (wish, pace) in [
            (Want::End, QUICK),
            (
                Want::Die,
                Pace {
                    grace: Duration::from_secs(60),
                    ..QUICK
                },
            ),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let program = script(
                directory.path(),
                "deaf",
                "trap '' TERM; echo up; while :; do sleep 0.02; done",
            );
            let (want, wanted) = watch::channel(Want::Run);
            let supervising = tokio::spawn(supervise(vec![program.clone()], pace, wanted));
            until("it", || lines(&program.log, "up") == 1).await;
            let process = Process::read(&program.pid).unwrap();
            want.send_replace(Want::End);
            sleep(Duration::from_millis(50)).await;
            want.send_replace(wish);
            timeout(Duration::from_secs(10), supervising)
                .await
                .expect("it is killed")
                .unwrap();
            assert!(!process.is_alive());
        }
    }

    #[tokio::test]
    async fn what_cannot_be_started_is_tried_again_until_it_is_over() {
        let directory = tempfile::tempdir().unwrap();
        let program = Program {
            path: "/nowhere/program".into(),
            ..script(directory.path(), "none", "")
        };
        let (want, wanted) = watch::channel(Want::Run);
        let supervising = tokio::spawn(supervise(vec![program], QUICK, wanted));
        sleep(Duration::from_millis(100)).await;
        assert!(!supervising.is_finished());
        want.send_replace(Want::End);
        timeout(Duration::from_secs(5), supervising)
            .await
            .expect("it is over")
            .unwrap();
    }
}
