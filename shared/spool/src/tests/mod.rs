//! Tests of the whole spool; see each file for what it asks.

mod basics;
