//! The test suite for stores: the cases check the contract of [`TaskStore`].

use std::{pin::Pin, sync::Arc};

use crate::store::TaskStore;

mod changes;
mod fixture;
mod histories;
mod lists;
mod owners;
mod plain;
mod planning;
mod revisions;
mod tasks;

pub use changes::*;
pub use histories::*;
pub use lists::*;
pub use owners::*;
pub use plain::PlainCalls;
pub use planning::*;
pub use revisions::*;
pub use tasks::*;

/// Generates a test for each case of the suite for stores.
///
/// The argument is the path of a function `async fn(case: impl AsyncFnOnce(Arc<dyn TaskStore>))` that calls the case
/// with an empty store.
#[macro_export]
macro_rules! store_conformance {
    ($with_store:path) => {
        $crate::store_conformance! { each test $with_store }
    };
    (each $($what:tt)+) => {
        $crate::store_conformance! { @ $($what)+;
            a_stored_task_is_read_back_unchanged
            inserting_an_existing_id_changes_nothing
            one_of_many_concurrent_inserts_of_an_id_succeeds
            a_missing_task_is_not_an_error
            texts_at_their_length_limits_are_stored
            times_are_stored_to_the_microsecond
            one_of_many_concurrent_deletions_succeeds
            erase_deletes_all_tasks_of_one_owner
            concurrent_writers_all_succeed
            a_cancelled_call_does_not_affect_others
            ping_succeeds
            other_owners_cannot_read_or_change_a_task
            two_owners_may_have_the_same_id
            owners_are_compared_byte_for_byte
            a_cursor_of_another_owner_lists_only_the_callers_tasks
            a_transfer_moves_all_tasks_of_one_owner_unchanged
            a_transfer_changes_no_task_of_the_new_owner
            a_transfer_to_the_same_owner_changes_nothing
            concurrent_transfers_move_each_task_once
            a_change_during_a_transfer_is_kept
            lists_are_ordered_by_descending_id
            ids_are_compared_as_bytes
            pages_have_no_gaps_or_overlaps
            concurrent_inserts_do_not_disturb_paging
            filtered_lists_are_paged
            a_cursor_is_a_position_not_a_task
            every_toggle_counts
            concurrent_changes_to_different_fields_are_all_kept
            absent_fields_do_not_change
            a_description_is_kept_cleared_or_set
            a_change_of_several_fields_increments_the_version_once
            a_change_without_effect_keeps_version_and_updated_at
            updated_at_never_goes_backwards
            all_fields_are_read_back_unchanged
            each_field_changes_alone
            completing_sets_the_time_and_reopening_removes_it
            several_tasks_are_added_together_or_not_at_all
            every_sort_is_paged_without_gaps
            filters_select_the_same_tasks_as_their_definition
            the_summary_counts_lists_and_tags_of_one_owner
            many_tasks_change_in_one_step
            positions_are_set_together
            a_random_history_has_the_results_of_the_memory_store
            every_change_moves_the_revision_of_its_owner_alone
            a_change_of_nothing_keeps_the_revision
            a_read_that_knows_the_revision_returns_nothing_new
            a_change_is_made_only_if_its_precondition_is_true
            of_writers_with_the_same_version_one_wins
            a_request_creates_its_tasks_once
            a_request_is_not_repeated_after_a_deletion
            concurrent_repeats_of_a_request_create_its_tasks_once
            a_quota_limits_the_tasks_of_one_owner
            changes_lead_a_replica_to_the_tasks
            deletions_are_forgotten_with_a_limit
            a_sync_point_of_another_time_is_refused
            a_task_that_is_created_again_continues_its_versions
            an_erasure_and_a_transfer_are_noticed
        }
    };
    (@ listed; $($case:ident)+) => {
        vec![$((stringify!($case), |store| Box::pin($case(store)))),+]
    };
    (@ test $with_store:path; $($case:ident)+) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $case() {
            $with_store(async |store| $crate::conformance::store::$case(store).await).await;
        }
    )+ };
}

/// A case of the suite.
pub type Case = fn(Arc<dyn TaskStore>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Returns all cases with their names, for a test that runs them in another way than
/// [`store_conformance!`](crate::store_conformance).
#[must_use]
pub fn cases() -> Vec<(&'static str, Case)> {
    crate::store_conformance! { each listed }
}

/// Returns the text of every statement that [`PostgresStore`](crate::store::PostgresStore) runs for one call, with its
/// name, for a test that asks a database for its plan.
#[cfg(feature = "postgres")]
#[must_use]
pub fn postgres_statements(names: crate::store::Names) -> Vec<(String, String)> {
    crate::store::postgres_statements(names)
}
