//! The program as its users run it: the real binary, in a directory of its own, over real connections.
//!
//! Each case in [`for_each_framework!`] runs with every web framework of the build, as `axum::cors::..`,
//! `warp::cors::..` and `poem::cors::..`. All other tests do not depend on the framework and run once, with
//! [`Framework::ANY`]: they concern what happens before a request reaches the framework or outside of it.
//!
//! | module | why it does not depend on the framework |
//! | --- | --- |
//! | `better_auth` (which cause the log names) | the verifier logs it |
//! | `cache`, `cloud`, `copies`, `database`, `durability` | they test what is below `TodoService`; each framework has one case |
//! | `events` (servers on one database, outages, tokens, numbers of streams) | the core does this |
//! | `dev`, `settings`, `docs` (the committed document) | they test what runs before the framework is mounted |
//! | `floods`, `stopping`, `unread`, `unreadable`, `uploads` and `overload` where nothing reaches the API | hyper and `todo_server::connection` do this |
//! | `logs` (levels, request ids), `log_lines` (HTTP/2, honest traffic), `metrics` (port, dashboard, batches) | logging and counting surround the framework |

#![cfg(unix)]

mod better_auth;
mod cache;
mod cloud;
mod copies;
mod cors;
mod database;
mod dev;
mod docs;
mod durability;
mod events;
mod floods;
mod keys;
mod log_lines;
mod logs;
mod metrics;
mod overload;
mod program;
mod replicas;
mod settings;
mod stopping;
#[cfg(feature = "otel")]
mod traces;
mod unread;
mod unreadable;
mod uploads;

/// A web framework of this build, by its name for the setting `FRAMEWORK`.
#[derive(Clone, Copy, Debug)]
struct Framework(&'static str);

impl Framework {
    /// For tests that do not depend on the framework.
    const ANY: Self = if cfg!(feature = "axum") {
        Self("axum")
    } else if cfg!(feature = "warp") {
        Self("warp")
    } else {
        Self("poem")
    };
}

/// Makes a test of each case for each framework. A case is an `async fn(Framework)` in the module of its name.
macro_rules! for_each_framework {
    ($($cases:tt)+) => {
        #[cfg(feature = "axum")]
        mod axum {
            tests! { "axum" $($cases)+ }
        }
        #[cfg(feature = "poem")]
        mod poem {
            tests! { "poem" $($cases)+ }
        }
        #[cfg(feature = "warp")]
        mod warp {
            tests! { "warp" $($cases)+ }
        }
    };
}

macro_rules! tests {
    ($framework:literal $($(#[$attribute:meta])* $module:ident { $($case:ident,)+ })+) => { $(
        $(#[$attribute])*
        mod $module { $(
            // Multi-threaded, since a case may block while it waits for the program.
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                crate::$module::$case(crate::Framework($framework)).await;
            }
        )+ }
    )+ };
}

for_each_framework! {
    cors {
        a_preflight_needs_no_token,
        a_foreign_website_is_not_allowed,
        scripts_can_read_responses_including_errors,
        options_without_a_preflight_is_an_ordinary_request,
        settings_allow_further_headers_and_cookies,
    }
    database {
        postgresql_works_like_sqlite,
        a_read_only_database_is_ready_and_says_that_writes_fail,
    }
    docs {
        document_and_page_are_served_at_the_root,
    }
    events {
        changes_are_streamed_over_both_versions_of_http,
        a_stop_ends_streams_in_good_order,
    }
    keys {
        a_fetch_of_keys_is_in_the_trace_of_the_request_that_needs_it,
    }
    log_lines {
        what_a_client_sends_is_short_in_the_log,
    }
    logs {
        every_line_is_json_without_content_or_credentials,
        a_request_continues_the_trace_of_its_client_or_begins_a_new_one,
        a_request_without_a_response_is_logged,
    }
    metrics {
        requests_rejections_pools_keys_and_the_process_are_counted,
        a_request_whose_client_disconnects_is_counted_as_abandoned,
    }
    overload {
        a_user_over_the_rate_limit_gets_429_and_others_do_not,
        a_slow_body_is_408_after_the_request_timeout,
        cancelled_requests_of_http_2_leave_nothing_in_flight,
        pipelined_requests_are_all_answered,
    }
    settings {
        limits_have_the_values_of_their_settings,
        a_request_without_a_path_is_404,
    }
    stopping {
        open_requests_are_finished_and_idle_connections_closed,
        a_stop_waits_no_longer_than_the_request_timeout,
        a_second_signal_stops_at_once,
        until_its_delay_has_passed_a_stopping_server_is_not_ready_and_serves,
        http_2_works,
    }
    uploads {
        over_http_1_a_body_that_is_not_needed_is_read_to_its_end,
        over_http_2_a_body_that_is_not_needed_is_read_to_its_end,
    }
    unreadable {
        a_large_head_is_431_with_all_that_a_response_has,
    }
    unread {
        unread_responses_need_little_memory_and_block_no_others,
    }
    #[cfg(feature = "otel")]
    traces {
        a_request_and_its_call_of_the_store_are_exported,
        a_fetch_of_keys_is_a_child_of_the_exported_span,
    }
}
