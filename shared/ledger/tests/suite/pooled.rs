//! PgBouncer before the database: sessions of one's own are as good as the server's, shared ones are refused.

use goldleaves_domain::UsageEvent;
use goldleaves_ledger::{Ledger, StoreError, StoreOptions};
use goldleaves_testkit::pgbouncer::PgBouncer;
use goldleaves_testkit::postgres::Postgres;

use crate::events::{event, incoming};
use crate::harness::{connect, rows};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_a_pooler_do() {
    let server = Postgres::shared().await.unwrap();
    let pooler = PgBouncer::start(server, "pool_mode = session\nserver_reset_query = DISCARD ALL").await.unwrap();
    let direct = server.empty_database().await.unwrap();
    let url = pooler.through(&direct).unwrap();
    goldleaves_testkit::migrations::up(&url, &|_| ()).await.unwrap();
    goldleaves_testkit::migrations::up(&url, &|_| ()).await.unwrap();

    // Who comes after another one in a session has nothing of it.
    for part in 0..3 {
        let ledger = Ledger::connect(&url, StoreOptions::default()).await.unwrap();
        ledger.store().reach().await.unwrap();
        ledger.check_schema().await.unwrap();
        ledger.set_rate("25".parse().unwrap(), "2026-01-01".parse().unwrap()).await.unwrap();
        let events: Vec<UsageEvent> = (1..=40).map(|number| event(part * 40 + number)).collect();
        let mut tasks = tokio::task::JoinSet::new();
        for piece in events.chunks(5) {
            let (ledger, piece): (_, Vec<_>) = (ledger.clone(), piece.iter().map(incoming).collect());
            tasks.spawn(async move { ledger.record(&piece).await.unwrap().inserted });
        }
        assert_eq!(tasks.join_all().await.into_iter().sum::<u64>(), 40);
        ledger.store().close().await;
    }
    let raw = connect(&direct).await;
    let count = rows(&raw, "SELECT COUNT(*)::text FROM usage_events").await;
    assert_eq!(count[0][0].as_deref(), Some("120"), "{}", pooler.log());
}

#[tokio::test]
async fn a_session_has_its_settings_through_a_pooler_too() {
    let server = Postgres::shared().await.unwrap();
    let pooler = PgBouncer::start(server, "pool_mode = session").await.unwrap();
    let direct = server.database().await.unwrap();
    for url in [pooler.through(&direct).unwrap(), direct] {
        let ledger = Ledger::connect(&url, StoreOptions::default()).await.unwrap();
        let settings = "SELECT string_agg(current_setting(name), ' ' ORDER BY place) AS settings FROM unnest(ARRAY[ \
                        'default_transaction_isolation', 'synchronous_commit', 'statement_timeout', \
                        'idle_in_transaction_session_timeout', 'lock_timeout', 'tcp_user_timeout', 'TimeZone']) \
                        WITH ORDINALITY AS names (name, place)";
        let rows = ledger.store().read(settings, Default::default()).await.unwrap();
        let said: String = rows[0].try_get("", "settings").unwrap();
        assert_eq!(said, "read committed on 40s 40s 5s 60000 UTC", "{url}");
        ledger.store().close().await;
    }
}

#[tokio::test]
async fn sessions_that_a_pooler_shares_out_are_refused() {
    let server = Postgres::shared().await.unwrap();
    let direct = server.database().await.unwrap();
    for mode in ["transaction", "statement"] {
        for server_pool in ["", "server_round_robin = 1"] {
            let pooler = PgBouncer::start(server, &format!("pool_mode = {mode}\n{server_pool}")).await.unwrap();
            let url = pooler.through(&direct).unwrap();
            let ledger = Ledger::connect(&url, StoreOptions::default()).await.unwrap();
            let refused = ledger.store().reach().await.unwrap_err();
            assert!(matches!(refused, StoreError::Pooled), "{mode}: {refused:?}\n{}", pooler.log());
            assert!(refused.to_string().contains("pool_mode = session"), "{refused}");
        }
    }
}

/// A pooler that refuses what it is asked for while it is connected to is named, and not waited for.
#[tokio::test]
async fn options_that_a_pooler_does_not_take_are_named() {
    let server = Postgres::shared().await.unwrap();
    let pooler = PgBouncer::start(server, "pool_mode = session").await.unwrap();
    let url = pooler.through(&server.database().await.unwrap()).unwrap();
    let ledger = Ledger::connect(&format!("{url}?options=-c%20geqo%3Doff"), StoreOptions::default()).await.unwrap();
    let refused = ledger.store().reach().await.unwrap_err();
    assert!(matches!(&refused, StoreError::Refused { said, .. } if said.contains("options")), "{refused:?}");
}
