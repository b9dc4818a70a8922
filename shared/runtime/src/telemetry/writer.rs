//! A log writer that never blocks: lines go through a bounded queue to a thread that writes them.
//!
//! A terminal that was stopped or a pipe nobody reads must not stop a request. When the queue is full a line is lost,
//! counted, and the count is written as soon as there is room.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

use super::LogSwitch;

/// Lines that may wait.
const LINES_MAX: usize = 16_384;
/// The time for which the end of a process waits for the last lines.
const FLUSH_MAX: Duration = Duration::from_secs(2);

enum WriterMessage {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Makes one buffer per line.
#[derive(Debug, Clone)]
pub struct LogWriter {
    queue: SyncSender<WriterMessage>,
    lost: Arc<AtomicU64>,
}

/// Holds the logs open; dropping it writes what is waiting, for two seconds at most.
#[derive(Debug)]
pub struct Logs {
    queue: SyncSender<WriterMessage>,
    pub(super) switch: LogSwitch,
}

/// One line, handed over when it is dropped.
#[derive(Debug)]
pub struct LogLine<'a> {
    bytes: Vec<u8>,
    writer: &'a LogWriter,
}

/// A writer to `sink`, with a thread of its own.
pub(super) fn to(sink: impl Write + Send + 'static) -> (LogWriter, Logs) {
    let (queue, lines) = sync_channel(LINES_MAX);
    let lost = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&lost);
    // Without a thread every line is lost and counted; a process that cannot log still serves.
    let _thread = thread::Builder::new().name("logs".to_owned()).spawn(move || write_lines(sink, &lines, &counted));
    (LogWriter { queue: queue.clone(), lost }, Logs { queue, switch: LogSwitch::default() })
}

fn write_lines(mut sink: impl Write, lines: &Receiver<WriterMessage>, lost: &AtomicU64) {
    while let Ok(message) = lines.recv() {
        let missing = lost.swap(0, Ordering::Relaxed);
        if missing > 0 {
            // Nobody can be told when this fails.
            let _ = writeln!(sink, "{missing} log lines were lost: the queue was full");
        }
        match message {
            WriterMessage::Line(bytes) => {
                let _ = sink.write_all(&bytes);
            }
            WriterMessage::Flush(done) => {
                let _ = sink.flush();
                let _ = done.try_send(());
            }
        }
    }
}

impl Logs {
    /// Writes what is waiting, for two seconds at most.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        let end = Instant::now() + FLUSH_MAX;
        let mut message = WriterMessage::Flush(done);
        while Instant::now() < end {
            match self.queue.try_send(message) {
                Ok(()) => {
                    let left = end.saturating_duration_since(Instant::now());
                    let _: Result<(), RecvTimeoutError> = written.recv_timeout(left);
                    return;
                }
                Err(TrySendError::Full(back)) => message = back,
                Err(TrySendError::Disconnected(_)) => return,
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.flush();
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = LogLine<'a>;

    fn make_writer(&'a self) -> LogLine<'a> {
        LogLine { bytes: Vec::new(), writer: self }
    }
}

impl Write for LogLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine<'_> {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if !bytes.is_empty() && self.writer.queue.try_send(WriterMessage::Line(bytes)).is_err() {
            self.writer.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::sync::{Condvar, Mutex};

    use super::*;

    /// A sink that stands still until it is let go.
    #[derive(Clone, Default)]
    struct Stalled {
        open: Arc<(Mutex<bool>, Condvar)>,
        page: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (open, bell) = &*self.open;
            let mut open = open.lock().unwrap();
            while !*open {
                open = bell.wait(open).unwrap();
            }
            self.page.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn stalled_reader_blocks_nobody_and_the_loss_is_told() {
        let sink = Stalled::default();
        let (writer, logs) = to(sink.clone());
        let (done, finished) = channel();
        let busy = thread::spawn(move || {
            for _ in 0..LINES_MAX + 100 {
                writer.make_writer().write_all(b"line\n").unwrap();
            }
            done.send(()).unwrap();
        });
        finished.recv_timeout(Duration::from_secs(60)).expect("logging must not wait for the sink");
        busy.join().unwrap();
        *sink.open.0.lock().unwrap() = true;
        sink.open.1.notify_all();
        drop(logs);
        let text = String::from_utf8(sink.page.lock().unwrap().clone()).unwrap();
        let written = text.lines().filter(|line| *line == "line").count();
        let told = text.lines().filter_map(|line| line.strip_suffix(" log lines were lost: the queue was full"));
        let lost: usize = told.map(|count| count.parse::<usize>().unwrap()).sum();
        assert!(lost >= 99, "{lost}");
        assert_eq!(written + lost, LINES_MAX + 100, "every line was written or counted");
    }
}
