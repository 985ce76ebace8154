//! What the system itself says of a process.

/// Field `index` of /proc/PID/stat, as proc_pid_stat(5) counts them: 3 is the state, 4 the parent, 6 the session, 22 the
/// start.
#[cfg(target_os = "linux")]
pub(crate) fn stat(pid: u32, index: usize) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after = &stat[stat.rfind(')')? + 2..];
    after.split(' ').nth(index - 3).map(str::to_owned)
}

/// The same facts where there is no /proc: ps(1) knows all but sessions, and the start to the second.
#[cfg(not(target_os = "linux"))]
pub(crate) fn stat(pid: u32, index: usize) -> Option<String> {
    let column = match index {
        3 => "state",
        4 => "ppid",
        6 => {
            let process = nix::unistd::Pid::from_raw(pid as i32);
            return nix::unistd::getsid(Some(process)).ok().map(|session| session.to_string());
        }
        22 => "lstart",
        _ => unreachable!("no test asks for field {index}"),
    };
    let mut ps = std::process::Command::new("ps");
    let output =
        ps.args(["-o", &format!("{column}="), "-p", &pid.to_string()]).output().expect("ps can be run");
    let mut text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if column == "state" {
        // Marks come after it
        text.truncate(1);
    }
    Some(text).filter(|text| !text.is_empty())
}
