//! The test suite for adapters, served by poem over real sockets, with every store.

use poem::{Route, endpoint::make_sync, get, listener::TcpAcceptor};
use todo_core::api::TodoApi;
use tokio::net::TcpListener;

async fn serve(listener: TcpListener, api: TodoApi) {
    let app = Route::new().at("/host", get(make_sync(|_| "the host's")));
    let app = todo_poem::probes(todo_poem::mount(app, "/api/v1", api.clone()), api.clone());
    #[cfg(feature = "openapi")]
    let app = todo_poem::docs(app, api);
    let acceptor = TcpAcceptor::from_tokio(listener).expect("a listener of tokio");
    poem::Server::new_with_acceptor(acceptor).run(app).await.expect("the listener accepts");
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
