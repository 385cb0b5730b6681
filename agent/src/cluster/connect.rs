//! Where the API server is and who asks.
//!
//! In: a kubeconfig, a context, a user to act as, and what surrounds this process. Out: the
//! client's configuration, or an error that names file, context and the way out. It connects to
//! nothing and keeps nothing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

/// Which API server, and as whom. Empty: the service account of this pod, else what `kubectl`
/// would use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The kubeconfig, instead of the files of `KUBECONFIG` or `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig, instead of its current one.
    pub context: Option<String>,
    /// The user to act as (`Impersonate-User`).
    pub as_user: Option<String>,
    /// The groups to act as (`Impersonate-Group`); only together with a user.
    pub as_groups: Vec<String>,
}

/// A client for one command: it asks when it is told to, and ends with it.
#[derive(Clone)]
pub struct Session {
    pub(super) client: Client,
    server: String,
}

/// What surrounds this process and may lead to an API server.
#[derive(Clone, Debug, Default)]
struct Surroundings {
    /// `KUBECONFIG`: files, as in `PATH`.
    kubeconfig: Option<OsString>,
    home: Option<PathBuf>,
    /// This is a pod with a service account.
    in_pod: bool,
}

/// Where the configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    ServiceAccount,
    /// Kubeconfigs; where several say something, the first holds.
    Files(Vec<PathBuf>),
}

/// Set in every pod, by the API server's own Service.
const SERVICE_HOST: &str = "KUBERNETES_SERVICE_HOST";
/// A pod may have the variable and no account (`automountServiceAccountToken: false`).
const ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// The client's configuration. Whom to act as is in its `auth_info`, which every client made from
/// it sends as headers (`ConfigExt::extra_headers_layer`).
///
/// # Errors
/// No file or context, or one that cannot be read: it is named, and so is the way out.
pub async fn config(target: &Target) -> anyhow::Result<Config> {
    let surroundings = Surroundings {
        kubeconfig: std::env::var_os("KUBECONFIG"),
        home: std::env::home_dir(),
        in_pod: std::env::var_os(SERVICE_HOST).is_some() && Path::new(ACCOUNT_TOKEN).exists(),
    };
    config_in(target, &surroundings).await
}

impl Session {
    /// Gets ready to ask; nothing is asked yet. Needs a Tokio runtime.
    ///
    /// # Errors
    /// As [`config`]; or its certificates and keys cannot be used.
    pub async fn open(target: &Target) -> anyhow::Result<Self> {
        let config = config(target).await?;
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config);
        let client = client.with_context(|| format!("the API server {server} cannot be asked"))?;
        Ok(Self { client, server })
    }

    /// The API server's URL.
    #[must_use]
    pub fn server(&self) -> &str {
        self.server.trim_end_matches('/')
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Session").field(&self.server).finish()
    }
}

/// The server's own words, where it has said something.
pub(super) fn told(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => {
            anyhow::anyhow!("{} ({})", status.message, status.code)
        }
        error => error.into(),
    }
}

async fn config_in(target: &Target, surroundings: &Surroundings) -> anyhow::Result<Config> {
    ensure!(
        target.as_user.is_some() || target.as_groups.is_empty(),
        "--as-group needs --as: groups belong to a user (system:serviceaccount:NS:NAME is one too)"
    );
    let mut config = match source(target, surroundings)? {
        Source::ServiceAccount => {
            Config::incluster().context("the service account of this pod cannot be used")?
        }
        Source::Files(files) => from_files(&files, target.context.as_deref()).await?,
    };
    if let Some(user) = &target.as_user {
        // Whoever the kubeconfig acts as is not mixed with the one that is asked for.
        config.auth_info.impersonate = Some(user.clone());
        config.auth_info.impersonate_groups = Some(target.as_groups.clone());
        config.auth_info.impersonate_uid = None;
        config.auth_info.impersonate_user_extra = None;
    }
    Ok(config)
}

/// What is asked for by name goes first, then the pod's own account, then the user's file.
fn source(target: &Target, surroundings: &Surroundings) -> anyhow::Result<Source> {
    if let Some(file) = &target.kubeconfig {
        return Ok(Source::Files(vec![file.clone()]));
    }
    let listed = surroundings.kubeconfig.as_deref().map(std::env::split_paths);
    let listed: Vec<PathBuf> =
        listed.into_iter().flatten().filter(|path| !path.as_os_str().is_empty()).collect();
    if !listed.is_empty() {
        return Ok(Source::Files(listed));
    }
    if surroundings.in_pod && target.context.is_none() {
        return Ok(Source::ServiceAccount);
    }
    let file = surroundings.home.as_ref().map(|home| home.join(".kube").join("config"));
    match file.filter(|file| file.exists()) {
        Some(file) => Ok(Source::Files(vec![file])),
        None => anyhow::bail!(
            "no API server is known: this is no pod with a service account, KUBECONFIG names no \
             file and there is no ~/.kube/config. Name a kubeconfig with --kubeconfig FILE"
        ),
    }
}

