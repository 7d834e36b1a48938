//! Environment variables and config files, as a layer under the command line.
//!
//! Every flag has a variable and a key without being listed anywhere: both names are derived from
//! the definition of the command. The layer becomes the defaults of the `clap` command, so a flag
//! wins over the variable, the variable over `./tenon.toml`, and that over the user's own file. A
//! key that is no flag is an error with its place.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::builder::BoolishValueParser;
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use tenon_coordinator::intake::did_you_mean;
use tenon_tekton::load::{Diagnostic, Severity, Source, Span};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::exit::{Exit, Failure};

/// What `tenon help-config` prints.
pub const HELP: &str = "\
Every flag can also be set by an environment variable and by a key of a config file.
A flag wins over the variable, the variable over the file.

Variables
  A flag of `tenon run`, or one that all commands have: TENON_<FLAG>.
  A flag of another command: TENON_<COMMAND>_<FLAG>.
  A flag that may be repeated takes one value a line.
    TENON_BACKEND=host            tenon run --backend host
    TENON_STATE_DIR=/data/tenon   tenon --state-dir /data/tenon ...
    TENON_LOGS_OUTPUT=json        tenon logs -o json

Files
  ./tenon.toml, then $XDG_CONFIG_HOME/tenon/config.toml (else ~/.config/tenon/config.toml), then
  /etc/tenon/config.toml; what the first one says wins. With --config FILE (or TENON_CONFIG) that
  file and no other. Keys are the long names of flags, in the table of their command:
    state-dir = \"/data/tenon\"

    [run]
    backend = \"host\"
    parallel = 4
    file = [\"ci/pipeline.yaml\", \"ci/tasks\"]
    param = { revision = \"main\" }

    [runs.prune]
    keep = 50

    [agent]
    slots = 8
    label = { zone = \"b\", gpu = \"true\" }
";

/// A config file that has been read.
pub struct ConfigFile {
    source: Arc<Source>,
}

impl ConfigFile {
    fn read(path: &Path) -> Result<Option<ConfigFile>, Failure> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(ConfigFile {
                source: Arc::new(Source { name: path.display().to_string(), text: text.into() }),
            })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(Failure::new(Exit::Usage, format!("cannot read {}: {error}", path.display())))
            }
        }
    }

    /// Where it sets that key, of the top or of a command's table.
    fn place(&self, table: Option<&str>, key: &str) -> Option<String> {
        let top = DeTable::parse(&self.source.text).ok()?;
        let found = match table {
            Some(table) => match top.get_ref().get(table)?.get_ref() {
                DeValue::Table(inner) => inner.get(key)?.span(),
                _ => return None,
            },
            None => top.get_ref().get(key)?.span(),
        };
        let before = self.source.text.get(..found.start)?;
        Some(format!("{}:{}", self.source.name, before.matches('\n').count() + 1))
    }
}

/// The config files that are there, the one that wins first.
pub fn files() -> Result<Vec<ConfigFile>, Failure> {
    let dir = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = dir("XDG_CONFIG_HOME").or_else(|| dir("HOME").map(|home| home.join(".config")));
    if let Some(path) = named_file() {
        let missing = || {
            let message = format!("--config {}: there is no such file", path.display());
            Failure::new(Exit::Usage, message)
        };
        return Ok(vec![ConfigFile::read(&path)?.ok_or_else(missing)?]);
    }
    let own = config.map(|config| config.join("tenon/config.toml"));
    let all = Some(PathBuf::from("/etc/tenon/config.toml"));
    let mut files = Vec::new();
    for path in [Some(PathBuf::from("tenon.toml")), own, all].into_iter().flatten() {
        files.extend(ConfigFile::read(&path)?);
    }
    Ok(files)
}

