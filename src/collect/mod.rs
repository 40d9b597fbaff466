//! `svcdiag collect`: writes what a diagnosis of a Service depends on into a bundle.
//!
//! It reads what `svcdiag check` reads, and a few things for its readers (`extras`). `contents` turns that into files, from
//! types that have only the fields that a diagnosis needs, and `write` puts them into a directory or an archive.
//! `svcdiag diagnose` diagnoses it anywhere.

mod contents;
mod extras;
mod redact;
mod write;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::Args;

use crate::{
    bundle::Manifest,
    check::{Query, asked, gather},
    cluster::{self, Connection},
    report::service_name,
};

pub use write::WriteError;

/// What to collect and where to put it.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Reads what `svcdiag check` reads, with your own permissions, and writes only the fields that a diagnosis can \
depend on: no Secrets, no environment variables, no arguments and no annotations except svcdiag's own. Of the Corefile \
and kube-proxy's configuration only known settings are kept, and anything that looks like a secret is removed from messages and \
URLs. The bundle contains names, labels, images and addresses: review it before you send it.

Examples:
  # Into an archive to send, in the current directory
  svcdiag collect hostnames -n shop

  # Into an archive of this name
  svcdiag collect hostnames -n shop -o hostnames.tar.gz

  # Into a directory to review
  svcdiag collect hostnames -n shop -o ./hostnames

  # Diagnose it, anywhere
  svcdiag diagnose hostnames.tar.gz

Exit codes:
  0  the bundle was written
  3  usage or access error")]
pub struct Options {
    /// Name of the Service; service/NAME and svc/NAME are accepted as well
    #[arg(value_name = "SERVICE", value_parser = service_name)]
    service: String,

    #[command(flatten)]
    query: Query,

    /// New or empty directory, or new archive (.tar.gz, .tgz, .tar) [default: an archive in the current directory, named
    /// after the Service and the time]
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
}

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster could not be read.
    #[error(transparent)]
    Read(#[from] cluster::Error),
    /// What was read could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Reads and writes.
///
/// # Errors
/// When the cluster cannot be reached, a required permission is missing, the output exists already, or it cannot be
/// written.
pub async fn run(options: Options) -> Result<(), Error> {
    options.query.cluster.limiting(collect(&options)).await
}

async fn collect(options: &Options) -> Result<(), Error> {
    let query = &options.query;
    // Checked first, without waiting for the cluster.
    if let Some(path) = &options.output {
        write::refuse_to_overwrite(path)?;
    }
    let Connection {
        client,
        namespace,
        server,
    } = query.cluster.connect().await?;
    let time = crate::clock::now();
    let directory = format!("svcdiag-{namespace}-{}", options.service);
    let output = options
        .output
        .clone()
        .unwrap_or_else(|| format!("{directory}-{}.tar.gz", time.strftime("%Y%m%dT%H%M%SZ")).into());
    write::refuse_to_overwrite(&output)?;
    let of_server = |error| cluster::Error::of(error, &server);
    let spec = asked(&client, &namespace, &options.service, query).await;
    let spec = spec.map_err(of_server)?;
    let read = gather(&client, &namespace, spec.clone(), &query.agent_namespace).await;
    let mut gathered = read.map_err(of_server)?;
    let extras = extras::read(&client, &mut gathered)
        .await
        .map_err(cluster::Error::from)?;
    let manifest = Manifest {
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        time: Some(time),
        namespace: Some(namespace.clone()),
        service: Some(options.service.clone()),
        kubernetes_version: extras.kubernetes_version.clone(),
        spec: Some(spec),
        listed: Some(gathered.listed.iter().cloned().collect()),
        other_policy_kinds: gathered.inventory.policy_kinds().cloned().collect(),
        unreadable: gathered.gaps.clone(),
    };
    let objects = contents::objects(&gathered, &extras);
    let files = contents::files(&objects, &manifest);
    write::write(&output, &directory, &files, time)?;
    print!("{}", report(&output, &objects, &manifest));
    Ok(())
}

/// What was written, what is missing, and what to do next.
fn report(output: &Path, objects: &contents::Objects, manifest: &Manifest) -> String {
    let path = output.display();
    let counts: BTreeMap<&str, usize> = objects.iter().map(|(r, o)| (r.as_str(), o.len())).collect();
    let counts = counts.iter().filter(|(_, n)| **n > 0);
    let counts: Vec<String> = counts.map(|(resource, n)| format!("{resource} ({n})")).collect();
    let mut text = format!("Wrote {path}: {}.\n", counts.join(", "));
    for gap in &manifest.unreadable {
        text.push_str(&format!("Not read: {}.\n", gap.why));
    }
    text.push_str(&format!(
        "The bundle contains names, labels, images and addresses: review it before you send it.\n\
         Next: svcdiag diagnose {path}\n"
    ));
    text
}
