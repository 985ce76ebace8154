//! What a runtime file says.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pidigree::{Identity, TreeState};
use serde::{Deserialize, Serialize};

use crate::text;

/// How far a runtime has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its tree lives, or the cleanup has not begun: that never executed anything.
    Watching,
    /// The cleanup was begun. Whether it has ended, and how, its process tells ([`Record::cleaner`]).
    Cleaning,
    /// The cleanup failed; the next monitor tries again.
    Failed,
    /// It has been cleaned up, and the runtime file is about to be removed.
    Cleaned,
}

/// A file that tells others that the runtime is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The file whose time of modification is set.
    #[serde(with = "text::path")]
    pub path: PathBuf,
    /// How often, in milliseconds.
    pub every_ms: u64,
}

/// A runtime file: JSON, replaced as a whole by renaming; only `phase` and `cleaner`, of fixed width, are also overwritten in place.
/// It is there until the runtime has been cleaned up, whoever watches it meanwhile.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Record {
    /// How far it has come.
    #[serde(with = "phase")]
    pub phase: Phase,
    /// The process of the cleanup command, once there is one.
    #[serde(with = "cleaner")]
    pub cleaner: Option<Identity>,
    /// [`Record::FORMAT`].
    pub format: u32,
    /// The monitor.
    pub owner: Identity,
    /// The root of the tree.
    pub root: Identity,
    /// The cleanup command; empty if there is none.
    #[serde(with = "text::words")]
    pub on_empty: Vec<OsString>,
    /// What is touched meanwhile.
    pub heartbeat: Option<Heartbeat>,
    /// Why the last cleanup failed.
    pub failure: Option<String>,
    /// What went wrong last in following the tree or touching the heartbeat.
    pub trouble: Option<String>,
    /// From which another monitor goes on.
    pub tree: TreeState,
}

impl Record {
    /// The only format there has been.
    pub const FORMAT: u32 = 1;

    /// Reads a runtime file. This takes no lock: the monitor may be writing the next one.
    ///
    /// # Errors
    ///
    /// Those of reading; [`InvalidData`](io::ErrorKind::InvalidData) if it is no runtime file, or of another format.
    pub fn read(path: &Path) -> io::Result<Record> {
        Record::parse(&fs::read(path)?)
    }

    pub(crate) fn parse(bytes: &[u8]) -> io::Result<Record> {
        #[derive(Deserialize)]
        struct Any {
            format: u32,
        }
        let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        let any: Any =
            serde_json::from_slice(bytes).map_err(|error| invalid(format!("not a runtime file: {error}")))?;
        if any.format != Record::FORMAT {
            return Err(invalid(format!(
                "a runtime file of format {}, and this monitor knows format {} only",
                any.format,
                Record::FORMAT
            )));
        }
        serde_json::from_slice(bytes).map_err(|error| invalid(format!("not a runtime file: {error}")))
    }

    pub(crate) fn bytes(&self) -> io::Result<Written> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        // Nothing before these two can hold their names.
        let at = |key: &[u8]| bytes.windows(key.len()).position(|part| part == key).map(|at| at + key.len());
        let slots = at(b"\"phase\": \"").zip(at(b"\"cleaner\": \""));
        let (phase_at, cleaner_at) = slots.ok_or(io::ErrorKind::InvalidData)?;
        Ok(Written { bytes, slots: Slots { phase_at: phase_at as u64, cleaner_at: cleaner_at as u64 } })
    }
}

/// As it stands in the file.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) bytes: Vec<u8>,
    pub(crate) slots: Slots,
}

/// Where in the file those fields begin that are overwritten in place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slots {
    pub(crate) phase_at: u64,
    pub(crate) cleaner_at: u64,
}

impl Phase {
    const ALL: [Phase; 4] = [Phase::Watching, Phase::Cleaning, Phase::Failed, Phase::Cleaned];

    /// All are of one length, so that one can be written over another.
    pub(crate) fn word(self) -> [u8; 8] {
        *match self {
            Phase::Watching => b"watching",
            Phase::Cleaning => b"cleaning",
            Phase::Failed => b"failed  ",
            Phase::Cleaned => b"cleaned ",
        }
    }
}

/// As long as any token, and as `None`, which is blank.
pub(crate) fn cleaner_word(cleaner: Option<&Identity>) -> String {
    let token = cleaner.map(Identity::to_string).unwrap_or_default();
    format!("{token:160}")
}

mod phase {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Phase;

    pub(super) fn serialize<S: Serializer>(phase: &Phase, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&String::from_utf8_lossy(&phase.word()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Phase, D::Error> {
        let word = String::deserialize(deserializer)?;
        Phase::ALL
            .into_iter()
            .find(|phase| phase.word() == word.as_bytes())
            .ok_or_else(|| D::Error::custom(format!("{word:?} is no phase")))
    }
}

mod cleaner {
    use pidigree::Identity;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        cleaner: &Option<Identity>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::cleaner_word(cleaner.as_ref()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Identity>, D::Error> {
        let word = String::deserialize(deserializer)?;
        let token = word.trim_end();
        if token.is_empty() { Ok(None) } else { token.parse().map(Some).map_err(D::Error::custom) }
    }
}
