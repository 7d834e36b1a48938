//! A fault and its place, and how it is shown to a person: file, line, column, the line itself and
//! a caret. The excerpt fits in 80 columns however long the line is, and no control byte of the
//! input reaches the terminal.

use std::fmt::Write as _;
use std::sync::Arc;

use super::decode::Found;
use super::yaml::Fault;
use super::{Document, Source, Span, secret};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The document is refused.
    Error,
    /// Worth saying; nothing is refused.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// A fault, located.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable: `yaml/…`, `decode/…` or `validate/…`.
    pub code: &'static str,
    /// Error or warning.
    pub severity: Severity,
    /// Tekton's own text where Tekton has one.
    pub message: String,
    /// The field as Tekton names it, empty if there is none.
    pub path: String,
    /// What Tekton adds on lines of their own, usually nothing.
    pub details: String,
    /// The text it is about.
    pub source: Arc<Source>,
    /// The place in that text.
    pub span: Span,
    /// What to do, e.g. "did you mean `steps`?".
    pub help: Option<String>,
    /// Other places that belong to it.
    pub related: Vec<Related>,
}

/// A second place of a fault, e.g. the first definition of what is defined twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// What is there.
    pub message: String,
    /// The text.
    pub source: Arc<Source>,
    /// The place.
    pub span: Span,
}

impl Diagnostic {
    pub(super) fn from_yaml(fault: Fault, source: &Arc<Source>) -> Self {
        let related = fault.first.map(|span| Related {
            message: "first set here".to_owned(),
            source: Arc::clone(source),
            span,
        });
        Diagnostic {
            code: fault.code,
            severity: Severity::Error,
            message: shown_message(fault.code, fault.message, source, fault.span),
            path: String::new(),
            details: String::new(),
            source: Arc::clone(source),
            span: fault.span,
            help: fault.help,
            related: related.into_iter().collect(),
        }
    }

    /// For bytes of which only the first `valid` are UTF-8.
    pub(super) fn not_utf8(name: String, bytes: &[u8], valid: usize, wide: bool) -> Self {
        let text: Arc<str> = String::from_utf8_lossy(bytes).into();
        let before = &text[..valid];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let lines = before.bytes().filter(|byte| *byte == b'\n').count();
        let span = Span {
            start: number(valid),
            end: number(valid),
            line: number(lines + 1),
            column: number(before[line_start..].chars().count() + 1),
        };
        let help = if wide {
            "this looks like UTF-16; save the file as UTF-8"
        } else {
            "save the file as UTF-8"
        };
        Diagnostic {
            code: "yaml/utf-8",
            severity: Severity::Error,
            message: "the text is not UTF-8 from here on".to_owned(),
            path: String::new(),
            details: String::new(),
            source: Arc::new(Source { name, text }),
            span,
            help: Some(help.to_owned()),
            related: Vec::new(),
        }
    }

    pub(super) fn from_decode(found: Found, source: &Arc<Source>) -> Self {
        Diagnostic {
            code: found.code,
            severity: if found.warning { Severity::Warning } else { Severity::Error },
            message: shown_message(found.code, found.message, source, found.span),
            path: found.path,
            details: String::new(),
            source: Arc::clone(source),
            span: found.span,
            help: found.help,
            related: Vec::new(),
        }
    }

    pub(super) fn duplicate(document: &Document, first: &Document) -> Self {
        const NAME: &str = "metadata.name";
        let (kind, name) = (document.object.kind(), document.name());
        let mut found = document.diagnostic(
            "decode/duplicate",
            format!("{kind} {name:?} is defined twice"),
            NAME,
        );
        found.related.push(Related {
            message: "first defined here".to_owned(),
            source: Arc::clone(&first.source),
            span: first.locate(NAME),
        });
        found
    }

    /// Tekton's text with the field and the details, `message: path`, as knative prints a field
    /// error; a message that names its field itself (Go's decoder) stands alone.
    pub fn text(&self) -> String {
        if !self.code.starts_with("validate/") {
            return self.message.clone();
        }
        let mut text = self.message.clone();
        if !self.path.is_empty() {
            text.push_str(": ");
            text.push_str(&self.path);
        }
        if !self.details.is_empty() {
            text.push('\n');
            text.push_str(&self.details);
        }
        text
    }

    /// `file:line:column: error: message`, the source line and a caret, then the help; several
    /// lines without a final line break.
    pub fn render(&self, color: bool) -> String {
        let paint = Paint { color };
        let severity = match self.severity {
            Severity::Error => paint.red("error"),
            Severity::Warning => paint.yellow("warning"),
        };
        let mut out =
            format!("{}: {severity}: {}", place(&self.source, self.span), clean(&self.text()));
        out.push_str(&excerpt(&self.source.text, self.span, paint));
        for related in &self.related {
            let _ = write!(
                out,
                "\n{}: {}",
                place(&related.source, related.span),
                clean(&related.message)
            );
            out.push_str(&excerpt(&related.source.text, related.span, paint));
        }
        if let Some(help) = &self.help {
            let _ = write!(out, "\n  {} {}", paint.cyan("help:"), clean(help));
        }
        out
    }
}

