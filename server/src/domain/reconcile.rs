/// How the reconciler's last pass went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReconcileReport {
    /// Milliseconds since the epoch; 0 before the first.
    pub at: i64,
    /// Pieces of work that failed and wait before they are tried again.
    pub waiting: usize,
    pub error: Option<String>,
}
