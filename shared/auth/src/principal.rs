//! The principal that a verified token speaks for, and what it may do.

use std::borrow::Cow;
use std::fmt::Write as _;

use goldleaves_domain::{TenantId, UserId};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The headers that select a tenant. Constants, because a name in a text is parsed each time that it is looked up.
const TENANT_HEADERS: [HeaderName; 2] =
    [HeaderName::from_static("x-organization-id"), HeaderName::from_static("x-tenant-id")];

/// A permission that reaches beyond the caller's tenant. The gateway ignores roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Admin,
    /// May see every tenant's usage.
    BillingRead,
    /// May see every tenant's usage and report it.
    BillingWrite,
}

impl Role {
    /// `None` for a role that means nothing here.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "admin" => Some(Self::Admin),
            "billing:read" => Some(Self::BillingRead),
            "billing:write" => Some(Self::BillingWrite),
            _ => None,
        }
    }
}

/// The principal that a verified token speaks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Principal {
    /// The token's `sub`.
    pub user: UserId,
    /// The token's tenant; `None` when it names none, or several and no first.
    pub tenant: Option<TenantId>,
    /// Further tenants the user may act for.
    pub orgs: Vec<TenantId>,
    /// The rights the token gives.
    pub roles: Vec<Role>,
    /// Until when it does, in seconds since 1970, as the token says it.
    pub expires: f64,
    /// User and tenant as they are told to upstreams, made once for all calls with the token.
    pub wire: WireNames,
}

/// A principal's names, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireNames {
    user: HeaderValue,
    tenant: Option<HeaderValue>,
}

impl WireNames {
    /// Writes them.
    pub fn of(user: &UserId, tenant: Option<&TenantId>) -> Self {
        Self { user: wire_value(user.as_str()), tenant: tenant.map(|tenant| wire_value(tenant.as_str())) }
    }

    /// Returns the user's name.
    pub const fn user(&self) -> &HeaderValue {
        &self.user
    }

    /// Returns the name of the token's own tenant.
    pub const fn tenant(&self) -> Option<&HeaderValue> {
        self.tenant.as_ref()
    }
}

/// A tenant or user as a header's value, written as `wire_name` does.
pub fn wire_value(name: &str) -> HeaderValue {
    // What it writes is visible ASCII, legal in every header.
    HeaderValue::from_str(&wire_name(name)).unwrap_or(HeaderValue::from_static("%"))
}

/// The reason a request's choice of tenant is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TenantChoiceError {
    /// 400: a header given twice, or two that differ.
    #[error("X-Organization-ID and X-Tenant-ID must be given once and be equal")]
    Ambiguous,
    /// 403: not one of the token's tenants.
    #[error("the token gives no access to this organization")]
    Foreign,
}

