//! A node: a network namespace on the cable between the nodes, with a bridge for its Pods.

use std::{net::IpAddr, path::Path};

use tokio::sync::Mutex;

use super::{DataPath, Error, Wiring, kubeproxy::KubeProxy, namespace::Namespace};
use crate::proxy::Script;

/// The cable: a bridge whose packets no rule sees. The nodes' default route leads to it, and there packets
/// that go nowhere in the cluster vanish.
pub(super) const UNDERLAY: &str = "
    ip link add br0 type bridge
    ip link set br0 up
    ip addr add 172.18.0.254/24 dev br0
    ip addr add fd00:172:18::fe/64 dev br0 nodad
    for file in /proc/sys/net/bridge/bridge-nf-call-*; do if [ -e $file ]; then echo 0 > $file; fi; done
";

/// A node of the cluster.
pub struct Node {
    name: String,
    number: u8,
    data_path: DataPath,
    dual_stack: bool,
    namespace: Namespace,
    pub(super) kube_proxy: Mutex<KubeProxy>,
}

impl Node {
    pub(super) async fn new(
        name: &str,
        number: u8,
        nodes: usize,
        data_path: DataPath,
        dual_stack: bool,
        underlay: &Namespace,
        directory: &Path,
    ) -> Result<Self, Error> {
        let namespace = Namespace::new(name, directory).await?;
        let pid = namespace.pid();
        underlay
            .sh(
                &format!(
                    "ip link add n{number} type veth peer name eth0 netns {pid}\nip link set n{number} master br0 up"
                ),
                &[],
            )
            .await?;
        let node = Self {
            name: name.to_owned(),
            number,
            data_path,
            dual_stack,
            kube_proxy: Mutex::new(KubeProxy::new(&directory.join(name))?),
            namespace,
        };
        node.sh(&node.set_up(nodes), &[]).await?;
        Ok(node)
    }

    /// What a fresh node does at boot, and its CNI plugin when the first Pod comes.
    fn set_up(&self, nodes: usize) -> String {
        let number = self.number;
        let mut script = format!(
            "ip link set eth0 up
            ip addr add {address}/24 dev eth0
            echo 1 > /proc/sys/net/ipv4/ip_forward
            echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
            ip addr add fd00:172:18::{host:x}/64 dev eth0 nodad
            ip route add default via 172.18.0.254
            ip -6 route add default via fd00:172:18::fe
            for file in /proc/sys/net/bridge/bridge-nf-call-*; do if [ -e $file ]; then echo 1 > $file; fi; done
            ",
            address = self.address(),
            host = number + 1,
        );
        if self.data_path.wiring == Wiring::Bridge {
            script.push_str(&format!(
                "ip link add cni0 type bridge
                ip link set cni0 up
                ip addr add 10.244.{number}.1/24 dev cni0
                ip addr add fd00:10:244:{number}::1/64 dev cni0 nodad
                "
            ));
        }
        let others = (1..=nodes).filter(|other| *other != usize::from(number));
        for other in others {
            script.push_str(&format!(
                "ip route add 10.244.{other}.0/24 via 172.18.0.{host}
                ip -6 route add fd00:10:244:{other}::/64 via fd00:172:18::{host:x}
                ",
                host = other + 1,
            ));
        }
        script
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its place among the nodes, from 1; the third number of its Pods' addresses.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Its address in the cluster.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        IpAddr::from([172, 18, 0, self.number + 1])
    }

    /// All its addresses in the cluster.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        let mut all = vec![self.address()];
        if self.dual_stack {
            all.push(IpAddr::from([
                0xfd00,
                0x172,
                0x18,
                0,
                0,
                0,
                0,
                u16::from(self.number) + 1,
            ]));
        }
        all
    }

    /// How the cluster is made.
    #[must_use]
    pub fn data_path(&self) -> DataPath {
        self.data_path
    }

    /// Whether Pods have IPv6 addresses as well.
    #[must_use]
    pub fn is_dual_stack(&self) -> bool {
        self.dual_stack
    }

    /// How its Pods are linked to it.
    #[must_use]
    pub fn wiring(&self) -> Wiring {
        self.data_path.wiring
    }

    /// The file that stands for its network namespace, for `svcdiag agent --node-network`.
    #[must_use]
    pub fn netns_path(&self) -> std::path::PathBuf {
        self.namespace.path()
    }

    /// Runs a shell script in its network namespace; what the script prints.
    ///
    /// # Errors
    /// When the script fails, with what it wrote to standard error.
    pub async fn sh(&self, script: &str, env: &[(String, String)]) -> Result<String, Error> {
        self.namespace.sh(script, env).await
    }

    /// Runs the programs that write rules.
    ///
    /// # Errors
    /// When one fails.
    pub async fn write(&self, scripts: &[Script]) -> Result<(), Error> {
        for script in scripts {
            let present = match script.present {
                Some(program) => self.namespace.feed(program, &[], &[], "").await?,
                None => String::new(),
            };
            if let Some(input) = script.input(&present) {
                self.namespace
                    .feed(script.program, script.args, &[], &input)
                    .await?;
            }
        }
        Ok(())
    }

    pub(super) fn namespace(&self) -> &Namespace {
        &self.namespace
    }
}