/// The file that the command line or the environment names. Looked for by hand, because what is in
/// it has to be known before the command line can be understood.
fn named_file() -> Option<PathBuf> {
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--") => break,
            Some("--config") => return arguments.next().map(PathBuf::from),
            Some(text) if text.starts_with("--config=") => {
                return text.split_once('=').map(|(_, path)| PathBuf::from(path));
            }
            _ => {}
        }
    }
    std::env::var_os("TENON_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// All options of a command as they hold, as TOML, each with where it is from.
pub fn explain(
    command: &Command,
    matches: &ArgMatches,
    name: &str,
    files: &[ConfigFile],
) -> String {
    let Some((sub, matches)) = command.find_subcommand(name).zip(matches.subcommand_matches(name))
    else {
        return String::new();
    };
    let options = |of: &Command, prefix: &str, table: Option<&str>| {
        let settable = of.get_arguments().filter(|arg| settable(arg) && !arg.is_hide_set());
        let lines = settable.filter_map(|arg| line(arg, matches, prefix, table, files));
        lines.collect::<String>()
    };
    let prefix = format!("TENON_{}", name.to_uppercase());
    options(command, "TENON", None) + &format!("\n[{name}]\n") + &options(sub, &prefix, Some(name))
}

/// One option of [`explain`]; none where a flag only asks for something.
fn line(
    arg: &Arg,
    matches: &ArgMatches,
    prefix: &str,
    table: Option<&str>,
    files: &[ConfigFile],
) -> Option<String> {
    let long = arg.get_long()?;
    if matches!(long, "print-config" | "config") {
        return None;
    }
    let raw = matches.try_get_raw(arg.get_id().as_str()).ok().flatten();
    let values: Vec<String> =
        raw.into_iter().flatten().map(|value| value.to_string_lossy().into_owned()).collect();
    // What lets its holder in is shown to nobody.
    let values = match (long, values.is_empty()) {
        ("token" | "join", false) => vec!["***".to_owned()],
        _ => values,
    };
    let variable = format!("{prefix}_{}", long.to_uppercase().replace('-', "_"));
    let in_file = || files.iter().find_map(|file| file.place(table, long));
    let from = match matches.value_source(arg.get_id().as_str()) {
        Some(ValueSource::CommandLine) => format!("--{long}"),
        Some(ValueSource::EnvVariable) => variable,
        _ if std::env::var(&variable).is_ok_and(|value| !value.is_empty()) => variable,
        _ => in_file().unwrap_or_else(|| "default".to_owned()),
    };
    let quoted =
        |value: &String| match value.parse::<i64>().is_ok() || value.parse::<bool>().is_ok() {
            true => value.clone(),
            // JSON's strings are TOML's too.
            false => serde_json::Value::from(value.as_str()).to_string(),
        };
    let value = match (arg.get_action(), &values[..]) {
        (ArgAction::Append, values) => {
            format!("[{}]", values.iter().map(quoted).collect::<Vec<_>>().join(", "))
        }
        // Found out when the agent starts.
        (_, []) => return Some(format!("# {long}  # {from}\n")),
        (_, [value, ..]) => quoted(value),
    };
    Some(format!("{long} = {value}  # {from}\n"))
}

/// `command` with the environment and the files as its defaults.
pub fn layer(command: Command, files: &[ConfigFile]) -> Result<Command, Failure> {
    let mut tables = Vec::new();
    for file in files {
        let table = match DeTable::parse(&file.source.text) {
            Ok(table) => table,
            Err(error) => {
                let span = error.span().unwrap_or_default();
                return Err(located(&file.source, span, error.message(), None));
            }
        };
        check(&command, table.get_ref(), &file.source)?;
        tables.push(table);
    }
    let tables: Vec<&DeTable<'_>> = tables.iter().map(Spanned::get_ref).collect();
    Ok(apply(command, "TENON", true, &tables))
}

/// Complains of the first key that is no flag and no command.
fn check(command: &Command, table: &DeTable<'_>, source: &Arc<Source>) -> Result<(), Failure> {
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        if let DeValue::Table(inner) = value.get_ref()
            && let Some(sub) = command.find_subcommand(name)
        {
            check(sub, inner, source)?;
            continue;
        }
        let flag =
            command.get_arguments().find(|arg| arg.get_long() == Some(name) && settable(arg));
        let Some(flag) = flag else {
            let known =
                command.get_arguments().filter(|arg| settable(arg)).filter_map(Arg::get_long);
            let commands = command.get_subcommands().map(Command::get_name);
            let names: Vec<&str> = known.chain(commands).collect();
            let help = did_you_mean(name, &names);
            return Err(located(source, key.span(), &format!("unknown key \"{name}\""), help));
        };
        let fits = match (flag.get_action(), value.get_ref()) {
            (ArgAction::SetTrue, value) => matches!(value, DeValue::Boolean(_)),
            (ArgAction::Append, DeValue::Array(items)) => {
                items.iter().all(|item| scalar(item.get_ref()).is_some())
            }
            (ArgAction::Append, DeValue::Table(entries)) => !entries.is_empty(),
            (_, value) => scalar(value).is_some(),
        };
        if !fits {
            let wanted = match flag.get_action() {
                ArgAction::SetTrue => "true or false",
                ArgAction::Append => "a string or an array of strings",
                _ => "a string or a number",
            };
            let message = format!("\"{name}\" must be {wanted}");
            return Err(located(source, value.span(), &message, None));
        }
        for text in values(value.get_ref()) {
            check_value(flag, &text, value.span(), source)?;
        }
    }
    Ok(())
}

