//! A paste: objects and outputs of commands in one text, as people copy them into an issue.
//!
//! [`sections`] cuts it by its lines: YAML and JSON documents, tables of `kubectl get`, descriptions of `kubectl
//! describe`, and the outputs of other commands. What is none of these is a section, too, so that no line is passed over
//! in silence. A section ends at a prompt, at a fence of Markdown, or where its form does.

use super::prompt::prompted;

/// Most sections of one text; what follows the last one becomes one of its own.
const MAX_SECTIONS: usize = 2_000;

/// Longest line that may be a prompt with its command. A longer one is looked through for nothing.
const MAX_PROMPT: usize = 64 << 10;

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// YAML documents.
    Yaml,
    /// One JSON document, whole.
    Json,
    /// A table of `kubectl get`, with its header.
    Table,
    /// What `kubectl describe` says of one object.
    Description,
    /// The output of a command; empty if there is none.
    Output,
    /// None of these.
    Unknown,
}

/// Lines of a paste that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// What they hold.
    pub form: Form,
    /// The command that printed them, if its prompt stands before them.
    pub command: Option<&'a str>,
    /// The prompt before that command.
    pub prompt: Option<&'a str>,
    /// First line, from 1; that of the command, if it has no output.
    pub first: usize,
    /// Last line.
    pub last: usize,
    /// The lines, without the command.
    pub text: &'a str,
}

/// Cuts a paste into its sections. Blank lines and fences between them belong to none.
#[must_use]
pub fn sections(text: &str) -> Vec<Section<'_>> {
    let mut cutter = Cutter {
        text,
        open: None,
        command: None,
        after_blank: true,
        no_json_until: 0,
        found: Vec::new(),
    };
    let mut lines = Lines::of(text);
    while let Some(line) = lines.next() {
        if cutter.found.len() >= MAX_SECTIONS {
            cutter.close();
            cutter.begin(Form::Unknown, &line);
            cutter.extend_to_end(&line, lines);
            break;
        }
        if let Some(length) = cutter.json_at(&line) {
            cutter.close();
            cutter.begin(Form::Json, &line);
            let end = line.start + length;
            let mut last = line;
            while last.end < end {
                let Some(next) = lines.next() else { break };
                last = next;
            }
            cutter.extend(&last);
            cutter.close();
        } else {
            cutter.line(&line);
        }
    }
    cutter.close();
    cutter.end_command();
    cutter.found
}

/// A line and where it stands.
#[derive(Clone, Copy)]
struct Line<'a> {
    number: usize,
    start: usize,
    /// Where the next one starts.
    end: usize,
    text: &'a str,
}

struct Lines<'a> {
    rest: &'a str,
    number: usize,
    start: usize,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        Self {
            rest: text,
            number: 0,
            start: 0,
        }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let text = self.rest.split_inclusive('\n').next()?;
        let start = self.start;
        self.rest = self.rest.get(text.len()..)?;
        self.start += text.len();
        self.number += 1;
        Some(Line {
            number: self.number,
            start,
            end: self.start,
            text: text.trim_end_matches(['\n', '\r']),
        })
    }
}

/// A section that may go on.
#[derive(Clone, Copy)]
struct Open {
    form: Form,
    first: usize,
    last: usize,
    start: usize,
    end: usize,
}

/// A prompt with its command.
#[derive(Clone, Copy)]
struct Command<'a> {
    line: usize,
    prompt: &'a str,
    text: &'a str,
    has_output: bool,
    /// Whether a line of its output that begins with `Name:` is that of a look-up, and describes no object.
    looks_up: bool,
}

struct Cutter<'a> {
    text: &'a str,
    open: Option<Open>,
    command: Option<Command<'a>>,
    after_blank: bool,
    /// The line to which a JSON document was read that turned out to be none: another one within it would be read again
    /// and again.
    no_json_until: usize,
    found: Vec<Section<'a>>,
}

impl<'a> Cutter<'a> {
    fn form(&self) -> Option<Form> {
        self.open.map(|open| open.form)
    }

