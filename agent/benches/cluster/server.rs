//! An API server as far as watches see one: streaming lists, changes, and one "too old".
//!
//! In: how many pods there are. Out: its port on standard output, and answers on loopback. Each
//! follower of pods gets [`CHANGES`] changes and has to list again. It keeps nothing.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, BufWriter, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::subjects::nanos;

/// Pods that change, one after another, before all are to be listed again.
pub(super) const CHANGES: usize = 50;
/// Until freed memory is back and changes begin.
const SETTLE: Duration = Duration::from_secs(3);
const BETWEEN_CHANGES: Duration = Duration::from_millis(40);
const INITIAL_END: &str = concat!(
    r#"{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":{"#,
    r#""resourceVersion":"9000000","annotations":{"k8s.io/initial-events-end":"true"},"#,
    r#""creationTimestamp":null},"spec":{"containers":[]},"status":{}}}"#,
    "\n"
);
const TOO_OLD: &str = concat!(
    r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"#,
    r#""status":"Failure","message":"too old resource version","reason":"Expired","code":410}}"#,
    "\n"
);

/// One thread a connection.
pub(super) fn serve(pods: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    for stream in listener.incoming() {
        // Whoever went away is not told.
        std::thread::spawn(move || stream.and_then(|stream| answer(stream, pods)));
    }
}

fn answer(stream: TcpStream, pods: usize) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut out = BufWriter::with_capacity(64 << 10, stream);
    loop {
        let mut request = String::new();
        if lines.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut header = String::new();
        while lines.read_line(&mut header)? > 2 {
            header.clear();
        }
        if request.contains("watch=") {
            out.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                  Transfer-Encoding: chunked\r\n\r\n",
            )?;
            events(&mut out, &request, pods)?;
        } else {
            out.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}")?;
        }
        out.flush()?;
    }
}

fn events(out: &mut impl Write, request: &str, pods: usize) -> Result<()> {
    let is_pods = request.contains("/pods?");
    let mut pod = Template::new();
    if request.contains("sendInitialEvents") {
        for number in 0..if is_pods { pods } else { 0 } {
            chunk(out, pod.event("ADDED", number, 0))?;
        }
        chunk(out, INITIAL_END)?;
        out.flush()?;
    }
    std::thread::sleep(SETTLE);
    if !is_pods {
        // Nothing else changes.
        std::thread::sleep(Duration::from_secs(3600));
    }
    for number in 0..CHANGES {
        chunk(out, pod.event("MODIFIED", number % pods.max(1), nanos()))?;
        out.flush()?;
        std::thread::sleep(BETWEEN_CHANGES);
    }
    chunk(out, TOO_OLD)?;
    out.write_all(b"0\r\n\r\n")
}

fn chunk(out: &mut impl Write, text: &str) -> Result<()> {
    write!(out, "{:x}\r\n{text}\r\n", text.len())
}

/// The text of a pod with holes, so that the server is not what is measured.
struct Template {
    /// What stands before each hole, and what belongs in it; the last has none.
    parts: Vec<(String, String)>,
    line: String,
}

impl Template {
    fn new() -> Self {
        let text = pod().replace('\n', "");
        let mut pieces = text.split('@');
        let mut parts = Vec::new();
        while let Some(text) = pieces.next() {
            parts.push((text.to_owned(), pieces.next().unwrap_or_default().to_owned()));
        }
        Self { parts, line: String::new() }
    }

    /// One line of a watch.
    fn event(&mut self, verb: &str, number: usize, sent: u64) -> &str {
        let Self { parts, line } = self;
        let app = number / 20;
        line.clear();
        for (text, hole) in parts {
            line.push_str(text);
            match hole.as_str() {
                "verb" => line.push_str(verb),
                "sent" => write!(line, "{sent}").unwrap(),
                "number" => write!(line, "{number:012}").unwrap(),
                "app" => write!(line, "{app:08}").unwrap(),
                "team" => write!(line, "{}", app % 200).unwrap(),
                "node" => write!(line, "{}", number / 100).unwrap(),
                "ip" => {
                    let (a, b, c) = (number / 62_500, number / 250 % 250, number % 250);
                    write!(line, "10.{a}.{b}.{c}").unwrap();
                }
                _ => {}
            }
        }
        line.push('\n');
        line
    }
}