/// Complains of a value that the flag would not take.
fn check_value(
    flag: &Arg,
    text: &str,
    span: std::ops::Range<usize>,
    source: &Arc<Source>,
) -> Result<(), Failure> {
    let probe = flag.clone().required(false).id("value").long("value").global(false);
    let probe = match flag.get_action() {
        ArgAction::SetTrue => return Ok(()),
        _ => {
            Command::new("probe").arg(Arg::new("probe").hide(true)).no_binary_name(true).arg(probe)
        }
    };
    match probe.try_get_matches_from([format!("--value={text}")]) {
        Err(error)
            if error.kind() == clap::error::ErrorKind::InvalidValue
                || error.kind() == clap::error::ErrorKind::ValueValidation =>
        {
            let possible: Vec<String> = flag
                .get_possible_values()
                .iter()
                .map(|value| value.get_name().to_owned())
                .collect();
            let help = match possible.is_empty() {
                true => None,
                false => Some(format!("possible values: {}", possible.join(", "))),
            };
            let name = flag.get_long().unwrap_or_default();
            Err(located(source, span, &format!("invalid value \"{text}\" for \"{name}\""), help))
        }
        _ => Ok(()),
    }
}

/// Sets the defaults of `command` and of its subcommands.
fn apply(command: Command, prefix: &str, global: bool, tables: &[&DeTable<'_>]) -> Command {
    let command = command.mut_args(|arg| {
        if !settable(&arg) {
            return arg;
        }
        let Some(long) = arg.get_long().map(str::to_owned) else {
            return arg;
        };
        let variable = format!("{prefix}_{}", long.to_uppercase().replace('-', "_"));
        let file = tables.iter().find_map(|table| table.get(long.as_str()));
        let file = file.map(|value| values(value.get_ref()));
        match arg.get_action() {
            ArgAction::Append => {
                let lines = std::env::var(&variable).ok().filter(|text| !text.is_empty());
                let lines = lines.map(|text| text.lines().map(str::to_owned).collect());
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                let arg = arg.help(format!("{help} [env: {variable}, one a line]"));
                match lines.or(file) {
                    Some(values) => arg.default_values(values).hide_default_value(true),
                    None => arg,
                }
            }
            ArgAction::SetTrue => {
                let arg =
                    arg.env(variable).hide_env_values(true).value_parser(BoolishValueParser::new());
                match file {
                    Some(values) => arg.default_values(values),
                    None => arg,
                }
            }
            _ => {
                let arg = arg.env(variable).hide_env_values(true);
                match file {
                    Some(values) => arg.default_values(values),
                    None => arg,
                }
            }
        }
    });
    command.mut_subcommands(|sub| {
        let name = sub.get_name().to_owned();
        let inner: Vec<&DeTable<'_>> = tables
            .iter()
            .filter_map(|table| match table.get(name.as_str())?.get_ref() {
                DeValue::Table(inner) => Some(inner),
                _ => None,
            })
            .collect();
        let prefix = match global && name == "run" {
            true => prefix.to_owned(),
            false => format!("{prefix}_{}", name.to_uppercase().replace('-', "_")),
        };
        apply(sub, &prefix, false, &inner)
    })
}

/// The environment variable whose value `command` does not take, if it came from one.
pub fn variable_at_fault(command: &Command, error: &clap::Error) -> Option<String> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let (argument, wrong) = (text(ContextKind::InvalidArg)?, text(ContextKind::InvalidValue)?);
    let flag = argument.split(' ').next()?;
    // A flag goes before its variable.
    let is_flag = |given: &str| {
        given.strip_prefix(flag).is_some_and(|it| it.is_empty() || it.starts_with('='))
    };
    if std::env::args_os().any(|given| is_flag(&given.to_string_lossy())) {
        return None;
    }
    variable_with(command, flag.strip_prefix("--")?, wrong)
}

