//! A stack of inverse steps: each change of the host pushes its own undoing, and a failure unwinds them all.

use crate::{
    error::{Error, Result, chain},
    fault,
};

type Inverse = Box<dyn FnOnce() -> Result<()> + Send>;

/// Inverse steps, last first. Dropped without [`Undo::commit`] it unwinds, and logs what it could not undo.
#[derive(Default)]
pub struct Undo {
    steps: Vec<(&'static str, Inverse)>,
}

impl Undo {
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes the host by `change`; when that worked, `inverse` takes it back should a later step fail.
    pub fn step<T>(
        &mut self,
        name: &'static str,
        change: impl FnOnce() -> Result<T>,
        inverse: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<T> {
        fault::point(name)?;
        let value = change()?;
        self.steps.push((name, Box::new(inverse)));
        Ok(value)
    }

    /// The whole thing stands: nothing is taken back.
    pub fn commit(mut self) {
        self.steps.clear();
    }

    /// Takes everything back, never stopping at the first error; returns the names and reasons of what stays.
    pub fn unwind(&mut self) -> Vec<String> {
        let mut leftovers = Vec::new();
        while let Some((name, inverse)) = self.steps.pop() {
            if let Err(error) = inverse() {
                leftovers.push(format!("{name} ({})", chain(&error)));
            }
        }
        leftovers
    }

    /// Unwinds because of `cause`; the result tells both.
    pub fn fail(mut self, cause: Error) -> Error {
        let leftovers = self.unwind();
        if leftovers.is_empty() { cause } else { Error::Undone { cause: Box::new(cause), leftovers } }
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        for left in self.unwind() {
            tracing::error!(left, "could not be undone");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn unwinding_goes_backwards_and_past_errors_and_tells_both() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut undo = Undo::new();
        for (name, fails) in [("first", false), ("second", true), ("third", false)] {
            let log = Arc::clone(&log);
            let inverse = move || {
                log.lock().unwrap().push(name);
                if fails { Err(Error::Invalid("busy".into())) } else { Ok(()) }
            };
            undo.step(name, || Ok(()), inverse).unwrap();
        }
        let error = undo.fail(Error::Invalid("no room".into()));
        assert_eq!(*log.lock().unwrap(), ["third", "second", "first"]);
        assert_eq!(error.to_string(), "no room; and undoing it left second (busy)");
    }
}
