//! The store suite on `MemoryStore`.

todo_core::store_conformance!(testkit::stores::memory);
