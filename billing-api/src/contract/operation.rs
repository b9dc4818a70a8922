//! Operations: a method at a path, what it takes and what it answers.

use std::collections::BTreeMap;

use goldleaves_web::ProblemCode as Code;

use super::parameters::{Parameter, Place, TENANT};
use super::shape::ShapeRef;

/// A method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Method {
    Get,
    Put,
    Post,
}

/// The callers that an operation is open to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// The tenant that it is about, and whoever may see all.
    Own,
    /// Anyone with the role that it takes.
    Role,
    /// The tenant that it is about; where it is about all, anyone with the role.
    OwnOrRole,
    /// Everybody.
    Open,
    /// Anyone who signs the body.
    Signed,
}

/// The content of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Content {
    Object(ShapeRef),
    /// A page of a list.
    Page(ShapeRef),
}

/// The answers that are no problem.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answers {
    /// 200.
    Found(Content),
    /// 201, or 200 where it was there already.
    Put(ShapeRef),
    /// 202.
    Accepted(ShapeRef),
    /// 200 without a body.
    Heard,
}

/// An operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operation {
    pub(crate) id: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) about: &'static str,
    pub(crate) access: Access,
    pub(crate) parameters: &'static [&'static [Parameter]],
    pub(crate) body: Option<ShapeRef>,
    /// A body that says something sensible, as JSON.
    pub(crate) example: &'static str,
    pub(crate) answers: Answers,
    /// Problems that not every operation has, by their statuses.
    pub(crate) problems: &'static [(u16, &'static [Code])],
}

impl Operation {
    /// An operation that takes nothing and answers nothing, to be filled in.
    pub(crate) const NEW: Self = Self {
        id: "",
        summary: "",
        about: "",
        access: Access::Own,
        parameters: &[],
        body: None,
        example: "",
        answers: Answers::Heard,
        problems: &[],
    };

    /// All parameters, in their order.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = &'static Parameter> {
        self.parameters.iter().copied().flatten()
    }

    /// The names of the parameters of the query.
    pub(crate) fn in_query(&self) -> impl Iterator<Item = &'static str> {
        self.parameters().filter(|parameter| parameter.place == Place::Query).map(|parameter| parameter.name)
    }

    /// The number of segments of the path that are parameters, the tenant's among them.
    pub(crate) fn segments(&self) -> usize {
        self.parameters().filter(|parameter| parameter.place == Place::Path).count()
    }

    /// The names of the parameters of the query but that of the tenant.
    pub(crate) fn beside_tenant(&self) -> Vec<&'static str> {
        self.in_query().filter(|name| *name != TENANT).collect()
    }

    /// Returns whether it answers as CSV, too.
    pub(crate) fn has_csv(&self) -> bool {
        self.in_query().any(|name| name == "format")
    }

    /// Returns whether a token is asked for.
    pub(crate) fn needs_token(&self) -> bool {
        !matches!(self.access, Access::Open | Access::Signed)
    }

    /// The codes of its problems, by their statuses.
    pub(crate) fn problems(&self) -> BTreeMap<u16, Vec<&'static str>> {
        let mut problems: BTreeMap<u16, Vec<&'static str>> = BTreeMap::new();
        let mut add = |status, codes: &[Code]| {
            problems.entry(status).or_default().extend(codes.iter().map(|code| code.as_str()));
        };
        if self.needs_token() {
            add(400, &[Code::ParameterInvalid]);
            add(401, &[Code::TokenMissing, Code::TokenExpired, Code::TokenInvalid]);
            add(429, &[Code::ConcurrencyLimited]);
            add(500, &[Code::InternalError]);
            add(503, &[Code::DatabaseUnavailable, Code::TooSlow]);
        }
        match self.access {
            Access::Own => add(403, &[Code::TenantForbidden]),
            Access::Role => add(403, &[Code::RoleMissing]),
            Access::OwnOrRole => add(403, &[Code::TenantForbidden, Code::RoleMissing]),
            Access::Open | Access::Signed => {}
        }
        if self.body.is_some() && self.needs_token() {
            add(400, &[Code::BodyInvalid]);
            add(413, &[Code::BodyTooLarge]);
        }
        if self.has_csv() {
            add(400, &[Code::TooManyRows]);
            add(406, &[Code::NotAcceptable]);
        }
        for (status, codes) in self.problems {
            add(*status, codes);
        }
        problems
    }
}