/// The variable of a flag that has this value, of the command or of one below it.
fn variable_with(command: &Command, long: &str, value: &str) -> Option<String> {
    let flags = command.get_arguments().filter(|arg| arg.get_long() == Some(long));
    let mut variables = flags.filter_map(|arg| arg.get_env()?.to_str());
    let has_it = |name: &&str| std::env::var(name).is_ok_and(|found| found == value);
    let found = variables.find(has_it).map(str::to_owned);
    found.or_else(|| command.get_subcommands().find_map(|sub| variable_with(sub, long, value)))
}

/// Whether a flag can be set by variable or key: not those that only print something.
fn settable(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append | ArgAction::SetTrue)
        && arg.get_long().is_some()
}

/// A value as the command line would have it.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(yes) => Some(yes.to_string()),
        _ => None,
    }
}

/// All values of a key: of an array its items, of a table `key=value` for each entry.
fn values(value: &DeValue<'_>) -> Vec<String> {
    match value {
        DeValue::Array(items) => items.iter().filter_map(|item| scalar(item.get_ref())).collect(),
        DeValue::Table(entries) => entries
            .iter()
            .map(|(key, value)| format!("{}={}", key.get_ref(), entry(value.get_ref())))
            .collect(),
        value => scalar(value).into_iter().collect(),
    }
}

/// A value inside `key=value`: strings as they are, arrays and tables as JSON.
fn entry(value: &DeValue<'_>) -> String {
    fn json(value: &DeValue<'_>) -> serde_json::Value {
        match value {
            DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect(),
            DeValue::Table(entries) => entries
                .iter()
                .map(|(key, value)| (key.get_ref().to_string(), json(value.get_ref())))
                .collect(),
            value => scalar(value).unwrap_or_default().into(),
        }
    }
    scalar(value).unwrap_or_else(|| json(value).to_string())
}

/// A usage failure that shows its place in a file.
fn located(
    source: &Arc<Source>,
    span: std::ops::Range<usize>,
    message: &str,
    help: Option<String>,
) -> Failure {
    let before = source.text.get(..span.start).unwrap_or(&source.text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |text| text.chars().count()) + 1;
    let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let diagnostic = Diagnostic {
        code: "config/invalid",
        severity: Severity::Error,
        message: message.to_owned(),
        path: String::new(),
        source: Arc::clone(source),
        span: Span {
            start: small(span.start),
            end: small(span.end),
            line: small(line),
            column: small(column),
        },
        details: String::new(),
        help,
        related: Vec::new(),
    };
    let text = diagnostic.render(crate::terminal::stderr_style().has_color());
    Failure::located(Exit::Usage, text)
}
