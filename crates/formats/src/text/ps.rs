//! Processes of a node: `ps auxw`, `ps -ef` or busybox's `ps`, with or without header, whole or grepped.
//!
//! Sources: procps' ps(1) for the columns; busybox's procps/ps.c.

use std::net::IpAddr;

use super::{
    ParseError,
    prompt::{basename, pieces},
};
use crate::programs::{Role, replaces, role};

/// Flag of k3s and rke2.
const LEAVES_PROXY_OUT: &str = "disable-kube-proxy";

/// Processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ps {
    /// Processes, in the order of the text, without the greps.
    pub processes: Vec<Process>,
    /// What the text was searched for; empty where it is not known to have been searched.
    patterns: Vec<String>,
    /// Whether it looks like a whole listing.
    whole: bool,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its line in the text, from 1.
    pub line: usize,
    /// Its number.
    pub pid: u32,
    /// Its program and the arguments, as far as spaces tell them apart.
    pub arguments: Vec<String>,
}

impl Ps {
    /// Reads processes.
    ///
    /// # Errors
    /// When no line looks like one of ps.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut ps = Self::default();
        let (mut understood, mut is_cut) = (false, false);
        for piece in pieces(text) {
            if let Some(command) = piece.command {
                // A search that finds nothing prints nothing: that it was made is the evidence.
                understood |= command.split_whitespace().any(|word| basename(word) == "ps");
                ps.patterns.extend(patterns(command));
                let cuts = ["head", "tail", "less", "more"];
                is_cut |= command
                    .split_whitespace()
                    .any(|word| cuts.contains(&basename(word)));
            }
            let mut before_command = None;
            for (line, content) in piece.output {
                if let Some(columns) = header(content) {
                    (before_command, understood) = (Some(columns), true);
                    // Without users it may be `ps` alone, which shows one terminal.
                    ps.whole |= content.contains("USER") || content.contains("UID");
                } else if let Some(process) = process(line, content, before_command) {
                    understood = true;
                    ps.add(process);
                }
            }
        }
        if !understood {
            return Err(ParseError::nothing(text, "output of ps"));
        }
        ps.whole &= ps.patterns.is_empty() && !is_cut;
        Ok(ps)
    }

    fn add(&mut self, process: Process) {
        // The grep of `ps auxw | grep kube-proxy` is in the list itself.
        if process.program().ends_with("grep") {
            self.patterns.extend(patterns(&process.arguments.join(" ")));
        } else {
            self.whole |= process.pid == 1;
            self.processes.push(process);
        }
    }

    /// Whether the text would show a program if it ran: else its absence proves nothing.
    #[must_use]
    pub fn would_show(&self, program: &str) -> bool {
        self.whole
            || self
                .patterns
                .iter()
                .any(|pattern| program.contains(pattern.as_str()))
    }

    /// The process of a program, by its name without folders.
    #[must_use]
    pub fn program(&self, name: &str) -> Option<&Process> {
        self.processes.iter().find(|process| process.program() == name)
    }

    /// kube-proxy itself, or else a program that carries it.
    #[must_use]
    pub fn kube_proxy(&self) -> Option<&Process> {
        self.program("kube-proxy").or_else(|| {
            let mut carriers = self.carriers();
            carriers.find(|process| !process.has_flag(LEAVES_PROXY_OUT))
        })
    }

    /// Whether a program that would carry kube-proxy was told to leave it out.
    #[must_use]
    pub fn leaves_proxy_out(&self) -> bool {
        self.carriers().any(|process| process.has_flag(LEAVES_PROXY_OUT))
    }

    fn carriers(&self) -> impl Iterator<Item = &Process> {
        let is_carrier = |process: &&Process| role(process.program()) == Some(Role::Carrier);
        self.processes.iter().filter(is_carrier)
    }

    /// Whether there is a program that can do kube-proxy's work, of which its command line does not tell whether it
    /// does.
    #[must_use]
    pub fn may_be_replaced(&self) -> bool {
        let is_silent = |process: &Process| matches!(process.program(), "calico-node" | "antrea-agent");
        self.processes.iter().any(is_silent)
    }

    /// What does kube-proxy's work in its stead, unless its flags say that it does not.
    #[must_use]
    pub fn replacement(&self) -> Option<&'static str> {
        self.processes
            .iter()
            .find_map(|process| match role(process.program()) {
                // What calico-node and antrea-agent do is not on their command line, and is not usual.
                Some(Role::Replacement("calico" | "antrea")) => None,
                Some(Role::Replacement(name)) => {
                    let told = replaces(name, |flag| process.flag(flag));
                    told.unwrap_or(true).then_some(name)
                }
                _ => None,
            })
    }
}

