//! What may stand in a label, a port name and an object name.
//!
//! In: text from an object. Out: the API server's complaint, or none. It never looks at what the
//! text means.

/// Longest label value and longest name part of a label key.
const LABEL_BYTES_MAX: usize = 63;
/// Longest DNS subdomain: object names, prefixes of label keys.
const SUBDOMAIN_BYTES_MAX: usize = 253;
/// Longest port name.
const PORT_NAME_BYTES_MAX: usize = 15;

/// A label key: an optional DNS subdomain and a slash, then a name.
pub(crate) fn key_problem(key: &str) -> Option<String> {
    let mut parts = key.split('/');
    let (prefix, name) = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, _) => (None, name),
        (Some(prefix), Some(name), None) => (Some(prefix), name),
        _ => return Some(format!("label key {key:?} has more than one slash")),
    };
    if prefix.is_some_and(|prefix| !is_subdomain(prefix)) {
        return Some(format!("the prefix of label key {key:?} is no DNS subdomain"));
    }
    if name.is_empty() {
        return Some(format!("label key {key:?} has no name"));
    }
    if !is_label_text(name) {
        return Some(format!(
            "the name of label key {key:?} must be at most {LABEL_BYTES_MAX} letters, digits, \
             '-', '_' or '.', and begin and end with a letter or digit"
        ));
    }
    None
}

/// A label value; the empty one is valid.
pub(crate) fn value_problem(value: &str) -> Option<String> {
    (!value.is_empty() && !is_label_text(value)).then(|| {
        format!(
            "label value {value:?} must be at most {LABEL_BYTES_MAX} letters, digits, '-', '_' or \
             '.', and begin and end with a letter or digit"
        )
    })
}

/// The name of a port, as in a container port: not a number in quotes.
pub(crate) fn port_name_problem(name: &str) -> Option<String> {
    let bytes = name.as_bytes();
    let only_allowed = bytes.iter().all(|byte| is_lower_alphanumeric(*byte) || *byte == b'-');
    let problem = if name.is_empty() || bytes.len() > PORT_NAME_BYTES_MAX {
        "must have 1 to 15 characters"
    } else if !only_allowed {
        "may hold only lower case letters, digits and '-'"
    } else if !bytes.iter().any(u8::is_ascii_lowercase) {
        "is a name and needs a letter; a port number is written without quotes"
    } else if name.contains("--") {
        "may not hold two '-' in a row"
    } else if name.starts_with('-') || name.ends_with('-') {
        "may not begin or end with '-'"
    } else {
        return None;
    };
    Some(format!("port name {name:?} {problem}"))
}

/// RFC 1123 subdomain, in lower case.
pub(crate) fn is_subdomain(text: &str) -> bool {
    text.len() <= SUBDOMAIN_BYTES_MAX && text.split('.').all(is_subdomain_part)
}

/// RFC 1123 label, in lower case: the name of a namespace.
pub(crate) fn is_dns_label(text: &str) -> bool {
    text.len() <= LABEL_BYTES_MAX && is_subdomain_part(text)
}

fn is_subdomain_part(part: &str) -> bool {
    part.bytes().all(|byte| is_lower_alphanumeric(byte) || byte == b'-')
        && part.bytes().next().is_some_and(is_lower_alphanumeric)
        && part.bytes().last().is_some_and(is_lower_alphanumeric)
}

fn is_label_text(text: &str) -> bool {
    text.len() <= LABEL_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().last().is_some_and(|byte| byte.is_ascii_alphanumeric())
}

fn is_lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::{is_subdomain, key_problem, port_name_problem, value_problem};

    #[test]
    fn label_keys_and_values_are_read_as_the_api_server_reads_them() {
        let long = "a".repeat(63);
        let too_long = "a".repeat(64);
        for key in ["app", "a", "A_b.c-1", "kubernetes.io/metadata.name", "x.y/Z", &long] {
            assert_eq!(key_problem(key), None, "{key}");
        }
        for key in ["", "/a", "a/", "a/b/c", "-a", "a-", "A.io/x", "a b", "é", &too_long] {
            assert!(key_problem(key).is_some(), "{key}");
        }
        for value in ["", "x", "1.2", "A_B", &long] {
            assert_eq!(value_problem(value), None, "{value}");
        }
        for value in ["-x", "x-", "a b", "a/b", &too_long] {
            assert!(value_problem(value).is_some(), "{value}");
        }
    }

    #[test]
    fn port_names_need_a_letter() {
        for name in ["http", "serve-80-tcp", "a", "80a"] {
            assert_eq!(port_name_problem(name), None, "{name}");
        }
        for name in ["", "80", "Http", "a--b", "-a", "a-", "sixteen-chars-xx", "a_b"] {
            assert!(port_name_problem(name).is_some(), "{name}");
        }
    }

    #[test]
    fn object_names_are_subdomains() {
        assert!(is_subdomain("a.b-c.d1"));
        assert!(!is_subdomain("A") && !is_subdomain("") && !is_subdomain("a..b"));
    }
}