/// A tenant or user as it stands in a header: `%` and every byte that is no visible ASCII, blanks included, as `%` and
/// two upper-case digits. UTF-8 bytes mean different letters to different servers, and many cut blanks off.
pub(crate) fn wire_name(name: &str) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'%';
    if name.bytes().all(plain) {
        return Cow::Borrowed(name);
    }
    let mut text = String::with_capacity(name.len() + 16);
    for byte in name.bytes() {
        if plain(byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a text never fails.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    Cow::Owned(text)
}

/// The bytes that the allocator keeps of a small allocation for itself, at most.
const ALLOCATION_BYTES: usize = 16;

impl Principal {
    /// The bytes that it holds outside of itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        let names = [self.user.as_str()].into_iter();
        let names = names.chain(self.tenant.iter().chain(&self.orgs).map(TenantId::as_str));
        let written = [Some(self.wire.user()), self.wire.tenant()].into_iter().flatten();
        written.map(|value| value.len() + ALLOCATION_BYTES).sum::<usize>()
            + names.map(|name| name.len() + ALLOCATION_BYTES).sum::<usize>()
            + self.orgs.capacity() * size_of::<TenantId>()
            + self.roles.capacity() * size_of::<Role>()
    }

    /// The tenant a request is for: the one its headers select among the token's, else the token's own.
    ///
    /// # Errors
    /// The headers contradict each other (400) or name a tenant the token does not give (403).
    pub fn choose_tenant(&self, headers: &HeaderMap) -> Result<Option<&TenantId>, TenantChoiceError> {
        let mut chosen: Option<&[u8]> = None;
        for name in &TENANT_HEADERS {
            let mut values = headers.get_all(name).iter();
            let Some(value) = values.next() else { continue };
            let differs = chosen.is_some_and(|before| before != value.as_bytes());
            if differs || values.next().is_some() {
                return Err(TenantChoiceError::Ambiguous);
            }
            chosen = Some(value.as_bytes());
        }
        match chosen {
            None => Ok(self.tenant.as_ref()),
            Some(name) => {
                let plain = self.tenants().find(|tenant| tenant.as_str().as_bytes() == name);
                let written = || self.tenants().find(|tenant| wire_name(tenant.as_str()).as_bytes() == name);
                plain.or_else(written).map(Some).ok_or(TenantChoiceError::Foreign)
            }
        }
    }

    /// Every tenant the user may act for.
    pub fn tenants(&self) -> impl Iterator<Item = &TenantId> {
        self.tenant.iter().chain(&self.orgs)
    }

    /// Returns whether the user may see a tenant's usage.
    pub fn may_read(&self, tenant: &TenantId) -> bool {
        !self.roles.is_empty() || self.tenants().any(|own| own == tenant)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::HeaderName;

    use super::*;

    fn principal(tenant: Option<&str>, orgs: &[&str], roles: &[Role]) -> Principal {
        let (user, tenant) = ("u".parse().unwrap(), tenant.map(|name| name.parse().unwrap()));
        Principal {
            wire: WireNames::of(&user, tenant.as_ref()),
            user,
            tenant,
            orgs: orgs.iter().map(|name| name.parse().unwrap()).collect(),
            roles: roles.to_vec(),
            expires: f64::MAX,
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn headers_choose_among_the_tokens_tenants() {
        const ORG: &str = "x-organization-id";
        const TENANT: &str = "x-tenant-id";
        let anna = principal(Some("acme"), &["beta", "büro"], &[Role::Admin]);
        let nobody = principal(None, &[], &[Role::Admin]);
        type Case<'a> = (&'a Principal, &'a [(&'static str, &'a str)], Result<Option<&'a str>, TenantChoiceError>);
        let cases: &[Case<'_>] = &[
            (&anna, &[], Ok(Some("acme"))),
            (&anna, &[(ORG, "acme")], Ok(Some("acme"))),
            (&anna, &[(ORG, "beta")], Ok(Some("beta"))),
            (&anna, &[(TENANT, "beta")], Ok(Some("beta"))),
            (&anna, &[(TENANT, "büro")], Ok(Some("büro"))),
            (&anna, &[(TENANT, "b%C3%BCro")], Ok(Some("büro"))),
            (&anna, &[(ORG, "büro"), (TENANT, "b%C3%BCro")], Err(TenantChoiceError::Ambiguous)),
            (&anna, &[(ORG, "beta"), (TENANT, "beta")], Ok(Some("beta"))),
            (&anna, &[(ORG, "beta"), (TENANT, "acme")], Err(TenantChoiceError::Ambiguous)),
            (&anna, &[(ORG, "beta"), (ORG, "beta")], Err(TenantChoiceError::Ambiguous)),
            (&anna, &[(TENANT, "evil"), (TENANT, "evil")], Err(TenantChoiceError::Ambiguous)),
            (&anna, &[(ORG, "gamma")], Err(TenantChoiceError::Foreign)),
            (&anna, &[(ORG, "ACME")], Err(TenantChoiceError::Foreign)),
            (&anna, &[(ORG, "")], Err(TenantChoiceError::Foreign)),
            (&anna, &[(ORG, "acme, acme")], Err(TenantChoiceError::Foreign)),
            (&nobody, &[], Ok(None)),
            (&nobody, &[(ORG, "acme")], Err(TenantChoiceError::Foreign)),
        ];
        for (who, pairs, wanted) in cases {
            let chosen = who.choose_tenant(&headers(pairs)).map(|tenant| tenant.map(TenantId::as_str));
            assert_eq!(&chosen, wanted, "{pairs:?}");
        }
    }

    #[test]
    fn names_are_visible_ascii_on_the_wire() {
        for (name, wire) in [
            ("acme", "acme"),
            ("a b", "a%20b"),
            ("büro", "b%C3%BCro"),
            ("100%", "100%25"),
            ("a/b:c@d", "a/b:c@d"),
            ("日本", "%E6%97%A5%E6%9C%AC"),
        ] {
            assert_eq!(wire_name(name), wire);
        }
    }

    #[test]
    fn rights() {
        let other: TenantId = "other".parse().unwrap();
        let acme: TenantId = "acme".parse().unwrap();
        let beta: TenantId = "beta".parse().unwrap();
        let plain = principal(Some("acme"), &["beta"], &[]);
        assert!(plain.may_read(&acme) && plain.may_read(&beta) && !plain.may_read(&other));
        for role in [Role::Admin, Role::BillingRead, Role::BillingWrite] {
            let who = principal(None, &[], &[role]);
            assert!(who.may_read(&other), "{role:?}");
        }
    }
}
