//! A transaction of the host, shared by whoever works in it.

use std::sync::Arc;

use sqlx::{Database, Transaction};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

use super::StoreError;

pub(super) struct Joined<DB: Database>(Arc<Mutex<Option<Transaction<'static, DB>>>>);

impl<DB: Database> Clone for Joined<DB> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<DB: Database> Joined<DB> {
    pub(super) fn new(transaction: Transaction<'static, DB>) -> Self {
        Self(Arc::new(Mutex::new(Some(transaction))))
    }

    /// Its connection, as long as a call needs it: they run one after the other.
    pub(super) async fn lock(&self) -> Result<MappedMutexGuard<'_, DB::Connection>, StoreError> {
        MutexGuard::try_map(self.0.lock().await, |transaction| {
            transaction.as_mut().map(|transaction| &mut **transaction)
        })
        .map_err(|_| StoreError::Unavailable("the transaction was handed back to the host".into()))
    }

    pub(super) async fn take(&self) -> Option<Transaction<'static, DB>> {
        self.0.lock().await.take()
    }
}

/// The calls of a store, each on the transaction.
macro_rules! joined_store {
    ($store:ty) => {
        #[async_trait]
        impl TaskStore for $store {
            async fn insert(&self, owner: &UserId, task: &Task) -> Result<bool, StoreError> {
                let mut connection = self.joined.lock().await?;
                Ok(operations::insert(&mut connection, &self.sql, owner, task).await?)
            }

            async fn get(&self, owner: &UserId, id: TaskId) -> Result<Option<Task>, StoreError> {
                let mut connection = self.joined.lock().await?;
                Ok(operations::get(&mut connection, &self.sql, owner, id).await?)
            }

            async fn list(&self, owner: &UserId, query: &TaskQuery) -> Result<Page, StoreError> {
                let mut connection = self.joined.lock().await?;
                Ok(operations::list(&mut connection, &self.sql, owner, query).await?)
            }

            async fn update(
                &self,
                owner: &UserId,
                id: TaskId,
                change: &TaskChange,
                now: Timestamp,
            ) -> Result<Option<Task>, StoreError> {
                let mut connection = self.joined.lock().await?;
                Ok(operations::update(&mut connection, &self.sql, owner, id, change, now).await?)
            }

            async fn delete(&self, owner: &UserId, id: TaskId) -> Result<bool, StoreError> {
                let mut connection = self.joined.lock().await?;
                Ok(operations::delete(&mut connection, &self.sql, owner, id).await?)
            }

            async fn erase(&self, owner: &UserId) -> Result<u64, StoreError> {
                let mut connection = self.joined.lock().await?;
                Ok(operations::erase(&mut connection, &self.sql, owner).await?)
            }

            async fn ping(&self) -> Result<(), StoreError> {
                let mut connection = self.joined.lock().await?;
                Ok(operations::ping(&mut connection, &self.sql).await?)
            }
        }
    };
}
pub(super) use joined_store;
