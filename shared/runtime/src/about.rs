//! The facts that a process shows about itself: the build that runs, and the descriptors it uses beside those it may.

use std::fs;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::{Metrics, arguments, descriptors};

impl Metrics {
    /// Shows the build of this program, and how many files and sockets it has open of how many it may.
    pub fn show_process(&self, program: &'static str) {
        let help = "Always 1: the program, its version and the commit it was built from";
        let build = self.register("build_info", help, Family::<[(&'static str, &'static str); 3], Gauge>::default());
        let labels = [("program", program), ("version", env!("CARGO_PKG_VERSION")), ("commit", arguments::COMMIT)];
        build.get_or_create(&labels).set(1);
        let open: Gauge = self.register("descriptors_open", "Files and sockets open now", Gauge::default());
        let most: Gauge = self.register("descriptors_max", "Files and sockets that may be open", Gauge::default());
        self.before_reading(move || {
            // The folder that is being read is one of them.
            let count = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1));
            open.set(i64::try_from(count).unwrap_or(i64::MAX));
            let limit = descriptors::descriptor_limit().and_then(|limit| i64::try_from(limit).ok());
            most.set(limit.unwrap_or(i64::MAX));
        });
    }

    /// Shows how many connections to the database there are, how many of them are busy and how many there may be, as `read`
    /// says in this order. It must not block.
    pub fn show_database(&self, read: impl Fn() -> [u32; 3] + Send + Sync + 'static) {
        let gauge = |name, help| self.register(name, help, Gauge::<i64, AtomicI64>::default());
        let gauges = [
            gauge("database_connections_open", "Connections to the database"),
            gauge("database_connections_busy", "Connections to the database that do something"),
            gauge("database_connections_max", "Connections to the database that there may be"),
        ];
        self.before_reading(move || {
            for (gauge, value) in gauges.iter().zip(read()) {
                gauge.set(value.into());
            }
        });
    }

    /// Shows whether the broker is connected and how often it was connected to, as `read` says in this order: each time but the
    /// first followed a loss. It must not block.
    pub fn show_broker(&self, read: impl Fn() -> (bool, u64) + Send + Sync + 'static) {
        let connected =
            self.register("nats_connected", "Whether NATS is connected: 1 or 0", Gauge::<i64, AtomicI64>::default());
        let help = "Times NATS was connected to; each but the first followed a loss";
        let connects = self.register("nats_connects", help, Counter::<u64, AtomicU64>::default());
        self.before_reading(move || {
            let (is_connected, count) = read();
            connected.set(is_connected.into());
            connects.inner().store(count, Ordering::Relaxed);
        });
    }

    /// Shows a limit, to stand beside what is used of it.
    pub fn show_limit(&self, name: &str, help: &str, limit: u64) {
        let gauge: Gauge = self.register(name, help, Gauge::default());
        gauge.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_and_its_descriptors_are_shown() {
        let metrics = Metrics::new();
        metrics.show_process("tool");
        metrics.show_limit("calls_max", "Calls", 7);
        let text = metrics.text();
        let build = text.lines().find(|line| line.starts_with("goldleaves_build_info{")).unwrap();
        assert!(build.contains("program=\"tool\"") && build.contains("commit=\"") && build.ends_with(" 1"), "{build}");
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().parse::<i64>().unwrap()
        };
        let (open, most) = (value("goldleaves_descriptors_open "), value("goldleaves_descriptors_max "));
        assert!(open > 2 && open < most, "{open} of {most}");
        assert_eq!(value("goldleaves_calls_max "), 7);
    }
}
