//! The processes of Pods, each in a network namespace, a cgroup and a root directory of its own.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use tokio::{io::AsyncWriteExt, process::Command, sync::Mutex};

use super::{Error, Node, Wiring, cgroup::Cgroups, namespace::Namespace};

/// What is to be started for a Pod.
#[derive(Clone, Debug)]
pub struct PodSetup {
    /// Its UID.
    pub uid: String,
    /// Its name, which it answers.
    pub name: String,
    /// Its node.
    pub node: String,
    /// Its addresses; those of the node where it uses the node's network.
    pub addresses: Vec<String>,
    /// Whether it uses the node's network.
    pub host_network: bool,
    /// Its resolv.conf.
    pub resolv_conf: String,
    /// Environment of its containers.
    pub environment: Vec<(String, String)>,
    /// What its process does.
    pub role: Role,
}

/// What the process of a Pod does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// Answers its name.
    Serve {
        /// Where, as `tcp://0.0.0.0:9376`.
        listen: Vec<String>,
        /// Status of its HTTP answers.
        status: u16,
        /// How long it waits before it takes a connection, in milliseconds.
        delay_milliseconds: u64,
        /// A C library to be seen with: `musl` or `glibc`.
        libc: Option<String>,
    },
    /// Serves DNS from /zone.json.
    Dns,
}

/// Pods that run.
pub(super) struct Pods {
    running: Mutex<HashMap<String, Running>>,
    program: PathBuf,
    directory: PathBuf,
    // Dropped last: a cgroup with processes stays.
    cgroups: Cgroups,
}

struct Running {
    name: String,
    role: Role,
    root: PathBuf,
    /// None for a Pod in its node's network.
    namespace: Option<Namespace>,
    process: Option<tokio::process::Child>,
    node: Arc<Node>,
}

/// Name of the node's end of a Pod's link.
pub(super) fn veth(uid: &str) -> String {
    let digits: String = uid.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    format!("veth{digits}")
}

impl Pods {
    pub(super) fn new(cgroups: Cgroups, program: PathBuf, directory: PathBuf) -> Self {
        Self {
            cgroups,
            program,
            directory,
            running: Mutex::default(),
        }
    }

    pub(super) async fn start(&self, node: &Arc<Node>, setup: &PodSetup) -> Result<(), Error> {
        let mut running = self.running.lock().await;
        if running.contains_key(&setup.uid) {
            return Ok(());
        }
        let root = self.directory.join(&setup.uid);
        furnish(&root, setup)?;
        let arguments = self.arguments(&root, setup);
        let (namespace, process) = if setup.host_network {
            let mut command = node.namespace().command(&self.program.to_string_lossy());
            let mut process = command
                .args(&arguments)
                .envs(setup.environment.iter().cloned())
                .stdin(std::process::Stdio::piped())
                .process_group(0)
                .spawn()
                .map_err(|source| Error::Start {
                    program: self.program.display().to_string(),
                    source,
                })?;
            self.cgroups.join(&setup.uid, process.id().unwrap_or_default())?;
            if let Some(input) = process.stdin.as_mut() {
                // One that has just ended reads no more.
                let _ = input.write_all(b"linked\n").await;
            }
            (None, Some(process))
        } else {
            let mut command = Command::new("unshare");
            command
                .args(["--net", "--"])
                .arg(&self.program)
                .args(&arguments)
                .envs(setup.environment.iter().cloned());
            let place = format!("Pod {}", setup.name);
            let mut namespace = Namespace::held_by(command, &place, &self.directory).await?;
            self.cgroups.join(&setup.uid, namespace.pid())?;
            if let Err(error) = link(node, &namespace, setup).await {
                namespace.end().await;
                self.clean_up(node, &setup.uid, &root).await;
                return Err(error);
            }
            namespace.tell("linked\n").await;
            (Some(namespace), None)
        };
        let pod = Running {
            name: setup.name.clone(),
            role: setup.role.clone(),
            root,
            namespace,
            process,
            node: node.clone(),
        };
        running.insert(setup.uid.clone(), pod);
        Ok(())
    }

