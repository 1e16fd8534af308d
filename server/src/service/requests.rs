//! Requests: a user asks for more for a while, somebody decides. What is approved is applied and taken away like any change of limits.

use super::{
    Error, Page, Service,
    assign::{Ledger, check_until},
    authorise,
    berths::{Accepted, Target, changeable},
    not_found, quota,
    suspension::check_reason,
};
use crate::{
    authz::{self, Access, Operation as Op},
    domain::{
        AuditEntry, Berth, Caller, Figures, Grant, Kind, Limits, Operation, Parameters, Problem, Refusal, Request, RequestId, RequestState,
        Subject, Warning, effective,
    },
    store::{self, Transaction},
};

#[derive(Clone, Debug)]
pub struct NewRequest {
    /// The caller unless set.
    pub user: Option<String>,
    pub figures: Figures,
    pub until: i64,
    pub reason: String,
}

/// What an approval makes of a request; what is left out is as asked.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    pub figures: Figures,
    pub until: Option<i64>,
    pub word: Option<String>,
}

const DAY: i64 = 86_400_000;

impl Service {
    /// Of all users, or of the caller; newest first.
    pub async fn requests(
        &self,
        caller: &Caller,
        user: Option<&str>,
        state: Option<RequestState>,
        page: &Page,
    ) -> Result<Vec<Request>, Error> {
        let user = match (authorise(caller, Op::ListRequests)?, user) {
            (Access::All, user) => user,
            (_, Some(user)) if user != caller.name => return Ok(Vec::new()),
            _ => Some(caller.name.as_str()),
        };
        let before = page.before()?.map(RequestId);
        let mut reader = self.store.reader().await?;
        Ok(store::requests::page(&mut reader, user, state, before, page.limit).await?)
    }

    pub async fn request(&self, caller: &Caller, id: RequestId) -> Result<Request, Error> {
        let mut reader = self.store.reader().await?;
        find(&mut reader, caller, Op::ShowRequest, id).await
    }

    /// Asks for more, for the caller's own berth or another's.
    pub async fn create_request(&self, caller: &Caller, new: NewRequest) -> Result<Request, Error> {
        authorise(caller, Op::CreateRequest)?;
        let now = self.clock.now();
        let reason = check_reason(&new.reason)?.to_owned();
        check_until(new.until, now)?;
        let mut tx = self.store.begin().await?;
        let berth = changeable(&mut tx, caller, Op::CreateRequest, new.user.as_deref().unwrap_or(&caller.name)).await?;
        let request = Request {
            id: RequestId(self.clock.id()),
            berth: berth.id,
            user: berth.user.clone(),
            state: RequestState::Open,
            asked: new.figures,
            asked_until: new.until,
            reason,
            granted: None,
            until: new.until,
            decided_by: None,
            decided_at: None,
            word: None,
            generation: None,
            problem: None,
            attempts: 0,
            created_at: now,
            updated_at: now,
        };
        let limits = granted(&berth, &request)?;
        quota::check_limits(limits)?;
        let (open, today) = store::requests::counts(&mut tx, &berth.user, now - DAY).await?;
        check_number(&berth, open, today)?;
        store::requests::insert(&mut tx, &request).await?;
        let details = serde_json::json!({
            "request": request.id, "asked": request.asked, "until": request.until, "reason": request.reason,
            "limits": berth.limits, "with_it": limits,
        });
        self.record_request(&mut tx, caller, Op::CreateRequest, &request, details).await?;
        self.store.commit(tx).await?;
        Ok(request)
    }

    /// Approves an open request, as asked or changed. What the policy or the node refuses leaves it open, with the reason.
    pub async fn approve_request(
        &self,
        caller: &Caller,
        id: RequestId,
        decision: Decision,
    ) -> Result<(Request, Operation, Vec<Warning>), Error> {
        authorise(caller, Op::ApproveRequest)?;
        let now = self.clock.now();
        let word = decision.word.as_deref().map(check_reason).transpose()?.map(str::to_owned);
        if let Some(until) = decision.until {
            check_until(until, now)?;
        }
        let node = self.node.node().await?;
        let mut tx = self.store.begin().await?;
        let mut request = find(&mut tx, caller, Op::ApproveRequest, id).await?;
        check_open(&request)?;
        request.granted = Some(request.asked.changed(decision.figures));
        request.until = decision.until.unwrap_or(request.asked_until);
        let berth = changeable(&mut tx, caller, Op::ApproveRequest, request.user.as_str()).await?;
        let sums = store::berths::sums(&mut tx).await?;
        let ledger = Ledger::new(sums, node);
        let checked = check_until(request.until, now).and_then(|()| {
            let limits = granted(&berth, &request)?;
            quota::check_limits(limits)?;
            let warnings = quota::check_host(ledger.sums, ledger.sums.moved(berth.limits, limits), &ledger.node, &self.policy)?;
            Ok((limits, warnings))
        });
        let (limits, warnings) = match checked {
            Ok(checked) => checked,
            Err(Error::Refused(problem)) => return Err(self.stays_open(tx, id, problem, now).await?),
            Err(fault) => return Err(fault),
        };
        let generation = store::berths::limit(&mut tx, berth.id, berth.profile_id, &berth.own, now).await?;
        request.state = RequestState::Approved;
        (request.decided_by, request.decided_at, request.word) = (Some(caller.name.clone()), Some(now), word);
        (request.generation, request.problem, request.attempts) = (Some(generation), None, 0);
        store::requests::update(&mut tx, &request, now).await?;
        let details = serde_json::json!({
            "request": request.id, "granted": request.granted, "until": request.until, "word": request.word,
            "before": berth.limits, "limits": limits,
        });
        let previous = Parameters::Change { profile: berth.profile_id, own: Box::new(berth.own.clone()), until: berth.until };
        let target = Target { user: &berth.user, id: berth.id, generation };
        let (operation, warnings): Accepted =
            (self.accept(tx, caller, (Op::ApproveRequest, Kind::BerthChange), target, previous, details).await?, warnings);
        Ok((request, operation, warnings))
    }

