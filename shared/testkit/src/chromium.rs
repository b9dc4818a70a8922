//! A real Chromium without a window, told what to do over two pipes by the protocol of its developer tools.
//!
//! What it does not do: it is no driver for all that a browser can. It opens a page, runs scripts in it, and keeps what the
//! page complained of.

#![expect(clippy::indexing_slicing, reason = "a member that JSON lacks reads as null")]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::child::Child;

/// The time for which it may live: one that hangs must not hang the test.
const LIFE_MAX: Duration = Duration::from_secs(180);
/// The browser's pipes are its descriptors 3 and 4. Opening one waits for the other side, so both take the same order.
const START: &str = r#"exec "$1" --headless --no-sandbox --disable-gpu \
    --no-first-run --disable-dev-shm-usage --disable-component-update --disable-background-networking \
    --user-data-dir="$2/profile" --remote-debugging-pipe about:blank 3<"$2/orders" 4>"$2/answers" >/dev/null 2>"$2/log""#;

/// A browser with one page. Its calls wait for their answers: in a test, on a thread that may.
#[derive(Debug)]
pub struct Chromium {
    orders: File,
    answers: BufReader<File>,
    last: u64,
    session: Option<String>,
    said: Vec<Value>,
    /// Dropped first of what follows: then nobody ends another process of the same number.
    _life: mpsc::Sender<()>,
    _child: Child,
    _folder: TempDir,
}

impl Chromium {
    /// Starts this program.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(program: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("goldleaves-chromium-").tempdir()?;
        let mut command = Command::new("sh");
        command.args(["-c", START, "chromium"]).arg(program).arg(folder.path());
        command.stdin(Stdio::null());
        let [orders, answers] = ["orders", "answers"].map(|name| folder.path().join(name));
        let made = Command::new("mkfifo").args([&orders, &answers]).status().context("making the pipes of chromium")?;
        ensure!(made.success(), "no pipes for chromium");
        let child = Child::spawn(command, "chromium")?;
        let life = watch(child.id());
        let orders = File::options().write(true).open(orders).context("chromium's orders")?;
        let answers = File::open(answers).context("chromium's answers")?;
        let answers = BufReader::new(answers);
        Ok(Self {
            orders,
            answers,
            last: 0,
            session: None,
            said: Vec::new(),
            _life: life,
            _child: child,
            _folder: folder,
        })
    }

    /// Opens a page; it may still be loading.
    ///
    /// # Errors
    /// The browser refuses, or is gone.
    pub fn open(&mut self, url: &str) -> Result<()> {
        let target = self.order("Target.createTarget", json!({"url": "about:blank"}))?;
        let session = self.order("Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true}))?;
        self.session = Some(session["sessionId"].as_str().context("no session")?.to_owned());
        for domain in ["Runtime", "Log", "Page"] {
            self.order(&format!("{domain}.enable"), json!({}))?;
        }
        self.order("Page.navigate", json!({"url": url})).map(drop)
    }

    /// Runs an expression in the page, waits for it where it is a promise, and returns its value.
    ///
    /// # Errors
    /// It throws, or the browser is gone.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let order = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut done = self.order("Runtime.evaluate", order)?;
        ensure!(done["exceptionDetails"].is_null(), "the page threw {}", done["exceptionDetails"]);
        Ok(done["result"]["value"].take())
    }

    /// Returns the page's complaints so far: exceptions, errors in its console and its log.
    pub fn complaints(&self) -> Vec<&Value> {
        let is_one = |said: &&Value| match said["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => {
                said["params"]["type"] == "error" || said["params"]["type"] == "warning"
            }
            Some("Log.entryAdded") => said["params"]["entry"]["level"] == "error",
            _ => false,
        };
        self.said.iter().filter(is_one).collect()
    }

    fn order(&mut self, method: &str, params: Value) -> Result<Value> {
        self.last += 1;
        let mut order = json!({"id": self.last, "method": method, "params": params});
        if let Some(session) = &self.session {
            order["sessionId"] = session.as_str().into();
        }
        let mut bytes = order.to_string().into_bytes();
        bytes.push(0);
        self.orders.write_all(&bytes).context("chromium takes no orders")?;
        loop {
            let mut bytes = Vec::new();
            self.answers.read_until(0, &mut bytes).context("chromium's answers")?;
            if bytes.pop() != Some(0) {
                bail!(
                    "chromium is gone: {}",
                    std::fs::read_to_string(self._folder.path().join("log")).unwrap_or_default()
                );
            }
            let mut answer: Value = serde_json::from_slice(&bytes).context("an answer of chromium")?;
            if answer["id"] != self.last {
                self.said.push(answer);
                continue;
            }
            ensure!(answer["error"].is_null(), "{method}: {}", answer["error"]);
            return Ok(answer["result"].take());
        }
    }
}

/// Ends the process unless what is returned is dropped before its time is over.
fn watch(id: u32) -> mpsc::Sender<()> {
    let (life, watched) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        if watched.recv_timeout(LIFE_MAX) == Err(mpsc::RecvTimeoutError::Timeout)
            && let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw)
        {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
    });
    life
}
