//! The test suite for adapters: responses are checked byte for byte.

use async_trait::async_trait;
use bytes::Bytes;
use http::Request;

mod bodies;
mod changes;
mod client;
mod conditions;
mod credentials;
#[cfg(feature = "openapi")]
mod docs;
mod events;
mod faults;
mod fields;
mod fixture;
mod lists;
mod planning;
mod rate_limits;
mod routes;
mod tasks;
mod users;

pub use bodies::*;
pub use changes::*;
pub use conditions::*;
pub use credentials::*;
#[cfg(feature = "openapi")]
pub use docs::*;
pub use events::*;
pub use faults::*;
pub use fields::*;
pub use fixture::{api, token};
pub use lists::*;
pub use planning::*;
pub use rate_limits::*;
pub use routes::*;
pub use tasks::*;
pub use users::*;

/// Generates a test for each case of the suite for adapters.
///
/// The argument is the path of a function `async fn(case: impl AsyncFnOnce(&dyn App))` that serves the API of [`api`]
/// over an empty store as an [`App`], and calls the case with it.
#[macro_export]
macro_rules! api_conformance {
    ($with_app:path) => {
        $crate::api_conformance! { @ $with_app;
            a_task_can_be_created_read_changed_and_deleted
            a_new_task_has_defaults
            a_replacement_without_completed_does_not_change_it
            a_merge_patch_distinguishes_absent_from_null
            completion_is_toggled_or_set
            a_missing_task_is_not_found
            texts_are_returned_unchanged
            length_limits_count_characters
            bodies_of_get_and_delete_are_ignored
            a_rejected_write_changes_nothing
            all_tasks_of_the_caller_are_deleted_at_once
            the_tasks_of_a_guest_are_moved_to_the_caller
            tasks_are_moved_only_with_a_token_of_their_owner
            fields_to_plan_with_are_kept
            a_replacement_by_an_old_client_keeps_the_new_fields
            a_patch_merges_metadata
            invalid_values_to_plan_with_are_reported_by_field
            several_tasks_are_created_together
            lists_are_filtered_and_sorted
            invalid_filters_are_reported
            the_summary_counts_the_callers_tasks
            many_tasks_are_changed_or_deleted
            tasks_are_moved_in_the_manual_order
            a_task_is_moved_among_many_with_the_same_position
            changes_are_listed_since_a_token
            changes_are_listed_in_pages
            tokens_that_cannot_be_continued_are_rejected
            events_are_streamed_until_the_token_expires
            requests_for_events_are_checked_before_the_stream_begins
            the_session_describes_the_caller
            responses_are_kept_by_the_client_alone
            a_change_is_made_if_its_condition_is_true
            of_several_changes_of_one_version_one_is_made
            conditions_that_cannot_be_read_are_invalid
            a_task_is_read_again_only_if_it_has_changed
            lists_are_read_again_only_if_something_has_changed
            what_is_kept_belongs_to_one_user
            read_only_fields_may_be_sent_back
            a_task_is_created_under_the_id_of_the_client
            a_repeated_request_creates_its_tasks_once
            keys_of_requests_are_validated
            a_list_is_an_array_newest_first
            pages_are_linked
            links_and_locations_are_relative_references
            the_link_keeps_the_filter
            query_parameters_are_validated
            every_path_also_exists_with_a_user_id
            tasks_of_other_users_are_not_found
            paths_of_other_users_are_forbidden_before_other_checks
            a_path_with_the_callers_id_is_allowed
            user_ids_in_paths_are_percent_encoded
            user_ids_equal_to_path_segments_have_no_user_paths
            a_missing_credential_is_unauthenticated
            two_credentials_are_unauthenticated
            the_bearer_scheme_is_case_insensitive
            a_bad_token_is_invalid
            a_token_that_is_too_long_is_told_the_limit
            an_expired_token_has_its_own_code
            a_token_without_a_required_scope_is_forbidden
            a_token_rejected_by_the_gate_is_revoked
            the_credential_is_checked_right_after_path_and_method
            a_rate_limited_request_has_retry_after
            responses_have_the_callers_quota
            requests_over_the_quota_are_rate_limited
            unsupported_methods_are_rejected_with_allow
            options_requires_no_credential
            head_is_get_without_a_body
            paths_that_almost_match_are_not_found
            an_id_that_is_not_a_uuid_is_invalid
            probes_require_no_credential
            a_body_that_is_not_json_is_malformed
            a_body_that_is_not_an_object_is_invalid
            half_of_a_surrogate_pair_is_invalid
            headers_that_ask_for_what_is_not_supported_are_invalid
            other_content_types_are_unsupported
            json_content_types_are_supported
            the_content_type_of_an_empty_body_is_ignored
            a_body_over_the_limit_is_too_large
            a_body_at_the_limit_is_accepted
            all_invalid_fields_are_reported_together
            invalid_values_are_reported_by_field
            a_repeated_field_is_invalid
            fields_set_by_the_server_are_rejected
            nul_is_an_invalid_value
            an_unavailable_store_is_unavailable
            an_interrupted_write_may_have_happened
            a_slow_store_times_out
            too_many_requests_of_a_user_at_the_same_time_are_rate_limited
            a_failed_store_does_not_reveal_the_cause
        }
    };
    (@ $with_app:path; $($case:ident)+) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            $with_app(async |app| $crate::conformance::api::$case(app).await).await;
        }
    )+ };
}

/// Generates a test for each case of the documentation (feature `openapi`), like
/// [`api_conformance!`](crate::api_conformance).
#[cfg(feature = "openapi")]
#[macro_export]
macro_rules! docs_conformance {
    ($with_app:path) => {
        $crate::api_conformance! { @ $with_app;
            the_document_requires_no_credential
            the_page_loads_only_its_own_files
            a_matching_entity_tag_is_not_modified
            documents_are_read_only
        }
    };
}

/// A [`TodoApi`](crate::api::TodoApi) that a framework serves: mounted under `/api/v1`, with the probes at the root,
/// and with the documentation at the root for [`docs_conformance!`](crate::docs_conformance).
///
/// An implementation passes requests and responses on without changes.
#[async_trait]
pub trait App: Sync {
    /// Responds to a request whose target is a path, to be sent byte for byte, with an optional query.
    async fn call(&self, request: Request<Bytes>) -> http::Response<Bytes>;
}