/// The diagnostics of one document: Tekton's own complaint first, the others as they stand.
pub(super) fn in_order(mut found: Vec<Found>, source: &Arc<Source>) -> Vec<Diagnostic> {
    let aborting = found.iter().position(|found| found.aborts);
    let first = aborting.or_else(|| found.iter().position(|found| !found.warning));
    let first = first.map(|at| found.remove(at));
    found.sort_by_key(|found| found.span.start);
    first.into_iter().chain(found).map(|found| Diagnostic::from_decode(found, source)).collect()
}

fn place(source: &Source, span: Span) -> String {
    let name = clean(&source.name);
    match span.line {
        0 => name,
        line => format!("{name}:{line}:{}", span.column),
    }
}

/// A message of the parser, which may repeat what it did not understand.
fn shown_message(code: &str, message: String, source: &Source, span: Span) -> String {
    let may_repeat = code.starts_with("yaml/") || message.starts_with("cannot decode");
    if may_repeat && secret::is_secret(&source.text, span.start as usize) {
        return secret::without_quotes(&message);
    }
    message
}

/// Text that a terminal takes as text.
fn clean(text: &str) -> String {
    let replace = |c: char| match c {
        '\n' => c,
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(replace).collect()
}

const WIDTH: usize = 80;

/// The line of the span, and carets under the span. Begins with a line break; empty if there is
/// nothing to show.
fn excerpt(text: &str, span: Span, paint: Paint) -> String {
    if span.line == 0 {
        return String::new();
    }
    if secret::is_secret(text, span.start as usize) {
        let gutter = paint.blue(&format!("{} |", span.line));
        return format!("\n{gutter} (part of a Secret, not shown)");
    }
    let start = floor_boundary(text, span.start as usize);
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let shown = |part: &str| -> Vec<char> {
        part.chars()
            .filter(|c| *c != '\u{feff}')
            .map(|c| match c {
                '\t' => ' ',
                c if c.is_control() => '\u{fffd}',
                c => c,
            })
            .collect()
    };
    let gutter = span.line.to_string();
    let room = WIDTH - gutter.len() - 3;
    // Of a very long line only what is near is looked at.
    let near_start = floor_boundary(text, start.saturating_sub(4 * WIDTH)).max(line_start);
    let near_end = floor_boundary(text, start + 4 * WIDTH).clamp(start, line_end);
    let caret_end = floor_boundary(text, span.end as usize).clamp(start, near_end);
    let caret_at = shown(&text[near_start..start]).len();
    let caret_width = shown(&text[start..caret_end]).len().max(1);
    let near = shown(text[near_start..near_end].trim_end());
    let (line, caret_at) = if near_start == line_start && near.len() <= room {
        (near, caret_at)
    } else {
        cut(&near, caret_at, near_start > line_start, room)
    };
    let caret_width = caret_width.min(room.saturating_sub(caret_at)).max(1);
    let line: String = line.into_iter().collect();
    let margin = " ".repeat(gutter.len());
    format!(
        "\n{} {line}\n{} {}{}",
        paint.blue(&format!("{gutter} |")),
        paint.blue(&format!("{margin} |")),
        " ".repeat(caret_at),
        paint.red(&"^".repeat(caret_width)),
    )
}

/// A window of the line around the caret, with `…` where something is left out.
fn cut(line: &[char], caret_at: usize, already_cut: bool, room: usize) -> (Vec<char>, usize) {
    let from = caret_at.saturating_sub(room / 2);
    let to = (from + room).min(line.len());
    let mut part: Vec<char> = line.get(from..to).unwrap_or_default().to_vec();
    if (from > 0 || already_cut)
        && caret_at > from
        && let Some(first) = part.first_mut()
    {
        *first = '…';
    }
    if to < line.len()
        && let Some(last) = part.last_mut()
    {
        *last = '…';
    }
    (part, caret_at - from)
}

fn floor_boundary(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[derive(Clone, Copy)]
struct Paint {
    color: bool,
}

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn red(self, text: &str) -> String {
        self.with("1;31", text)
    }

    fn yellow(self, text: &str) -> String {
        self.with("1;33", text)
    }

    fn blue(self, text: &str) -> String {
        self.with("34", text)
    }

    fn cyan(self, text: &str) -> String {
        self.with("36", text)
    }
}
