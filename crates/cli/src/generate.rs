//! `pidigree completions` and `pidigree man`.

use std::io::Write;

use clap::CommandFactory;

use crate::args;
use crate::failure::{Code, Failure};

pub(crate) fn completions(args: &args::Completions) -> Result<Code, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::Args::command(), "pidigree", &mut script);
    print(&script)
}

pub(crate) fn man(args: &args::Man) -> Result<Code, Failure> {
    let command = args::Args::command();
    let Some(folder) = &args.out else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        return print(&page);
    };
    std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(command, folder)).map_err(
        |error| Failure::new(format!("cannot write manual pages into {}: {error}", folder.display())),
    )?;
    Ok(Code::Yes)
}

/// As it is: not through what strips colours.
fn print(bytes: &[u8]) -> Result<Code, Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(Code::Yes)
}
