//! Verbs as clap commands, nested as their words are.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};

use super::containers;
use super::verb::{Body, Kind, Parameter, Place, Verb};

/// The commands of all verbs; one for each first word.
pub fn commands(verbs: &[Verb]) -> Vec<Command> {
    let all: Vec<&Verb> = verbs.iter().collect();
    below(&all, 0)
}

/// The commands of verbs that share their first words.
fn below(verbs: &[&Verb], depth: usize) -> Vec<Command> {
    let mut words: Vec<&str> = verbs
        .iter()
        .filter_map(|verb| verb.words.get(depth).map(String::as_str))
        .collect();
    words.sort_unstable();
    words.dedup();
    words
        .into_iter()
        .map(|word| {
            let these: Vec<&Verb> = verbs
                .iter()
                .copied()
                .filter(|verb| verb.words.get(depth).is_some_and(|w| w == word))
                .collect();
            match these[..] {
                [verb] if verb.words.len() == depth + 1 => leaf(verb, word),
                _ => Command::new(word.to_owned())
                    .about(group(&these, depth))
                    .subcommand_required(true)
                    .arg_required_else_help(true)
                    .subcommands(below(&these, depth + 1)),
            }
        })
        .collect()
}

/// What a group of commands is about: `create, delete, get and list`.
fn group(verbs: &[&Verb], depth: usize) -> String {
    const SHOWN: usize = 6;
    let mut words: Vec<&str> = verbs
        .iter()
        .filter_map(|verb| verb.words.get(depth + 1).map(String::as_str))
        .collect();
    words.sort_unstable();
    words.dedup();
    let more = if words.len() > SHOWN { ", ..." } else { "" };
    words.truncate(SHOWN);
    format!("{}{more}", words.join(", "))
}

fn leaf(verb: &Verb, word: &str) -> Command {
    let about = verb
        .summary
        .split(". ")
        .next()
        .unwrap_or_default()
        .trim_end_matches('.');
    let whole = format!("{}\n\n{}", verb.summary, verb.description);
    let mut command = Command::new(word.to_owned())
        .about(about.to_owned())
        .long_about(whole.trim_end().to_owned());
    command = command.args(
        verb.parameters
            .iter()
            .map(|parameter| argument(verb, parameter)),
    );
    if verb.service.is_some() {
        command = command
            .arg(
                Arg::new("container")
                    .short('c')
                    .long("container")
                    .value_name("NAME|ID")
                    .required(true)
                    .help("Container to ask"),
            )
            .arg(
                Arg::new("index")
                    .long("index")
                    .value_name("N")
                    .value_parser(value_parser!(u32))
                    .default_value("1")
                    .help("Instance of the service"),
            );
    }
    match &verb.body {
        Body::None => {}
        Body::Json => {
            command = command.arg(
                Arg::new("body")
                    .long("body")
                    .value_name("JSON|@FILE|-")
                    .help("The request body; flags win over its members"),
            );
        }
        Body::Bytes(_) => {
            command = command.arg(
                Arg::new("body")
                    .value_name("FILE")
                    .value_hint(ValueHint::FilePath)
                    .help("File to send; standard input where it is left out or `-`"),
            );
        }
    }
    if verb.method == "GET" {
        command = command.arg(
            Arg::new("out-file")
                .short('O')
                .long("out-file")
                .value_name("FILE")
                .value_hint(ValueHint::FilePath)
                .help("Write the answer to a file"),
        );
    }
    if verb.is(containers::CREATE) || containers::outcome(verb).is_some() {
        command = command.arg(
            Arg::new("wait-for")
                .long("wait")
                .action(ArgAction::SetTrue)
                .help("Wait until it is done"),
        );
    }
    command
}

/// The clap id of a parameter; no other argument's id has a colon.
pub fn id(parameter: &Parameter) -> String {
    format!("parameter:{}", parameter.name)
}

