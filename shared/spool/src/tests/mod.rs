//! Tests of the whole spool; see each file for what it asks.

mod basics;
mod bounds;
mod damage;
mod disk;
mod faults;
mod full_start;
mod model;
mod random;
mod settling;
mod threads;
mod waiting;
