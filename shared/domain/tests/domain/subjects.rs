//! Subjects: legal in NATS for any tenant, and different for different tenants.

use goldleaves_domain::{Source, TenantId, wire};
use proptest::prelude::*;
use uuid::Uuid;

use crate::common;

fn subject(tenant: &str) -> String {
    wire::event_subject(&tenant.parse().unwrap())
}

/// The tenant a subject stands for.
fn tenant_of(subject: &str) -> String {
    let mut pieces = subject.strip_prefix("usage.v1.").unwrap().split('=');
    let mut bytes = pieces.next().unwrap().as_bytes().to_vec();
    for piece in pieces {
        bytes.push(u8::from_str_radix(&piece[..2], 16).unwrap());
        bytes.extend_from_slice(&piece.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

proptest! {
    #[test]
    fn any_tenant_has_one_legal_token_of_its_own(tenant in common::any_name()) {
        let subject = subject(&tenant);
        let token = subject.strip_prefix("usage.v1.").unwrap();
        prop_assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-=".contains(&byte)));
        prop_assert!(!token.is_empty());
        prop_assert_eq!(tenant_of(&subject), tenant);
    }
}

#[test]
fn the_longest_tenant_fits_a_nats_control_line() {
    let longest: TenantId = "🍃".repeat(255).parse().unwrap();
    // HPUB, the subject, a reply inbox and two sizes in at most 4,096 bytes.
    assert_eq!(wire::event_subject(&longest).len(), 3_069);
}

#[test]
fn no_tenant_reaches_the_seals() {
    for tenant in ["seal.v1.x", "*", ">", "a.b", " "] {
        assert_eq!(subject(tenant).matches('.').count(), 2, "{tenant}");
    }
    let seal = wire::seal_subject(&Source::new(Uuid::nil()));
    assert_eq!(seal, "usage.seal.v1.gateway-00000000-0000-0000-0000-000000000000");
    assert_eq!(wire::EVENT_SUBJECTS, "usage.v1.*");
    assert_eq!(wire::SEAL_SUBJECTS, "usage.seal.v1.*");
}
