//! Which build this is: for `svcdiag version` and the metric `svcdiag_build_info`.

use std::io::{ErrorKind, Write};

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde::Serialize;

/// Flags of `svcdiag version`.
#[derive(Args, Clone, Copy, Debug)]
#[command(after_long_help = "\
The commit and the date are unknown in a build that was not told them: `make dist` and the image's build are \
(SVCDIAG_GIT_COMMIT, SOURCE_DATE_EPOCH).

Examples:
  # For a bug report
  svcdiag version

  # The version alone
  svcdiag version -o json | jq -r .version

  # What runs in the cluster
  kubectl -n svcdiag-controller exec deploy/svcdiag-controller -- /svcdiag version -o yaml")]
pub struct Options {
    /// Output format [default: one value in each line, for people]
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

/// Output format for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// An object as JSON
    Json,
    /// An object as YAML
    Yaml,
}

/// Why the version could not be printed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be written.
    #[error("could not write the version: {0}")]
    Write(#[from] std::io::Error),
    /// It could not be serialized.
    #[error("could not write the version as {0:?}: {1}")]
    Format(Output, String),
}

/// What is known of a build; the rest is `unknown`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Build {
    /// The version in Cargo.toml.
    pub version: String,
    /// The commit, with `-dirty` if there were changes beyond it.
    pub git_commit: String,
    /// When it was built, as far as a build that can be repeated says so.
    pub build_date: String,
    /// The version of the compiler.
    pub rust_version: String,
    /// The target that it was compiled for.
    pub platform: String,
}

impl Build {
    /// This one.
    #[must_use]
    pub fn this() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            git_commit: known(option_env!("SVCDIAG_GIT_COMMIT")),
            build_date: known(date(option_env!("SOURCE_DATE_EPOCH")).as_deref()),
            rust_version: known(option_env!("SVCDIAG_RUST_VERSION")),
            platform: known(option_env!("SVCDIAG_PLATFORM")),
        }
    }

    fn text(&self) -> String {
        format!(
            "svcdiag {}\nGit commit    {}\nBuild date    {}\nRust version  {}\nPlatform      {}\n",
            self.version, self.git_commit, self.build_date, self.rust_version, self.platform
        )
    }

    fn printed(&self, output: Option<Output>) -> Result<String, Error> {
        match output {
            None => Ok(self.text()),
            Some(Output::Json) => serde_json::to_string_pretty(self)
                .map(|json| json + "\n")
                .map_err(|e| Error::Format(Output::Json, e.to_string())),
            Some(Output::Yaml) => {
                serde_saphyr::to_string(self).map_err(|e| Error::Format(Output::Yaml, e.to_string()))
            }
        }
    }
}

fn known(value: Option<&str>) -> String {
    value.filter(|v| !v.is_empty()).unwrap_or("unknown").to_owned()
}

/// The date of seconds since 1970, which is how reproducible builds are told it.
fn date(epoch: Option<&str>) -> Option<String> {
    let seconds = epoch?.trim().parse().ok()?;
    Timestamp::from_second(seconds).ok().map(|date| date.to_string())
}

/// Prints which build this is.
///
/// # Errors
/// When it cannot be written.
pub fn run(options: Options) -> Result<(), Error> {
    let text = Build::this().printed(options.output)?;
    match std::io::stdout().write_all(text.as_bytes()) {
        // A reader that has seen enough, such as `head`, is no failure.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn build() -> Build {
        Build {
            version: "1.2.3".to_owned(),
            git_commit: known(None),
            build_date: known(date(Some("1764412800")).as_deref()),
            rust_version: "1.99.0".to_owned(),
            platform: "aarch64-unknown-linux-musl".to_owned(),
        }
    }

    #[test]
    fn a_build_is_printed_for_people_and_for_programs() {
        let text = build().printed(None).unwrap();
        assert_eq!(
            text,
            "svcdiag 1.2.3\nGit commit    unknown\nBuild date    2025-11-29T10:40:00Z\nRust version  1.99.0\n\
             Platform      aarch64-unknown-linux-musl\n"
        );
        let expected = json!({
            "version": "1.2.3", "gitCommit": "unknown", "buildDate": "2025-11-29T10:40:00Z",
            "rustVersion": "1.99.0", "platform": "aarch64-unknown-linux-musl",
        });
        let json: Value = serde_json::from_str(&build().printed(Some(Output::Json)).unwrap()).unwrap();
        let yaml: Value = serde_saphyr::from_str(&build().printed(Some(Output::Yaml)).unwrap()).unwrap();
        assert_eq!((&json, &yaml), (&expected, &expected));
    }

    #[test]
    fn what_a_build_was_not_told_is_unknown() {
        for epoch in [None, Some(""), Some("yesterday"), Some("99999999999999999999")] {
            assert_eq!(known(date(epoch).as_deref()), "unknown", "{epoch:?}");
        }
        assert_eq!(known(Some("")), "unknown");
    }

    #[test]
    fn the_compiler_and_the_target_are_known() {
        let build = Build::this();
        assert!(build.rust_version.starts_with("1."), "{build:?}");
        assert!(build.platform.starts_with(std::env::consts::ARCH), "{build:?}");
    }
}
