//! Many berths at once, rules, requests.

use hyper::Method;
use uuid::Uuid;

use super::{Client, Error, segment};
use crate::{
    ApplyRules, ApproveRequest, ApprovedRequest, BerthClaim, BerthsChange, DenyRequest, EntryReport, NewBerths, NewRequest, NewRule,
    Request, RequestList, Rule, RuleChange, RuleList,
};

impl Client {
    pub async fn assign_many(&self, berths: &NewBerths) -> Result<EntryReport, Error> {
        self.send(Method::POST, "/berths:batch", berths).await
    }

    pub async fn change_many(&self, change: &BerthsChange) -> Result<EntryReport, Error> {
        self.send(Method::POST, "/berths:change", change).await
    }

    /// A berth for the caller himself, by the rules.
    pub async fn claim(&self) -> Result<BerthClaim, Error> {
        self.call(Method::POST, "/berths:claim").await
    }

    pub async fn rules(&self) -> Result<RuleList, Error> {
        self.get("/rules").await
    }

    pub async fn create_rule(&self, rule: &NewRule) -> Result<Rule, Error> {
        self.send(Method::POST, "/rules", rule).await
    }

    pub async fn change_rule(&self, group: &str, change: &RuleChange) -> Result<Rule, Error> {
        self.send(Method::PATCH, &format!("/rules/{}", segment(group)), change).await
    }

    pub async fn delete_rule(&self, group: &str) -> Result<(), Error> {
        let path = format!("/rules/{}", segment(group));
        self.answer(Method::DELETE, &path, None, super::TIMEOUT).await.map(drop)
    }

    pub async fn apply_rules(&self, apply: &ApplyRules) -> Result<EntryReport, Error> {
        self.send(Method::POST, "/rules:apply", apply).await
    }

    pub async fn create_request(&self, request: &NewRequest) -> Result<Request, Error> {
        self.send(Method::POST, "/requests", request).await
    }

    pub async fn request(&self, id: Uuid) -> Result<Request, Error> {
        self.get(&format!("/requests/{id}")).await
    }

    /// Requests that the caller may see, newest first; of one user, in one state.
    pub async fn requests(&self, user: Option<&str>, state: Option<&str>, cursor: Option<&str>) -> Result<RequestList, Error> {
        let mut path = "/requests?limit=200".to_owned();
        for (name, value) in [("user", user), ("state", state), ("cursor", cursor)] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", segment(value)));
            }
        }
        self.get(&path).await
    }

    pub async fn approve_request(&self, id: Uuid, approval: &ApproveRequest) -> Result<ApprovedRequest, Error> {
        self.send(Method::POST, &format!("/requests/{id}/approve"), approval).await
    }

    pub async fn deny_request(&self, id: Uuid, word: &str) -> Result<Request, Error> {
        self.send(Method::POST, &format!("/requests/{id}/deny"), &DenyRequest { word: word.to_owned() }).await
    }

    pub async fn cancel_request(&self, id: Uuid) -> Result<Request, Error> {
        self.call(Method::POST, &format!("/requests/{id}/cancel")).await
    }
}
