//! Completion in a shell, and in kubectl for its plugin: commands, options, and values that stand in the kubeconfig or in the
//! cluster.
//!
//! The script of a shell (`script`) asks this program on every Tab, and `answer` answers before the arguments are parsed.
//! Commands do not know of completion: which values an argument has is said by its name, in `VALUES`.

mod values;

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    path::Path,
};

use clap::Command;
use clap_complete::{
    CompleteEnv, Shell,
    engine::{ArgValueCompleter, CompletionCandidate, complete},
    env::Shells,
};

use crate::report;

/// The program as scripts call it: the one on the PATH, so that a script outlives an upgrade.
const PROGRAM: &str = "svcdiag";

/// The variable by which a script says that it asks.
const VARIABLE: &str = "SVCDIAG_COMPLETE";

/// The file by which kubectl finds who completes the arguments of its plugin.
const FOR_KUBECTL: &str = "kubectl_complete-svcdiag";

/// What has the values of an argument, by the argument's name.
type Values = fn(&OsStr) -> Vec<CompletionCandidate>;

/// Of commands that talk to a cluster.
const VALUES: [(&str, Values); 8] = [
    ("namespace", values::namespaces),
    ("client_namespace", values::namespaces),
    ("agent_namespace", values::namespaces),
    ("context", values::contexts),
    ("cluster", values::clusters),
    ("user", values::users),
    ("service", values::services),
    ("names", values::diagnoses),
];

/// Of all commands.
const REASON: (&str, Values) = ("reason", values::reasons);

/// The command line with the values of its arguments.
fn with_values(command: Command) -> Command {
    command.mut_subcommands(|of| {
        // A bundle has a Service as well, and it need not be one of this cluster.
        let has_cluster = of
            .get_arguments()
            .any(|argument| argument.get_id() == "kubeconfig");
        of.mut_args(|argument| {
            let known = VALUES.iter().filter(|_| has_cluster).chain([&REASON]);
            let found = known
                .into_iter()
                .find(|(name, _)| argument.get_id().as_str() == *name);
            match found {
                Some((_, values)) => argument.add(ArgValueCompleter::new(*values)),
                None => argument,
            }
        })
    })
}

/// What follows the candidates for kubectl, whose completion is that of cobra: no names of files instead, and no space
/// after a candidate that is not complete.
const NO_FILES: u8 = 4;
const NO_SPACE: u8 = 2;

/// The script that completes in a shell.
///
/// # Errors
/// When the shell has none.
pub fn script(shell: Shell) -> io::Result<String> {
    let name = shell.to_string();
    let shells = Shells::builtins();
    let shell = shells
        .completer(&name)
        .ok_or_else(|| io::Error::other(format!("no completion for {name}")))?;
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)?;
    Ok(String::from_utf8_lossy(&script).into_owned())
}

/// Answers a shell or kubectl, if one of them asks; false if this is a call like any other.
///
/// # Errors
/// When the answer cannot be written, or nothing can be completed.
pub fn answer(command: fn() -> Command) -> Result<bool, clap::Error> {
    let directory = env::current_dir().ok();
    let mut arguments = env::args_os();
    let program = arguments.next().unwrap_or_default();
    if Path::new(&program).file_stem() == Some(OsStr::new(FOR_KUBECTL)) {
        let text = for_kubectl(with_values(command()), arguments.collect(), directory.as_deref())?;
        report::write(&text)?;
        return Ok(true);
    }
    CompleteEnv::with_factory(|| with_values(command()))
        .var(VARIABLE)
        .bin(PROGRAM)
        .completer(PROGRAM)
        .try_complete(env::args_os(), directory.as_deref())
}

/// The candidates for the last of the arguments, in the form of cobra.
fn for_kubectl(mut command: Command, typed: Vec<OsString>, directory: Option<&Path>) -> io::Result<String> {
    let last = typed.len();
    let is_option = |text: &OsStr| text.as_encoded_bytes().starts_with(b"-");
    // kubectl shows options only to who has typed a dash.
    let wants_options = typed.last().is_some_and(|word| is_option(word));
    let words: Vec<OsString> = std::iter::once(PROGRAM.into()).chain(typed).collect();
    let found = complete(&mut command, words, last, directory)?;
    let found: Vec<_> = found
        .iter()
        .filter(|candidate| wants_options || !is_option(candidate.get_value()))
        .collect();
    let is_open = |candidate: &&CompletionCandidate| {
        let value = candidate.get_value().as_encoded_bytes();
        value.ends_with(b"/") || value.ends_with(b"=")
    };
    let directive = NO_FILES + if found.iter().any(is_open) { NO_SPACE } else { 0 };
    let lines = found.into_iter().map(line);
    Ok(lines.collect::<String>() + &format!(":{directive}\n"))
}

fn line(candidate: &CompletionCandidate) -> String {
    let value = candidate.get_value().to_string_lossy();
    let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
    match help.lines().next() {
        Some(help) => format!("{value}\t{help}\n"),
        None => format!("{value}\n"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    fn command() -> Command {
        let output = Arg::new("output").long("output").help("Output format\nand more");
        let check = Command::new("check").about("Check a Service now");
        Command::new(PROGRAM).subcommand(check.arg(output.value_parser(["json", "yaml"])))
    }

    fn kubectl(typed: &[&str]) -> String {
        let typed = typed.iter().map(OsString::from).collect();
        for_kubectl(command().disable_help_flag(true), typed, None).unwrap()
    }

    #[test]
    fn kubectl_gets_candidates_with_their_help_and_a_directive() {
        assert_eq!(kubectl(&["ch"]), "check\tCheck a Service now\n:4\n");
        assert_eq!(kubectl(&["check", "--output", ""]), "json\nyaml\n:4\n");
        assert_eq!(kubectl(&["check", "--output=j"]), "--output=json\n:4\n");
    }

    #[test]
    fn kubectl_gets_options_after_a_dash_only() {
        assert!(!kubectl(&["check", ""]).contains("--output"));
        assert!(kubectl(&["check", "--o"]).starts_with("--output\tOutput format\n"));
    }

    #[test]
    fn commands_that_read_files_have_no_services_of_the_cluster() {
        let service = || Arg::new("service");
        let check = Command::new("check").args([service(), Arg::new("kubeconfig").long("kubeconfig")]);
        let diagnose = Command::new("diagnose").arg(service());
        let command = with_values(Command::new(PROGRAM).subcommands([check, diagnose]));
        let completes = |name: &str| {
            let arguments = command.find_subcommand(name).unwrap().get_arguments();
            let mut service = arguments.filter(|a| a.get_id() == "service");
            service.any(|a| a.get::<ArgValueCompleter>().is_some())
        };
        assert!(completes("check") && !completes("diagnose"));
    }

    #[test]
    fn every_shell_gets_a_script_that_asks_the_program_on_the_path() {
        for shell in [
            Shell::Bash,
            Shell::Elvish,
            Shell::Fish,
            Shell::PowerShell,
            Shell::Zsh,
        ] {
            let script = script(shell).unwrap();
            assert!(
                script.contains(VARIABLE) && script.contains(PROGRAM),
                "{shell}: {script}"
            );
        }
    }
}