async fn from_files(files: &[PathBuf], context: Option<&str>) -> anyhow::Result<Config> {
    let mut merged = Kubeconfig::default();
    for file in files {
        let read = match Kubeconfig::read_from(file) {
            // As everywhere in this field: one of several that is not there says nothing.
            Err(KubeconfigError::ReadConfig(error, _))
                if files.len() > 1 && error.kind() == std::io::ErrorKind::NotFound =>
            {
                continue;
            }
            read => read.with_context(|| unreadable(file))?,
        };
        merged = merged.merge(read).with_context(|| unreadable(file))?;
    }
    let names = files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
    let known: Vec<&str> = merged.contexts.iter().map(|context| context.name.as_str()).collect();
    let known = match known.is_empty() {
        true => "it has none".to_owned(),
        false => format!("it has: {}", known.join(", ")),
    };
    let current = merged.current_context.as_deref().filter(|name| !name.is_empty());
    let wanted = context.or(current).map(str::to_owned);
    let Some(wanted) = wanted else {
        anyhow::bail!("{names}: no context is current; choose one with --context NAME ({known})");
    };
    ensure!(
        merged.contexts.iter().any(|context| context.name == wanted),
        "{names}: there is no context {wanted:?}; choose one with --context NAME ({known})"
    );
    let options = KubeConfigOptions { context: Some(wanted.clone()), ..Default::default() };
    let config = Config::from_custom_kubeconfig(merged, &options).await;
    config.with_context(|| format!("{names}: context {wanted:?} cannot be used"))
}

fn unreadable(file: &Path) -> String {
    let file = file.display();
    format!("{file}: this kubeconfig cannot be used; name another with --kubeconfig FILE")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"
apiVersion: v1
kind: Config
current-context: test
clusters:
  - {name: a, cluster: {server: "https://192.0.2.1:6443"}}
  - {name: b, cluster: {server: "https://192.0.2.2:6443"}}
users:
  - {name: me, user: {token: secret, as: somebody, as-groups: [theirs]}}
contexts:
  - {name: test, context: {cluster: a, user: me}}
  - {name: prod, context: {cluster: b, user: me}}
"#;

    fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn of(kubeconfig: &Path) -> Target {
        Target { kubeconfig: Some(kubeconfig.to_owned()), ..Target::default() }
    }

    async fn error(target: &Target) -> String {
        format!("{:#}", config_in(target, &Surroundings::default()).await.unwrap_err())
    }

    #[test]
    fn what_is_named_goes_before_what_is_around() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(".kube")).unwrap();
        let own = file(&folder, ".kube/config", TWO);
        let named = Target { kubeconfig: Some("k".into()), ..Target::default() };
        let context = Target { context: Some("prod".to_owned()), ..Target::default() };
        let home = Some(folder.path().to_owned());
        let pod = Surroundings { in_pod: true, home, kubeconfig: None };
        let listed = Surroundings { kubeconfig: Some("/a::/b".into()), ..pod.clone() };
        let outside = Surroundings { in_pod: false, ..pod.clone() };
        let files =
            |files: &[&Path]| Source::Files(files.iter().map(|file| (*file).to_owned()).collect());
        let chosen = |target: &Target, around: &Surroundings| source(target, around).unwrap();
        assert_eq!(chosen(&named, &listed), files(&[Path::new("k")]));
        let both = [Path::new("/a"), Path::new("/b")];
        assert_eq!(chosen(&Target::default(), &listed), files(&both));
        assert_eq!(chosen(&Target::default(), &pod), Source::ServiceAccount);
        // An account has no contexts.
        assert_eq!(chosen(&context, &pod), files(&[&own]));
        assert_eq!(chosen(&Target::default(), &outside), files(&[&own]));
        let nothing = source(&Target::default(), &Surroundings::default()).unwrap_err();
        assert!(nothing.to_string().ends_with("Name a kubeconfig with --kubeconfig FILE"));
    }

    #[tokio::test]
    async fn the_context_that_is_asked_for_is_used_and_so_is_the_user() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder, "k", TWO);
        let plain = config_in(&of(&path), &Surroundings::default()).await.unwrap();
        assert_eq!(plain.cluster_url.to_string(), "https://192.0.2.1:6443/");
        assert_eq!(plain.auth_info.impersonate.as_deref(), Some("somebody"));
        let target = Target {
            context: Some("prod".to_owned()),
            as_user: Some("alice".to_owned()),
            as_groups: vec!["dev".to_owned()],
            ..of(&path)
        };
        let asked = config_in(&target, &Surroundings::default()).await.unwrap();
        assert_eq!(asked.cluster_url.to_string(), "https://192.0.2.2:6443/");
        assert_eq!(asked.auth_info.impersonate.as_deref(), Some("alice"));
        assert_eq!(asked.auth_info.impersonate_groups, Some(vec!["dev".to_owned()]));
    }

    #[tokio::test]
    async fn an_error_names_the_file_the_context_and_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder, "k", TWO);
        let name = path.display().to_string();
        let unknown = Target { context: Some("prd".to_owned()), ..of(&path) };
        let wanted = format!(
            "{name}: there is no context \"prd\"; choose one with --context NAME (it has: test, \
             prod)"
        );
        assert_eq!(error(&unknown).await, wanted);
        let none = file(&folder, "none", &TWO.replace("current-context: test", ""));
        let wanted = format!(
            "{}: no context is current; choose one with --context NAME (it has: test, prod)",
            none.display()
        );
        assert_eq!(error(&of(&none)).await, wanted);
        let missing = error(&of(&folder.path().join("gone"))).await;
        assert!(missing.contains("gone: this kubeconfig cannot be used"), "{missing}");
        assert!(missing.contains("No such file"), "{missing}");
        let groups = Target { as_groups: vec!["dev".to_owned()], ..of(&path) };
        assert!(error(&groups).await.starts_with("--as-group needs --as"));
    }
}
