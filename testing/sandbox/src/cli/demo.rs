//! `svcdiag-sandbox demo`: the guided tour.
//!
//! For each fault: break, wait for the verdict, show what a user sees with the real kubectl,
//! fix, wait until svcdiag agrees. At the end a table of what was expected and what was found.
//! Which faults are shown, and in which clusters, stands in [`tour`].

use std::time::{Duration, Instant};

use clap::Args;
use svcdiag_sandbox::faults::{Fault, Fixture, Verdict};
use svcdiag_sandbox::kubectl::Kubectl;

use super::{
    Common, Failure, Screen, Session,
    tour::{self, Length},
};

/// svcdiag judges changes of objects at once, and nodes are probed within seconds; the rest is for busy machines.
const HEALTHY_WITHIN: Duration = Duration::from_secs(45);
/// Dials that nobody answers are what the tour waits for most of the time.
const QUICKLY: &str = r#"{"spec":{"intervalSeconds":10,"probe":{"timeoutSeconds":2,"attempts":1}}}"#;

/// What to show.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(super) common: Common,
    /// Only these faults, in this order
    #[arg(long, value_delimiter = ',', value_name = "ID,...")]
    only: Vec<String>,
    /// The whole tour: every condition, and kube-proxy in two modes (some minutes)
    #[arg(long, conflicts_with = "only")]
    all: bool,
    /// List all faults and what svcdiag says about each, and end
    #[arg(long)]
    pub(super) list: bool,
}

/// What came of one stop of the tour.
struct Stop {
    id: String,
    /// Mode of kube-proxy, where there were clusters with several.
    cluster: Option<String>,
    expected: String,
    found: String,
    seconds: f64,
    matched: bool,
}

/// Runs the tour; true if every verdict was the expected one.
pub(super) async fn run(options: &Options, session: &mut Session, screen: &Screen) -> Result<bool, Failure> {
    let length = if options.all { Length::Whole } else { Length::Short };
    let parts = tour::parts(options.common.data_path(), &options.only, length)?;
    screen.heading("svcdiag: why does this Service not work?");
    let kubectl = Kubectl::find().await?;
    screen.good(&format!(
        "kubectl {} is {}",
        kubectl.version(),
        kubectl.program().display()
    ));
    let total = parts.iter().map(|part| part.faults.len()).sum::<usize>();
    let start = Instant::now();
    let mut stops = Vec::new();
    for part in &parts {
        screen.heading(&part.title);
        let cluster = session.start_cluster(part.data_path, screen).await?;
        let fixture = Fixture::of(cluster, &options.common.namespace);
        let kubectl = kubectl.clone().with_kubeconfig(cluster.kubeconfig_path());
        session.start_controller(screen)?;
        let mut tour = Tour {
            session,
            fixture,
            kubectl,
            screen,
        };
        tour.set_up().await?;
        for fault in &part.faults {
            let number = stops.len() + 1;
            screen.heading(&format!("[{number}/{total}] {}  {}", fault.id, fault.title));
            let mut stop = tour.stop_at(fault).await?;
            if parts.len() > 1 {
                stop.cluster = part.data_path.map(|data_path| data_path.proxy.to_string());
            }
            stops.push(stop);
        }
    }
    screen.step(&format!("the tour took {:.0} s", start.elapsed().as_secs_f64()));
    let is_as_expected = report(&stops, screen);
    if !options.all && options.only.is_empty() {
        screen.say("\nThere is more: `make demo-all` breaks it in every stage, `make sandbox` starts a cluster for your own kubectl.");
    }
    Ok(is_as_expected)
}

struct Tour<'a> {
    session: &'a mut Session,
    fixture: Fixture,
    kubectl: Kubectl,
    screen: &'a Screen,
}

