//! `svcdiag-sandbox demo`: the guided tour.
//!
//! For each fault: break, wait for the verdict, show what a user sees with the real kubectl,
//! mend, wait until svcdiag agrees. At the end a table of what was expected and what was found.

use std::time::{Duration, Instant};

use clap::Args;
use svcdiag_sandbox::faults::{Fault, Scene, Verdict, catalogue};
use svcdiag_sandbox::kubectl::Kubectl;

use super::{Common, Failure, Screen, Session};

/// The stops of the tour, in the order in which the page asks its questions. A14 is left out
/// because svcdiag gives slices 30 s before it calls them stale.
const TOUR: [&str; 15] = [
    "A01", "A03", "A04", "A18", "A10", "A11", "A12", "A13", "A08", "A09", "A15", "A21", "A19", "A20", "A22",
];
/// svcdiag judges changes of objects at once; the rest is for busy machines.
const HEALTHY_WITHIN: Duration = Duration::from_secs(30);

/// What to show.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(super) common: Common,
    /// Only these faults, in this order
    #[arg(long, value_delimiter = ',', value_name = "ID,...")]
    only: Vec<String>,
    /// List all faults and what svcdiag says about each, and end
    #[arg(long)]
    pub(super) list: bool,
}

/// Prints the catalogue.
pub(super) fn list(screen: &Screen) -> Result<bool, Failure> {
    let mut rows = vec![
        ["FAULT", "TOUR", "WHAT IS BROKEN", "VERDICT"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for fault in catalogue()? {
        let stop = if fault.refused.is_some() {
            "refused"
        } else if TOUR.contains(&fault.id.as_str()) {
            "yes"
        } else {
            ""
        };
        rows.push(vec![
            fault.id,
            stop.to_owned(),
            fault.title,
            fault.expected.to_string(),
        ]);
    }
    screen.table(&rows, &vec![true; rows.len()]);
    Ok(true)
}

/// What came of one stop of the tour.
struct Stop {
    id: String,
    expected: String,
    found: String,
    seconds: f64,
    matched: bool,
}

/// Runs the tour; true if every verdict was the expected one.
pub(super) async fn run(options: &Options, session: &mut Session, screen: &Screen) -> Result<bool, Failure> {
    let faults = choose(&options.only)?;
    screen.heading("svcdiag: why does this Service not work?");
    let cluster = session.start_cluster(screen).await?;
    let scene = Scene::new(cluster.client(), &options.common.namespace);
    let kubectl = Kubectl::find().await?.with_kubeconfig(cluster.kubeconfig_path());
    screen.good(&format!(
        "kubectl {} is {}",
        kubectl.version(),
        kubectl.program().display()
    ));
    session.start_controller(screen)?;
    let mut tour = Tour {
        session,
        scene,
        kubectl,
        screen,
    };
    tour.set_up().await?;
    let mut stops = Vec::new();
    for (index, fault) in faults.iter().enumerate() {
        screen.heading(&format!(
            "[{}/{}] {}  {}",
            index + 1,
            faults.len(),
            fault.id,
            fault.title
        ));
        stops.push(tour.stop_at(fault).await?);
    }
    Ok(report(&stops, screen))
}

/// The faults to show, in order.
fn choose(only: &[String]) -> Result<Vec<Fault>, Failure> {
    let catalogue = catalogue()?;
    let ids: Vec<&str> = if only.is_empty() {
        TOUR.to_vec()
    } else {
        only.iter().map(String::as_str).collect()
    };
    ids.into_iter()
        .map(|id| {
            let known = catalogue
                .iter()
                .find(|fault| fault.id.eq_ignore_ascii_case(id.trim()));
            let fault = known.ok_or_else(|| format!("there is no fault {id}; `demo --list` shows all"))?;
            match &fault.refused {
                Some(reason) => Err(format!("{id} cannot be shown: {reason}").into()),
                None => Ok(fault.clone()),
            }
        })
        .collect()
}

struct Tour<'a> {
    session: &'a mut Session,
    scene: Scene,
    kubectl: Kubectl,
    screen: &'a Screen,
}

impl Tour<'_> {
    /// The walk-through as a user would create it, and a first, healthy verdict.
    async fn set_up(&mut self) -> Result<(), Failure> {
        self.screen
            .heading("The walk-through: three Pods, a Service, a client and a diagnosis");
        let namespace = self.scene.namespace();
        if namespace != "default" {
            let manifest = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n");
            self.kubectl
                .run_with_input(&["apply", "-f", "-"], &manifest)
                .await?;
        }
        let applied = self
            .kubectl
            .run_with_input(&["apply", "-n", namespace, "-f", "-"], Scene::manifests())
            .await?;
        self.screen.command("kubectl apply -f walkthrough.yaml", &applied);
        self.scene.wait_until_settled().await?;
        let (verdict, healthy) = self
            .session
            .wait_for_verdict(&self.scene, HEALTHY_WITHIN, Verdict::is_healthy)
            .await?;
        self.show_table().await?;
        if !healthy {
            return Err(format!(
                "the walk-through is healthy, but svcdiag says: {}",
                describe(&verdict)
            )
            .into());
        }
        self.screen.good("healthy, as far as the API can tell");
        if verdict
            .condition("Ready")
            .is_some_and(|ready| ready.reason == "NoVantagePoint")
        {
            self.screen.say(
                "     Ready is Unknown (NoVantagePoint), not True, because no node agents run here: nobody has tried the data path.",
            );
        }
        Ok(())
    }

    async fn stop_at(&mut self, fault: &Fault) -> Result<Stop, Failure> {
        fault.inject(&self.scene).await?;
        let start = Instant::now();
        let within = Duration::from_secs(fault.within_seconds);
        let (verdict, matched) = self
            .session
            .wait_for_verdict(&self.scene, within, |verdict| fault.expected.is_met_by(verdict))
            .await?;
        let seconds = start.elapsed().as_secs_f64();
        self.show_table().await?;
        self.show_root_cause().await?;
        let mut found = fault.expected.found_in(&verdict);
        if matched {
            self.screen.good(&format!("{found}, after {seconds:.1} s"));
        } else {
            self.screen
                .bad(&format!("found {found}, expected {}", fault.expected));
            self.screen.step(&describe(&verdict));
        }
        fault.undo(&self.scene).await?;
        self.scene.wait_until_settled().await?;
        let start = Instant::now();
        let (verdict, recovered) = self
            .session
            .wait_for_verdict(&self.scene, HEALTHY_WITHIN, Verdict::is_healthy)
            .await?;
        if recovered {
            self.screen.good(&format!(
                "mended; healthy again {:.1} s later",
                start.elapsed().as_secs_f64()
            ));
        } else {
            self.screen
                .bad(&format!("mended, but svcdiag still says: {}", describe(&verdict)));
            found.push_str(" (stays after mending)");
        }
        let expected = fault.expected.to_string();
        Ok(Stop {
            id: fault.id.clone(),
            expected,
            found,
            seconds,
            matched: matched && recovered,
        })
    }

    async fn show_table(&self) -> Result<(), Failure> {
        let table = self
            .kubectl
            .run(&["get", "svcdiag", "-n", self.scene.namespace()])
            .await?;
        self.screen.command("kubectl get svcdiag", &table);
        Ok(())
    }

    async fn show_root_cause(&self) -> Result<(), Failure> {
        for (label, path) in [("cause: ", "message"), ("remedy:", "remediation")] {
            let template = format!("jsonpath={{.status.rootCause.{path}}}");
            let arguments = [
                "get",
                "svcdiag",
                Scene::NAME,
                "-n",
                self.scene.namespace(),
                "-o",
                &template,
            ];
            let text = self.kubectl.run(&arguments).await?;
            if !text.is_empty() {
                self.screen
                    .block(&format!("{label} {}", text.replace('\n', "\n         ")));
            }
        }
        Ok(())
    }
}

/// A verdict in one line, for when it is not what we waited for.
fn describe(verdict: &Verdict) -> String {
    match verdict.broken_stages()[..] {
        [] => verdict.to_string(),
        ref stages => format!("{verdict}; False: {}", stages.join(", ")),
    }
}

fn report(stops: &[Stop], screen: &Screen) -> bool {
    screen.heading("What was broken and what svcdiag found");
    let mut rows = vec![
        ["FAULT", "EXPECTED", "FOUND", "SECONDS"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(stops.iter().map(|stop| {
        let found = stop.found.clone();
        vec![
            stop.id.clone(),
            stop.expected.clone(),
            found,
            format!("{:.1}", stop.seconds),
        ]
    }));
    let matched: Vec<bool> = stops.iter().map(|stop| stop.matched).collect();
    screen.table(&rows, &matched);
    let good = matched.iter().filter(|matched| **matched).count();
    screen.say(&format!("\n{good} of {} found.", stops.len()));
    good == stops.len()
}
