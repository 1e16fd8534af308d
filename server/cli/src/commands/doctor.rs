//! The doctor's report.

use berth_api::CheckLevel;

use super::Context;
use crate::{
    Outcome,
    output::{self, Rows, printable},
};

pub(super) async fn doctor(context: &Context, deep: bool) -> Outcome {
    let report = match deep {
        true => context.client.deep_doctor().await?,
        false => context.client.doctor().await?,
    };
    let code = if report.healthy { 0 } else { 1 };
    if context.json {
        output::json(&report)?;
        return Ok(code);
    }
    let mut rows = Rows::new(&["CHECK", "", "FOUND"]);
    for check in &report.checks {
        let level = match check.level {
            CheckLevel::Ok => "ok",
            CheckLevel::Warning => "warning",
            CheckLevel::Failed => "failed",
        };
        rows.push([printable(&check.name).into(), output::word(level), printable(&check.detail).into()]);
        if let (CheckLevel::Warning | CheckLevel::Failed, Some(fix)) = (check.level, &check.fix) {
            rows.push([String::new(), "fix:".to_owned(), printable(fix)]);
        }
    }
    rows.show()?;
    Ok(code)
}
