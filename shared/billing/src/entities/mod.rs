//! The ordinary tables of billing as entities: what is read by its keys and written row by row.
//!
//! What it does not do: the tables of events, repeats, rollups and cards have none. They are read by statements that join, cut and
//! sum in ways that the query builder has no words for, or that are hot (ADR 53).

pub(crate) mod audit;
pub(crate) mod correction;
pub(crate) mod late_hour;
pub(crate) mod line;
pub(crate) mod period;
pub(crate) mod tenant;
