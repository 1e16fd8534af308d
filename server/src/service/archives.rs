//! Archives: a berth deleted into one, made from one; what there is, and its removal.

use super::{
    Error, Service, authorise,
    berths::{Accepted, Target, pending, visible},
    name, not_found, quota,
};
use crate::{
    authz::Operation as Op,
    domain::{
        Archive, ArchiveNotes, Archiving, AuditEntry, BerthId, Caller, Expected, Kind, Operation, Own, OwnLimits, Parameters, Problem,
        Profile, ProfileName, Refusal, Subject, UserId, UserName, Wanted, Warning,
    },
    store::{self, berths::NewBerth},
};

/// What a berth is made from.
#[derive(Clone, Debug)]
pub struct RestoreBerth {
    /// Whose it becomes; otherwise whose it was.
    pub user: Option<String>,
    /// Otherwise the one that it had, where that is known here.
    pub profile: Option<String>,
    pub start: bool,
    pub allow_system: bool,
}

/// Longest name of an archive, its ending included.
const LONGEST: usize = 128;
const ENDING: &str = ".berth";

impl Service {
    /// Newest first.
    pub async fn archives(&self, caller: &Caller) -> Result<Vec<Archive>, Error> {
        authorise(caller, Op::ListArchives)?;
        Ok(self.node.archives().await?)
    }

    pub async fn remove_archive(&self, caller: &Caller, archive: &str) -> Result<Operation, Error> {
        authorise(caller, Op::RemoveArchive)?;
        let archive = check_name(archive)?;
        // So that a wrong name is told at once.
        self.node.archive(archive).await?;
        let operation = pending(&self.clock, caller, Kind::ArchiveRemove, archive, Parameters::None);
        let mut tx = self.store.begin().await?;
        store::operations::insert(&mut tx, &operation).await?;
        let entry = AuditEntry {
            action: Op::RemoveArchive.id(),
            subject: Subject::Archive(archive),
            details: serde_json::json!({}),
            operation: Some(operation.id),
        };
        store::audit::insert(&mut tx, &self.clock, Some(caller), entry).await?;
        self.store.commit(tx).await?;
        self.store.announce();
        Ok(operation)
    }

    /// Deletes a berth once its archive is written; if that cannot be, nothing is deleted.
    pub async fn archive_berth(&self, caller: &Caller, user: &str, archive: Option<&str>, expected: &Expected) -> Result<Accepted, Error> {
        let archive = archive.filter(|archive| !archive.is_empty()).map(check_name).transpose()?;
        let mut tx = self.store.begin().await?;
        let berth = visible(&mut tx, caller, Op::DeleteBerth, user).await?;
        expected.check(&berth.revision())?;
        if berth.wanted == Wanted::Deleted {
            let detail = format!("the berth of {user} is being deleted");
            return Err(Problem::new(Refusal::Conflict, "berth_deleting", detail).hint("wait until it is gone").into());
        }
        let now = self.clock.now();
        let archive = archive.map_or_else(|| default_name(&berth.user, now), str::to_owned);
        let generation = store::berths::want(&mut tx, berth.id, Wanted::Deleted, None, now).await?;
        store::archives::want(&mut tx, berth.id, &Archiving::Write { archive: archive.clone(), done: false }).await?;
        let target = Target { user: &berth.user, id: berth.id, generation };
        let details = serde_json::json!({ "archive": archive });
        let operation = self.accept(tx, caller, (Op::DeleteBerth, Kind::BerthDelete), target, Parameters::None, details).await?;
        Ok((operation, Vec::new()))
    }

