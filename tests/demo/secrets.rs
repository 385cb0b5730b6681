//! The secrets of the shop: who has them, who reads them, and what of that somebody should know.
//!
//! In: pods of the shop and the agent's report. Out: four findings, in words, that are held against
//! what was really done.

use support::node::Node;
use support::pod::Pod;
use support::report::Report;
use support::report::secrets::Secrets as Section;
use support::secret::{SecretVolume, TOKEN_VOLUME};
use support::task::Task;

/// Who reads the volumes of the frontend although it does not mount them.
pub(crate) const SIDECAR: &str = "metrics";
/// What the shop's pods mount: the Secret by the name of its volume.
pub(crate) const PAYMENTS: &str = "payments";
/// See above. Nobody ever reads this one.
pub(crate) const MAIL: &str = "mail";
/// See above. This one is rotated.
pub(crate) const PASSWORD: &str = "password";
/// See above.
pub(crate) const TOKEN: &str = TOKEN_VOLUME;
/// How often the wrong ones read.
const WRONG_READS: u64 = 3;

/// The volumes of the shop.
pub(crate) struct Secrets {
    frontend: Pod,
    api: Pod,
    database: Pod,
    token: SecretVolume,
    payments: SecretVolume,
    password: SecretVolume,
    /// Generations of the password that were replaced and that replaced them.
    rotated: Option<(String, String)>,
}

impl Secrets {
    /// Mounts what these pods have.
    pub(crate) fn mount(
        node: &Node,
        frontend: &Pod,
        api: &Pod,
        database: &Pod,
    ) -> anyhow::Result<Self> {
        let key = |pod, name, value| SecretVolume::secret(node, pod, name, &[("key", value)]);
        key(api, MAIL, "m")?;
        Ok(Self {
            token: SecretVolume::token(node, frontend)?,
            payments: key(api, PAYMENTS, "p")?,
            password: key(database, PASSWORD, "one")?,
            frontend: frontend.clone(),
            api: api.clone(),
            database: database.clone(),
            rotated: None,
        })
    }

    /// How many volumes there are.
    pub(crate) const VOLUMES: u64 = 4;

    /// Everybody reads what they need, and some what they do not.
    pub(crate) fn read(&mut self, node: &Node) -> anyhow::Result<()> {
        let payments = self.payments.file("key");
        let token = self.token.file("token");
        self.api.run(&Task::read(&payments, 2))?;
        self.frontend.run(&Task::read(&token, 1))?;
        self.database.run(&Task::read(self.password.file("key"), 1))?;
        self.frontend.run_in(SIDECAR, &Task::read(&token, WRONG_READS))?;
        node.spawn_on_node(&Task::read(&payments, WRONG_READS))?.finish()?;
        let old = self.password.generation()?;
        let new = self.password.write(&[("key", "two")])?;
        self.rotated = Some((old, new));
        Ok(())
    }

    /// What the agent should have found, in the order of [`findings`].
    pub(crate) fn expected(&self) -> Vec<String> {
        let (old, new) = self.rotated.clone().unwrap_or_default();
        vec![
            format!("shop/api mounts {MAIL}, and nobody ever read it"),
            format!(
                "web/frontend's token was read {WRONG_READS} times by web/frontend:{SIDECAR}, \
                 which does not mount it"
            ),
            format!(
                "shop/api's {PAYMENTS} was read {WRONG_READS} times by a process of the node, \
                 system.slice/node.service"
            ),
            format!("data/database:main still has {old} of {PASSWORD}, and {new} is there"),
        ]
    }
}

/// What somebody should know, in words.
pub(crate) fn findings(report: &Report) -> Vec<String> {
    let Section { mounts, reads, .. } = &report.secrets;
    let mut found = Vec::new();
    let unread = mounts.iter().filter(|mount| mount.state == "never_read");
    found.extend(unread.map(|mount| {
        let (owner, source) = (mount.owner.shown(), mount.source.shown());
        format!("{owner} mounts {source}, and nobody ever read it")
    }));
    for (relation, who) in [("sibling", ""), ("other_pod", ""), ("node", "a process of the node, ")]
    {
        for read in reads.iter().filter(|read| read.relation == relation) {
            let (owner, source) = (read.owner.shown(), read.source.shown());
            let (opens, reader) = (read.counts.opens, read.reader.shown());
            let why = if relation == "sibling" { ", which does not mount it" } else { "" };
            found.push(format!("{owner}'s {source} was read {opens} times by {who}{reader}{why}"));
        }
    }
    for mount in mounts {
        for stale in &mount.stale {
            let (owner, source) = (mount.owner.shown(), mount.source.shown());
            let (container, read, current) = (&stale.container, &stale.read, &stale.current);
            found.push(format!(
                "{owner}:{container} still has {read} of {source}, and {current} is there"
            ));
        }
    }
    found
}
