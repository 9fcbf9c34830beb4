//! Makes the key sources of the token verifier from the settings.

use std::{fs, net::IpAddr, path::Path};

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use todo_core::auth::{InvalidSource, JwkSet, KeySource, RemoteJwks, Shape};

use crate::{
    settings::{Hs256, Keys, Secret, quoted},
    trace,
};

/// The name of a setting, and what is wrong with it.
type Problem = (&'static str, String);

/// The key sources of these settings, each with its issuers, audiences and subject.
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
    let has_key_set = keys.have_key_set() || keys.has_invalid_key;
    let uses_secrets = keys.effective_hs256() != Hs256::Off;
    for (name, prefix, is_used) in [
        ("JWKS_USER_PREFIX", &keys.jwks_user_prefix, has_key_set),
        ("JWT_HS256_USER_PREFIX", &keys.hs256_user_prefix, uses_secrets),
    ] {
        if prefix.is_some() && !is_used {
            problems.push((name, "has no effect, since there is no such key".to_owned()));
        }
    }
    match shared_secrets(keys) {
        Ok(Some(source)) => sources.push(source),
        Ok(None) => {}
        Err(problem) => problems.push(problem),
    }

    if sources.is_empty() && problems.is_empty() && !keys.has_invalid_key {
        let problem = if keys.hs256 == Some(Hs256::Off) {
            "is off and there is no key set, so every request would be rejected; set BETTER_AUTH_URL, or BETTER_AUTH_SECRET \
             and JWT_HS256=sub"
        } else {
            "is needed (or JWKS_URL, JWKS_FILE or BETTER_AUTH_SECRET), since without a key every request would be rejected. \
             To try the server without settings, run: todo-server dev"
        };
        let name = if keys.hs256.is_some() { "JWT_HS256" } else { "BETTER_AUTH_URL" };
        problems.push((name, problem.to_owned()));
    }
    if problems.is_empty() { Ok(sources) } else { Err(problems) }
}

/// The key set that is fetched over HTTP.
fn remote_key_set(keys: &Keys) -> Result<Option<KeySource>, Vec<Problem>> {
    let (name, url) = match (&keys.jwks_url, &keys.better_auth_url) {
        (Some(_), _) if keys.jwks_file.is_some() => {
            return Err(vec![("JWKS_URL", "cannot be combined with JWKS_FILE; set only one of them".to_owned())]);
        }
        (Some(url), _) => ("JWKS_URL", url.to_string()),
        // With JWKS_FILE it only sets the issuer and the audience.
        (None, Some(_)) if keys.jwks_file.is_some() => return Ok(None),
        (None, Some(_)) => ("BETTER_AUTH_URL", keys.better_auth_jwks_url().unwrap_or_default()),
        (None, None) => return Ok(None),
    };
    let mut remote = RemoteJwks::builder(&url).headers(trace::outgoing);
    if keys.jwks_allow_http {
        remote = remote.allow_insecure_http();
    }
    if let Some(path) = &keys.jwks_ca_file {
        let pem = fs::read(path)
            .map_err(|error| problem("JWKS_CA_FILE", format!("{} cannot be read: {error}", path.display())))?;
        remote = remote.add_root_certificates(pem);
    }
    if let Some(proxy) = proxy_for(&url, keys) {
        remote = remote.proxy(proxy);
    }
    match remote.build() {
        Ok(remote) => with_rules(KeySource::remote(remote), keys).map(Some),
        Err(InvalidSource::Url) => Err(vec![(
            name,
            format!(
                "would fetch the key set at {url} over plain HTTP from another machine; an attacker in that network \
                 could replace the keys and sign in as any user. Use https, or set JWKS_ALLOW_HTTP=true if the network \
                 is trusted"
            ),
        )]),
        Err(error @ InvalidSource::RootCertificates) => {
            let path = keys.jwks_ca_file.as_deref().unwrap_or(Path::new("")).display();
            Err(problem("JWKS_CA_FILE", format!("{path} cannot be used: {error}")))
        }
        Err(error @ InvalidSource::Proxy) => {
            let proxy = keys.proxy.as_ref().map_or("", Secret::reveal);
            Err(problem("HTTPS_PROXY", format!("{} cannot be used: {error}", quoted(proxy))))
        }
        Err(error @ InvalidSource::Client { .. }) => Err(problem(
            name,
            format!(
                "{error}; root certificates are those of the platform, or those in SSL_CERT_FILE and SSL_CERT_DIR if these \
                 variables are set"
            ),
        )),
        Err(error) => Err(problem(name, error.to_string())),
    }
}

