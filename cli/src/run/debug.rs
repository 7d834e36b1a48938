//! `--debug` with `-o json`: what passes by besides the stored events, as `debug` lines between them.
//!
//! They have no `seq` and no `runSeq`: they are not part of the run's history, and a replay has none.

use serde::Serialize;
use tenon_engine::Time;
use tenon_reporter::filter::Filter;
use tenon_reporter::follow::Show;
use tenon_reporter::history::Stored;
use tenon_reporter::json::Lines;

use super::show::Remarks;
use crate::terminal;

/// One `debug` line, in the contract's order of keys.
#[derive(Serialize)]
struct Debug<'a> {
    kind: &'static str,
    time: Time,
    component: &'static str,
    fields: Fields<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    task_run: &'a str,
    what: &'a str,
    done: u64,
    total: u64,
}

/// The lines of the contract, and debug lines in between.
pub struct Debugging {
    lines: Lines,
    remarks: Remarks,
}

impl Debugging {
    /// Remarks come from `remarks` whenever no event waits.
    pub fn new(remarks: Remarks) -> Debugging {
        Debugging { lines: Lines::new(), remarks }
    }

    fn tell(&mut self, out: &mut Vec<u8>) {
        for (task_run, what, done, total) in (self.remarks)() {
            let line = Debug {
                kind: "debug",
                time: terminal::now(),
                component: "agent",
                fields: Fields { task_run: &task_run, what: &what, done, total },
            };
            serde_json::to_writer(&mut *out, &line)
                .expect("strings and numbers are always valid JSON, and a Vec takes every byte");
            out.push(b'\n');
        }
    }
}

impl Show for Debugging {
    fn event(&mut self, stored: &Stored, filter: &Filter, out: &mut Vec<u8>) -> Result<(), String> {
        self.tell(out);
        self.lines.event(stored, filter, out)
    }

    fn idle(&mut self, out: &mut Vec<u8>) {
        self.tell(out);
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.tell(out);
        self.lines.end(out);
    }
}
