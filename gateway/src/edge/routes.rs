//! The way that a call goes, and what it is billed as: two questions, two trees.

use std::sync::Arc;

use goldleaves_domain::{BillableRoutes, Case, NormalPath, PublicRoutes, RoutePattern, SegmentTree, Units};
use goldleaves_runtime::settings::Values;
use http::Method;

use super::config::{Access, EdgeConfig, RouteEntry};
use super::opened;
use super::way::Way;
use crate::error::GatewayError;

/// The values of one path, by method.
#[derive(Debug, Clone)]
struct ByMethod<T> {
    /// Entries with methods; at one path each method is there once.
    some: Vec<(Vec<Method>, T)>,
    /// The entry without.
    any: Option<T>,
}

impl<T> Default for ByMethod<T> {
    fn default() -> Self {
        Self { some: Vec::new(), any: None }
    }
}

impl<T> ByMethod<T> {
    /// GET covers HEAD.
    fn of(&self, method: &Method) -> Option<&T> {
        let wanted = if *method == Method::HEAD { &Method::GET } else { method };
        let named = self.some.iter().find(|(methods, _)| methods.contains(wanted)).map(|(_, value)| value);
        named.or(self.any.as_ref())
    }

    fn add(&mut self, methods: Option<&[Method]>, value: T) {
        match methods {
            None => self.any = Some(value),
            Some(methods) => self.some.push((methods.to_vec(), value)),
        }
    }

    /// The value that one of the methods has already.
    fn taken(&self, methods: Option<&[Method]>) -> Option<&T> {
        match methods {
            None => self.any.as_ref(),
            Some(methods) => {
                let is_taken = |taken: &[Method]| methods.iter().any(|method| taken.contains(method));
                self.some.iter().find(|(taken, _)| is_taken(taken)).map(|(_, value)| value)
            }
        }
    }

    fn methods(&self) -> impl Iterator<Item = &Method> {
        self.some.iter().flat_map(|(methods, _)| methods)
    }
}

/// The ways of all entries.
#[derive(Debug)]
pub(crate) struct Routes {
    tree: SegmentTree<ByMethod<Arc<Way>>>,
}

/// The way that was found.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub(crate) way: &'a Arc<Way>,
    /// The number of bytes at the end of the path that are beyond the entry's own.
    pub(crate) rest_bytes: usize,
    /// True if the path begins with the entry's very segments.
    pub(crate) is_literal: bool,
}

impl Routes {
    pub(crate) fn new(entries: impl IntoIterator<Item = (RouteEntry, Arc<Way>)>) -> Self {
        let mut tree = SegmentTree::new(Case::Exact);
        for (entry, way) in entries {
            tree.place(&entry.path).get_or_insert_with(ByMethod::default).add(entry.methods.as_deref(), way);
        }
        Self { tree }
    }

    /// The way of the entry with the most segments that serves the method, among those that count.
    ///
    /// # Errors
    /// The methods of the longest path that serves others only, for `Allow`; none where no path matches.
    pub(crate) fn find(
        &self,
        path: &NormalPath,
        method: &Method,
        counts: impl Fn(&Way) -> bool,
    ) -> Result<Found<'_>, Vec<String>> {
        let mut allowed = Vec::new();
        let found = self.tree.longest(path, |here, matched| {
            let way = here.of(method).filter(|way| counts(way));
            if way.is_none() && here.any.is_none() {
                allowed = here.methods().map(ToString::to_string).collect();
            }
            way.map(|way| Found { way, rest_bytes: matched.rest.len(), is_literal: matched.is_literal })
        });
        found.ok_or(allowed)
    }
}

/// The patterns that calls are billed as, where entries have a say in it beside `BILLABLE_ROUTES`.
#[derive(Debug, Clone)]
pub(crate) struct Bills {
    routes: Arc<BillableRoutes>,
    /// `None` = no entry says anything. A pattern that is carved out is `None`.
    tree: Option<SegmentTree<ByMethod<Option<RoutePattern>>>>,
    patterns: Vec<RoutePattern>,
    /// The units of calls, by entry and without regard to case, as all that is money; `None` = no entry says it.
    units: Option<SegmentTree<ByMethod<Option<Units>>>>,
}

impl Bills {
    /// Returns what `BILLABLE_ROUTES` and the entries say together.
    pub(crate) fn new(routes: Arc<BillableRoutes>, entries: &[RouteEntry]) -> Self {
        Self { units: units(entries), ..Self::weighed(routes, entries, |_| ()) }
    }

    /// Notes each entry that contradicts another one, or `BILLABLE_ROUTES`.
    pub(crate) fn check(values: &mut Values, routes: &Arc<BillableRoutes>, entries: &[RouteEntry]) {
        Self::weighed(Arc::clone(routes), entries, |entry| {
            let text = format!(
                "says of {} what another entry, or BILLABLE_ROUTES, says the other way; expected one word on it",
                entry.path
            );
            values.mistake_at(format!("{}.billable", entry.place), text);
        });
    }

