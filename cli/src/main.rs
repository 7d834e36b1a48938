//! The `tenon` command. It parses, starts the parts, and prints; what the parts do is theirs.
//!
//! stdout carries only the answer that was asked for; everything else goes to stderr, once.

mod agent;
mod agents;
mod args;
mod audit;
mod cluster;
mod config;
mod coordinator;
mod dev;
mod doctor;
mod events;
mod exit;
mod founding;
mod graph;
mod input;
mod inspect;
mod joining;
mod log;
mod logs;
mod machine;
mod names;
mod pages;
mod policy;
mod random;
mod remote;
mod run;
mod runs;
mod secrets_key;
mod terminal;
mod trust;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};

use args::{Cli, Command, GuardArgs};
use exit::{Exit, Failure};
use mimalloc::MiMalloc;

/// A coordinator makes and drops many small pieces on several threads: this one is quicker at it than
/// the C library's, and gives memory back.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let exit = match start() {
        Ok(exit) => exit,
        Err(failure) => {
            tell(&failure);
            failure.exit
        }
    };
    ExitCode::from(exit as u8)
}

fn start() -> Result<Exit, Failure> {
    // Only agents start guards: it is no command for people.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "guard") {
        return agent::guard(GuardArgs::parse_from(std::env::args_os().skip(1)));
    }
    let files = config::files()?;
    let command = config::layer(Cli::command(), &files)?;
    let matches = match command.clone().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => match config::variable_at_fault(&command, &error) {
            Some(variable) => {
                // What cannot be shown is not worth failing for.
                let _ = error.print();
                return Err(Failure::silent(Exit::Usage)
                    .hint(format!("the value is that of the variable {variable}")));
            }
            None => error.exit(),
        },
    };
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let state_dir = cli.state_dir.unwrap_or_else(tenon_reporter::history::default_state_dir);
    // Containers mount what is below it, and mounts have absolute paths.
    let state_dir = std::path::absolute(&state_dir).map_err(|error| {
        Failure::new(Exit::Usage, format!("--state-dir {}: {error}", state_dir.display()))
    })?;
    // An empty one is how a configured server is left aside.
    let server = cli.server.filter(|server| !server.trim().is_empty());
    let server = server.as_deref();
    remote::show_to_clusters(cli.token.as_deref(), cli.ca.as_deref())?;
    match cli.command {
        Command::Run(args) => run::run(*args, server, state_dir),
        Command::Validate(args) => inspect::validate(&args),
        Command::List(args) => inspect::list(&args),
        Command::Graph(args) => graph::graph(&args),
        Command::Runs(args) => runs::runs(&args.command, server, &state_dir),
        Command::Logs(args) => match server {
            Some(server) => remote::with(server, async |remote| remote::logs(&remote, &args).await),
            None => logs::logs(&args, &state_dir),
        },
        Command::Events(args) => match server {
            Some(server) => {
                remote::with(server, async |remote| remote::events(&remote, &args).await)
            }
            None => events::events(&args, &state_dir),
        },
        Command::Coordinator(args) => coordinator::coordinator(&args, server, &state_dir),
        Command::Agent(args) if args.print_config => {
            terminal::print(&config::explain(&command, &matches, "agent", &files))
                .map(|()| Exit::Success)
        }
        Command::Agent(args) => agent::agent(&args, server, &state_dir),
        Command::Agents(args) => agents::agents(&args.command, server),
        Command::Tokens(args) => trust::tokens(&args.command, server),
        Command::Certificates(args) => trust::certificates(&args.command, server),
        Command::Audit(args) => audit::audit(&args, server),
        Command::Cluster(args) => cluster::cluster(&args.command, server),
        Command::Dev(args) => dev::dev(&args.command, &state_dir),
        Command::Doctor(args) => doctor::doctor(&args, &state_dir),
        Command::Version(args) => inspect::version(&args),
        Command::Completions(args) => pages::completions(command, &args),
        Command::Man(args) => pages::man(&command, &args),
        Command::HelpConfig => terminal::print(config::HELP).map(|()| Exit::Success),
    }
}

/// Says why something could not be done: the only place that does.
fn tell(failure: &Failure) {
    if !failure.message.is_empty() {
        let style = terminal::stderr_style();
        let text = match failure.located {
            true => failure.message.clone(),
            false => {
                let error = style.paint(tenon_reporter::pretty::Paint::BAD, "error:");
                format!("{error} {}", failure.message)
            }
        };
        terminal::remark(&text);
    }
    if let Some(hint) = &failure.hint {
        terminal::remark(&format!("  hint: {hint}"));
    }
}