fn problem(name: &'static str, text: String) -> Vec<Problem> {
    vec![(name, text)]
}

/// The proxy for this URL, by the rules that other programs have for these variables. A proxy is used only for TLS, since
/// it could replace keys that are not encrypted. It does not reach this machine by its own address.
fn proxy_for<'a>(url: &str, keys: &'a Keys) -> Option<&'a str> {
    let proxy = keys.proxy.as_ref()?.reveal();
    let uri: Uri = url.parse().ok()?;
    let host = uri.host()?.trim_matches(['[', ']']);
    let is_this_machine = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if uri.scheme_str() != Some("https") || is_this_machine {
        return None;
    }
    // Whether the proxy itself can be used is checked later.
    let rules = Matcher::builder().https("http://proxy").no(keys.no_proxy.as_deref().unwrap_or_default()).build();
    rules.intercept(&uri).is_some().then_some(proxy)
}

fn read_key_set(path: &Path) -> Result<JwkSet, String> {
    let document = fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let set = JwkSet::from_json(&document).map_err(|error| format!("{} {error}", path.display()))?;
    if set.is_empty() {
        return Err(format!("{} contains no usable key ({} were skipped)", path.display(), set.left_out()));
    }
    Ok(set)
}

/// Adds issuers, audiences and subject. A key set needs issuer and audience, since only they distinguish an access
/// token from other things that the same key signs.
fn with_rules(mut source: KeySource, keys: &Keys) -> Result<KeySource, Vec<Problem>> {
    let default = keys.better_auth_origin();
    let mut missing = Vec::new();
    let mut listed = |name, list: &[String]| match (list, &default) {
        ([], Some(origin)) => vec![origin.clone()],
        ([], None) => {
            missing.push((name, "is needed with a key set; BETTER_AUTH_URL sets issuer and audience".to_owned()));
            Vec::new()
        }
        (list, _) => list.to_vec(),
    };
    source = source.issuers(listed("JWT_ISSUER", &keys.issuers)).audiences(listed("JWT_AUDIENCE", &keys.audiences));
    if let Some(subject) = &keys.subject {
        source = source.subject(subject);
    }
    if let Some(prefix) = &keys.jwks_user_prefix {
        source = source.user_prefix(prefix);
    }
    if missing.is_empty() { Ok(with_scope(source, keys)) } else { Err(missing) }
}

fn with_scope(source: KeySource, keys: &Keys) -> KeySource {
    match &keys.required_scope {
        Some(scopes) => source.required_scope(scopes),
        None => source,
    }
}

fn shared_secrets(keys: &Keys) -> Result<Option<KeySource>, Problem> {
    let hs256 = keys.effective_hs256();
    if hs256 == Hs256::Off {
        return Ok(None);
    }
    if keys.secrets.is_empty() {
        return match keys.hs256 {
            Some(_) if !keys.has_invalid_key => {
                Err(("JWT_HS256", "needs BETTER_AUTH_SECRET or BETTER_AUTH_SECRETS".to_owned()))
            }
            _ => Ok(None),
        };
    }
    let mut source = KeySource::secrets(keys.secrets.iter().map(Secret::reveal))
        .map_err(|error| ("BETTER_AUTH_SECRET", error.to_string()))?;
    if let Some(prefix) = &keys.hs256_user_prefix {
        source = source.user_prefix(prefix);
    }
    if hs256 == Hs256::CookieCache {
        // This cookie has no issuer, no audience and no scope, and always the same claim for the user.
        let given = [
            ("JWT_ISSUER", !keys.issuers.is_empty()),
            ("JWT_AUDIENCE", !keys.audiences.is_empty()),
            ("JWT_SUBJECT", keys.subject.is_some()),
            ("JWT_REQUIRED_SCOPE", keys.required_scope.is_some()),
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
        if subject != "sub" && (keys.issuers.is_empty() || keys.audiences.is_empty()) {
            let problem = "is another claim than sub, and the secret also signs the links in e-mails of Better Auth, whose \
                           claims contain an e-mail address and a user id; set JWT_ISSUER and JWT_AUDIENCE, so that such a \
                           link is not accepted as a login";
            return Err(("JWT_SUBJECT", problem.to_owned()));
        }
        source = source.subject(subject);
    }
    Ok(Some(with_scope(source, keys)))
}
