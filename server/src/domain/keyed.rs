//! Requests that carry an Idempotency-Key.

/// A request that is about to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyedRequest<'a> {
    /// Keys of different callers have nothing to do with each other.
    pub caller: &'a str,
    pub key: &'a str,
    /// Hash of all that it asks for.
    pub request: &'a str,
    /// Of the server that does it.
    pub life: &'a str,
    pub now: i64,
}

/// What a request was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    pub status: u16,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// Nothing: it holds a secret or is too large, and was not kept.
    pub body: Option<String>,
}

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Nothing; from now on its request is under way.
    Fresh,
    Answered(KeptAnswer),
    UnderWay,
    /// It was under way when its server ended: nobody knows how far it came.
    Interrupted,
    /// The key stands for another request.
    Other,
}
