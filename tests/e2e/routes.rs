//! A controller whose way to the API server's Service is dead, as where kube-proxy's rules are gone from its node: it goes on
//! with the API server's own addresses.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use nix::sched::{CloneFlags, unshare};
use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig},
    faults::{Fixture, Verdict, catalogue},
};
use tokio::{net::TcpStream, sync::watch, task::JoinSet};

use crate::harness::{SOON, eventually};

/// The address of the API server's Service, and that behind it.
const SERVICE: &str = "10.96.0.1";
const DIRECT: &str = "172.18.0.1";

/// A controller in a network of its own.
struct Cut {
    controller: Running,
    /// Where its Service and the address behind it are served.
    service: TcpListener,
    direct: TcpListener,
}

/// Killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the controller in a new network with both addresses. A thread moves there, and with it what it starts and binds.
fn start(kubeconfig: &Path, log: &Path, port: u16) -> Cut {
    let inside = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        for arguments in [
            vec!["link", "set", "lo", "up"],
            vec!["address", "add", SERVICE, "dev", "lo"],
            vec!["address", "add", DIRECT, "dev", "lo"],
        ] {
            assert!(Command::new("ip").args(arguments).status().unwrap().success());
        }
        let output = std::fs::File::create(log).unwrap();
        Cut {
            service: TcpListener::bind((SERVICE, 443)).unwrap(),
            direct: TcpListener::bind((DIRECT, port)).unwrap(),
            controller: Running(
                Command::new(env!("CARGO_BIN_EXE_svcdiag"))
                    .args(["controller", "--listen", "127.0.0.1:0", "--leader-elect"])
                    .env("KUBECONFIG", kubeconfig)
                    // As in a Pod.
                    .env("KUBERNETES_SERVICE_HOST", SERVICE)
                    .stdin(Stdio::null())
                    .stdout(output.try_clone().unwrap())
                    .stderr(output)
                    .spawn()
                    .unwrap(),
            ),
        }
    };
    std::thread::scope(|scope| scope.spawn(inside).join().unwrap())
}

/// Hands every connection on to the API server, until it is cut: from then on nothing comes through, and nobody is told.
async fn forward(listener: TcpListener, server: String, cut: watch::Receiver<bool>) {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let mut connections = JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        let (server, mut cut) = (server.clone(), cut.clone());
        connections.spawn(async move {
            let copied = async {
                let mut server = TcpStream::connect(&server).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            };
            tokio::select! {
                _ = copied => return,
                _ = cut.wait_for(|cut| *cut) => {}
            }
            // Held open, and silent.
            std::future::pending::<()>().await;
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_whose_service_of_the_api_server_is_dead_goes_on_with_the_address_behind_it() {
    let cluster = Cluster::start(ClusterConfig::default()).await.unwrap();
    let Some(server) = cluster.url().strip_prefix("http://") else {
        println!(
            "a real API server has a certificate for its own addresses; that is tested with the agents' routes"
        );
        cluster.stop().await;
        return;
    };
    let server = server.trim_end_matches('/').to_owned();
    let port = server.rsplit(':').next().unwrap().parse().unwrap();
    let kubeconfig = cluster.state_dir().join("service.kubeconfig");
    let text = std::fs::read_to_string(cluster.kubeconfig_path()).unwrap();
    let by_service = format!("http://{SERVICE}:443");
    std::fs::write(&kubeconfig, text.replace(cluster.url(), &by_service)).unwrap();
    let log = cluster.state_dir().join("cut.log");
    let Cut {
        controller,
        service,
        direct,
    } = start(&kubeconfig, &log, port);
    let (cut, is_cut) = watch::channel(false);
    let (_never, never) = watch::channel(false);
    let ways = [
        tokio::spawn(forward(service, server.clone(), is_cut)),
        tokio::spawn(forward(direct, server, never)),
    ];
    let said = || std::fs::read_to_string(&log).unwrap_or_default();

    let fixture = Fixture::new(cluster.client(), "routes");
    fixture.set_up().await.unwrap();
    let fault = catalogue().unwrap().into_iter().find(|f| f.id == "A08").unwrap();
    let verdict = async |what: &str, test: &dyn Fn(&Verdict) -> bool| {
        let start = Instant::now();
        while !test(&fixture.verdict().await.unwrap()) {
            assert!(start.elapsed() < SOON, "not {what}:\n{}", said());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    verdict("healthy", &Verdict::is_healthy).await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client(), "svcdiag-system");
    eventually("it knows the addresses", async || {
        maps.get_opt("svcdiag-apiserver").await.unwrap()
    })
    .await;

    cut.send_replace(true);
    fault.inject(&fixture).await.unwrap();
    verdict("broken", &|v| fault.expected.is_met_by(v)).await;
    assert!(
        said().contains(&format!("Switching to http://{DIRECT}:{port}/")),
        "{}",
        said()
    );
    fault.undo(&fixture).await.unwrap();
    verdict("healthy again", &Verdict::is_healthy).await;

    drop(controller);
    ways.iter().for_each(tokio::task::JoinHandle::abort);
    cluster.stop().await;
}
