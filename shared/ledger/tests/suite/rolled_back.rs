//! SQLite rolls a whole transaction back by itself when its disk is full, and leaves the next one to fail in another way.
//! What is recorded afterwards must be there for everybody, not in a transaction that nobody ends.

use crate::events::{batch, event};
use crate::harness::{Database, Kind};

#[tokio::test]
async fn what_follows_transactions_that_failed_is_committed() {
    let database = Database::new(Kind::Sqlite).await;
    let ledger = database.priced().await;
    // ROLLBACK ends the transaction under the driver's feet, ABORT leaves it open.
    for (number, failure) in ["ROLLBACK", "ABORT", "ROLLBACK", "ROLLBACK", "ABORT"].iter().enumerate() {
        let obstacle = format!("BEGIN SELECT RAISE({failure}, 'full'); END");
        database.execute(&format!("CREATE TRIGGER obstacle_{number} BEFORE INSERT ON usage_events {obstacle}")).await;
        assert!(ledger.record(&batch(&[event(1), event(2)])).await.is_err());
        database.execute(&format!("DROP TRIGGER obstacle_{number}")).await;
    }
    for number in 1..=3 {
        let recorded = ledger.record(&batch(&[event(number)])).await.unwrap();
        assert_eq!(recorded.inserted, 1);
        assert_eq!(database.count("usage_events").await, usize::try_from(number).unwrap());
    }
}
