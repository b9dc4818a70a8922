//! Tests that remembering is as good as verifying, never longer, never more than allowed.

use super::*;

#[test]
fn hits_are_judged_by_the_clock_of_their_use() {
    let hand = Hand::at(NOW);
    let verifier = TokenVerifier::new(TokenOptions::new(SECRET), hand.clock());
    let token = token(r#"{"sub":"u","exp":1800000060.5,"nbf":1799999990}"#);
    let first = verifier.verify_token(&token).unwrap();
    assert_eq!(verifier.remembered(), 1);
    let second = verifier.verify_token(&token).unwrap();
    assert!(Arc::ptr_eq(&first, &second), "the second was remembered");
    hand.set_millis((NOW - 11) * 1_000);
    assert_eq!(verifier.verify_token(&token), Err(TokenError::TooEarly), "the clock was set back");
    assert_eq!(verifier.remembered(), 1);
    hand.set_millis(NOW * 1_000 + 60_499);
    assert!(Arc::ptr_eq(&first, &verifier.verify_token(&token).unwrap()));
    hand.set_millis(NOW * 1_000 + 60_500);
    assert_eq!(verifier.verify_token(&token), Err(TokenError::Expired));
    assert_eq!(verifier.remembered(), 0, "what is over is forgotten");
    assert_eq!(verifier.verify_token(&token), Err(TokenError::Expired));
}

#[test]
fn the_whole_token_is_the_key() {
    let verifier = verifier();
    let good = token(r#"{"sub":"u","exp":1800000060}"#);
    assert!(verifier.verify_token(&good).is_ok());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = signed.split_once('.').unwrap();
    let claims = BASE64_URL_SAFE_NO_PAD.encode(r#"{"sub":"v","exp":1800000060}"#);
    assert_eq!(verifier.verify_token(&format!("{header}.{claims}.{signature}")), Err(TokenError::Signature));
}

#[test]
fn only_valid_tokens_are_remembered() {
    let verifier = verifier();
    for bad in [token(r#"{"sub":"u","exp":1}"#), token("{}"), "a.b.c".to_owned()] {
        assert!(verifier.verify_token(&bad).is_err());
    }
    assert_eq!(verifier.remembered(), 0);
}

#[test]
fn bounded_in_bytes() {
    let mut options = TokenOptions::new(SECRET);
    options.cache_bytes_max = 64 << 10;
    let verifier = TokenVerifier::new(options.clone(), Hand::at(NOW).clock());
    for user in 0..2_000 {
        let token = token(&format!(r#"{{"sub":"user-{user}","exp":1800000060}}"#));
        assert_eq!(verifier.verify_token(&token).unwrap().user.as_str(), format!("user-{user}"));
    }
    assert!((10..=128).contains(&verifier.remembered()), "{}", verifier.remembered());
    options.cache_bytes_max = 0;
    let forgetful = TokenVerifier::new(options, Hand::at(NOW).clock());
    assert!(forgetful.verify_token(&token(r#"{"sub":"u","exp":1800000060}"#)).is_ok());
    assert_eq!(forgetful.remembered(), 0);
}

#[test]
fn names_in_a_token_are_counted_as_what_they_hold() {
    let mut options = TokenOptions::new(SECRET);
    // For each of the parts, room for two of these tokens by their own length, and not for one by what is in them.
    options.cache_bytes_max = 32 * (16 << 10);
    let verifier = TokenVerifier::new(options, Hand::at(NOW).clock());
    let orgs: Vec<String> = (0..1_000).map(|org| format!("{org:x}")).collect();
    for user in 0..100 {
        let claims = serde_json::json!({"sub": format!("u{user}"), "exp": 1_800_000_060, "orgs": orgs});
        let token = token(&claims.to_string());
        assert!(token.len() < 8_192, "{}", token.len());
        let principal = verifier.verify_token(&token).unwrap();
        assert_eq!(principal.orgs.len(), 1_000);
    }
    assert_eq!(verifier.remembered(), 0);
}
