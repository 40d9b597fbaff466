//! `svcdiag diagnose`: the verdict on a Service from a bundle, as `svcdiag check` gives it live.

use std::{
    collections::BTreeSet,
    io::IsTerminal,
    path::{Path, PathBuf},
};

use clap::Args;
use jiff::Timestamp;

use super::{
    Bundle, Files, FilesError, Problem, facts,
    files::{File, MAX_OBJECTS, MAX_PASTE, is_structured},
    paste::{self, Part},
};
use crate::{
    objects::Object,
    report::{self, Answer, Output, Printing, printable, service_name},
    system::END_OF_INPUT,
};

/// Most problems of a bundle that are printed.
const MAX_TOLD: usize = 20;

/// Which bundle to judge and how to print.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Only the files are read. What is not in the bundle is not assumed to be missing in the cluster: \
the stages that need it are Unknown and say so.

A text is cut into its parts: objects in YAML or JSON, and outputs of commands behind their prompts, in \
any order. What was recognized is listed, and so is what was not.

Examples:
  # A bundle that svcdiag collect wrote
  svcdiag diagnose hostnames.tar.gz

  # What somebody pasted into an issue, or the manifests of an application
  svcdiag diagnose - < paste.txt
  kubectl get service,pods,endpointslices -o yaml | svcdiag diagnose - hostnames
  svcdiag diagnose app.yaml -n shop

  # A directory made with kubectl, with several Services in it
  svcdiag diagnose ./from-customer hostnames -n shop -o wide

  # As a page for a ticket, which any browser shows
  svcdiag diagnose hostnames.tar.gz -o html > hostnames.html

Exit codes:
  0  the Service works (with --api-only: no fault in the API objects)
  1  the Service does not work; the root cause is printed
  2  unknown, for example because files are missing in the bundle
  3  usage error, or there is no bundle")]
pub struct Options {
    /// Bundle: a directory, an archive (.tar.gz, .tgz, .tar), a text of objects and outputs of commands, or - for a
    /// text from standard input
    #[arg(value_name = "PATH", required_unless_present = "bundle")]
    path: Option<PathBuf>,

    /// Name of the Service; service/NAME and svc/NAME are accepted as well [default: as in the bundle's
    /// manifest, or else the only Service in the bundle]
    #[arg(value_name = "SERVICE", value_parser = service_name)]
    service: Option<String>,

    /// The same as PATH; SERVICE is then the first argument
    #[arg(long, value_name = "PATH", hide_short_help = true)]
    bundle: Option<PathBuf>,

    /// Namespace of the Service, and of objects that do not say theirs [default: as in the bundle's manifest,
    /// or else the only one in the bundle]
    #[arg(short, long)]
    namespace: Option<String>,

    #[command(flatten)]
    printing: Printing,
}

impl Options {
    /// The bundle, and the Service if it is named.
    fn operands(&self) -> Result<(&Path, Option<String>), Error> {
        match (&self.bundle, &self.path) {
            (Some(bundle), None) => Ok((bundle, self.service.clone())),
            (Some(bundle), Some(first)) if self.service.is_none() => {
                let name = service_name(&first.to_string_lossy()).map_err(Error::Service)?;
                Ok((bundle, Some(name)))
            }
            (Some(_), Some(path)) => Err(Error::TwoBundles(path.clone())),
            (None, Some(path)) => Ok((path, self.service.clone())),
            (None, None) => Err(Error::NoBundle),
        }
    }
}

/// Why a bundle gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// None is named.
    #[error("name a bundle: svcdiag diagnose PATH")]
    NoBundle,
    /// Two are named.
    #[error("{} is a second bundle beside that of --bundle; name one of them", .0.display())]
    TwoBundles(PathBuf),
    /// What is named beside `--bundle` is no Service.
    #[error("{0}")]
    Service(String),
    /// There is no bundle.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// Nothing tells which Service is meant.
    #[error(
        "the bundle does not say which Service is meant: it has no {MANIFEST} that names one, and no Service or ServiceDiagnosis{place}; name the Service: svcdiag diagnose PATH SERVICE -n NAMESPACE",
        MANIFEST = super::MANIFEST
    )]
    NoService {
        /// The namespace that was looked at, in words.
        place: String,
    },
    /// More than one could be meant.
    #[error("the bundle has several Services; choose one of them: {}", .0.join(", "))]
    SeveralServices(Vec<String>),
    /// The answer could not be printed.
    #[error(transparent)]
    Print(#[from] report::Error),
}

