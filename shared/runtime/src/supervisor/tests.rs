//! Tasks under their rules: order of stopping, failures, panics, deadlines.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::*;

const GRACE: Duration = Duration::from_secs(30);

const fn rule(name: &'static str, stage: Stage) -> TaskRule {
    TaskRule { name, stage, on_cancel: OnCancel::Finish, on_failure: OnFailure::Stop }
}

#[tokio::test(start_paused = true)]
async fn stages_stop_one_after_the_other() {
    let shutdown = Shutdown::new();
    let mut supervisor = Supervisor::new(shutdown.clone());
    let order = Arc::new(Mutex::new(Vec::new()));
    for (name, stage) in [("ops", Stage::Ops), ("relay", Stage::Flow), ("edge", Stage::Edge), ("meter", Stage::Sink)] {
        let order = Arc::clone(&order);
        supervisor.spawn(rule(name, stage), move |token| {
            let order = Arc::clone(&order);
            async move {
                token.cancelled().await;
                tokio::time::sleep(Duration::from_secs(1)).await;
                order.lock().unwrap().push(name);
                Ok::<_, String>(())
            }
        });
    }
    shutdown.ask();
    assert_eq!(supervisor.run(GRACE).await, Exit::Done);
    assert_eq!(*order.lock().unwrap(), ["edge", "relay", "meter", "ops"]);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_finish_is_named_and_dropped() {
    struct Dropped(Arc<AtomicU32>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    let shutdown = Shutdown::new();
    let mut supervisor = Supervisor::new(shutdown.clone());
    let drops = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&drops);
    supervisor.spawn(rule("stubborn", Stage::Flow), move |_| {
        let held = Dropped(Arc::clone(&counted));
        async move {
            let _held = held;
            std::future::pending::<Result<(), String>>().await
        }
    });
    let abort = TaskRule { on_cancel: OnCancel::Abort, ..rule("careless", Stage::Edge) };
    supervisor.spawn(abort, |_| std::future::pending::<Result<(), String>>());
    supervisor.spawn(rule("good", Stage::Ops), |token| async move {
        token.cancelled().await;
        Ok::<_, String>(())
    });
    tokio::task::yield_now().await;
    shutdown.ask();
    let exit = supervisor.run(GRACE).await;
    assert_eq!(exit, Exit::Unfinished(vec!["stubborn".to_owned()]));
    assert_eq!(exit.code(), 75);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(drops.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_task_left_undone_is_told_in_its_words() {
    let shutdown = Shutdown::new();
    let mut supervisor = Supervisor::new(shutdown.clone());
    supervisor.spawn(rule("relay", Stage::Flow), |token| async move {
        token.cancelled().await;
        Err("12 records are not sent")
    });
    shutdown.ask();
    let exit = supervisor.run(GRACE).await;
    assert_eq!(exit, Exit::Unfinished(vec!["relay: 12 records are not sent".to_owned()]));
    assert_eq!(exit.to_string(), "did not finish: relay: 12 records are not sent");
}

#[tokio::test]
async fn a_second_signal_names_only_what_does_not_end() {
    let shutdown = Shutdown::new();
    let mut supervisor = Supervisor::new(shutdown.clone());
    let at_once = shutdown.at_once_token();
    supervisor.spawn(rule("quick", Stage::Edge), move |_| {
        let at_once = at_once.clone();
        async move {
            at_once.cancelled().await;
            // What it takes to put things away.
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok::<_, String>(())
        }
    });
    supervisor.spawn(rule("stubborn", Stage::Edge), |_| std::future::pending::<Result<(), String>>());
    shutdown.ask_at_once();
    let exit = supervisor.run(Duration::from_secs(86_400)).await;
    assert_eq!(exit, Exit::Unfinished(vec!["stubborn".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn failures_and_panics_stop_the_process() {
    for how in ["fails", "panics", "panics early", "ends"] {
        let mut supervisor = Supervisor::new(Shutdown::new());
        let heard = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&heard);
        supervisor.spawn(rule("other", Stage::Flow), move |token| {
            let count = Arc::clone(&count);
            async move {
                token.cancelled().await;
                count.fetch_add(1, Ordering::Relaxed);
                Ok::<_, String>(())
            }
        });
        supervisor.spawn(rule("part", Stage::Edge), move |_| {
            assert!(how != "panics early", "as it was told");
            async move {
                match how {
                    "fails" => Err("no luck".to_owned()),
                    "ends" => Ok(()),
                    _ => panic!("as it was told"),
                }
            }
        });
        let exit = supervisor.run(GRACE).await;
        assert_eq!(exit.code(), 70, "{how}");
        assert_eq!(exit, Exit::Failed("part".to_owned()), "{how}");
        assert_eq!(heard.load(Ordering::Relaxed), 1, "the others are stopped in order");
    }
}

#[tokio::test(start_paused = true)]
async fn restarted_and_reported_tasks_do_not_stop_the_process() {
    let shutdown = Shutdown::new();
    let mut supervisor = Supervisor::new(shutdown.clone());
    let starts = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&starts);
    let restart = TaskRule { on_failure: OnFailure::Restart, ..rule("flaky", Stage::Flow) };
    supervisor.spawn(restart, move |token| {
        let start = count.fetch_add(1, Ordering::Relaxed);
        async move {
            match start {
                0 => Err("first".to_owned()),
                1 => panic!("second"),
                _ => {
                    token.cancelled().await;
                    Ok(())
                }
            }
        }
    });
    let asking = shutdown.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        asking.ask();
    });
    assert_eq!(supervisor.run(GRACE).await, Exit::Done);
    assert_eq!(starts.load(Ordering::Relaxed), 3);
}
