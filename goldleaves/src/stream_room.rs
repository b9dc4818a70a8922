//! For how many days the stream's size lasts, in words for a person: `migrate` and `check-config` say it.

use std::time::Duration;

use goldleaves_gateway::StreamSettings;
use goldleaves_stream::{Connection, STREAM, StreamRoom};

/// The bytes that a typical event takes in JetStream.
const EVENT_BYTES: u64 = 985;
const DAY_SECS: f64 = 86_400.0;

/// Says it of the stream there is, or of the one that would be made.
pub(crate) async fn say(settings: &StreamSettings, connection: &Connection) -> String {
    let (bytes, history) = (settings.topology().bytes_max, settings.topology().history);
    let formula = || holds(bytes, history);
    if !connection.is_connected() {
        return format!("stream {STREAM}: NATS at {} does not answer; {}", connection.servers(), formula());
    }
    match StreamRoom::read(connection).await {
        Ok(Some(room)) => of(&room, history),
        Ok(None) => format!("stream {STREAM}: not made yet; {}", formula()),
        Err(error) => format!("stream {STREAM}: can't be asked ({error}); {}", formula()),
    }
}

/// The same, over a connection for this question alone.
pub(crate) fn ask(settings: &StreamSettings) -> String {
    let asked = tokio::runtime::Builder::new_current_thread().enable_all().build().map(|runtime| {
        runtime.block_on(async {
            match settings.connect("check-config").await {
                Ok(connection) => say(settings, &connection).await,
                Err(error) => format!("stream {STREAM}: can't be asked ({error})"),
            }
        })
    });
    asked.unwrap_or_else(|error| format!("stream {STREAM}: can't be asked ({error})"))
}

fn of(room: &StreamRoom, wanted: Duration) -> String {
    let age_max = room.age_max.unwrap_or(wanted);
    let mut said = match (room.bytes_max, room.lasts(), room.messages_per_second()) {
        (None, ..) => format!("stream {STREAM}: without a limit of bytes, it keeps {} days", days(age_max)),
        (Some(bytes), Some(lasts), Some(rate)) => {
            let verdict = if lasts < age_max { "less than" } else { "enough for" };
            format!(
                "stream {STREAM}: {} last {} days at the present rate of {rate:.2} messages per second, {verdict} the {} \
                 days of history",
                size(bytes),
                days(lasts),
                days(age_max)
            )
        }
        (Some(bytes), ..) => {
            format!("stream {STREAM}: too little is stored to know a rate; {}", holds(bytes, age_max))
        }
    };
    if room.age_max.is_some_and(|age_max| age_max != wanted) {
        let text = format!(
            "; it was made with {} days, and STREAM_HISTORY_DAYS={} changes nothing that is there",
            days(age_max),
            days(wanted)
        );
        said.push_str(&text);
    }
    said
}

/// The formula, filled in.
fn holds(bytes: u64, history: Duration) -> String {
    let per_second = bytes as f64 / (EVENT_BYTES as f64 * history.as_secs_f64().max(1.0));
    format!(
        "{} hold about {} events of {EVENT_BYTES} bytes, {} days of {per_second:.2} events per second",
        size(bytes),
        bytes / EVENT_BYTES,
        days(history)
    )
}

fn days(duration: Duration) -> String {
    let days = duration.as_secs_f64() / DAY_SECS;
    if days >= 10.0 || days.fract() == 0.0 { format!("{days:.0}") } else { format!("{days:.1}") }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..=1_048_575 => format!("{bytes} bytes"),
        1_048_576..=1_073_741_823 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HISTORY: Duration = Duration::from_secs(45 * 86_400);

    fn room(bytes: u64, messages: u64, newest: &str) -> StreamRoom {
        StreamRoom {
            created: String::new(),
            bytes,
            bytes_max: Some(16 << 30),
            age_max: Some(HISTORY),
            messages,
            first_sequence: 1,
            last_sequence: messages,
            oldest: (messages > 0).then(|| "2026-01-01T00:00:00Z".parse().unwrap()),
            newest: (messages > 0).then(|| newest.parse().unwrap()),
        }
    }

    #[test]
    fn it_says_for_how_many_days_the_size_lasts() {
        let said = of(&room(1 << 30, 864_000, "2026-01-02T00:00:00Z"), HISTORY);
        assert!(
            said.contains("16.0 GiB last 16 days at the present rate of 10.00 messages per second, less than"),
            "{said}"
        );
        let said = of(&room(1 << 28, 864_000, "2026-01-02T00:00:00Z"), HISTORY);
        assert!(said.contains("last 64 days") && said.contains("enough for the 45 days"), "{said}");
        let said = of(&room(1 << 28, 864_000, "2026-01-02T00:00:00Z"), HISTORY / 3);
        assert!(said.contains("made with 45 days") && said.contains("STREAM_HISTORY_DAYS=15"), "{said}");
    }

    #[test]
    fn without_a_rate_it_says_how_much_fits() {
        let said = of(&room(0, 0, ""), HISTORY);
        assert!(
            said.contains("16.0 GiB hold about 17441491 events") && said.contains("45 days of 4.49 events"),
            "{said}"
        );
    }
}
