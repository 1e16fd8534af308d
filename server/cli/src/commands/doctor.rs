//! The doctor's report.

use berth_api::CheckLevel;

use super::Context;
use crate::{
    Outcome,
    output::{self, Rows},
};

pub(super) async fn doctor(context: &Context) -> Outcome {
    let report = context.client.doctor().await?;
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
        rows.push([check.name.as_str().into(), output::word(level), check.detail.as_str().into()]);
        if let (CheckLevel::Warning | CheckLevel::Failed, Some(fix)) = (check.level, &check.fix) {
            rows.push(["", "fix:", fix]);
        }
    }
    rows.show()?;
    Ok(code)
}
