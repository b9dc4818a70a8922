//! `docs/REPLAY.md`: its commands are ones that `goldleaves` and the NATS CLI have, and the consumer they add is the one that
//! workers use.

use goldleaves_stream::Topology;
use goldleaves_testkit::program::Launch;
use goldleaves_testkit::scratch::Scratch;
use serde_json::{Value, json};

use crate::markdown::{blocks, commands};
use crate::nats::Deployed;
use crate::text;

/// A command of the NATS CLI, as its own help lists it: how many arguments it takes, and its flags. A flag that ends in
/// `=` takes a value.
struct Documented {
    words: &'static [&'static str],
    arguments: usize,
    flags: &'static [&'static str],
}

const CLI: [Documented; 12] = [
    Documented { words: &["stream", "info"], arguments: 1, flags: &["json", "state", "no-select"] },
    Documented { words: &["stream", "subjects"], arguments: 2, flags: &["json", "sort=", "reverse", "names"] },
    Documented { words: &["stream", "get"], arguments: 2, flags: &["last-for=", "json", "translate="] },
    Documented { words: &["stream", "view"], arguments: 2, flags: &["id=", "since=", "raw", "translate=", "subject="] },
    Documented {
        words: &["stream", "edit"],
        arguments: 1,
        flags: &["config=", "force", "interactive", "dry-run", "max-bytes=", "max-age=", "replicas=", "dupe-window="],
    },
    Documented {
        words: &["stream", "backup"],
        arguments: 2,
        flags: &["progress", "no-progress", "check", "consumers", "no-consumers", "chunk-size=", "window-size="],
    },
    Documented {
        words: &["stream", "restore"],
        arguments: 1,
        flags: &["progress", "no-progress", "config=", "cluster=", "tag=", "replicas="],
    },
    Documented { words: &["consumer", "info"], arguments: 2, flags: &["json", "no-select"] },
    Documented { words: &["consumer", "rm"], arguments: 2, flags: &["force"] },
    Documented {
        words: &["consumer", "add"],
        arguments: 2,
        flags: &[
            "config=",
            "validate",
            "output=",
            "defaults",
            "ack=",
            "deliver=",
            "description=",
            "filter=",
            "max-deliver=",
            "max-pending=",
            "max-waiting=",
            "pull",
            "replay=",
            "wait=",
            "replicas=",
        ],
    },
    Documented {
        words: &["publish"],
        arguments: 2,
        flags: &[
            "reply=",
            "header=",
            "count=",
            "sleep=",
            "force-stdin",
            "jetstream",
            "send-on=",
            "quiet",
            "no-templates",
        ],
    },
    Documented {
        words: &["subscribe"],
        arguments: 1,
        flags: &[
            "queue=",
            "raw",
            "ack",
            "count=",
            "dump=",
            "headers-only",
            "start-sequence=",
            "all",
            "new",
            "last",
            "since=",
        ],
    },
];

/// A call as written: the command, its arguments and its flags with their values.
struct Call {
    line: String,
    command: &'static Documented,
    arguments: Vec<String>,
    flags: Vec<(String, Option<String>)>,
}

impl Call {
    fn flag(&self, name: &str) -> Option<&str> {
        self.flags.iter().find(|(flag, _)| flag == name).and_then(|(_, value)| value.as_deref())
    }
}

fn parse(line: &str) -> Result<Call, String> {
    let words: Vec<String> = line.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned()).collect();
    let words = words.strip_prefix(&["nats".to_owned()]).ok_or("it does not begin with nats")?;
    let is_it = |command: &&Documented| {
        words.iter().map(String::as_str).take(command.words.len()).eq(command.words.iter().copied())
    };
    let command = CLI.iter().find(is_it).ok_or("the CLI has no such command, as far as this table knows")?;
    let mut call = Call { line: line.to_owned(), command, arguments: Vec::new(), flags: Vec::new() };
    let mut rest = words[command.words.len()..].iter();
    while let Some(word) = rest.next() {
        let Some(flag) = word.strip_prefix("--") else {
            call.arguments.push(word.clone());
            continue;
        };
        let (name, given) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value.to_owned())));
        let value = if command.flags.contains(&format!("{name}=").as_str()) {
            Some(given.or_else(|| rest.next().cloned()).ok_or(format!("--{name} lacks its value"))?)
        } else if command.flags.contains(&name) && given.is_none() {
            None
        } else {
            return Err(format!("--{name} is no flag of it, or takes no value"));
        };
        call.flags.push((name.to_owned(), value));
    }
    if call.arguments.len() > command.arguments {
        return Err(format!("too many arguments: {:?}", call.arguments));
    }
    Ok(call)
}

/// Every call of the CLI in the document, also within pipes.
fn calls() -> Vec<Call> {
    let document = text("docs/REPLAY.md");
    let found = blocks(&document);
    let lines = found.iter().filter(|block| block.language == "bash").flat_map(|block| commands(&block.text));
    let parts = lines.flat_map(|line| line.split(" | ").map(|part| part.trim().to_owned()).collect::<Vec<_>>());
    let calls = parts.filter(|part| part.starts_with("nats "));
    calls.map(|line| parse(&line).unwrap_or_else(|wrong| panic!("{line}: {wrong}"))).collect()
}

