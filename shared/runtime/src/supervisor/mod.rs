//! The tasks of a process: each with a name, a cancel rule and a failure rule as data; stopped stage by stage.

use std::any::Any;
use std::fmt::Display;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::{Exit, Shutdown};

const RESTART_PAUSE_MIN: Duration = Duration::from_millis(100);
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(10);
/// The time that a task has to put things away once a stop without waiting was asked for: it is named only if it takes
/// longer.
const AT_ONCE_MAX: Duration = Duration::from_secs(1);

/// When a task is asked to stop: first what brings work in, last what tells about the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Takes requests in: listeners and what serves them.
    Edge,
    /// Carries what was recorded: relay, sealer.
    Flow,
    /// Stores what was carried: meter, pushers.
    Sink,
    /// Tells about the process: ops listener.
    Ops,
}

impl Stage {
    const ALL: [Self; 4] = [Self::Edge, Self::Flow, Self::Sink, Self::Ops];
}

/// The rule for a task whose stage is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnCancel {
    /// It hears its token and finishes by itself; what has not at the deadline is aborted and named.
    Finish,
    /// It is dropped at once: it holds nothing that matters.
    Abort,
}

/// The rule for a task that fails, panics or ends though nobody asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The process stops in order, exit code 70.
    Stop,
    /// It is reported and started again, after a pause that grows from 0.1 s to 10 s.
    Restart,
}

/// A task's name and rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskRule {
    /// The name in logs and exit messages.
    pub name: &'static str,
    /// When it is stopped.
    pub stage: Stage,
    /// The way it is stopped.
    pub on_cancel: OnCancel,
    /// The rule for its failure.
    pub on_failure: OnFailure,
}

/// The end of a task, as the supervisor must know it.
#[derive(Debug)]
enum TaskEnd {
    /// The process cannot go on without it.
    Failed(&'static str),
    /// It stopped because it was asked, with something left to do, in words.
    Unfinished(String),
}

/// Runs the tasks of a process and stops them in order.
#[derive(Debug)]
pub struct Supervisor {
    shutdown: Shutdown,
    tokens: [(Stage, CancellationToken); 4],
    running: Vec<RunningTask>,
    ended: (mpsc::UnboundedSender<usize>, mpsc::UnboundedReceiver<usize>),
    reports: (mpsc::UnboundedSender<TaskEnd>, mpsc::UnboundedReceiver<TaskEnd>),
}

#[derive(Debug)]
struct RunningTask {
    rule: TaskRule,
    abort: Option<CancellationToken>,
    over: bool,
}

impl Supervisor {
    /// Nothing runs yet. `shutdown` is what ends [`Supervisor::run`].
    pub fn new(shutdown: Shutdown) -> Self {
        Self {
            shutdown,
            tokens: Stage::ALL.map(|stage| (stage, CancellationToken::new())),
            running: Vec::new(),
            ended: mpsc::unbounded_channel(),
            reports: mpsc::unbounded_channel(),
        }
    }

    /// Starts a task on the current runtime. `start` is given the token that asks it to stop, and is called again when
    /// the rule says so.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn<S, F, E>(&mut self, rule: TaskRule, start: S)
    where
        S: FnMut(CancellationToken) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let token = self.token(rule.stage);
        let abort = CancellationToken::new();
        let report = self.reports.0.clone();
        let end = self.end_of(rule, Some(abort.clone()));
        let attempts = run_by_rule(rule, token.clone(), report, start);
        tokio::spawn(async move {
            let _end = end;
            tokio::select! {
                biased;
                () = abort.cancelled() => {}
                () = token.cancelled(), if rule.on_cancel == OnCancel::Abort => {}
                () = attempts => {}
            }
        });
    }

