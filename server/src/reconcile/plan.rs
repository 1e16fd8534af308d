//! What to ask of the node next, from what is wanted and what is there.

use crate::domain::{Archiving, Berth, EnsureWanted, Status, Wanted};

/// The next call to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Nothing,
    /// Stop before a restart.
    Stop,
    Ensure(EnsureWanted),
    Delete,
    /// Written before the delete.
    Archive,
    /// Made from an archive.
    Restore,
    /// The node holds another berth of this user, which is not ours to touch.
    Foreign,
}

/// The next step for a berth; `observed` is what the node holds for its user.
pub fn plan(berth: &Berth, observed: Option<&Status>) -> Step {
    if observed.is_some_and(|status| status.id != berth.id) {
        return Step::Foreign;
    }
    let wanted = match berth.wanted {
        Wanted::Deleted => return Step::Delete,
        Wanted::Present => EnsureWanted::Present,
        Wanted::Running => EnsureWanted::Running,
        Wanted::Stopped => EnsureWanted::Stopped,
    };
    if berth.generation == berth.applied && observed.is_some() {
        return Step::Nothing;
    }
    if berth.suspension.is_some() {
        // Overrides what is wanted, which is left for the resume.
        return Step::Ensure(wanted);
    }
    match (berth.restart_after, observed) {
        // A berth without a start time is taken for an old one: one stop too many does no harm after a restart was asked for.
        (Some(after), Some(status)) if status.state.is_up() && status.started_at.is_none_or(|started| started < after) => Step::Stop,
        _ => Step::Ensure(wanted),
    }
}

/// What is to be done with an archive comes first.
pub fn with_archive(step: Step, there: bool, archiving: Option<&Archiving>) -> Step {
    match (step, archiving) {
        (Step::Delete, Some(Archiving::Write { done: false, .. })) if there => Step::Archive,
        (Step::Ensure(_), Some(Archiving::Restore { .. })) if !there => Step::Restore,
        _ => step,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{BerthId, State, Suspension},
        reconcile::samples::{berth, status},
    };

    #[test]
    fn an_applied_intent_needs_nothing_even_if_the_berth_woke_up_since() {
        let mut berth = berth(Wanted::Present);
        berth.applied = berth.generation;
        for state in State::ALL {
            assert_eq!(plan(&berth, Some(&status(&berth, state))), Step::Nothing);
        }
    }

    #[test]
    fn a_new_intent_is_asked_for_whatever_the_state() {
        for (wanted, asked) in
            [(Wanted::Present, EnsureWanted::Present), (Wanted::Running, EnsureWanted::Running), (Wanted::Stopped, EnsureWanted::Stopped)]
        {
            let berth = berth(wanted);
            assert_eq!(plan(&berth, None), Step::Ensure(asked));
            for state in State::ALL {
                assert_eq!(plan(&berth, Some(&status(&berth, state))), Step::Ensure(asked));
            }
        }
    }

    #[test]
    fn a_berth_that_the_node_has_lost_is_made_again() {
        let mut berth = berth(Wanted::Present);
        berth.applied = berth.generation;
        assert_eq!(plan(&berth, None), Step::Ensure(EnsureWanted::Present));
    }

    #[test]
    fn a_restart_stops_what_has_run_before_and_nothing_else() {
        let mut berth = berth(Wanted::Running);
        berth.restart_after = Some(1_000);
        let mut status = status(&berth, State::Running);
        for (started, step) in [(None, Step::Stop), (Some(999), Step::Stop), (Some(1_000), Step::Ensure(EnsureWanted::Running))] {
            status.started_at = started;
            assert_eq!(plan(&berth, Some(&status)), step, "{started:?}");
        }
        status.state = State::Stopped;
        assert_eq!(plan(&berth, Some(&status)), Step::Ensure(EnsureWanted::Running));
        assert_eq!(plan(&berth, None), Step::Ensure(EnsureWanted::Running));
    }

    #[test]
    fn a_suspended_berth_is_not_stopped_for_a_restart_but_can_be_deleted() {
        let mut berth = berth(Wanted::Running);
        berth.restart_after = Some(1_000);
        berth.suspension = Some(Suspension { reason: "mining".to_owned(), by: "root".to_owned(), since: 1 });
        let status = status(&berth, State::Running);
        assert_eq!(plan(&berth, Some(&status)), Step::Ensure(EnsureWanted::Running));
        berth.wanted = Wanted::Deleted;
        assert_eq!(plan(&berth, Some(&status)), Step::Delete);
    }

    #[test]
    fn l04_an_archive_is_written_before_the_delete_and_read_before_the_start() {
        let write = |done| Archiving::Write { archive: "a.berth".to_owned(), done };
        assert_eq!(with_archive(Step::Delete, true, Some(&write(false))), Step::Archive);
        assert_eq!(with_archive(Step::Delete, true, Some(&write(true))), Step::Delete);
        assert_eq!(with_archive(Step::Delete, false, Some(&write(false))), Step::Delete, "there is nothing to keep");
        assert_eq!(with_archive(Step::Foreign, true, Some(&write(false))), Step::Foreign);
        let restore = Archiving::Restore { archive: "a.berth".to_owned() };
        let ensure = Step::Ensure(EnsureWanted::Running);
        assert_eq!((with_archive(ensure, false, Some(&restore)), with_archive(ensure, true, Some(&restore))), (Step::Restore, ensure));
        assert_eq!(with_archive(Step::Delete, false, Some(&restore)), Step::Delete);
    }

    #[test]
    fn deletion_is_asked_for_until_the_berth_is_gone_but_never_of_a_foreign_one() {
        let berth = berth(Wanted::Deleted);
        assert_eq!(plan(&berth, None), Step::Delete);
        let mut status = status(&berth, State::Failed);
        assert_eq!(plan(&berth, Some(&status)), Step::Delete);
        status.id = BerthId(uuid::Uuid::from_u128(99));
        assert_eq!(plan(&berth, Some(&status)), Step::Foreign);
    }
}
