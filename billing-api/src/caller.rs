//! The caller, and what the token allows: nothing else is asked.

use std::sync::Arc;

use goldleaves_auth::{Principal, Role};
use goldleaves_domain::TenantId;

use crate::answer::ApiError;

/// The principal that the token speaks for.
#[derive(Debug, Clone)]
pub(crate) struct Caller(pub(crate) Arc<Principal>);

/// A permission that reaches beyond reading the caller's own tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// To see every tenant's usage: any of the roles.
    ReadAll,
    /// To change a bill: `admin` or `billing:write`.
    Write,
    /// To change what bills are made by: `admin`.
    Admin,
}

impl Right {
    pub(crate) const fn roles(self) -> &'static str {
        match self {
            Self::ReadAll => "one of the roles admin, billing:read and billing:write",
            Self::Write => "the role admin or billing:write",
            Self::Admin => "the role admin",
        }
    }
}

impl Caller {
    /// The tenant of this name, if the caller may see it.
    ///
    /// A name that no tenant can have is refused in the same words as another tenant's, but to who may read them all.
    pub(crate) fn tenant_to_read(&self, name: &str) -> Result<TenantId, ApiError> {
        let tenant: TenantId = name.parse().map_err(|error| match self.check(Right::ReadAll) {
            Ok(()) => ApiError::Parameter(format!("tenant_id is wrong: {error}")),
            Err(_) => ApiError::ForeignTenant,
        })?;
        if self.0.may_read(&tenant) { Ok(tenant) } else { Err(ApiError::ForeignTenant) }
    }

    /// Refuses whoever lacks a right.
    pub(crate) fn check(&self, right: Right) -> Result<(), ApiError> {
        let has = |wanted: &[Role]| self.0.roles.iter().any(|role| wanted.contains(role));
        let allowed = match right {
            Right::ReadAll => has(&[Role::Admin, Role::BillingRead, Role::BillingWrite]),
            Right::Write => has(&[Role::Admin, Role::BillingWrite]),
            Right::Admin => has(&[Role::Admin]),
        };
        if allowed { Ok(()) } else { Err(ApiError::Forbidden(right.roles())) }
    }

    /// The token's user.
    pub(crate) fn user(&self) -> &str {
        self.0.user.as_str()
    }

    /// The token's roles, separated by blanks.
    pub(crate) fn roles(&self) -> String {
        let names: Vec<&str> = self.0.roles.iter().map(|role| role_name(*role)).collect();
        names.join(" ")
    }
}

const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Admin => "admin",
        Role::BillingRead => "billing:read",
        Role::BillingWrite => "billing:write",
    }
}
