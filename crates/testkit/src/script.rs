//! From words to operations: pure, so that a test's typing error is a panic in the test and not a silent child.

/// A script for [`Family`](crate::Family), as words.
///
/// This is made from one string (split at white space) or from a list of words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script(pub(crate) Vec<String>);

impl From<&str> for Script {
    fn from(text: &str) -> Script {
        Script(text.split_whitespace().map(str::to_owned).collect())
    }
}

impl From<String> for Script {
    fn from(text: String) -> Script {
        Script::from(text.as_str())
    }
}

impl From<Vec<String>> for Script {
    fn from(words: Vec<String>) -> Script {
        Script(words)
    }
}

impl From<&[&str]> for Script {
    fn from(words: &[&str]) -> Script {
        Script(words.iter().map(|word| (*word).to_owned()).collect())
    }
}

impl<const N: usize> From<&[&str; N]> for Script {
    fn from(words: &[&str; N]) -> Script {
        Script::from(words.as_slice())
    }
}

/// One operation; `help.txt` says what each does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Say(String),
    Pause,
    Await,
    Orphaned,
    Reap,
    ReapAll,
    Fork(Vec<Op>),
    DoubleFork(Vec<Op>),
    CloneParent(Vec<Op>),
    Held(String, Vec<Op>),
    Thread(Vec<Op>),
    /// The words, already known to parse: they become the arguments of the new image.
    Exec(Vec<String>),
    Spawn(Vec<String>),
    Hopper(Hops),
    Storm(u64),
    Bomb(usize),
    Exit(i32),
    Raise(i32),
    ThreadExit,
    Block(i32),
    Take(i32),
    Setsid,
    UnshareMount,
    EnterPid(u32),
    Subreaper,
    Undumpable,
    Name(Vec<u8>),
    Setuid(u32),
}

/// What a hopper does on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hops {
    /// 0: for ever.
    pub(crate) generations: u64,
    pub(crate) setsid_every: Option<u64>,
    pub(crate) double_every: Option<u64>,
    /// Microseconds.
    pub(crate) hold: u64,
}

/// Parses a whole script.
pub(crate) fn parse(words: &[String]) -> Result<Vec<Op>, String> {
    let mut parser = Parser { words, at: 0 };
    let ops = parser.ops()?;
    match parser.next() {
        None => Ok(ops),
        Some(word) => Err(format!("unmatched `{word}`")),
    }
}

struct Parser<'a> {
    words: &'a [String],
    at: usize,
}

impl<'a> Parser<'a> {
    /// Operations up to the end, or up to a `]` that is left in place.
    fn ops(&mut self) -> Result<Vec<Op>, String> {
        let mut ops = Vec::new();
        while let Some(word) = self.peek() {
            if word == "]" {
                break;
            }
            self.at += 1;
            ops.push(self.op(word)?);
        }
        Ok(ops)
    }

    fn op(&mut self, word: &str) -> Result<Op, String> {
        Ok(match word {
            "say" => Op::Say(self.argument(word)?.to_owned()),
            "pause" => Op::Pause,
            "await" => Op::Await,
            "orphaned" => Op::Orphaned,
            "reap" => Op::Reap,
            "reap-all" => Op::ReapAll,
            "fork" => Op::Fork(self.block(word)?),
            "double-fork" => Op::DoubleFork(self.block(word)?),
            "clone-parent" => Op::CloneParent(self.block(word)?),
            "held" => Op::Held(self.argument(word)?.to_owned(), self.block(word)?),
            "thread" => Op::Thread(self.block(word)?),
            "exec" => Op::Exec(self.block_words(word)?),
            "spawn" => Op::Spawn(self.block_words(word)?),
            "hopper" => Op::Hopper(self.hops(word)?),
            "storm" => Op::Storm(self.number(word)?),
            "bomb" => Op::Bomb(match self.number(word)? {
                // As much as a pipe holds
                forks @ 0..=60_000 => forks,
                _ => return Err("`bomb` forks no more than 60000 times".to_owned()),
            }),
            "exit" => Op::Exit(self.number(word)?),
            "raise" => Op::Raise(self.number(word)?),
            "thread-exit" => Op::ThreadExit,
            "block" => Op::Block(self.number(word)?),
            "take" => Op::Take(self.number(word)?),
            "setsid" => Op::Setsid,
            "enter-pid" => Op::EnterPid(self.number(word)?),
            "unshare-mount" => Op::UnshareMount,
            "subreaper" => Op::Subreaper,
            "undumpable" => Op::Undumpable,
            "name" => Op::Name(unescape(self.argument(word)?)?),
            "setuid" => Op::Setuid(self.number(word)?),
            _ => return Err(format!("no operation is called `{word}`")),
        })
    }