/// Reads a bundle, judges and prints.
///
/// # Errors
/// When there is no bundle, nothing tells which Service is meant, or the output cannot be written.
pub fn run(options: &Options) -> Result<Answer, Error> {
    let (path, named) = options.operands()?;
    let (bundle, parts) = read(path, options.namespace.as_deref())?;
    let is_for_people = matches!(options.printing.output, Output::Table | Output::Wide);
    let target = target(&bundle, named.as_deref(), options.namespace.as_deref());
    let listed = listed(&parts);
    // People read it behind the verdict, if there is one; programs get nothing but the verdict.
    if !is_for_people || target.is_err() {
        eprint!("{listed}");
    }
    let (namespace, service) = target?;
    tell(&bundle.problems);
    if bundle.without_namespace > 0 && options.namespace.is_none() {
        eprintln!(
            "note: {} no namespace, so {} is assumed; name another with -n",
            match bundle.without_namespace {
                1 => "1 object has".to_owned(),
                n => format!("{n} objects have"),
            },
            printable(bundle.home())
        );
    }
    let now = bundle.time(crate::clock::now());
    if bundle.is_paste {
        eprintln!("note: the text does not say when it was copied, so {now:.0} is assumed");
    } else if bundle.manifest.time.is_none() {
        eprintln!(
            "note: {} does not say when the bundle was made, so {now:.0} is assumed",
            super::MANIFEST
        );
    }
    let diagnosis = bundle.diagnosis(&namespace, &service);
    let (facts, problems) = facts(&bundle, &diagnosis, now);
    if let (None, Some(clients)) = (&diagnosis.spec.clients.namespace, &facts.spec.clients.namespace) {
        eprintln!(
            "note: Pods of namespace {} are assumed to be the clients, because the bundle contains their requests; to change that, set spec.clients in {}",
            printable(clients),
            super::MANIFEST
        );
    }
    tell(&problems);
    let answer = options.printing.answer(&facts)?;
    if is_for_people && !listed.is_empty() {
        report::write(&format!("\n{listed}")).map_err(report::Error::from)?;
    }
    Ok(answer)
}

/// Reads what the path names: a bundle, one file of objects, or a text with anything in it.
fn read(path: &Path, namespace: Option<&str>) -> Result<(Bundle, Vec<Part>), Error> {
    if path.as_os_str() == "-" {
        let input = std::io::stdin();
        if input.is_terminal() {
            eprintln!("Paste objects and outputs of commands, then press {END_OF_INPUT}.");
        }
        let text = Files::text(input.lock(), Path::new("standard input"), MAX_PASTE)?;
        return Ok(paste::read(&text, None, namespace));
    }
    match Files::read(path) {
        Err(FilesError::NotABundle(_)) if path.is_file() => read_file(path, namespace),
        files => Ok((Bundle::within(files?, namespace), Vec::new())),
    }
}

fn read_file(path: &Path, namespace: Option<&str>) -> Result<(Bundle, Vec<Part>), Error> {
    let unreadable = |source| FilesError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let modified = file.metadata().and_then(|m| m.modified()).ok();
    let modified = modified.and_then(|time| Timestamp::try_from(time).ok());
    let name = path.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
    if !is_structured(&name) {
        let text = Files::text(file, path, MAX_PASTE)?;
        return Ok(paste::read(&text, modified, namespace));
    }
    // A list of all Pods of a cluster is larger than anybody pastes.
    let only = File {
        path: format!("objects/{name}"),
        text: Files::text(file, path, MAX_OBJECTS)?,
        modified,
    };
    let files = Files {
        files: vec![only],
        problems: Vec::new(),
    };
    Ok((Bundle::within(files, namespace), Vec::new()))
}

/// What the lines of a paste were taken for, as a section of the output.
fn listed(parts: &[Part]) -> String {
    if parts.is_empty() {
        return String::new();
    }
    let lines: String = parts
        .iter()
        .map(|part| format!("  {}\n", part.describe()))
        .collect();
    format!("The text was read as:\n{lines}")
}

/// What was left out and why, for those who can mend the bundle.
fn tell(problems: &[Problem]) {
    for problem in problems.iter().take(MAX_TOLD) {
        eprintln!("warning: {problem}");
    }
    let more = problems.len().saturating_sub(MAX_TOLD);
    if more > 0 {
        eprintln!("warning: {more} more warnings are not shown");
    }
}