impl Process {
    /// Its program's name without folders. hyperkube, which was all of Kubernetes in one program, is what it
    /// plays.
    #[must_use]
    pub fn program(&self) -> &str {
        let name = |index: usize| self.arguments.get(index).map_or("", |word| basename(word));
        match (name(0), name(1)) {
            ("hyperkube", "proxy") => "kube-proxy",
            ("hyperkube", role) => role,
            (program, _) => program.trim_end_matches(':'),
        }
    }

    /// The value of a flag: `--name=value`, `--name value` or with one dash. The last one counts, as in Go's
    /// flag packages.
    #[must_use]
    pub fn flag(&self, name: &str) -> Option<&str> {
        self.values(name).last()
    }

    /// Whether a flag is there, unless it is set to false.
    #[must_use]
    pub fn has_flag(&self, name: &str) -> bool {
        self.flag(name) != Some("false") && self.arguments.iter().any(|word| flag_of(word).0 == Some(name))
    }

    /// How much it logs: -v or --v.
    #[must_use]
    pub fn verbosity(&self) -> Option<u32> {
        self.flag("v")?.parse().ok()
    }

    /// --cluster-dns of the kubelet, which may be a list and may be given repeatedly.
    #[must_use]
    pub fn cluster_dns(&self) -> Vec<IpAddr> {
        self.values("cluster-dns")
            .flat_map(|list| list.split(','))
            .filter_map(|address| address.trim().parse().ok())
            .collect()
    }

    fn values<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.arguments
            .iter()
            .enumerate()
            .filter_map(move |(index, word)| {
                let (flag, value) = flag_of(word);
                let next = || self.arguments.get(index + 1).map(String::as_str);
                let value = value.or_else(|| next().filter(|word| !word.starts_with('-')))?;
                (flag == Some(name)).then(|| value.trim_matches(['"', '\'']))
            })
    }
}

/// Name and value of a flag.
fn flag_of(word: &str) -> (Option<&str>, Option<&str>) {
    let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
        return (None, None);
    };
    match flag.split_once('=') {
        Some((name, value)) => (Some(name), Some(value)),
        None => (Some(flag), None),
    }
}

/// What greps in a command search for, without the brackets of `[k]ube-proxy`.
fn patterns(command: &str) -> Vec<String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let mut found = Vec::new();
    for (index, word) in words.iter().enumerate() {
        if !basename(word).ends_with("grep") {
            continue;
        }
        let rest = words.get(index + 1..).unwrap_or_default();
        let arguments = rest.iter().take_while(|word| !word.starts_with('|'));
        let (options, others): (Vec<&str>, Vec<&str>) = arguments.partition(|word| word.starts_with('-'));
        let is_inverted = options.iter().any(|o| !o.starts_with("--") && o.contains('v'));
        if let Some(pattern) = others.first().filter(|_| !is_inverted) {
            let plain = pattern.replace(['[', ']', '"', '\'', '\\', '^', '$'], "");
            found.extend(plain.split('|').filter(|p| !p.is_empty()).map(str::to_owned));
        }
    }
    found
}

/// How many columns stand before the command, as the header says.
fn header(line: &str) -> Option<usize> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let is_header = words.contains(&"PID") && matches!(words.last(), Some(&("COMMAND" | "CMD" | "ARGS")));
    is_header.then(|| words.len() - 1)
}

fn process(line: usize, content: &str, before_command: Option<usize>) -> Option<Process> {
    let words: Vec<&str> = content.split_whitespace().collect();
    let is_number = |index: usize| words.get(index).is_some_and(|word| word.parse::<u32>().is_ok());
    let has = |index: usize, c: char| words.get(index).is_some_and(|word| word.contains(c));
    let first_is_pid = is_number(0);
    let columns = match before_command {
        Some(columns) => columns,
        // auxw: USER PID %CPU %MEM VSZ RSS TTY STAT START TIME.
        None if is_number(1) && is_number(4) && is_number(5) && has(9, ':') => 10,
        // -ef: UID PID PPID C STIME TTY TIME.
        None if is_number(1) && is_number(2) && is_number(3) && has(6, ':') => 7,
        // busybox: PID USER TIME; and ps without flags: PID TTY TIME.
        None if first_is_pid && has(2, ':') => 3,
        None => return None,
    };
    let pid = words.get(if first_is_pid { 0 } else { 1 })?.parse().ok()?;
    // Lines of a tree: `\_ /usr/bin/kubelet`.
    let is_tree = |word: &&&str| matches!(**word, "|" | "\\_");
    let arguments = words.get(columns..)?.iter().skip_while(is_tree);
    let arguments: Vec<String> = arguments.map(|word| (*word).to_owned()).collect();
    (!arguments.is_empty()).then_some(Process { line, pid, arguments })
}

#[cfg(test)]
#[path = "ps_tests.rs"]
mod tests;
