//! Which operations end when the node has carried out a generation, or has refused it.

use crate::domain::{Kind, Operation, OperationId, OperationState, Own, Parameters, ProfileId};

/// How each of the operations up to `generation` ends when the node has done what is wanted. On a berth that is `suspended` nothing was
/// started or stopped.
pub(super) fn succeed(operations: &[Operation], generation: i64, suspended: bool) -> Vec<(OperationId, OperationState)> {
    let covered = || operations.iter().filter(move |operation| operation.generation.is_some_and(|own| own <= generation));
    let last = |of: fn(Kind) -> bool| covered().filter(|one| of(one.kind)).map(|one| one.generation).max().flatten();
    let (last_power, last_bar) = (last(Kind::is_power), last(Kind::is_bar));
    covered()
        .map(|operation| {
            let overtaken = (operation.kind.is_power() && (suspended || operation.generation < last_power))
                || (operation.kind == Kind::BerthRebuild && suspended)
                || (operation.kind.is_bar() && operation.generation < last_bar);
            (operation.id, if overtaken { OperationState::Cancelled } else { OperationState::Succeeded })
        })
        .collect()
}

/// The first change after `generation` that is not done: what was before it then is what was before the changes that were refused.
pub(super) fn next_change(operations: &[Operation], generation: i64) -> Option<OperationId> {
    let later = operations.iter().filter(|one| one.kind == Kind::BerthChange && one.generation.is_some_and(|own| own > generation));
    later.min_by_key(|one| one.generation).map(|one| one.id)
}

/// What the berth had before the first of the changes that the node has refused.
pub(super) fn before(operations: &[Operation], generation: i64) -> Option<(ProfileId, Own, Option<i64>)> {
    operations.iter().filter(|operation| operation.generation.is_some_and(|own| own <= generation)).find_map(|operation| {
        match (operation.kind, &operation.parameters) {
            (Kind::BerthChange, Parameters::Change { profile, own, until }) => Some((*profile, Own::clone(own), *until)),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::{BerthId, OwnLimits};

    fn operation(number: u128, kind: Kind, generation: i64) -> Operation {
        Operation {
            id: OperationId(Uuid::from_u128(number)),
            kind,
            subject: "alice".to_owned(),
            berth_id: Some(BerthId(Uuid::nil())),
            generation: Some(generation),
            parameters: Parameters::None,
            state: OperationState::Pending,
            step: String::new(),
            log: Vec::new(),
            log_lines: 0,
            progress: None,
            result: None,
            problem: None,
            revision: 0,
            actor: "root".to_owned(),
            created_at: 0,
            updated_at: 0,
            finished_at: None,
        }
    }

    #[test]
    fn a_later_stop_overtakes_a_start_but_not_a_create_or_change() {
        let operations = [
            operation(1, Kind::BerthCreate, 1),
            operation(2, Kind::BerthStart, 2),
            operation(3, Kind::BerthChange, 3),
            operation(4, Kind::BerthStop, 4),
            operation(5, Kind::BerthStart, 5),
        ];
        let ends: Vec<_> = succeed(&operations, 4, false).into_iter().map(|(_, state)| state).collect();
        assert_eq!(ends, [OperationState::Succeeded, OperationState::Cancelled, OperationState::Succeeded, OperationState::Succeeded]);
    }

    #[test]
    fn a_suspension_overtakes_a_start_and_a_resume_the_suspension() {
        let operations = [operation(1, Kind::BerthStart, 2), operation(2, Kind::BerthSuspend, 3), operation(3, Kind::BerthResume, 4)];
        let ends =
            |generation, suspended| -> Vec<_> { succeed(&operations, generation, suspended).into_iter().map(|(_, state)| state).collect() };
        assert_eq!(ends(3, true), [OperationState::Cancelled, OperationState::Succeeded]);
        assert_eq!(ends(4, false), [OperationState::Succeeded, OperationState::Cancelled, OperationState::Succeeded]);
    }

    #[test]
    fn a_refused_change_goes_back_to_what_was_before_the_first() {
        let previous = |pids| {
            let limits = OwnLimits { pids: Some(pids), ..OwnLimits::default() };
            Parameters::Change { profile: ProfileId(Uuid::nil()), own: Box::new(Own { limits, egress: None }), until: None }
        };
        let mut operations = [operation(1, Kind::BerthChange, 2), operation(2, Kind::BerthChange, 3)];
        operations[0].parameters = previous(100);
        operations[1].parameters = previous(200);
        assert_eq!(before(&operations, 3).unwrap().1.limits.pids, Some(100));
        assert_eq!(before(&operations, 1), None);
        assert_eq!((next_change(&operations, 2), next_change(&operations, 3)), (Some(operations[1].id), None));
    }
}