    fn line(&mut self, line: &Line<'a>) {
        let text = line.text;
        if text.trim().is_empty() {
            if matches!(self.form(), Some(Form::Table | Form::Unknown)) {
                self.close();
            }
            self.after_blank = true;
            return;
        }
        let after_blank = std::mem::replace(&mut self.after_blank, false);
        if is_fence(text) {
            self.close();
            self.end_command();
            self.after_blank = true;
            return;
        }
        // In YAML, what is indented is a value and what begins with # a comment, whatever it looks like.
        let is_yaml = self.form() == Some(Form::Yaml);
        if is_yaml && (text.starts_with([' ', '\t', '#']) || continues_yaml(text)) {
            return self.extend(line);
        }
        if let Some(command) = Some(text).filter(|t| t.len() <= MAX_PROMPT).and_then(prompted) {
            self.close();
            self.end_command();
            let prompt = text
                .get(..text.len() - command.len().min(text.len()))
                .unwrap_or_default();
            self.command = (!command.is_empty()).then_some(Command {
                line: line.number,
                prompt: prompt.trim(),
                text: command,
                has_output: false,
                looks_up: command.contains("nslookup"),
            });
            self.after_blank = true;
            return;
        }
        let looks_up = self.command.as_ref().is_some_and(|command| command.looks_up);
        let is_of_lookup = |form: &Form| looks_up && *form == Form::Description;
        let begins = begins(text).filter(|form| self.may_begin(after_blank) && !is_of_lookup(form));
        match (self.form(), begins) {
            (Some(Form::Description), Some(Form::Table)) if !after_blank => self.extend(line),
            (_, Some(form)) => {
                self.close();
                self.begin(form, line);
            }
            (Some(Form::Description), None) if after_blank && !continues_description(text) => {
                self.close();
                self.begin(self.other(), line);
            }
            (Some(Form::Yaml | Form::Json), None) | (None, None) => {
                self.close();
                self.begin(self.other(), line);
            }
            (Some(_), None) => self.extend(line),
        }
    }

    /// What lines are of which nothing is known: a command's, or nobody's.
    fn other(&self) -> Form {
        match self.command {
            Some(_) => Form::Output,
            None => Form::Unknown,
        }
    }

    /// Whether a line may begin an object or a table. What programs other than kubectl print may look like one, until a
    /// blank line.
    fn may_begin(&self, after_blank: bool) -> bool {
        match (&self.command, self.form()) {
            (Some(command), None | Some(Form::Output)) => {
                let prints_objects = prints_objects(command.text);
                prints_objects || after_blank && command.has_output
            }
            _ => true,
        }
    }

    /// The length of the JSON document that begins on a line.
    fn json_at(&mut self, line: &Line<'a>) -> Option<usize> {
        let is_open = matches!(self.form(), Some(Form::Yaml | Form::Description | Form::Table));
        if !line.text.starts_with('{')
            || line.number <= self.no_json_until
            || is_open
            || !self.may_begin(self.after_blank)
        {
            return None;
        }
        let rest = self.text.get(line.start..)?;
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<serde::de::IgnoredAny>();
        if let Err(error) = values.next()? {
            self.no_json_until = line.number + error.line().saturating_sub(1);
            return None;
        }
        Some(values.byte_offset())
    }

    fn begin(&mut self, form: Form, line: &Line<'a>) {
        if let Some(command) = &mut self.command {
            command.has_output = true;
        }
        self.open = Some(Open {
            form,
            first: line.number,
            last: line.number,
            start: line.start,
            end: line.end,
        });
    }

    fn extend(&mut self, line: &Line<'a>) {
        if let Some(open) = &mut self.open {
            (open.last, open.end) = (line.number, line.end);
        }
    }

    fn extend_to_end(&mut self, first: &Line<'a>, rest: Lines<'a>) {
        let last = rest.last().unwrap_or(*first);
        self.extend(&last);
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            self.found.push(Section {
                form: open.form,
                command: self.command.map(|c| c.text),
                prompt: self.command.map(|c| c.prompt),
                first: open.first,
                last: open.last,
                text: self.text.get(open.start..open.end).unwrap_or_default(),
            });
        }
    }

    /// A command that printed nothing is a section without text.
    fn end_command(&mut self) {
        if let Some(command) = self.command.take().filter(|c| !c.has_output) {
            self.found.push(Section {
                form: Form::Output,
                command: Some(command.text),
                prompt: Some(command.prompt),
                first: command.line,
                last: command.line,
                text: "",
            });
        }
    }
}

