//! After a delete: what inner containers left in the user's directories under ids of the range becomes his own. What is to be done is in
//! the file of ranges, beside the quarantine, which it holds up; so it is taken up again after a crash, and tried again after a failure.

use std::{io, process::Stdio, sync::Arc, time::Duration};

use berth_runtime::{error::chain, idmap::share::GiveBack, share::GivenBack};
use tokio::{io::AsyncWriteExt, process::Command, time::sleep};

use super::{host::Host, node::Node};

/// Between two tries at what could not be done.
const AGAIN: Duration = Duration::from_secs(3600);
/// A directory whose file system hangs is left for the next try.
const LONGEST: Duration = Duration::from_secs(6 * 3600);

/// Does what there is to do, whenever it is told, for as long as the daemon runs. One directory after the other: nobody waits for it.
pub(crate) async fn serve(node: Arc<Node>) {
    loop {
        let told = node.give_back.notified();
        let mut again = false;
        for wanted in node.host.to_give_back() {
            tokio::select! {
                () = node.stop.cancelled() => return,
                done = one(&node.host, &wanted) => again |= !done,
            }
        }
        tokio::select! {
            () = node.stop.cancelled() => return,
            () = told => {}
            () = sleep(AGAIN), if again => {}
        }
    }
}

/// True when it is done for good.
pub(crate) async fn one(host: &Host, wanted: &GiveBack) -> bool {
    let answer = tokio::time::timeout(LONGEST, execute(host, wanted)).await;
    match answer.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "it takes too long"))) {
        Ok(GivenBack { changed, left }) if left.is_empty() => match host.given_back(wanted) {
            Ok(()) => {
                tracing::info!(uid = wanted.uid, changed, "the user has back what his berth left in his directories");
                true
            }
            Err(error) => {
                tracing::error!(uid = wanted.uid, error = chain(&error), "given back, and not noted");
                false
            }
        },
        Ok(GivenBack { changed, left }) => {
            tracing::warn!(uid = wanted.uid, changed, ?left, "not all was given back; the range stays in quarantine");
            false
        }
        Err(error) => {
            tracing::warn!(uid = wanted.uid, %error, "nothing was given back; the range stays in quarantine");
            false
        }
    }
}

async fn execute(host: &Host, wanted: &GiveBack) -> io::Result<GivenBack> {
    let mut command = Command::new(host.layout.shim_program());
    command.arg("give-back").env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).current_dir("/").kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut request = child.stdin.take().ok_or_else(|| io::Error::other("no pipe"))?;
    request.write_all(&serde_json::to_vec(wanted)?).await?;
    drop(request);
    let output = child.wait_with_output().await?;
    Ok(serde_json::from_slice(&output.stdout)?)
}
