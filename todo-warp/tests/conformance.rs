//! The test suite for adapters, served by warp over real sockets, with every store.

use todo_core::api::TodoApi;
use tokio::net::TcpListener;
use warp::Filter as _;

async fn serve(listener: TcpListener, api: TodoApi) {
    let app = warp::path!("api" / "v1" / ..)
        .and(todo_warp::filter(api.clone()))
        .or(todo_warp::probes(api.clone()))
        .or(warp::path!("host").map(|| "the host's".to_owned()))
        .boxed();
    #[cfg(feature = "openapi")]
    let app = app.or(todo_warp::docs(api)).boxed();
    warp::serve(app).incoming(listener).run().await;
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
