//! The known key a mistyped one was probably meant to be.

use super::table;

/// The known key with the smallest edit distance to `unknown`.
pub(crate) fn known_key(unknown: &str) -> &'static str {
    let by_distance = |setting: &&table::Setting| edit_distance(unknown, setting.key);
    table::ALL.iter().min_by_key(by_distance).map_or("", |setting| setting.key)
}

/// How many characters must be added, taken away or changed to make one text of the other (Levenshtein).
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
        ] {
            assert_eq!(known_key(typed), meant);
        }
    }
}