    fn weighed(routes: Arc<BillableRoutes>, entries: &[RouteEntry], mut contradicts: impl FnMut(&RouteEntry)) -> Self {
        let mut patterns: Vec<RoutePattern> = routes.patterns().cloned().collect();
        let said: Vec<(&RouteEntry, bool)> =
            entries.iter().filter_map(|entry| entry.billable.map(|billable| (entry, billable))).collect();
        if said.is_empty() {
            return Self { routes, tree: None, patterns, units: None };
        }
        let mut tree: SegmentTree<ByMethod<Option<RoutePattern>>> = SegmentTree::new(Case::Ignored);
        for pattern in &patterns {
            tree.place(pattern).get_or_insert_with(ByMethod::default).any = Some(Some(pattern.clone()));
        }
        for (entry, billable) in said {
            let here = tree.place(&entry.path).get_or_insert_with(ByMethod::default);
            let verdict = billable.then(|| entry.path.clone());
            let differs = |other: &Option<RoutePattern>| other.is_some() != billable;
            let contradicted = match &entry.methods {
                None => here.any.as_ref().is_some_and(differs),
                Some(methods) => here
                    .some
                    .iter()
                    .any(|(taken, other)| differs(other) && methods.iter().any(|method| taken.contains(method))),
            };
            if contradicted {
                contradicts(entry);
            }
            if billable && !patterns.contains(&entry.path) {
                patterns.push(entry.path.clone());
            }
            here.add(entry.methods.as_deref(), verdict);
        }
        Self { routes, tree: Some(tree), patterns, units: None }
    }

    /// Returns what a call is billed as.
    pub(crate) fn pattern(&self, path: &NormalPath, method: &Method) -> Option<RoutePattern> {
        match &self.tree {
            None => self.routes.longest_match(path).cloned(),
            Some(tree) => tree.longest(path, |here, _| here.of(method)).cloned().flatten(),
        }
    }

    /// Returns what a call counts when the upstream says nothing; `None` = one.
    pub(crate) fn units(&self, path: &NormalPath, method: &Method) -> Option<Units> {
        self.units.as_ref()?.longest(path, |here, _| here.of(method)).copied().flatten()
    }

    /// Every pattern that something is billed as.
    pub(crate) fn patterns(&self) -> &[RoutePattern] {
        &self.patterns
    }
}

/// Every entry has its place, so that the most specific one decides also when it says nothing.
fn units(entries: &[RouteEntry]) -> Option<SegmentTree<ByMethod<Option<Units>>>> {
    entries.iter().any(|entry| entry.units.is_some()).then(|| {
        let mut tree: SegmentTree<ByMethod<Option<Units>>> = SegmentTree::new(Case::Ignored);
        for entry in entries {
            let here = tree.place(&entry.path).get_or_insert_with(ByMethod::default);
            here.add(entry.methods.as_deref(), entry.units);
        }
        tree
    })
}

/// Notes what is wrong with the entries together: two for one path and method, and rewritten paths that would be
/// billed.
pub(crate) fn check(values: &mut Values, config: &EdgeConfig, bills: &Bills, public: &PublicRoutes) {
    opened::check(values, &config.routes, bills, public);
    let mut tree: SegmentTree<ByMethod<&str>> = SegmentTree::new(Case::Exact);
    for entry in &config.routes {
        let here = tree.place(&entry.path).get_or_insert_with(ByMethod::default);
        if let Some(first) = here.taken(entry.methods.as_deref()) {
            let text = format!(
                "is {}, which {first} has for one of the same methods; expected one entry for a path and a method",
                entry.path
            );
            values.mistake_at(format!("{}.path", entry.place), text);
        }
        here.add(entry.methods.as_deref(), &entry.place);
        if let Some(prefix) = &entry.prefix
            && entry.billable.is_none()
            && bills_of(bills, &entry.path, entry).is_none()
            && is_billed_there(bills, config, entry, prefix)
        {
            let text = format!(
                "makes of {} what is billed under another path of the same upstream; expected `billable` to say what \
                 the entry's calls are",
                entry.path
            );
            values.doubt_at(format!("{}.prefix", entry.place), text);
        }
    }
}

pub(super) fn bills_of(bills: &Bills, path: &RoutePattern, entry: &RouteEntry) -> Option<RoutePattern> {
    let normal = NormalPath::normalise(path.as_str()).ok()?;
    let methods = entry.methods.clone().unwrap_or_else(|| vec![Method::GET, Method::POST]);
    methods.iter().find_map(|method| bills.pattern(&normal, method))
}

/// Returns whether what the upstream sees lies under a billable pattern whose calls go to the same upstream.
fn is_billed_there(bills: &Bills, config: &EdgeConfig, entry: &RouteEntry, prefix: &str) -> bool {
    let text = if prefix.is_empty() { "/" } else { prefix };
    let Ok(leads_to) = text.parse::<RoutePattern>() else { return false };
    let upstream_of = |billed: &RoutePattern| {
        let above = config.routes.iter().filter(|other| is_below(billed.as_str(), other.path.as_str()));
        above.max_by_key(|other| other.path.as_str().len()).map_or("default", |other| other.upstream.as_str())
    };
    let lower = |path: &RoutePattern| path.as_str().to_ascii_lowercase();
    let is_reached = |billed: &&RoutePattern| is_below(&lower(billed), &lower(&leads_to));
    let below = bills.patterns().iter().filter(is_reached).filter(|billed| bills_of(bills, billed, entry).is_some());
    bills_of(bills, &leads_to, entry).iter().chain(below).any(|billed| upstream_of(billed) == entry.upstream)
}

pub(super) fn is_below(path: &str, pattern: &str) -> bool {
    pattern == "/" || path.strip_prefix(pattern).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Returns whether an entry opens what it matches.
pub(crate) fn opens(found: &Found<'_>) -> bool {
    // As all that is open: the very segments, nothing decoded or cut.
    found.way.access == Some(Access::Open) && found.is_literal
}

/// Returns what a path that no entry serves is answered with.
pub(crate) fn unserved(mut allowed: Vec<String>) -> GatewayError {
    if allowed.is_empty() {
        return GatewayError::NoRoute;
    }
    if allowed.iter().any(|method| method == "GET") {
        allowed.push("HEAD".to_owned());
    }
    GatewayError::MethodNotAllowed { allowed: allowed.join(", ").into() }
}
