//! Words of a command line in JSON: text, or bytes where they are none.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A word as the system has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word(pub(crate) OsString);

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Bytes(Vec<u8>),
}

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Word, D::Error> {
        Ok(Word(match Written::deserialize(deserializer)? {
            Written::Text(text) => text.into(),
            Written::Bytes(bytes) => OsString::from_vec(bytes),
        }))
    }
}

fn serialize<S: Serializer>(word: &OsStr, serializer: S) -> Result<S::Ok, S::Error> {
    match word.to_str() {
        Some(text) => serializer.serialize_str(text),
        None => serializer.collect_seq(word.as_bytes()),
    }
}

/// For a path.
pub(crate) mod path {
    use std::path::{Path, PathBuf};

    use super::{Deserialize, Deserializer, Serializer, Word};

    pub(crate) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        super::serialize(path.as_os_str(), serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        Word::deserialize(deserializer).map(|word| word.0.into())
    }
}

/// For a command.
pub(crate) mod words {
    use std::ffi::OsString;

    use super::{Deserialize, Deserializer, Serializer, Word};

    pub(crate) fn serialize<S: Serializer>(words: &[OsString], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(words.iter().cloned().map(Word))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<OsString>, D::Error> {
        let words = Vec::<Word>::deserialize(deserializer)?;
        Ok(words.into_iter().map(|word| word.0).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_comes_back_byte_for_byte() {
        for bytes in [&b"plain"[..], b"sp ace", b"\xff\x00\x80", b""] {
            let word = Word(OsString::from_vec(bytes.to_vec()));
            let written = serde_json::to_string(&word).unwrap();
            assert_eq!(serde_json::from_str::<Word>(&written).unwrap(), word, "{written}");
        }
        assert_eq!(serde_json::to_string(&Word("a b".into())).unwrap(), "\"a b\"");
    }
}
