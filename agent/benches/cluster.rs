//! What watching a large cluster takes: memory of each pod, time until it is known, time of a change.
//!
//! In: a simulated API server on loopback, in a process of its own, with pods as large as real ones.
//! Out: a table of the agent's watches beside a plain `kube` reflector of whole Pods, each measured
//! in a process of its own. It touches no cluster.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark prints its results, and ends where it cannot measure"
)]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use parapet::cluster::connect::{self, Target};
use parapet::cluster::{Update, Watches};
use parapet_core::engine::{Engine, EngineConfig, Input};
use parapet_core::flow::Timestamp;
use parapet_core::object::{Change, Kind, Object};

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
const CHANGES: usize = 50;
/// Of the pods' own size, until freed memory is back and changes begin.
const SETTLE: Duration = Duration::from_secs(3);

/// What one process measured.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Measured {
    base_bytes: u64,
    steady_bytes: u64,
    peak_bytes: u64,
    ready_seconds: f64,
    change_ms: Vec<f64>,
    step_us: Vec<f64>,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", pods] => serve(pods.parse().unwrap()),
        ["agent", kubeconfig] => report(agent(kubeconfig)),
        ["reflector", kubeconfig] => report(plain(kubeconfig)),
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
    println!("pods     steady B/pod  peak/steady  ready s  change ms (max)  step us  / reflector");
    for pods in sizes {
        let own = std::env::current_exe().unwrap();
        let mut server =
            Command::new(&own).args(["serve", &pods.to_string()]).stdout(Stdio::piped()).spawn();
        let server = server.as_mut().unwrap();
        let mut port = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, KUBECONFIG.replace("PORT", port.trim())).unwrap();
        let measure = |who: &str| -> Measured {
            let out = Command::new(&own).arg(who).arg(&kubeconfig).output().unwrap();
            serde_json::from_slice(&out.stdout).unwrap_or_else(|error| {
                println!("{who}: {error}: {}", String::from_utf8_lossy(&out.stderr));
                Measured::default()
            })
        };
        let (ours, plain) = (measure("agent"), measure("reflector"));
        server.kill().unwrap();
        server.wait().unwrap();
        let held =
            |measured: &Measured| measured.steady_bytes.saturating_sub(measured.base_bytes) as f64;
        let most = ours.change_ms.iter().copied().fold(0.0, f64::max);
        println!(
            "{pods:<8} {:>12.0} {:>12.2} {:>8.2} {:>9.2} ({most:.2}) {:>8.0} {:>12.3}",
            held(&ours) / pods as f64,
            ours.peak_bytes as f64 / ours.steady_bytes as f64,
            ours.ready_seconds,
            median(&ours.change_ms),
            median(&ours.step_us),
            held(&ours) / held(&plain),
        );
    }
}

const KUBECONFIG: &str = r#"{"apiVersion":"v1","kind":"Config","current-context":"c",
"clusters":[{"name":"c","cluster":{"server":"http://127.0.0.1:PORT"}}],
"users":[{"name":"u","user":{}}],"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}]}"#;

/// The agent's watches and its engine, without a kernel.
async fn agent(kubeconfig: &str) -> Measured {
    let mut measured = Measured { base_bytes: memory().0, ..Measured::default() };
    let mut engine = Engine::new(EngineConfig::default());
    let workloads = vec![Change::Listing(Kind::Workload), Change::Listed(Kind::Workload)];
    engine.step(Input::Cluster(workloads, Timestamp(1)));
    let began = Instant::now();
    let target = Target { kubeconfig: Some(kubeconfig.into()), ..Target::default() };
    let (_watches, mut updates) = Watches::start(&target, [].into(), None).await.unwrap();
    while !engine.snapshot().synced {
        take(&mut engine, updates.recv().await);
        // As many as there are: a snapshot is not made for each.
        for _ in 0..64 {
            match updates.try_recv() {
                Ok(update) => drop(take(&mut engine, Some(update))),
                Err(_) => break,
            }
        }
    }
    measured.ready_seconds = began.elapsed().as_secs_f64();
    let mut settled = false;
    while measured.change_ms.len() < CHANGES {
        let update = updates.recv().await;
        if !settled {
            // The first change: what the list took is given back by now.
            (measured.steady_bytes, measured.peak_bytes) = memory();
            settled = true;
        }
        let began = Instant::now();
        let sent = take(&mut engine, update);
        measured.step_us.push(began.elapsed().as_secs_f64() * 1e6);
        if let Some(sent) = sent {
            measured.change_ms.push((nanos().saturating_sub(sent)) as f64 / 1e6);
        }
    }
    measured
}

/// When the change was sent, if it says so.
fn take(engine: &mut Engine, update: Option<Update>) -> Option<u64> {
    let Some(Update::Changes(changes)) = update else { return None };
    let sent = changes.iter().find_map(|change| match change {
        Change::Applied(Object::Pod(pod)) => pod.metadata.labels.get("sent")?.parse().ok(),
        _ => None,
    });
    engine.step(Input::Cluster(changes, Timestamp(nanos())));
    sent
}

/// What most controllers do.
async fn plain(kubeconfig: &str) -> Measured {
    let mut measured = Measured { base_bytes: memory().0, ..Measured::default() };
    let began = Instant::now();
    let target = Target { kubeconfig: Some(kubeconfig.into()), ..Target::default() };
    let client = kube::Client::try_from(connect::config(&target).await.unwrap()).unwrap();
    let (store, writer) = reflector::store::<Pod>();
    let config = watcher::Config::default().streaming_lists();
    let mut stream = Box::pin(watcher(kube::Api::all(client), config).reflect(writer));
    while let Some(event) = stream.next().await {
        match event.unwrap() {
            watcher::Event::InitDone => measured.ready_seconds = began.elapsed().as_secs_f64(),
            watcher::Event::Apply(_) => break,
            _ => {}
        }
    }
    (measured.steady_bytes, measured.peak_bytes) = memory();
    drop(store);
    measured
}

