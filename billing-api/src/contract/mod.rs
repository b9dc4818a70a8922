//! The contract as code: every operation with its parameters and shapes. Handlers take from here which parameters and members
//! they know and what their answers' members are called; the OpenAPI document is made of it.
//!
//! It answers no call, and knows no database.

mod document;
mod operation;
mod parameters;
mod shape;

pub(crate) mod audit;
pub(crate) mod bills;
pub(crate) mod cards;
pub(crate) mod corrections;
pub(crate) mod events;
pub(crate) mod stripe;
pub(crate) mod tenants;
pub(crate) mod usage;

pub(crate) use document::document;
pub(crate) use operation::{Access, Answers, Content, Method, Operation};
pub(crate) use parameters::{FORMAT, PAGE, Parameter, RANGE, TENANT, TENANT_ID};
pub(crate) use shape::{Kind, Member, Shape, member};

/// The members of a page of a list; the items are what the list is of.
pub(crate) const PAGE_OF: Shape<2> = Shape {
    name: "Page",
    members: [
        member("items", Kind::Json),
        member("next_cursor", Kind::Text).or_null().about("The cursor of the next page; null after the last"),
    ],
};

/// Said of what a tenant may see of itself.
pub(crate) const OWN: &str = "A tenant sees only itself; the roles admin, billing:read and billing:write see all.";
/// Said of what takes a role to see.
pub(crate) const ROLES: &str = "Needs the role admin, billing:read or billing:write.";