/// About 7 kB, as a pod of a Deployment with three containers and an environment is. Between two
/// `@` stands the name of a hole.
fn pod() -> String {
    let env: String = (0..12)
        .map(|n| format!(r#"{{"name":"SETTING_{n}","value":"some value of length thirty {n}"}},"#))
        .collect();
    let fields: String = (0..40).map(|n| format!(r#""f:field-number-{n}":{{}},"#)).collect();
    let container = |name: &str| CONTAINER.replace("NAME", name).replace("ENV", &env);
    let containers = ["main", "proxy", "logs"].map(container).join(",");
    POD.replace("FIELDS", &fields).replace("CONTAINERS", &containers)
}

const CONTAINER: &str = r#"{"name":"NAME","image":"registry.example/team/NAME:1.2.3",
"env":[ENV{"name":"LAST","value":""}],
"ports":[{"name":"http","containerPort":8080,"protocol":"TCP"}],
"resources":{"limits":{"cpu":"1","memory":"1Gi"},"requests":{"cpu":"100m","memory":"256Mi"}},
"livenessProbe":{"httpGet":{"path":"/live","port":"http","scheme":"HTTP"},"periodSeconds":10},
"volumeMounts":[{"name":"token","readOnly":true,
"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}],
"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File",
"imagePullPolicy":"IfNotPresent"}"#;

const POD: &str = r#"{"type":"@verb@","object":{"kind":"Pod","apiVersion":"v1",
"metadata":{"name":"app-@app@-5c9d7b8f6-@number@","generateName":"app-@app@-5c9d7b8f6-",
"namespace":"team-@team@","uid":"00000000-0000-4000-8000-@number@","resourceVersion":"@number@",
"creationTimestamp":"2026-11-23T10:00:00Z","labels":{"app":"app-@app@",
"app.kubernetes.io/part-of":"shop","pod-template-hash":"5c9d7b8f6","sent":"@sent@"},
"annotations":{"checksum/config":"0123456789abcdef0123456789abcdef0123456789abcdef"},
"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"app-@app@-5c9d7b8f6",
"uid":"00000000-0000-4000-9000-0000@app@","controller":true,"blockOwnerDeletion":true}],
"managedFields":[{"manager":"kube-controller-manager","operation":"Update","apiVersion":"v1",
"time":"2026-11-23T10:00:00Z","fieldsType":"FieldsV1","fieldsV1":{FIELDS"f:last":{}}},
{"manager":"kubelet","operation":"Update","apiVersion":"v1","time":"2026-11-23T10:00:01Z",
"fieldsType":"FieldsV1","fieldsV1":{FIELDS"f:last":{}},"subresource":"status"}]},
"spec":{"nodeName":"node-@node@","serviceAccountName":"app-@app@","containers":[CONTAINERS],
"volumes":[{"name":"token","projected":{"sources":[{"serviceAccountToken":
{"expirationSeconds":3607,"path":"token"}}],"defaultMode":420}}],
"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst",
"tolerations":[{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute",
"tolerationSeconds":300}]},
"status":{"phase":"Running","hostIP":"192.168.0.1","podIP":"@ip@","podIPs":[{"ip":"@ip@"}],
"startTime":"2026-11-23T10:00:00Z","qosClass":"Burstable","conditions":[{"type":"Ready",
"status":"True","lastProbeTime":null,"lastTransitionTime":"2026-11-23T10:00:00Z"},
{"type":"Initialized","status":"True","lastTransitionTime":"2026-11-23T10:00:00Z"}],
"containerStatuses":[{"name":"main","ready":true,"restartCount":0,"started":true,
"containerID":"containerd://0123456789abcdef@number@","image":"registry.example/team/main:1.2.3",
"imageID":"registry.example/team/main@number@"}]}}}"#;
