//! A made-up run on a real terminal: for looking at the live display while changing it.
//!
//! `cargo run -p tenon-reporter --example live -- [SECONDS] [LINES A SECOND]`

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use tenon_engine::event::{Event, Output, Status};
use tenon_engine::{RunId, Time};
use tenon_journal::output::{ChunkBuilder, Stream};
use tenon_reporter::filter::Filter;
use tenon_reporter::follow::{Screen, Terminal, follow};
use tenon_reporter::history::{RunWriter, Store, Summary};
use tenon_reporter::pretty::{Options, Size, Style};

struct Real;

impl Terminal for Real {
    fn size(&self) -> Size {
        // SAFETY: winsize is plain data; the call fills it or leaves it zero.
        let size = unsafe {
            let mut size: libc::winsize = std::mem::zeroed();
            libc::ioctl(1, libc::TIOCGWINSZ, &raw mut size);
            size
        };
        Size { columns: usize::from(size.ws_col.max(20)), rows: usize::from(size.ws_row.max(5)) }
    }

    fn now(&self) -> Time {
        now()
    }

    fn progress(&mut self) -> Vec<(String, String, u64, u64)> {
        let done = now().0.unsigned_abs() % 3000 * 10_000;
        vec![("demo-task-2".into(), "pulling busybox:1.36".into(), done, 30_000_000)]
    }
}

fn now() -> Time {
    Time(std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis() as i64)
}

struct Fake {
    writer: RunWriter,
    run: RunId,
    seq: u64,
}

impl Fake {
    fn say(&mut self, kind: &str, task: Option<usize>, change: impl FnOnce(&mut Event)) {
        self.seq += 1;
        let (time, seq, run) = (now(), self.seq, self.run);
        let text = format!(
            r#"{{"kind":"{kind}","time":"{time}","seq":{seq},"runSeq":{seq},"runId":"{run}","namespace":"default","pipeline":"demo","pipelineRun":"demo-run"}}"#
        );
        let mut event: Event =
            serde_json::from_str(&text).expect("an event because it is written as one");
        event.task = task.map(|task| format!("task-{task}"));
        event.task_run = task.map(|task| format!("demo-task-{task}"));
        change(&mut event);
        self.seq += event.output.as_ref().map_or(0, |output| u64::from(output.lines) - 1);
        self.writer.append([&event]).expect("a temporary directory can be written");
        self.writer.flush().expect("a temporary directory can be written");
    }
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>().unwrap_or(5));
    let seconds = numbers.next().unwrap_or(5);
    let rate = numbers.next().unwrap_or(20);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::new(dir.path());
    let run = RunId(ulid::Ulid::from_parts(now().0.unsigned_abs(), 1));
    let writer = store
        .create(Summary::new(run, "default", "demo-run", "PipelineRun", now()))
        .expect("a temporary directory can be written");
    let mut reader = store.reader(run).expect("the run was just made");
    let show = thread::spawn(move || {
        let style = Style::from_env(true, |name| std::env::var_os(name));
        let options =
            Options { style, live: true, quiet: false, logs_only: false, refusals_told: false };
        let mut screen = Screen::new(options, Real);
        follow(&mut reader, &Filter::default(), &mut screen, &mut io::stdout(), true)
    });
    let mut fake = Fake { writer, run, seq: 0 };
    fake.say("run-start", None, |_| ());
    for task in 0..4 {
        fake.say("task-start", Some(task), |_| ());
    }
    for task in [0, 1, 3] {
        fake.say("step-start", Some(task), |event| event.step = Some("build".into()));
    }
    let start = Instant::now();
    let mut line = 0u64;
    let mut chunks = ChunkBuilder::new();
    while start.elapsed() < Duration::from_secs(seconds) {
        thread::park_timeout(Duration::from_millis(50));
        let due = start.elapsed().as_millis() as u64 * rate / 1000;
        if due == line {
            continue;
        }
        while line < due {
            line += 1;
            let text = format!("line {line} {}", "some words ".repeat((line % 12) as usize));
            if chunks.push(now().0, Stream::Stdout, false, &text).is_err() {
                break;
            }
        }
        let (lines, chunk) = chunks.finish();
        fake.say("step-log", Some((line % 2) as usize), |event| {
            event.step = Some("build".into());
            event.output = Some(Output { lines, chunk });
        });
    }
    for task in 0..4 {
        fake.say("task-end", Some(task), |event| {
            event.status = Some(if task == 3 { Status::Failed } else { Status::Succeeded });
            event.reason = (task == 3).then(|| "Failed".into());
            event.duration_ms = Some(1000);
        });
    }
    fake.say("run-end", None, |event| event.status = Some(Status::Failed));
    fake.writer.finish("", None).expect("a temporary directory can be written");
    show.join().expect("the display does not panic").expect("the display can read the run");
}
