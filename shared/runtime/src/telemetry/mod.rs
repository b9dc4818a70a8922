//! Logs: one line an event, as text or JSON, to standard error; never waiting for whoever reads them.

mod writer;

use std::fmt;
use std::io::IsTerminal;
use std::sync::Arc;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Identity;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

pub use tracing_subscriber::util::TryInitError;
pub use writer::{LogWriter, Logs};

/// The target of spans that are exported as traces (`shared/trace`). Logs never show them.
pub const TRACED: &str = "traced";

/// The way a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The options of the log: what is logged, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// The most talkative level of our own lines.
    pub level: LevelFilter,
    /// Text or JSON.
    pub format: LogFormat,
}

/// Sends this process's logs to standard error, beside another layer. Keep what is returned until the very end: dropping it writes what is
/// still waiting.
///
/// # Errors
/// Something else already takes the logs.
pub(crate) fn init<L>(options: LogOptions, beside: L) -> Result<Logs, TryInitError>
where
    L: Layer<Registry> + Send + Sync + 'static,
{
    let (writer, mut logs) = writer::to(std::io::stderr());
    let colours = std::io::stderr().is_terminal();
    let (subscriber, switch) = switched(options, beside, colours, writer);
    subscriber.try_init()?;
    logs.switch = switch;
    Ok(logs)
}

type Change = dyn Fn(LogOptions) + Send + Sync;

/// Changes what is logged, and how, while the program runs. Clones change the same.
#[derive(Clone, Default)]
pub struct LogSwitch(Option<Arc<Change>>);

impl LogSwitch {
    /// Logs like this from now on.
    pub fn set(&self, options: LogOptions) {
        if let Some(change) = &self.0 {
            change(options);
        }
    }
}

impl fmt::Debug for LogSwitch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("LogSwitch")
    }
}

impl Logs {
    /// Returns the switch that changes them.
    pub fn switch(&self) -> LogSwitch {
        self.switch.clone()
    }
}

/// A subscriber that writes where it is told, for [`init`] and for tests.
pub fn subscriber<W>(options: LogOptions, colours: bool, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Clone + Send + Sync + 'static,
{
    switched(options, Identity::new(), colours, writer).0
}

/// The same, and what changes it: both formats are there, and one of them hears nothing.
fn switched<L, W>(
    options: LogOptions,
    beside: L,
    colours: bool,
    writer: W,
) -> (impl Subscriber + Send + Sync, LogSwitch)
where
    L: Layer<Registry> + Send + Sync + 'static,
    W: for<'a> MakeWriter<'a> + Clone + Send + Sync + 'static,
{
    let text = tracing_subscriber::fmt::layer().with_writer(writer.clone()).with_ansi(colours);
    let json = tracing_subscriber::fmt::layer().with_writer(writer).json();
    let json = json.flatten_event(true).with_current_span(true).with_span_list(false);
    let (as_text, text_switch) = reload::Layer::new(filter_of(LogFormat::Text, options));
    let (as_json, json_switch) = reload::Layer::new(filter_of(LogFormat::Json, options));
    let subscriber =
        tracing_subscriber::registry().with(beside).with(text.with_filter(as_text)).with(json.with_filter(as_json));
    let change = move |options| {
        // They fail only once the subscriber is gone.
        let _ = text_switch.reload(filter_of(LogFormat::Text, options));
        let _ = json_switch.reload(filter_of(LogFormat::Json, options));
    };
    (subscriber, LogSwitch(Some(Arc::new(change))))
}

/// Returns the filter of a layer of this format.
fn filter_of(format: LogFormat, options: LogOptions) -> Targets {
    filter(if format == options.format { options.level } else { LevelFilter::OFF })
}

/// Libraries that read what any client sends: whatever they warn of, a client can make them say as often as it likes.
const SPEAK_TO_CLIENTS: [&str; 7] = ["h2", "hyper", "hyper_util", "rustls", "tokio_rustls", "tower", "httparse"];

/// Our own lines at `level`. Libraries stop at `warn`: at `info` the NATS client repeats each failed attempt and the
/// PostgreSQL client what the schema already has, and below it they write headers and statements, and so tokens and
/// personal data. Of those that speak to clients only errors count.
fn filter(level: LevelFilter) -> Targets {
    let errors = level.min(LevelFilter::ERROR);
    Targets::new()
        .with_target("goldleaves", level)
        .with_targets(SPEAK_TO_CLIENTS.map(|library| (library, errors)))
        .with_default(level.min(LevelFilter::WARN))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines(options: LogOptions, log: impl FnOnce()) -> String {
        let page = Page::default();
        let writer = page.clone();
        tracing::subscriber::with_default(subscriber(options, false, move || writer.clone()), log);
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_lines_carry_message_fields_and_span() {
        let options = LogOptions { level: LevelFilter::INFO, format: LogFormat::Json };
        let text = lines(options, || {
            let span = tracing::info_span!("request", request_id = "r-1").entered();
            tracing::info!(status = 200, "answered");
            drop(span);
        });
        for part in [r#""message":"answered""#, r#""status":200"#, r#""request_id":"r-1""#, r#""level":"INFO""#] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn libraries_never_go_below_warn() {
        let options = LogOptions { level: LevelFilter::TRACE, format: LogFormat::Text };
        let text = lines(options, || {
            tracing::trace!(target: "goldleaves_gateway::proxy", "ours");
            tracing::debug!(target: "h2::codec", "header: authorization");
            tracing::debug!(target: "sqlx::query", "statement");
            tracing::warn!(target: "hyper::proto::h1", "noise");
            tracing::warn!(target: "h2::proto::ping_pong", "noise");
            tracing::warn!(target: "rustls::msgs", "noise");
            tracing::info!(target: "async_nats", "attempt");
            tracing::warn!(target: "async_nats", "theirs");
        });
        assert!(text.contains("ours") && text.contains("theirs"), "{text}");
        assert!(!text.contains("authorization") && !text.contains("statement") && !text.contains("noise"), "{text}");
        assert!(!text.contains("attempt"), "{text}");
    }

    #[test]
    fn level_is_kept() {
        let options = LogOptions { level: LevelFilter::WARN, format: LogFormat::Text };
        let text = lines(options, || {
            tracing::info!("quiet");
            tracing::warn!("loud");
        });
        assert!(text.contains("loud") && !text.contains("quiet"), "{text}");
    }
}
