//! Tokens and their verdicts, and what is remembered of them.

mod cache;
mod settings;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use jsonwebtoken::EncodingKey;
use proptest::prelude::{ProptestConfig, proptest};

use crate::principal::Role;
use crate::verifier::bearer_token;
use crate::{Algorithm, TokenClaims, TokenError, TokenOptions, TokenSigner, TokenVerifier, WallClock};

const SECRET: &str = "a-secret-of-the-tests-0123456789abcdef";
/// When the tests take place, in seconds since 1970.
const NOW: u64 = 1_800_000_000;

/// A clock that a test sets, in milliseconds since 1970.
#[derive(Clone)]
struct Hand(Arc<AtomicU64>);

impl Hand {
    fn at(seconds: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seconds * 1_000)))
    }

    fn set_millis(&self, millis: u64) {
        self.0.store(millis, Ordering::Relaxed);
    }

    fn clock(&self) -> WallClock {
        let hand = self.clone();
        WallClock::new(move || UNIX_EPOCH + Duration::from_millis(hand.0.load(Ordering::Relaxed)))
    }
}

fn verifier() -> TokenVerifier {
    TokenVerifier::new(TokenOptions::new(SECRET), Hand::at(NOW).clock())
}

/// A token of these texts, correctly signed.
fn signed(algorithm: Algorithm, header: &str, claims: &str) -> String {
    signed_bytes(algorithm, header.as_bytes(), claims.as_bytes())
}

fn signed_bytes(algorithm: Algorithm, header: &[u8], claims: &[u8]) -> String {
    let signed = format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(header), BASE64_URL_SAFE_NO_PAD.encode(claims));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let algorithm = algorithm.name().parse().unwrap();
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, algorithm).unwrap();
    format!("{signed}.{signature}")
}

