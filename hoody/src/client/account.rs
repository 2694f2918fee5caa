//! Signing in and out.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, ArgMatches, Command};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde_json::json;

use super::node::{Node, Place};
use super::request::{Request, Usage};

/// Longest password.
const MAX_PASSWORD: u64 = 1024;

pub fn login() -> Command {
    Command::new("login")
        .about("Sign in, and keep the tokens in a profile")
        .arg(
            Arg::new("username")
                .short('u')
                .long("username")
                .value_name("NAME")
                .help("Who you are: a user name or an email address"),
        )
        .arg(
            Arg::new("password-stdin")
                .long("password-stdin")
                .action(ArgAction::SetTrue)
                .help("Read the password from standard input"),
        )
}

pub fn logout() -> Command {
    Command::new("logout").about("Sign out, and forget the tokens of a profile")
}

pub async fn log_in(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let node = Node::open(matches)?;
    let name = match matches.get_one::<String>("username") {
        Some(name) => name.clone(),
        None if matches.get_flag("password-stdin") => {
            return Err(Usage("--password-stdin needs --username".to_owned()).into());
        }
        None => ask("User name: ", Echo::On)?,
    };
    let password = if matches.get_flag("password-stdin") {
        let mut text = String::new();
        let read = std::io::stdin()
            .take(MAX_PASSWORD)
            .read_to_string(&mut text);
        read.context("could not read the password from standard input")?;
        text.trim_end_matches(['\r', '\n']).to_owned()
    } else {
        ask("Password: ", Echo::Off)?
    };
    let who = if name.contains('@') {
        "email"
    } else {
        "username"
    };
    let body = json!({ who: name, "password": password });
    let data = node
        .api(Request::json("POST", "/api/v1/users/auth/login", body))
        .await?;
    let Some(token) = data["token"].as_str() else {
        bail!(
            "this account asks for a second factor, which this command cannot answer; use a token with --token"
        );
    };
    node.keep(|profile| {
        profile.token = Some(token.to_owned());
        profile.refresh_token = data["refreshToken"].as_str().map(str::to_owned);
        profile.username = Some(name.clone());
    })
    .await?;
    println!("Signed in as {name}.");
    Ok(ExitCode::SUCCESS)
}

pub async fn log_out(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let node = Node::open(matches)?;
    let told = node
        .send(
            &Place::Api,
            Request::plain("POST", "/api/v1/users/auth/logout"),
        )
        .await;
    node.keep(|profile| {
        profile.token = None;
        profile.refresh_token = None;
    })
    .await?;
    match told {
        Ok(_) => println!("Signed out."),
        Err(error) => println!("The tokens are forgotten here; the node was not told: {error:#}"),
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Clone, Copy, PartialEq)]
enum Echo {
    On,
    Off,
}

/// Ask the person at the terminal.
fn ask(question: &str, echo: Echo) -> anyhow::Result<String> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Usage(
            "nobody to ask: standard input is no terminal; say --username and --password-stdin"
                .to_owned(),
        )
        .into());
    }
    eprint!("{question}");
    std::io::stderr().flush()?;
    let before = (echo == Echo::Off)
        .then(|| tcgetattr(&stdin))
        .transpose()
        .context("could not silence the terminal")?;
    if let Some(before) = &before {
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &silent)
            .context("could not silence the terminal")?;
    }
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if let Some(before) = &before {
        let _ = tcsetattr(&stdin, OptionalActions::Flush, before);
        eprintln!();
    }
    read.context("could not read the answer")?;
    let answer = line.trim_end_matches(['\r', '\n']);
    if answer.is_empty() {
        bail!("no answer");
    }
    Ok(answer.to_owned())
}
