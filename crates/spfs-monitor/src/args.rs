//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::help;
use crate::root::Root;

/// Waits until everything that a runtime started has ended, then cleans it up, once.
#[derive(Debug, Parser)]
#[command(name = "spfs-monitor", version, max_term_width = 100)]
#[command(long_about = help::ABOUT, after_long_help = help::MORE)]
pub(crate) struct Args {
    /// The runtime file: made if there is none, gone on with if there is one, removed when the runtime is cleaned up
    #[arg(long, value_name = "FILE")]
    pub(crate) runtime: PathBuf,
    /// The process that the runtime hangs on, with all that it has started and will start; may be left out if there is a
    /// runtime file
    #[arg(long, value_name = "PID|TOKEN", allow_negative_numbers = true)]
    pub(crate) root: Option<Root>,
    /// Touch this file now and then as long as the runtime is watched
    #[arg(long, value_name = "PATH")]
    pub(crate) heartbeat: Option<PathBuf>,
    /// How often: 500ms, 2s, 1m30s; a bare number is seconds [default: 60s]
    #[arg(long, value_name = "D", requires = "heartbeat", value_parser = interval, allow_negative_numbers = true)]
    pub(crate) every: Option<Duration>,
    /// Start a cleanup again of which nobody knows how it ended
    #[arg(long)]
    pub(crate) retry: bool,
    /// Do not detach: stay where it was started, with its output, and end when the runtime is cleaned up
    #[arg(long)]
    pub(crate) foreground: bool,
    /// The cleanup command, when the last process has ended; everything behind it is its own. Its working directory is /
    #[arg(long, value_name = "COMMAND", num_args = 1.., allow_hyphen_values = true)]
    pub(crate) on_empty: Vec<OsString>,
}

/// `500ms`, `2s`, `1m30s`; and as for timeout(1), a bare number is seconds. No less than a millisecond.
fn interval(text: &str) -> Result<Duration, String> {
    let bare = text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let parsed = if bare {
        text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    } else {
        humantime::parse_duration(text).ok()
    };
    let year = Duration::from_secs(366 * 24 * 60 * 60);
    parsed.filter(|every| (Duration::from_millis(1)..=year).contains(every)).ok_or_else(|| {
        format!("{text:?} is not an interval: expected one such as 500ms, 2s or 1m30s, up to a year")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_a_millisecond_at_least() {
        for (text, milliseconds) in
            [("1ms", 1), ("500ms", 500), ("2s", 2_000), ("1m30s", 90_000), ("3", 3_000), ("0.25", 250)]
        {
            assert_eq!(interval(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in [
            "",
            "0",
            "0s",
            "-1",
            "-5s",
            "s",
            "1x",
            "1.2.3",
            "1us",
            "nan",
            "inf",
            "99999999999999999999",
            "2y",
        ] {
            let error = interval(bad).expect_err(bad);
            assert!(error.contains(bad), "{error} does not name {bad:?}");
        }
    }

    #[test]
    fn what_follows_the_cleanup_command_is_its_own() {
        let words = [
            "spfs-monitor",
            "--runtime",
            "r",
            "--root",
            "7",
            "--on-empty",
            "rm",
            "-rf",
            "--",
            "x",
            "--retry",
        ];
        let args = Args::try_parse_from(words).unwrap();
        assert_eq!(args.on_empty, ["rm", "-rf", "--", "x", "--retry"]);
        assert!(!args.retry);
    }
}
