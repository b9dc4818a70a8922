//! How long events are gathered before they are handed over: longer where there are many, so that more of one tenant share
//! a message, or more rows a transaction of the embedded ledger; never where there are few.

use std::time::Duration;

use tokio::time::Instant;

/// The number of events in a [`RelayPace::gather`](super::RelayPace) up to which they are few.
const FEW: f64 = 32.0;
/// The most that a pause grows: an event is handed over 150 ms after its call at the latest, if the receiver keeps up.
const LONGER_MAX: f64 = 6.0;

/// Measures how much comes.
#[derive(Debug)]
pub(super) struct Gathering {
    /// When the batch before the last one began.
    begun: Instant,
}

impl Gathering {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now() }
    }

    /// The pause from the beginning of a batch with so many records to the next one's.
    pub(super) fn pause(&mut self, begun: Instant, records: usize, gather: Duration) -> Duration {
        let since = begun.duration_since(std::mem::replace(&mut self.begun, begun));
        // What waited for longer than a pause says nothing of how much comes now.
        let since = since.max(gather).as_secs_f64().max(1e-6);
        let in_gather = records as f64 * gather.as_secs_f64() / since;
        gather.mul_f64((in_gather / FEW).clamp(1.0, LONGER_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATHER: Duration = Duration::from_millis(25);

    /// The pause that comes to be when so many records come every second.
    fn settled(per_second: f64) -> Duration {
        let (mut gathering, mut pause) = (Gathering::new(), GATHER);
        let mut now = gathering.begun;
        for _ in 0..10 {
            now += pause;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number of records")]
            let records = (per_second * pause.as_secs_f64()) as usize;
            pause = gathering.pause(now, records, GATHER);
        }
        pause
    }

    #[test]
    fn few_events_wait_no_longer_and_many_do() {
        assert_eq!(settled(1.0), GATHER);
        assert_eq!(settled(1_000.0), GATHER);
        assert!((60..70).contains(&settled(3_200.0).as_millis()), "{:?}", settled(3_200.0));
        assert_eq!(settled(50_000.0), GATHER * 6);
        assert_eq!(Gathering::new().pause(Instant::now(), 5_000, Duration::ZERO), Duration::ZERO);
    }
}
