use serde::Serialize;

use crate::{auth::Identity, clock::Timestamp};

/// The caller, as the token describes them.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(super) struct Session<'a> {
    user: User<'a>,
    /// When the token expires, or null if unknown.
    #[cfg_attr(feature = "openapi", schema(required))]
    expires_at: Option<Timestamp>,
}

/// A user, as the token describes them.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(super) struct User<'a> {
    #[cfg_attr(feature = "openapi", schema(value_type = crate::UserId))]
    id: &'a str,
    /// The e-mail address in the token; absent if the token has none. Users choose it themselves, so it proves nothing.
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    /// The name in the token; absent if the token has none. Users choose it themselves, so it proves nothing.
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

impl<'a> Session<'a> {
    pub(super) fn of(identity: &'a Identity) -> Self {
        let user =
            User { id: identity.user_id.as_str(), email: identity.email.as_deref(), name: identity.name.as_deref() };
        Self { user, expires_at: identity.expires_at }
    }
}
