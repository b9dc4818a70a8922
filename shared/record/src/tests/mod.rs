//! The record side over a real spool, with a receiver that can be away, forget and stall.

mod full_disk;
mod packing;
mod receiver;
mod recording;
mod relaying;
mod sealing;
mod showing;
