//! A transaction of the host that a store works in.

use std::sync::Arc;

use sqlx::{Database, Transaction};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

use super::super::error::StoreError;

pub(in crate::store) struct HostTransaction<DB: Database>(Arc<Mutex<Option<Transaction<'static, DB>>>>);

impl<DB: Database> Clone for HostTransaction<DB> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<DB: Database> HostTransaction<DB> {
    pub(in crate::store) fn new(transaction: Transaction<'static, DB>) -> Self {
        Self(Arc::new(Mutex::new(Some(transaction))))
    }

    /// Its connection, for one call. Calls run one after the other.
    pub(in crate::store) async fn lock(&self) -> Result<MappedMutexGuard<'_, DB::Connection>, StoreError> {
        MutexGuard::try_map(self.0.lock().await, |transaction| {
            transaction.as_mut().map(|transaction| &mut **transaction)
        })
        .map_err(|_| StoreError::Unavailable("the transaction was handed back to the host".into()))
    }

    pub(in crate::store) async fn take(&self) -> Option<Transaction<'static, DB>> {
        self.0.lock().await.take()
    }
}
