//! The parts that both HTTP servers need: a body type, the serve loop, request ids, problem documents, the ops
//! endpoints.
//!
//! It knows of the domain only names (tenant, user, request id): routes, metering and storage are not its business.

mod alarm;
mod body;
mod classic;
mod exchange;
mod ops;
mod problem;
mod problem_code;
mod request_id;
mod serve;
mod short_head;

pub use alarm::Alarm;
pub use body::{BodyError, WebBody};
pub use ops::{Check, CheckState, Ops, serve_ops};
pub use problem::Problem;
pub use problem_code::ProblemCode;
pub use request_id::{Identified, REQUEST_ID, RequestIdLayer, RequestIdService};
pub use serve::{
    BUFFER_BYTES, Buffers, ConnectionLimit, Flow, Folded, Folds, Inherited, InheritedError, ListenerOptions,
    LiveOptions, ServeOptions, ServeStats, Served, Stop, bind, poll_read_some, poll_write_some, serve, serve_peers,
};
pub use short_head::{SHORT_FIELDS_MAX, has_body, said_length, short_fields};
