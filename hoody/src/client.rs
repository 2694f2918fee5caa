//! The verbs of a client: every operation of the API and of the kits, named by the words that its
//! declaration gives it.
//!
//! Read in this order: [`verb`] (an operation, as a document describes it), [`tree`] (verbs as
//! clap commands), [`request`] (what was typed, as a request), [`profile`] and [`node`] (whom to
//! ask, and asking), [`names`] (ids from names), [`render`] (answers for people and programs),
//! then the verbs that do more than one request: [`account`], [`containers`], [`exec`].

mod account;
mod containers;
mod exec;
mod names;
mod node;
mod output;
pub mod profile;
mod render;
mod request;
#[cfg(test)]
mod tests;
mod tree;
mod verb;

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use node::Node;
use request::{Request, Usage};
use verb::Verb;

/// The exit code of a command that was used wrongly; clap's own.
const USAGE: u8 = 2;

/// The subcommands of a client.
pub fn commands() -> Vec<Command> {
    let mut commands = tree::commands(&verbs());
    commands.extend([account::login(), account::logout(), containers::ps()]);
    commands
        .into_iter()
        .map(tree::with_common_options)
        .collect()
}

/// Every verb there is: from the API's document and from those of a container's services.
fn verbs() -> Vec<Verb> {
    let mut documents = vec![(None, control::document())];
    for document in kitd::services::documents()
        .into_iter()
        .chain([proxy_logs::document()])
    {
        let service = document["x-service"].as_str().map(str::to_owned);
        documents.push((service, document));
    }
    documents
        .iter()
        .flat_map(|(service, document)| verb::all(service.as_deref(), document))
        .collect()
}

/// Run one of [`commands`].
pub fn run(name: &str, matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(async {
        match name {
            "login" => account::log_in(matches).await,
            "logout" => account::log_out(matches).await,
            "ps" => containers::list(matches).await,
            _ => {
                let verbs = verbs();
                let (verb, matches) = tree::find(&verbs, name, matches);
                ask(verb, matches).await
            }
        }
    });
    // reading a terminal blocks a thread that nobody waits for
    runtime.shutdown_background();
    match done {
        Err(error) if error.is::<Usage>() => {
            eprintln!("hoody: {error}");
            Ok(ExitCode::from(USAGE))
        }
        done => done,
    }
}

/// Make the request that a verb stands for and show the answer.
async fn ask(verb: &Verb, matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let mut request = Request::new(verb, matches)?;
    let node = Node::open(matches)?;
    names::resolve(&node, verb, &mut request).await?;
    if verb.is(containers::CREATE) {
        return containers::create(&node, request, matches).await;
    }
    if let Some(wanted) = containers::outcome(verb) {
        return containers::manage(&node, request, wanted, matches).await;
    }
    let place = match &verb.service {
        None => node::Place::Api,
        Some(service) => {
            let container = matches
                .get_one::<String>("container")
                .expect("kit verbs require one");
            let container = names::container(&node, container).await?;
            let index = *matches.get_one::<u32>("index").expect("it has a default");
            node::Place::Kit {
                container,
                service: service.clone(),
                index,
            }
        }
    };
    if verb.is(exec::WORDS) {
        return exec::run(&node, &place, request, matches).await;
    }
    let response = node.send(&place, request).await?;
    output::show(response, matches).await?;
    Ok(ExitCode::SUCCESS)
}