#[test]
fn every_command_is_one_that_the_cli_documents() {
    let calls = calls();
    assert!(calls.len() >= 20, "only {} commands were found", calls.len());
    for call in &calls {
        let of_stream = ["stream", "consumer"].contains(&call.command.words[0]) && call.command.words[1] != "restore";
        assert!(!of_stream || call.arguments[0] == "USAGE", "{}", call.line);
        assert!(call.command.words[0] != "consumer" || call.arguments[1] == "meter", "{}", call.line);
    }
}

#[test]
fn a_command_that_the_cli_does_not_have_is_noticed() {
    for wrong in [
        "nats stream purge USAGE",
        "nats consumer add USAGE meter --max-tries 3",
        "nats stream get USAGE 1 2",
        "nats consumer rm USAGE meter --force=yes",
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn every_command_of_goldleaves_is_one_that_it_has() {
    let document = text("docs/REPLAY.md");
    let found = blocks(&document);
    let lines = found.iter().filter(|block| block.language == "bash").flat_map(|block| commands(&block.text));
    let calls: Vec<String> = lines
        .filter_map(|line| line.split_once("goldleaves ").map(|(_, call)| call.to_owned()))
        .filter(|call| call.starts_with("replay") || call.starts_with("rate-cards"))
        .collect();
    assert!(calls.len() >= 8, "{calls:?}");
    let scratch = Scratch::new("commands").unwrap();
    for call in calls.iter().map(String::as_str).chain(["replay --since 1h"]) {
        let words = call.split(['<', '>']).next().unwrap().split_whitespace();
        let launch = words.fold(Launch::new("goldleaves", scratch.path()), Launch::argument);
        let output = launch.setting("DATA_DIR", scratch.join("none")).output().unwrap();
        // There is neither a stream nor a database here: 64 would be a command line that is not understood.
        let expected = if call.contains("--since") {
            64
        } else if call.starts_with("replay") {
            78
        } else {
            70
        };
        assert_eq!(output.status.code(), Some(expected), "{call}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The configuration that the CLI makes of its flags.
fn config_of(call: &Call) -> Value {
    let flag = |name: &str| call.flag(name).unwrap_or_else(|| panic!("{}: no --{name}", call.line));
    let number = |name: &str| flag(name).parse::<i64>().unwrap();
    let seconds: u64 = flag("wait").trim_end_matches('s').parse().unwrap();
    assert!(call.flags.iter().any(|(name, _)| name == "pull") && call.flags.iter().any(|(name, _)| name == "defaults"));
    let mut config = json!({
        "durable_name": call.arguments[1],
        "ack_policy": flag("ack"),
        "ack_wait": seconds * 1_000_000_000,
        "max_deliver": number("max-deliver"),
        "max_ack_pending": number("max-pending"),
        "replay_policy": flag("replay"),
    });
    match flag("deliver").parse::<u64>() {
        Ok(sequence) => {
            config["deliver_policy"] = "by_start_sequence".into();
            config["opt_start_seq"] = sequence.into();
        }
        Err(_) => config["deliver_policy"] = flag("deliver").into(),
    }
    config
}

#[tokio::test]
async fn the_consumers_it_adds_differ_from_the_declared_one_in_their_start_only() {
    let server = Deployed::start().await;
    let admin = server.as_program("ADMIN").await;
    Topology {
        replicas: 1,
        bytes_max: 1 << 30,
        bytes_min: 1 << 30,
        history: std::time::Duration::from_secs(45 * 86_400),
    }
    .declare(&admin)
    .await
    .unwrap();
    let mut wire = server.as_anybody("ADMIN").await;
    let declared = wire.ask("$JS.API.CONSUMER.INFO.USAGE.meter", "").await.unwrap()["config"].clone();

    let calls = calls();
    let with_flags =
        calls.iter().filter(|call| call.command.words == ["consumer", "add"] && call.flag("config").is_none());
    let mut configs: Vec<Value> = with_flags.map(config_of).collect();
    let document = text("docs/REPLAY.md");
    let file = blocks(&document).into_iter().find(|block| block.language == "json").unwrap();
    configs.push(serde_json::from_str(&file.text).unwrap());
    let starts: Vec<_> = configs.iter().map(|config| config["deliver_policy"].as_str().unwrap().to_owned()).collect();
    assert_eq!(starts, ["by_start_sequence", "all", "by_start_time"]);

    for config in configs {
        let gone = wire.ask("$JS.API.CONSUMER.DELETE.USAGE.meter", "").await.unwrap();
        assert_eq!(gone["success"], true, "{gone}");
        let request = json!({ "stream_name": "USAGE", "config": config }).to_string();
        let made = wire.ask("$JS.API.CONSUMER.DURABLE.CREATE.USAGE.meter", &request).await.unwrap();
        assert!(made["error"].is_null(), "{made}");
        let present = Topology::check(&admin).await.unwrap();
        assert!(present.stream && present.consumer, "workers take it");
        for (field, value) in declared.as_object().unwrap() {
            if !["deliver_policy", "description", "name", "metadata"].contains(&field.as_str()) {
                assert_eq!(&made["config"][field], value, "{field} of {config}");
            }
        }
    }
}
