//! A gate that stops the tokens of closed accounts.

// recipe
use async_trait::async_trait;
use sqlx::PgPool;
use todo_core::{
    TodoService, UserId,
    auth::{Gate, GateError, Identity, Verdict},
    store::PostgresStore,
};

/// The accounts in your table `closed_accounts (user_id text primary key)`, for `TodoApi::with_gate`.
#[derive(Clone, Debug)]
pub struct ClosedAccounts {
    /// Your database.
    pub pool: PgPool,
}

#[async_trait]
impl Gate for ClosedAccounts {
    async fn judge(&self, identity: &Identity) -> Result<Verdict, GateError> {
        let select = "select exists (select from closed_accounts where user_id = $1)";
        let user = identity.user_id.as_str();
        let is_closed = sqlx::query_scalar(select).bind(user).fetch_one(&self.pool).await.map_err(GateError::new)?;
        Ok(if is_closed { Verdict::Deny } else { Verdict::Allow }) // 401 `token_revoked`
    }
}

impl ClosedAccounts {
    /// Closes an account and deletes its tasks. Its tokens are rejected from now on, although they have not expired.
    pub async fn close(
        &self,
        store: &PostgresStore, // the store of `service`
        service: &TodoService,
        user: UserId,
    ) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
        let insert = "insert into closed_accounts (user_id) values ($1) on conflict do nothing";
        let mut transaction = self.pool.begin().await?;
        sqlx::query(insert).bind(user.as_str()).execute(&mut *transaction).await?;
        let joined = store.in_transaction(transaction);
        let erased = service.with_store(joined.clone()).for_user(user.clone()).erase().await?;
        joined.take().await.ok_or("the transaction was taken before")?.commit().await?;
        // A request that had passed the gate before the commit may have created a task meanwhile.
        Ok(erased + service.for_user(user).erase().await?)
    }
}
// end
