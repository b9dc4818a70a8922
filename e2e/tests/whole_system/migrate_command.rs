//! `migrate`: what it says of the price, what it takes back and only when told, and where everything stands. A start of the
//! one process changes no price that nobody asked it to.

use std::process::Output;

use goldleaves_testkit::nats::NatsServer;
use goldleaves_testkit::program::Launch;
use goldleaves_testkit::scratch::Scratch;
use serde_json::Value;

/// One call of `goldleaves migrate` in a folder: exit code, standard output and standard error.
fn migrate(scratch: &Scratch, arguments: &str, settings: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let launch =
        Launch::new("goldleaves", scratch.path()).setting("DATA_DIR", scratch.join("data")).argument("migrate");
    let launch = arguments.split_whitespace().fold(launch, Launch::argument);
    let settings = settings.iter().map(|(name, value)| (*name, (*value).to_owned()));
    let Output { status, stdout, stderr } = launch.settings(settings).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn a_price_changes_only_for_who_says_so() {
    let scratch = Scratch::new("migrate-price").unwrap();
    let rate = |cents| [("USAGE_RATE_CENTS", cents)];
    for (arguments, settings, expected, words) in [
        ("", &rate("10")[..], 0, "price: 10 cents per unit, version 1, the first card"),
        ("", &[], 0, "price unchanged: 10 cents per unit, version 1"),
        ("", &rate("10"), 0, "price unchanged: 10 cents per unit, version 1"),
        ("", &rate("25"), 0, "price: 10 → 25 from 2"),
        ("", &rate("101"), 70, "USAGE_RATE_CENTS changes the price by more than a factor of four: give --yes"),
        ("", &[], 0, "price unchanged: 25 cents per unit, version 2"),
        ("--yes", &rate("101"), 0, "price: 25 → 101 from 2"),
        ("--yes", &[], 0, "price unchanged: 101 cents per unit, version 3"),
    ] {
        let (code, _, said) = migrate(&scratch, arguments, settings);
        assert!(code == Some(expected) && said.contains(words), "{arguments} {settings:?}: {code:?} {said}");
    }
}

#[test]
fn one_step_back_destroys_what_was_agreed_to_alone() {
    let scratch = Scratch::new("migrate-down").unwrap();
    let production = [("ENVIRONMENT", "production")];
    assert_eq!(migrate(&scratch, "", &[]).0, Some(0));
    let applied = || migrate(&scratch, "status", &[]).1.matches("applied").count();
    let all = applied();
    // In production nothing goes back by itself, also when nothing would be lost.
    let (code, _, said) = migrate(&scratch, "down", &production);
    assert!(code == Some(70) && said.contains("in production nothing is taken back without --yes-drop 0"), "{said}");
    assert_eq!(applied(), all);
    // Elsewhere what only adds goes back, a step at a time, until rows would go.
    for left in (1..all).rev() {
        let (code, _, said) = migrate(&scratch, "down", &[]);
        assert!(code == Some(0) && said.contains("back destroys no row"), "{said}");
        assert_eq!(applied(), left);
    }
    for (arguments, settings, words) in [
        ("down", &[][..], "nothing was taken back: give --yes-drop 1 if these rows may go"),
        ("down", &production, "in production nothing is taken back without --yes-drop 1"),
        ("down --yes-drop 2", &[], "--yes-drop 2 is not the number of rows that would go, 1"),
        ("down --yes-drop 0", &production, "--yes-drop 0 is not the number of rows that would go, 1"),
    ] {
        let (code, _, said) = migrate(&scratch, arguments, settings);
        assert!(code == Some(70) && said.contains("destroys 1 rows: rate_cards 1"), "{arguments}: {said}");
        assert!(said.contains(words), "{arguments}: {said}");
        assert_eq!(applied(), 1, "{arguments}");
    }
    assert_eq!(migrate(&scratch, "down --yes-drop 1", &production).0, Some(0));
    assert_eq!(applied(), 0);
    let (code, _, said) = migrate(&scratch, "down", &[]);
    assert!(code == Some(0) && said.contains("there is no step to take back"), "{said}");
}

#[tokio::test]
async fn status_says_where_everything_stands_and_changes_nothing() {
    let scratch = Scratch::new("migrate-status").unwrap();
    let (code, said, _) = migrate(&scratch, "status", &[]);
    assert!(code == Some(1) && said.contains("pending  m20261124_000001_usage_ledger"), "{code:?} {said}");
    assert!(!scratch.join("data").exists(), "a look made a database");
    let server = NatsServer::start().await.unwrap();
    let (url, rate) = (server.url(), ("USAGE_RATE_CENTS", "7"));
    let json = |settings: &[(&str, &str)]| {
        let (code, said, _) = migrate(&scratch, "status --json", settings);
        (code, serde_json::from_str::<Value>(&said).unwrap())
    };
    assert_eq!(migrate(&scratch, "", &[rate]).0, Some(0));
    let (code, status) = json(&[("NATS_URL", &url)]);
    assert_eq!((code, &status["pending"]), (Some(0), &Value::from(0)), "{status}");
    assert_eq!(
        (&status["stream"]["name"], &status["stream"]["state"]),
        (&"USAGE".into(), &"missing".into()),
        "{status}"
    );
    assert_eq!(migrate(&scratch, "", &[("NATS_URL", &url)]).0, Some(0));
    let (code, status) = json(&[("NATS_URL", &url)]);
    assert_eq!((code, status["stream"]["state"].as_str()), (Some(0), Some("there")), "{status}");
    assert_eq!(status["stream"]["consumer"]["state"], "there", "{status}");
    assert_eq!(status["rate"]["pricing"]["cents_per_unit"], "7", "{status}");
    assert_eq!((&status["rate"]["version"], &status["rate"]["origin"]), (&1.into(), &"setting".into()), "{status}");
    let (code, said, _) = migrate(&scratch, "status", &[("NATS_URL", &url)]);
    assert!(code == Some(0) && said.contains("price    version 1, 7 cents per unit from 0001"), "{said}");
    assert!(said.contains("stream   USAGE there, consumer meter there"), "{said}");
    assert_eq!(migrate(&scratch, "down", &[]).0, Some(0));
    let (code, status) = json(&[]);
    assert_eq!((code, &status["pending"], &status["stream"]), (Some(1), &1.into(), &Value::Null), "{status}");
}

#[tokio::test]
async fn a_start_changes_no_price_by_itself() {
    let scratch = Scratch::new("start-price").unwrap();
    assert_eq!(migrate(&scratch, "", &[("USAGE_RATE_CENTS", "10")]).0, Some(0));
    for (rate, words) in [
        ("", "price unchanged: 10 cents per unit, version 1"),
        ("100", "10 → 100 would be a change by more than a factor of 4; goes on with the price in force"),
    ] {
        let program = Launch::new("goldleaves", scratch.path())
            .setting("DATA_DIR", scratch.join("data"))
            .setting("USAGE_RATE_CENTS", rate)
            .setting("GATEWAY_ADDR", "127.0.0.1:0")
            .setting("BILLING_ADDR", "127.0.0.1:0")
            .setting("OPS_ADDR", "127.0.0.1:0");
        let mut program = program.start().unwrap();
        program.printed("the price", |text| text.contains(words).then_some(())).await.unwrap();
        program.kill().unwrap();
    }
    let (_, said, _) = migrate(&scratch, "status", &[]);
    assert!(said.contains("price    version 1, 10 cents per unit"), "{said}");
}
