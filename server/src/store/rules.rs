//! Rules that map host groups to profiles.

use sqlx::FromRow;

use super::{Connection, During, Error, id, query, unsigned};
use crate::domain::{BerthId, ProfileId, Rule, RuleId};

const TABLE: &str = "rules";

#[derive(FromRow)]
struct Row {
    id: String,
    group_name: String,
    position: i64,
    profile_id: String,
    profile: String,
    auto: bool,
    most: Option<i64>,
    given: i64,
    created_at: i64,
    updated_at: i64,
}

impl TryFrom<Row> for Rule {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            id: RuleId(id(TABLE, row.id)?),
            group: row.group_name,
            position: unsigned(TABLE, "position", row.position)?,
            profile_id: ProfileId(id(TABLE, row.profile_id)?),
            profile: row.profile,
            auto: row.auto,
            most: row.most.map(|most| unsigned(TABLE, "most", most)).transpose()?,
            given: unsigned(TABLE, "given", row.given)?,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// All rules in their order.
pub async fn all(connection: &mut Connection) -> Result<Vec<Rule>, Error> {
    let rows: Vec<Row> = query(
        "SELECT r.id, r.group_name, r.position, r.profile_id, p.name AS profile, r.auto, r.most,
                (SELECT COUNT(*) FROM berths b WHERE b.rule_id = r.id) AS given, r.created_at, r.updated_at
         FROM rules r JOIN profiles p ON p.id = r.profile_id ORDER BY r.position, r.id",
    )
    .fetch_all(connection)
    .await
    .during("list rules")?;
    rows.into_iter().map(Rule::try_from).collect()
}

/// Stores a new rule; [`Error::Exists`] when the group has one.
pub async fn insert(connection: &mut Connection, rule: &Rule) -> Result<(), Error> {
    query(
        "INSERT INTO rules (id, group_name, position, profile_id, auto, most, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $7)",
    )
    .bind(rule.id.to_string())
    .bind(rule.group.as_str())
    .bind(i64::from(rule.position))
    .bind(rule.profile_id.to_string())
    .bind(rule.auto)
    .bind(rule.most.map(i64::from))
    .bind(rule.created_at)
    .execute(connection)
    .await
    .during("store the rule")?;
    Ok(())
}

pub async fn update(connection: &mut Connection, rule: &Rule) -> Result<(), Error> {
    query("UPDATE rules SET position = $2, profile_id = $3, auto = $4, most = $5, updated_at = $6 WHERE id = $1")
        .bind(rule.id.to_string())
        .bind(i64::from(rule.position))
        .bind(rule.profile_id.to_string())
        .bind(rule.auto)
        .bind(rule.most.map(i64::from))
        .bind(rule.updated_at)
        .execute(connection)
        .await
        .during("change the rule")?;
    Ok(())
}

pub async fn remove(connection: &mut Connection, id: RuleId) -> Result<(), Error> {
    query("DELETE FROM rules WHERE id = $1").bind(id.to_string()).execute(connection).await.during("remove the rule")?;
    Ok(())
}

/// Notes who decided on the profile of a berth, and the rule whose first use made it.
pub async fn decided(connection: &mut Connection, berth: BerthId, named: bool, made_by: Option<RuleId>) -> Result<(), Error> {
    query("UPDATE berths SET profile_named = $2, rule_id = COALESCE($3, rule_id) WHERE id = $1")
        .bind(berth.to_string())
        .bind(named)
        .bind(made_by.map(|id| id.to_string()))
        .execute(connection)
        .await
        .during("note who decided on the profile")?;
    Ok(())
}
