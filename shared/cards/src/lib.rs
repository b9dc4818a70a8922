//! The table of rate cards, which workers read and billing adds to: how a row is read and written, how cards come in from
//! another ledger, and how they stand in a file.
//!
//! Ledger and billing may not use each other, and a price must mean the same to both: so what both do with the table is
//! here. What this crate does not do: it prices nothing (that is `goldleaves_pricing`), and it chooses no moment from which
//! a new price is valid.

mod file;
mod import;
mod table;
mod text;

pub use file::{CardsFile, CardsFileError};
pub use import::{ImportError, Imported, import};
pub use table::{
    BEGINNING_MICROS, NEWEST, NewRow, Newest, StoredCard, Which, insert, next_version, read_pricing, select,
};
pub use text::{RateCardsError, read_rate_card, read_rate_cards, write_rate_cards};