    fn hops(&mut self, of: &str) -> Result<Hops, String> {
        let mut hops = Hops { generations: self.number(of)?, ..Hops::default() };
        while let Some(clause @ ("setsid-every" | "double-every" | "hold")) = self.peek() {
            self.at += 1;
            let number = self.number(clause)?;
            if number == 0 {
                return Err(format!("`{clause}` needs a number above 0"));
            }
            match clause {
                "setsid-every" => hops.setsid_every = Some(number),
                "double-every" => hops.double_every = Some(number),
                _ => hops.hold = number,
            }
        }
        Ok(hops)
    }

    fn block(&mut self, of: &str) -> Result<Vec<Op>, String> {
        if self.next() != Some("[") {
            return Err(format!("`{of}` needs `[ ... ]`"));
        }
        let ops = self.ops()?;
        match self.next() {
            Some("]") => Ok(ops),
            _ => Err(format!("the `[` of `{of}` is never closed")),
        }
    }

    fn block_words(&mut self, of: &str) -> Result<Vec<String>, String> {
        let start = self.at + 1;
        self.block(of)?;
        Ok(self.words[start..self.at - 1].to_vec())
    }

    fn number<N: std::str::FromStr>(&mut self, of: &str) -> Result<N, String> {
        let word = self.argument(of)?;
        word.parse().map_err(|_| format!("`{of}` needs a number, not `{word}`"))
    }

    fn argument(&mut self, of: &str) -> Result<&'a str, String> {
        match self.next() {
            Some(word) if word != "[" && word != "]" => Ok(word),
            _ => Err(format!("`{of}` needs an argument")),
        }
    }

    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).map(String::as_str)
    }

    fn next(&mut self) -> Option<&'a str> {
        let word = self.peek()?;
        self.at += 1;
        Some(word)
    }
}

fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            plain.push(byte);
            continue;
        }
        plain.push(match bytes.next() {
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b's') => b' ',
            Some(b'\\') => b'\\',
            Some(b'x') => {
                let digits: Vec<u8> = bytes.by_ref().take(2).collect();
                std::str::from_utf8(&digits)
                    .ok()
                    .filter(|digits| digits.len() == 2)
                    .and_then(|digits| u8::from_str_radix(digits, 16).ok())
                    .filter(|byte| *byte != 0)
                    .ok_or_else(|| format!("`{text}` holds a bad \\x escape"))?
            }
            _ => return Err(format!("`{text}` holds an unknown escape")),
        });
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::{Hops, Op, Script, parse, unescape};

    fn parsed(text: &str) -> Result<Vec<Op>, String> {
        parse(&Script::from(text).0)
    }

    #[test]
    fn nested_scripts_keep_their_order() {
        assert_eq!(
            parsed("fork [ thread [ say t ] exit 3 ] say root pause"),
            Ok(vec![
                Op::Fork(vec![Op::Thread(vec![Op::Say("t".into())]), Op::Exit(3)]),
                Op::Say("root".into()),
                Op::Pause,
            ])
        );
    }

    #[test]
    fn exec_keeps_its_words_and_checks_them() {
        let words = ["fork", "[", "pause", "]", "say", "x"].map(String::from).to_vec();
        assert_eq!(parsed("exec [ fork [ pause ] say x ]"), Ok(vec![Op::Exec(words)]));
        assert!(parsed("exec [ nonsense ]").is_err());
    }

    #[test]
    fn hopper_takes_optional_clauses() {
        let plain = Hops { generations: 7, ..Hops::default() };
        assert_eq!(parsed("hopper 7 pause"), Ok(vec![Op::Hopper(plain.clone()), Op::Pause]));
        let often = Hops { setsid_every: Some(3), ..plain.clone() };
        assert_eq!(parsed("hopper 7 setsid-every 3"), Ok(vec![Op::Hopper(often.clone())]));
        let all = Hops { double_every: Some(5), hold: 200, ..often };
        assert_eq!(parsed("hopper 7 double-every 5 hold 200 setsid-every 3"), Ok(vec![Op::Hopper(all)]));
        assert!(parsed("hopper 7 setsid-every 0").is_err());
        assert!(parsed("hopper 7 hold").is_err());
    }

    #[test]
    fn a_bad_script_is_refused_with_the_word_at_fault() {
        for (text, word) in [
            ("fork", "`fork`"),
            ("fork [ pause", "`fork`"),
            ("pause ]", "`]`"),
            ("say", "`say`"),
            ("say ]", "`say`"),
            ("exit now", "`now`"),
            ("dance", "`dance`"),
        ] {
            let why = parsed(text).expect_err(text);
            assert!(why.contains(word), "{text}: {why}");
        }
    }

    #[test]
    fn names_are_bytes() {
        assert_eq!(unescape(r"a)\sR\s1\s(\n\xff\\"), Ok(b"a) R 1 (\n\xff\\".to_vec()));
        assert!(unescape(r"\x0").is_err());
        assert!(unescape(r"\x00").is_err());
        assert!(unescape(r"\q").is_err());
    }
}
