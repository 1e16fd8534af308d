//! What has changed, for those who watch.

use super::OperationId;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),* $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum EventKind {
            $($(#[$doc])* $variant),*
        }

        impl EventKind {
            pub const ALL: &'static [EventKind] = &[$(Self::$variant),*];

            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),*
                }
            }
        }
    };
}

kinds! {
    /// A berth is new, or its intent, state or conditions have changed. What it uses is no event.
    BerthChanged = "berth_changed",
    BerthRemoved = "berth_removed",
    OperationChanged = "operation_changed",
    ProfileChanged = "profile_changed",
    ProfileRemoved = "profile_removed",
    /// An image came or went, or is the default one now.
    ImageChanged = "image_changed",
    /// A user's request for more: asked, approved, denied, expired.
    RequestChanged = "request_changed",
    /// A rule for a group of the host.
    RuleChanged = "rule_changed",
    /// The account of a host user that has a berth is in another state, or an administrator (`admin:NAME`) came, changed or went.
    AccountChanged = "account_changed",
}

/// What is about to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewEvent<'a> {
    pub kind: EventKind,
    /// Name of the user, profile or image that it is about.
    pub subject: &'a str,
    /// The user whose own thing it is; nothing: only for those who may see everything.
    pub owner: Option<&'a str>,
    /// Of a berth or an operation.
    pub state: Option<&'a str>,
    pub operation: Option<OperationId>,
}

impl<'a> NewEvent<'a> {
    pub fn new(kind: EventKind, subject: &'a str) -> Self {
        Self { kind, subject, owner: None, state: None, operation: None }
    }

    /// About something that is a user's own.
    pub fn own(kind: EventKind, user: &'a str) -> Self {
        Self { owner: Some(user), ..Self::new(kind, user) }
    }
}

/// A row of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Grows from event to event.
    pub seq: i64,
    pub at: i64,
    pub kind: EventKind,
    pub subject: String,
    pub owner: Option<String>,
    pub state: Option<String>,
    pub operation: Option<OperationId>,
}

/// Whose events, and about what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Only what is this user's own.
    pub owner: Option<String>,
    pub subject: Option<String>,
}

impl EventFilter {
    pub fn takes(&self, event: &Event) -> bool {
        let owned = |user: &String| event.owner.as_ref() == Some(user);
        self.owner.as_ref().is_none_or(owned) && self.subject.as_ref().is_none_or(|name| *name == event.subject)
    }
}
