//! Pages of memory that are the same in many containers, kept once (KSM of the kernel).
//!
//! The kernel merges those of processes that ask for it with `PR_SET_MEMORY_MERGE`
//! (PR_SET_MEMORY_MERGE(2const)), and a process hands the wish on to its children and to what it
//! becomes. So the engine is started through here, and all its machines come after it.

use std::os::unix::process::CommandExt;
use std::process::{Command as Program, ExitCode};

use anyhow::{Context, bail};
use clap::{Arg, ArgMatches, Command};

pub const NAME: &str = "merged";

pub fn command() -> Command {
    Command::new(NAME)
        .hide(true)
        .about("Become a program whose memory the kernel may merge with that of others")
        .arg(
            Arg::new("program")
                .num_args(1..)
                .required(true)
                .trailing_var_arg(true)
                .allow_hyphen_values(true),
        )
}

pub fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let mut words = matches.get_many::<String>("program").into_iter().flatten();
    let program = words.next().context("no program is named")?;
    let asked = ask();
    if let Err(error) = asked {
        bail!("this kernel merges no memory on demand (it can from Linux 6.4 on): {error}");
    }
    let error = Program::new(program).args(words).exec();
    Err(error).with_context(|| format!("could not become {program}"))
}

fn ask() -> std::io::Result<()> {
    let none: libc::c_ulong = 0;
    // SAFETY: this option reads no memory; its arguments are numbers.
    #[expect(unsafe_code, reason = "no crate has a name for this option")]
    let done = unsafe {
        libc::prctl(
            libc::PR_SET_MEMORY_MERGE,
            1 as libc::c_ulong,
            none,
            none,
            none,
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
