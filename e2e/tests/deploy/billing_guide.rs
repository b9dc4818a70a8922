//! The guide to billing, played: each of its commands is run in its order against a fresh ledger, and what it answers is what stands
//! under it, but for ids, moments and what was measured. The days of the guide are those of today.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use goldleaves_auth::WallClock;
use goldleaves_domain::Timestamp;
use goldleaves_e2e::deployment::{Deployment, Kind, SECRET};
use goldleaves_testkit::program::built;
use serde_json::Value;
use uuid::Uuid;

use crate::markdown::blocks;

const PAGE: &str = include_str!("../../../docs/BILLING.md");
const MINUTE: i64 = 60_000_000;
/// The event that the guide looks for and takes off the bill.
const EVENT: &str = "01a22e97-8083-7c95-b47d-bea329f350e9";
/// Members of answers that are measured, or made of what differs.
const LEFT_OUT: [&str; 3] = ["metadata", "next_cursor", "lines_hash"];

/// A command, and what stands under it.
#[derive(Debug)]
struct Step {
    command: String,
    answer: String,
}

/// The commands of all blocks. One goes on while its line ends in `\` or a quote is open.
fn steps() -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for block in blocks(PAGE).into_iter().filter(|block| block.language == "console") {
        let mut is_open = false;
        for line in block.text.lines() {
            match (line.strip_prefix("$ "), is_open) {
                (Some(command), false) => steps.push(Step { command: command.to_owned(), answer: String::new() }),
                (None, true) => steps.last_mut().unwrap().command += &format!("\n{line}"),
                // What is broken goes on behind two blanks.
                _ => match (steps.last_mut().unwrap(), line.strip_prefix("  ")) {
                    (step, Some(rest)) => step.answer += rest,
                    (step, None) if step.answer.is_empty() => step.answer += line,
                    (step, None) => step.answer += &format!("\n{line}"),
                },
            }
            let command = &steps.last().unwrap().command;
            is_open = steps.last().unwrap().answer.is_empty()
                && (command.ends_with('\\') || command.matches('\'').count() % 2 == 1);
        }
    }
    steps
}

/// A word of an answer; ids and moments are all the same one.
fn word(text: &str) -> &str {
    let hex = |text: &str| text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit());
    match text {
        _ if Uuid::try_parse(text).is_ok() => "(an id)",
        _ if hex(text) => "(a hash)",
        _ if text.len() >= 10 && text.parse::<Timestamp>().is_ok() => "(a moment)",
        _ => text,
    }
}

/// A text without what differs from day to day.
fn timeless(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-:.".contains(c);
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| is_part(c) != is_part(first)).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        let bare = part.trim_end_matches([':', '.']);
        out.push_str(word(bare));
        out.push_str(&part[bare.len()..]);
        rest = after;
    }
    out
}

fn shown(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.iter().filter(|(name, _)| !LEFT_OUT.contains(&name.as_str()));
            kept.map(|(name, value)| (name.clone(), shown(value))).collect()
        }
        Value::Array(items) => items.iter().map(shown).collect(),
        Value::String(text) => Value::from(timeless(text)),
        other => other.clone(),
    }
}

/// The part of an answer that is the same on every day.
fn kept(answer: &str) -> String {
    match serde_json::from_str::<Value>(answer) {
        Ok(value) => format!("{:#}", shown(&value)),
        Err(_) => timeless(answer.replace('\r', "").trim_end()),
    }
}

/// Today, where the guide has a day.
struct Today {
    gateway: String,
    month: String,
    next_month: String,
    soon: Timestamp,
    ended: Timestamp,
}

impl Today {
    fn at(now: Timestamp, gateway: String) -> Self {
        let month = now.to_string()[..7].to_owned();
        let (year, number) = (month[..4].parse::<u32>().unwrap(), month[5..].parse::<u32>().unwrap());
        let (year, number) = if number == 12 { (year + 1, 1) } else { (year, number + 1) };
        let minutes = |count: i64| now.plus_micros(count * MINUTE).unwrap();
        Self { gateway, month, next_month: format!("{year}-{number:02}"), soon: minutes(2), ended: minutes(-65) }
    }