/// An HS256 token of these claims.
fn token(claims: &str) -> String {
    signed(Algorithm::Hs256, r#"{"alg":"HS256","typ":"JWT"}"#, claims)
}

fn headers(values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(AUTHORIZATION, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

#[test]
fn authorization_header() {
    for (values, wanted) in [
        (&["Bearer abc"][..], Ok("abc")),
        (&["bearer abc"], Ok("abc")),
        (&["BEARER  abc "], Ok("abc")),
        (&[], Err(TokenError::Missing)),
        (&["Bearer a", "Bearer a"], Err(TokenError::SeveralHeaders)),
        (&["Basic abc"], Err(TokenError::Scheme)),
        (&["Bearer"], Err(TokenError::Scheme)),
        (&["Bearer "], Err(TokenError::Scheme)),
        (&["abc"], Err(TokenError::Scheme)),
        (&[""], Err(TokenError::Scheme)),
        (&["Bearerabc"], Err(TokenError::Scheme)),
        (&["Bearer\u{fc} abc"], Err(TokenError::Scheme)),
    ] {
        assert_eq!(bearer_token(&headers(values)), wanted, "{values:?}");
    }
    assert_eq!(verifier().verify(&headers(&["Bearer a b"])), Err(TokenError::Malformed));
}

#[test]
fn what_is_signed_is_accepted() {
    for algorithm in [Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512] {
        let mut options = TokenOptions::new(SECRET);
        options.algorithm = algorithm;
        options.issuer = Some("issuer".to_owned());
        options.audience = Some("audience".to_owned());
        let hand = Hand::at(NOW);
        let signer = TokenSigner::new(&options, hand.clock());
        let verifier = TokenVerifier::new(options, hand.clock());
        let token = signer.sign(&TokenClaims {
            user: "ann".parse().unwrap(),
            tenant: Some("acme".parse().unwrap()),
            orgs: vec!["beta".parse().unwrap()],
            roles: vec!["billing:read".to_owned()],
            lifetime: Duration::from_secs(60),
        });
        let principal = verifier.verify(&headers(&[&format!("Bearer {token}")])).unwrap();
        assert_eq!(principal.user.as_str(), "ann");
        assert_eq!(principal.tenant.as_ref().unwrap().as_str(), "acme");
        assert_eq!(principal.orgs[0].as_str(), "beta");
        assert_eq!(principal.roles.as_slice(), &[Role::BillingRead][..]);
        hand.set_millis((NOW + 60) * 1_000 - 1);
        assert!(verifier.verify_token(&token).is_ok());
        hand.set_millis((NOW + 60) * 1_000);
        assert_eq!(verifier.verify_token(&token), Err(TokenError::Expired));
    }
}

#[test]
fn other_secrets_and_algorithms_are_refused() {
    let claims = r#"{"sub":"u","exp":1800000060}"#;
    let hs256 = token(claims);
    let other = TokenVerifier::new(TokenOptions::new("another secret"), Hand::at(NOW).clock());
    assert_eq!(other.verify_token(&hs256), Err(TokenError::Signature));
    let mut options = TokenOptions::new(SECRET);
    options.algorithm = Algorithm::Hs512;
    let strict = TokenVerifier::new(options, Hand::at(NOW).clock());
    assert_eq!(strict.verify_token(&hs256), Err(TokenError::Algorithm));
    assert!(strict.verify_token(&signed(Algorithm::Hs512, r#"{"alg":"HS512"}"#, claims)).is_ok());
    let lied = signed(Algorithm::Hs256, r#"{"alg":"HS512"}"#, claims);
    assert_eq!(strict.verify_token(&lied), Err(TokenError::Signature));
}

#[test]
fn no_bit_of_a_token_can_be_changed() {
    let good = token(r#"{"sub":"u","exp":1800000060,"tenant_id":"acme"}"#);
    let verifier = verifier();
    assert!(verifier.verify_token(&good).is_ok());
    for (at, byte) in good.bytes().enumerate() {
        for other in [b'A', b'b', b'0', b'-', b'.', b'=', b'+'] {
            if byte != other {
                let mut changed = good.clone().into_bytes();
                changed[at] = other;
                let changed = String::from_utf8(changed).unwrap();
                assert!(verifier.verify_token(&changed).is_err(), "{at} {changed}");
            }
        }
    }
    for cut in 0..good.len() {
        assert!(verifier.verify_token(&good[..cut]).is_err(), "{cut}");
    }
}

#[test]
fn prints_neither_secret_nor_token() {
    let options = TokenOptions::new(SECRET);
    let signer = TokenSigner::new(&options, WallClock::system());
    let verifier = TokenVerifier::new(options.clone(), WallClock::system());
    let good = token(r#"{"sub":"u","exp":1}"#);
    let error = verifier.verify_token(&good).unwrap_err();
    let bad = token(r#"{"sub":"peter-the-user","exp":"tomorrow-or-so"}"#);
    let typed = verifier.verify_token(&bad).unwrap_err();
    let printed = format!("{options:?} {signer:?} {verifier:?} {error:?} {error} {typed:?} {typed}");
    for hidden in [SECRET, &good, &bad, "peter", "tomorrow"] {
        assert!(!printed.contains(hidden), "{hidden} in {printed}");
    }
    let bytes = format!("{:?}", SECRET.as_bytes());
    assert!(!printed.contains(bytes.trim_matches(['[', ']'])), "{printed}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_panics(text in "\\PC*") {
        assert!(verifier().verify_token(&text).is_err());
    }

    #[test]
    fn no_signed_parts_panic(header in ".{0,60}", claims in ".{0,200}") {
        let _ = verifier().verify_token(&signed(Algorithm::Hs256, &header, &claims));
        let _ = verifier().verify_token(&token(&claims));
    }

    #[test]
    fn no_claim_of_any_type_panics(
        name in "exp|nbf|sub|aud|iss|orgs|roles|is_admin|tenant_id|org_id",
        value in "null|true|-?[0-9]{1,30}|[0-9]\\.[0-9]{1,5}|1e[0-9]{1,3}|\"[a-z\\\\u0-9]{0,9}\"|\\[\\]|\\[1,\"a\"\\]|\\{\\}",
    ) {
        let claims = format!(r#"{{"sub":"u","exp":1800000060,"x":0,"{name}":{value}}}"#);
        let _ = verifier().verify_token(&token(&claims));
        let alone = format!(r#"{{"{name}":{value}}}"#);
        assert!(verifier().verify_token(&token(&alone)).is_err());
    }
}