/// Resident now and at most, of this process.
fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
    };
    (field("VmRSS:"), field("VmHWM:"))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_nanos()).unwrap()
}

/// The API server: one thread a connection, one watch a thread.
fn serve(pods: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    for stream in listener.incoming() {
        std::thread::spawn(move || {
            // Whoever went away is not told.
            let _ = answer(stream?, pods);
            std::io::Result::Ok(())
        });
    }
}

fn answer(stream: TcpStream, pods: usize) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut out = std::io::BufWriter::with_capacity(64 << 10, stream);
    loop {
        let mut request = String::new();
        if lines.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut header = String::new();
        while lines.read_line(&mut header)? > 2 {
            header.clear();
        }
        if !request.contains("watch=") {
            out.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}")?;
            out.flush()?;
            continue;
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";
        out.write_all(head.as_bytes())?;
        let is_pods = request.contains("/pods?");
        for number in 0..if is_pods { pods } else { 0 } {
            chunk(&mut out, &event("ADDED", &pod(number, "")))?;
        }
        let end = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"9000000",
            "annotations":{"k8s.io/initial-events-end":"true"},"creationTimestamp":null},
            "spec":{"containers":null},"status":{}}"#;
        chunk(&mut out, &event("BOOKMARK", &end.replace('\n', "")))?;
        out.flush()?;
        std::thread::sleep(SETTLE);
        for number in 0.. {
            if is_pods {
                let sent = format!("\"sent\":\"{}\",", nanos());
                chunk(&mut out, &event("MODIFIED", &pod(number % pods, &sent)))?;
                out.flush()?;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn event(kind: &str, object: &str) -> String {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
}

fn chunk(out: &mut impl Write, text: &str) -> std::io::Result<()> {
    write!(out, "{:x}\r\n{text}\r\n", text.len())
}

/// About 6 kB, as a pod of a Deployment with three containers, probes and an environment is.
fn pod(number: usize, label: &str) -> String {
    let (app, a, b) = (number / 20, number / 250 % 250, number % 250);
    let c = number / 62_500;
    let env: String = (0..12)
        .map(|n| format!(r#"{{"name":"SETTING_{n}","value":"some value of length thirty {n}"}},"#))
        .collect();
    let fields: String = (0..40).map(|n| format!(r#""f:field-number-{n}":{{}},"#)).collect();
    let container = |name: &str| {
        format!(
            r#"{{"name":"{name}","image":"registry.example/team/{name}:1.2.3","env":[{env}
            {{"name":"LAST","value":""}}],"ports":[{{"name":"http","containerPort":8080,
            "protocol":"TCP"}}],"resources":{{"limits":{{"cpu":"1","memory":"1Gi"}}}},
            "volumeMounts":[{{"name":"token","mountPath":"/var/run/secrets"}}],
            "terminationMessagePath":"/dev/termination-log","imagePullPolicy":"IfNotPresent"}}"#
        )
    };
    format!(
        r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"app-{app}-5c9d7b8f6-{number:05}",
        "generateName":"app-{app}-5c9d7b8f6-","namespace":"team-{ns}",
        "uid":"00000000-0000-4000-8000-{number:012}","resourceVersion":"{number}",
        "creationTimestamp":"2026-11-23T10:00:00Z","labels":{{{label}"app":"app-{app}",
        "app.kubernetes.io/part-of":"shop","pod-template-hash":"5c9d7b8f6"}},
        "annotations":{{"checksum/config":"0123456789abcdef0123456789abcdef0123456789abcdef"}},
        "ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet",
        "name":"app-{app}-5c9d7b8f6","uid":"00000000-0000-4000-9000-{app:012}",
        "controller":true,"blockOwnerDeletion":true}}],"managedFields":[{{"manager":"kubelet",
        "operation":"Update","apiVersion":"v1","time":"2026-11-23T10:00:00Z",
        "fieldsType":"FieldsV1","fieldsV1":{{{fields}"f:last":{{}}}}}}]}},
        "spec":{{"nodeName":"node-{node}","serviceAccountName":"app-{app}","containers":[{one},{two},
        {three}],"restartPolicy":"Always","dnsPolicy":"ClusterFirst"}},
        "status":{{"phase":"Running","hostIP":"192.168.{nodea}.{nodeb}",
        "podIP":"10.{c}.{a}.{b}","podIPs":[{{"ip":"10.{c}.{a}.{b}"}}],
        "startTime":"2026-11-23T10:00:00Z","qosClass":"Burstable","conditions":[{{"type":"Ready",
        "status":"True","lastTransitionTime":"2026-11-23T10:00:00Z"}}],
        "containerStatuses":[{{"name":"main","ready":true,"restartCount":0,
        "containerID":"containerd://{number:064}","image":"registry.example/team/main:1.2.3",
        "imageID":"registry.example/team/main@sha256:{number:064}"}}]}}}}"#,
        ns = app % 200,
        node = number / 100,
        nodea = number / 100 / 250,
        nodeb = number / 100 % 250,
        one = container("main"),
        two = container("proxy"),
        three = container("logs"),
    )
    .replace('\n', "")
}
