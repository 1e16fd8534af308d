//! What is to be done with archives for the intent of berths.

use super::{Connection, During, Error, query};
use crate::domain::{Archiving, BerthId};

pub async fn of(connection: &mut Connection, berth: BerthId) -> Result<Option<Archiving>, Error> {
    let row: Option<(String, String, bool)> = query("SELECT kind, archive, done FROM archiving WHERE berth_id = $1")
        .bind(berth.to_string())
        .fetch_optional(connection)
        .await
        .during("read what is to be done with an archive")?;
    row.map(|(kind, archive, done)| match kind.as_str() {
        "write" => Ok(Archiving::Write { archive, done }),
        "restore" => Ok(Archiving::Restore { archive }),
        _ => Err(Error::Corrupt { table: "archiving", column: "kind", value: kind }),
    })
    .transpose()
}

/// Asks for it; what was asked for before is forgotten.
pub async fn want(connection: &mut Connection, berth: BerthId, archiving: &Archiving) -> Result<(), Error> {
    let (kind, archive, done) = match archiving {
        Archiving::Write { archive, done } => ("write", archive, *done),
        Archiving::Restore { archive } => ("restore", archive, false),
    };
    query(
        "INSERT INTO archiving (berth_id, kind, archive, done) VALUES ($1, $2, $3, $4)
         ON CONFLICT (berth_id) DO UPDATE SET kind = excluded.kind, archive = excluded.archive, done = excluded.done",
    )
    .bind(berth.to_string())
    .bind(kind)
    .bind(archive)
    .bind(done)
    .execute(connection)
    .await
    .during("store what is to be done with an archive")?;
    Ok(())
}

pub async fn forget(connection: &mut Connection, berth: BerthId) -> Result<(), Error> {
    query("DELETE FROM archiving WHERE berth_id = $1")
        .bind(berth.to_string())
        .execute(connection)
        .await
        .during("forget what was to be done with an archive")?;
    Ok(())
}
