//! Operations.

use std::time::Duration;

use uuid::Uuid;

use super::{Error, Service, authorise};
use crate::{
    authz::{self, Access, Operation as Op},
    domain::{Caller, Operation, OperationFilter, OperationId, OperationState, Problem, Refusal, Whose},
    store,
};

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page {
    /// As the page before said.
    pub cursor: Option<String>,
    pub limit: u32,
}

impl Page {
    /// Where a list that is ordered by name goes on.
    pub(super) fn after(&self) -> &str {
        self.cursor.as_deref().unwrap_or_default()
    }

    /// Where a list that is ordered by id goes on.
    pub(super) fn before(&self) -> Result<Option<Uuid>, Error> {
        self.cursor.as_deref().map(|cursor| cursor.parse().map_err(|_| invalid_cursor())).transpose()
    }
}

pub(super) fn invalid_cursor() -> Error {
    Problem::new(Refusal::Invalid, "invalid_cursor", "the cursor is not one that a page of this list gave").into()
}

impl Service {
    pub async fn operations(
        &self,
        caller: &Caller,
        subject: Option<&str>,
        filter: OperationFilter,
        page: &Page,
    ) -> Result<Vec<Operation>, Error> {
        let Some(whose) = whose(caller, Op::ListOperations, subject)? else { return Ok(Vec::new()) };
        let before = page.before()?.map(OperationId);
        let mut reader = self.store.reader().await?;
        Ok(store::operations::page(&mut reader, whose, filter, before, page.limit).await?)
    }

    pub async fn operation(&self, caller: &Caller, id: OperationId) -> Result<Operation, Error> {
        self.visible_operation(caller, Op::ShowOperation, id).await
    }

    /// The operation as soon as it has finished, or its revision is not `revision`; after `timeout` as it is then.
    pub async fn wait(&self, caller: &Caller, id: OperationId, timeout: Duration, revision: Option<u64>) -> Result<Operation, Error> {
        let deadline = tokio::time::Instant::now() + timeout;
        // Subscribed before the first look, so that no change falls between the two.
        let mut changes = self.store.changes();
        loop {
            changes.mark_unchanged();
            let operation = self.visible_operation(caller, Op::WaitOperation, id).await?;
            let finished = matches!(operation.state, OperationState::Succeeded | OperationState::Failed | OperationState::Cancelled);
            if finished || revision.is_some_and(|known| known != operation.revision) {
                return Ok(operation);
            }
            match tokio::time::timeout_at(deadline, changes.changed()).await {
                Ok(Ok(())) => {}
                _ => return Ok(operation),
            }
        }
    }

    pub(super) async fn visible_operation(&self, caller: &Caller, operation: Op, id: OperationId) -> Result<Operation, Error> {
        authorise(caller, operation)?;
        let mut reader = self.store.reader().await?;
        store::operations::by_id(&mut reader, id)
            .await?
            // An image may have the name of a user; its operations are not his.
            .filter(|found| match found.berth_id {
                Some(_) => authz::permits(caller, operation, &found.subject),
                None => authz::reach(caller, operation) == Access::All,
            })
            .ok_or_else(|| super::not_found("operation", &id.to_string()))
    }
}

/// Whose rows are listed; nothing when the caller asks for another's.
fn whose<'a>(caller: &'a Caller, operation: Op, asked: Option<&'a str>) -> Result<Option<Whose<'a>>, Error> {
    Ok(match (authorise(caller, operation)?, asked) {
        (Access::All, Some(name)) => Some(Whose::Named(name)),
        (Access::All, None) => Some(Whose::Everybodys),
        // An image may have the name of a user; its rows are not his.
        (_, asked) => asked.is_none_or(|name| name == caller.name).then_some(Whose::OfBerth(&caller.name)),
    })
}
