//! A real etcd and kube-apiserver, with RBAC and an audit log.
//!
//! In: the programs in the folder that `KUBEBUILDER_ASSETS` names, as `cargo xtask setup` builds
//! them. Out: an API server that a test can ask, stop and start again with all it knows. No
//! controller and no kubelet runs: what they would write, tests write. It ends with the node it was
//! started beside, however that ends.

pub mod api;
pub mod audit;

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::json;

use crate::namespace;
use crate::network::NODE;
use crate::node::Node;
use crate::object::uuid;
use crate::{cgroup, tool};
use api::{Api, Door};
use audit::Asked;

/// It takes 4 s on two free cores.
const PATIENCE: Duration = Duration::from_secs(90);

/// Where the servers stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// Beside the tests, on loopback.
    BesideTests,
    /// In the network of the simulated node, at the node's own address. From there the API server
    /// reaches pods; to loopback addresses its proxy does not go.
    OnNode,
}

/// A running control plane. Dropping it ends it.
#[derive(Debug)]
pub struct ControlPlane {
    folder: PathBuf,
    programs: PathBuf,
    side: PathBuf,
    door: Door,
    etcd_ports: [u16; 2],
    token: String,
    etcd: Option<Running>,
    server: Option<Running>,
}

/// A program that is killed when it is dropped.
#[derive(Debug)]
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl ControlPlane {
    /// Starts both servers with nothing in them and waits until they answer.
    ///
    /// # Errors
    /// If they are not built, or do not start; the last words are quoted.
    pub fn start(node: &Node, stand: Stand) -> anyhow::Result<Self> {
        let programs = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from).context(
            "KUBEBUILDER_ASSETS names no folder with kube-apiserver, etcd and kubectl; \
             `cargo xtask test --tier cluster` builds them",
        )?;
        let folder = node.folder().join("control-plane");
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let (network, address) = match stand {
            Stand::BesideTests => (None, Ipv4Addr::LOCALHOST),
            Stand::OnNode => (Some(node.network().clone()), NODE.v4),
        };
        let [port, first, second] = namespace::within(network.as_ref(), || free_ports(address))?;
        let authority = folder.join("certificates/apiserver.crt");
        let address = SocketAddr::new(IpAddr::V4(address), port);
        let mut control_plane = Self {
            side: node.side_cgroup()?,
            programs,
            door: Door { address, authority, network },
            etcd_ports: [first, second],
            token: uuid()?,
            etcd: None,
            server: None,
            folder,
        };
        control_plane.prepare()?;
        control_plane.resume()?;
        Ok(control_plane)
    }

    /// Ends both servers, as a machine ends that loses its power. What they know stays.
    pub fn stop(&mut self) {
        self.server = None;
        self.etcd = None;
    }

    /// Starts them again, on the same data and at the same address, and waits until they answer.
    ///
    /// # Errors
    /// If they do not.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.etcd = Some(self.run("etcd", &self.etcd_arguments())?);
        self.server = Some(self.run("kube-apiserver", &self.server_arguments())?);
        let since = Instant::now();
        loop {
            // The certificate is made by the server, so there is nobody to ask before.
            let answer = self.admin().ask("GET", "/readyz", "");
            if answer.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            let servers = [&mut self.etcd, &mut self.server];
            let ended = servers.into_iter().flatten().map(|running| running.0.try_wait());
            let ended: Vec<_> = ended.collect::<Result<_, _>>()?;
            if let Some(status) = ended.into_iter().flatten().next() {
                bail!("a server ended with {status}: {}", self.last_words());
            }
            if since.elapsed() > PATIENCE {
                bail!("the API server is not ready: {}", self.last_words());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Where the API server is.
    #[must_use]
    pub fn door(&self) -> &Door {
        &self.door
    }

    /// One who may do everything.
    #[must_use]
    pub fn admin(&self) -> Api {
        Api::new(self.door.clone(), &self.token)
    }

    /// A kubeconfig for one who may do everything.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn admin_kubeconfig(&self) -> anyhow::Result<PathBuf> {
        self.kubeconfig("admin", &self.token, None)
    }

    /// A kubeconfig with a fresh token of a service account, at the API server or at a stand-in for
    /// it (`http://127.0.0.1:1234`).
    ///
    /// # Errors
    /// If there is no such service account.
    pub fn account_kubeconfig(
        &self,
        namespace: &str,
        account: &str,
        stand_in: Option<&str>,
    ) -> anyhow::Result<PathBuf> {
        let token = self.account_token(namespace, account)?;
        self.kubeconfig(&format!("{namespace}-{account}"), &token, stand_in)
    }

    /// A fresh token of a service account, as kubelet gets it for a pod.
    ///
    /// # Errors
    /// If there is no such service account.
    pub fn account_token(&self, namespace: &str, account: &str) -> anyhow::Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600}});
        let answer = self.admin().want("POST", &path, &request)?;
        Ok(answer["status"]["token"].as_str().context("no token")?.to_string())
    }

    /// Runs kubectl as one who may do everything.
    ///
    /// # Errors
    /// If it fails; what it said is quoted.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        let program = self.programs.join("kubectl").display().to_string();
        let kubeconfig = format!("--kubeconfig={}", self.admin_kubeconfig()?.display());
        let cache = format!("--cache-dir={}", self.folder.join("kubectl").display());
        let all: Vec<_> =
            [kubeconfig.as_str(), &cache].into_iter().chain(arguments.iter().copied()).collect();
        namespace::within(self.door.network.as_ref(), || tool::run(&program, &all, input))
    }

    /// What service accounts asked for until now.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn asked(&self) -> anyhow::Result<BTreeSet<Asked>> {
        audit::read(&self.folder.join("audit.log"))
    }

    fn kubeconfig(&self, name: &str, token: &str, server: Option<&str>) -> anyhow::Result<PathBuf> {
        let own = format!("https://{}", self.door.address);
        let mut cluster = json!({"server": server.unwrap_or(&own)});
        if server.is_none() {
            cluster["certificate-authority"] = self.door.authority.display().to_string().into();
        }
        // JSON is YAML too.
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
        });
        let place = if server.is_some() { "stand-in" } else { "server" };
        let path = self.folder.join(format!("{name}-{place}.kubeconfig"));
        write(&path, &text.to_string())?;
        Ok(path)
    }

    fn prepare(&self) -> anyhow::Result<()> {
        write(
            &self.folder.join("tokens.csv"),
            &format!("{},admin,admin,system:masters\n", self.token),
        )?;
        write(&self.folder.join("audit-policy.json"), audit::POLICY)?;
        let key = self.folder.join("accounts.key");
        let words = ["ecparam", "-genkey", "-noout", "-name", "prime256v1", "-out"];
        let key = key.display().to_string();
        tool::run("openssl", &[words.as_slice(), &[&key]].concat(), "").map(drop)
    }

    fn etcd_arguments(&self) -> Vec<String> {
        let [clients, peers] = self.etcd_ports.map(|port| format!("http://127.0.0.1:{port}"));
        vec![
            format!("--data-dir={}", self.folder.join("etcd").display()),
            format!("--listen-client-urls={clients}"),
            format!("--advertise-client-urls={clients}"),
            format!("--listen-peer-urls={peers}"),
            format!("--initial-advertise-peer-urls={peers}"),
            format!("--initial-cluster=default={peers}"),
            // What a killed process wrote survives it; only a machine's end would lose it.
            "--unsafe-no-fsync".to_string(),
            "--log-level=error".to_string(),
        ]
    }

    fn server_arguments(&self) -> Vec<String> {
        let at = |name: &str| self.folder.join(name).display().to_string();
        let Door { address, .. } = &self.door;
        vec![
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_ports[0]),
            format!("--bind-address={}", address.ip()),
            format!("--advertise-address={}", address.ip()),
            format!("--secure-port={}", address.port()),
            format!("--cert-dir={}", at("certificates")),
            format!("--token-auth-file={}", at("tokens.csv")),
            "--authorization-mode=RBAC".to_string(),
            "--service-account-issuer=https://kubernetes.default.svc".to_string(),
            format!("--service-account-key-file={}", at("accounts.key")),
            format!("--service-account-signing-key-file={}", at("accounts.key")),
            // Service accounts called `default` are made by a controller, and none runs.
            "--disable-admission-plugins=ServiceAccount".to_string(),
            // Node ports and addresses as the simulated node hands them out.
            "--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112".to_string(),
            "--endpoint-reconciler-type=none".to_string(),
            format!("--audit-policy-file={}", at("audit-policy.json")),
            format!("--audit-log-path={}", at("audit.log")),
            "--allow-privileged=true".to_string(),
            "--profiling=false".to_string(),
            // A restart of the server must not wait for the requests of the one before.
            "--shutdown-delay-duration=0s".to_string(),
        ]
    }

    /// Starts one of the programs so that it ends with the node.
    fn run(&self, name: &str, arguments: &[String]) -> anyhow::Result<Running> {
        let log = self.log(name);
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| log.display().to_string())?;
        let path = self.programs.join(name);
        let mut command = Command::new(&path);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let spawn = || command.spawn().with_context(|| format!("cannot start {}", path.display()));
        let running = Running(namespace::within(self.door.network.as_ref(), spawn)?);
        cgroup::join(&self.side, running.0.id())?;
        Ok(running)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    fn last_words(&self) -> String {
        let tail = |name: &str| {
            let text = fs::read_to_string(self.log(name)).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            format!("{name}: {}", lines[lines.len().saturating_sub(12)..].join("\n"))
        };
        format!("{}\n{}", tail("etcd"), tail("kube-apiserver"))
    }
}

/// Nobody but the tests may read what opens the API server.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let shown = || path.display().to_string();
    fs::write(path, text).with_context(shown)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).with_context(shown)
}

/// Held together, so that they differ, and given back before the servers take them.
fn free_ports<const COUNT: usize>(address: Ipv4Addr) -> anyhow::Result<[u16; COUNT]> {
    let mut held = Vec::new();
    let mut ports = [0; COUNT];
    for port in &mut ports {
        let listener = TcpListener::bind((address, 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}
