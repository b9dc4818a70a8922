//! A call as handlers look at it: who calls, which tenant is meant, which parameters came, in which form to answer.

use axum::extract::{FromRequestParts, RawPathParams};
use goldleaves_billing::Author;
use goldleaves_domain::{Period, TenantId};
use goldleaves_pricing::TimeZone;
use goldleaves_web::Identified;
use http::header::ACCEPT;
use http::request::Parts;

use crate::answer::ApiError;
use crate::caller::{Caller, Right};
use crate::contract::{Operation, TENANT};
use crate::csv::{self, Form};
use crate::paging::{Paging, Question};
use crate::query::{Query, check_length};
use crate::state::BillingApi;
use crate::turns::{Again, Turn};

/// A call.
#[derive(Debug)]
pub(crate) struct Ask {
    /// The caller.
    pub(crate) caller: Caller,
    request_id: String,
    query: String,
    segments: Vec<String>,
    accept: Vec<String>,
    /// Held until the handler is done.
    turn: Turn,
}

/// The tenant that is asked about, and what else the path names.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The tenant whose usage it is; the caller may see it.
    pub(crate) tenant: TenantId,
    /// The segments of the path behind the tenant's.
    pub(crate) rest: Vec<String>,
    is_in_query: bool,
}

impl Ask {
    /// The tenant that is asked about, refused in the same words whether it exists or not.
    pub(crate) fn tenant_to_read(&self) -> Result<Asked, ApiError> {
        let (name, rest, is_in_query) = self.tenant_name()?;
        Ok(Asked { tenant: self.caller.tenant_to_read(&name)?, rest, is_in_query })
    }

    /// Returns whether the path or a parameter names a tenant, where none need be named.
    pub(crate) fn names_tenant(&self) -> bool {
        !self.segments.is_empty() || form_urlencoded::parse(self.query.as_bytes()).any(|(name, _)| name == TENANT)
    }

    /// The tenant that is to be changed, by somebody who may.
    pub(crate) fn tenant_to_change(&self, right: Right) -> Result<Asked, ApiError> {
        self.caller.check(right)?;
        let (name, rest, is_in_query) = self.tenant_name()?;
        let tenant = name.parse().map_err(|error| ApiError::Parameter(format!("{TENANT} is wrong: {error}")))?;
        Ok(Asked { tenant, rest, is_in_query })
    }

    fn tenant_name(&self) -> Result<(String, Vec<String>, bool), ApiError> {
        let mut named = form_urlencoded::parse(self.query.as_bytes()).filter(|(name, _)| name == TENANT);
        if let Some((_, name)) = named.next() {
            if named.next().is_some() {
                return Err(ApiError::Parameter(format!("{TENANT} is given more than once")));
            }
            return Ok((name.into_owned(), self.segments.clone(), true));
        }
        match self.segments.split_first() {
            Some((name, rest)) => Ok((name.clone(), rest.to_vec(), false)),
            None => Err(ApiError::Parameter(format!("{TENANT} is missing: in the path, or as a parameter"))),
        }
    }

    /// The only segment of a path that names no tenant.
    pub(crate) fn segment(&self) -> &str {
        self.segments.first().map_or("", String::as_str)
    }

    /// The parameters of a call that is about this tenant.
    pub(crate) fn query_of(&self, asked: &Asked, operation: &Operation) -> Result<Query, ApiError> {
        // Neither wins: the caller may have meant either. Some lists have no tenant in the path that is told of.
        if asked.is_in_query && asked.rest.len() >= operation.segments().max(1) {
            return Err(ApiError::Parameter(format!("{TENANT} is given twice: in the path and as a parameter")));
        }
        let mut known = operation.beside_tenant();
        if asked.is_in_query {
            known.push(TENANT);
        }
        Query::parse(&self.query, &known)
    }

    /// The parameters of a call.
    pub(crate) fn query(&self, operation: &Operation) -> Result<Query, ApiError> {
        Query::parse(&self.query, &operation.in_query().collect::<Vec<_>>())
    }

    /// The page that is asked for of a list, which is of one tenant or of all.
    pub(crate) fn paging(
        &self,
        operation: &Operation,
        tenant: Option<&str>,
        query: &Query,
        range: Option<&Period>,
    ) -> Result<Paging, ApiError> {
        let roles = self.caller.roles();
        let mut roles: Vec<&str> = roles.split(' ').collect();
        roles.sort_unstable();
        let question = Question::default().with(operation.id).with(tenant.unwrap_or_default()).with(roles.join(" "));
        let question = question.with_parameters(query);
        let question = match range {
            Some(range) => question.with_range(range),
            None => question,
        };
        Paging::read(question, query)
    }

    /// The form of the answer.
    pub(crate) fn form(&self, query: &Query) -> Result<Form, ApiError> {
        csv::form(query.get("format"), &self.accept)
    }

    /// The turns of an answer that is read page by page, after this one.
    pub(crate) fn again(&self) -> Again {
        self.turn.again()
    }

    /// The author of the change that this call makes.
    pub(crate) fn author(&self) -> Author {
        Author { actor: self.caller.user().to_owned(), roles: self.caller.roles(), request_id: self.request_id.clone() }
    }
}

/// The zone of a call's dates: the one that it names, else the tenant's.
pub(crate) async fn zone(api: &BillingApi, tenant: Option<&TenantId>, query: &Query) -> Result<TimeZone, ApiError> {
    if let Some(zone) = query.parsed("time_zone")? {
        return Ok(zone);
    }
    match tenant {
        Some(tenant) => Ok(api.billing().time_zone(tenant).await?),
        None => Ok(api.billing().default_zone()),
    }
}

/// The zone and the range of a call that is answered with a list.
pub(crate) async fn list_range(
    api: &BillingApi,
    tenant: Option<&TenantId>,
    query: &Query,
) -> Result<(TimeZone, Period), ApiError> {
    let (zone, range) = range(api, tenant, query).await?;
    check_length(&range)?;
    Ok((zone, range))
}

/// The zone and the range of a call.
pub(crate) async fn range(
    api: &BillingApi,
    tenant: Option<&TenantId>,
    query: &Query,
) -> Result<(TimeZone, Period), ApiError> {
    let zone = zone(api, tenant, query).await?;
    Ok((zone, query.range(zone, api.now()?)?))
}

/// Refuses a path with a `%` that two hexadecimal digits do not follow.
fn check_escapes(path: &str) -> Result<(), ApiError> {
    let is_escape =
        |rest: &str| matches!(rest.as_bytes(), [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
    if path.split('%').skip(1).all(is_escape) {
        return Ok(());
    }
    Err(ApiError::Parameter("the path has a % that two hexadecimal digits do not follow; a % itself is %25".to_owned()))
}

impl FromRequestParts<BillingApi> for Ask {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &BillingApi) -> Result<Self, ApiError> {
        let caller = Caller(api.verifier().verify(&parts.headers)?);
        let turn = api.turns().take(&caller.0).await?;
        let not_text = || ApiError::Parameter("the path is not UTF-8".to_owned());
        check_escapes(parts.uri.path())?;
        let path = RawPathParams::from_request_parts(parts, api).await.map_err(|_| not_text())?;
        let segments = path.iter().map(|(_, segment)| segment.to_owned()).collect();
        let accept = parts.headers.get_all(ACCEPT).iter();
        let accept = accept.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
        let identified = parts.extensions.get::<Identified>();
        Ok(Self {
            caller,
            request_id: identified.map(|identified| identified.id.to_string()).unwrap_or_default(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            segments,
            accept,
            turn,
        })
    }
}
