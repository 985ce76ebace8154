//! Where a run is told: standard error, since standard output is the command's, or a file.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::failure::Failure;

#[derive(Debug)]
pub(crate) struct Report {
    file: Option<(File, PathBuf)>,
    /// The first that went wrong; after it nothing more is written.
    failed: Option<io::Error>,
}

impl Report {
    /// Opens the file, if it is one, before anything has been started.
    pub(crate) fn to(path: Option<&Path>) -> Result<Report, Failure> {
        let open = |path: &Path| match File::create(path) {
            Ok(file) => Ok((file, path.to_owned())),
            Err(error) => Err(unwritable(path, &error)),
        };
        Ok(Report { file: path.map(open).transpose()?, failed: None })
    }

    /// Writes an object as one line.
    pub(crate) fn json(&mut self, object: &impl Serialize) {
        let line = serde_json::to_vec(object).map(|mut line| {
            line.push(b'\n');
            line
        });
        match line {
            Ok(line) => self.write(&line),
            Err(error) => self.failed = self.failed.take().or(Some(error.into())),
        }
    }

    /// Writes text, with colours where they are wanted.
    pub(crate) fn text(&mut self, text: &str) {
        if self.file.is_some() {
            self.write(anstream::adapter::strip_str(text).to_string().as_bytes());
        } else {
            // Where standard error is closed there is nobody to tell that it is.
            let _ = anstream::stderr().lock().write_all(text.as_bytes());
        }
    }

    /// Says whether all was written.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        match (self.failed, self.file) {
            (Some(error), Some((_, path))) => Err(unwritable(&path, &error)),
            _ => Ok(()),
        }
    }

    /// At once, so that lines of several programs on one pipe stay whole.
    fn write(&mut self, bytes: &[u8]) {
        let Some((file, _)) = &mut self.file else {
            let _ = io::stderr().lock().write_all(bytes);
            return;
        };
        if self.failed.is_none() {
            self.failed = file.write_all(bytes).err();
        }
    }
}

pub(crate) fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("cannot write {}: {error}", path.display()))
}
