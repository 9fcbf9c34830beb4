use std::fmt;

use url::Url;

/// A text that must not be printed: a secret, or a URL with a password. `Debug` shows `***`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// The URL without its password and without its query, which may contain another.
    pub(crate) fn masked_url(&self) -> String {
        let Ok(mut url) = Url::parse(&self.0) else {
            return self.masked_by_hand().unwrap_or_else(|| "(not a URL)".to_owned());
        };
        if url.password().is_some() {
            let _ = url.set_password(Some("***"));
        }
        url.set_query(None);
        url.set_fragment(None);
        url.into()
    }

    /// The same for the forms of libpq that have several hosts, or none before the path:
    /// `postgres://user:password@a:5432,b:5432/database`, `postgres://user:password@/database?host=..`.
    fn masked_by_hand(&self) -> Option<String> {
        let (scheme, rest) = self.0.split_once("://")?;
        let (authority, database) = rest.split_once('/')?;
        let (user, hosts) = authority.rsplit_once('@')?;
        if !(hosts.is_empty() || hosts.contains(',')) {
            return None;
        }
        let user = user.split_once(':').map_or(user.to_owned(), |(user, _)| format!("{user}:***"));
        let database = database.split(['?', '#']).next()?;
        Some(format!("{scheme}://{user}@{hosts}/{database}"))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