    /// No hour of this month has been over for long enough that a period could end there.
    fn is_young(&self) -> bool {
        !self.ended.to_string().starts_with(&self.month)
    }

    /// The usage of just now is of another hour than what is said to come soon.
    fn is_late(&self) -> bool {
        self.soon.hour() != self.soon.plus_micros(-2 * MINUTE).unwrap().hour()
    }

    fn command(&self, command: &str, event: &str) -> String {
        command
            .replace("http://127.0.0.1:8080", &self.gateway)
            .replace("2026-11-30T22:35:32Z", &self.soon.to_string())
            .replace("2026-11-30T01:00:00Z", &self.ended.to_string())
            .replace("\"2026-12-01\"", &format!("\"{}-01\"", self.next_month))
            .replace("\"2026-11-02\"", &format!("\"{}-01\"", self.month))
            .replace("month=2026-11", &format!("month={}", self.month))
            .replace(EVENT, event)
    }
}

/// A shell that has the program of this build.
struct Shell {
    environment: BTreeMap<String, String>,
    folder: PathBuf,
}

impl Shell {
    fn run(&self, command: &str) -> String {
        let mut bash = Command::new("bash");
        bash.args(["-c", &format!("{{ {command}\n}} 2>&1")]).env_clear().envs(&self.environment);
        let output = bash.current_dir(&self.folder).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command; a value that it gives a name is there for those that follow.
    fn play(&mut self, command: &str) -> String {
        match command.split_once('=') {
            Some((name, _)) if name.chars().all(|c| c.is_ascii_uppercase()) => {
                let value = self.run(&format!("{command}; printf %s \"${name}\""));
                self.environment.insert(name.to_owned(), value);
                String::new()
            }
            _ => self.run(command),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guide_to_billing_is_what_the_program_answers() {
    let deployment = Deployment::start_with(Kind::Embedded, &[]).await.unwrap();
    let programs = built("goldleaves").unwrap().parent().unwrap().display().to_string();
    let environment = BTreeMap::from([
        ("PATH".to_owned(), format!("{programs}:{}", std::env::var("PATH").unwrap())),
        ("DATA_DIR".to_owned(), deployment.data_folder().display().to_string()),
        ("JWT_SECRET".to_owned(), SECRET.to_owned()),
        ("LOG_LEVEL".to_owned(), "error".to_owned()),
    ]);
    let mut shell = Shell { environment, folder: deployment.folder().to_path_buf() };
    let gateway = format!("http://{}", deployment.gateway().unwrap());
    let clock = WallClock::system();
    let (steps, mut event) = (steps(), EVENT.to_owned());
    assert!(steps.len() > 25, "{steps:#?}");
    let mut asked = 0;
    for Step { command, answer } in &steps {
        if command.starts_with("curl") && asked == 0 && !answer.is_empty() {
            let calls = deployment.summary_of("acme", 8).await.unwrap();
            assert_eq!(calls["total_units"], 9.5, "{calls}");
        }
        asked += usize::from(!answer.is_empty());
        let today = Today::at(clock.timestamp().unwrap(), gateway.clone());
        if today.is_late() && command.contains("2026-11-30T22:35:32Z") {
            eprintln!("not played in the last minutes of an hour: {command}");
            continue;
        }
        if today.is_young() && command.contains("2026-11-30T01:00:00Z") {
            eprintln!("played no further in the first hours of a month: {command}");
            return;
        }
        let got = shell.play(&today.command(command, &event));
        assert_eq!(kept(&got), kept(answer), "{command}\n{got}");
        if let Ok(found) = serde_json::from_str::<Value>(&got)
            && let Some(id) = found["matches"][0]["event_id"].as_str()
        {
            id.clone_into(&mut event);
        }
    }
}
