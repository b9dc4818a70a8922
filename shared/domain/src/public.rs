//! Further open routes: prefixes of whole segments that anybody may call, and that are never billed.
//!
//! They are matched strictly, as all that is open: the very segments, nothing decoded, cut or put into another case.

use crate::routes::{RouteError, RouteFault};
use crate::{BillableRoutes, LocalRoute, NormalPath, RouteClass, RoutePattern};

/// The prefixes of `PUBLIC_ROUTES`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublicRoutes(Vec<RoutePattern>);

impl PublicRoutes {
    /// Parses prefixes separated by commas; blanks around them are ignored.
    ///
    /// # Errors
    /// Every prefix that can't be used, in the order given: besides what no pattern may be, `/` (it would open everything)
    /// and what is never the upstream's.
    pub fn parse(list: &str) -> Result<Self, Vec<RouteError>> {
        let mut patterns = Vec::new();
        let mut errors = Vec::new();
        for text in list.split(',').map(str::trim) {
            let fault = match text.parse::<RoutePattern>() {
                Ok(pattern) => {
                    let fault = fault(&pattern, &patterns);
                    patterns.push(pattern);
                    fault
                }
                Err(error) => {
                    errors.push(error);
                    None
                }
            };
            errors.extend(fault.map(|fault| RouteError { pattern: text.chars().take(80).collect(), fault }));
        }
        if errors.is_empty() { Ok(Self(patterns)) } else { Err(errors) }
    }

    /// Returns whether this path lies below one of the prefixes.
    pub fn contains(&self, path: &NormalPath) -> bool {
        self.0.iter().any(|pattern| {
            let mut segments = path.segments();
            pattern.segments().all(|name| segments.next() == Some(name))
        })
    }
}

fn fault(pattern: &RoutePattern, others: &[RoutePattern]) -> Option<RouteFault> {
    let path = NormalPath::normalise(pattern.as_str()).ok()?;
    match RouteClass::of(&path, &BillableRoutes::default()) {
        _ if pattern.as_str() == "/" => Some(RouteFault::OpensAll),
        RouteClass::Local(LocalRoute::Metrics) | RouteClass::Billing => Some(RouteFault::Taken),
        _ if others.contains(pattern) => Some(RouteFault::Double),
        _ => None,
    }
}

impl RouteClass {
    /// The same, with further open prefixes: they open what would ask for a token, and change nothing else.
    #[must_use]
    pub fn opened_by(self, path: &NormalPath, public: &PublicRoutes) -> Self {
        match self {
            Self::Unbilled | Self::Billable(_) if public.contains(path) => Self::Open,
            class => class,
        }
    }
}

impl BillableRoutes {
    /// The patterns that can never be billed, since all that they match is open or the gateway's own.
    pub fn never_billed(&self, public: &PublicRoutes) -> Vec<&RoutePattern> {
        let is_billed = |pattern: &&RoutePattern| {
            let path = NormalPath::normalise(pattern.as_str());
            path.is_ok_and(|path| {
                matches!(RouteClass::of(&path, self).opened_by(&path, public), RouteClass::Billable(_))
            })
        };
        self.patterns().filter(|pattern| !is_billed(pattern)).collect()
    }
}
