//! Requests with an Idempotency-Key. What was acknowledged is acknowledged again and not done again; what was refused has changed nothing and
//! may be asked anew. A server that ends between the two leaves a key of which nobody can say how far its request came: that is said, and
//! nothing is done a second time.

use super::{Error, Service};
use crate::{
    domain::{Begun, Caller, KeptAnswer, KeyedRequest, Problem, Refusal},
    store,
};

impl Service {
    /// Nothing when the request is to be done now; what it was answered when it was done before.
    pub async fn begin_keyed(&self, caller: &Caller, key: &str, request: &str) -> Result<Option<KeptAnswer>, Error> {
        let refused = |refusal, code: &str, detail: &str, hint: &str| Err(Problem::new(refusal, code, detail).hint(hint).into());
        let new = KeyedRequest { caller: &caller.name, key, request, life: &self.life, now: self.clock.now() };
        let mut tx = self.store.begin().await?;
        let begun = store::keyed::begin(&mut tx, new).await?;
        self.store.commit(tx).await?;
        match begun {
            Begun::Fresh => Ok(None),
            Begun::Answered(answer) if answer.body.is_none() && answer.status != 204 => refused(
                Refusal::Conflict,
                "idempotency_answer_not_kept",
                "the request was done; its answer holds a secret or is too large, and was not kept",
                "look at what came of it; to do it once more use another key",
            ),
            Begun::Answered(answer) => Ok(Some(answer)),
            Begun::UnderWay => refused(
                Refusal::Conflict,
                "idempotency_in_progress",
                "a request with this key is under way",
                "ask again in a moment, with the same key",
            ),
            Begun::Interrupted => refused(
                Refusal::Conflict,
                "idempotency_interrupted",
                "the server ended while a request with this key was under way; nobody knows how far it came",
                "look at what came of it (berth operations list, berth audit); to do it once more use another key",
            ),
            Begun::Other => refused(
                Refusal::Limit,
                "idempotency_key_reused",
                "the key was used for another request in the last 24 hours",
                "use a fresh key for every request, a UUID for instance",
            ),
        }
    }

    /// Keeps the answer of what was done, or forgets the key of what was not.
    pub async fn end_keyed(&self, caller: &Caller, key: &str, answer: Option<&KeptAnswer>) -> Result<(), Error> {
        let mut tx = self.store.begin().await?;
        match answer {
            Some(answer) => store::keyed::finish(&mut tx, &caller.name, key, answer).await?,
            None => store::keyed::forget(&mut tx, &caller.name, key).await?,
        }
        self.store.commit(tx).await?;
        Ok(())
    }
}
