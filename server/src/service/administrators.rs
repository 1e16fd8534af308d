//! Administrators: accounts with a password, for whom no account of this host is needed.

use serde_json::json;

use super::{Error, Page, Service, authorise, name, not_found, passwords};
use crate::{
    authz::{Access, Operation as Op},
    domain::{AccountName, Administrator, AdministratorId, Caller, EventKind, NewEvent, Owner, Problem, Refusal, Role, Source, UserName},
    store,
};

#[derive(Clone, Debug)]
pub struct NewAdministrator {
    pub name: String,
    pub role: Role,
    pub password: String,
    pub host_user: Option<String>,
}

/// What is left out stays.
#[derive(Clone, Debug, Default)]
pub struct ChangeAdministrator {
    pub role: Option<Role>,
    pub enabled: Option<bool>,
    /// `Some(None)`: no host account any more.
    pub host_user: Option<Option<String>>,
}

impl Service {
    pub async fn administrators(&self, caller: &Caller, page: &Page) -> Result<Vec<Administrator>, Error> {
        authorise(caller, Op::ListAdmins)?;
        let mut reader = self.store.reader().await?;
        Ok(store::administrators::page(&mut reader, page.after(), page.limit).await?)
    }

    pub async fn administrator(&self, caller: &Caller, administrator: &str) -> Result<Administrator, Error> {
        authorise(caller, Op::ShowAdmin)?;
        let mut reader = self.store.reader().await?;
        find(&mut reader, administrator).await
    }

    pub async fn create_administrator(&self, caller: &Caller, request: NewAdministrator) -> Result<Administrator, Error> {
        authorise(caller, Op::CreateAdmin)?;
        let named: AccountName = name("account", &request.name)?;
        check_role(request.role)?;
        passwords::check(&named, &request.password)?;
        let host = match &request.host_user {
            Some(user) => Some(self.host_account(user).await?),
            None => None,
        };
        let password = self.authentication.hashing.hash(&request.password).await?;
        let now = self.clock.now();
        let created = Administrator {
            id: AdministratorId(self.clock.id()),
            name: named.to_string(),
            role: request.role,
            enabled: true,
            host,
            created_at: now,
            updated_at: now,
            password_at: now,
            signed_in_at: None,
        };
        let mut tx = self.store.begin().await?;
        if store::administrators::by_name(&mut tx, &named).await?.is_some() {
            return Err(Problem::new(Refusal::Conflict, "admin_exists", format!("there is an administrator {named} already"))
                .hint(format!("berth admin passwd {named}, or berth admin set-role {named} …"))
                .into());
        }
        check_untied(&mut tx, &created).await?;
        store::administrators::insert(&mut tx, &created, &password).await?;
        self.record_administrator(&mut tx, caller, Op::CreateAdmin, &created.actor(), described(&created)).await?;
        self.store.commit(tx).await?;
        Ok(created)
    }

    /// Changes role, host account, or whether he may do anything at all; who is disabled is signed out.
    pub async fn change_administrator(
        &self,
        caller: &Caller,
        administrator: &str,
        change: ChangeAdministrator,
    ) -> Result<Administrator, Error> {
        authorise(caller, Op::ChangeAdmin)?;
        if let Some(role) = change.role {
            check_role(role)?;
        }
        let host = match change.host_user {
            Some(Some(user)) => Some(Some(self.host_account(&user).await?)),
            Some(None) => Some(None),
            None => None,
        };
        let mut tx = self.store.begin().await?;
        let before = find(&mut tx, administrator).await?;
        let changed = Administrator {
            role: change.role.unwrap_or(before.role),
            enabled: change.enabled.unwrap_or(before.enabled),
            host: host.unwrap_or_else(|| before.host.clone()),
            updated_at: self.clock.now(),
            ..before.clone()
        };
        if changed.role != Role::Admin || !changed.enabled {
            check_not_last(&mut tx, caller, &before).await?;
        }
        check_untied(&mut tx, &changed).await?;
        store::administrators::update(&mut tx, &changed).await?;
        if !changed.enabled {
            store::sessions::remove_of(&mut tx, &Owner::Administrator(changed.id), None).await?;
        }
        let details = json!({ "before": described(&before), "after": described(&changed) });
        self.record_administrator(&mut tx, caller, Op::ChangeAdmin, &changed.actor(), details).await?;
        self.store.commit(tx).await?;
        Ok(changed)
    }