    /// Starts a task that is given what it owns and so can't be started again, whatever the rule says.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn_once<S, F, E>(&mut self, rule: TaskRule, start: S)
    where
        S: FnOnce(CancellationToken) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let mut start = Some(start);
        self.spawn(rule, move |token| {
            let started = start.take().map(|start| start(token));
            async move {
                match started {
                    Some(task) => task.await.map_err(|error| error.to_string()),
                    None => Err("it can't be started again".to_owned()),
                }
            }
        });
    }

    /// The token that asks a stage to stop.
    pub fn token(&self, stage: Stage) -> CancellationToken {
        let found = self.tokens.iter().find(|(of, _)| *of == stage);
        found.map(|(_, token)| token.clone()).unwrap_or_default()
    }

    /// Waits until a stop is asked for or a task fails that the process cannot go on without, then stops the stages in
    /// order. All stages together have `grace`, but each at least one second: give a listener's own grace and a little.
    ///
    /// A task that answers with an error after it was asked to stop has not finished: its words are among those of
    /// [`Exit::Unfinished`].
    pub async fn run(self, grace: Duration) -> Exit {
        self.run_with(move || grace).await
    }

    /// Works like [`Self::run`], with a grace that is asked for when it begins.
    pub async fn run_with(mut self, grace: impl FnOnce() -> Duration) -> Exit {
        let mut reports = Vec::new();
        tokio::select! {
            () = self.shutdown.asked() => {}
            Some(report) = self.reports.1.recv() => reports.push(report),
        }
        self.shutdown.ask();
        let mut unfinished = self.stop(grace()).await;
        while let Ok(report) = self.reports.1.try_recv() {
            reports.push(report);
        }
        for report in reports {
            match report {
                TaskEnd::Failed(name) => return Exit::Failed(name.to_owned()),
                TaskEnd::Unfinished(words) => unfinished.push(words),
            }
        }
        if unfinished.is_empty() { Exit::Done } else { Exit::Unfinished(unfinished) }
    }

    async fn stop(&mut self, grace: Duration) -> Vec<String> {
        let deadline = Instant::now() + grace;
        let shutdown = self.shutdown.clone();
        let mut unfinished = Vec::new();
        for stage in Stage::ALL {
            self.token(stage).cancel();
            let deadline = deadline.max(Instant::now() + Duration::from_secs(1));
            let mut hurried = pin!(async {
                shutdown.at_once().await;
                tokio::time::sleep(AT_ONCE_MAX).await;
            });
            while self.count(stage) > 0 {
                tokio::select! {
                    Some(index) = self.ended.1.recv() => self.forget(index),
                    () = tokio::time::sleep_until(deadline) => break,
                    () = hurried.as_mut() => break,
                }
            }
            unfinished.extend(self.abandon(stage));
        }
        unfinished
    }

    fn count(&mut self, stage: Stage) -> usize {
        while let Ok(index) = self.ended.1.try_recv() {
            self.forget(index);
        }
        self.running.iter().filter(|task| task.rule.stage == stage && !task.over).count()
    }

    /// Drops what is left of a stage, and returns its names.
    fn abandon(&mut self, stage: Stage) -> Vec<String> {
        let left = self.running.iter_mut().filter(|task| task.rule.stage == stage && !task.over);
        left.map(|task| {
            tracing::warn!(task = task.rule.name, "did not finish in time");
            if let Some(abort) = task.abort.take() {
                abort.cancel();
            }
            task.rule.name.to_owned()
        })
        .collect()
    }

    fn forget(&mut self, index: usize) {
        if let Some(task) = self.running.get_mut(index) {
            task.over = true;
        }
    }

    fn end_of(&mut self, rule: TaskRule, abort: Option<CancellationToken>) -> TaskFinish {
        self.running.push(RunningTask { rule, abort, over: false });
        TaskFinish { index: self.running.len() - 1, ended: self.ended.0.clone() }
    }
}

/// Tells the supervisor that a task is over, however it ended.
struct TaskFinish {
    index: usize,
    ended: mpsc::UnboundedSender<usize>,
}

impl Drop for TaskFinish {
    fn drop(&mut self) {
        // Nobody listens once the supervisor is gone.
        let _ = self.ended.send(self.index);
    }
}

async fn run_by_rule<S, F, E>(
    rule: TaskRule,
    token: CancellationToken,
    report: mpsc::UnboundedSender<TaskEnd>,
    mut start: S,
) where
    S: FnMut(CancellationToken) -> F + Send + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Display + Send + 'static,
{
    let mut backoff = Backoff::new(RESTART_PAUSE_MIN, RESTART_PAUSE_MAX);
    loop {
        let began = Instant::now();
        let result = match std::panic::catch_unwind(AssertUnwindSafe(|| start(token.clone()))) {
            Ok(task) => AssertUnwindSafe(task).catch_unwind().await,
            Err(panic) => Err(panic),
        };
        judge(rule, &token, &report, result);
        if token.is_cancelled() || rule.on_failure != OnFailure::Restart {
            return;
        }
        if began.elapsed() > RESTART_PAUSE_MAX {
            backoff.reset();
        }
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
}

/// Logs an end that is none, and tells the supervisor what the rule says.
fn judge<E: Display>(
    rule: TaskRule,
    token: &CancellationToken,
    reports: &mpsc::UnboundedSender<TaskEnd>,
    result: Result<Result<(), E>, Box<dyn Any + Send>>,
) {
    match result {
        Ok(Ok(())) if token.is_cancelled() => return,
        Ok(Err(error)) if token.is_cancelled() => {
            tracing::warn!(task = rule.name, %error, "a task stopped before it had finished");
            // Nobody listens once the supervisor is gone; so below.
            let _ = reports.send(TaskEnd::Unfinished(format!("{}: {error}", rule.name)));
            return;
        }
        Ok(Ok(())) => tracing::error!(task = rule.name, "a task ended though nobody asked it to"),
        Ok(Err(error)) => tracing::error!(task = rule.name, %error, "a task failed"),
        Err(panic) => tracing::error!(task = rule.name, panic = panic_text(panic.as_ref()), "a task panicked"),
    }
    if rule.on_failure == OnFailure::Stop {
        let _ = reports.send(TaskEnd::Failed(rule.name));
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without words")
}

#[cfg(test)]
mod tests;
