//! Operations: a method at a path, what it takes and what it answers.

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
    /// Anyone with a token that carries the right.
    Token,
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
    pub(crate) answers: Answers,
    /// The statuses of problems that not every operation has.
    pub(crate) problems: &'static [u16],
}

/// The statuses of problems that every operation has which needs a token.
const PROBLEMS: [u16; 5] = [400, 401, 403, 429, 503];

impl Operation {
    /// An operation that takes nothing and answers nothing, to be filled in.
    pub(crate) const NEW: Self = Self {
        id: "",
        summary: "",
        about: "",
        access: Access::Token,
        parameters: &[],
        body: None,
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

    /// The statuses of its problems, in order.
    pub(crate) fn problems(&self) -> Vec<u16> {
        let mut problems = match self.access {
            Access::Token => PROBLEMS.to_vec(),
            Access::Open => Vec::new(),
            Access::Signed => vec![400],
        };
        if self.has_csv() {
            problems.push(406);
        }
        if self.body.is_some() {
            problems.push(413);
        }
        problems.extend(self.problems);
        problems.sort_unstable();
        problems
    }
}
