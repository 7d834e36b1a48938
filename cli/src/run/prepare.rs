//! From the command line to what is submitted: the coordinator's intake does it, this says it.

use tenon_coordinator::intake::{self, Chance, Front, Prepared, Remark, Request};
use tenon_tekton::load::Source;

use super::Settings;
use crate::exit::{Exit, Failure};
use crate::random::random;
use crate::terminal;

/// Makes the submissions of all runs, in order; warnings and notes go to stderr at once.
pub fn prepare(request: &Request) -> Result<Vec<Prepared>, Failure> {
    let color = terminal::stderr_style().has_color();
    let mut chance = Chance { now: terminal::now(), random: &mut random };
    let mut remark = |remark: Remark| match remark {
        Remark::Warning(warning) => terminal::remark(&warning.render(color)),
        Remark::Note(note) => terminal::note(&note),
    };
    Ok(intake::prepare(request, &mut chance, &mut remark)?)
}

/// What the command line asks for.
pub fn request(settings: &Settings, sources: Vec<Source>) -> Result<Request, Failure> {
    let args = &settings.args;
    let params = args.param.iter().map(|text| {
        pair(text).filter(|(key, _)| !key.is_empty()).ok_or_else(|| {
            Failure::new(Exit::Usage, format!("-p {text}: not of the form KEY=VALUE"))
                .hint("for example -p revision=main")
        })
    });
    let workspaces = args.workspace.iter().map(|text| {
        pair(text).filter(|(name, source)| !name.is_empty() && !source.is_empty()).ok_or_else(
            || {
                Failure::new(Exit::Usage, format!("-w {text}: not of the form NAME=SOURCE"))
                    .hint("SOURCE is a directory, emptyDir, configmap:NAME or secret:NAME")
            },
        )
    });
    Ok(Request {
        sources,
        pipeline: args.pipeline.clone(),
        task: args.task.clone(),
        run: None,
        params: params.collect::<Result<_, _>>()?,
        workspaces: workspaces.collect::<Result<_, _>>()?,
        namespace: args.namespace.clone(),
        timeout: args.timeout.clone(),
        parallel: args.parallel,
        // Whoever starts a program under a trace names it so.
        traceparent: std::env::var("TRACEPARENT").ok(),
        flags: settings.flags.clone(),
        front: Front::CommandLine,
    })
}

fn pair(text: &str) -> Option<(String, String)> {
    text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::RunArgs;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    fn parsed(words: &[&str]) -> Result<Request, Failure> {
        let line = Line::parse_from([&["run"], words].concat());
        let settings = Settings {
            args: line.run,
            state_dir: std::path::PathBuf::new(),
            flags: tenon_tekton::flags::FeatureFlags::default(),
        };
        request(&settings, Vec::new())
    }

    #[test]
    fn pairs_are_split_at_the_first_sign() {
        let request = parsed(&["-p", "a=x=y", "-w", "src=."]).unwrap();
        assert_eq!(request.params, [("a".to_owned(), "x=y".to_owned())]);
        assert_eq!(request.workspaces, [("src".to_owned(), ".".to_owned())]);
        for (flag, bad) in [("-p", "novalue"), ("-p", "=x"), ("-w", "src"), ("-w", "src=")] {
            assert_eq!(parsed(&[flag, bad]).unwrap_err().exit, Exit::Usage, "{bad}");
        }
    }
}
