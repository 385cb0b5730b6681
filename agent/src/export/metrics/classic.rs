//! OpenMetrics text as the classic text format, for clients that ask for nothing better.
//!
//! In: OpenMetrics text as prometheus-client writes it. Out: the same samples, with the names in
//! `TYPE` and `HELP` lines that the classic format wants. It changes no sample.

use std::fmt::Write;

/// The same metrics in the classic format.
pub(super) fn from_openmetrics(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut help: Option<(&str, &str)> = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // The name in HELP must be the one in TYPE, whose suffix is only known there.
            help = rest.split_once(' ');
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let Some((family, kind)) = rest.split_once(' ') else { continue };
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                other => ("", other),
            };
            if let Some((_, text)) = help.take().filter(|(name, _)| *name == family) {
                // Writing to a string does not fail.
                let _ = writeln!(out, "# HELP {family}{suffix} {}", unescaped_quotes(text));
            }
            let _ = writeln!(out, "# TYPE {family}{suffix} {kind}");
        } else if !line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

/// OpenMetrics escapes quotes in help texts, the classic format does not know that escape.
fn unescaped_quotes(text: &str) -> String {
    text.replace("\\\"", "\"")
}

#[cfg(test)]
mod tests {
    use super::from_openmetrics;

    #[test]
    fn names_in_comments_gain_their_suffix_and_samples_stay() {
        let open = "# HELP a Attempts.\n# TYPE a counter\n# UNIT a bytes\na_total{x=\"# y\"} 1\n\
                    # HELP b Build.\n# TYPE b info\nb_info{version=\"1\"} 1\n\
                    # TYPE c gauge\nc 3\n# EOF\n";
        let classic = "# HELP a_total Attempts.\n# TYPE a_total counter\na_total{x=\"# y\"} 1\n\
                       # HELP b_info Build.\n# TYPE b_info gauge\nb_info{version=\"1\"} 1\n\
                       # TYPE c gauge\nc 3\n";
        assert_eq!(from_openmetrics(open), classic);
    }
}
