//! The host: its figures, its accounts, and the doctor.

use super::{Error, Service, authorise, name, not_found, quota};
use crate::{
    authz::{self, Operation as Op},
    chain,
    domain::{AuditEntry, Caller, Check, HostUser, Image, NodeInfo, ReconcileReport, Subject, UserName},
    store,
};

/// The node, and what berths were promised of it.
#[derive(Clone, Debug)]
pub struct NodeSummary {
    pub info: NodeInfo,
    pub promised: store::berths::Sums,
}

impl Service {
    pub async fn node(&self, caller: &Caller) -> Result<NodeSummary, Error> {
        authorise(caller, Op::ShowNode)?;
        let info = self.node.node().await?;
        let mut reader = self.store.reader().await?;
        Ok(NodeSummary { info, promised: store::berths::sums(&mut reader).await? })
    }

    /// The account, and whether it has a berth.
    pub async fn user(&self, caller: &Caller, user: &str) -> Result<(HostUser, bool), Error> {
        authorise(caller, Op::ShowUser)?;
        let user: UserName = name("user", user)?;
        if !authz::permits(caller, Op::ShowUser, user.as_str()) {
            return Err(not_found("user", user.as_str()));
        }
        let account = self.node.user(&user).await?.ok_or_else(|| not_found("user", user.as_str()))?;
        let mut reader = self.store.reader().await?;
        let berth = store::berths::by_user(&mut reader, &user).await?.is_some();
        Ok((account, berth))
    }

    /// Since when the node has not answered.
    pub fn node_down_since(&self) -> Option<i64> {
        self.node.down_since()
    }

    /// The node's checks, and the server's own.
    pub async fn doctor(&self, caller: &Caller) -> Result<Vec<Check>, Error> {
        authorise(caller, Op::RunDoctor)?;
        self.examine().await
    }

    /// The same, and a container in a throw-away berth of the default image.
    pub async fn deep_doctor(&self, caller: &Caller) -> Result<Vec<Check>, Error> {
        authorise(caller, Op::RunDeepDoctor)?;
        let mut checks = self.examine().await?;
        checks.extend(self.check_container(caller).await?);
        Ok(checks)
    }

    async fn examine(&self) -> Result<Vec<Check>, Error> {
        let mut checks = match self.node.doctor().await {
            Ok(checks) => checks,
            Err(error) => vec![Check::failed("node", chain(&error), "start berth-node (systemctl start berth-node) and read its log")],
        };
        checks.push(self.check_database().await);
        checks.extend(self.check_own().await?);
        checks.push(check_reconciler(&self.reconciler.borrow(), self.clock.now()));
        checks.extend(self.check_berths().await?);
        checks.push(self.check_default_image().await?);
        checks.extend(self.check_accounts().await?);
        checks.push(self.authentication.listening.check());
        Ok(checks)
    }

    async fn check_database(&self) -> Check {
        let fix = "see that the disk is not full and the file belongs to the server's user; else restore a backup";
        let result = async {
            self.store.ping(true).await?;
            self.store.check().await
        };
        match result.await {
            Ok(answer) if answer == "ok" => Check::ok("database", "whole, can be read and written"),
            Ok(answer) => Check::failed("database", format!("the file is damaged: {answer}"), "restore a backup of the database"),
            Err(error) => Check::failed("database", chain(&error), fix),
        }
    }

    async fn check_berths(&self) -> Result<Vec<Check>, Error> {
        let Ok(held) = self.node.berths().await else { return Ok(Vec::new()) };
        let mut reader = self.store.reader().await?;
        let berths = store::berths::page(&mut reader, "", u32::MAX >> 1).await?;
        let mut checks = Vec::new();
        for berth in berths.iter().filter(|berth| berth.problem.is_some()) {
            let detail = berth.problem.as_ref().map(|(problem, _)| problem.detail.clone()).unwrap_or_default();
            checks.push(Check::warning(
                &format!("berth {}", berth.user),
                detail,
                format!("berth show {}; then berth start {0}", berth.user),
            ));
        }
        for foreign in held.iter().filter(|status| !berths.iter().any(|berth| berth.id == status.id)) {
            checks.push(Check::warning(
                &format!("berth {}", foreign.user),
                format!("the node holds {}, which the database does not know", foreign.id),
                "restore the database that belongs to this node",
            ));
        }
        let sums = store::berths::sums(&mut reader).await?;
        drop(reader);
        if let Ok(node) = self.node.node().await {
            let detail =
                format!("{} of {} promised to {} berths", quota::bytes(sums.disk_bytes), quota::bytes(node.disk_bytes), sums.berths);
            checks.push(match sums.disk_bytes as f64 <= node.disk_bytes as f64 * self.policy.disk_overcommit {
                true => Check::ok("promised disk", detail),
                false => Check::warning("promised disk", detail, "lower disk limits (berth set USER --disk …), or grow the file system"),
            });
        }
        Ok(checks)
    }

    async fn check_container(&self, caller: &Caller) -> Result<Vec<Check>, Error> {
        const NAME: &str = "deep: berth";
        let image = match self.default_image().await? {
            Ok(image) => image,
            Err((why, _)) => return Ok(vec![Check::failed(NAME, why, "see the lines about the node and the default image")]),
        };
        let mut tx = self.store.begin().await?;
        let details = serde_json::json!({ "digest": image.digest });
        let entry = AuditEntry { action: Op::RunDeepDoctor.id(), subject: Subject::Image(&image.name), details, operation: None };
        store::audit::insert(&mut tx, &self.clock, Some(caller), entry).await?;
        self.store.commit(tx).await?;
        Ok(match self.node.deep_doctor(&image.digest).await {
            Ok(checks) => checks,
            Err(error) => vec![Check::failed(NAME, chain(&error), "see the line about the node, and its log")],
        })
    }

    async fn check_default_image(&self) -> Result<Check, Error> {
        Ok(match self.default_image().await? {
            Ok(image) => Check::ok("default image", format!("{} ({})", image.name, image.digest)),
            Err((why, fix)) => Check::warning("default image", why, fix),
        })
    }

    /// The image of berths that name none, or why there is none, and what to do.
    async fn default_image(&self) -> Result<Result<Image, (String, &'static str)>, Error> {
        let mut reader = self.store.reader().await?;
        let default = store::settings::get(&mut reader, store::settings::DEFAULT_IMAGE).await?;
        drop(reader);
        let Ok(images) = self.node.images().await else {
            return Ok(Err(("the node does not list its images".to_owned(), "see the line about the node")));
        };
        let fix = "berth image build, or berth image default NAME";
        Ok(super::images::resolve(&images, None, default).map_err(|error| (error.to_string(), fix)))
    }
}

fn check_reconciler(report: &ReconcileReport, now: i64) -> Check {
    const LATE: i64 = 60_000;
    match &report.error {
        Some(error) => Check::failed("reconciler", error.clone(), "see the log of berth-server"),
        None if now - report.at > LATE => Check::failed("reconciler", "it has not looked for a minute", "restart berth-server"),
        None if report.waiting > 0 => {
            Check::warning("reconciler", format!("{} pieces of work wait to be tried again", report.waiting), "see the lines about berths")
        }
        None => Check::ok("reconciler", "nothing waits"),
    }
}