/// Namespace and name of the Service that is meant: as named, else as in the manifest, else the only
/// one that somebody asks about, else the only one that there is.
fn target(
    bundle: &Bundle,
    service: Option<&str>,
    namespace: Option<&str>,
) -> Result<(String, String), Error> {
    let manifest = &bundle.manifest;
    let of_spec = manifest.spec.as_ref().map(|s| s.service_name.as_str());
    let of_manifest = manifest.service.as_deref().or(of_spec);
    let home = manifest.namespace.as_deref();
    match (service, namespace) {
        (Some(service), Some(namespace)) => return Ok((namespace.to_owned(), service.to_owned())),
        (Some(service), None) => {
            if let Some(home) = home {
                return Ok((home.to_owned(), service.to_owned()));
            }
        }
        // The manifest's Service is in the manifest's namespace and no other.
        (None, namespace) => {
            if let (Some(home), Some(service)) = (home, of_manifest)
                && namespace.is_none_or(|n| n == home)
            {
                return Ok((home.to_owned(), service.to_owned()));
            }
        }
    }
    let fits = |(ns, name): &(String, String)| {
        namespace.is_none_or(|n| n == ns) && service.is_none_or(|s| s == name)
    };
    let asked = bundle.diagnoses.iter();
    let asked = asked.map(|d| (d.namespace().to_owned(), d.spec.service_name.clone()));
    let asked: BTreeSet<(String, String)> = asked.filter(fits).collect();
    let there: BTreeSet<(String, String)> = bundle.inventory.service_names().filter(fits).collect();
    for found in [&asked, &there] {
        if let Some(only) = found.first().filter(|_| found.len() == 1) {
            return Ok(only.clone());
        }
    }
    let several: BTreeSet<&(String, String)> = asked.iter().chain(&there).collect();
    if several.is_empty() {
        let place = namespace.map_or_else(String::new, |n| format!(" in namespace {n}"));
        return Err(Error::NoService { place });
    }
    let names = several
        .iter()
        .map(|(ns, name)| printable(&format!("{name} -n {ns}")));
    Err(Error::SeveralServices(names.collect()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::bundle::{Files, files::File};

    fn bundle(files: &[(&str, Value)]) -> Bundle {
        let file = |(path, content): &(&str, Value)| File {
            path: (*path).to_owned(),
            text: content.to_string(),
            modified: None,
        };
        Bundle::of(Files {
            files: files.iter().map(file).collect(),
            problems: Vec::new(),
        })
    }

    fn object(kind: &str, namespace: &str, name: &str) -> Value {
        let version = if kind == "Service" {
            "v1"
        } else {
            "svcdiag.dev/v1alpha1"
        };
        json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name, "namespace": namespace },
            "spec": { "serviceName": name } })
    }

    fn found(bundle: &Bundle, service: Option<&str>, namespace: Option<&str>) -> Result<String, String> {
        let found = target(bundle, service, namespace);
        found
            .map(|(namespace, name)| format!("{namespace}/{name}"))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn the_service_is_that_of_the_arguments_then_of_the_manifest() {
        let manifest = json!({ "namespace": "shop", "service": "web" });
        let bundle = bundle(&[("manifest.yaml", manifest)]);
        let shop = |name: &str| Ok(format!("shop/{name}"));
        assert_eq!(found(&bundle, None, None), shop("web"));
        assert_eq!(found(&bundle, None, Some("shop")), shop("web"));
        assert_eq!(found(&bundle, Some("db"), None), shop("db"));
        assert_eq!(found(&bundle, Some("db"), Some("x")), Ok("x/db".to_owned()));
        let error = found(&bundle, None, Some("x")).unwrap_err();
        assert!(
            error.contains("in namespace x") && error.contains("SERVICE -n NAMESPACE"),
            "{error}"
        );
    }

    #[test]
    fn without_a_manifest_it_is_the_only_one_that_there_is() {
        let web = ("a.yaml", object("Service", "shop", "web"));
        let db = ("b.yaml", object("Service", "shop", "db"));
        let far = ("c.yaml", object("Service", "far", "web"));
        let asked = ("d.yaml", object("ServiceDiagnosis", "shop", "db"));
        assert_eq!(
            found(&bundle(std::slice::from_ref(&web)), None, None),
            Ok("shop/web".to_owned())
        );
        let several = bundle(&[web.clone(), db.clone(), far.clone()]);
        assert_eq!(found(&several, None, Some("far")), Ok("far/web".to_owned()));
        assert_eq!(found(&several, Some("db"), None), Ok("shop/db".to_owned()));
        let error = found(&several, None, None).unwrap_err();
        assert!(error.contains("db -n shop, web -n shop"), "{error}");
        assert_eq!(
            found(&bundle(&[web, db, far, asked]), None, None),
            Ok("shop/db".to_owned())
        );
        assert!(found(&bundle(&[]), None, None).is_err());
    }
}
