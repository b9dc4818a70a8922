//! Measures what a remembered token costs beside one that is verified: `cargo bench -p goldleaves-auth --bench token`.

#![expect(clippy::unwrap_used, reason = "a measurement")]

use std::time::{Duration, Instant};

use goldleaves_auth::{TokenClaims, TokenOptions, TokenSigner, TokenVerifier, WallClock};

const TOKENS: u32 = 500;
const ROUNDS: u32 = 1_000;

fn main() {
    let mut options = TokenOptions::new("a-secret-of-the-measurement-0123456789");
    let signer = TokenSigner::new(&options, WallClock::system());
    let tokens: Vec<String> = (0..TOKENS)
        .map(|user| {
            let claims = TokenClaims {
                user: format!("user-{user}").parse().unwrap(),
                tenant: Some("acme".parse().unwrap()),
                orgs: Vec::new(),
                roles: vec!["admin".to_owned()],
                lifetime: Duration::from_secs(3_600),
            };
            signer.sign(&claims)
        })
        .collect();
    let remembering = TokenVerifier::new(options.clone(), WallClock::system());
    options.cache_bytes_max = 0;
    let forgetful = TokenVerifier::new(options, WallClock::system());
    measure("verified", &forgetful, &tokens, 20);
    measure("remembered", &remembering, &tokens, ROUNDS);
}

fn measure(name: &str, verifier: &TokenVerifier, tokens: &[String], rounds: u32) {
    let begin = Instant::now();
    for _ in 0..rounds {
        for token in tokens {
            assert!(verifier.verify_token(token).is_ok());
        }
    }
    println!("{name}: {:?} a token", begin.elapsed() / (rounds * TOKENS));
}
