//! The test suite for adapters, served by axum over real sockets, with every store.

use axum::{Router, routing::get};
use todo_core::api::TodoApi;
use tokio::net::TcpListener;

async fn serve(listener: TcpListener, api: TodoApi) {
    let app: Router = Router::new()
        .nest("/api/v1", todo_axum::router(api.clone()))
        .merge(todo_axum::probes(api.clone()))
        .route("/host", get(async || "the host's"));
    #[cfg(feature = "openapi")]
    let app = app.merge(todo_axum::docs(api));
    axum::serve(listener, app).await.expect("the listener accepts");
}

mod memory {
    use todo_core::conformance::api::App;

    async fn with_app(case: impl AsyncFnOnce(&dyn App)) {
        testkit::stores::memory(async |store| testkit::stores::served(store, super::serve, case).await).await;
    }

    todo_core::api_conformance!(with_app);

    /// The documentation uses no store, so one is enough.
    #[cfg(feature = "openapi")]
    mod docs {
        todo_core::docs_conformance!(super::with_app);
    }
}

mod sqlite {
    use todo_core::conformance::api::App;

    async fn with_app(case: impl AsyncFnOnce(&dyn App)) {
        testkit::stores::sqlite(async |store| testkit::stores::served(store, super::serve, case).await).await;
    }

    todo_core::api_conformance!(with_app);
}

mod postgres {
    use todo_core::conformance::api::App;

    async fn with_app(case: impl AsyncFnOnce(&dyn App)) {
        testkit::stores::postgres(async |store| testkit::stores::served(store, super::serve, case).await).await;
    }

    todo_core::api_conformance!(with_app);
}