/// The form that a line begins, if it can be nothing else.
fn begins(line: &str) -> Option<Form> {
    if line.trim_end() == "---" || is_yaml_start(line) {
        Some(Form::Yaml)
    } else if is_header(line) {
        Some(Form::Table)
    } else {
        is_name(line).then_some(Form::Description)
    }
}

fn is_fence(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("\u{60}\u{60}\u{60}") || line.starts_with("~~~")
}

fn is_yaml_start(line: &str) -> bool {
    let line = line.strip_prefix("- ").unwrap_or(line);
    ["apiVersion:", "kind:", "metadata:", "items:"]
        .iter()
        .any(|start| line.starts_with(start))
}

/// Fields at the top of an object, as far as anybody writes them.
const FIELDS: [&str; 34] = [
    "action",
    "addressType",
    "apiVersion",
    "binaryData",
    "count",
    "data",
    "endpoints",
    "eventTime",
    "firstTimestamp",
    "immutable",
    "involvedObject",
    "items",
    "kind",
    "lastTimestamp",
    "message",
    "metadata",
    "note",
    "ports",
    "provisioner",
    "reason",
    "regarding",
    "related",
    "reportingComponent",
    "reportingInstance",
    "roleRef",
    "rules",
    "series",
    "source",
    "spec",
    "status",
    "stringData",
    "subjects",
    "subsets",
    "type",
];

/// Whether a line that is not indented goes on with a YAML document, or begins the next one.
fn continues_yaml(line: &str) -> bool {
    let is_field = |line: &str| line.split_once(':').is_some_and(|(key, _)| FIELDS.contains(&key));
    line == "-"
        || line.starts_with("- ")
        || line.starts_with("---")
        || line.trim_end() == "..."
        || line.starts_with(['}', ']'])
        || is_field(line)
}

/// Whether a line is the header of a table: NAME first, or NAMESPACE before it; of Events, when they were seen.
fn is_header(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let (first, second) = (words.next(), words.next());
    let begins = matches!(
        (first, second),
        (Some("NAME"), Some(_)) | (Some("NAMESPACE"), Some("NAME"))
    );
    let is_title = |c: char| c.is_ascii_uppercase() || "()-:%/ \t".contains(c);
    (begins || super::events::is_header(line)) && line.chars().all(is_title)
}

/// Whether a line begins a description: `Name:` with a value, as its first field.
fn is_name(line: &str) -> bool {
    let value = line.strip_prefix("Name:").map(str::trim);
    value.is_some_and(|v| !v.is_empty() && !v.contains(char::is_whitespace))
}

/// Whether a line behind a blank one goes on with a description.
fn continues_description(line: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || " -./".contains(c);
    line.starts_with(' ')
        || line.split_once(':').is_some_and(|(key, _)| {
            key.starts_with(|c: char| c.is_ascii_uppercase()) && key.len() <= 40 && key.chars().all(is_word)
        })
}

