//! The metadata column: the guide's keys and types in at most 2,000 characters, whatever a client sends.

use goldleaves_domain::{CallMetadata, Outcome};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::common;

fn agent(user_agent: &str) -> CallMetadata {
    CallMetadata { user_agent: Some(user_agent.to_owned()), ..common::event(Outcome::Completed).metadata }
}

#[test]
fn it_is_the_guide_s() {
    let metadata = CallMetadata { user_agent: Some("curl/8".to_owned()), ..agent("") };
    assert_eq!(
        metadata.json(),
        r#"{"method":"POST","status_code":201,"user_agent":"curl/8","client_ip":"192.168.1.1","response_size":"1024","processing_time":0.15}"#
    );
    let bare = CallMetadata { user_agent: None, client_ip: None, processing_micros: 1, ..metadata };
    assert_eq!(bare.json(), r#"{"method":"POST","status_code":201,"response_size":"1024","processing_time":0.000001}"#);
}

#[test]
fn the_widest_rest_leaves_room_for_a_user_agent() {
    let widest = CallMetadata {
        method: "\"".repeat(500),
        status_code: u16::MAX,
        user_agent: Some("\"".repeat(800)),
        client_ip: Some("\\".repeat(500)),
        response_bytes: u64::MAX,
        processing_micros: u64::MAX,
    };
    let read: Value = serde_json::from_str(&widest.json()).unwrap();
    assert_eq!(read["user_agent"].as_str().unwrap().len(), 800, "up to there nothing is cut");
    assert_eq!(read["method"].as_str().unwrap().len(), 32);
    assert_eq!(read["client_ip"].as_str().unwrap().len(), 32);
    for bytes in 790..=1_000 {
        let agent = CallMetadata { user_agent: Some("\"".repeat(bytes)), ..widest.clone() };
        assert!(agent.json().chars().count() <= 2_000, "{bytes}");
    }
}

#[test]
fn the_user_agent_is_cut_after_escaping() {
    for (char, escaped_chars) in
        [('x', 1), ('"', 2), ('\\', 2), ('é', 1), ('🍃', 1), ('\0', 1), ('\t', 1), ('\u{85}', 1)]
    {
        let json = agent(&char.to_string().repeat(2_001)).json();
        let chars = json.chars().count();
        assert!((2_001 - escaped_chars..=2_000).contains(&chars), "{char:?}: {chars}");
        let read: Value = serde_json::from_str(&json).unwrap();
        let kept = read["user_agent"].as_str().unwrap().chars().count();
        assert_eq!(kept, (2_000 - agent("").json().len()) / escaped_chars, "{char:?}");
    }
}

proptest! {
    #[test]
    fn it_always_fits_and_can_always_be_read(metadata in common::any_metadata()) {
        let json = metadata.json();
        prop_assert!(json.chars().count() <= 2_000);
        prop_assert!(!json.chars().any(char::is_control));
        let read: Value = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(&read["status_code"], &json!(metadata.status_code));
        prop_assert_eq!(&read["response_size"], &json!(metadata.response_bytes.to_string()));
        let agent = read["user_agent"].as_str().unwrap_or_default();
        prop_assert!(!agent.chars().any(char::is_control));
        let seconds = read["processing_time"].as_f64().unwrap();
        prop_assert!((seconds - metadata.processing_micros as f64 / 1e6).abs() <= seconds * 1e-12);
        // What is kept of a text is its start, with control characters replaced.
        for (key, text) in [("user_agent", &metadata.user_agent), ("client_ip", &metadata.client_ip)] {
            let Some(text) = text else { prop_assert!(read.get(key).is_none()); continue };
            let clean: String = text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect();
            prop_assert!(clean.starts_with(read[key].as_str().unwrap()));
        }
    }

    #[test]
    fn what_fits_is_kept_whole(text in "\\PC{0,400}") {
        let read: Value = serde_json::from_str(&agent(&text).json()).unwrap();
        prop_assert_eq!(read["user_agent"].as_str().unwrap(), text);
    }
}
