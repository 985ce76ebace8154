//! What our cgroups are called.

use std::fmt;

use crate::identity::Identity;
use crate::parse::decimal;

/// `pidigree-OWNER-ROOT-COUNT`. The owner is the identity token of the tracker that made it, with dots for colons, which
/// separate the fields of /proc/PID/cgroup.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) owner: Identity,
    /// The id of the cgroup at the top of the mount that it was made through.
    pub(super) root: u64,
    /// Of those that the owner made.
    pub(super) count: u64,
}

const PREFIX: &str = "pidigree-";

impl Name {
    /// Accepts exactly what `Display` writes.
    pub(super) fn parse(text: &str) -> Option<Name> {
        // The token may have a minus sign in it.
        let mut fields = text.strip_prefix(PREFIX)?.rsplitn(3, '-');
        let (count, root, token) = (fields.next()?, fields.next()?, fields.next()?);
        let name = Name {
            owner: token.replace('.', ":").parse().ok()?,
            root: decimal(root.as_bytes())?,
            count: decimal(count.as_bytes())?,
        };
        (name.to_string() == text).then_some(name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.owner.to_string().replace(':', ".");
        write!(f, "{PREFIX}{token}-{}-{}", self.root, self.count)
    }
}