    /// Sets a password and ends all sessions of the account. Who sets his own has to know the old one.
    pub async fn set_password(
        &self,
        caller: &Caller,
        administrator: &str,
        current: Option<&str>,
        password: &str,
        source: Source,
    ) -> Result<(), Error> {
        let access = authorise(caller, Op::SetPassword)?;
        let named: AccountName = name("account", administrator)?;
        let mut reader = self.store.reader().await?;
        let found = store::administrators::by_name(&mut reader, &named).await?;
        drop(reader);
        let own = |found: &Administrator| caller.administrator == Some(found.id);
        let found = found.filter(|found| access == Access::All || own(found)).ok_or_else(|| not_found("admin", administrator))?;
        passwords::check(&named, password)?;
        if own(&found) {
            self.check_current(&found, current, source).await?;
        }
        let hash = self.authentication.hashing.hash(password).await?;
        let mut tx = self.store.begin().await?;
        store::administrators::set_password(&mut tx, found.id, &hash, self.clock.now()).await?;
        let ended = store::sessions::remove_of(&mut tx, &Owner::Administrator(found.id), None).await?;
        self.record_account(&mut tx, caller, Op::SetPassword.id(), &found.actor(), json!({ "sessions_ended": ended })).await?;
        Ok(self.store.commit(tx).await?)
    }

    async fn check_current(&self, found: &Administrator, current: Option<&str>, source: Source) -> Result<(), Error> {
        let Some(current) = current else {
            return Err(
                Problem::new(Refusal::Invalid, "current_password_required", "one's own password is changed with the current one").into()
            );
        };
        let now = self.clock.now();
        self.authentication.throttle.sign_in(&found.name, source, now)?;
        let mut reader = self.store.reader().await?;
        let hash = store::administrators::password(&mut reader, found.id).await?;
        drop(reader);
        if !self.authentication.hashing.verify(current, hash).await? {
            return Err(Problem::new(Refusal::NotPermitted, "wrong_password", "the current password is another").into());
        }
        self.authentication.throttle.signed_in(&found.name, source, now);
        Ok(())
    }

    pub async fn delete_administrator(&self, caller: &Caller, administrator: &str) -> Result<(), Error> {
        authorise(caller, Op::DeleteAdmin)?;
        let mut tx = self.store.begin().await?;
        let found = find(&mut tx, administrator).await?;
        check_not_last(&mut tx, caller, &found).await?;
        store::administrators::remove(&mut tx, found.id).await?;
        self.record_administrator(&mut tx, caller, Op::DeleteAdmin, &found.actor(), described(&found)).await?;
        Ok(self.store.commit(tx).await?)
    }

    /// In the trail, and for those who watch.
    async fn record_administrator(
        &self,
        connection: &mut store::Connection,
        caller: &Caller,
        action: Op,
        account: &str,
        details: serde_json::Value,
    ) -> Result<(), Error> {
        self.record_account(connection, caller, action.id(), account, details).await?;
        Ok(store::events::note(connection, self.clock.now(), NewEvent::new(EventKind::AccountChanged, account)).await?)
    }

    /// Name and uid of a host account, as the node says.
    async fn host_account(&self, user: &str) -> Result<(String, u32), Error> {
        let user: UserName = name("user", user)?;
        let account = self.node.user(&user).await?.ok_or_else(|| not_found("user", user.as_str()))?;
        match account.uid {
            0 => Err(Problem::new(Refusal::Invalid, "root_is_admin", "root is an administrator as it is").into()),
            uid => Ok((user.to_string(), uid)),
        }
    }
}

async fn find(connection: &mut store::Connection, administrator: &str) -> Result<Administrator, Error> {
    let named: AccountName = name("account", administrator)?;
    store::administrators::by_name(connection, &named).await?.ok_or_else(|| not_found("admin", named.as_str()))
}

/// Somebody must be left who can let others in; root on the host can in any case.
async fn check_not_last(connection: &mut store::Connection, caller: &Caller, found: &Administrator) -> Result<(), Error> {
    if found.role != Role::Admin || !found.enabled || caller.is_root() {
        return Ok(());
    }
    match store::administrators::other_admins(connection, found.id).await? {
        0 => Err(Problem::new(Refusal::Conflict, "last_admin", format!("{} is the last administrator who can sign in", found.name))
            .hint("make another one first, or do it as root on the host")
            .into()),
        _ => Ok(()),
    }
}

/// A host account has one role.
async fn check_untied(connection: &mut store::Connection, administrator: &Administrator) -> Result<(), Error> {
    let Some((user, uid)) = &administrator.host else { return Ok(()) };
    match store::administrators::by_host(connection, *uid, user).await? {
        Some(other) if other.id != administrator.id => {
            let detail = format!("the host account {user} is tied to the administrator {}", other.name);
            Err(Problem::new(Refusal::Conflict, "host_user_tied", detail).hint(format!("berth admin untie {}", other.name)).into())
        }
        _ => Ok(()),
    }
}

fn check_role(role: Role) -> Result<(), Error> {
    match role {
        Role::User => Err(Problem::new(Refusal::Invalid, "invalid_role", "host accounts are users as they are").into()),
        _ => Ok(()),
    }
}

fn described(administrator: &Administrator) -> serde_json::Value {
    json!({
        "role": administrator.role.as_str(),
        "enabled": administrator.enabled,
        "host_user": administrator.host.as_ref().map(|(name, _)| name),
    })
}
