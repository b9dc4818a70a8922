//! The known key or variable that a mistyped one was probably meant to be.

use super::{CONFIG_FILE, table};

/// The most letters in which a variable may differ from a setting to be taken for it.
const MISTYPED_MAX: usize = 3;
/// Variables that Kubernetes makes for each service (`GATEWAY_PORT`) look like ours and are not.
const OF_SERVICES: [&str; 3] = ["_PORT", "_HOST", "_PROTO"];

/// The known key with the smallest edit distance to `unknown`; what is in the same section is nearer than what is not.
pub(crate) fn known_key(unknown: &str) -> &'static str {
    let section = |key: &str| key.split_once('.').map(|(section, _)| section.to_owned());
    let keys = table::ALL.iter().flat_map(|setting| [Some(setting.key), setting.file().map(|(_, key)| key)]);
    let keys: Vec<&str> = keys.flatten().collect();
    let siblings: Vec<&str> =
        keys.iter().copied().filter(|key| section(key).is_some() && section(key) == section(unknown)).collect();
    let near = if siblings.is_empty() { keys } else { siblings };
    near.into_iter().min_by_key(|key| edit_distance(unknown, key)).unwrap_or_default()
}

/// Every variable that is read.
pub(crate) fn variables() -> impl Iterator<Item = &'static str> {
    let names = table::ALL.iter().flat_map(|setting| [Some(setting.name), setting.file().map(|(name, _)| name)]);
    names.flatten().chain(std::iter::once(CONFIG_FILE))
}

/// The variable that an unknown one was probably meant to be; `None` when it is likely somebody else's, as most variables
/// of a process are.
pub(crate) fn known_variable(unknown: &str) -> Option<&'static str> {
    let upper = unknown.to_ascii_uppercase();
    if OF_SERVICES.iter().any(|end| upper.ends_with(end)) {
        return None;
    }
    // What other frameworks call it.
    let typed = upper.strip_suffix("_KEY").filter(|rest| variables().any(|name| name == *rest)).unwrap_or(&upper);
    let nearest = variables().map(|name| (edit_distance(typed, name), name)).min()?;
    let (edits, name) = nearest;
    let alike = edits <= 1 || typed.bytes().next() == name.bytes().next();
    (alike && edits <= MISTYPED_MAX.min(typed.len() / 4)).then_some(name)
}

/// Returns the number of characters that must be added, taken away or changed to make one text of the other
/// (Levenshtein).
pub(crate) fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, have) in from.chars().enumerate() {
        let mut diagonal = index;
        let mut left = index + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (want, cell) in to.iter().zip(row.iter_mut().skip(1)) {
            let changed = diagonal + usize::from(have != *want);
            diagonal = *cell;
            left = changed.min(left + 1).min(diagonal + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        for (from, to, distance) in
            [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("a", "a", 0)]
        {
            assert_eq!(edit_distance(from, to), distance, "{from} {to}");
        }
    }

    #[test]
    fn finds_what_was_meant() {
        for (typed, meant) in [
            ("jwt.secrt", "jwt.secret"),
            ("jwt_secret", "jwt.secret"),
            ("jtw.issuer", "jwt.issuer"),
            ("limits.connection_max", "limits.connections_max"),
            ("datadir", "data_dir"),
            ("jwt.secret_fil", "jwt.secret_file"),
            ("stripe.foo", "stripe.api_key"),
        ] {
            assert_eq!(known_key(typed), meant);
        }
    }

    #[test]
    fn variables_that_are_nearly_ours_and_others() {
        for (typed, meant) in [
            ("JWT_SECRT", "JWT_SECRET"),
            ("JWT_SECRET_KEY", "JWT_SECRET"),
            ("jwt_secret", "JWT_SECRET"),
            ("DATABASE_URI", "DATABASE_URL"),
            ("BILLABLE_ROUTE", "BILLABLE_ROUTES"),
            ("UPSTREAM_URLS", "UPSTREAM_URL"),
            ("RATE_LIMIT_PER_SECONDS", "RATE_LIMIT_PER_SECOND"),
            ("JWT_SECRET_FILES", "JWT_SECRET_FILE"),
            ("CONFIG_FLIE", "CONFIG_FILE"),
            ("LOGLEVEL", "LOG_LEVEL"),
        ] {
            assert_eq!(known_variable(typed), Some(meant), "{typed}");
        }
        for other in [
            "PATH",
            "HOME",
            "LOGNAME",
            "HOSTNAME",
            "PORT",
            "DEBUG_COLORS",
            "APP_ADDR",
            "NATS_USER",
            "GATEWAY_PORT",
            "GATEWAY_SERVICE_HOST",
            "BILLING_PORT",
            "OTEL_BSP_SCHEDULE_DELAY",
            "STRIPE_KEY",
            "DATABASE_HOST",
            "XDG_DATA_DIRS",
            "LOG_FILE",
            "JWT_COOKIE_NAME",
            "PGDATA",
            "LANG",
            "LC_ALL",
        ] {
            assert_eq!(known_variable(other), None, "{other}");
        }
    }
}
