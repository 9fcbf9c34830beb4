//! How far a server has come in the log of its cluster.

use async_trait::async_trait;
use sqlx::{PgConnection, Row as _};

use super::{
    super::{
        error::StoreError,
        replicated::{LogPosition, ReplicaStore},
        sql::{
            operations::{Effect, Operation, of_owner},
            statements::Statements,
        },
    },
    PostgresStore,
};

/// The cluster and the database, whether the server is a standby, and the position up to which its data contain the log.
/// A copy of the database by logical replication is another cluster.
const POSITION: &str = "select (select system_identifier from pg_control_system()) || '/' || d.oid, pg_is_in_recovery(), \
    (case when pg_is_in_recovery() then coalesce(pg_last_wal_replay_lsn(), '0/0') else pg_current_wal_lsn() end - '0/0')::bigint \
    from pg_database as d where d.datname = current_database()";

struct Position;

of_owner! {
    Position: _call => None,
}

impl Operation<PgConnection> for Position {
    type Output = LogPosition;
    const EFFECT: Effect = Effect::Read;

    async fn run(&self, connection: &mut PgConnection, _: &Statements) -> Result<LogPosition, sqlx::Error> {
        let row = sqlx::query(POSITION).fetch_one(connection).await?;
        Ok(LogPosition { database: row.try_get(0)?, is_standby: row.try_get(1)?, position: row.try_get(2)? })
    }
}

#[async_trait]
impl ReplicaStore for PostgresStore {
    async fn log_position(&self) -> Result<LogPosition, StoreError> {
        self.run(&Position).await
    }

    fn place(&self) -> String {
        self.connections.servers().to_string()
    }
}
