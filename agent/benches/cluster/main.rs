//! What watching a large cluster takes: memory of each pod, time until all are known, time of one
//! change.
//!
//! In: a simulated API server on loopback, in a process of its own, with pods as large as real
//! ones. Out: a table of the agent's watches beside a plain `kube` reflector of whole Pods, each
//! measured in a process of its own and less what one takes that watches no pod. It touches no
//! cluster.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark prints its results, and ends where it cannot measure"
)]

mod server;
mod subjects;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use self::subjects::Measured;

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
const KUBECONFIG: &str = r#"{"apiVersion":"v1","kind":"Config","current-context":"c",
"clusters":[{"name":"c","cluster":{"server":"http://127.0.0.1:PORT"}}],
"users":[{"name":"u","user":{}}],"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}]}"#;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", pods] => server::serve(pods.parse().unwrap()),
        ["agent", kubeconfig] => report(subjects::agent(kubeconfig)),
        ["reflector", kubeconfig] => report(subjects::plain(kubeconfig)),
        _ => table(),
    }
}

fn report(measuring: impl Future<Output = Measured>) {
    parapet::memory::give_back();
    let tasks = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let measured = tasks.unwrap().block_on(measuring);
    println!("{}", serde_json::to_string(&measured).unwrap());
}

fn table() {
    let sizes: Vec<usize> = match std::env::var("PARAPET_BENCH_PODS") {
        Ok(size) => vec![size.parse().unwrap()],
        Err(_) => SIZES.to_vec(),
    };
    println!("memory is anonymous memory less that of the same process without pods; x of steady");
    println!(
        "{:>7} {:>6} {:>6} {:>6} {:>7} {:>10} {:>7} | {:>9} {:>7} {:>6}",
        "pods",
        "B/pod",
        "peak",
        "relist",
        "ready",
        "change ms",
        "step us",
        "reflector",
        "ready",
        "ours",
    );
    let (no_ours, no_reflector) = with_server(0);
    for pods in sizes {
        let (ours, reflector) = with_server(pods);
        let steady = ours.over(ours.steady, &no_ours);
        let plain = reflector.over(reflector.steady, &no_reflector);
        println!(
            "{pods:>7} {:>6.0} {:>5.2}x {:>5.2}x {:>6.2}s {:>5.2} ({:.2}) {:>6.0} | \
             {:>7.0} B {:>6.2}s {:>5.3}x",
            steady / pods as f64,
            ours.over(ours.peak, &no_ours) / steady,
            ours.over(ours.relist_peak, &no_ours) / steady,
            ours.ready_seconds,
            middle(&ours.change_ms),
            ours.change_ms.iter().copied().fold(0.0, f64::max),
            middle(&ours.step_us),
            plain / pods as f64,
            reflector.ready_seconds,
            steady / plain,
        );
    }
}

/// The agent, then a reflector, at one server.
fn with_server(pods: usize) -> (Measured, Measured) {
    let own = std::env::current_exe().unwrap();
    let mut server = Command::new(&own);
    let mut server =
        server.args(["serve", &pods.to_string()]).stdout(Stdio::piped()).spawn().unwrap();
    let mut port = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, KUBECONFIG.replace("PORT", port.trim())).unwrap();
    let both = (measure(&own, "agent", &kubeconfig), measure(&own, "reflector", &kubeconfig));
    server.kill().unwrap();
    server.wait().unwrap();
    both
}

fn measure(own: &Path, who: &str, kubeconfig: &Path) -> Measured {
    let out = Command::new(own).arg(who).arg(kubeconfig).output().unwrap();
    serde_json::from_slice(&out.stdout).unwrap_or_else(|error| {
        println!("{who}: {error}: {}", String::from_utf8_lossy(&out.stderr));
        Measured::default()
    })
}

fn middle(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