/// Whether a command prints objects, tables or descriptions of kubectl, or shows a file, which may hold them.
fn prints_objects(command: &str) -> bool {
    let mut words = command.split_whitespace().filter(|w| *w != "sudo");
    let program = words.next().unwrap_or_default();
    match super::prompt::basename(program) {
        "kubectl" | "oc" | "k" | "k3s" | "microk8s" | "minikube" => {
            !words.any(|w| matches!(w, "exec" | "logs" | "run" | "debug"))
        }
        "cat" | "less" | "more" | "bat" | "head" | "tail" | "helm" | "kustomize" | "yq" | "jq" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(text: &str) -> Vec<(Form, Option<&str>, usize, usize)> {
        let sections = sections(text).into_iter();
        sections.map(|s| (s.form, s.command, s.first, s.last)).collect()
    }

    #[test]
    fn objects_tables_and_outputs_are_told_apart_in_any_order() {
        let text = "\
Hello, my Service does not work:
```
$ kubectl get pods -o wide
NAME    READY   STATUS
web-1   1/1     Running

$ cat svc.yaml
# kubectl apply -f svc.yaml
apiVersion: v1
kind: Service
metadata:
  name: web

  annotations:
    note: |
      $ curl web
---
kind: Pod
$ curl web
curl: (7) refused
```
{\"kind\": \"List\",
 \"items\": []}
$ kubectl apply -f x
$ kubectl describe svc web
Name:       web
Selector:   app=web

Events:     <none>
";
        assert_eq!(
            cut(text),
            [
                (Form::Unknown, None, 1, 1),
                (Form::Table, Some("kubectl get pods -o wide"), 4, 5),
                (Form::Output, Some("cat svc.yaml"), 7, 7),
                // A comment before the first field is in no document yet.
                (Form::Yaml, Some("kubectl apply -f svc.yaml"), 9, 18),
                (Form::Output, Some("curl web"), 20, 20),
                (Form::Json, None, 22, 23),
                (Form::Output, Some("kubectl apply -f x"), 24, 24),
                (Form::Description, Some("kubectl describe svc web"), 26, 29),
            ]
        );
    }

    #[test]
    fn the_answer_of_a_program_is_no_object() {
        let text = "$ curl web\n{\"kind\": \"Pod\"}\nNAME  AGE\nName:  x\n";
        assert_eq!(cut(text), [(Form::Output, Some("curl web"), 2, 4)]);
        // But a blank line and the first field of an object are enough.
        let text = "$ curl web\nok\n\napiVersion: v1\nkind: Pod\n";
        assert_eq!(
            cut(text),
            [
                (Form::Output, Some("curl web"), 2, 2),
                (Form::Yaml, Some("curl web"), 4, 5)
            ]
        );
    }

    #[test]
    fn what_a_lookup_finds_is_no_description() {
        let text = "$ nslookup web\nServer:  10.96.0.10\n\nName:\tweb.shop\nAddress: 10.96.0.7\n";
        assert_eq!(cut(text), [(Form::Output, Some("nslookup web"), 2, 5)]);
    }

    #[test]
    fn json_that_is_cut_short_is_unknown() {
        assert_eq!(cut("{\"a\": [1,\n2\n"), [(Form::Unknown, None, 1, 2)]);
        // However deep it is.
        let deep = "{\"a\":".repeat(100_000);
        assert_eq!(cut(&deep), [(Form::Unknown, None, 1, 1)]);
        let lines = "{\"a\":[\n".repeat(100_000);
        assert_eq!(cut(&lines), [(Form::Unknown, None, 1, 100_000)]);
        // What follows the line where it broke is read again.
        assert_eq!(
            cut("{\"a\": [1,\n$ curl x\nok\n\n{\"a\": 1}\n"),
            [
                (Form::Unknown, None, 1, 1),
                (Form::Output, Some("curl x"), 3, 3),
                (Form::Json, Some("curl x"), 5, 5),
            ]
        );
    }

    #[test]
    fn a_text_of_many_sections_ends_in_one() {
        let text = "x\n\n".repeat(3 * MAX_SECTIONS);
        let found = sections(&text);
        assert_eq!(found.len(), MAX_SECTIONS + 1);
        assert_eq!(found.last().map(|s| s.last), Some(6 * MAX_SECTIONS));
    }

    fn line() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("$ kubectl get pods".to_owned()),
            Just("$ curl x".to_owned()),
            Just("NAME   READY".to_owned()),
            Just("apiVersion: v1".to_owned()),
            Just("  name: x".to_owned()),
            Just("---".to_owned()),
            Just("Name:  x".to_owned()),
            Just("{\"a\":".to_owned()),
            Just("1}".to_owned()),
            Just("```".to_owned()),
            Just(String::new()),
            "\\PC{0,20}",
            "(?s).{0,20}",
        ]
    }

    proptest! {
        #[test]
        fn no_line_of_any_paste_is_lost_or_taken_twice(lines in prop::collection::vec(line(), 0..30)) {
            let text = lines.join("\n");
            let found = sections(&text);
            let mut before = 0;
            let mut covered = std::collections::BTreeSet::new();
            for section in &found {
                prop_assert!(section.first > before && section.first <= section.last, "{found:?}");
                before = section.last;
                covered.extend(section.first..=section.last);
            }
            for line in Lines::of(&text) {
                let is_own = line.text.trim().is_empty() || is_fence(line.text) || prompted(line.text).is_some();
                prop_assert!(is_own || covered.contains(&line.number), "line {}: {:?} in {found:?}", line.number, line.text);
            }
        }
    }
}