    /// Makes a berth from an archive, with the limits that it had.
    pub async fn restore_berth(&self, caller: &Caller, archive: &str, request: RestoreBerth) -> Result<Accepted, Error> {
        authorise(caller, Op::RestoreBerth)?;
        let found = self.node.archive(check_name(archive)?).await?;
        let user: UserName = name("user", request.user.as_deref().unwrap_or(&found.user))?;
        let wanted_profile = request.profile.as_deref().map(|text| name::<ProfileName>("profile", text)).transpose()?;
        let account = self.node.user(&user).await?.ok_or_else(|| not_found("user", user.as_str()))?;
        let allow_system = request.allow_system || found.notes.as_ref().is_some_and(|notes| notes.allow_system);
        super::assign::check_account(&user, &account, request.allow_system)?;
        let images = self.node.images().await?;
        let image = images.iter().find(|image| image.digest == found.image).ok_or_else(|| {
            let known = found.notes.as_ref().map(|notes| format!(" ({})", super::shorten(&notes.image_name))).unwrap_or_default();
            let detail = format!("the archive stands on image {}{known}, which this host does not have", found.image);
            Problem::new(Refusal::NotFound, "image_not_found", detail)
                .hint("import the same image: berth image import FILE, from where it came")
        })?;
        let node = self.node.node().await?;

        let (now, id) = (self.clock.now(), BerthId(self.clock.id()));
        let mut tx = self.store.begin().await?;
        if store::berths::by_user(&mut tx, &user).await?.is_some() {
            let detail = format!("{user} has a berth already");
            return Err(Problem::new(Refusal::Conflict, "berth_exists", detail)
                .hint("berth restore ARCHIVE --user NAME gives it to another")
                .into());
        }
        let (profile, own, mut warnings) = placement(&mut tx, wanted_profile, found.notes.as_ref()).await?;
        super::assign::check_own(&own, profile.limits)?;
        let before = store::berths::sums(&mut tx).await?;
        let user_id = UserId(self.clock.id());
        store::users::insert(&mut tx, user_id, &user, account.uid, now).await?;
        let wanted = if request.start { Wanted::Running } else { Wanted::Present };
        let berth = NewBerth {
            id,
            user: user_id,
            profile: profile.id,
            image: &image.digest,
            image_name: &image.name,
            own: &own,
            allow_system,
            wanted,
            now,
        };
        store::berths::insert(&mut tx, &berth).await?;
        store::archives::want(&mut tx, id, &Archiving::Restore { archive: archive.to_owned() }).await?;
        warnings.extend(quota::check_host(before, store::berths::sums(&mut tx).await?, &node, &self.policy)?);
        let details = serde_json::json!({ "archive": archive, "was": found.user, "profile": profile.name, "limits": own.limits.over(profile.limits) });
        let target = Target { user: &user, id, generation: 1 };
        let operation = self.accept(tx, caller, (Op::RestoreBerth, Kind::BerthRestore), target, Parameters::None, details).await?;
        Ok((operation, warnings))
    }
}

/// Profile and own limits of a restored berth: those that it had, as far as they are known here.
async fn placement(
    connection: &mut store::Connection,
    wanted: Option<ProfileName>,
    notes: Option<&ArchiveNotes>,
) -> Result<(Profile, Own, Vec<Warning>), Error> {
    if let Some(wanted) = wanted {
        let profile = store::profiles::by_name(connection, &wanted).await?.ok_or_else(|| not_found("profile", wanted.as_str()))?;
        return Ok((profile, Own::default(), Vec::new()));
    }
    let was = notes.and_then(|notes| notes.profile.parse::<ProfileName>().ok());
    if let (Some(was), Some(notes)) = (&was, notes)
        && let Some(profile) = store::profiles::by_name(connection, was).await?
    {
        return Ok((profile, notes.own.clone(), Vec::new()));
    }
    let default: ProfileName = name("profile", super::assign::DEFAULT_PROFILE)?;
    let profile = store::profiles::by_name(connection, &default).await?.ok_or_else(|| not_found("profile", default.as_str()))?;
    let (own, detail) = match notes {
        Some(notes) => {
            let limits = OwnLimits::default().keeping(notes.limits, profile.limits);
            let was = super::shorten(&notes.profile);
            (
                Own { limits, egress: notes.own.egress.clone() },
                format!("there is no profile {was} here: default, with the limits that it had"),
            )
        }
        None => (Own::default(), "the archive does not tell what limits it had: those of the profile default".to_owned()),
    };
    Ok((profile, own, vec![Warning { code: "profile_unknown", detail }]))
}

fn check_name(archive: &str) -> Result<&str, Error> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"_.@+-".contains(&b);
    let first = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let good =
        archive.len() <= LONGEST && archive.ends_with(ENDING) && archive.bytes().next().is_some_and(first) && archive.bytes().all(inner);
    match good {
        true => Ok(archive),
        false => Err(Problem::new(
            Refusal::Invalid,
            "invalid_archive_name",
            format!("{:?} cannot be the name of an archive", super::shorten(archive)),
        )
        .hint("up to 128 ASCII letters, digits and _ . @ + -, ending in .berth")
        .into()),
    }
}

/// `alice-20261130-053000.berth`, in UTC.
fn default_name(user: &UserName, now: i64) -> String {
    let (days, seconds) = (now.div_euclid(86_400_000), now.rem_euclid(86_400_000) / 1000);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{user}-{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}{ENDING}")
}

/// The date of a day counted from 1970, in the proleptic Gregorian calendar: months from March, so that a leap day is a year's last.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_named_by_user_and_time() {
        let user: UserName = "alice".parse().unwrap();
        assert_eq!(default_name(&user, 1_709_210_096_789), "alice-20240229-123456.berth");
        assert_eq!(default_name(&user, 0), "alice-19700101-000000.berth");
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_787), (2026, 11, 30));
        assert!(check_name(&default_name(&user, 0)).is_ok());
        for bad in ["", "alice", "../alice.berth", ".berth", "a/b.berth"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