    fn arguments(&self, root: &Path, setup: &PodSetup) -> Vec<String> {
        // Plain data: a Role always becomes JSON.
        let role = serde_json::to_string(&setup.role).unwrap_or_default();
        [
            "workload",
            "pod",
            "--root",
            &root.to_string_lossy(),
            "--name",
            &setup.name,
            "--role",
            &role,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    pub(super) async fn stop(&self, uid: &str) {
        let Some(pod) = self.running.lock().await.remove(uid) else {
            return;
        };
        // With the last process the namespace goes, and with it the link.
        if let Some(namespace) = pod.namespace {
            namespace.end().await;
        }
        if let Some(mut process) = pod.process {
            let _ = process.kill().await;
        }
        self.clean_up(&pod.node, uid, &pod.root).await;
    }

    /// Takes a process that runs already into a Pod.
    pub(super) fn adopt(&self, uid: &str, pid: u32) -> Result<(), Error> {
        self.cgroups.join(uid, pid)
    }

    /// Removes what a Pod leaves behind whose processes have ended.
    async fn clean_up(&self, node: &Node, uid: &str, root: &Path) {
        self.cgroups.remove(uid);
        let _ = std::fs::remove_dir_all(root);
        // The kernel takes namespaces away a moment later; the link must not be in the way of another.
        let _ = node
            .sh(&format!("ip link del {} 2>/dev/null || true", veth(uid)), &[])
            .await;
    }

    pub(super) async fn stop_all(&self) {
        let uids: Vec<String> = self.running.lock().await.keys().cloned().collect();
        for uid in uids {
            self.stop(&uid).await;
        }
    }

    pub(super) async fn sh(
        &self,
        uid: &str,
        script: &str,
        env: &[(String, String)],
    ) -> Result<String, Error> {
        let running = self.running.lock().await;
        let pod = running.get(uid).ok_or_else(|| Error::Missing {
            what: format!("process of Pod {uid}"),
        })?;
        match &pod.namespace {
            Some(namespace) => namespace.sh(script, env).await,
            None => pod.node.sh(script, env).await,
        }
    }

    pub(super) async fn has(&self, uid: &str) -> bool {
        self.running.lock().await.contains_key(uid)
    }

    pub(super) async fn networks(&self) -> Vec<(String, PathBuf)> {
        let running = self.running.lock().await;
        let own = |pod: &Running| Some((pod.name.clone(), pod.namespace.as_ref()?.path()));
        let mut networks: Vec<_> = running.values().filter_map(own).collect();
        networks.sort();
        networks
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    pub(super) async fn dns_roots(&self) -> Vec<(String, PathBuf)> {
        let running = self.running.lock().await;
        let servers = running.values().filter(|pod| pod.role == Role::Dns);
        servers.map(|pod| (pod.name.clone(), pod.root.clone())).collect()
    }
}

/// The root directory of a Pod.
fn furnish(root: &Path, setup: &PodSetup) -> Result<(), Error> {
    let write = |name: &str, text: &str| {
        let path = root.join(name);
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        made.and_then(|()| std::fs::write(&path, text))
            .map_err(|source| Error::File { path, source })
    };
    write("etc/resolv.conf", &setup.resolv_conf)?;
    write("etc/hostname", &format!("{}\n", setup.name))?;
    if let Role::Serve { libc: Some(libc), .. } = &setup.role {
        // Only its name matters, in the list of what the process has mapped.
        let file = if libc == "musl" {
            "lib/ld-musl-x86_64.so.1"
        } else {
            "lib/libc.so.6"
        };
        write(file, &"\n".repeat(4096))?;
    }
    Ok(())
}

/// Links a Pod to its node as CNI plugins do.
async fn link(node: &Node, namespace: &Namespace, setup: &PodSetup) -> Result<(), Error> {
    let (veth, pid, number) = (veth(&setup.uid), namespace.pid(), node.number());
    let v4 = setup.addresses.iter().find(|address| !address.contains(':'));
    let v6 = setup.addresses.iter().find(|address| address.contains(':'));
    let mut outside = format!(
        "ip link add {veth} type veth peer name eth0 netns {pid}
        "
    );
    let mut inside = String::from("ip link set eth0 up\n");
    match node.wiring() {
        Wiring::Bridge => {
            outside.push_str(&format!(
                "ip link set {veth} master cni0 up
                bridge link set dev {veth} hairpin on
                "
            ));
            if let Some(address) = v4 {
                inside.push_str(&format!(
                    "ip addr add {address}/24 dev eth0\nip route add default via 10.244.{number}.1\n"
                ));
            }
            if let Some(address) = v6 {
                inside.push_str(&format!(
                    "ip addr add {address}/64 dev eth0 nodad\nip -6 route add default via fd00:10:244:{number}::1\n"
                ));
            }
        }
        Wiring::PointToPoint => {
            outside.push_str(&format!("ip link set {veth} up\n"));
            if let Some(address) = v4 {
                outside.push_str(&format!(
                    "ip addr add 10.244.{number}.1/32 dev {veth}
                    ip route add {address}/32 dev {veth} scope host src 10.244.{number}.1
                    "
                ));
                inside.push_str(&format!(
                    "ip addr add {address}/32 dev eth0
                    ip route add 10.244.{number}.1 dev eth0 scope link src {address}
                    ip route add default via 10.244.{number}.1
                    "
                ));
            }
            if let Some(address) = v6 {
                outside.push_str(&format!(
                    "ip addr add fd00:10:244:{number}::1/128 dev {veth} nodad
                    ip -6 route add {address}/128 dev {veth}
                    "
                ));
                inside.push_str(&format!(
                    "ip addr add {address}/128 dev eth0 nodad
                    ip -6 route add fd00:10:244:{number}::1 dev eth0
                    ip -6 route add default via fd00:10:244:{number}::1
                    "
                ));
            }
        }
    }
    node.sh(&outside, &[]).await?;
    namespace.sh(&inside, &[]).await?;
    Ok(())
}