fn argument(verb: &Verb, parameter: &Parameter) -> Arg {
    let mut about = parameter
        .about
        .split("\n\n")
        .next()
        .unwrap_or_default()
        .replace('\n', " ");
    about.truncate(about.trim_end_matches('.').len());
    let mut arg = Arg::new(id(parameter)).help(about);
    arg = match &parameter.flag {
        // as it is for commands of the kit
        Some(flag) if flag == "container" => arg.short('c').long("container").value_name("NAME|ID"),
        Some(flag) => arg.long(flag.clone()).value_name(value_name(parameter)),
        None => arg.value_name(parameter.name.to_uppercase().replace('_', "-")),
    };
    if parameter.required {
        let elsewhere = parameter.place == Place::Body && verb.body == Body::Json;
        arg = if elsewhere {
            arg.required_unless_present("body")
        } else {
            arg.required(true)
        };
    }
    match parameter.kind {
        Kind::Flag if parameter.flag.is_some() => {
            return arg
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .value_parser(["true", "false"])
                .hide_possible_values(true);
        }
        Kind::Integer | Kind::Number => arg = arg.allow_negative_numbers(true),
        Kind::List | Kind::Map => arg = arg.action(ArgAction::Append),
        Kind::Flag | Kind::Text | Kind::Json => {}
    }
    if parameter.choices.is_empty() {
        if parameter.flag.is_some() && matches!(parameter.kind, Kind::Text | Kind::Json) {
            arg = arg.allow_hyphen_values(true);
        }
        return arg;
    }
    if parameter.choices.iter().all(String::is_empty) {
        // a query key whose presence is all it says
        return arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("");
    }
    arg.value_parser(PossibleValuesParser::new(parameter.choices.clone()))
}

fn value_name(parameter: &Parameter) -> &'static str {
    let flag = parameter.flag.as_deref().unwrap_or_default();
    if matches!(
        flag,
        "project" | "project-id" | "server-id" | "container-id"
    ) {
        return "NAME|ID";
    }
    match parameter.kind {
        Kind::Text | Kind::List => "TEXT",
        Kind::Flag => "BOOL",
        Kind::Integer | Kind::Number => "N",
        Kind::Map => "KEY=VALUE",
        Kind::Json => "JSON",
    }
}

/// The options that all commands share: whom to ask, and how to show the answer.
pub fn with_common_options(command: Command) -> Command {
    let heading = "Common options";
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name(value)
            .help(help)
            .global(true)
            .help_heading(heading)
    };
    command
        .arg(
            option("output", "FORMAT", "How to show the answer")
                .short('o')
                .value_parser(["table", "json", "yaml"])
                .default_value("table"),
        )
        .arg(
            option("profile", "NAME", "Whom to ask, and as whom")
                .env("HOODY_PROFILE")
                .default_value("default"),
        )
        .arg(
            option(
                "api-url",
                "URL",
                "Address of the API, instead of the profile's",
            )
            .env("HOODY_API_URL"),
        )
        .arg(
            option("token", "TOKEN", "Token to use, instead of the profile's")
                .env("HOODY_TOKEN")
                .hide_env_values(true),
        )
        .arg(
            option(
                "ca-cert",
                "FILE",
                "Certificate of the authority to trust, instead of the profile's",
            )
            .env("HOODY_CA_CERT")
            .value_hint(ValueHint::FilePath),
        )
        .arg(
            option(
                "config",
                "DIRECTORY",
                "Where profiles are kept [default: ~/.config/hoody]",
            )
            .env("HOODY_CONFIG")
            .value_hint(ValueHint::DirPath),
        )
        .arg(option("home", "DIRECTORY", "").env("HOME").hide(true))
}

/// The verb that was typed, and what was typed after it.
pub fn find<'a, 'm>(
    verbs: &'a [Verb],
    name: &str,
    matches: &'m ArgMatches,
) -> (&'a Verb, &'m ArgMatches) {
    let mut words = vec![name];
    let mut matches = matches;
    while let Some((word, below)) = matches.subcommand() {
        words.push(word);
        matches = below;
    }
    let verb = verbs
        .iter()
        .find(|verb| verb.is(&words))
        .expect("commands are made from verbs");
    (verb, matches)
}
