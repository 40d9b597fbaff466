//! `svcdiag man`: writes manual pages, one for each command, from what `--help` prints.

use std::{io, path::PathBuf};

use clap::Args;

/// Where to write.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Examples:
  # For this user, where man finds them
  svcdiag man --output-dir ~/.local/share/man/man1
  man svcdiag-check")]
pub struct Options {
    /// Directory to write the pages into, a file for each command; it is created if it does not exist
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    output_dir: PathBuf,
}

/// Why there are no pages.
#[derive(Debug, thiserror::Error)]
#[error("could not write manual pages into {}: {source}; name a directory that you may write to", directory.display())]
pub struct Error {
    directory: PathBuf,
    source: io::Error,
}

/// Writes the pages of a command line.
///
/// # Errors
/// When they cannot be written.
pub fn run(options: Options, command: clap::Command) -> Result<(), Error> {
    let directory = options.output_dir;
    let written = std::fs::create_dir_all(&directory)
        .and_then(|()| clap_mangen::generate_to(command.disable_help_subcommand(true), &directory));
    written.map_err(|source| Error { directory, source })
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::*;

    #[test]
    fn each_command_has_a_page_with_its_examples() {
        let directory = tempfile::tempdir().unwrap();
        let output_dir = directory.path().join("new/man1");
        let command = Command::new("svcdiag").subcommand(
            Command::new("check")
                .about("Check a Service now")
                .after_long_help("Examples:\n  svcdiag check hostnames"),
        );
        let options = Options {
            output_dir: output_dir.clone(),
        };
        run(options, command).unwrap();
        let page = std::fs::read_to_string(output_dir.join("svcdiag-check.1")).unwrap();
        assert!(
            page.contains(".TH ") && page.contains("svcdiag check hostnames"),
            "{page}"
        );
        assert!(output_dir.join("svcdiag.1").exists());
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let options = Options {
            output_dir: file.path().to_owned(),
        };
        let error = run(options, Command::new("svcdiag")).unwrap_err().to_string();
        assert!(error.contains(file.path().to_str().unwrap()), "{error}");
    }
}
