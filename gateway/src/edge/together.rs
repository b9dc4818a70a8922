//! Checks what the settings of upstreams only say together: with each other, with `UPSTREAM_URL` and with `BILLING_URL`. Nothing is said
//! here of an entry that could not be read, which has been named already.

use std::collections::BTreeSet;

use goldleaves_runtime::settings::{Values, table};

use super::config::{EdgeConfig, UpstreamEntry};
use crate::transport::Origin;

/// Upstreams that are described and could not be read whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Unread {
    pub(super) names: BTreeSet<String>,
    /// Nothing is known of any of them.
    pub(super) is_all: bool,
}

impl Unread {
    fn holds(&self, name: &str) -> bool {
        self.is_all || self.names.contains(name)
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.is_all && self.names.is_empty()
    }
}

/// The addresses that are settings of their own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Urls<'a> {
    /// `UPSTREAM_URL`; the outer `None` is a mistake, already noted.
    pub(crate) upstream: Option<Option<&'a Origin>>,
    /// `BILLING_URL`.
    pub(crate) billing: Option<&'a Origin>,
}

impl EdgeConfig {
    /// Notes addresses that are said twice, entries that lead nowhere, TLS for an address without any, and hosts that no
    /// certificate can name.
    pub(crate) fn check_with(&self, values: &mut Values, urls: Urls<'_>) {
        if let Some(url) = urls.upstream {
            self.check_default(values, url);
        }
        let billing = self.entry("billing");
        if values.is_set(table::BILLING_URL) && billing.is_some_and(|entry| !entry.origins.is_empty()) {
            values.mistake(table::BILLING_URL, "is set, and so are the addresses of the upstream `billing`");
        }
        for (setting, origin, name) in
            [(table::UPSTREAM_URL, urls.upstream.flatten(), "default"), (table::BILLING_URL, urls.billing, "billing")]
        {
            let is_named = self.entry(name).and_then(|entry| entry.tls.as_ref()).is_some_and(|tls| tls.has_own_name());
            let why = origin.and_then(Origin::unnameable).filter(|_| !is_named && !self.unread.holds(name));
            if let Some(why) = why {
                values.mistake(setting, &format!("{why} in the entry {name:?} of [[upstreams]]"));
            }
        }
    }

    fn check_default(&self, values: &mut Values, url: Option<&Origin>) {
        let default = self.entry("default").map(|entry| (entry, !entry.origins.is_empty()));
        match (default, url) {
            (Some((_, true)), Some(_)) => {
                values.mistake(table::UPSTREAM_URL, "is set, and so are the addresses of the upstream `default`");
            }
            (Some((entry, false)), None) => values.mistake_at(
                format!("{}.addresses", entry.place),
                "is missing, and UPSTREAM_URL is not set; expected one of the two for the upstream `default`",
            ),
            (Some((UpstreamEntry { tls: Some(tls), place, .. }, false)), Some(url)) if !url.is_https() => {
                values.mistake_at(
                    format!("{place}.{}", tls.first_key()),
                    "is set for `default`, and UPSTREAM_URL is not https; expected an https address, or no such key",
                );
            }
            _ => {}
        }
        let is_described = url.is_some() || default.is_some_and(|(_, has_addresses)| has_addresses);
        // The one process brings an upstream of its own only where nothing else is named.
        if is_described || self.unread.holds("default") || self.upstreams.is_empty() {
            return;
        }
        for route in self.routes.iter().filter(|route| route.upstream == "default") {
            values.mistake_at(
                format!("{}.upstream", route.place),
                "is missing, and there is no default; expected the name of an entry of [[upstreams]], or UPSTREAM_URL to be set",
            );
        }
    }

    /// The entry of this name, as far as it could be read.
    pub(crate) fn entry(&self, name: &str) -> Option<&UpstreamEntry> {
        self.upstreams.iter().find(|entry| entry.name == name)
    }
}
