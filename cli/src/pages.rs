//! Completion scripts and manual pages, generated from the definition of the command line.

use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory};

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::exit::{Exit, Failure};
use crate::terminal;

/// `tenon completions`.
pub fn completions(mut command: Command, args: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "tenon", &mut script);
    terminal::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Success)
}

/// `tenon man`.
pub fn man(command: &Command, args: &ManArgs) -> Result<Exit, Failure> {
    // Pages must not say what the reader's own config file happens to set: only variables are kept.
    let command = crate::config::layer(Cli::command(), &[]).unwrap_or_else(|_| command.clone());
    match &args.dir {
        None => terminal::print(&page(&command)?)?,
        Some(dir) => {
            fs::create_dir_all(dir).map_err(|error| cannot_write(dir, &error))?;
            write_all(&command, "tenon", dir)?;
        }
    }
    Ok(Exit::Success)
}

fn write_all(command: &Command, name: &str, dir: &Path) -> Result<(), Failure> {
    // clap keeps names of commands for the whole life of the program.
    let named: &'static str = Box::leak(name.to_owned().into_boxed_str());
    let path = dir.join(format!("{name}.1"));
    let command = command.clone().name(named).display_name(named);
    let text = page(&command)?;
    fs::write(&path, text).map_err(|error| cannot_write(&path, &error))?;
    for sub in command.get_subcommands() {
        write_all(sub, &format!("{name}-{}", sub.get_name()), dir)?;
    }
    Ok(())
}

fn page(command: &Command) -> Result<String, Failure> {
    let mut page = Vec::new();
    // What `tenon help` does is no page of its own.
    clap_mangen::Man::new(command.clone().disable_help_subcommand(true))
        .render(&mut page)
        .map_err(|error| Failure::new(Exit::Internal, format!("cannot write the page: {error}")))?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Environment, format!("cannot write {}: {error}", path.display()))
}
