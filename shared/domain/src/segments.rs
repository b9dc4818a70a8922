//! A tree of path patterns, so that ten thousand of them are looked up as fast as ten: a step per segment of the path.
//!
//! Segments are compared by what they say, decoded and without `;parameters`, as [`crate::BillableRoutes`] compares them.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::routes::without_parameters;
use crate::{NormalPath, RoutePattern, path};

/// Says whether letters that differ in case alone are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// They are not.
    Exact,
    /// They are, for ASCII.
    Ignored,
}

/// Values by pattern.
#[derive(Debug, Clone)]
pub struct SegmentTree<T> {
    case: Case,
    root: Node<T>,
}

#[derive(Debug, Clone)]
struct Node<T> {
    value: Option<T>,
    children: HashMap<Box<[u8]>, Self>,
}

/// The way a pattern matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentMatch<'p> {
    /// The part of the path beyond the pattern: empty, or with its `/`.
    pub rest: &'p str,
    /// True if the path's segments are the very ones of the pattern, nothing decoded or cut.
    pub is_literal: bool,
}

impl<T> SegmentTree<T> {
    /// A tree without patterns.
    pub fn new(case: Case) -> Self {
        Self { case, root: Node { value: None, children: HashMap::new() } }
    }

    /// The place of a pattern's value.
    pub fn place(&mut self, pattern: &RoutePattern) -> &mut Option<T> {
        let mut node = &mut self.root;
        for segment in pattern.segments() {
            let name = self.case.folded(Cow::Owned(path::decoded(segment))).into_owned();
            let new = || Node { value: None, children: HashMap::new() };
            node = node.children.entry(name.into()).or_insert_with(new);
        }
        &mut node.value
    }

    /// Returns what `pick` makes of the value with the most segments of which it makes something.
    pub fn longest<'t, 'p, R>(
        &'t self,
        path: &'p NormalPath,
        mut pick: impl FnMut(&'t T, SegmentMatch<'p>) -> Option<R>,
    ) -> Option<R> {
        let mut rest = path.as_str();
        let (mut node, mut is_literal, mut best) = (&self.root, true, None);
        loop {
            if let Some(value) = &node.value {
                best = pick(value, SegmentMatch { rest, is_literal }).or(best);
            }
            // The first segment that says something; those that are parameters alone say nothing.
            let name = loop {
                let Some(after) = rest.strip_prefix('/').filter(|after| !after.is_empty()) else { return best };
                let end = after.find('/').unwrap_or(after.len());
                let (segment, behind) = after.split_at_checked(end).unwrap_or((after, ""));
                rest = behind;
                let name = without_parameters(segment);
                is_literal &= name.len() == segment.len();
                if !name.is_empty() {
                    break name;
                }
            };
            let said =
                if name.contains('%') { Cow::Owned(path::decoded(name)) } else { Cow::Borrowed(name.as_bytes()) };
            let Some(child) = node.children.get(&*self.case.folded(said)) else { return best };
            node = child;
        }
    }
}

impl Case {
    fn folded(self, name: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
        match self {
            Self::Ignored if name.iter().any(u8::is_ascii_uppercase) => Cow::Owned(name.to_ascii_lowercase()),
            _ => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(case: Case, patterns: &[&str], path: &str) -> Option<(String, String, bool)> {
        let mut tree = SegmentTree::new(case);
        for pattern in patterns {
            let pattern: RoutePattern = pattern.parse().unwrap();
            *tree.place(&pattern) = Some(pattern.clone());
        }
        let path = NormalPath::normalise(path).unwrap();
        tree.longest(&path, |pattern, matched| Some((pattern.to_string(), matched.rest.to_owned(), matched.is_literal)))
    }

    #[test]
    fn the_most_segments_win() {
        let patterns = ["/", "/api", "/api/v1/documents", "/api/v1/c%20d"];
        for (path, pattern, rest, is_literal) in [
            ("/", "/", "/", true),
            ("/apix", "/", "/apix", true),
            ("/api/", "/api", "/", true),
            ("/api/v1/x", "/api", "/v1/x", true),
            ("/api/v1/documents", "/api/v1/documents", "", true),
            ("/api/v1/documents/7/", "/api/v1/documents", "/7/", true),
            ("/api/v1;a=b/documents/7", "/api/v1/documents", "/7", false),
            ("/api/;x/v1/documents", "/api/v1/documents", "", false),
            ("/api/v1/c%20d/e", "/api/v1/c%20d", "/e", true),
            ("/API/v1/documents", "/", "/API/v1/documents", true),
        ] {
            let expected = (pattern.to_owned(), rest.to_owned(), is_literal);
            assert_eq!(found(Case::Exact, &patterns, path), Some(expected), "{path}");
        }
        let any_case = found(Case::Ignored, &patterns, "/API/V1/Documents/7");
        assert_eq!(any_case, Some(("/api/v1/documents".to_owned(), "/7".to_owned(), true)));
        assert_eq!(found(Case::Exact, &["/a/b"], "/a"), None);
    }

    /// A step per segment of the path, whatever else there is: each step asks the value of its place, and no other.
    #[test]
    fn a_look_up_asks_no_more_among_many_patterns() {
        for count in [10, 10_000] {
            let mut tree = SegmentTree::new(Case::Exact);
            let others = (2..count).map(|number| format!("/api/{number}/{}", number % 7));
            for pattern in others.chain(["/api".to_owned(), "/api/v1".to_owned()]) {
                let pattern: RoutePattern = pattern.parse().unwrap();
                *tree.place(&pattern) = Some(pattern.clone());
            }
            let path = NormalPath::normalise("/api/v1/documents/7/8/9").unwrap();
            let mut asked = Vec::new();
            tree.longest(&path, |pattern, _| -> Option<()> {
                asked.push(pattern.to_string());
                None
            });
            assert_eq!(asked, ["/api", "/api/v1"], "{count} patterns");
        }
    }

    /// The tree and the list that bills are made by read every path alike.
    #[test]
    fn it_matches_what_billable_routes_match() {
        let list = "/api/v1/documents,/api,/a/b%20c";
        let routes = crate::BillableRoutes::parse(list).unwrap();
        let patterns: Vec<&str> = list.split(',').collect();
        for path in
            ["/", "/api", "/API/V1", "/api/v1/documents;x/y", "/a/B%20C/d", "/;/api", "/apis", "/a/b%3Bc", "/%61pi"]
        {
            let normal = NormalPath::normalise(path).unwrap();
            let listed = routes.longest_match(&normal).map(ToString::to_string);
            assert_eq!(found(Case::Ignored, &patterns, path).map(|(pattern, ..)| pattern), listed, "{path}");
        }
    }
}
