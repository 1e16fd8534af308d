//! Which revision of a thing a change is meant for.

use super::{Berth, Problem, Profile, Refusal};

/// What `If-Match` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// Nothing: whatever there is.
    #[default]
    Whatever,
    OneOf(Vec<String>),
}

impl Expected {
    /// Refuses when the thing is not at the revision that is meant.
    pub fn check(&self, revision: &str) -> Result<(), Problem> {
        match self {
            Self::OneOf(revisions) if !revisions.iter().any(|one| one == revision) => {
                let detail = format!("it has changed meanwhile: its revision is {revision}");
                Err(Problem::new(Refusal::Outdated, "changed_meanwhile", detail).hint("read it again, and decide anew"))
            }
            _ => Ok(()),
        }
    }
}

impl Berth {
    /// Of what is wanted of it: changes with every change of intent, not with its state.
    pub fn revision(&self) -> String {
        format!("{}-{}-{}", self.id.0.simple(), self.generation, self.updated_at)
    }
}

impl Profile {
    pub fn revision(&self) -> String {
        format!("{}-{}", self.id.0.simple(), self.updated_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_revision_that_is_meant_is_changed() {
        assert!(Expected::Whatever.check("a-1").is_ok());
        let expected = Expected::OneOf(vec!["a-1".to_owned(), "a-2".to_owned()]);
        assert!(expected.check("a-2").is_ok());
        assert_eq!(expected.check("a-3").unwrap_err().code, "changed_meanwhile");
    }
}
