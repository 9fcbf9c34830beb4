//! From the settings to the keys that check tokens.

use std::{fs, path::Path};

use todo_core::auth::{InvalidSource, JwkSet, KeySource, RemoteJwks, Shape};

use crate::{
    settings::{Hidden, Hs256, Keys},
    trace,
};

/// What is wrong with which setting.
type Problem = (&'static str, String);

/// The sources of keys that the settings ask for; each has its own issuers, audiences and subject. This is the one
/// place where a setting becomes a source.
pub(crate) fn key_sources(keys: &Keys) -> Result<Vec<KeySource>, Vec<Problem>> {
    let mut sources = Vec::new();
    let mut problems = Vec::new();

    match remote_key_set(keys) {
        Ok(Some(source)) => sources.push(source),
        Ok(None) => {}
        Err(wrong) => problems.extend(wrong),
    }
    if let Some(path) = &keys.jwks_file {
        match read_key_set(path) {
            Ok(set) => match with_rules(KeySource::jwks(set), keys) {
                Ok(source) => sources.push(source),
                Err(missing) => problems.extend(missing),
            },
            Err(problem) => problems.push(("JWKS_FILE", problem)),
        }
    }
    match shared_secrets(keys) {
        Ok(Some(source)) => sources.push(source),
        Ok(None) => {}
        Err(problem) => problems.push(problem),
    }

    if sources.is_empty() && problems.is_empty() && !keys.spoiled {
        let problem = if keys.hs256 == Some(Hs256::Off) {
            "is off and there is no key set, so nobody could call; set BETTER_AUTH_URL, or BETTER_AUTH_SECRET and JWT_HS256=sub"
        } else {
            "is needed (or JWKS_URL, JWKS_FILE or BETTER_AUTH_SECRET): without a key nobody could call. To try the server \
             out, run `todo-server dev`"
        };
        let name = if keys.hs256.is_some() { "JWT_HS256" } else { "BETTER_AUTH_URL" };
        problems.push((name, problem.to_owned()));
    }
    if problems.is_empty() { Ok(sources) } else { Err(problems) }
}

/// The key set that is fetched from Better Auth, or from elsewhere.
fn remote_key_set(keys: &Keys) -> Result<Option<KeySource>, Vec<Problem>> {
    let (name, url) = match (&keys.jwks_url, &keys.better_auth_url) {
        (Some(_), _) if keys.jwks_file.is_some() => {
            return Err(vec![("JWKS_URL", "excludes JWKS_FILE; set only one of them".to_owned())]);
        }
        (Some(url), _) => ("JWKS_URL", url.to_string()),
        // Beside a file it still says who the issuer is.
        (None, Some(_)) if keys.jwks_file.is_some() => return Ok(None),
        (None, Some(_)) => ("BETTER_AUTH_URL", keys.better_auth_jwks_url().unwrap_or_default()),
        (None, None) => return Ok(None),
    };
    let mut remote = RemoteJwks::builder(&url).headers(trace::outgoing);
    if keys.jwks_allow_http {
        remote = remote.allow_insecure_http();
    }
    match remote.build() {
        Ok(remote) => with_rules(KeySource::remote(remote), keys).map(Some),
        Err(InvalidSource::Url) => Err(vec![(
            name,
            format!(
                "means the key set at {url}, over plain HTTP from another machine: whoever can answer in its place can \
                 sign for anybody. Use https, or JWKS_ALLOW_HTTP=true if the network between is trusted"
            ),
        )]),
        Err(error) => Err(vec![(name, error.to_string())]),
    }
}

fn read_key_set(path: &Path) -> Result<JwkSet, String> {
    let document = fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let set = JwkSet::from_json(&document).map_err(|error| format!("{} {error}", path.display()))?;
    if set.is_empty() {
        return Err(format!("{} holds no key that can be used ({} left out)", path.display(), set.left_out()));
    }
    Ok(set)
}

/// Only issuer and audience tell an access token from the other things that the same key signs, so a key set needs
/// both.
fn with_rules(mut source: KeySource, keys: &Keys) -> Result<KeySource, Vec<Problem>> {
    let of_better_auth = keys.better_auth_origin();
    let mut missing = Vec::new();
    let mut listed = |name, list: &[String]| match (list, &of_better_auth) {
        ([], Some(origin)) => vec![origin.clone()],
        ([], None) => {
            missing
                .push((name, "is needed with a key set; BETTER_AUTH_URL gives issuer and audience at once".to_owned()));
            Vec::new()
        }
        (list, _) => list.to_vec(),
    };
    source = source.issuers(listed("JWT_ISSUER", &keys.issuers)).audiences(listed("JWT_AUDIENCE", &keys.audiences));
    if let Some(subject) = &keys.subject {
        source = source.subject(subject);
    }
    if missing.is_empty() { Ok(source) } else { Err(missing) }
}

fn shared_secrets(keys: &Keys) -> Result<Option<KeySource>, Problem> {
    let hs256 = keys.effective_hs256();
    if hs256 == Hs256::Off {
        return Ok(None);
    }
    if keys.secrets.is_empty() {
        return match keys.hs256 {
            Some(_) if !keys.spoiled => {
                Err(("JWT_HS256", "needs BETTER_AUTH_SECRET or BETTER_AUTH_SECRETS".to_owned()))
            }
            _ => Ok(None),
        };
    }
    let mut source = KeySource::secrets(keys.secrets.iter().map(Hidden::reveal))
        .map_err(|error| ("BETTER_AUTH_SECRET", error.to_string()))?;
    if hs256 == Hs256::CookieCache {
        // That cookie names neither issuer nor audience, and its user always in the same place.
        let given = [
            ("JWT_ISSUER", !keys.issuers.is_empty()),
            ("JWT_AUDIENCE", !keys.audiences.is_empty()),
            ("JWT_SUBJECT", keys.subject.is_some()),
        ];
        return match given.into_iter().find(|(_, given)| *given && !keys.have_key_set()) {
            Some((name, _)) => Err((name, "has no effect with JWT_HS256=cookie-cache".to_owned())),
            None => Ok(Some(source.shape(Shape::CookieCache))),
        };
    }
    if !keys.issuers.is_empty() {
        source = source.issuers(keys.issuers.clone());
    }
    if !keys.audiences.is_empty() {
        source = source.audiences(keys.audiences.clone());
    }
    if let Some(subject) = &keys.subject {
        source = source.subject(subject);
    }
    Ok(Some(source))
}
