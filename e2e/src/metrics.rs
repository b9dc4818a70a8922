//! Prometheus' text, as far as the tests read it.

/// The sum of all samples of a metric.
pub fn sum(text: &str, name: &str) -> f64 {
    let samples = text.lines().filter_map(|line| line.strip_prefix(name)).filter(|rest| rest.starts_with([' ', '{']));
    samples.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
