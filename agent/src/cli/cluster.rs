//! The arguments of every command that asks an API server.
//!
//! In: flags and `PARAPET_*` variables. Out: a [`Target`]. It connects to nothing.

use std::path::PathBuf;

use crate::cluster::connect::Target;

/// A heading for the whole struct would hold for all arguments after it, too.
pub(super) const HEADING: &str = "Cluster";

/// Which API server, and as whom.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ClusterArgs {
    /// The kubeconfig [default: the files of KUBECONFIG, in a pod its service account, else
    /// ~/.kube/config]
    #[arg(long, help_heading = HEADING, value_name = "FILE", env = "PARAPET_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig [default: its current one]
    #[arg(long, help_heading = HEADING, value_name = "NAME", env = "PARAPET_CONTEXT")]
    pub context: Option<String>,
    /// Act as this user, for what you may impersonate
    #[arg(long = "as", help_heading = HEADING, value_name = "USER", env = "PARAPET_AS")]
    pub as_user: Option<String>,
    /// Act as a member of this group; needs --as
    #[arg(
        long = "as-group",
        help_heading = HEADING,
        value_name = "GROUP",
        env = "PARAPET_AS_GROUP",
        value_delimiter = ','
    )]
    pub as_groups: Vec<String>,
}

impl ClusterArgs {
    /// What they come to.
    #[must_use]
    pub fn target(&self) -> Target {
        Target {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            as_user: self.as_user.clone(),
            as_groups: self.as_groups.clone(),
        }
    }

    /// Whether anything names a cluster or a user.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.target() != Target::default()
    }
}
