//! The product from outside: the built programs, real applications behind them, real clients before them.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails loudly")]

/// Makes each case a test of its own in both deployments.
macro_rules! on_both {
    ($($case:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(goldleaves_e2e::deployment::Kind::Embedded).await;
            })*
        }
        mod distributed {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(goldleaves_e2e::deployment::Kind::Distributed).await;
            })*
        }
    };
}

mod applications;
mod archived_by_hand;
mod attackers;
mod bad_input;
mod billing_command;
mod cards_went_back;
mod chaos;
mod cluster;
mod command_line;
mod contract_edge;
mod contract_ledger;
mod crash;
mod csv_memory;
mod fair_share;
mod first_start;
mod foreign_upstreams;
mod formats;
mod frozen_disk;
mod full_disk;
mod full_stream;
mod hand_over;
mod lost_stores;
mod malformed;
mod memory;
mod migrate_command;
mod neighbours;
mod nonsense;
mod outage;
mod oversized;
mod peers;
mod poison;
mod pooled;
mod power_cut;
mod rebuild;
mod reload;
mod repeats;
mod replay;
mod replay_command;
mod resend;
mod restored_ledger;
mod silent_nats;
mod stop;
mod stripe_days;
mod stripe_push;
mod stripe_tls;
mod three_addresses;
mod traces;
mod used_stream;
mod wrong_start;

/// Returns whether the long forms are wanted.
fn soak() -> bool {
    std::env::var_os("GOLDLEAVES_SOAK").is_some()
}
