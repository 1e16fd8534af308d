//! The terminal in raw mode, for the time of a command.

use std::{io, os::fd::BorrowedFd};

use rustix::{
    stdio,
    termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr},
};

/// Puts the terminal back when dropped.
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    pub(crate) fn enter() -> io::Result<Self> {
        let before = tcgetattr(stdio::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdio::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that has gone.
        let _ = tcsetattr(stdio::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Shows nothing of what is typed until dropped.
pub(crate) struct Quiet {
    before: Termios,
}

impl Quiet {
    pub(crate) fn enter() -> io::Result<Self> {
        let before = tcgetattr(stdio::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        // What was typed before the question is no answer to it.
        tcsetattr(stdio::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Self { before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that has gone.
        let _ = tcsetattr(stdio::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Columns and rows of the terminal that types.
pub(crate) fn size() -> Option<(u16, u16)> {
    size_of(stdio::stdin())
}

/// Of the terminal that shows.
pub(crate) fn output_size() -> Option<(u16, u16)> {
    size_of(stdio::stdout())
}

fn size_of(terminal: BorrowedFd<'_>) -> Option<(u16, u16)> {
    let size = tcgetwinsize(terminal).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}
