//! Billable routes: whole segments, the longest wins, however the segments are written.

use goldleaves_domain::{BillableRoutes, NormalPath, PathError, RouteError, RouteFault, RoutePattern};
use proptest::prelude::*;

fn matched(routes: &BillableRoutes, raw: &str) -> Option<String> {
    routes.longest_match(&NormalPath::normalise(raw).unwrap()).map(|pattern| pattern.to_string())
}

fn faults(list: &str) -> Vec<RouteFault> {
    BillableRoutes::parse(list).unwrap_err().into_iter().map(|error: RouteError| error.fault).collect()
}

#[test]
fn the_default_is_the_guide_s_six() {
    let routes = BillableRoutes::default();
    assert_eq!(routes.patterns().count(), 6);
    assert_eq!(routes, BillableRoutes::parse(BillableRoutes::DEFAULT).unwrap());
    assert_eq!(matched(&routes, "/api/v1/ai/x"), Some("/api/v1/ai".to_owned()));
}

#[test]
fn the_longest_pattern_wins_whatever_the_order() {
    for list in ["/a,/a/b/*,/a/b/c", "/a/b/c,/a/b,/a", "/a/b/, /a/b/c/* ,/a/*"] {
        let routes = BillableRoutes::parse(list).unwrap();
        for (path, route) in [
            ("/a", "/a"),
            ("/a/x", "/a"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b"),
            ("/a/b/cc", "/a/b"),
            ("/a/b/c", "/a/b/c"),
            ("/a/b/c/d", "/a/b/c"),
        ] {
            assert_eq!(matched(&routes, path).as_deref(), Some(route), "{list}: {path}");
        }
        assert_eq!(matched(&routes, "/ab"), None);
        assert_eq!(matched(&routes, "/"), None);
    }
}

#[test]
fn the_root_matches_everything() {
    for list in ["/", "/*"] {
        let routes = BillableRoutes::parse(&format!("{list},/a")).unwrap();
        assert_eq!(matched(&routes, "/").as_deref(), Some("/"));
        assert_eq!(matched(&routes, "/x/y").as_deref(), Some("/"));
        assert_eq!(matched(&routes, "/a/y").as_deref(), Some("/a"));
    }
}

#[test]
fn the_case_of_ascii_letters_is_ignored() {
    let routes = BillableRoutes::parse("/API/v1/Documents,/caf%c3%a9/x").unwrap();
    for path in ["/api/v1/documents/7", "/API/V1/DOCUMENTS", "/api/v1/%44ocuments;x", "/Api/v1/dOCUMENTS/"] {
        assert_eq!(matched(&routes, path).as_deref(), Some("/API/v1/Documents"), "{path}");
    }
    assert_eq!(matched(&routes, "/caf%C3%A9/X").as_deref(), Some("/caf%C3%A9/x"));
    assert_eq!(matched(&routes, "/caf%C3%89/x"), None, "only of ASCII letters");
    assert_eq!(faults("/A,/a"), [RouteFault::Double]);
}

#[test]
fn segments_match_by_what_they_say() {
    let routes = BillableRoutes::parse("/v1/models:predict,/caf%c3%a9,/a b").unwrap();
    assert_eq!(matched(&routes, "/v1/models%3apredict").as_deref(), Some("/v1/models:predict"));
    assert_eq!(matched(&routes, "/café/1").as_deref(), Some("/caf%C3%A9"));
    assert_eq!(matched(&routes, "/a%20b;x").as_deref(), Some("/a%20b"));
    assert_eq!(matched(&routes, "/a%2520b"), None);
}

#[test]
fn every_wrong_pattern_is_named() {
    assert_eq!(faults(""), [RouteFault::Empty]);
    assert_eq!(faults("/a,,/b"), [RouteFault::Empty]);
    assert_eq!(faults("a,/b*,/*/c,/c/**,*"), {
        use RouteFault::{NotAbsolute, Wildcard};
        [NotAbsolute, Wildcard, Wildcard, Wildcard, NotAbsolute]
    });
    assert_eq!(faults("/a,/a/*,/b,/%62/"), [RouteFault::Double, RouteFault::Double]);
    assert_eq!(faults("/a?b,/a#b,/a;b,/a%3bb"), [RouteFault::NeverMatched; 4]);
    assert_eq!(faults("/a/../b,/%2f"), [PathError::ParentSegment, PathError::EncodedSlash].map(RouteFault::Path));
    let error = BillableRoutes::parse("/x*").unwrap_err().remove(0);
    assert_eq!(error.to_string(), "the route pattern \"/x*\" has a * that is not a trailing /*");
}

#[test]
fn a_pattern_has_500_characters_at_most() {
    let long = |chars: usize| format!("/{}", "x".repeat(chars - 1));
    assert_eq!(long(500).parse::<RoutePattern>().unwrap().as_str().len(), 500);
    assert_eq!(long(501).parse::<RoutePattern>().unwrap_err().fault, RouteFault::TooLong);
    let escaped = format!("/{}", "é".repeat(100));
    assert_eq!(escaped.parse::<RoutePattern>().unwrap_err().fault, RouteFault::TooLong, "601 characters once escaped");
    assert!(RoutePattern::recorded(&long(500)).is_some());
    assert!(RoutePattern::recorded(&long(501)).is_none());
    for text in ["", "a", "/a\0", "/a b", "/é"] {
        assert!(RoutePattern::recorded(text).is_none(), "{text:?}");
    }
    assert_eq!(RoutePattern::recorded("/a;b").unwrap().as_str(), "/a;b");
}

/// Short paths over few names, so that patterns and paths meet.
fn any_plain_path() -> impl Strategy<Value = String> {
    "(/(a|b|ab|a%62|c|A|aB)){1,4}/?"
}

proptest! {
    #[test]
    fn a_pattern_parses_to_itself(text in any_plain_path()) {
        let pattern: RoutePattern = text.parse().unwrap();
        prop_assert_eq!(pattern.as_str().parse::<RoutePattern>(), Ok(pattern.clone()));
        prop_assert_eq!(RoutePattern::recorded(pattern.as_str()), Some(pattern));
    }

    #[test]
    fn the_longest_match_is_the_model_s(
        patterns in prop::collection::vec(any_plain_path(), 1..6),
        path in any_plain_path(),
        parameters in prop::collection::vec(prop::sample::select(vec!["", ";", ";x=1", "%3by"]), 5),
    ) {
        let Ok(routes) = BillableRoutes::parse(&patterns.join(",")) else { return Ok(()) };
        let names = |text: &str| -> Vec<String> {
            text.replace("%62", "b").to_ascii_lowercase().split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect()
        };
        let asked = names(&path);
        let model = patterns.iter().filter(|pattern| asked.starts_with(&names(pattern)));
        let model = model.max_by_key(|pattern| names(pattern).len());
        let model = model.map(|pattern| pattern.replace("%62", "b").trim_end_matches('/').to_owned());
        prop_assert_eq!(matched(&routes, &path), model.clone());
        // Parameters anywhere change no bill.
        let dressed = path.split('/').enumerate().map(|(index, name)| match name {
            "" => String::new(),
            name => format!("{name}{}", parameters[index - 1]),
        });
        prop_assert_eq!(matched(&routes, &dressed.collect::<Vec<_>>().join("/")), model);
    }
}
