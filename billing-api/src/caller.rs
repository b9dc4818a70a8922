//! Who calls: the verified token, and nothing else.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use goldleaves_domain::TenantId;
use goldleaves_web::Principal;
use http::request::Parts;

use crate::answer::ApiError;
use crate::service::BillingApi;

/// Whoever the token speaks for.
pub(crate) struct Caller(Arc<Principal>);

impl Caller {
    /// The tenant of this name, if the caller may see it.
    ///
    /// A name that no tenant can have is refused in the same words as another tenant's.
    pub(crate) fn tenant_to_read(&self, name: &str) -> Result<TenantId, ApiError> {
        let tenant: TenantId = name.parse().map_err(|_| ApiError::ForeignTenant)?;
        if self.0.may_read(&tenant) { Ok(tenant) } else { Err(ApiError::ForeignTenant) }
    }

    /// Refuses who may not report usage, of any tenant, the own included.
    pub(crate) fn check_may_report(&self) -> Result<(), ApiError> {
        if self.0.may_report() { Ok(()) } else { Err(ApiError::MayNotReport) }
    }
}

/// The tenant that the path names, as text. What is no text is refused in the same form as everything else.
pub(crate) struct TenantName(pub(crate) String);

impl FromRequestParts<BillingApi> for TenantName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &BillingApi) -> Result<Self, ApiError> {
        match Path::from_request_parts(parts, api).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(_) => Err(ApiError::Parameter("the path names no tenant: it is not UTF-8".to_owned())),
        }
    }
}

impl FromRequestParts<BillingApi> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &BillingApi) -> Result<Self, ApiError> {
        Ok(Self(api.verifier().verify(&parts.headers)?))
    }
}
