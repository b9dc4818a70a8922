//! Fingerprints: equal for equal requests, however their bodies were cut, and for no others.

use goldleaves_domain::{Fingerprint, FingerprintBuilder, NormalPath, UserId};
use proptest::prelude::*;

/// The fingerprint of a user's request, given as `METHOD path`.
pub(crate) fn fingerprint(user: &str, request: &str, query: Option<&str>, body: &[&[u8]]) -> Fingerprint {
    let user: UserId = user.parse().unwrap();
    let (method, path) = request.split_once(' ').unwrap();
    let mut builder = FingerprintBuilder::new(&user, method, &NormalPath::normalise(path).unwrap(), query);
    body.iter().for_each(|piece| builder.body(piece));
    builder.finish()
}

#[test]
fn every_part_counts_and_no_part_runs_into_the_next() {
    let all = [
        fingerprint("u", "GET /a", None, &[]),
        fingerprint("v", "GET /a", None, &[]),
        fingerprint("u", "POST /a", None, &[]),
        fingerprint("u", "GET /b", None, &[]),
        fingerprint("u", "GET /a/", None, &[]),
        fingerprint("u", "GET /a", Some(""), &[]),
        fingerprint("u", "GET /a", Some("x"), &[]),
        fingerprint("u", "GET /a", None, &[b"x"]),
        fingerprint("uG", "ET /a", None, &[]),
        fingerprint("u", "GET /a", Some("x"), &[b"y"]),
        fingerprint("u", "GET /a", Some("xy"), &[]),
    ];
    for (index, one) in all.iter().enumerate() {
        assert!(all.iter().skip(index + 1).all(|other| other != one), "{index}");
    }
}

#[test]
fn spellings_of_one_path_have_one_fingerprint() {
    assert_eq!(fingerprint("u", "GET //%61/./b", None, &[]), fingerprint("u", "GET /a/b", None, &[]));
}

#[test]
fn later_versions_can_be_read() {
    for text in [format!("v1:{}", "a".repeat(64)), format!("v2:{}", "0".repeat(32)), format!("v999:{}", "f".repeat(72))]
    {
        let fingerprint: Fingerprint = text.parse().unwrap();
        assert!(fingerprint.as_str() == text && text.len() <= 80);
    }
    for text in ["", "v1", "v1:", "v0:00000000000000000000000000000000", "1:00000000000000000000000000000000"] {
        assert!(text.parse::<Fingerprint>().is_err(), "{text}");
    }
    for text in
        [format!("v1:{}", "A".repeat(64)), format!("v1:{}", "0".repeat(73)), format!("v1000:{}", "0".repeat(64))]
    {
        assert!(text.parse::<Fingerprint>().is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn how_a_body_is_cut_changes_nothing(body in prop::collection::vec(any::<u8>(), 0..500), piece in 1_usize..50) {
        let pieces: Vec<&[u8]> = body.chunks(piece).collect();
        let whole = fingerprint("u", "PUT /a", Some("q=1"), &[&body]);
        prop_assert_eq!(fingerprint("u", "PUT /a", Some("q=1"), &pieces), whole.clone());
        prop_assert_eq!(whole.as_str().parse(), Ok(whole));
    }
}
