//! Which berths and operations are listed, and in what order.

use super::{Berth, Kind, OperationState, State};

/// What is left out does not narrow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BerthFilter {
    pub state: Option<State>,
    pub profile: Option<String>,
    /// Beginning of the user's name.
    pub user: Option<String>,
    /// Part of the user's name.
    pub search: Option<String>,
    /// Name of a condition.
    pub condition: Option<String>,
    /// Only this user's own.
    pub owner: Option<String>,
    pub sort: BerthSort,
    pub descending: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BerthSort {
    #[default]
    User,
    State,
    /// In use now.
    Memory,
    /// Taken on the host.
    Disk,
    LastUsed,
}

/// Where a page ended: a value of what is sorted by, and the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BerthCursor {
    User(String),
    State(String, String),
    Figure(i64, String),
}

impl BerthSort {
    /// The place of a berth in the list, as a cursor holds it.
    pub fn place(self, berth: &Berth) -> String {
        match self {
            Self::User => berth.user.to_string(),
            Self::State => format!("{}:{}", berth.shown_state().as_str(), berth.user),
            Self::Memory => format!("{}:{}", berth.used_memory(), berth.user),
            Self::Disk => format!("{}:{}", berth.used_disk(), berth.user),
            Self::LastUsed => format!("{}:{}", berth.last_used_at(), berth.user),
        }
    }

    /// Nothing when the text is no place in a list of this order.
    pub fn cursor(self, text: &str) -> Option<BerthCursor> {
        if self == Self::User {
            return Some(BerthCursor::User(text.to_owned()));
        }
        let (value, user) = text.split_once(':')?;
        match self {
            Self::State => Some(BerthCursor::State(value.to_owned(), user.to_owned())),
            _ => Some(BerthCursor::Figure(value.parse().ok()?, user.to_owned())),
        }
    }
}

/// Which operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationFilter {
    pub state: Option<OperationState>,
    pub kind: Option<Kind>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_belongs_to_the_order_that_gave_it() {
        assert_eq!(BerthSort::User.cursor("alice"), Some(BerthCursor::User("alice".to_owned())));
        assert_eq!(BerthSort::Memory.cursor("5:alice"), Some(BerthCursor::Figure(5, "alice".to_owned())));
        assert_eq!(BerthSort::State.cursor("running:a"), Some(BerthCursor::State("running".to_owned(), "a".to_owned())));
        assert_eq!(BerthSort::Disk.cursor("alice"), None);
        assert_eq!(BerthSort::Disk.cursor("x:alice"), None);
    }
}