impl Tour<'_> {
    /// The walk-through as a user would create it, and a first, healthy verdict.
    async fn set_up(&mut self) -> Result<(), Failure> {
        self.screen
            .heading("The walk-through: three Pods, a Service, a client and a diagnosis");
        let namespace = self.fixture.namespace();
        if namespace != "default" {
            let manifest = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n");
            self.kubectl
                .run_with_input(&["apply", "-f", "-"], &manifest)
                .await?;
        }
        let applied = self
            .kubectl
            .run_with_input(&["apply", "-n", namespace, "-f", "-"], Fixture::manifests())
            .await?;
        self.screen.command("kubectl apply -f walkthrough.yaml", &applied);
        if self.has_nodes() {
            let name = Fixture::NAME;
            let arguments = [
                "patch",
                "svcdiag",
                name,
                "-n",
                namespace,
                "--type=merge",
                "-p",
                QUICKLY,
            ];
            let patched = self.kubectl.run(&arguments).await?;
            self.screen.say(
                "  To be quick, nodes are probed every 10 s here, not every minute, and agents dial once for 2 s at most:",
            );
            self.screen.command(
                &format!("kubectl patch svcdiag {name} --type=merge -p '{QUICKLY}'"),
                &patched,
            );
        }
        self.fixture.wait_until_settled().await?;
        self.screen.step("waiting for the first verdict ...");
        let start = Instant::now();
        let (verdict, healthy) = self.wait_until_healthy().await?;
        self.show_table().await?;
        if !healthy {
            return Err(format!(
                "the walk-through is healthy, but svcdiag says: {}",
                describe(&verdict)
            )
            .into());
        }
        if self.has_nodes() {
            self.screen.good(&format!(
                "the Service works: asked from every node and from Pods, by IP and by name ({verdict}, {:.1} s)",
                start.elapsed().as_secs_f64()
            ));
        } else {
            self.screen.good("healthy, as far as the API can tell");
            self.screen.say(
                "     Ready is Unknown (NoVantagePoint), not True, because no node agents run here: nobody has tried the data path.",
            );
        }
        Ok(())
    }

    fn has_nodes(&self) -> bool {
        self.fixture.kernel().is_some()
    }

    /// Healthy is Ready=True where there are nodes, and elsewhere what the API can tell.
    async fn wait_until_healthy(&mut self) -> Result<(Verdict, bool), Failure> {
        let healthy = if self.has_nodes() {
            Verdict::works
        } else {
            Verdict::is_healthy
        };
        self.session
            .wait_for_verdict(&self.fixture, HEALTHY_WITHIN, healthy)
            .await
    }

    async fn stop_at(&mut self, fault: &Fault) -> Result<Stop, Failure> {
        self.screen.step("breaking it, and waiting for the verdict ...");
        fault.inject(&self.fixture).await?;
        let start = Instant::now();
        let within = Duration::from_secs(fault.within_seconds);
        let (verdict, matched) = self
            .session
            .wait_for_verdict(&self.fixture, within, |verdict| fault.expected.is_met_by(verdict))
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
        fault.undo(&self.fixture).await?;
        self.fixture.wait_until_settled().await?;
        let start = Instant::now();
        let (verdict, recovered) = self.wait_until_healthy().await?;
        if recovered {
            self.screen.good(&format!(
                "fixed; {} again {:.1} s later",
                if self.has_nodes() { "Ready=True" } else { "healthy" },
                start.elapsed().as_secs_f64()
            ));
        } else {
            self.screen
                .bad(&format!("fixed, but svcdiag still says: {}", describe(&verdict)));
            found.push_str(" (stays after fixing)");
        }
        let expected = fault.expected.to_string();
        Ok(Stop {
            id: fault.id.clone(),
            cluster: None,
            expected,
            found,
            seconds,
            matched: matched && recovered,
        })
    }

    async fn show_table(&self) -> Result<(), Failure> {
        let table = self
            .kubectl
            .run(&["get", "svcdiag", "-n", self.fixture.namespace()])
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
                Fixture::NAME,
                "-n",
                self.fixture.namespace(),
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
            match &stop.cluster {
                Some(cluster) => format!("{} {cluster}", stop.id),
                None => stop.id.clone(),
            },
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
