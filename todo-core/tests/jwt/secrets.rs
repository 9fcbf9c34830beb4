//! Shared secrets.

use super::*;

#[test]
fn a_token_can_be_signed_with_any_of_the_secrets() {
    let secrets = [
        SECRET,
        "the previous secret, of thirty-two bytes or more",
        "the secret before that, of thirty-two bytes or more",
    ];
    let verifier = at_now([KeySource::secrets(secrets).expect("the secrets are valid")]);
    for secret in secrets {
        assert_accepted(&verifier, &secret_token(secret.as_bytes(), &claims(json!({}))));
    }
    for other in [secrets.concat().as_str(), &secrets.join(","), &SECRET.to_uppercase(), &format!("{SECRET}\n"), ""] {
        assert_rejected(&verifier, &secret_token(other.as_bytes(), &claims(json!({}))), Refusal::Signature);
    }
}

#[test]
fn a_secret_is_not_decoded() {
    // Even if it is valid base64.
    let encoded = base64url(SECRET);
    let verifier = JwtVerifier::builder()
        .source(KeySource::secrets([&encoded]).expect("the secret is valid"))
        .clock(FixedClock::at(at(NOW)));
    let verifier = verifier.build().expect("the source is valid");
    assert_accepted(&verifier, &secret_token(encoded.as_bytes(), &claims(json!({}))));
    assert_rejected(&verifier, &token(json!({})), Refusal::Signature);
}

#[test]
fn short_and_public_secrets_are_rejected() {
    assert_eq!(KeySource::secrets([[7; 31]]).err(), Some(InvalidSource::ShortSecret));
    assert!(KeySource::secrets([[7; 32]]).is_ok());
    assert_eq!(KeySource::secrets([&[7; 32][..], &[7; 31]]).err(), Some(InvalidSource::ShortSecret));
    assert_eq!(KeySource::secrets([""]).err(), Some(InvalidSource::ShortSecret));
    assert_eq!(JwtVerifier::hs256("too short").err(), Some(InvalidSource::ShortSecret));

    let public = "better-auth-secret-12345678901234567890";
    assert_eq!(KeySource::secrets([public]).err(), Some(InvalidSource::PublicSecret));
    assert_eq!(KeySource::secrets([SECRET, public]).err(), Some(InvalidSource::PublicSecret));
    assert_eq!(JwtVerifier::hs256(public).err(), Some(InvalidSource::PublicSecret));
}
