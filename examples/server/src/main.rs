//! The program `todo-server`. Everything but the allocator is in the library `todo_server`.

use std::process::ExitCode;

/// Requests allocate little and often, from all threads. `.cargo/config.toml` has the settings of jemalloc.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    todo_server::main()
}
