//! Identity tokens, as `Identity`'s `Display` writes them.

use crate::identity::{BootId, Identity, StartTime};
use crate::parse;
use crate::pid::Pid;

/// Accepts exactly what `Display` writes, so that one identity has one token.
pub(crate) fn parse(text: &str) -> Option<Identity> {
    let mut fields = text.strip_prefix("p1:")?.split(':').peekable();
    let pid = Pid::new(u32::try_from(parse::decimal(fields.next()?.as_bytes())?).ok()?)?;
    // One optional field: taken if the next one starts with this letter.
    let mut field = |letter: char| fields.next_if(|field| field.starts_with(letter)).map(|field| &field[1..]);

    let unique = field('u').map(|digits| parse::decimal(digits.as_bytes()));
    let settled = field('s');
    let young = if settled.is_none() { field('y') } else { None };
    let start = settled.or(young).map(start_time);
    let namespace = field('n').map(|digits| parse::decimal(digits.as_bytes()));
    let boot = field('b').map(boot_id);
    if fields.next().is_some() {
        return None;
    }
    Some(Identity {
        pid,
        unique: known(unique)?,
        start: known(start)?,
        settled: settled.is_some(),
        pid_namespace: known(namespace)?,
        boot: known(boot)?,
    })
}

/// Absent is fine, malformed is not.
fn known<T>(field: Option<Option<T>>) -> Option<Option<T>> {
    match field {
        Some(None) => None,
        Some(value) => Some(value),
        None => Some(None),
    }
}

fn start_time(text: &str) -> Option<StartTime> {
    let (ticks, offset) = match text.split_once('@') {
        Some((ticks, offset)) => (ticks, parse::signed(offset.as_bytes()).filter(|&offset| offset != 0)?),
        None => (text, 0),
    };
    Some(StartTime { ticks: parse::decimal(ticks.as_bytes())?, offset })
}

fn boot_id(hex: &str) -> Option<BootId> {
    parse::uuid::hex(hex.as_bytes()).map(BootId)
}
