//! Domain names as ClusterNetworkPolicy peers have them.
//!
//! In: the text of a `domainNames` item, then names that were asked for. Out: whether it means
//! them. It resolves nothing.

use std::fmt;
use std::sync::Arc;

/// "example.org", or "*.example.org" for all names below it but not itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DomainName {
    /// Lower case, without a trailing dot and without the wildcard.
    name: Arc<str>,
    below: bool,
}

impl DomainName {
    /// None: the CRD's pattern does not hold. At least two labels, of letters, digits, '-' and '_'.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (below, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let labels = name.split('.');
        (labels.clone().count() > 1 && labels.clone().all(is_label))
            .then(|| Self { name: name.to_ascii_lowercase().into(), below })
    }

    /// Whether this name is meant, in whatever case it was written, with a trailing dot or without.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name).as_bytes();
        let own = self.name.as_bytes();
        if !self.below {
            return name.eq_ignore_ascii_case(own);
        }
        // At least one more label, and the dot after it.
        let Some(more) = name.len().checked_sub(own.len()).filter(|more| *more > 1) else {
            return false;
        };
        let (head, tail) = name.split_at(more);
        head.ends_with(b".") && tail.eq_ignore_ascii_case(own)
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.below { "*." } else { "" }, self.name)
    }
}

fn is_label(label: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = label.as_bytes();
    ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::DomainName;

    #[test]
    fn means_names_as_the_api_says() {
        let cases = [
            ("kubernetes.io", "kubernetes.io", true),
            ("kubernetes.io", "KUBERNETES.io.", true),
            ("Kubernetes.IO.", "kubernetes.io", true),
            ("kubernetes.io", "www.kubernetes.io", false),
            ("kubernetes.io", "my-kubernetes.io", false),
            ("*.kubernetes.io", "www.kubernetes.io", true),
            ("*.kubernetes.io", "latest.blog.kubernetes.io", true),
            ("*.kubernetes.io", "kubernetes.io", false),
            ("*.kubernetes.io", ".kubernetes.io", false),
            ("*.kubernetes.io", "my-kubernetes.io", false),
            ("*.kubernetes.io", "wikipedia.org", false),
        ];
        for (pattern, name, expected) in cases {
            let parsed = DomainName::parse(pattern).unwrap();
            assert_eq!(parsed.matches(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn refuses_what_the_crd_refuses() {
        for text in ["", "io", "*", "*.", "*.io", "a..b", "a.*.b", "-a.b", "a b.c", "a.b..", "é.x"]
        {
            assert_eq!(DomainName::parse(text), None, "{text}");
        }
    }
}
