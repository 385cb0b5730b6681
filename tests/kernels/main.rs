//! Stock kernels in software-emulated machines: every BPF program loads, attaches and fires, short
//! traffic of every protocol is counted exactly, and a second agent takes over what the first one
//! pinned and tells the backends of Services by IPVS.
//!
//! In: kernel images that `PARAPET_KERNELS` names, and the guest program of this package. Out: a
//! table of programs for each kernel, and assertions. A guest has a simulated node in it, and no
//! network beyond that and no disk.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what tests share may end a test")]
#![expect(clippy::print_stdout, reason = "the numbers for each program and kernel are wanted")]

use std::fmt::Write as _;

mod expected;
mod image;
mod machine;
mod report;

use crate::expected::{INSTRUCTIONS_MAX, Kernel, LINUX_5_10, LINUX_6_1, LINUX_6_12, LINUX_NEW};
use crate::report::{EdgeLine, FlowLine, Line, MARK, ProgramLine, SecretLine};

/// Modules without which a part of the traffic would not be, and which part.
const OFFERED: [(&str, &str); 3] = [
    ("ip_vs", "Services by IPVS"),
    ("nf_conntrack_netlink", "the backend of each connection"),
    ("sctp", "SCTP between the kernel's own sockets"),
];

/// What a guest said.
#[derive(Default)]
struct Answer {
    modules: Vec<String>,
    programs: Vec<ProgramLine>,
    edges: Vec<EdgeLine>,
    flows: Vec<FlowLine>,
    secrets: Vec<SecretLine>,
    lost: Vec<(String, u64)>,
    failed: Vec<String>,
    done: bool,
}

impl Answer {
    fn read(console: &str) -> Self {
        let mut answer = Self::default();
        for line in console.lines() {
            match read(line) {
                None => {}
                Some(Ok(Line::Program(program))) => answer.programs.push(program),
                Some(Ok(Line::Module(module))) => answer.modules.push(module),
                Some(Ok(Line::Secret(secret))) => answer.secrets.push(secret),
                Some(Ok(Line::Edge(edge))) => answer.edges.push(edge),
                Some(Ok(Line::Flow(flow))) => answer.flows.push(flow),
                Some(Ok(Line::Lost { stage, count })) => answer.lost.push((stage, count)),
                Some(Ok(Line::Failed(reason))) => answer.failed.push(reason),
                Some(Ok(Line::Done)) => answer.done = true,
                Some(Err(error)) => answer.failed.push(format!("{error}: {line}")),
            }
        }
        answer
    }
}

/// None for what is no line of the guest's.
fn read(line: &str) -> Option<serde_json::Result<Line>> {
    let (_, json) = line.split_once(MARK)?;
    Some(serde_json::from_str(json.trim_end()))
}

fn table(kernel: &Kernel, version: &str, answer: &Answer) -> String {
    let mut text = format!(
        "\n{:<28} {:<8} {:<8} {:>6} {:>12}  Linux {version}\n",
        "program", "loaded", "attached", "runs", "instructions"
    );
    let word = |yes: bool| if yes { "yes" } else { "no" };
    for line in &answer.programs {
        let instructions = line.instructions.map_or("-".to_owned(), |count| count.to_string());
        let why = kernel.why_not_offered(&line.program).unwrap_or_default();
        let row = format!(
            "{:<28} {:<8} {:<8} {:>6} {:>12}  {why}",
            line.program,
            word(line.loaded),
            word(line.attached),
            line.runs,
            instructions,
        );
        text.push_str(row.trim_end());
        text.push('\n');
    }
    for (module, what) in OFFERED {
        let is_there = answer.modules.iter().any(|name| name == module);
        let _ = writeln!(text, "{:<28} {:<8} {what}", format!("module {module}"), word(is_there));
    }
    text
}

fn check(kernel: &Kernel) {
    let run = machine::boot(kernel.name);
    let answer = Answer::read(&run.console);
    // Whole, so that the tables of kernels that run side by side do not mix.
    print!("{}", table(kernel, &run.version, &answer));
    let context = format!("the console of Linux {}:\n{}", run.version, run.console);
    assert_eq!(answer.failed, Vec::<String>::new(), "{context}");
    assert!(answer.done, "the guest did not come to its end; {context}");
    assert!(!answer.programs.is_empty(), "{context}");
    for line in &answer.programs {
        let name = &line.program;
        if kernel.why_not_offered(name).is_some() {
            assert!(
                !line.attached,
                "{name} is offered after all: correct tests/kernels/expected.rs"
            );
            continue;
        }
        assert!(line.loaded, "{name} was not loaded: {line:?}; {context}");
        assert!(line.attached, "{name} was not attached: {line:?}; {context}");
        assert!(line.runs > 0, "{name} never ran: {line:?}; {context}");
        let instructions = line.instructions.unwrap_or_else(|| panic!("{name} was not counted"));
        assert!(
            (1..INSTRUCTIONS_MAX).contains(&instructions),
            "{name} takes the verifier {instructions} instructions, of {INSTRUCTIONS_MAX} at most"
        );
    }
    for (name, _) in kernel.not_offered {
        assert!(answer.programs.iter().any(|line| line.program == *name), "no program {name}");
    }
    for (module, what) in OFFERED {
        assert!(answer.modules.iter().any(|name| name == module), "{module}, {what}; {context}");
    }
    assert_eq!(answer.secrets, expected::secrets(kernel), "{context}");
    assert_eq!(answer.flows, expected::flows(kernel), "{context}");
    assert_eq!(answer.edges, expected::edges(), "{context}");
    assert_eq!(answer.lost, [], "{context}");
}

#[test]
fn linux_5_10() {
    check(&LINUX_5_10);
}

#[test]
fn linux_6_1() {
    check(&LINUX_6_1);
}

#[test]
fn linux_6_12() {
    check(&LINUX_6_12);
}

#[test]
fn linux_6_18_or_newer() {
    check(&LINUX_NEW);
}

#[test]
fn lines_of_the_guest_are_found_between_those_of_the_kernel() {
    let console = "[ 1.0] booted\n[ 1.1] x@parapet \"Done\"\r\n@parapet {\"Lost\"\n";
    let answer = Answer::read(console);
    assert!(answer.done);
    assert_eq!(answer.failed.len(), 1, "half a line is no line: {:?}", answer.failed);
}
