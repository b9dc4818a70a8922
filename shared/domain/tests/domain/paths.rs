//! The normalised path: one form, reached once, and nothing that servers read differently.

use std::collections::HashSet;

use goldleaves_domain::{BillableRoutes, NormalPath, PathError, RouteClass};
use proptest::prelude::*;

fn class_word(class: &RouteClass) -> &'static str {
    match class {
        RouteClass::Local(_) => "local",
        RouteClass::Open => "open",
        RouteClass::Billing => "billing",
        RouteClass::Unbilled => "unbilled",
        RouteClass::Billable(_) => "billable",
    }
}

#[test]
fn hostile_paths_get_their_verdicts() {
    let routes = BillableRoutes::default();
    let mut seen = HashSet::new();
    for line in include_str!("hostile_paths.txt").lines().filter(|line| !line.starts_with('#')) {
        let (raw, rest) = line.split_once("\" ").unwrap();
        let raw: String = serde_json::from_str(&format!("{raw}\"")).unwrap();
        let (verdict, class) = rest.rsplit_once(" | ").unwrap();
        let verdict = verdict.trim().trim_start_matches("| ");
        let (found, found_class) = match NormalPath::normalise(&raw) {
            Ok(path) => (path.to_string(), class_word(&RouteClass::of(&path, &routes))),
            Err(error) => (format!("{error:?}"), "-"),
        };
        assert_eq!(found.as_str(), verdict, "{line}");
        assert_eq!(found_class, class.trim(), "{line}");
        assert!(seen.insert(raw), "twice: {line}");
    }
    assert!(seen.len() >= 60, "{}", seen.len());
}

/// Paths made of the pieces that servers disagree about.
fn any_crooked_path() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/",
        "/",
        ".",
        "..",
        ";",
        "%2e",
        "%2E",
        "%3b",
        "%2f",
        "%5c",
        "\\",
        "%00",
        "%25",
        "%41",
        "%c3%a9",
        "%c3",
        "é",
        "a",
        "api",
        "v1",
        "documents",
        "docs",
        "auth",
        "health",
        " ",
        "?",
        "%",
        "%7e",
        "~",
        "\u{85}",
        "=",
        "*",
        "%2a",
    ]);
    let pieces = prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()));
    prop_oneof![3 => pieces, 1 => ".*", 1 => "/[ -~]{0,30}"]
}

/// Returns what a segment says, decoded by another implementation than the one tested.
fn decoded(segment: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = segment.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte == b'%' {
            bytes.push(u8::from_str_radix(std::str::from_utf8(&rest[..2]).unwrap(), 16).unwrap());
            rest = &rest[2..];
        } else {
            bytes.push(*byte);
        }
    }
    String::from_utf8(bytes).unwrap()
}

proptest! {
    #[test]
    fn normalising_twice_is_normalising_once(raw in any_crooked_path()) {
        if let Ok(path) = NormalPath::normalise(&raw) {
            prop_assert_eq!(NormalPath::normalise(path.as_str()), Ok(path));
        }
    }

    #[test]
    fn a_normal_path_has_nothing_to_disagree_about(raw in any_crooked_path()) {
        let Ok(path) = NormalPath::normalise(&raw) else { return Ok(()) };
        let text = path.as_str();
        prop_assert!(text.starts_with('/') && text.is_ascii() && !text.contains("//"), "{}", text);
        prop_assert!(!text.contains(['\\', '?', '#', ' ', '"', '<', '>']), "{}", text);
        for segment in path.segments() {
            let says = decoded(segment);
            let name = says.split(';').next().unwrap();
            prop_assert!(name != "." && name != "..", "{}", text);
            prop_assert!(!says.contains(['/', '\\']) && !says.chars().any(char::is_control), "{}", text);
        }
    }

    #[test]
    fn a_normal_path_says_what_the_raw_one_said(raw in any_crooked_path()) {
        let Ok(path) = NormalPath::normalise(&raw) else { return Ok(()) };
        let said = raw.split('/').map(decoded).filter(|segment| !segment.is_empty() && segment != ".");
        prop_assert_eq!(path.segments().map(decoded).collect::<Vec<_>>(), said.collect::<Vec<_>>());
    }

    #[test]
    fn spellings_of_unreserved_characters_are_one(plain in "/[a-zA-Z0-9_~-]{1,20}", seed in any::<u32>()) {
        let escaped = |(index, char): (usize, char)| match seed.rotate_left(index as u32) % 3 {
            0 if char != '/' => format!("%{:02x}", u32::from(char)),
            1 if char != '/' => format!("%{:02X}", u32::from(char)),
            _ => char.to_string(),
        };
        let spelled: String = plain.chars().enumerate().map(escaped).collect();
        prop_assert_eq!(NormalPath::normalise(&spelled).unwrap().to_string(), plain);
    }
}

#[test]
fn every_reason_can_be_told_to_the_client() {
    for error in [
        PathError::NotAbsolute,
        PathError::ParentSegment,
        PathError::DotParameters,
        PathError::EncodedSlash,
        PathError::Backslash,
        PathError::Control,
        PathError::BadEscape,
        PathError::NotUtf8,
    ] {
        let text = error.to_string();
        assert!(text.starts_with("the path") && text.is_ascii() && text.len() < 80, "{text}");
    }
}
