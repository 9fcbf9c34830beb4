use serde::Serialize;

use super::{ListName, Tag};

/// How many tasks a user has, for a sidebar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The number of tasks.
    pub total: u64,
    /// The number of open tasks.
    pub open: u64,
    /// The lists, in the order of their names. Tasks without a list are not in it.
    pub lists: Vec<Group<ListName>>,
    /// The tags, in the order of their names.
    pub tags: Vec<Group<Tag>>,
}

/// The tasks of a list or with a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group<T> {
    /// The name of the list or the tag.
    pub name: T,
    /// The number of open tasks.
    pub open: u64,
    /// The number of tasks.
    pub total: u64,
}
