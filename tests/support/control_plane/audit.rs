//! What the API server was asked, by its own account.
//!
//! In: the audit log. Out: who asked for what and what it was answered. Only what service accounts
//! ask is in it: see [`POLICY`].

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

/// The audit policy: every request of a service account, without its body.
pub const POLICY: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy",
"rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}]}"#;

/// One request as it was answered, or as it began to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub user: String,
    /// `list`, `watch`, `get`..; of paths that are no resources, the method.
    pub verb: String,
    /// `pods`, `networkpolicies.networking.k8s.io`, `pods/proxy`; or a path that is no resource.
    pub what: String,
    /// Only within this namespace.
    pub namespace: Option<String>,
    /// The HTTP status.
    pub status: u64,
}

/// All requests, each way of asking once.
///
/// # Errors
/// If the log cannot be read.
pub fn read(log: &Path) -> anyhow::Result<BTreeSet<Asked>> {
    let text = fs::read_to_string(log).with_context(|| log.display().to_string())?;
    // The last line may be half written.
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(events
        .filter(|event| event["stage"] != "RequestReceived")
        .map(|event| asked(&event))
        .collect())
}

fn asked(event: &Value) -> Asked {
    let word = |value: &Value| value.as_str().map(str::to_string);
    let object = &event["objectRef"];
    let what = match word(&object["resource"]) {
        Some(mut what) => {
            for (separator, part) in [(".", &object["apiGroup"]), ("/", &object["subresource"])] {
                what += &word(part).map(|part| format!("{separator}{part}")).unwrap_or_default();
            }
            what
        }
        None => {
            let uri = word(&event["requestURI"]).unwrap_or_default();
            uri.split('?').next().unwrap_or_default().to_string()
        }
    };
    Asked {
        user: word(&event["user"]["username"]).unwrap_or_default(),
        verb: word(&event["verb"]).unwrap_or_default(),
        what,
        namespace: word(&object["namespace"]),
        status: event["responseStatus"]["code"].as_u64().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Asked, asked};

    #[test]
    fn an_event_is_who_asked_for_what() {
        let event = serde_json::json!({
            "stage": "ResponseComplete", "requestURI": "/apis/rbac.authorization.k8s.io/v1/roles",
            "verb": "list", "user": {"username": "system:serviceaccount:a:b"},
            "objectRef": {"resource": "roles", "apiGroup": "rbac.authorization.k8s.io"},
            "responseStatus": {"code": 403},
        });
        let expected = Asked {
            user: "system:serviceaccount:a:b".to_string(),
            verb: "list".to_string(),
            what: "roles.rbac.authorization.k8s.io".to_string(),
            namespace: None,
            status: 403,
        };
        assert_eq!(asked(&event), expected);
        let event = serde_json::json!({"requestURI": "/version?timeout=1s", "verb": "get"});
        assert_eq!((asked(&event).what.as_str(), asked(&event).status), ("/version", 0));
    }
}
