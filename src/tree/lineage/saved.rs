//! A lineage, handed on.

use super::{Lineage, Standing};
use crate::identity::Identity;
use crate::pid::Pid;

/// A lineage as plain data, for a successor that was not there while the rest happened.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Saved {
    pub(crate) root: Identity,
    pub(crate) members: Vec<Identity>,
    pub(crate) suspects: Vec<Identity>,
    pub(crate) excluded: Vec<Identity>,
    /// Somebody was excluded once, who may have ended.
    pub(crate) excludes: bool,
    pub(crate) adopters: Vec<Pid>,
    #[cfg_attr(feature = "serde", serde(default))]
    pub(crate) spared: Option<Pid>,
    pub(crate) sessions: Option<Vec<Pid>>,
    /// The tick from which on everything is missing.
    pub(crate) since: u64,
    /// Known to be none, though they are as young as what may be missing.
    #[cfg_attr(feature = "serde", serde(default))]
    pub(crate) strangers: Vec<Identity>,
    pub(crate) empty: bool,
}

impl Saved {
    /// Some that are known to be none of its members.
    pub(crate) fn add_strangers(&mut self, strangers: impl IntoIterator<Item = Identity>) {
        let is_young = |one: &Identity| one.start.is_none_or(|start| start.ticks >= self.since);
        self.strangers.extend(strangers.into_iter().filter(is_young));
    }

    /// Leaves out somebody who is alive, and who could be a member for all that is known: forked since it was saved, and
    /// orphaned or below a member. An ancestor of the root is not, if it is given orphans: see
    /// [`set_adopters`](Lineage::set_adopters). If it is not so far, it is [`spared`](Lineage::spare).
    pub(crate) fn exclude(&mut self, mut excluded: Identity, is_given_orphans: bool) {
        let pid = excluded.pid;
        // The one that had this PID when it began can have ended since.
        let was_above = self.adopters.contains(&pid) || self.spared == Some(pid);
        let is_above = was_above && !self.root.started_before(&excluded);
        self.adopters.retain(|adopter| *adopter != pid);
        self.spared = self.spared.filter(|spared| *spared != pid);
        if is_above && is_given_orphans {
            self.adopters.push(pid);
            self.excluded.retain(|known| known.pid != pid);
            return;
        }
        if is_above {
            self.spared = Some(pid);
        }
        for known in [&mut self.members, &mut self.suspects, &mut self.excluded] {
            known.retain(|known| known.pid != pid);
        }
        excluded.settled = excluded.start.is_some();
        self.excluded.push(excluded);
        self.excludes = true;
    }
}

impl Lineage {
    /// All of it, as plain data. `told`: the tick until which everything has been told, if nothing is missing and nobody
    /// unknown can be a member.
    pub(crate) fn save(&self, told: Option<u64>) -> Saved {
        let of = |standing| self.of(standing).copied().collect();
        let since = match told {
            Some(told) => told.max(self.heard),
            None => self.missing_since().unwrap_or(self.heard).min(self.heard),
        };
        let mut saved = Saved {
            root: self.root,
            members: of(Standing::Member),
            suspects: of(Standing::Suspect),
            excluded: of(Standing::Excluded),
            excludes: self.excludes,
            adopters: self.adopters.iter().copied().collect(),
            spared: self.spared,
            sessions: self.foreign.as_ref().map(|foreign| foreign.iter().copied().collect()),
            since,
            strangers: Vec::new(),
            empty: self.empty,
        };
        saved.add_strangers(self.strangers.iter().copied());
        saved
    }

    /// Goes on where it was saved, with everything since then missing. The caller has made sure that it is the same boot
    /// and the same PID namespace.
    pub(crate) fn adopt(saved: Saved) -> Lineage {
        let Saved {
            root,
            members,
            suspects,
            excluded,
            excludes,
            adopters,
            spared,
            sessions,
            since,
            strangers,
            empty,
        } = saved;
        let mut lineage = Lineage::new(root, []);
        lineage.drop_known(root.pid);
        lineage.adopters = adopters.into_iter().collect();
        lineage.spared = spared;
        lineage.foreign = sessions.map(|sessions| sessions.into_iter().collect());
        lineage.excludes = excludes;
        for identity in excluded {
            lineage.insert(identity, Standing::Excluded);
        }
        for (identities, standing) in [(members, Standing::Member), (suspects, Standing::Suspect)] {
            for identity in identities {
                lineage.insert(identity, standing);
            }
        }
        if !empty {
            lineage.lose(since);
        }
        Lineage { heard: since, strangers, empty, ..lineage }
    }
}