    pub async fn deny_request(&self, caller: &Caller, id: RequestId, word: &str) -> Result<Request, Error> {
        authorise(caller, Op::DenyRequest)?;
        let word = check_reason(word)?.to_owned();
        let mut tx = self.store.begin().await?;
        let mut request = find(&mut tx, caller, Op::DenyRequest, id).await?;
        check_open(&request)?;
        request.word = Some(word);
        self.close(tx, caller, Op::DenyRequest, request, RequestState::Denied).await
    }

    /// Withdraws an open request, or ends before its time what was granted.
    pub async fn cancel_request(&self, caller: &Caller, id: RequestId) -> Result<Request, Error> {
        authorise(caller, Op::CancelRequest)?;
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        let mut request = find(&mut tx, caller, Op::CancelRequest, id).await?;
        match request.state {
            RequestState::Open => self.close(tx, caller, Op::CancelRequest, request, RequestState::Cancelled).await,
            state if state.holds() => {
                let berth = changeable(&mut tx, caller, Op::CancelRequest, request.user.as_str()).await?;
                let generation = store::berths::limit(&mut tx, berth.id, berth.profile_id, &berth.own, now).await?;
                (request.state, request.generation, request.until) = (RequestState::Ending, Some(generation), now.min(request.until));
                store::requests::update(&mut tx, &request, now).await?;
                let details = serde_json::json!({ "request": request.id, "before": berth.limits });
                self.record_request(&mut tx, caller, Op::CancelRequest, &request, details).await?;
                self.store.commit(tx).await?;
                self.store.announce();
                Ok(request)
            }
            _ => Err(over(&request)),
        }
    }

    async fn close(
        &self,
        mut tx: Transaction,
        caller: &Caller,
        action: Op,
        mut request: Request,
        state: RequestState,
    ) -> Result<Request, Error> {
        let now = self.clock.now();
        request.state = state;
        (request.decided_by, request.decided_at, request.updated_at) = (Some(caller.name.clone()), Some(now), now);
        store::requests::update(&mut tx, &request, now).await?;
        let details = serde_json::json!({ "request": request.id, "asked": request.asked, "word": request.word });
        self.record_request(&mut tx, caller, action, &request, details).await?;
        self.store.commit(tx).await?;
        Ok(request)
    }

    /// Notes why an approval did not go through, and gives the reason back.
    async fn stays_open(&self, mut tx: Transaction, id: RequestId, problem: Problem, now: i64) -> Result<Error, Error> {
        if let Some(mut request) = store::requests::by_id(&mut tx, id).await? {
            request.problem = Some((problem.clone(), now));
            store::requests::update(&mut tx, &request, now).await?;
            self.store.commit(tx).await?;
        }
        Ok(problem.into())
    }

    async fn record_request(
        &self,
        connection: &mut store::Connection,
        caller: &Caller,
        action: Op,
        request: &Request,
        details: serde_json::Value,
    ) -> Result<(), Error> {
        let subject = Subject::Berth(request.user.as_str());
        let entry = AuditEntry { action: action.id(), subject, details, operation: None };
        Ok(store::audit::insert(connection, &self.clock, Some(caller), entry).await?)
    }
}

/// The request; for whoever may not see it there is none.
async fn find(connection: &mut store::Connection, caller: &Caller, operation: Op, id: RequestId) -> Result<Request, Error> {
    authorise(caller, operation)?;
    let found = store::requests::by_id(connection, id).await?;
    let found = found.filter(|request| authz::permits(caller, operation, request.user.as_str()));
    found.ok_or_else(|| not_found("request", &id.to_string()))
}

/// The limits of the berth with the request granted; refused when that is what it has.
fn granted(berth: &Berth, request: &Request) -> Result<Limits, Error> {
    let figures = request.granted.unwrap_or(request.asked);
    let mut grants = berth.grants.clone();
    grants.push(Grant { request: request.id, figures, until: request.until, overdue: None });
    let limits = effective(berth.base, &grants);
    match limits == berth.limits {
        true => {
            let detail = format!("{} has as much already", berth.user);
            Err(Problem::new(Refusal::Invalid, "nothing_asked", detail)
                .hint("ask for more, for instance --disk +20g or --memory 4g")
                .into())
        }
        false => Ok(limits),
    }
}

fn check_number(berth: &Berth, open: u32, today: u32) -> Result<(), Error> {
    let (detail, hint) = if open >= Request::MOST_OPEN {
        (
            format!("{} has {open} open requests, the most is {}", berth.user, Request::MOST_OPEN),
            "wait, or cancel one: berth requests cancel ID",
        )
    } else if today >= Request::MOST_A_DAY {
        (format!("{} has made {today} requests in 24 hours, the most is {}", berth.user, Request::MOST_A_DAY), "ask again tomorrow")
    } else {
        return Ok(());
    };
    Err(Problem::new(Refusal::Limit, "too_many_requests", detail).hint(hint).into())
}

fn check_open(request: &Request) -> Result<(), Error> {
    match request.state {
        RequestState::Open => Ok(()),
        _ => Err(over(request)),
    }
}

fn over(request: &Request) -> Error {
    let by = request.decided_by.as_ref().map_or_else(String::new, |by| format!(" (by {by})"));
    let detail = format!("the request is {}{by}", request.state.as_str());
    Problem::new(Refusal::Conflict, "request_not_open", detail).hint("berth requests list shows what is open").into()
}
